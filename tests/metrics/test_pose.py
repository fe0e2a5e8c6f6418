"""Pose errors: the BOP toolkit's numbers, literals, a naive reference, and the laws they obey."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sightline.geometry.poses import make_pose
from sightline.geometry.rotations import exp, random_rotations
from sightline.geometry.symmetry import SymmetryGroup
from sightline.metrics.pose import (
    add,
    adds,
    complement_over_union,
    mspd,
    mssd,
    projection_error,
    rotation_error_deg,
    translation_error,
)
from tests.real_data import golden_path
from tests.tolerances import tolerance

F64 = torch.float64
TRIANGLE = torch.tensor([[0.0, 0.0, 0.0], [0.1, 0.0, 0.0], [0.0, 0.1, 0.0]], dtype=F64)
K = torch.tensor([[600.0, 0, 320], [0, 550, 240], [0, 0, 1]], dtype=F64)


def shift(x=0.0, y=0.0, z=0.0):
    return make_pose(torch.eye(3, dtype=F64), torch.tensor([x, y, z], dtype=F64))


def random_poses(count, seed, spread=0.3, distance=1.5):
    generator = torch.Generator().manual_seed(seed)
    t = spread * torch.randn(count, 3, generator=generator, dtype=F64)
    t[:, 2] = distance + t[:, 2].abs()
    return make_pose(random_rotations(count, generator=generator, dtype=F64), t)


def random_points(count, seed):
    return 0.2 * torch.randn(count, 3, generator=torch.Generator().manual_seed(seed), dtype=F64)


def naive_mssd(estimate, truth, points, symmetries):
    best = math.inf
    for symmetry in symmetries.numpy():
        worst = 0.0
        for point in points.numpy():
            x = np.append(point, 1.0)
            worst = max(worst, np.linalg.norm((estimate @ x - truth @ (symmetry @ x))[:3]))
        best = min(best, worst)
    return best


def naive_mspd(estimate, truth, points, symmetries):
    def pixel(pose, x):
        u = K.numpy() @ (pose @ x)[:3]
        return u[:2] / u[2]

    best = math.inf
    for symmetry in symmetries.numpy():
        worst = 0.0
        for point in points.numpy():
            x = np.append(point, 1.0)
            worst = max(worst, np.linalg.norm(pixel(estimate, x) - pixel(truth, symmetry @ x)))
        best = min(best, worst)
    return best


# --- the BOP toolkit's numbers


def bop_symmetries(info):
    """BOP's models_info entry as transforms, millimetres to metres."""
    discrete = [torch.eye(4, dtype=F64)]
    for entry in info.get("symmetries_discrete", []):
        motion = torch.tensor(entry, dtype=F64).reshape(4, 4)
        motion[:3, 3] /= 1000
        discrete.append(motion)
    [axis] = info.get("symmetries_continuous", [None])
    if axis is None:
        return SymmetryGroup(torch.stack(discrete)).transforms()
    offset = torch.tensor(axis["offset"], dtype=F64) / 1000
    return SymmetryGroup(torch.stack(discrete), torch.tensor(axis["axis"], dtype=F64), offset).transforms()


@pytest.fixture(scope="module")
def golden():
    with np.load(golden_path("bop_errors.npz")) as numbers:
        return {name: numbers[name] for name in numbers.files}


@pytest.fixture(scope="module")
def golden_poses(golden):
    def tensor(name):
        return torch.from_numpy(golden[name])

    estimate = make_pose(tensor("R_est"), tensor("t_est_mm") / 1000)
    truth = make_pose(tensor("R_gt"), tensor("t_gt_mm") / 1000)
    return estimate, truth, tensor("points_mm") / 1000, tensor("K")


def close_to_golden(errors, wanted):
    torch.testing.assert_close(errors, torch.from_numpy(wanted), rtol=0, atol=1e-9)


@pytest.mark.real
def test_errors_without_symmetry_equal_bop_toolkit(golden, golden_poses):
    estimate, truth, points, camera = golden_poses
    close_to_golden(add(estimate, truth, points) * 1000, golden["add_mm"])
    close_to_golden(adds(estimate, truth, points) * 1000, golden["adi_mm"])
    close_to_golden(translation_error(estimate, truth) * 1000, golden["te_mm"])
    close_to_golden(projection_error(estimate, truth, points, camera), golden["proj_px"])


