"""Levenberg-Marquardt for many small problems at once, each with its own damping (Marquardt 1963).

``(H + lambda diag H) delta = -g`` by Cholesky; a step is kept when the robust cost falls. There is no loop
over problems, and those that have converged leave the batch.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sightline.geometry.pnp.linearise import NormalEquations, Problems, normal_equations
from sightline.geometry.pnp.losses import LossName
from sightline.geometry.rotations import exp, hat, log

_INITIAL_DAMPING = 1e-4
_LEAST_DAMPING = 1e-12
_MOST_DAMPING = 1e8
_ABSOLUTE_GAIN = 1e-20  # squared pixels, for problems without noise


class PosePrior(NamedTuple):
    """What is known of the poses beforehand: a Gaussian about ``(R, t)``.

    Args:
        R: ``(*batch, 3, 3)`` object to camera.
        t: ``(*batch, 3)`` metres.
        information: ``(*batch, 6, 6)`` inverse covariance of ``(w, v)``, 1/rad^2 and 1/m^2. It counts against
            residuals whose standard deviation is ``1 / weight`` pixels.
    """

    R: Float[Tensor, "*batch 3 3"]
    t: Float[Tensor, "*batch 3"]
    information: Float[Tensor, "*batch 6 6"]

    def select(self, index: Int[Tensor, " k"]) -> PosePrior:
        """The priors with these numbers, of a flat batch."""
        return PosePrior(self.R[index], self.t[index], self.information[index])


class Objective(NamedTuple):
    """What is minimised over b poses, and over b focal lengths where these are free."""

    problems: Problems
    loss: LossName
    scale_px: Float[Tensor, " b"]
    prior: PosePrior | None = None
    with_focal: bool = False

    def select(self, index: Int[Tensor, " k"]) -> Objective:
        """The part of the batch with these numbers."""
        if len(index) == len(self.scale_px):
            return self
        return self._replace(
            problems=self.problems.select(index),
            scale_px=self.scale_px[index],
            prior=None if self.prior is None else self.prior.select(index),
        )

    def equations(self, state: State) -> NormalEquations:
        """Cost, Hessian and gradient of data and prior by ``(w, v)`` or ``(w, v, log f)``."""
        problems = self.problems.with_focal(state.log_focal) if self.with_focal else self.problems
        data = normal_equations(
            problems, state.R, state.t, self.loss, self.scale_px, with_focal=self.with_focal
        )
        return data if self.prior is None else _add_prior(data, self.prior, state)


class State(NamedTuple):
    """Poses, and by how much (a logarithm) each focal length differs from its problem's K."""

    R: Float[Tensor, "b 3 3"]
    t: Float[Tensor, "b 3"]
    log_focal: Float[Tensor, " b"]

    def moved(self, step: Float[Tensor, "b p"]) -> State:
        """The state after a step ``(w, v)`` or ``(w, v, log f)``."""
        log_focal = self.log_focal + step[:, 6] if step.shape[1] == 7 else self.log_focal
        return State(exp(step[:, :3]) @ self.R, self.t + step[:, 3:6], log_focal)


class Minimum(NamedTuple):
    """Where the descent ended, at what cost, and who had nothing more to gain."""

    state: State
    cost: Float[Tensor, " b"]
    converged: Bool[Tensor, " b"]


def minimise(objective: Objective, start: State, max_iterations: int, tolerance: float) -> Minimum:
    """Descend from a start until no step promises more, each problem for itself.

    Args:
        objective: b problems.
        start: b poses; a problem whose cost is not finite stays where it is.
        max_iterations: an upper bound of linearisations.
        tolerance: the share of the cost that a step must promise to be worth taking.

    Returns:
        The states at the end, their ``(b,)`` cost in squared pixels, and ``(b,)`` who converged.
    """
    state = State(*(field.clone() for field in start))
    cost, hessian, gradient = objective.equations(state)
    damping = torch.full_like(cost, _INITIAL_DAMPING)
    running = cost.isfinite()
    converged = torch.zeros_like(running)
    for _ in range(max_iterations):
        step, promised = damped_step(hessian, gradient, damping)
        finished = running & (promised <= tolerance * cost + _ABSOLUTE_GAIN)
        converged |= finished
        running &= ~finished & (damping < _MOST_DAMPING)
        index = running.nonzero()[:, 0]
        if len(index) == 0:
            break
        moved = State(*(field[index] for field in state)).moved(step[index])
        trial = objective.select(index).equations(moved)
        better = trial.cost < cost[index]
        kept = index[better]
        for target, source in zip((*state, cost, hessian, gradient), (*moved, *trial), strict=True):
            target[kept] = source[better]
        damping[index] *= torch.where(better, 0.1, 10.0)
        damping.clamp_(min=_LEAST_DAMPING)
    return Minimum(state, cost, converged)


