"""Symmetry groups: the specification's numbers, group laws, alignment, BOP's sampling and golden values."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sightline.geometry.poses import make_pose, transform, turn_about
from sightline.geometry.rotations import exp, geodesic_distance, random_rotations
from sightline.geometry.symmetry import (
    SymmetryGroup,
    stack_symmetries,
    symmetric_align,
    symmetric_distance,
    symmetric_poses,
)
from tests.real_data import golden_path
from tests.tolerances import tolerance

EXACT = tolerance(torch.float64)
seeds = st.integers(0, 2**31 - 1)
X, Y, Z = torch.eye(3, dtype=torch.float64)
R_GT = exp(0.7 * (X + Y) / math.sqrt(2))
TILTED = (1.0, -2.0, 0.5)
GROUPS = {
    "none": SymmetryGroup.none(),
    "C2": SymmetryGroup.cyclic(2, Z),
    "C4": SymmetryGroup.cyclic(4, Z),
    "C5 tilted, off centre": SymmetryGroup.cyclic(5, TILTED, offset=(0.1, 0.2, 0.3)),
    "D2": SymmetryGroup.dihedral(2, Z),
    "D6 tilted, off centre": SymmetryGroup.dihedral(6, TILTED, offset=(0.1, 0.2, 0.3)),
    "Cinf": SymmetryGroup.continuous(Z),
    "Dinf tilted, off centre": SymmetryGroup.continuous(TILTED, (0.1, -0.2, 0.3), flip=True),
}
ALL = pytest.mark.parametrize("group", GROUPS.values(), ids=GROUPS.keys())


def turn(axis, angle):
    return exp(axis * angle)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def distance(R_pred, R_gt, group):
    return symmetric_distance(R_pred, R_gt, group).item()


# --- the specification's numbers


def test_c4_forgives_quarter_turns():
    R_pred = R_GT @ turn(Z, math.pi / 2 + 0.1)
    assert geodesic_distance(R_pred, R_GT).item() == pytest.approx(1.6707963, abs=1e-7)
    assert distance(R_pred, R_GT, GROUPS["C4"]) == pytest.approx(0.1, abs=1e-14)


def test_symmetries_multiply_from_the_right():
    quarter = turn(Z, math.pi / 2)
    assert distance(R_GT @ quarter, R_GT, GROUPS["C4"]) == pytest.approx(0, abs=1e-14)
    from_the_left = min(geodesic_distance(R_GT @ quarter, turn(Z, k * math.pi / 2) @ R_GT) for k in range(4))
    assert from_the_left.item() == pytest.approx(0.9796, abs=1e-4)


def test_continuous_in_closed_form():
    bottle = GROUPS["Cinf"]
    assert distance(R_GT @ turn(Z, 1.234) @ turn(X, 0.2), R_GT, bottle) == pytest.approx(0.2, abs=1e-14)
    assert distance(R_GT @ turn(Z, math.pi / 8), R_GT, bottle) == pytest.approx(0, abs=1e-14)
    eight = SymmetryGroup.cyclic(8, Z)  # samples are not enough
    assert distance(R_GT @ turn(Z, math.pi / 8), R_GT, eight) == pytest.approx(0.3927, abs=1e-4)


@pytest.mark.parametrize("tilt", [0.2, 1.5, 1.7, 3.0, math.pi])
def test_flip_forgives_the_ends(tilt):
    R_pred = R_GT @ turn(Z, 1.234) @ turn(X, tilt)
    assert distance(R_pred, R_GT, SymmetryGroup.continuous(Z)) == pytest.approx(tilt, abs=1e-12)
    flipped = SymmetryGroup.continuous(Z, flip=True)
    assert distance(R_pred, R_GT, flipped) == pytest.approx(min(tilt, math.pi - tilt), abs=1e-12)


# --- groups


@pytest.mark.parametrize("n", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("axis", [(0, 0, 1), (2, 0, 0), TILTED])
def test_sizes_and_closure(n, axis):
    axis = tuple(map(float, axis))
    cyclic = SymmetryGroup.cyclic(n, axis, offset=(0.3, 0.0, -0.1))
    dihedral = SymmetryGroup.dihedral(n, axis, offset=(0.3, 0.0, -0.1))
    assert len(cyclic.transforms()) == n
    assert len(dihedral.transforms()) == 2 * n
    for members in (cyclic.discrete, dihedral.discrete):
        gaps = (members[:, None] - members[None]).abs().amax((-2, -1)) + torch.eye(len(members))
        assert gaps.min() > 0.1  # all different
        products = members[:, None] @ members[None]
        to_members = (products[:, :, None] - members).abs().amax((-2, -1)).amin(-1)
        assert to_members.max() < 1e-12


def test_a_box_keeps_its_corners_under_d2_only_with_its_own_flip_axis():
    corners = torch.cartesian_prod(*[torch.tensor([-s, s]) for s in (0.1, 0.2, 0.3)]).double()
    turned = transform(turn_about(Z, X * 0, torch.tensor(0.4).double()), corners)
    aligned = SymmetryGroup.dihedral(2, Z, flip_axis=turn(Z, 0.4) @ X)
    for S in aligned.discrete:
        assert torch.cdist(transform(S, turned), turned).amin(-1).max() < 1e-8
    other = SymmetryGroup.dihedral(2, Z)
    assert max(torch.cdist(transform(S, turned), turned).amin(-1).max() for S in other.discrete) > 0.05


@ALL
def test_the_axis_stays_where_it_is(group):
    assert torch.equal(group.transforms()[0], torch.eye(4).double())
    if group.axis is None:
        return
    assert group.axis.norm().item() == pytest.approx(1, abs=1e-15)
    on_axis = torch.stack([group.offset - group.axis, group.offset, group.offset + group.axis])
    moved = transform(group.transforms(0.5), on_axis)
    same = (moved - on_axis).abs().amax((-2, -1)) < 1e-12
    flipped = (moved - on_axis.flip(0)).abs().amax((-2, -1)) < 1e-12
    assert (same | flipped).all()


def test_names():
    assert len(SymmetryGroup.from_name("none").discrete) == 1
    assert len(SymmetryGroup.from_name("C4").discrete) == 4
    assert len(SymmetryGroup.from_name("Cn", n=3).discrete) == 3
    assert len(SymmetryGroup.from_name("D12", axis=(1.0, 0.0, 0.0)).discrete) == 24
    assert len(SymmetryGroup.from_name("Dn", n=5).discrete) == 10
    bottle, can = SymmetryGroup.from_name("Cinf", axis=(0.0, 3.0, 0.0)), SymmetryGroup.from_name("Dinf")
    assert bottle.axis.tolist() == [0, 1, 0]
    assert (len(bottle.discrete), len(can.discrete)) == (1, 2)
    with pytest.warns(UserWarning, match="mirror: not a proper rotation"):
        assert len(SymmetryGroup.from_name("mirror").discrete) == 1


@pytest.mark.parametrize("name", ["Sn", "c4", "C", "C4x", "mirrored", "Cinfinite", ""])
def test_unknown_names(name):
    with pytest.raises(ValueError, match="expected none, mirror, C<n>"):
        SymmetryGroup.from_name(name)


def test_bad_input():
    eye = torch.eye(4)
    with pytest.raises(ValueError, match="axis: expected a direction, got the zero vector"):
        SymmetryGroup.continuous((0.0, 0.0, 0.0))
    with pytest.raises(ValueError, match="zero vector"):
        SymmetryGroup.from_name("C4", axis=(0.0, 0.0, 0.0))
    with pytest.raises(ValueError, match="axis: expected three finite numbers"):
        SymmetryGroup.cyclic(2, (0.0, math.nan, 1.0))
    with pytest.raises(ValueError, match="axis: expected three finite numbers"):
        SymmetryGroup.cyclic(2, (0.0, 1.0))
    with pytest.raises(ValueError, match="n: expected a whole number of at least 1, got 0"):
        SymmetryGroup.cyclic(0, Z)
    with pytest.raises(ValueError, match="got a mirror"):
        SymmetryGroup(torch.stack([eye, torch.diag(torch.tensor([1.0, 1.0, -1.0, 1.0]))]))
    with pytest.raises(ValueError, match="identity in the first place"):
        SymmetryGroup(torch.diag(torch.tensor([-1.0, -1.0, 1.0, 1.0]))[None])
    with pytest.raises(ValueError, match="rigid motions"):
        SymmetryGroup(torch.stack([eye, 2 * eye]))
    with pytest.raises(ValueError, match=r"expected shape \(k, 4, 4\), got \(4, 4\)"):
        SymmetryGroup(eye)
    with pytest.raises(ValueError, match="offset: expected an axis"):
        SymmetryGroup(eye[None], offset=torch.zeros(3))
    with pytest.raises(ValueError, match="perpendicular"):
        SymmetryGroup.dihedral(2, Z, flip_axis=(0.0, 1.0, 1.0))
    with pytest.raises(ValueError, match="expected n with Cn"):
        SymmetryGroup.from_name("C4", n=3)
    with pytest.raises(ValueError, match="expected n with Cn"):
        SymmetryGroup.from_name("Dn")
    with pytest.raises(ValueError, match="at least one symmetry group"):
        stack_symmetries([])


# --- distances


@ALL
@settings(max_examples=10, deadline=None)
@given(seed=seeds)
def test_distance_is_blind_to_the_group_and_bounded_by_samples(group, seed):
    R_pred, R_gt = random_rotations((2, 20), generator=generator(seed))
    d = symmetric_distance(R_pred, R_gt, group)
    S = group.transforms(0.05)[:, None, :3, :3]
    pick = torch.randint(len(S), (20,), generator=generator(seed))
    chosen = S[pick, 0]
    torch.testing.assert_close(symmetric_distance(R_pred @ chosen, R_gt, group), d, **EXACT)
    torch.testing.assert_close(symmetric_distance(R_pred, R_gt @ chosen, group), d, **EXACT)
    torch.testing.assert_close(symmetric_distance(R_gt, R_pred, group), d, **EXACT)
    sampled = geodesic_distance(R_pred, R_gt @ S).amin(0)
    assert (sampled - d).min() > -1e-12
    assert (sampled - d).max() < (1e-12 if group.axis is None else 0.026)


def test_every_object_has_its_own_group_in_a_batch():
    groups = stack_symmetries(list(GROUPS.values()))
    count = len(GROUPS)
    R_pred, R_gt = random_rotations((2, 3, count), generator=generator(1))
    together = symmetric_distance(R_pred, R_gt, groups)
    for column, group in enumerate(GROUPS.values()):
        alone = symmetric_distance(R_pred[:, column], R_gt[:, column], group)
        torch.testing.assert_close(together[:, column], alone, **EXACT)
    # the table of a matcher: 5 predictions against 4 objects with class labels
    labels = torch.tensor([2, 0, 6, 2])
    predictions, objects = random_rotations(9, generator=generator(2)).split([5, 4])
    table = symmetric_distance(predictions[:, None], objects, groups[labels])
    assert table.shape == (5, 4)
    alone = distance(predictions[3], objects[2], GROUPS["Cinf"])  # number 6
    assert table[3, 2].item() == pytest.approx(alone, abs=1e-12)


def test_turns_follow_the_discrete_motions_also_where_the_set_is_no_group():
    tilt = turn_about(X, Y, torch.tensor(0.7).double())
    odd = SymmetryGroup(torch.stack([torch.eye(4).double(), tilt]), Z)
    turns = SymmetryGroup.continuous(Z).transforms(0.05)
    torch.testing.assert_close(odd.transforms(0.05), torch.cat([turns, turns @ tilt]), **EXACT)
    R_pred, R_gt = random_rotations((2, 40), generator=generator(11))
    sampled = geodesic_distance(R_pred, R_gt @ odd.transforms(0.002)[:, None, :3, :3]).amin(0)
    torch.testing.assert_close(symmetric_distance(R_pred, R_gt, odd), sampled, rtol=0, atol=1e-4)


def test_padding_never_wins():
    groups = stack_symmetries([GROUPS["none"], GROUPS["C4"], GROUPS["D6 tilted, off centre"]])
    half_turn = turn(Z, math.pi).expand(3, 3, 3)
    d = symmetric_distance(half_turn, torch.eye(3).double(), groups)
    assert d[0].item() == pytest.approx(math.pi, abs=1e-12)
    assert d[1].item() == pytest.approx(0, abs=1e-12)
    wrong = torch.eye(3).double() @ turn(X, 1.0)
    assert symmetric_distance(wrong, torch.eye(3).double(), groups)[0].item() == pytest.approx(1.0, abs=1e-12)


@ALL
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gradients(group, dtype):
    R_pred, R_gt = random_rotations((2, 6), generator=generator(4))
    if dtype == torch.float64:
        assert torch.autograd.gradcheck(
            lambda a, b: symmetric_distance(a, b, group), (R_pred.requires_grad_(), R_gt.requires_grad_())
        )
    at_truth = (R_gt @ group.transforms(0.5)[-1, :3, :3]).detach().to(dtype).requires_grad_()
    d = symmetric_distance(at_truth, R_gt.to(dtype), group)
    d.sum().backward()
    assert d.dtype == dtype
    assert d.max() < 1e-6
    assert at_truth.grad.isfinite().all()
    opposite = (R_gt @ turn(X, math.pi)).detach().to(dtype).requires_grad_()
    symmetric_distance(opposite, R_gt.to(dtype), group).sum().backward()
    assert opposite.grad.isfinite().all()


# --- equivalent poses


def random_poses(count, seed):
    t = torch.randn(count, 3, generator=generator(seed), dtype=torch.float64)
    return make_pose(random_rotations(count, generator=generator(seed)), t)


def test_equivalent_poses_carry_the_translation():
    group = GROUPS["D6 tilted, off centre"]
    pose = random_poses(1, 1)[0]
    S = group.discrete[4]
    equivalent = symmetric_poses(pose, group)[4]
    torch.testing.assert_close(equivalent[:3, :3], pose[:3, :3] @ S[:3, :3], **EXACT)
    torch.testing.assert_close(equivalent[:3, 3], pose[:3, :3] @ S[:3, 3] + pose[:3, 3], **EXACT)
    assert S[:3, 3].norm() > 0.1
    assert symmetric_poses(random_poses(2, 2), group).shape == (2, 12, 4, 4)


def test_a_score_over_equivalent_poses_is_at_least_the_plain_score():
    score = lambda poses: poses[..., :3, :3].diagonal(dim1=-2, dim2=-1).sum(-1)  # noqa: E731
    poses = random_poses(10, 3)
    for group in GROUPS.values():
        best = score(symmetric_poses(poses, group)).amax(-1)
        assert (best >= score(poses)).all()


@ALL
@settings(max_examples=10, deadline=None)
@given(seed=seeds)
def test_align_finds_the_nearest_equivalent_pose(group, seed):
    poses, reference = random_poses(12, seed), random_poses(12, seed + 1)
    aligned = symmetric_align(poses, reference, group)
    R, R_reference = aligned[:, :3, :3], reference[:, :3, :3]
    d = symmetric_distance(poses[:, :3, :3], R_reference, group)
    torch.testing.assert_close(geodesic_distance(R, R_reference), d, rtol=0, atol=1e-9)
    # what it did is a symmetry: it moves the object onto itself
    if group.axis is None:
        motion = torch.linalg.inv(poses) @ aligned
        assert (motion[:, None] - group.discrete).abs().amax((-2, -1)).amin(-1).max() < 1e-9
    else:
        ends = torch.stack([group.offset - 0.1 * group.axis, group.offset + 0.1 * group.axis])
        before, after = transform(poses, ends), transform(aligned, ends)
        same = (before - after).abs().amax((-2, -1)) < 1e-9
        flipped = (before - after.flip(-2)).abs().amax((-2, -1)) < 1e-9
        assert (same | flipped).all()


def test_align_leaves_the_nearest_alone_and_stays_finite():
    pose = random_poses(1, 5)[0]
    assert torch.equal(symmetric_align(pose, pose, GROUPS["C4"]), pose)
    torch.testing.assert_close(symmetric_align(pose, pose, GROUPS["Cinf"]), pose, **EXACT)
    batch = symmetric_align(pose, pose, stack_symmetries([GROUPS["none"], GROUPS["Cinf"]]))
    torch.testing.assert_close(batch, pose.expand(2, 4, 4), **EXACT)
    upside_down = make_pose(turn(X, math.pi), torch.zeros(3).double()).requires_grad_()
    aligned = symmetric_align(
        upside_down, torch.eye(4).double(), GROUPS["Cinf"]
    )  # no turn is better than another
    assert aligned.isfinite().all()
    aligned.sum().backward()
    assert upside_down.grad.isfinite().all()


# --- BOP


def groups_of_bop(golden):
    groups = {}
    for name, entry in json.loads(str(golden["symmetry_groups_json"])).items():
        motions = [torch.eye(4, dtype=torch.float64)]
        for row in entry.get("symmetries_discrete", []):
            motion = torch.tensor(row, dtype=torch.float64).reshape(4, 4)
            motion[:3, 3] /= 1000
            motions.append(motion)
        axes = entry.get("symmetries_continuous", [])
        axis = torch.tensor(axes[0]["axis"]) if axes else None
        offset = torch.tensor(axes[0]["offset"], dtype=torch.float64) / 1000 if axes else None
        groups[name] = SymmetryGroup(torch.stack(motions), axis, offset)
    return groups


def test_bop_samples_an_axis_315_times():
    assert len(SymmetryGroup.continuous(Z).transforms()) == 315
    assert len(SymmetryGroup.continuous(Z, flip=True).transforms()) == 630
    assert len(SymmetryGroup.continuous(Z).transforms(math.pi / 2)) == 4
    torch.testing.assert_close(
        SymmetryGroup.continuous(Z).transforms(math.pi / 2), SymmetryGroup.cyclic(4, Z).discrete, **EXACT
    )


@pytest.mark.real
def test_mssd_over_the_groups_equals_bop_toolkit():
    with np.load(golden_path("bop_errors.npz")) as golden:
        points = torch.from_numpy(golden["points_mm"]) / 1000
        est, gt = (
            make_pose(torch.from_numpy(golden[f"R_{name}"]), torch.from_numpy(golden[f"t_{name}_mm"]) / 1000)
            for name in ("est", "gt")
        )
        groups = groups_of_bop(golden)
        assert [len(group.transforms()) for group in groups.values()] == [1, 2, 4, 315, 630]
        for name, group in groups.items():
            assert len(group.transforms()) == golden[f"num_symmetries_{name}"]
            seen = transform(symmetric_poses(gt, group), points)  # (60, n, 200, 3)
            errors = (transform(est, points)[:, None] - seen).norm(dim=-1).amax(-1).amin(-1)
            mssd_mm = torch.from_numpy(golden[f"mssd_mm_{name}"])
            torch.testing.assert_close(1000 * errors, mssd_mm, rtol=0, atol=1e-9)
