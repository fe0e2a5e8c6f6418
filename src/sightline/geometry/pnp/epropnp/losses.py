"""What a network learns from: the divergence of the posterior from the truth, and a step towards it."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from sightline.geometry.pnp.epropnp.problems import Pose, WeightedProblems, pose_costs
from sightline.geometry.pnp.epropnp.sampling import PoseSamples
from sightline.geometry.pnp.epropnp.solver import gauss_newton_step


class PoseLoss(NamedTuple):
    """The Monte-Carlo pose loss of each problem.

    Args:
        loss: ``(b,)`` ``cost_true + log_z``; zero, without a gradient, where not valid.
        cost_true: ``(b,)`` the cost of the true pose.
        log_z: ``(b,)`` the logarithm of the integral of ``exp(-cost)``.
        valid: ``(b,)`` whether the points fix a pose at all.
        effective_samples: ``(b,)`` how many equally weighted samples ``log_z`` rests on.
        R: ``(b, 3, 3)`` the most probable pose, object to camera, a constant.
        t: ``(b, 3)`` metres.
    """

    loss: Float[Tensor, " b"]
    cost_true: Float[Tensor, " b"]
    log_z: Float[Tensor, " b"]
    valid: Bool[Tensor, " b"]
    effective_samples: Float[Tensor, " b"]
    R: Float[Tensor, "b 3 3"]
    t: Float[Tensor, "b 3"]


class StepLoss(NamedTuple):
    """How far a step from the optimum ends from the truth.

    Args:
        rotation: ``(b,)`` ``1 - cos(angle)``; zero where not valid.
        translation: ``(b,)`` smooth L1 of the distance, metres; zero where not valid.
        valid: ``(b,)`` whether the points fix a pose at all.
    """

    rotation: Float[Tensor, " b"]
    translation: Float[Tensor, " b"]
    valid: Bool[Tensor, " b"]


def pose_loss(
    problems: WeightedProblems, samples: PoseSamples, truth: Pose, mode: Pose, valid: Bool[Tensor, " b"]
) -> PoseLoss:
    """The divergence of the posterior from the true pose, ``cost(truth) + log Z`` (EPro-PnP, eq. 8).

    Args:
        problems: b problems.
        samples: of their posteriors.
        truth: ``(b, 3, 3)`` and ``(b, 3)``, of the centred points, as ``mode``.
        mode: the most probable poses.
        valid: ``(b,)`` the problems that take part.
    """
    cost_true = pose_costs(problems, Pose(truth.R[:, None], truth.t[:, None]))[:, 0]
    loss = cost_true + samples.log_z
    valid = valid & loss.isfinite()
    return PoseLoss(
        torch.where(valid, loss, 0.0),
        cost_true.detach(),
        samples.log_z.detach(),
        valid,
        samples.effective,
        *problems.to_object(mode),
    )


def step_loss(
    problems: WeightedProblems, mode: Pose, truth: Pose, valid: Bool[Tensor, " b"], beta: float
) -> StepLoss:
    """Take a Gauss-Newton step from the optimum, and compare it with the truth (derivative regularisation).

    The optimum itself has no gradient; the step has, and it says where the optimum would move.

    Args:
        problems: b problems.
        mode: ``(b, 3, 3)`` and ``(b, 3)`` the optima, of the centred points.
        truth: ``(b, 3, 3)`` and ``(b, 3)``, likewise.
        valid: ``(b,)`` the problems that take part.
        beta: metres; below it the smooth L1 loss is quadratic.
    """
    stepped = problems.to_object(gauss_newton_step(problems, mode))
    truth = problems.to_object(truth)
    cosine = ((stepped.R * truth.R).sum((-2, -1)) - 1) / 2
    away = F.smooth_l1_loss(stepped.t, truth.t, beta=beta, reduction="none").sum(-1)
    valid = valid & cosine.isfinite() & away.isfinite()
    return StepLoss(torch.where(valid, 1 - cosine, 0.0), torch.where(valid, away, 0.0), valid)
