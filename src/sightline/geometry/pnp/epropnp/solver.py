"""The most probable pose: Levenberg-Marquardt with a trust region on reweighted least squares.

Huber's loss is minimised as least squares whose weights ``delta / |f|`` beyond delta are renewed at each
step. The step ``(H + diag(H) / radius) delta = -g`` is kept when the cost falls by at least a thousandth of
what was promised, and the radius follows the ratio of the two (Madsen, Nielsen and Tingleff 2004). Poses are
perturbed as everywhere in ``geometry.pnp``: ``R' = exp(w) R``, ``t' = t + v``.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from sightline.geometry.pnp.epropnp.problems import Pose, WeightedProblems
from sightline.geometry.pnp.levenberg import damped_step
from sightline.geometry.pnp.linearise import pose_columns
from sightline.geometry.pnp.losses import LossTerms, robust_loss
from sightline.geometry.rotations import exp

_LEAST_RATIO = 1e-3


class Linearised(NamedTuple):
    """A problem about a pose: ``g = J^T f`` and ``H = J^T J``, reweighted, and the cost ``1/2 sum rho``."""

    cost: Float[Tensor, " b"]
    gradient: Float[Tensor, "b 6"]
    hessian: Float[Tensor, "b 6 6"]
    terms: LossTerms
    squared: Float[Tensor, "b n"]


class Minimum(NamedTuple):
    """Where the descent ended, at what cost, with which information, and who had nothing more to gain."""

    pose: Pose
    cost: Float[Tensor, " b"]
    information: Float[Tensor, "b 6 6"]
    converged: Bool[Tensor, " b"]


def weighted_residuals(
    problems: WeightedProblems, pose: Pose
) -> tuple[Float[Tensor, "b rows"], Float[Tensor, "b 6 rows"]]:
    """Residuals ``w o (pi(R X + t) - x)``, all u before all v, and their derivative by ``(w, v)``.

    Args:
        problems: b problems of n points.
        pose: ``(b, 3, 3)`` and ``(b, 3)``, of the centred points.

    Returns:
        ``(b, 2n)`` and ``(b, 6, 2n)``; a point nearer than the least depth has no derivative.
    """
    rotated = pose.R @ problems.points_3d
    x, y, z = (rotated + pose.t[..., None]).unbind(1)
    inverse = z.clamp_min(problems.min_depth).reciprocal()
    x, y = x * inverse, y * inverse
    (fx, skew), (ky, fy) = (row.unbind(1) for row in problems.slopes[..., None].unbind(1))
    u, v = problems.points_2d.unbind(1)
    weight_u, weight_v = problems.weights.unbind(1)
    residual = torch.cat([(fx * x + skew * y - u) * weight_u, (ky * x + fy * y - v) * weight_v], 1)
    inverse = inverse * (z > problems.min_depth)
    point = rotated.unbind(1)
    rows_u = pose_columns(fx, skew, x, y, inverse * weight_u, point)
    rows_v = pose_columns(ky, fy, x, y, inverse * weight_v, point)
    return residual, torch.cat([torch.stack(rows_u, 1), torch.stack(rows_v, 1)], 2)


def linearise(problems: WeightedProblems, pose: Pose) -> Linearised:
    """Cost, gradient and Gauss-Newton Hessian at a pose; arguments as for :func:`weighted_residuals`."""
    residual, jacobian = weighted_residuals(problems, pose)
    squared = residual.unflatten(1, (2, -1)).square().sum(1)
    terms = robust_loss(squared / problems.delta.square()[:, None], "huber")
    length = squared.clamp_min(1e-30).sqrt()
    near = torch.minimum(length, problems.delta[:, None])
    weight = terms.weight.repeat(1, 2)[:, None]
    return Linearised(
        (near * (length - near / 2)).sum(1),
        ((jacobian * weight) @ residual[..., None])[..., 0],
        (jacobian * weight) @ jacobian.mT,
        terms,
        squared,
    )


@torch.no_grad()
def find_minimum(
    problems: WeightedProblems,
    start: Pose,
    *,
    max_iterations: int = 10,
    tolerance: float = 1e-8,
    radius: float = 30.0,
) -> Minimum:
    """Descend from a start, each problem with its own trust region.

    Args:
        problems: b problems.
        start: ``(b, 3, 3)`` and ``(b, 3)``.
        max_iterations: linearisations at most.
        tolerance: a problem has converged when a step promises a smaller share of its cost.
        radius: of the trust region at the start, in units of the Hessian's diagonal.
    """
    pose, here = start, linearise(problems, start)
    trust, shrink = torch.full_like(here.cost, radius), torch.full_like(here.cost, 2.0)
    converged = torch.zeros_like(here.cost, dtype=torch.bool)
    for _ in range(max_iterations):
        step, promised = damped_step(here.hessian, here.gradient, 1 / trust)
        converged = converged | (promised <= tolerance * (here.cost + tolerance))
        if bool(converged.all()):
            break
        trial_pose = moved(pose, step)
        trial = linearise(problems, trial_pose)
        ratio = 2 * (here.cost - trial.cost) / promised
        kept = (ratio >= _LEAST_RATIO) & ~converged
        pose = Pose(*(_where(kept, new, old) for new, old in zip(trial_pose, pose, strict=True)))
        here = Linearised(
            *(_where(kept, new, old) for new, old in zip(trial[:3], here[:3], strict=True)), *trial[3:]
        )
        wider = trust / (1 - (2 * ratio - 1) ** 3).clamp_min(1 / 3)
        trust = torch.where(kept, wider, trust / shrink).clamp(1e-8, 1e16)
        shrink = torch.where(kept, 2.0, 2 * shrink).clamp_max(1e8)
    return Minimum(pose, here.cost, here.hessian, converged)


@torch.no_grad()
def descend_fast(problems: WeightedProblems, start: Pose, *, num_iterations: int = 3) -> Minimum:
    """Take plain Gauss-Newton steps, unchecked: for starts that are near, as a network's are at test time."""
    pose = start
    for _ in range(num_iterations):
        pose = gauss_newton_step(problems, pose)
    here = linearise(problems, pose)
    return Minimum(pose, here.cost, here.hessian, here.cost.isfinite())


def gauss_newton_step(problems: WeightedProblems, pose: Pose) -> Pose:
    """Take one differentiable Gauss-Newton step from a pose.

    From the minimum the step is zero and its derivative by points and weights is that of the minimum itself,
    up to terms of the size of the residuals: what the derivative regularisation learns from.

    Args:
        problems: b problems.
        pose: ``(b, 3, 3)`` and ``(b, 3)``, taken as constants.
    """
    pose = Pose(pose.R.detach(), pose.t.detach())
    here = linearise(problems, pose)
    step, _ = damped_step(here.hessian, here.gradient, torch.full_like(here.cost, 1e-6))
    return moved(pose, step)


def moved(pose: Pose, step: Float[Tensor, "b 6"]) -> Pose:
    """The pose after a step ``(w, v)``."""
    return Pose(exp(step[:, :3]) @ pose.R, pose.t + step[:, 3:])


def _where(kept: Bool[Tensor, " b"], new: Tensor, old: Tensor) -> Tensor:
    return torch.where(kept.reshape(-1, *[1] * (new.ndim - 1)), new, old)