@pytest.mark.real
def test_rotation_error_equals_bop_toolkit(golden, golden_poses):
    estimate, truth, *_ = golden_poses
    angle = rotation_error_deg(estimate, truth)
    # the toolkit takes the arc cosine, which near 180 degrees turns rounding of 1e-16 into some 1e-6 degrees
    safe = golden["re_deg"] < 179.9
    assert safe.sum() > 40
    close_to_golden(angle[torch.from_numpy(safe)], golden["re_deg"][safe])
    close_to_golden(torch.cos(torch.deg2rad(angle)), np.cos(np.deg2rad(golden["re_deg"])))


@pytest.mark.real
@pytest.mark.parametrize(
    "group", ["none", "c2_with_translation", "c4", "continuous_z", "continuous_z_offset_and_flip"]
)
def test_symmetry_aware_errors_equal_bop_toolkit(golden, golden_poses, group):
    estimate, truth, points, camera = golden_poses
    symmetries = bop_symmetries(json.loads(str(golden["symmetry_groups_json"]))[group])
    assert len(symmetries) == golden[f"num_symmetries_{group}"]
    close_to_golden(mssd(estimate, truth, points, symmetries) * 1000, golden[f"mssd_mm_{group}"])
    close_to_golden(mspd(estimate, truth, points, camera, symmetries), golden[f"mspd_px_{group}"])


# --- literals


def test_add_and_adds_of_a_shifted_triangle():
    moved = shift(x=0.1)
    assert add(moved, shift(), TRIANGLE).item() == pytest.approx(0.1, abs=1e-15)
    # (0.1, 0, 0) of the truth meets the shifted origin; the other two are 0.1 from their nearest
    assert adds(moved, shift(), TRIANGLE).item() == pytest.approx(0.2 / 3, abs=1e-15)


def test_adds_looks_from_the_truth_to_the_estimate():
    far = torch.tensor([[0.0, 0, 0], [0.1, 0, 0], [0.1, 0.01, 0]], dtype=F64)
    # shifted by -0.1 two of the true points lie 0.1 from the estimate's nearest, seen the other way one does
    assert adds(shift(x=-0.1), shift(), far).item() == pytest.approx((0.0 + 0.1 + 0.1) / 3, abs=1e-12)
    assert adds(shift(), shift(x=-0.1), far).item() == pytest.approx((0.1 + 0.0 + 0.01) / 3, abs=1e-12)


def test_mssd_takes_the_furthest_point_where_add_takes_the_mean():
    turned = make_pose(exp(torch.tensor([0.0, 0.0, torch.pi / 2], dtype=F64)), torch.zeros(3, dtype=F64))
    assert mssd(turned, shift(), TRIANGLE).item() == pytest.approx(0.1 * math.sqrt(2), abs=1e-15)
    assert add(turned, shift(), TRIANGLE).item() == pytest.approx(0.2 * math.sqrt(2) / 3, abs=1e-15)


def test_mspd_and_projection_error_of_a_sideways_shift():
    points = torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.0, -0.5]], dtype=F64)
    moved, truth = shift(x=0.01, y=0.02, z=1.0), shift(z=1.0)
    near = math.hypot(0.01 * 600, 0.02 * 550)
    assert mspd(moved, truth, points, K).item() == pytest.approx(2 * near, abs=1e-10)
    assert projection_error(moved, truth, points, K).item() == pytest.approx(1.5 * near, abs=1e-10)


def test_rotation_error_in_degrees():
    turned = make_pose(exp(torch.tensor([0.0, torch.pi / 3, 0.0], dtype=F64)), torch.ones(3, dtype=F64))
    assert rotation_error_deg(turned, shift()).item() == pytest.approx(60, abs=1e-12)


def test_complement_over_union():
    masks = torch.zeros(3, 4, 4, dtype=torch.bool)
    masks[0, :2], masks[1, 1:3] = True, True
    assert complement_over_union(masks, masks[0]).tolist() == pytest.approx([0, 2 / 3, 1])
    assert complement_over_union(masks[2], masks[2]).item() == 1


# --- against loops


@pytest.mark.parametrize("group", [SymmetryGroup.cyclic(3, (0, 0, 1), offset=(0.1, 0.0, 0.0)), None])
def test_symmetric_errors_equal_loops(group):
    estimate, truth, points = random_poses(4, 0), random_poses(4, 1), random_points(30, 2)
    symmetries = torch.eye(4, dtype=F64)[None] if group is None else group.transforms()
    given = None if group is None else symmetries
    surface = mssd(estimate, truth, points, given)
    picture = mspd(estimate, truth, points, K, given)
    for row in range(4):
        pair = estimate[row].numpy(), truth[row].numpy(), points, symmetries
        assert surface[row].item() == pytest.approx(naive_mssd(*pair), abs=1e-12)
        assert picture[row].item() == pytest.approx(naive_mspd(*pair), rel=1e-12)