def damped_step(
    hessian: Float[Tensor, "b p p"], gradient: Float[Tensor, "b p"], damping: Float[Tensor, " b"]
) -> tuple[Float[Tensor, "b p"], Float[Tensor, " b"]]:
    """Solve ``(H + lambda diag H) delta = -g``.

    Args:
        hessian: ``(b, p, p)`` positive semi-definite.
        gradient: ``(b, p)``.
        damping: ``(b,)`` lambda.

    Returns:
        The steps ``(b, p)``, and ``(b,)`` by how much the linear model promises to lower the cost. A step
        that cannot be computed is zero and promises infinitely much, so that it gains nothing and the damping
        grows.

    Example:
        >>> damped_step(2 * torch.eye(2)[None], torch.ones(1, 2), torch.zeros(1))
        (tensor([[-0.5000, -0.5000]]), tensor([1.]))
    """
    diagonal = hessian.diagonal(dim1=-2, dim2=-1)
    # A parameter that no residual depends on would leave a zero on the diagonal.
    floor = 1e-12 * diagonal.amax(-1, keepdim=True) + torch.finfo(hessian.dtype).tiny
    damped = hessian + torch.diag_embed(damping[:, None] * diagonal + floor)
    factor, failed = torch.linalg.cholesky_ex(damped)
    step = -torch.cholesky_solve(gradient[..., None], factor)[..., 0]
    promised = -(step * (2 * gradient + (hessian @ step[..., None])[..., 0])).sum(-1)
    usable = (failed == 0) & step.isfinite().all(-1)
    return torch.where(usable[:, None], step, 0.0), torch.where(usable, promised, torch.inf)


def _add_prior(data: NormalEquations, prior: PosePrior, state: State) -> NormalEquations:
    """Add ``e^T L e`` with ``e = (log(R R_p^T), t - t_p)``, whose derivative by ``w`` is ``J(e_w)^-1``."""
    away = torch.cat([log(state.R @ prior.R.mT), state.t - prior.t], -1)
    slope = torch.zeros(len(away), 6, data.hessian.shape[-1], dtype=away.dtype, device=away.device)
    slope[:, :3, :3] = _inverse_left_jacobian(away[:, :3])
    slope[:, 3:, 3:6] = torch.eye(3, dtype=away.dtype, device=away.device)
    pull = slope.mT @ prior.information
    return NormalEquations(
        data.cost + (away * (prior.information @ away[..., None])[..., 0]).sum(-1),
        data.hessian + pull @ slope,
        data.gradient + (pull @ away[..., None])[..., 0],
    )


def _inverse_left_jacobian(phi: Float[Tensor, "b 3"]) -> Float[Tensor, "b 3 3"]:
    """``J^-1 = I - [phi]/2 + (1 - (theta/2) cot(theta/2)) / theta^2 [phi]^2`` (Barfoot 2017, eq. 7.37)."""
    theta = torch.linalg.vector_norm(phi, dim=-1)
    half = (theta / 2).clamp_min(1e-4)
    ratio = torch.where(theta > 2e-4, (1 - half / half.tan()) / (4 * half * half), 1 / 12)
    cross = hat(phi)
    identity = torch.eye(3, dtype=phi.dtype, device=phi.device)
    return identity - cross / 2 + ratio[:, None, None] * (cross @ cross)
