"""The generator's problems have the truth they claim, and the validators measure it."""

from __future__ import annotations

import math

import pytest
import torch

from sightline.geometry.cameras import project
from sightline.geometry.poses import transform
from sightline.geometry.rotations import exp
from sightline.synthetic.problems import (
    make_pnp_problems,
    make_registration_problems,
    make_triangulation_problems,
    pose_errors,
    success_rate,
)
from tests.tolerances import tolerance

LENS = torch.tensor([-0.2, 0.05, 0.001, -0.002, 0.0], dtype=torch.float64)


@pytest.mark.parametrize("distortion", [None, LENS])
def test_pnp_inliers_are_projections_of_the_truth(distortion):
    problems = make_pnp_problems(3, 40, noise_px=0.0, outlier_fraction=0.25, distortion=distortion)
    exact = problems.camera.project(problems.points_3d @ problems.R.mT + problems.t[:, None])
    error = torch.linalg.vector_norm(exact - problems.points_2d, dim=-1)
    assert error[problems.inliers].max() < 1e-9
    assert error[~problems.inliers].median() > 20
    assert problems.inliers.sum(1).tolist() == [30, 30, 30]


def test_pnp_noise_has_the_given_size():
    problems = make_pnp_problems(20, 500, noise_px=1.5)
    exact = problems.camera.project(problems.points_3d @ problems.R.mT + problems.t[:, None])
    assert float((exact - problems.points_2d).std()) == pytest.approx(1.5, rel=0.02)


def test_pnp_object_is_a_ball_in_the_picture_or_a_disc():
    solid = make_pnp_problems(50, 200)
    assert float(torch.linalg.vector_norm(solid.points_3d, dim=-1).max()) <= 0.05
    assert solid.camera.sees(solid.points_3d @ solid.R.mT + solid.t[:, None]).all()
    flat = make_pnp_problems(50, 200, planar=True)
    assert (flat.points_3d[..., 2] == 0).all()
    tilt = flat.R[:, 2, 2].abs().arccos().rad2deg()
    assert 20 <= float(tilt.min()) < float(tilt.max()) <= 70


def test_a_seed_repeats_and_another_differs():
    first, again, other = (make_pnp_problems(1, 10, seed=seed).points_2d for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_triangulation_observations_are_projections_inside_the_picture():
    problems = make_triangulation_problems(4, 6, 30, outlier_fraction=0.1, missing_fraction=0.2)
    exact = project(transform(problems.cam_from_world, problems.points_3d[:, None]), problems.K)
    assert torch.equal(exact.isnan(), torch.zeros_like(exact, dtype=torch.bool))
    assert (exact >= -0.5).all()
    assert (exact <= torch.tensor(problems.image_size) - 0.5).all()
    assert problems.points_2d.isnan().all(-1).sum().item() == 4 * 6 * 6
    torch.testing.assert_close(exact[problems.inliers], problems.points_2d[problems.inliers])


def test_registration_targets_are_the_moved_source_with_its_normals():
    problems = make_registration_problems(5, 50, outlier_fraction=0.2, max_angle=0.3)
    moved = problems.source @ problems.R.mT + problems.t[:, None]
    torch.testing.assert_close(moved[problems.inliers], problems.target[problems.inliers])
    torch.testing.assert_close(problems.target_normals.norm(dim=-1), torch.ones(5, 50, dtype=torch.float64))
    # The ellipsoid's normal is the gradient of its quadric.
    quadric = problems.source / torch.tensor([1.0, 0.8, 0.6], dtype=torch.float64) ** 2
    gradient = torch.nn.functional.normalize(quadric, dim=-1) @ problems.R.mT
    torch.testing.assert_close(gradient, problems.target_normals, **tolerance(torch.float64))


def test_pose_errors_count_a_failure_as_infinitely_wrong():
    R = exp(torch.tensor([[0.0, 0.0, 0.1], [0.0, 0.0, 0.0]], dtype=torch.float64))
    t = torch.zeros(2, 3, dtype=torch.float64)
    lost = torch.full_like(R[1], math.nan)
    wrong = torch.tensor([[0.0, 0.0, 0.2], [math.nan] * 3], dtype=torch.float64)
    errors = pose_errors(torch.stack([torch.eye(3).double(), lost]), wrong, R, t)
    assert errors.rotation_deg.tolist() == pytest.approx([math.degrees(0.1), math.inf])
    assert errors.translation_m.tolist() == pytest.approx([0.2, math.inf])
    assert success_rate(errors, 90.0) == 0.5
    assert success_rate(errors, 90.0, 0.1) == 0.0


def test_a_fraction_outside_its_range_is_named():
    with pytest.raises(ValueError, match="share in"):
        make_pnp_problems(1, 4, outlier_fraction=1.5)
