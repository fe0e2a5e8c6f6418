"""Whether claimed covariances are right: in how many cases the truth lies within an ellipsoid of a level.

A covariance describes how far off a pose is that is about right. Where an object is taken for its other side
no ellipsoid helps; how often that happens is a figure of its own. So coverage is told twice: over all poses
that were reported, and over those *in the right mode*, which are off by at most ``MODE_DEG`` and
``MODE_SHARE`` up to symmetry. The first is what a user meets who believes every pose, the second says whether
the covariances are right.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

MODE_DEG = 15.0
"""Degrees by which a pose in the right mode is turned at the most."""
MODE_SHARE = 0.15
"""By how much it is shifted at the most, diameters."""


def in_right_mode(
    turn_deg: Float[Tensor, "*batch"], shift: Float[Tensor, "*batch"]
) -> Bool[Tensor, "*batch"]:
    """Which poses are about right, so that a covariance can describe what they are off by.

    Args:
        turn_deg: ``(*batch)`` degrees, up to symmetry.
        shift: ``(*batch)`` diameters, up to symmetry.

    Returns:
        ``(*batch)``; False for a pose that is missing (infinite or NaN).

    Example:
        >>> in_right_mode(torch.tensor([3.0, 178.0]), torch.tensor([0.02, 0.01]))
        tensor([ True, False])
    """
    return (turn_deg <= MODE_DEG) & (shift <= MODE_SHARE)


def ellipsoid_levels(
    errors: Float[Tensor, "*batch k"],
    covariance: Float[Tensor, "*batch k k"],
    freedom: Float[Tensor, "*batch"] | float = math.inf,
) -> Float[Tensor, "*batch"]:
    """The probability that a claimed distribution gives to its smallest ellipsoid that holds the truth.

    That is ``P(chi2_k <= e^T C^-1 e)`` for a normal distribution, and for a Student's t of the same
    covariance ``P(F_{k,v} <= e^T C^-1 e v / (v - 2) / k)``. Where the claims are right the levels are uniform
    in [0, 1], so that a share p of them is at most p.

    Args:
        errors: ``(*batch, k)`` truth less estimate.
        covariance: ``(*batch, k, k)`` that the estimate claims.
        freedom: v, above 2: ``(*batch,)`` or one for all; infinite for normal distributions.

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
    squared = whitened.square().sum((-2, -1))
    freedom = torch.as_tensor(freedom, dtype=squared.dtype).expand(squared.shape)
    levels = torch.special.gammainc(torch.full_like(squared, k / 2), squared / 2)
    if bool(freedom.isfinite().any()):
        levels = torch.where(freedom.isfinite(), _student_levels(squared, k, freedom), levels)
    return torch.where(finite & (failed == 0), levels, torch.nan)


def _student_levels(squared: Tensor, k: int, freedom: Tensor) -> Tensor:
    """The distribution of the squared distance that a Student's t has, by the incomplete beta function."""
    from scipy.special import betainc

    v = freedom.clamp(max=1e12)
    scaled = squared * v / (v - 2)
    levels = betainc(k / 2, (v / 2).numpy(), (scaled / (scaled + v)).numpy())
    return torch.from_numpy(np.asarray(levels)).to(squared)


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
