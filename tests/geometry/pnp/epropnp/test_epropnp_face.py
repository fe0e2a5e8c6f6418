import pytest
import torch
from scipy import stats

from sightline.geometry.pnp.epropnp import EProPnP
from sightline.geometry.pnp.epropnp.losses import pose_loss
from sightline.geometry.pnp.epropnp.problems import pack_problems, pose_costs
from sightline.geometry.poses import make_pose
from sightline.geometry.rotations import exp, log
from sightline.synthetic.problems import make_pnp_problems, pose_errors, success_rate


def inputs(problems, dtype=torch.float64):
    K = problems.camera.K.expand(len(problems), 3, 3)
    parts = problems.points_3d, problems.points_2d, torch.ones_like(problems.points_2d), K
    return tuple(part.to(dtype) for part in parts)


def coverage(result, problems):
    away = torch.cat([log(problems.R @ result.R.mT), problems.t - result.t], -1)
    distance = (away * torch.linalg.solve(result.covariance, away[..., None])[..., 0]).sum(-1)
    return [float((distance < stats.chi2(6).ppf(share)).double().mean()) for share in (0.5, 0.9, 0.95)]


@pytest.mark.parametrize("covariance", ["posterior", "curvature"])
@pytest.mark.parametrize("noise", ["weights", "residuals"])
def test_covariance_is_calibrated(covariance, noise):
    problems = make_pnp_problems(400, 60, seed=7)
    points_3d, points_2d, weights, K = inputs(problems)
    points_3d = points_3d + 0.05  # an object frame whose origin is not in the object's middle
    t = problems.t - (problems.R @ torch.full((3, 1), 0.05).double())[..., 0]
    moved = type(problems)(points_2d, points_3d, problems.camera, problems.R, t, problems.inliers, 1.0)
    weights = weights * (1.0 if noise == "weights" else 7.0)
    result = EProPnP(covariance=covariance, noise=noise, num_proposals=8).solve(
        points_3d, points_2d, weights, K, start=make_pose(problems.R, t)
    )
    assert result.valid.all()
    assert torch.tensor(coverage(result, moved)) == pytest.approx(torch.tensor([0.5, 0.9, 0.95]), abs=0.07)


def test_half_outliers_are_solved():
    problems = make_pnp_problems(100, 200, outlier_fraction=0.5, seed=5)
    result = EProPnP(covariance="curvature").solve(*inputs(problems))
    errors = pose_errors(result.R, result.t, problems.R, problems.t)
    assert success_rate(errors, 5.0, 0.03) >= 0.99


@pytest.mark.parametrize("planar", [False, True])
def test_single_precision_solves(planar):
    problems = make_pnp_problems(20, 60, planar=planar, noise_px=0.3)
    result = EProPnP().solve(*inputs(problems, torch.float32))
    assert result.R.dtype == torch.float32
    assert result.valid.all()
    errors = pose_errors(result.R.double(), result.t.double(), problems.R, problems.t)
    assert success_rate(errors, 3.0, 0.02) >= 0.9


