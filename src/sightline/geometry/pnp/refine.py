"""Refinement of many poses at once on all of their correspondences: weighted, robust, float64.

The descent is in :mod:`sightline.geometry.pnp.levenberg`, the model in
:mod:`sightline.geometry.pnp.linearise`.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from sightline.geometry.pnp.covariance import state_covariance
from sightline.geometry.pnp.levenberg import Objective, PosePrior, State, minimise
from sightline.geometry.pnp.linearise import normal_equations, pack_problems, reprojection_errors
from sightline.geometry.pnp.losses import LossName
from sightline.geometry.rotations import exp


class RefinedPoses(NamedTuple):
    """What :func:`refine_poses` returns; a start that is NaN comes back as NaN.

    Args:
        R: ``(*batch, 3, 3)`` object to camera.
        t: ``(*batch, 3)`` metres.
        covariance: ``(*batch, 6, 6)`` of ``(w, v)`` in ``R' = exp(w) R``, ``t' = t + v``, rad and m; infinite
            where the points do not fix the pose. With a free focal length it includes what that adds.
        cost: ``(*batch,)`` robust cost at the end, squared pixels.
        converged: ``(*batch,)`` whether no further step promised anything.
        residuals_px: ``(*batch, n)`` reprojection errors, pixels; infinite behind the camera.
        focal_scale: ``(*batch,)`` by what the focal lengths of K are to be multiplied; ones unless these are
            free.
        focal_scale_std: ``(*batch,)`` its relative standard deviation; zeros unless the focal lengths are
            free.
    """

    R: Float[Tensor, "*batch 3 3"]
    t: Float[Tensor, "*batch 3"]
    covariance: Float[Tensor, "*batch 6 6"]
    cost: Float[Tensor, "*batch"]
    converged: Bool[Tensor, "*batch"]
    residuals_px: Float[Tensor, "*batch n"]
    focal_scale: Float[Tensor, "*batch"]
    focal_scale_std: Float[Tensor, "*batch"]


@torch.no_grad()
def refine_poses(
    points_2d: Float[Tensor, "*batch n 2"],
    points_3d: Float[Tensor, "*batch n 3"],
    K: Float[Tensor, "..."],
    R: Float[Tensor, "*batch 3 3"],
    t: Float[Tensor, "*batch 3"],
    *,
    weights: Float[Tensor, "*batch n"] | None = None,
    distortion: Float[Tensor, "..."] | None = None,
    loss: LossName = "huber",
    scale_px: Float[Tensor, "..."] | float = 1.0,
    prior: PosePrior | None = None,
    refine_focal: bool = False,
    graduation: int = 0,
    max_iterations: int = 50,
    tolerance: float = 1e-10,
) -> RefinedPoses:
    """Minimise ``scale^2 sum rho(|w (pi(R X + t) - x)|^2 / scale^2)``, plus the prior's term, over each pose.

    Args:
        points_2d: ``(*batch, n, 2)`` pixels as the camera delivers them.
        points_3d: ``(*batch, n, 3)`` metres, object frame.
        K: ``(3, 3)`` or ``(*batch, 3, 3)`` pixels.
        R: ``(*batch, 3, 3)`` starting rotations, object to camera.
        t: ``(*batch, 3)`` starting translations, metres.
        weights: ``(*batch, n)`` proportional to the inverse standard deviation of each pixel; zero for
            padding, whose coordinates may be anything. None for ones.
        distortion: ``(5,)`` or ``(*batch, 5)`` k1 k2 p1 p2 k3, or None.
        loss: see :func:`sightline.geometry.pnp.losses.robust_loss`.
        scale_px: where the loss turns, pixels times weight; one number or ``(*batch,)``.
        prior: a Gaussian prior of the poses, for tracking.
        refine_focal: also free one factor of both focal lengths for each pose.
        graduation: how often to halve the scale on the way down to ``scale_px`` (graduated non-convexity,
            Blake and Zisserman 1987): 0 starts at ``scale_px``, k at ``2^k scale_px``.
        max_iterations: of Levenberg-Marquardt at each scale.
        tolerance: the descent ends when a step promises a smaller share of the cost than this: with n points
            some ``sqrt(2 n tolerance)`` standard deviations away from the optimum.

    Returns:
        Poses with their covariance, all float64.

    Example:
        >>> from sightline.geometry.cameras import project
        >>> X = torch.rand(3, 20, 3, dtype=torch.float64) - 0.5
        >>> K = torch.tensor([[600.0, 0, 320], [0, 600, 240], [0, 0, 1]], dtype=torch.float64)
        >>> R, t = torch.eye(3).double().expand(3, 3, 3), torch.tensor([[0.0, 0, 3]] * 3).double()
        >>> x = project(X + t[:, None], K)
        >>> torch.allclose(refine_poses(x, X, K, exp(0.1 * t) @ R, t + 0.1).t, t)
        True
    """
    batch = points_2d.shape[:-2]
    problems = pack_problems(points_2d, points_3d, K, weights, distortion)
    count = len(problems.K)
    scale = torch.as_tensor(scale_px, dtype=torch.float64, device=problems.K.device)
    objective = Objective(
        problems, loss, scale.expand(batch).reshape(count), _flat_prior(prior, count), refine_focal
    )
    state = State(R.double().reshape(count, 3, 3), t.double().reshape(count, 3), problems.K.new_zeros(count))
    for halving in range(graduation, 0, -1):
        coarse = objective._replace(scale_px=objective.scale_px * 2.0**halving)
        state = minimise(coarse, state, max_iterations, tolerance).state
    state, cost, converged = minimise(objective, state, max_iterations, tolerance)
    covariance = state_covariance(objective, state)
    residuals = reprojection_errors(problems.with_focal(state.log_focal), state.R, state.t)
    lost = ~(state.R.isfinite().all((-2, -1)) & state.t.isfinite().all(-1))
    return RefinedPoses(
        torch.where(lost[:, None, None], torch.nan, state.R).reshape(*batch, 3, 3),
        torch.where(lost[:, None], torch.nan, state.t).reshape(*batch, 3),
        torch.where(lost[:, None, None], torch.inf, covariance[:, :6, :6]).reshape(*batch, 6, 6),
        torch.where(lost, torch.nan, cost).reshape(batch),
        (converged & ~lost).reshape(batch),
        residuals.reshape(*batch, -1),
        state.log_focal.exp().reshape(batch),
        (covariance[:, 6, 6].sqrt() if refine_focal else torch.zeros_like(cost)).reshape(batch),
    )


def gauss_newton_step(
    points_2d: Float[Tensor, "*batch n 2"],
    points_3d: Float[Tensor, "*batch n 3"],
    K: Float[Tensor, "..."],
    R: Float[Tensor, "*batch 3 3"],
    t: Float[Tensor, "*batch 3"],
    *,
    weights: Float[Tensor, "*batch n"] | None = None,
    distortion: Float[Tensor, "..."] | None = None,
    loss: LossName = "squared",
    scale_px: float = 1.0,
) -> tuple[Float[Tensor, "*batch 3 3"], Float[Tensor, "*batch 3"]]:
    """Take one differentiable Gauss-Newton step from a pose that is held constant.

    At the optimum the step is zero, and its gradient by the points and weights is that of the optimum itself
    (up
    to terms of the size of the residuals), so that a solver without gradients becomes a differentiable layer:
    ``gauss_newton_step(x, X, K, *refine_poses(x, X, K, R, t)[:2])`` (Chen et al., EPro-PnP, CVPR 2022).

    Args:
        points_2d: ``(*batch, n, 2)`` pixels.
        points_3d: ``(*batch, n, 3)`` metres, object frame.
        K: ``(3, 3)`` or ``(*batch, 3, 3)`` pixels.
        R: ``(*batch, 3, 3)`` optimum, object to camera; no gradient flows into it.
        t: ``(*batch, 3)`` optimum, metres; likewise.
        weights: ``(*batch, n)``, or None for ones.
        distortion: ``(5,)`` or ``(*batch, 5)``, or None.
        loss: the robust loss.
        scale_px: its scale, pixels times weight.

    Returns:
        The moved pose ``(*batch, 3, 3)`` and ``(*batch, 3)``, float64; NaN where the points do not fix it.

    Example:
        >>> X = torch.rand(20, 3, dtype=torch.float64, requires_grad=True)
        >>> K = torch.tensor([[600.0, 0, 320], [0, 600, 240], [0, 0, 1]], dtype=torch.float64)
        >>> R, t = gauss_newton_step(torch.rand(20, 2) * 400, X, K, torch.eye(3), torch.tensor([0.0, 0, 3]))
        >>> t.sum().backward()
        >>> X.grad.shape
        torch.Size([20, 3])
    """
    batch = points_2d.shape[:-2]
    problems = pack_problems(points_2d, points_3d, K, weights, distortion)
    count = len(problems.K)
    R, t = R.detach().double().reshape(count, 3, 3), t.detach().double().reshape(count, 3)
    scale = problems.K.new_full((count,), scale_px)
    equations = normal_equations(problems, R, t, loss, scale)
    factor, failed = torch.linalg.cholesky_ex(equations.hessian)
    singular = (failed > 0)[:, None]
    factor = torch.where(singular[..., None], torch.eye(6, dtype=R.dtype, device=R.device), factor)
    step = -torch.cholesky_solve(equations.gradient[..., None], factor)[..., 0]
    step = torch.where(singular, torch.nan, step)
    return (exp(step[:, :3]) @ R).reshape(*batch, 3, 3), (t + step[:, 3:]).reshape(*batch, 3)


def _flat_prior(prior: PosePrior | None, count: int) -> PosePrior | None:
    if prior is None:
        return None
    return PosePrior(
        prior.R.double().reshape(count, 3, 3),
        prior.t.double().reshape(count, 3),
        prior.information.double().reshape(count, 6, 6),
    )