def every_copy(error, estimate, truth, symmetries):
    return torch.stack([error(estimate, truth @ symmetry) for symmetry in symmetries]).amin(0)


@pytest.mark.parametrize("num_support", [42, 1])
def test_best_first_search_is_exact(monkeypatch, num_support):
    if num_support == 1:  # the bounds then say next to nothing about which copy is the best
        monkeypatch.setattr("sightline.metrics.pose._support_points", lambda points: points[:1])
    points = random_points(80, 3)
    symmetries = SymmetryGroup.continuous((0.2, 0.1, 1.0), (0.05, 0.0, 0.0), flip=True).transforms(0.2)
    estimate, truth = random_poses(6, 4), random_poses(6, 5)
    surface = every_copy(lambda *pair: mssd(*pair, points), estimate, truth, symmetries)
    picture = every_copy(lambda *pair: mspd(*pair, points, K), estimate, truth, symmetries)
    torch.testing.assert_close(mssd(estimate, truth, points, symmetries), surface, **tolerance(F64))
    torch.testing.assert_close(mspd(estimate, truth, points, K, symmetries), picture, **tolerance(F64))


def test_adds_equals_all_distances():
    estimate, truth, points = random_poses(5, 6), random_poses(5, 7), random_points(40, 8)
    seen, wanted = (pose[:, None, :3, :3] @ points[..., None] for pose in (estimate, truth))
    seen = seen[..., 0] + estimate[:, None, :3, 3]
    wanted = wanted[..., 0] + truth[:, None, :3, 3]
    nearest = (wanted[:, :, None] - seen[:, None]).norm(dim=-1).amin(-1).mean(-1)
    torch.testing.assert_close(adds(estimate, truth, points), nearest, **tolerance(F64))


def test_batches_broadcast_to_all_pairs():
    estimate, truth, points = random_poses(3, 9), random_poses(2, 10), random_points(20, 11)
    cameras = K * torch.tensor([[1.0, 1.1, 1], [1, 1.2, 1], [1, 1, 1]], dtype=F64)
    symmetries = SymmetryGroup.cyclic(2, (0, 0, 1)).transforms()
    table = {
        "add": add(estimate[:, None], truth, points),
        "adds": adds(estimate[:, None], truth, points),
        "mssd": mssd(estimate[:, None], truth, points, symmetries),
        "mspd": mspd(estimate[:, None], truth, points, torch.stack([K, cameras]), symmetries),
    }
    assert {errors.shape for errors in table.values()} == {(3, 2)}
    for e in range(3):
        for g, camera in enumerate((K, cameras)):
            pair = estimate[e], truth[g], points
            assert table["add"][e, g].item() == pytest.approx(add(*pair).item(), rel=1e-12)
            assert table["adds"][e, g].item() == pytest.approx(adds(*pair).item(), rel=1e-12)
            assert table["mssd"][e, g].item() == pytest.approx(mssd(*pair, symmetries).item(), rel=1e-12)
            assert table["mspd"][e, g].item() == pytest.approx(
                mspd(*pair, camera, symmetries).item(), rel=1e-12
            )


# --- laws

seeds = st.integers(0, 10_000)


@settings(max_examples=25, deadline=None)
@given(seed=seeds, turns=st.integers(1, 6), dihedral=st.booleans())
def test_a_symmetric_copy_of_the_truth_has_no_error(seed, turns, dihedral):
    build = SymmetryGroup.dihedral if dihedral else SymmetryGroup.cyclic
    symmetries = build(turns, (0.3, -0.2, 1.0), offset=(0.02, -0.05, 0.1)).transforms()
    truth, points = random_poses(len(symmetries), seed), random_points(25, seed)
    copies = truth @ symmetries
    assert mssd(copies, truth, points, symmetries).max() < 1e-12
    assert mspd(copies, truth, points, K, symmetries).max() < 1e-9
    if len(symmetries) > 1:
        assert mssd(copies, truth, points)[1:].min() > 1e-3


@settings(max_examples=25, deadline=None)
@given(seed=seeds)
def test_moving_the_camera_changes_no_distance_in_space(seed):
    estimate, truth, points = random_poses(3, seed), random_poses(3, seed + 1), random_points(25, seed)
    moved_from_cam = random_poses(1, seed + 2)
    symmetries = SymmetryGroup.cyclic(4, (0, 0, 1)).transforms()
    for error in (add, adds, lambda *pair: mssd(*pair, symmetries)):
        torch.testing.assert_close(
            error(moved_from_cam @ estimate, moved_from_cam @ truth, points),
            error(estimate, truth, points),
            **tolerance(F64),
        )


