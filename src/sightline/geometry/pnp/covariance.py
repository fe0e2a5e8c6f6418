"""How sure a refined pose is: the covariance of a robust estimate, from its own residuals."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from sightline.geometry.pnp.levenberg import Objective, State
from sightline.geometry.pnp.linearise import linearise
from sightline.geometry.pnp.losses import LossTerms


def state_covariance(objective: Objective, state: State) -> Float[Tensor, "b p p"]:
    """The covariance of an M-estimate at its optimum, by ``(w, v)`` or ``(w, v, log f)``.

    It is the noise's :func:`residual_variance` times ``(sum w^2 J^T J)^-1``; where a prior takes part, its
    information is added.

    Args:
        objective: b problems.
        state: b optima.

    Returns:
        ``(b, p, p)`` rad, m and log px; infinite where the points do not fix the parameters.
    """
    problems = objective.problems.with_focal(state.log_focal)
    at = linearise(
        problems, state.R, state.t, objective.loss, objective.scale_px, with_focal=objective.with_focal
    )
    hessian = at.jacobian @ at.jacobian.mT
    variance = residual_variance(
        at.terms, at.squared, problems.weights > 0, objective.scale_px, hessian.shape[-1]
    )
    information = hessian / variance.clamp_min(1e-30)[:, None, None]
    if objective.prior is not None:
        information[:, :6, :6] += objective.prior.information
    return invert_information(information)


def residual_variance(
    terms: LossTerms,
    squared: Float[Tensor, "b n"],
    used: Bool[Tensor, "b n"],
    scale: Float[Tensor, " b"],
    num_parameters: int,
) -> Float[Tensor, " b"]:
    """The variance of weighted residuals that makes an M-estimate as uncertain as it is.

    With ``psi = rho' r`` and noise that is the same in all directions it is (Huber 1981, chapter 6)
    ``(E |psi|^2 / 2) / (E psi')^2``, where ``psi' = rho' + s rho''`` is the slope averaged over the
    residual's direction. The loss's weights say who is an inlier, on both sides of the fraction, and the
    fraction is corrected for the parameters that the residuals were fitted with.

    Args:
        terms: ``(b, n)`` the loss and its derivatives by ``s = squared / scale^2``.
        squared: ``(b, n)`` squared lengths of the weighted residuals.
        used: ``(b, n)`` which points count.
        scale: ``(b,)`` where the loss turns.
        num_parameters: p.

    Returns:
        ``(b,)``; NaN where no point counts.
    """
    counted = used.to(squared)
    scaled = squared / scale.square()[:, None]
    weight = (terms.weight * counted).sum(1)
    slope = ((terms.weight + scaled * terms.curvature) * counted).sum(1)
    psi = (terms.weight.square() * squared * counted).sum(1) / 2
    freedom = (2 * weight - num_parameters).clamp_min(1)
    sharpness = (slope / weight).clamp_min(0.1)  # less, and the loss has rejected nearly every point
    return 2 * psi / freedom / sharpness.square()


def invert_information(information: Float[Tensor, "b p p"]) -> Float[Tensor, "b p p"]:
    """Invert information matrices, with infinity for one that is singular to the precision of float64.

    Args:
        information: ``(b, p, p)`` symmetric, positive semi-definite.

    Returns:
        ``(b, p, p)`` covariances.

    Example:
        >>> invert_information(torch.diag_embed(torch.tensor([[4.0, 1.0], [1.0, 0.0]])))[:, 0, 0]
        tensor([0.2500,    inf])
    """
    # Radians and metres differ by orders of magnitude: the matrix is judged with ones on its diagonal.
    size = information.diagonal(dim1=-2, dim2=-1).clamp_min(0).sqrt()
    outer = size[:, :, None] * size[:, None, :]
    known = outer > 0
    factor, failed = torch.linalg.cholesky_ex(torch.where(known, information / outer, 0.0))
    singular = (failed > 0) | ~(factor.diagonal(dim1=-2, dim2=-1).amin(-1) > 1e-6)
    identity = torch.eye(information.shape[-1], dtype=information.dtype, device=information.device)
    inverse = torch.cholesky_inverse(torch.where(singular[:, None, None], identity, factor)) / outer
    return torch.where(singular[:, None, None], torch.inf, inverse)
