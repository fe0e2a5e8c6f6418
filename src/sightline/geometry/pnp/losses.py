"""Robust losses: how much a residual counts, by its squared length.

Each loss is a function of ``s = (|r| / scale)^2`` with ``rho(s) = s + O(s^2)``, so that all of them agree on
small residuals. The cost of a problem is ``scale^2 sum rho(s)``, which is in squared pixels whatever the
loss.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

LossName = Literal["squared", "huber", "cauchy", "geman_mcclure", "tukey"]


class LossTerms(NamedTuple):
    """A robust loss at ``s``: its value, and its first and second derivative by ``s``."""

    value: Float[Tensor, "*points"]
    weight: Float[Tensor, "*points"]
    curvature: Float[Tensor, "*points"]


def robust_loss(squared: Float[Tensor, "*points"], name: LossName) -> LossTerms:
    """Evaluate a robust loss and its derivatives.

    ``squared``: s. ``huber``: s up to 1, then 2 sqrt(s) - 1 (Huber 1964). ``cauchy``: log(1 + s).
    ``geman_mcclure``: s / (1 + s). ``tukey``: (1 - (1 - s)^3) / 3 up to 1, then constant (Beaton and Tukey
        1974).

    Args:
        squared: ``(*points,)`` squared residuals in units of the squared scale, non-negative.
        name: which loss.

    Returns:
        rho, rho' (the weight of iteratively reweighted least squares) and rho'', each ``(*points,)``.

    Raises:
        ValueError: an unknown name.

    Example:
        >>> robust_loss(torch.tensor([0.0, 4.0]), "huber").value
        tensor([0., 3.])
    """
    if name not in _LOSSES:
        raise ValueError(f"loss: expected one of {', '.join(_LOSSES)}, got {name!r}")
    return _LOSSES[name](squared)


def _squared(s: Tensor) -> LossTerms:
    return LossTerms(s, torch.ones_like(s), torch.zeros_like(s))


def _huber(s: Tensor) -> LossTerms:
    far = s > 1
    root = s.clamp_min(1).sqrt()
    return LossTerms(torch.where(far, 2 * root - 1, s), 1 / root, torch.where(far, -0.5 / root**3, 0.0))


def _cauchy(s: Tensor) -> LossTerms:
    weight = 1 / (1 + s)
    return LossTerms(torch.log1p(s), weight, -weight * weight)


def _geman_mcclure(s: Tensor) -> LossTerms:
    inverse = 1 / (1 + s)
    weight = inverse * inverse
    return LossTerms(s * inverse, weight, -2 * weight * inverse)


def _tukey(s: Tensor) -> LossTerms:
    rest = (1 - s).clamp_min(0)
    weight = rest * rest
    return LossTerms((1 - weight * rest) / 3, weight, -2 * rest)


_LOSSES: dict[str, Callable[[Tensor], LossTerms]] = {
    "squared": _squared,
    "huber": _huber,
    "cauchy": _cauchy,
    "geman_mcclure": _geman_mcclure,
    "tukey": _tukey,
}
