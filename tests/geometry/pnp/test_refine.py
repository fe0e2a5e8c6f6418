from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import least_squares

from sightline.geometry.cameras import project
from sightline.geometry.pnp.refine import gauss_newton_step, refine_poses
from sightline.geometry.rotations import exp, geodesic_distance, log, random_rotations
from sightline.synthetic.problems import make_pnp_problems, pose_errors, success_rate

LENS = torch.tensor([-0.25, 0.08, 0.003, -0.004, -0.01], dtype=torch.float64)
SKEWED = torch.tensor([[620.0, 5.0, 310.0], [0, 560.0, 250.0], [0, 0, 1]], dtype=torch.float64)


def disturbed(problems, angle: float = 0.1, shift: float = 0.02, seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    turn = angle * torch.randn(len(problems), 3, generator=generator, dtype=torch.float64)
    move = shift * torch.randn(len(problems), 3, generator=generator, dtype=torch.float64)
    return exp(turn) @ problems.R, problems.t + move


@pytest.mark.parametrize("distortion", [None, LENS])
def test_exact_pixels_give_the_exact_pose(distortion):
    problems = make_pnp_problems(20, 15, noise_px=0.0, distortion=distortion)
    refined = refine_poses(
        problems.points_2d,
        problems.points_3d,
        problems.camera.K,
        *disturbed(problems),
        distortion=distortion,
    )
    assert refined.converged.all()
    assert geodesic_distance(refined.R, problems.R).max() < 1e-9
    assert (refined.t - problems.t).norm(dim=-1).max() < 1e-9
    assert refined.residuals_px.max() < 1e-6


def test_optimum_is_scipys_with_skew_distortion_weights_and_huber():
    problems = make_pnp_problems(3, 25, noise_px=2.0, outlier_fraction=0.2, seed=3)
    points_2d, weights = problems.points_2d, torch.rand(3, 25, dtype=torch.float64) + 0.5
    refined = refine_poses(
        points_2d,
        problems.points_3d,
        SKEWED,
        *disturbed(problems),
        weights=weights,
        distortion=LENS,
        loss="huber",
        scale_px=2.0,
        tolerance=1e-15,
    )
    for i in range(3):

        def lengths(step, i=i):
            step = torch.from_numpy(step)
            moved = problems.points_3d[i] @ (exp(step[:3]) @ refined.R[i]).mT + refined.t[i] + step[3:]
            error = project(moved, SKEWED, LENS) - points_2d[i]
            return (weights[i] * error.norm(dim=-1)).numpy()

        best = least_squares(
            lengths, np.zeros(6), loss="huber", f_scale=2.0, xtol=1e-14, ftol=1e-14, gtol=1e-14
        )
        assert 2 * best.cost == pytest.approx(float(refined.cost[i]), rel=1e-9)
        assert np.abs(best.x).max() < 1e-5


def test_least_squares_is_opencvs():
    problems = make_pnp_problems(5, 50, distortion=LENS)
    R, t = disturbed(problems)
    refined = refine_poses(
        problems.points_2d,
        problems.points_3d,
        problems.camera.K,
        R,
        t,
        distortion=LENS,
        loss="squared",
        tolerance=1e-15,
    )
    for i in range(5):
        vector, translation = cv2.solvePnPRefineLM(
            problems.points_3d[i].numpy(),
            problems.points_2d[i].numpy(),
            problems.camera.K.numpy(),
            LENS.numpy(),
            log(R[i]).reshape(3, 1).numpy().copy(),
            t[i].reshape(3, 1).numpy().copy(),
            (cv2.TERM_CRITERIA_EPS + cv2.TERM_CRITERIA_COUNT, 100, 1e-14),
        )
        theirs = exp(torch.from_numpy(vector).reshape(3))
        assert geodesic_distance(theirs, refined.R[i]) < 1e-6
        np.testing.assert_allclose(translation.ravel(), refined.t[i], atol=1e-6)


def test_a_batch_is_its_problems_one_by_one_in_any_batch_shape():
    problems = make_pnp_problems(6, 30, outlier_fraction=0.2)
    R, t = disturbed(problems)
    arguments = (problems.points_2d, problems.points_3d, problems.camera.K.expand(6, 3, 3), R, t)
    together = refine_poses(*arguments, loss="cauchy", scale_px=2.0)
    grid = refine_poses(*(a.reshape(2, 3, *a.shape[1:]) for a in arguments), loss="cauchy", scale_px=2.0)
    assert grid.R.shape == (2, 3, 3, 3)
    torch.testing.assert_close(grid.covariance.flatten(0, 1), together.covariance, rtol=1e-6, atol=0)
    for i in range(6):
        alone = refine_poses(*(a[i] for a in arguments), loss="cauchy", scale_px=2.0)
        torch.testing.assert_close(alone.R, together.R[i], rtol=0, atol=1e-7)
        torch.testing.assert_close(alone.t, together.t[i], rtol=0, atol=1e-7)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_moving_the_objects_frame_moves_the_pose(seed):
    """``R X + t = (R Q^T) (Q X + s) + (t - R Q^T s)``: nothing depends on where the object's frame is."""
    problems = make_pnp_problems(1, 20, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    Q = random_rotations(1, generator=generator)
    s = 0.3 * torch.randn(1, 3, generator=generator, dtype=torch.float64)
    R, t = problems.R, problems.t
    first = refine_poses(problems.points_2d, problems.points_3d, problems.camera.K, R, t)
    moved_R = R @ Q.mT
    moved_t = t - (moved_R @ s[..., None])[..., 0]
    moved_points = problems.points_3d @ Q.mT + s[:, None]
    second = refine_poses(problems.points_2d, moved_points, problems.camera.K, moved_R, moved_t)
    torch.testing.assert_close(second.R @ Q, first.R, rtol=0, atol=1e-6)
    back = second.t + (second.R @ s[..., None])[..., 0]
    torch.testing.assert_close(back, first.t, rtol=0, atol=1e-6)


def test_the_order_of_points_does_not_matter_and_weight_zero_removes_one():
    problems = make_pnp_problems(4, 20)
    K, start = problems.camera.K, disturbed(problems)
    order = torch.randperm(20, generator=torch.Generator().manual_seed(0))
    plain = refine_poses(problems.points_2d, problems.points_3d, K, *start)
    shuffled = refine_poses(problems.points_2d[:, order], problems.points_3d[:, order], K, *start)
    torch.testing.assert_close(shuffled.R, plain.R, rtol=0, atol=1e-7)
    weights = torch.ones(4, 20, dtype=torch.float64)
    weights[:, 5:] = 0
    weighted = refine_poses(problems.points_2d, problems.points_3d, K, *start, weights=weights)
    fewer = refine_poses(problems.points_2d[:, :5], problems.points_3d[:, :5], K, *start)
    torch.testing.assert_close(weighted.R, fewer.R, rtol=0, atol=1e-6)


def test_a_larger_weight_lowers_that_points_residual():
    problems = make_pnp_problems(10, 12, noise_px=3.0)
    weights = torch.ones(10, 12, dtype=torch.float64)
    arguments = (problems.points_2d, problems.points_3d, problems.camera.K, problems.R, problems.t)
    before = refine_poses(*arguments, weights=weights, loss="squared").residuals_px[:, 3]
    weights[:, 3] = 10
    after = refine_poses(*arguments, weights=weights, loss="squared").residuals_px[:, 3]
    assert (after < before).all()


def test_graduation_leaves_outliers_behind():
    problems = make_pnp_problems(50, 100, outlier_fraction=0.3, seed=1)
    start = disturbed(problems, angle=0.05, shift=0.005)
    arguments = (problems.points_2d, problems.points_3d, problems.camera.K, *start)
    graded = refine_poses(*arguments, loss="geman_mcclure", scale_px=3.0, graduation=4)
    assert pose_errors(graded.R, graded.t, problems.R, problems.t).rotation_deg.max() < 2.0
    plain = refine_poses(*arguments, loss="squared")
    assert pose_errors(plain.R, plain.t, problems.R, problems.t).rotation_deg.median() > 5.0


def test_a_free_focal_length_is_found_with_its_deviation():
    problems = make_pnp_problems(100, 200, diameter=0.3)
    guess = problems.camera.K.clone()
    guess[:2, :2] *= 1.2
    start = problems.t * torch.tensor([1.0, 1.0, 1.2], dtype=torch.float64)
    refined = refine_poses(
        problems.points_2d, problems.points_3d, guess, problems.R, start, loss="squared", refine_focal=True
    )
    away = (refined.focal_scale * 1.2).log() / refined.focal_scale_std
    assert float(away.square().mean()) == pytest.approx(1, abs=0.35)
    assert float(refined.focal_scale.median()) == pytest.approx(1 / 1.2, rel=0.01)


def test_a_start_with_points_behind_the_camera_finds_its_way():
    problems = make_pnp_problems(100, 40)
    near = problems.t * torch.tensor([1.0, 1.0, 0.02], dtype=torch.float64)
    assert ((problems.points_3d @ problems.R.mT + near[:, None])[..., 2] < 0).any(1).all()
    refined = refine_poses(problems.points_2d, problems.points_3d, problems.camera.K, problems.R, near)
    ended = pose_errors(refined.R, refined.t, problems.R, problems.t)
    assert success_rate(ended, 5.0) > 0.85
    in_front = (problems.points_3d @ refined.R.mT + refined.t[:, None])[..., 2] > 0
    assert in_front.all(1).double().mean() > 0.85


def test_a_lost_start_stays_lost_and_spoils_no_other():
    problems = make_pnp_problems(3, 20)
    R, t = disturbed(problems)
    R[1] = torch.nan
    refined = refine_poses(problems.points_2d, problems.points_3d, problems.camera.K, R, t)
    assert refined.R[1].isnan().all()
    assert refined.t[1].isnan().all()
    assert torch.isinf(refined.covariance[1]).all()
    assert refined.converged.tolist() == [True, False, True]
    assert refined.R[[0, 2]].isfinite().all()


def test_float32_comes_back_as_float64():
    problems = make_pnp_problems(2, 20)
    numbers = [problems.points_2d, problems.points_3d, problems.camera.K, *disturbed(problems)]
    single = refine_poses(*(value.float() for value in numbers))
    assert single.R.dtype == torch.float64
    torch.testing.assert_close(single.R, refine_poses(*numbers).R, rtol=0, atol=1e-5)


def test_gauss_newton_step_has_the_right_gradient():
    problems = make_pnp_problems(2, 6, noise_px=1.0)
    weights = torch.rand(2, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 0.5

    def step(x, X, w, loss):
        return gauss_newton_step(
            x,
            X,
            problems.camera.K,
            problems.R,
            problems.t,
            weights=w,
            distortion=LENS,
            loss=loss,
            scale_px=3.0,
        )

    given_values = (problems.points_2d, problems.points_3d, weights)
    inputs = tuple(value.clone().requires_grad_() for value in given_values)
    for loss in ("squared", "cauchy"):
        assert torch.autograd.gradcheck(lambda x, X, w, loss=loss: step(x, X, w, loss), inputs)


def test_gradient_of_the_step_at_the_optimum_is_that_of_the_solver():
    problems = make_pnp_problems(1, 30, noise_px=0.05)
    K, x, X = problems.camera.K, problems.points_2d, problems.points_3d

    def solve(pixels):
        return refine_poses(pixels, X, K, problems.R, problems.t, loss="squared", tolerance=1e-16)

    optimum = solve(x)
    x_free = x.clone().requires_grad_()
    _, t = gauss_newton_step(x_free, X, K, optimum.R, optimum.t)
    (slope,) = torch.autograd.grad(t[0, 2], x_free)
    push = torch.randn(x.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    change = solve(x + 1e-3 * push).t[0, 2] - solve(x - 1e-3 * push).t[0, 2]
    assert float(change) / 2e-3 == pytest.approx(float((slope * push).sum()), rel=1e-2)


def test_a_step_that_the_points_do_not_fix_is_nan():
    R, t = gauss_newton_step(
        torch.zeros(5, 2), torch.zeros(5, 3), SKEWED, torch.eye(3), torch.tensor([0.0, 0, 1])
    )
    assert R.isnan().all()
    assert t.isnan().all()
