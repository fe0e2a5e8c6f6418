import cv2
import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from sightline.geometry.cameras import project
from sightline.geometry.pnp.epropnp.initial import find_start
from sightline.geometry.pnp.epropnp.problems import Pose, adapt_to_pose, pack_problems, pose_costs
from sightline.geometry.pnp.epropnp.solver import (
    descend_fast,
    find_minimum,
    gauss_newton_step,
    linearise,
    moved,
    weighted_residuals,
)
from sightline.geometry.rotations import exp, geodesic_distance, log
from sightline.synthetic.problems import make_pnp_problems, pose_errors, success_rate

SKEWED = torch.tensor([[620.0, 5.0, 310.0], [0, 560.0, 250.0], [0, 0, 1]], dtype=torch.float64)


def packed(problems, K=None, *, relative_delta=0.1, seed=0):
    K = problems.camera.K if K is None else K
    weights = (
        torch.rand(problems.points_2d.shape, generator=torch.Generator().manual_seed(seed)).double() + 0.5
    )
    return pack_problems(
        problems.points_3d,
        problems.points_2d,
        weights,
        K.expand(len(problems), 3, 3),
        relative_delta=relative_delta,
        min_depth=0.01,
    )


def near(problems, ours, angle=0.05, shift=0.01):
    turn = angle * torch.randn(len(problems), 3, generator=torch.Generator().manual_seed(1)).double()
    pose = ours.to_centred(problems.R, problems.t)
    return Pose(exp(turn) @ pose.R, pose.t + shift)


def test_jacobian_is_that_of_finite_differences():
    problems = make_pnp_problems(3, 12)
    ours = packed(problems, SKEWED)
    pose = near(problems, ours)
    _, jacobian = weighted_residuals(ours, pose)
    for axis in range(6):
        step = torch.zeros(3, 6, dtype=torch.float64)
        step[:, axis] = 1e-6
        ahead, behind = (weighted_residuals(ours, moved(pose, sign * step))[0] for sign in (1, -1))
        torch.testing.assert_close(jacobian[:, axis], (ahead - behind) / 2e-6, rtol=1e-5, atol=1e-5)


def test_gradient_is_that_of_the_cost():
    problems = make_pnp_problems(3, 40, outlier_fraction=0.3)
    ours = packed(problems, SKEWED)
    pose = near(problems, ours)
    step = torch.zeros(3, 6, dtype=torch.float64, requires_grad=True)
    there = moved(pose, step)
    cost = pose_costs(ours, Pose(there.R[:, None], there.t[:, None]))
    cost.sum().backward()
    here = linearise(ours, pose)
    torch.testing.assert_close(here.cost, cost[:, 0].detach())
    torch.testing.assert_close(here.gradient, step.grad)


def test_least_squares_are_opencvs():
    problems = make_pnp_problems(5, 30, noise_px=2.0)
    K = problems.camera.K
    ours = packed(problems, relative_delta=torch.inf)._replace(weights=torch.ones(5, 2, 30).double())
    found = ours.to_object(find_minimum(ours, near(problems, ours), max_iterations=50, tolerance=1e-14).pose)
    for i in range(5):
        X, x = problems.points_3d[i].numpy(), problems.points_2d[i].numpy()
        w, t = log(problems.R[i]).numpy().reshape(3, 1), problems.t[i].numpy().reshape(3, 1)
        criteria = (cv2.TERM_CRITERIA_EPS + cv2.TERM_CRITERIA_COUNT, 200, 1e-14)
        w, t = cv2.solvePnPRefineLM(X, x, K.numpy(), None, w.copy(), t.copy(), criteria)
        angle = geodesic_distance(exp(torch.from_numpy(w.ravel())), found.R[i])
        assert torch.rad2deg(angle) < 1e-3
        assert np.abs(t.ravel() - found.t[i].numpy()).max() < 1e-6


def test_huber_minimum_is_scipys():
    problems = make_pnp_problems(3, 30, noise_px=2.0, outlier_fraction=0.2, seed=3)
    ours = packed(problems, SKEWED, relative_delta=0.03)
    start = near(problems, ours)
    found = find_minimum(ours, start, max_iterations=300, tolerance=1e-15)
    for i in range(3):
        one = ours.select(torch.tensor([i]))
        first = Pose(start.R[i : i + 1], start.t[i : i + 1])

        def cost(step, one=one, first=first):
            step = torch.from_numpy(step)[None].requires_grad_()
            there = moved(first, step)
            value = pose_costs(one, Pose(there.R[:, None], there.t[:, None])).sum()
            return float(value.detach()), torch.autograd.grad(value, step)[0][0].numpy()

        answer = minimize(cost, np.zeros(6), jac=True, method="BFGS", options={"gtol": 1e-7})
        there = moved(first, torch.from_numpy(answer.x)[None])
        assert found.cost[i] <= answer.fun * (1 + 1e-9)
        assert torch.rad2deg(geodesic_distance(there.R, found.pose.R[i : i + 1])) < 1e-3


