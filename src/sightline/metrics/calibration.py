"""Whether claimed covariances are right: in how many cases the truth lies within an ellipsoid of a level."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def ellipsoid_levels(
    errors: Float[Tensor, "*batch k"], covariance: Float[Tensor, "*batch k k"]
) -> Float[Tensor, "*batch"]:
    """The probability that a normal distribution gives to its smallest ellipsoid that holds the truth.

    That is ``P(chi2_k <= e^T C^-1 e)``. Where the covariances are right the levels are uniform in [0, 1], so
    that a share p of them is at most p.

    Args:
        errors: ``(*batch, k)`` truth less estimate.
        covariance: ``(*batch, k, k)`` that the estimate claims.

    Returns:
        ``(*batch,)`` levels in [0, 1]; NaN where the covariance is not finite or not positive definite: it
        then claims nothing.

    Example:
        >>> ellipsoid_levels(torch.tensor([[0.0, 0.0], [1.1774, 0.0]]), torch.eye(2).expand(2, 2, 2))
        tensor([0.0000, 0.5000])
    """
    finite = covariance.isfinite().all(-1).all(-1) & errors.isfinite().all(-1)
    k = errors.shape[-1]
    safe = torch.where(finite[..., None, None], covariance, torch.eye(k).to(covariance))
    factor, failed = torch.linalg.cholesky_ex(safe)
    whitened = torch.linalg.solve_triangular(
        torch.where((failed == 0)[..., None, None], factor, torch.eye(k).to(factor)),
        torch.where(finite[..., None], errors, 0.0).to(factor)[..., None],
        upper=False,
    )
    half = whitened.square().sum((-2, -1)) / 2
    levels = torch.special.gammainc(torch.full_like(half, k / 2), half)
    return torch.where(finite & (failed == 0), levels, torch.nan)


def coverage(levels: Float[Tensor, " n"], at: Float[Tensor, " m"]) -> Float[Tensor, " m"]:
    """The share of levels that are at most some.

    Args:
        levels: ``(n,)`` of :func:`ellipsoid_levels`; NaN is left out.
        at: ``(m,)`` in [0, 1].

    Returns:
        ``(m,)`` shares, NaN where there is no level.

    Example:
        >>> coverage(torch.tensor([0.2, 0.7]), torch.tensor([0.5, 0.9]))
        tensor([0.5000, 1.0000])
    """
    known = levels[~levels.isnan()]
    return (known[:, None] <= at).to(at).mean(0)