def test_single_precision_survives_autocast():
    problems = make_pnp_problems(2, 60)
    layer, plain = EProPnP(), inputs(problems, torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = layer.solve(*plain)
    torch.testing.assert_close(inside.R, layer.solve(*plain).R)


def test_result_does_not_depend_on_the_batch_or_on_padding():
    problems = make_pnp_problems(4, 30, outlier_fraction=0.2)
    points_3d, points_2d, weights, K = inputs(problems)
    whole = EProPnP().solve(points_3d, points_2d, weights, K)
    padding = torch.full((1, 9, 3), torch.nan).double()
    alone = EProPnP().solve(
        torch.cat([points_3d[2:3], padding], 1),
        torch.cat([points_2d[2:3], padding[..., :2]], 1),
        torch.cat([weights[2:3], torch.zeros(1, 9, 2)], 1),
        K[2:3],
    )
    torch.testing.assert_close(alone.R[0], whole.R[2], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(alone.covariance[0], whole.covariance[2], rtol=1e-2, atol=1e-9)


def test_failures_are_flagged_and_never_the_identity():
    problems = make_pnp_problems(5, 20)
    points_3d, points_2d, weights, K = (part.clone() for part in inputs(problems))
    weights[0, 3:] = 0
    points_3d[1] = points_3d[1, :, :1] * torch.tensor([1.0, 2.0, 3.0])
    points_2d[2, 5] = torch.nan
    weights[3] = 0
    result = EProPnP().solve(points_3d, points_2d, weights, K)
    assert result.valid.tolist() == [False, False, False, False, True]
    words = ("fewer than 4", "on one line", "not finite", "fewer than 4")
    assert all(word in reason for word, reason in zip(words, result.reason, strict=False))
    assert result.reason[4] == ""
    assert result.R[:4].isnan().all()
    assert result.t[:4].isnan().all()
    assert result.covariance[:4].isinf().all()


def test_pose_behind_the_camera_is_flagged():
    problems = make_pnp_problems(3, 30)
    points_3d, points_2d, weights, K = inputs(problems)
    behind = make_pose(problems.R, -problems.t)
    result = EProPnP(num_proposals=0, covariance="curvature").solve(
        points_3d, points_2d, weights, K, start=behind
    )
    assert not result.valid.any()


def test_loss_is_least_at_the_truth():
    problems = make_pnp_problems(16, 200, noise_px=1.0, seed=2)
    layer, generator = EProPnP(num_proposals=8), torch.Generator()

    def loss(turn, shift):
        pose = make_pose(exp(torch.tensor(turn).double()) @ problems.R, problems.t + torch.tensor(shift))
        return layer.monte_carlo_loss(*inputs(problems), pose, generator=generator.manual_seed(0)).loss.mean()

    least = loss([0.0, 0.0, 0.0], [0.0, 0.0, 0.0])
    for axis in range(3):
        for size in (-0.1, 0.1):
            move = [size if i == axis else 0.0 for i in range(3)]
            assert loss(move, [0.0, 0.0, 0.0]) > least + 1
            assert loss([0.0, 0.0, 0.0], [0.3 * part for part in move]) > least + 1


def test_loss_learns_to_distrust_outliers():
    problems = make_pnp_problems(8, 100, outlier_fraction=0.3)
    points_3d, points_2d, weights, K = inputs(problems)
    weights.requires_grad_()
    loss = EProPnP().monte_carlo_loss(
        points_3d, points_2d, 0.1 * weights, K, make_pose(problems.R, problems.t)
    )
    loss.loss.sum().backward()
    slope = weights.grad.sum(-1)
    assert slope[~problems.inliers].mean() > 0 > slope[problems.inliers].mean()


def small_problem():
    problems = make_pnp_problems(2, 6, noise_px=3.0)
    points_3d, points_2d, weights, K = inputs(problems)
    pose = make_pose(exp(torch.tensor([[0.02, 0.01, 0.03]]).double()) @ problems.R, problems.t + 0.005)
    return tuple(part.clone().requires_grad_() for part in (points_3d, points_2d, 0.05 * weights)), K, pose


def test_gradient_of_the_step_is_that_of_finite_differences():
    parts, K, pose = small_problem()
    layer = EProPnP(covariance="curvature", num_adaptations=0, max_iterations=100)
    found = layer.solve(*parts, K, start=pose)
    mode = make_pose(found.R, found.t)

    def loss(*parts):
        step = layer.derivative_regularisation(*parts, K, pose, mode=mode)
        return step.rotation + step.translation

    assert torch.autograd.gradcheck(loss, parts, eps=1e-6, atol=1e-4, rtol=1e-3)


def test_gradient_of_the_loss_is_that_of_finite_differences():
    """Samples and centre are constants of the loss, so they are held while its inputs are moved."""
    parts, K, pose = small_problem()
    layer, generator = EProPnP(num_proposals=0, num_samples=8, rounds=1), torch.Generator()
    whole = layer.monte_carlo_loss(*parts, K, pose, generator=generator.manual_seed(0))
    mode = make_pose(whole.R, whole.t)
    drawn = layer.sample(*parts, K, mode, generator=generator.manual_seed(0))
    centre = parts[0].detach().mean(1)

    def loss(points_3d, points_2d, weights):
        problems = pack_problems(points_3d, points_2d, weights, K, relative_delta=0.1, min_depth=0.01)
        problems = problems._replace(centre=centre, points_3d=(points_3d - centre[:, None]).mT)
        centred, truth = (
            problems.to_centred(*drawn.pose),
            problems.to_centred(pose[:, :3, :3], pose[:, :3, 3]),
        )
        samples = drawn._replace(pose=centred, costs=pose_costs(problems, centred))
        return pose_loss(problems, samples, truth, truth, torch.ones(2, dtype=torch.bool)).loss

    slopes = torch.autograd.grad(whole.loss.sum(), parts)
    torch.testing.assert_close(slopes, torch.autograd.grad(loss(*parts).sum(), parts))
    assert torch.autograd.gradcheck(loss, parts, eps=1e-6, atol=1e-4, rtol=1e-3)


def test_loss_without_points_is_zero_with_finite_gradients():
    problems = make_pnp_problems(2, 10)
    points_3d, points_2d, weights, K = inputs(problems)
    weights[0] = 0
    weights.requires_grad_()
    loss = EProPnP().monte_carlo_loss(points_3d, points_2d, weights, K, make_pose(problems.R, problems.t))
    loss.loss.sum().backward()
    assert loss.valid.tolist() == [False, True]
    assert loss.loss[0] == 0
    assert weights.grad.isfinite().all()


def test_bad_input_is_named():
    problems = make_pnp_problems(2, 10)
    points_3d, points_2d, weights, K = inputs(problems)
    with pytest.raises(ValueError, match="weights_2d"):
        EProPnP().solve(points_3d, points_2d, -weights, K)
    with pytest.raises(ValueError, match="num_proposals"):
        EProPnP(num_proposals=0).solve(points_3d, points_2d, weights, K)
    with pytest.raises(ValueError, match="relative_delta"):
        EProPnP(relative_delta=0.0)
    with pytest.raises(ValueError, match="rounds"):
        EProPnP(rounds=0)
