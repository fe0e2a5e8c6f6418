from __future__ import annotations

import json
import math

import pytest
import torch

from sightline.geometry.cameras import Camera
from sightline.geometry.pnp import solve_pnp
from sightline.geometry.poses import make_pose
from sightline.geometry.rotations import exp, geodesic_distance, log
from sightline.synthetic.problems import PnPProblems, make_pnp_problems, pose_errors, success_rate
from tests.real_data import real_path

WIDE = torch.tensor([-0.3, 0.1, 0.001, -0.001, 0.0], dtype=torch.float64)


def solve_all(problems: PnPProblems, camera: Camera | None = None, **options) -> list:
    return [
        solve_pnp(x, X, camera or problems.camera, **options)
        for x, X in zip(problems.points_2d, problems.points_3d, strict=True)
    ]


def errors_of(results: list, problems: PnPProblems):
    return pose_errors(
        torch.stack([result.R for result in results]),
        torch.stack([result.t for result in results]),
        problems.R,
        problems.t,
    )


def assert_is_no_pose(result) -> None:
    assert not result.valid
    assert result.R.isnan().all()
    assert result.t.isnan().all()
    assert torch.isinf(result.covariance).all()
    assert result.reason


@pytest.mark.parametrize(("distortion", "count"), [(None, 30), (WIDE, 10)])
def test_four_in_five_correspondences_may_be_wrong(distortion, count):
    problems = make_pnp_problems(count, 1000, outlier_fraction=0.8, distortion=distortion)
    results = solve_all(problems)
    errors = errors_of(results, problems)
    assert float(errors.rotation_deg.median()) <= 0.35
    assert success_rate(errors, 2.0) >= 0.99
    found = torch.stack([result.inliers for result in results])
    assert float((found & problems.inliers).sum() / problems.inliers.sum()) > 0.98
    assert float((found & ~problems.inliers).sum() / found.sum()) < 0.01
    # The median length of a 2-D Gaussian of one pixel is 1.18.
    assert 1.0 < sum(result.residual_px for result in results) / len(results) < 1.3


def test_covariance_of_the_face_covers_the_truth():
    problems = make_pnp_problems(40, 150, outlier_fraction=0.3)
    results = solve_all(problems)
    error = torch.stack(
        [
            torch.cat([log(R @ result.R.mT), t - result.t])
            for R, t, result in zip(problems.R, problems.t, results, strict=True)
        ]
    )
    covariance = torch.stack([result.covariance for result in results])
    chi2 = (error * torch.linalg.solve(covariance, error)).sum(-1)
    assert 4.6 < float(chi2.mean()) < 7.7  # six degrees of freedom


def test_the_same_input_gives_the_same_pose():
    problems = make_pnp_problems(1, 3000, outlier_fraction=0.7)
    first, again = solve_all(problems)[0], solve_all(problems)[0]
    assert torch.equal(first.R, again.R)
    assert torch.equal(first.covariance, again.covariance)


@pytest.mark.parametrize("n", [0, 1, 3])
def test_fewer_than_four_correspondences_are_no_pose(n):
    problems = make_pnp_problems(1, 10)
    result = solve_pnp(problems.points_2d[0, :n], problems.points_3d[0, :n], problems.camera)
    assert_is_no_pose(result)
    assert result.degenerate
    assert result.reason == f"{n} correspondences, at least 4 are needed"
    assert result.inliers.shape == (n,)


@pytest.mark.parametrize(("squash", "reason"), [([0.0, 0, 0], "same point"), ([1.0, 0, 0], "one line")])
def test_degenerate_points_are_no_pose(squash, reason):
    problems = make_pnp_problems(1, 30)
    X = problems.points_3d[0] * torch.tensor(squash)
    x = problems.camera.project(X @ problems.R[0].mT + problems.t[0])
    result = solve_pnp(x, X, problems.camera)
    assert_is_no_pose(result)
    assert result.degenerate
    assert reason in result.reason


