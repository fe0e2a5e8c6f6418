from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sightline.geometry.pnp.solvers import mirrored_pose, spread_of_points
from sightline.geometry.rotations import geodesic_distance, random_rotations
from sightline.synthetic.problems import make_pnp_problems
from tests.tolerances import tolerance


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_spread_turns_and_shifts_with_the_points(seed):
    generator = torch.Generator().manual_seed(seed)
    points = torch.randn(30, 3, generator=generator, dtype=torch.float64) * torch.tensor([3.0, 2.0, 0.5])
    R = random_rotations(1, generator=generator)[0]
    before, after = spread_of_points(points), spread_of_points(points @ R.mT + 5)
    torch.testing.assert_close(after.extents, before.extents, **tolerance(torch.float64, "iterative"))
    torch.testing.assert_close(
        (after.axes.mT @ R @ before.axes).abs(), torch.eye(3).double(), rtol=0, atol=1e-9
    )


@pytest.mark.parametrize(("n", "zeros"), [(1, 3), (2, 2), (3, 1), (4, 0)])
def test_as_many_extents_as_points_allow(n, zeros):
    points = torch.tensor([[1.0, 2, 3], [4, 5, 7], [0, 0, 1], [5, 1, 1]])[:n]
    assert int((spread_of_points(points).extents < 1e-6).sum()) == zeros


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_mirroring_is_a_rotation_that_undoes_itself(seed):
    generator = torch.Generator().manual_seed(seed)
    R = random_rotations(4, generator=generator)
    t = torch.randn(4, 3, generator=generator, dtype=torch.float64) + torch.tensor([0.0, 0, 5])
    centre = torch.randn(4, 3, generator=generator, dtype=torch.float64)
    normal = torch.nn.functional.normalize(
        torch.randn(4, 3, generator=generator, dtype=torch.float64), dim=-1
    )
    mirrored = mirrored_pose(R, t, centre, normal)
    torch.testing.assert_close(torch.linalg.det(mirrored[0]), torch.ones(4).double())
    again = mirrored_pose(*mirrored, centre, normal)
    torch.testing.assert_close(again[0], R, **tolerance(torch.float64, "iterative"))
    torch.testing.assert_close(again[1], t, **tolerance(torch.float64, "iterative"))


def test_a_far_plane_and_its_mirror_image_have_nearly_the_same_picture():
    def difference(distance: float) -> float:
        problems = make_pnp_problems(
            20, 30, planar=True, noise_px=0.0, distance=distance, diameter=0.1 * distance / 0.6
        )
        z = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64).expand(20, 3)
        points = problems.points_3d * (0.1 if distance > 1 else 1.0)
        exact = problems.camera.project(points @ problems.R.mT + problems.t[:, None])
        R, t = mirrored_pose(problems.R, problems.t, points.mean(1), z)
        assert geodesic_distance(R, problems.R).min() > 0.5
        return float((problems.camera.project(points @ R.mT + t[:, None]) - exact).norm(dim=-1).max())

    assert difference(0.6) > 2.0
    assert difference(6.0) < 0.2