def test_more_weight_on_a_point_lowers_its_residual():
    problems = make_pnp_problems(8, 20, noise_px=2.0)
    lengths = []
    for factor in (0.3, 1.0, 3.0):
        weights = torch.ones_like(problems.points_2d)
        weights[:, 0] *= factor
        K = problems.camera.K.expand(8, 3, 3)
        ours = pack_problems(
            problems.points_3d, problems.points_2d, weights, K, relative_delta=torch.inf, min_depth=0.01
        )
        pose = find_minimum(ours, near(problems, ours), max_iterations=50).pose
        found = ours.to_object(pose)
        point = torch.einsum("bij,bj->bi", found.R, problems.points_3d[:, 0]) + found.t
        lengths.append((project(point, problems.camera.K) - problems.points_2d[:, 0]).norm(dim=1))
    assert (lengths[1] < lengths[0]).all()
    assert (lengths[2] < lengths[1]).all()


def test_axes_are_weighed_apart():
    problems = make_pnp_problems(8, 30, noise_px=0.0)
    points_2d = problems.points_2d.clone()
    points_2d[:, :, 1] += 20 * torch.randn(8, 30, generator=torch.Generator().manual_seed(0)).double()
    weights = torch.tensor([1.0, 1e-3], dtype=torch.float64).expand(8, 30, 2)
    K = problems.camera.K.expand(8, 3, 3)
    ours = pack_problems(problems.points_3d, points_2d, weights, K, relative_delta=torch.inf, min_depth=0.01)
    found = ours.to_object(find_minimum(ours, near(problems, ours), max_iterations=50).pose)
    assert torch.rad2deg(geodesic_distance(found.R, problems.R)).max() < 0.1


def test_batched_is_the_loop():
    problems = make_pnp_problems(6, 25, outlier_fraction=0.2)
    ours = packed(problems)
    seed = torch.Generator()
    start = find_start(ours, generator=seed.manual_seed(0))
    found = find_minimum(ours, start)
    for i in range(6):
        one = ours.select(torch.tensor([i]))
        alone = find_start(one, generator=seed.manual_seed(0))
        torch.testing.assert_close(alone.R[0], start.R[i])
        torch.testing.assert_close(find_minimum(one, alone).pose.t[0], found.pose.t[i])


def test_costs_in_turns_are_the_costs_at_once(monkeypatch):
    problems = make_pnp_problems(2, 20)
    ours = packed(problems)
    ours.weights.requires_grad_()
    many = near(problems, ours)
    many = Pose(many.R[:, None].repeat(1, 7, 1, 1), many.t[:, None] + 0.01 * torch.rand(2, 7, 3).double())
    whole = pose_costs(ours, many)
    gradient = torch.autograd.grad(whole.sum(), ours.weights)
    monkeypatch.setattr("sightline.geometry.pnp.epropnp.problems.CHUNK", 100)
    parts = pose_costs(ours, many)
    torch.testing.assert_close(parts, whole)
    torch.testing.assert_close(torch.autograd.grad(parts.sum(), ours.weights), gradient)


def test_fast_mode_ends_at_the_minimum_of_a_near_start():
    problems = make_pnp_problems(10, 50)
    ours = packed(problems, relative_delta=torch.inf)
    start = near(problems, ours, angle=0.02, shift=0.003)
    fast, slow = descend_fast(ours, start), find_minimum(ours, start, max_iterations=50)
    assert torch.rad2deg(geodesic_distance(fast.pose.R, slow.pose.R)).max() < 1e-2


def test_step_from_the_minimum_moves_as_the_minimum_does():
    problems = make_pnp_problems(1, 30, noise_px=0.5)
    K = problems.camera.K.expand(1, 3, 3)
    weights = torch.ones_like(problems.points_2d)
    points_2d = problems.points_2d.clone().requires_grad_()

    def minimum(pixels):
        ours = pack_problems(problems.points_3d, pixels, weights, K, relative_delta=torch.inf, min_depth=0.01)
        return ours, find_minimum(ours, near(problems, ours), max_iterations=50, tolerance=1e-18).pose

    ours, pose = minimum(points_2d)
    stepped = gauss_newton_step(ours, pose)
    assert (stepped.t - pose.t).abs().max() < 1e-9
    (slope,) = torch.autograd.grad(stepped.t[0, 2], points_2d)
    change = torch.zeros_like(slope)
    change[0, 3] = 1e-3
    moved_t = [minimum((points_2d + sign * change).detach())[1].t[0, 2] for sign in (1, -1)]
    wanted = float(moved_t[0] - moved_t[1]) / 2
    assert float((slope * change).sum()) == pytest.approx(wanted, rel=0.02)


@pytest.mark.parametrize("num_points", [100, 500])
def test_half_outliers_are_solved_from_random_starts(num_points):
    problems = make_pnp_problems(100, num_points, outlier_fraction=0.5, seed=5)
    ours = pack_problems(
        problems.points_3d,
        problems.points_2d,
        torch.ones_like(problems.points_2d),
        problems.camera.K.expand(100, 3, 3),
        relative_delta=0.1,
        min_depth=0.01,
    )
    start = find_start(ours, generator=torch.Generator().manual_seed(0))
    found = find_minimum(ours, start, max_iterations=20)
    for _ in range(2):
        ours = adapt_to_pose(ours, found.pose, 0.1)
        found = find_minimum(ours, found.pose, max_iterations=20)
    errors = pose_errors(*ours.to_object(found.pose), problems.R, problems.t)
    assert success_rate(errors, 5.0, 0.03) >= 0.99