def test_inliers_on_a_line_are_no_pose_even_among_other_points():
    problems = make_pnp_problems(1, 60, noise_px=0.5)
    X = problems.points_3d[0].clone()
    X[:40, 1:] = 0
    x = problems.camera.project(X @ problems.R[0].mT + problems.t[0])
    x[40:] = 600 * torch.rand(20, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert_is_no_pose(solve_pnp(x, X, problems.camera))


@pytest.mark.parametrize("n", [10, 100, 1000])
def test_pure_outliers_are_no_pose(n):
    for result in solve_all(make_pnp_problems(8, n, outlier_fraction=1.0), max_iterations=3000):
        assert_is_no_pose(result)
        assert not result.degenerate


def test_all_pixels_in_one_place_are_no_pose():
    problems = make_pnp_problems(1, 30)
    assert_is_no_pose(solve_pnp(torch.full((30, 2), 100.0), problems.points_3d[0], problems.camera))


def test_a_tilted_plane_near_the_camera_has_one_pose():
    problems = make_pnp_problems(10, 80, planar=True, noise_px=0.3, diameter=0.2, outlier_fraction=0.2)
    results = solve_all(problems)
    assert success_rate(errors_of(results, problems), 2.0) == 1.0
    assert all(result.planar for result in results)
    assert not any(result.ambiguous for result in results)


def small_far_planes() -> PnPProblems:
    return make_pnp_problems(20, 50, planar=True, noise_px=0.5, diameter=0.05, distance=1.0)


def test_a_small_far_plane_has_two_and_says_so():
    problems = small_far_planes()
    results = solve_all(problems)
    flagged = [i for i, result in enumerate(results) if result.ambiguous]
    assert len(flagged) >= 15
    for i in flagged:
        result = results[i]
        both = torch.stack([result.cam_from_obj, result.alternative])
        errors = pose_errors(both[:, :3, :3], both[:, :3, 3], problems.R[i], problems.t[i])
        assert float(errors.rotation_deg.min()) < 15
        assert geodesic_distance(both[0, :3, :3], both[1, :3, :3]) > math.radians(3)
        assert "two poses" in result.reason
    assert errors_of(results, problems).rotation_deg.max() > 25  # the wrong one was taken at least once


def test_a_prior_decides_between_the_two():
    problems = small_far_planes()
    nearby = make_pose(exp(torch.tensor([0.05, 0.1, 0.0]).double()) @ problems.R, problems.t)
    results = [
        solve_pnp(x, X, problems.camera, prior_cam_from_obj=prior)
        for x, X, prior in zip(problems.points_2d, problems.points_3d, nearby, strict=True)
    ]
    assert errors_of(results, problems).rotation_deg.max() < 20


def test_a_volume_has_no_rival():
    results = solve_all(make_pnp_problems(10, 60))
    assert not any(result.ambiguous or result.planar for result in results)


def test_a_prior_with_information_steadies_a_pose_of_few_points():
    problems = make_pnp_problems(15, 8, noise_px=2.0)
    prior = make_pose(problems.R, problems.t)
    information = torch.diag(torch.tensor([50.0, 50, 50, 1000, 1000, 1000], dtype=torch.float64)) ** 2
    options = {"min_inliers": 4, "max_error_px": 8.0}
    alone = errors_of(solve_all(problems, **options), problems)
    helped = [
        solve_pnp(x, X, problems.camera, prior_cam_from_obj=pose, prior_information=information, **options)
        for x, X, pose in zip(problems.points_2d, problems.points_3d, prior, strict=True)
    ]
    assert errors_of(helped, problems).rotation_deg.median() < 0.6 * alone.rotation_deg.median()


def test_weights_lead_to_the_good_correspondences_and_zero_leaves_one_out():
    problems = make_pnp_problems(1, 400, outlier_fraction=0.97)
    weights = torch.where(problems.inliers[0], 1.0, 0.0)
    result = solve_pnp(problems.points_2d[0], problems.points_3d[0], problems.camera, weights=weights)
    assert result.valid
    assert pose_errors(result.R, result.t, problems.R[0], problems.t[0]).rotation_deg < 5
    assert not (result.inliers & ~problems.inliers[0]).any()
    assert result.num_inliers >= 10


def test_only_the_ratio_of_weights_matters():
    problems = make_pnp_problems(1, 100, outlier_fraction=0.3)
    weights = torch.rand(100, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 0.5
    small, large = (
        solve_pnp(problems.points_2d[0], problems.points_3d[0], problems.camera, weights=weights * factor)
        for factor in (1e-3, 1e3)
    )
    torch.testing.assert_close(small.R, large.R, rtol=0, atol=1e-6)


def test_the_focal_length_is_found_on_demand():
    problems = make_pnp_problems(3, 200, outlier_fraction=0.3, diameter=0.3)
    results = solve_all(problems, Camera.from_focal(900.0, 640, 480), estimate_focal=True)
    for result in results:
        assert result.valid
        assert abs(result.focal_px - 572) < 3.5 * result.focal_std_px < 80
    assert success_rate(errors_of(results, problems), 1.0) == 1.0
    assert solve_all(problems)[0].focal_px is None


def test_min_inliers_is_obeyed():
    problems = make_pnp_problems(1, 40)
    arguments = problems.points_2d[0], problems.points_3d[0], problems.camera
    assert solve_pnp(*arguments, min_inliers=30).valid
    assert_is_no_pose(solve_pnp(*arguments, min_inliers=41))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"points_2d": torch.zeros(10, 3)}, r"points_2d: expected shape \(10, 2\)"),
        ({"points_3d": torch.zeros(9, 3)}, r"points_3d: expected shape \(10, 3\), got \(9, 3\)"),
        ({"points_2d": torch.full((10, 2), torch.nan)}, "points_2d: expected finite"),
        ({"weights": -torch.ones(10)}, "weights: expected non-negative"),
        ({"weights": torch.ones(4)}, r"weights: expected shape \(10,\)"),
        ({"max_error_px": 0.0}, "max_error_px: expected a positive"),
        ({"prior_cam_from_obj": torch.full((4, 4), torch.nan)}, "None where the object was lost"),
    ],
)
def test_bad_input_is_named(change, message):
    good = {"points_2d": torch.rand(10, 2), "points_3d": torch.rand(10, 3)}
    with pytest.raises(ValueError, match=message):
        solve_pnp(**{**good, **change}, camera=Camera.from_focal(600.0, 640, 480))


@pytest.mark.real
def test_posed_photograph_of_a_box():
    """Seven corners clicked in a photograph, f = 55 mm on 22.3 mm; PnP on them is known to leave 1.0 px."""
    corners = json.loads(real_path("cookies_box/corners.json").read_text())
    K = torch.tensor(corners["K"], dtype=torch.float64).reshape(3, 3)
    x = torch.tensor(corners["image_points_px"], dtype=torch.float64)
    X = torch.tensor(corners["object_points_cm"], dtype=torch.float64) / 100
    result = solve_pnp(x, X, Camera(K, 718, 480))
    assert result.valid
    assert result.num_inliers == 7
    assert result.residual_px < 1.6
    assert not result.ambiguous
