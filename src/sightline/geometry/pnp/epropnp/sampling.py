"""Poses drawn from their posterior: adaptive multiple importance sampling (Cornuet et al. 2012).

Translations are proposed by a Student-t, rotations by an angular central Gaussian over quaternions, both
first about the most probable pose and then, round by round, about the weighted samples so far. Every sample
is weighed against the mixture of all proposals, ``v = exp(-cost) / mean_r q_r``, so that no early round is
lost and the mean of v estimates the posterior's normalising constant ``Z`` (over unit quaternions, of which
two are one rotation, and metres).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from sightline.geometry.pnp.covariance import invert_information
from sightline.geometry.pnp.epropnp.angular_gaussian import AngularGaussian, disperse, fit_angular_gaussian
from sightline.geometry.pnp.epropnp.problems import Pose
from sightline.geometry.pnp.epropnp.student_t import StudentT, fit_student_t, safe_cholesky
from sightline.geometry.quaternions import matrix_from_quaternion_wxyz, quaternion_wxyz_from_matrix
from sightline.geometry.rotations import hat, log, mean_rotation

Cost = Callable[[Pose], Tensor]


class PoseSamples(NamedTuple):
    """Weighted samples of b posteriors.

    Args:
        pose: ``(b, k, 3, 3)`` and ``(b, k, 3)``; constants.
        costs: ``(b, k)``, differentiable where the cost is.
        log_proposal: ``(b, k)`` the logarithm of the density they were drawn with.
    """

    pose: Pose
    costs: Float[Tensor, "b k"]
    log_proposal: Float[Tensor, "b k"]

    @property
    def log_weights(self) -> Float[Tensor, "b k"]:
        """``log v``: their mean is the logarithm of Z."""
        return -self.costs - self.log_proposal

    @property
    def weights(self) -> Float[Tensor, "b k"]:
        """Each sample's share of the posterior; the shares of a problem sum to one."""
        return self.log_weights.detach().softmax(-1)

    @property
    def log_z(self) -> Float[Tensor, " b"]:
        """The logarithm of ``Z``, the integral of ``exp(-cost)``."""
        return self.log_weights.logsumexp(-1) - math.log(self.costs.shape[-1])

    @property
    def effective(self) -> Float[Tensor, " b"]:
        """How many samples of equal weight would say as much (Kish)."""
        return 1 / self.weights.square().sum(-1)

    def mean(self) -> Pose:
        """The posterior means; a rotation is NaN where the posterior leaves it entirely open."""
        weights = self.weights
        return Pose(mean_rotation(self.pose.R, weights), (weights[..., None] * self.pose.t).sum(1))

    def second_moment(self, about: Pose) -> Float[Tensor, "b 6 6"]:
        """The expectation of ``(w, v) (w, v)^T`` about a pose: about the mean it is the covariance."""
        turn = log(self.pose.R @ about.R[:, None].mT)
        away = torch.cat([turn, self.pose.t - about.t[:, None]], -1)
        return (self.weights[..., None] * away).mT @ away


def draw_poses(
    cost: Cost,
    mode: Pose,
    information: Float[Tensor, "b 6 6"],
    *,
    num_samples: int = 512,
    rounds: int = 4,
    generator: torch.Generator | None = None,
) -> PoseSamples:
    """Draw weighted samples of the posteriors ``exp(-cost) / Z``.

    All problems of a batch are sampled with the same random numbers, so that what is found for one of them
    does not depend on the others.

    Args:
        cost: from ``(b, k, 3, 3)`` and ``(b, k, 3)`` to ``(b, k)``.
        mode: ``(b, 3, 3)`` and ``(b, 3)`` the most probable poses.
        information: ``(b, 6, 6)`` of ``(w, v)`` there.
        num_samples: in all rounds together; rounded up to a multiple of ``rounds``.
        rounds: of adaptation.
        generator: the source of random numbers.

    Returns:
        The samples; gradients flow through their costs.
    """
    translation, rotation = _first_proposals(mode, information)
    proposals: list[tuple[StudentT, AngularGaussian]] = []
    drawn: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
    count = -(-num_samples // rounds)
    for turn in range(rounds):
        proposals.append((translation, rotation))
        t, q = translation.sample(count, generator), rotation.sample(count, generator)
        R = matrix_from_quaternion_wxyz(q)
        drawn.append((t, q, R, cost(Pose(R, t))))
        all_t, all_q, all_R, costs = (torch.cat(parts, 1) for parts in zip(*drawn, strict=True))
        samples = PoseSamples(Pose(all_R, all_t), costs, _mixture(proposals, all_t, all_q))
        if turn < rounds - 1:
            weights = samples.weights
            translation = fit_student_t(all_t, weights)
            rotation = fit_angular_gaussian(all_q, weights, rotation)
    return samples


def _first_proposals(mode: Pose, information: Float[Tensor, "b 6 6"]) -> tuple[StudentT, AngularGaussian]:
    """Proposals with the curvature of the cost at its minimum.

    A turn ``w`` moves the quaternion by ``T w / 2`` with orthonormal columns ``T`` across it, so that the
    precision by quaternions is ``4 T S^-1 T^T``; the identity makes up for the direction along it.
    """
    covariance = invert_information(information.double())
    lost = ~covariance.isfinite().all(-1).all(-1)[:, None, None]
    covariance = torch.where(lost, torch.eye(6, dtype=torch.float64, device=lost.device), covariance)
    covariance = covariance.to(mode.t.dtype)
    across = _across(quaternion_wxyz_from_matrix(mode.R))
    precision = 4 * across @ torch.cholesky_inverse(safe_cholesky(covariance[:, :3, :3])) @ across.mT
    identity = torch.eye(4, dtype=precision.dtype, device=precision.device)
    scatter = torch.cholesky_inverse(safe_cholesky(precision + identity))
    return StudentT(mode.t, safe_cholesky(covariance[:, 3:, 3:])), disperse(scatter)


def _across(q: Float[Tensor, "b 4"]) -> Float[Tensor, "b 4 3"]:
    """The matrix of ``w -> (0, w) q``: an orthonormal frame of the sphere at q."""
    scalar, vector = q[:, :1], q[:, 1:]
    identity = torch.eye(3, dtype=q.dtype, device=q.device)
    return torch.cat([-vector[:, None], scalar[..., None] * identity - hat(vector)], 1)


def _mixture(
    proposals: list[tuple[StudentT, AngularGaussian]], t: Float[Tensor, "b k 3"], q: Float[Tensor, "b k 4"]
) -> Float[Tensor, "b k"]:
    """The logarithm of the mean density of all proposals so far, which drew equally many samples each."""
    each = [of_t.log_density(t) + of_q.log_density(q) for of_t, of_q in proposals]
    return torch.stack(each).logsumexp(0) - math.log(len(each))
