from __future__ import annotations

import math

import pytest
import torch

from sightline.geometry.cameras import Camera
from sightline.geometry.pnp.focal import (
    PosedView,
    _eliminate_poses,
    find_pose_and_focal,
    refine_shared_focal,
    scale_focal,
)
from sightline.geometry.pnp.linearise import NormalEquations
from sightline.geometry.pnp.refine import refine_poses
from sightline.geometry.poses import make_pose
from sightline.synthetic.problems import make_pnp_problems, pose_errors

TRUE_FOCAL = 572.0


def views_with(camera: Camera, num_views: int, seed: int, **options) -> list[PosedView]:
    """Pictures with poses that were found with the wrong camera."""
    problems = make_pnp_problems(num_views, 60, seed=seed, diameter=0.25, **options)
    ratio = float(camera.K[0, 0]) / TRUE_FOCAL
    t = problems.t * torch.tensor([1.0, 1.0, ratio], dtype=torch.float64)
    wrong = refine_poses(
        problems.points_2d, problems.points_3d, camera.K, problems.R, t, loss="tukey", scale_px=6.0
    )
    poses = make_pose(wrong.R, wrong.t)
    return [PosedView(*view) for view in zip(problems.points_2d, problems.points_3d, poses, strict=True)]


@pytest.mark.parametrize("guess", [400.0, 572.0, 850.0])
@pytest.mark.parametrize("planar", [False, True])
def test_many_pictures_agree_on_the_focal_length(guess, planar):
    camera = Camera.from_focal(guess, 640, 480)
    shared = refine_shared_focal(views_with(camera, 15, 0, outlier_fraction=0.2, planar=planar), camera)
    assert shared.converged
    assert shared.focal_px == pytest.approx(TRUE_FOCAL, abs=20)
    assert abs(shared.focal_px - TRUE_FOCAL) < 3 * shared.std_px < 50
    assert float(shared.camera.K[1, 1]) == pytest.approx(shared.focal_px)


def test_its_deviation_is_true():
    camera = Camera.from_focal(600.0, 640, 480)
    results = [refine_shared_focal(views_with(camera, 6, seed), camera) for seed in range(20)]
    normalised = torch.tensor([(result.focal_px - TRUE_FOCAL) / result.std_px for result in results])
    assert 0.5 < float(normalised.square().mean()) < 1.8


def test_views_that_disagree_make_the_deviation_larger():
    camera = Camera.from_focal(TRUE_FOCAL, 640, 480)
    views = views_with(camera, 8, 0)
    calm = refine_shared_focal(views, camera).std_px
    # Half of the pictures were taken with another zoom.
    other = make_pnp_problems(8, 60, seed=1, diameter=0.25, focal_px=640.0)
    zoomed = [
        PosedView(*view)
        for view in zip(other.points_2d, other.points_3d, make_pose(other.R, other.t), strict=True)
    ]
    assert refine_shared_focal(views + zoomed, camera, max_error_px=10.0).std_px > 1.5 * calm


def test_exact_pixels_and_unequal_numbers_of_points():
    problems = make_pnp_problems(5, 30, noise_px=0.0, diameter=0.2)
    poses = make_pose(problems.R, problems.t)
    views = [
        (problems.points_2d[i, : 10 + 4 * i], problems.points_3d[i, : 10 + 4 * i], poses[i]) for i in range(5)
    ]
    lost = torch.full((4, 4), math.nan, dtype=torch.float64)
    shared = refine_shared_focal([*views, (*views[0][:2], lost)], Camera.from_focal(600.0, 640, 480))
    assert shared.focal_px == pytest.approx(TRUE_FOCAL, abs=1e-4)
    torch.testing.assert_close(shared.cam_from_obj, poses, rtol=0, atol=1e-6)


def test_a_frontal_plane_does_not_tell_the_focal_length():
    camera = Camera.from_focal(600.0, 640, 480)
    X = torch.rand(40, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 0.1
    X[:, 2] = 0
    pose = make_pose(torch.eye(3).double(), torch.tensor([0.0, 0.0, 0.6], dtype=torch.float64))
    noise = torch.randn(40, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    shared = refine_shared_focal([(camera.project(X + pose[:3, 3]) + noise, X, pose)], camera)
    assert shared.std_px > 100


def test_no_view_with_a_pose_is_an_error():
    lost = torch.full((4, 4), math.nan, dtype=torch.float64)
    with pytest.raises(ValueError, match="none among 1"):
        refine_shared_focal(
            [(torch.zeros(5, 2), torch.zeros(5, 3), lost)], Camera.from_focal(600.0, 640, 480)
        )


def test_schur_step_is_that_of_the_whole_system():
    generator = torch.Generator().manual_seed(0)
    J = torch.randn(3, 20, 7, generator=generator, dtype=torch.float64)
    gradient = torch.randn(3, 7, generator=generator, dtype=torch.float64)
    equations = NormalEquations(torch.zeros(3).double(), J.mT @ J, gradient)
    whole = torch.zeros(19, 19, dtype=torch.float64)
    right = torch.zeros(19, dtype=torch.float64)
    for i in range(3):
        rows = [*range(6 * i, 6 * i + 6), 18]
        index = torch.tensor(rows)
        whole[index[:, None], index] += equations.hessian[i]
        right[index] += gradient[i]
    expected = -torch.linalg.solve(whole, right)
    schur = _eliminate_poses(equations, 0.0)
    focal = -schur.gradient.sum() / schur.curvature.sum()
    torch.testing.assert_close(focal, expected[18], rtol=1e-8, atol=0)
    poses = schur.poses_alone + schur.poses_by_focal * focal
    torch.testing.assert_close(poses.flatten(), expected[:18], rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("guess", [300.0, 1500.0])
def test_one_picture_of_a_near_object_tells_pose_and_focal_length(guess):
    problems = make_pnp_problems(3, 200, outlier_fraction=0.4, diameter=0.3)
    for i in range(3):
        camera, pose = find_pose_and_focal(
            problems.points_2d[i], problems.points_3d[i], Camera.from_focal(guess, 640, 480)
        )
        assert float(camera.K[0, 0]) == pytest.approx(TRUE_FOCAL, rel=0.06)
        assert pose_errors(pose.R, pose.t, problems.R[i], problems.t[i]).rotation_deg < 2.0


def test_scaling_keeps_principal_point_and_lens():
    lens = torch.tensor([0.1, 0, 0, 0, 0], dtype=torch.float64)
    camera = Camera(torch.tensor([[500.0, 1, 300], [0, 400, 200], [0, 0, 1]]), 640, 480, lens)
    scaled = scale_focal(camera, 2.0)
    assert scaled.K.tolist() == [[1000.0, 2.0, 300.0], [0.0, 800.0, 200.0], [0.0, 0.0, 1.0]]
    assert torch.equal(scaled.distortion, lens)
