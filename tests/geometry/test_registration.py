from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sightline.geometry.poses import compose, invert, make_pose, transform
from sightline.geometry.registration import align_points, nearest_by_distance, register_to_planes
from sightline.geometry.rotations import exp, geodesic_distance
from tests.tolerances import tolerance

EXACT = tolerance(torch.float64, "iterative")


def drawn(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def motion(seed: int, *batch: int, angle: float = 1.0, shift: float = 1.0) -> torch.Tensor:
    axis = torch.nn.functional.normalize(drawn(seed, *batch, 3), dim=-1)
    return make_pose(exp(angle * axis), shift * drawn(seed + 1, *batch, 3))


def bumpy(count: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Points and normals of a closed surface without symmetry, some 0.1 m large."""
    direction = torch.nn.functional.normalize(drawn(seed, count, 3), dim=-1).requires_grad_()

    def radius(d):
        d = torch.nn.functional.normalize(d, dim=-1)
        x, y, z = d.unbind(-1)
        return 0.1 * (1 + 0.25 * x * y + 0.2 * z**3 + 0.15 * torch.sin(3 * x + 1) + 0.1 * y)

    (slope,) = torch.autograd.grad(radius(direction).sum(), direction)  # r(d) is of degree 0
    with torch.no_grad():
        r = radius(direction)[:, None]
        normal = torch.nn.functional.normalize(direction - slope / r, dim=-1)
        return direction.detach() * r, normal


# Known pairs


@given(seed=st.integers(0, 2**20), with_scale=st.booleans())
@settings(max_examples=25, deadline=None)
def test_a_motion_is_found_exactly(seed, with_scale):
    b_from_a = motion(seed, 3, angle=seed % 4)
    if with_scale:
        b_from_a[:, :3, :3] *= 0.1 + (seed % 7)
    a = drawn(seed, 3, 5, 3)
    found = align_points(a, transform(b_from_a, a), with_scale=with_scale)
    assert found.valid.all()
    torch.testing.assert_close(found.b_from_a, b_from_a, **EXACT)
    assert float(found.rmse.max()) < 1e-9


@given(seed=st.integers(0, 2**20))
@settings(max_examples=15, deadline=None)
def test_moving_either_frame_moves_the_answer(seed):
    a, b, weights = drawn(seed, 6, 3), drawn(seed + 1, 6, 3), drawn(seed + 2, 6).square()
    a2_from_a, b2_from_b = motion(seed), motion(seed + 5)
    moved = align_points(transform(a2_from_a, a), transform(b2_from_b, b), weights)
    expected = compose(b2_from_b, align_points(a, b, weights).b_from_a, invert(a2_from_a))
    torch.testing.assert_close(moved.b_from_a, expected, rtol=1e-7, atol=1e-7)
    order = torch.randperm(6, generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(
        align_points(a[order], b[order], weights[order]).b_from_a,
        align_points(a, b, weights).b_from_a,
        **EXACT,
    )


def test_it_is_the_best_rotation_of_nearby_ones():
    a, b, weights = drawn(0, 20, 3), drawn(1, 20, 3), drawn(2, 20).square()
    found = align_points(a, b, weights)

    def cost(pose):
        return (weights * (transform(pose, a) - b).square().sum(-1)).sum(-1)

    nearby = compose(motion(3, 50, angle=0.05, shift=0.05), found.b_from_a.expand(50, 4, 4))
    assert (cost(nearby) > cost(found.b_from_a)).all()
    torch.testing.assert_close(found.rmse, (cost(found.b_from_a) / weights.sum()).sqrt())


def test_a_mirrored_set_gets_a_rotation():
    a = drawn(0, 10, 3)
    found = align_points(a, a * torch.tensor([-1.0, 1, 1]))
    assert found.valid and float(torch.linalg.det(found.b_from_a[:3, :3])) == pytest.approx(1)


def test_weights_and_missing_pairs_leave_points_out():
    b_from_a, a = motion(0), drawn(1, 8, 3)
    b = transform(b_from_a, a)
    b[0] += 5
    weights = torch.ones(8, dtype=torch.float64)
    weights[0] = 0
    torch.testing.assert_close(align_points(a, b, weights).b_from_a, b_from_a, **EXACT)
    b[0] = torch.nan
    torch.testing.assert_close(align_points(a, b).b_from_a, b_from_a, **EXACT)


def test_what_does_not_fix_a_rotation_is_not_valid():
    line = torch.linspace(0, 1, 6, dtype=torch.float64)[:, None] * torch.tensor([1.0, 2, 3])
    plane = drawn(0, 6, 3) * torch.tensor([1.0, 1, 0])
    point = torch.ones(6, 3, dtype=torch.float64)
    octahedron = torch.cat([torch.eye(3), -torch.eye(3)]).double()
    a = torch.stack([line, point, plane, octahedron])
    b = transform(motion(1), a)
    b[3] = -octahedron  # a point reflection: every rotation by pi about an axis does as well
    found = align_points(a, b)
    assert found.valid.tolist() == [False, False, True, False]
    assert torch.equal(found.b_from_a.isnan().all(-1).all(-1), ~found.valid)
    two = align_points(a[2, :2], b[2, :2])
    nothing = align_points(a[2], b[2], torch.zeros(6, dtype=torch.float64))
    assert not two.valid and not nothing.valid and nothing.rmse.isnan()


def test_a_batch_equals_the_loop():
    a, b, weights = drawn(0, 2, 3, 7, 3), drawn(1, 2, 3, 7, 3), drawn(2, 2, 3, 7).square()
    whole = align_points(a, b, weights, with_scale=True)
    for i in range(2):
        for j in range(3):
            for together, alone in zip(
                whole, align_points(a[i, j], b[i, j], weights[i, j], with_scale=True), strict=True
            ):
                torch.testing.assert_close(together[i, j], alone, **EXACT)


@pytest.mark.parametrize("with_scale", [False, True])
def test_gradients(with_scale):
    a = drawn(0, 2, 5, 3)
    b = transform(motion(1), a) + 0.1 * drawn(2, 2, 5, 3)
    weights = drawn(3, 2, 5).square() + 0.1
    inputs = [tensor.requires_grad_() for tensor in (a, b, weights)]

    def solve(*args):
        found = align_points(*args, with_scale=with_scale)
        return found.b_from_a, found.scale

    assert torch.autograd.gradcheck(solve, inputs)


def test_gradients_are_finite_at_a_perfect_fit_and_zero_where_not_valid():
    a = torch.stack([drawn(0, 5, 3), torch.ones(5, 3).double()]).requires_grad_()
    b = transform(motion(1), a.detach()).requires_grad_()
    align_points(a, b, with_scale=True).b_from_a.nansum().backward()
    for tensor in (a, b):
        assert tensor.grad.isfinite().all() and tensor.grad[1].abs().sum() == 0


# Unknown pairs


def test_icp_finds_a_displaced_surface_from_many_starts():
    points, normals = bumpy(3000)
    b_from_a = motion(0, angle=0.4, shift=0.3)
    cloud = transform(invert(b_from_a), bumpy(600, seed=1)[0])
    starts = compose(motion(2, 8, angle=0.2, shift=0.01), b_from_a.expand(8, 4, 4))
    found = register_to_planes(cloud, points, normals, starts.view(2, 4, 4, 4))
    assert found.valid.all() and (found.rank == 6).all() and (found.iterations < 50).all()
    angle = geodesic_distance(found.b_from_a[..., :3, :3], b_from_a[:3, :3].expand(2, 4, 3, 3))
    assert float(angle.max()) < 2e-3  # the target is sampled every 4 mm
    miss = (transform(found.b_from_a, cloud) - transform(b_from_a, cloud)).norm(dim=-1)
    assert float(miss.max()) < 5e-4 and float(found.rmse.max()) < 5e-4
    alone = register_to_planes(cloud, points, normals, starts[5])
    torch.testing.assert_close(found.b_from_a[1, 1], alone.b_from_a, **EXACT)
    assert found.iterations[1, 1] == alone.iterations


def test_icp_on_its_own_points_is_exact():
    points, normals = bumpy(800)
    start = motion(4, angle=0.05, shift=0.002)
    found = register_to_planes(points, points, normals, start)
    torch.testing.assert_close(found.b_from_a, torch.eye(4).double(), rtol=0, atol=1e-8)
    assert float(found.rmse) < 1e-9 and float(found.overlap) == 1


def test_trimming_leaves_out_what_is_not_on_the_surface():
    points, normals = bumpy(3000)
    cloud = torch.cat([bumpy(700, seed=1)[0], 0.15 + 0.02 * drawn(5, 300, 3)])  # 30 % clutter
    start = motion(6, angle=0.1, shift=0.004)
    misses = {}
    for keep in (0.65, 1.0):
        found = register_to_planes(cloud, points, normals, start, keep=keep)
        misses[keep] = float((transform(found.b_from_a, cloud[:700]) - cloud[:700]).norm(dim=-1).max())
        assert float(found.overlap) == pytest.approx(keep)
    assert misses[0.65] < 1e-3 < 0.01 < misses[1.0]
    near = register_to_planes(cloud, points, normals, start, max_distance=0.03)
    assert float((transform(near.b_from_a, cloud[:700]) - cloud[:700]).norm(dim=-1).max()) < 1e-3


def test_motions_that_the_surface_does_not_fix_stay():
    angle, height = torch.rand(2, 2000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    angle = 6.2832 * angle
    zero = torch.zeros_like(angle)
    normals = torch.stack([angle.cos(), angle.sin(), zero], -1)
    tube = 0.05 * normals + torch.stack([zero, zero, 0.2 * height], -1)
    plane = torch.stack([0.2 * angle, height, zero], -1)
    up = torch.tensor([0.0, 0, 1], dtype=torch.float64).expand(2000, 3)
    start = make_pose(torch.eye(3).double(), torch.tensor([1e-3, 0, 1e-3], dtype=torch.float64))
    on_tube = register_to_planes(tube, tube, normals, start)
    on_plane = register_to_planes(plane, plane, up, start)
    assert on_tube.valid and on_tube.rank == 4  # neither the turn about its axis nor the shift along it
    assert on_plane.valid and on_plane.rank == 3
    torch.testing.assert_close(
        on_plane.b_from_a[:3, 3], start[:3, 3] * torch.tensor([1.0, 1, 0]), rtol=0, atol=1e-9
    )


def test_too_far_or_too_few_is_not_valid():
    points, normals = bumpy(500)
    start = torch.eye(4, dtype=torch.float64)
    far = register_to_planes(points + 5, points, normals, start, max_distance=0.1)
    few = register_to_planes(points[:4], points, normals, start)
    gone = register_to_planes(points * torch.nan, points, normals, start)
    lost = register_to_planes(points, points, normals, start * torch.nan)
    for found in (far, few, gone, lost):
        assert not found.valid and found.b_from_a.isnan().all() and found.rmse.isnan()


@pytest.mark.parametrize(
    ("change", "name"),
    [({"normals_b": torch.ones(3, 3)}, "normals_b"), ({"keep": 0.0}, "keep"), ({"points_b": None}, "finite")],
)
def test_bad_input_is_named(change, name):
    points, normals = bumpy(10)
    given = {"points_b": points, "normals_b": normals} | change
    if given["points_b"] is None:
        given["points_b"] = points * torch.nan
    with pytest.raises(ValueError, match=name):
        register_to_planes(points, b_from_a=torch.eye(4).double(), **given)


def test_the_search_without_a_tree_finds_the_same(monkeypatch):
    monkeypatch.setattr("sightline.geometry.registration._CHUNK", 1000)
    points, _ = bumpy(300)
    queries = drawn(0, 2, 40, 3) * 0.1
    index, distance = nearest_by_distance(queries, points)
    every = (queries[..., None, :] - points).norm(dim=-1)
    assert torch.equal(index, every.argmin(-1))
    torch.testing.assert_close(distance, every.amin(-1), **EXACT)
