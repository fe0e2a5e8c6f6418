from __future__ import annotations

import pytest
import torch

from sightline.geometry.cameras import project
from sightline.geometry.pnp.linearise import (
    BEHIND_PX,
    linearise,
    normal_equations,
    pack_problems,
    reprojection_errors,
)
from sightline.geometry.rotations import exp, random_rotations
from tests.tolerances import tolerance

K = torch.tensor([[620.0, 3.0, 321.3], [0, 540.0, 244.8], [0, 0, 1]], dtype=torch.float64)
LENS = torch.tensor([-0.21, 0.07, 0.013, -0.021, -0.011], dtype=torch.float64)


def random_batch(count: int = 3, n: int = 7, seed: int = 0) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)
    X = 0.2 * torch.randn(count, n, 3, generator=generator, dtype=torch.float64)
    x = 300 + 100 * torch.randn(count, n, 2, generator=generator, dtype=torch.float64)
    R = random_rotations(count, generator=generator)
    t = torch.tensor([0.1, -0.2, 1.5], dtype=torch.float64).repeat(count, 1)
    weights = 0.5 + torch.rand(count, n, generator=generator, dtype=torch.float64)
    return x, X, R, t, weights


@pytest.mark.parametrize("distortion", [None, LENS])
def test_residual_is_the_cameras_projection_minus_the_pixel(distortion):
    x, X, R, t, weights = random_batch()
    problems = pack_problems(x, X, K, weights, distortion)
    at = linearise(problems, R, t, "squared", torch.ones(3).double())
    expected = project(X @ R.mT + t[:, None], K, distortion) - x
    weighted = (expected * weights[..., None]).mT.flatten(1)
    torch.testing.assert_close(at.residual, weighted, **tolerance(torch.float64))
    torch.testing.assert_close(
        reprojection_errors(problems, R, t), expected.norm(dim=-1), **tolerance(torch.float64)
    )


@pytest.mark.parametrize("distortion", [None, LENS])
def test_jacobian_equals_autograd(distortion):
    x, X, R, t, weights = random_batch()
    problems = pack_problems(x, X, K, weights, distortion)
    analytic = linearise(problems, R, t, "squared", torch.ones(3).double(), with_focal=True).jacobian

    def residual(step):
        focal = torch.ones(3, 3, dtype=torch.float64)
        focal[:2, :2] = step[6].exp()
        moved = X[1] @ (exp(step[:3]) @ R[1]).mT + t[1] + step[3:6]
        offset = (project(moved, K * focal, distortion) - x[1]) * weights[1][:, None]
        return offset.mT.flatten()

    automatic = torch.autograd.functional.jacobian(residual, torch.zeros(7, dtype=torch.float64))
    torch.testing.assert_close(analytic[1], automatic.mT, rtol=1e-10, atol=1e-9)


def test_gradient_is_half_that_of_the_robust_cost():
    x, X, R, t, weights = random_batch()
    scale = torch.tensor([20.0, 50.0, 100.0], dtype=torch.float64)
    problems = pack_problems(x, X, K, weights, LENS)
    for loss in ("huber", "cauchy", "geman_mcclure", "tukey"):

        def cost(step, loss=loss):
            return normal_equations(problems, exp(step[:, :3]) @ R, t + step[:, 3:], loss, scale).cost.sum()

        automatic = torch.func.grad(cost)(torch.zeros(3, 6, dtype=torch.float64))
        analytic = normal_equations(problems, R, t, loss, scale).gradient
        torch.testing.assert_close(2 * analytic, automatic, rtol=1e-9, atol=1e-7)


def test_a_point_behind_the_camera_costs_much_and_pulls_nowhere():
    x, X, R, _, weights = random_batch(1)
    behind = torch.tensor([[0.0, 0.0, -3.0]], dtype=torch.float64)
    at = linearise(pack_problems(x, X, K, weights, None), R, behind, "squared", torch.ones(1).double())
    assert (at.jacobian == 0).all()
    assert (at.squared >= BEHIND_PX**2 * weights.square()).all()
    problems = pack_problems(x, X, K, weights, None)
    assert torch.isinf(reprojection_errors(problems, R, behind)).all()


def test_padding_of_any_content_changes_nothing():
    x, X, R, t, weights = random_batch()
    lean = normal_equations(pack_problems(x, X, K, weights, None), R, t, "cauchy", torch.ones(3).double())
    nan = torch.full((3, 4, 3), torch.nan, dtype=torch.float64)
    padded = pack_problems(
        torch.cat([x, nan[..., :2]], 1),
        torch.cat([X, nan], 1),
        K,
        torch.cat([weights, torch.zeros(3, 4).double()], 1),
        None,
    )
    fat = normal_equations(padded, R, t, "cauchy", torch.ones(3).double())
    for with_padding, without in zip(fat, lean, strict=True):
        torch.testing.assert_close(with_padding, without, **tolerance(torch.float64))