@settings(max_examples=25, deadline=None)
@given(seed=seeds, factor=st.floats(0.1, 10))
def test_mspd_knows_no_scale_and_distances_grow_with_it(seed, factor):
    estimate, truth, points = random_poses(3, seed), random_poses(3, seed + 1), random_points(25, seed)
    scale = torch.ones(4, 4, dtype=F64)
    scale[:3, 3] = factor
    torch.testing.assert_close(
        mspd(estimate * scale, truth * scale, points * factor, K),
        mspd(estimate, truth, points, K),
        **tolerance(F64, "iterative"),
    )
    torch.testing.assert_close(
        mssd(estimate * scale, truth * scale, points * factor),
        factor * mssd(estimate, truth, points),
        **tolerance(F64),
    )


@settings(max_examples=25, deadline=None)
@given(seed=seeds)
def test_order_of_the_errors(seed):
    estimate, truth, points = random_poses(4, seed), random_poses(4, seed + 1), random_points(25, seed)
    symmetries = SymmetryGroup.dihedral(3, (0, 0, 1)).transforms()
    slack = 1 + 1e-12
    assert (adds(estimate, truth, points) <= add(estimate, truth, points) * slack).all()
    assert (add(estimate, truth, points) <= mssd(estimate, truth, points) * slack).all()
    assert (mssd(estimate, truth, points, symmetries) <= mssd(estimate, truth, points) * slack).all()
    torch.testing.assert_close(add(estimate, truth, points), add(truth, estimate, points), **tolerance(F64))


# --- edges


def test_a_failed_pose_has_no_error_at_all():
    lost = torch.full((4, 4), torch.nan, dtype=F64)
    estimate = torch.stack([lost, shift(z=1.0)])
    truth, symmetries = shift(z=1.0), SymmetryGroup.cyclic(2, (0, 0, 1)).transforms()
    for errors in (
        add(estimate, truth, TRIANGLE),
        adds(estimate, truth, TRIANGLE),
        mssd(estimate, truth, TRIANGLE, symmetries),
        mspd(estimate, truth, TRIANGLE, K, symmetries),
        projection_error(estimate, truth, TRIANGLE, K),
        rotation_error_deg(estimate, truth),
        translation_error(estimate, truth),
    ):
        assert errors.isnan().tolist() == [True, False]


def test_a_pose_behind_the_camera_is_infinitely_far_in_the_picture():
    behind, truth = shift(z=-1.0), shift(z=1.0)
    assert mspd(behind, truth, TRIANGLE, K).item() == math.inf
    assert projection_error(behind, truth, TRIANGLE, K).item() == math.inf
    assert mssd(behind, truth, TRIANGLE).item() == pytest.approx(2)


def test_no_pairs_give_no_errors():
    none = torch.zeros(0, 4, 4, dtype=F64)
    for errors in (add(none, none, TRIANGLE), adds(none, none, TRIANGLE), mssd(none, none, TRIANGLE)):
        assert errors.shape == (0,)
    assert mspd(none, none, TRIANGLE, K).shape == (0,)


@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_dtype_is_kept(dtype):
    estimate, truth = random_poses(2, 12).to(dtype), random_poses(2, 13).to(dtype)
    points, symmetries = (
        random_points(10, 14).to(dtype),
        SymmetryGroup.cyclic(2, (0, 0, 1)).transforms().to(dtype),
    )
    errors = [
        add(estimate, truth, points),
        adds(estimate, truth, points),
        mssd(estimate, truth, points, symmetries),
        mspd(estimate, truth, points, K.to(dtype), symmetries),
    ]
    assert {error.dtype for error in errors} == {dtype}


def test_gradients():
    points = random_points(6, 15)
    truth, R = random_poses(2, 16), random_poses(2, 17)[:, :3, :3]
    t = truth[:, :3, 3] + 0.1
    symmetries = SymmetryGroup.cyclic(2, (0, 0, 1)).transforms()
    for error in (
        lambda t: add(make_pose(R, t), truth, points),
        lambda t: adds(make_pose(R, t), truth, points),
        lambda t: mssd(make_pose(R, t), truth, points, symmetries),
        lambda t: mspd(make_pose(R, t), truth, points, K, symmetries),
    ):
        assert torch.autograd.gradcheck(error, t.clone().requires_grad_())
