"""One depth for an object: weighted median, quantile or mean under a soft mask, or along its lower edge."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

DepthStat = Literal["median", "mean", "trimmed_mean", "threshold_median"]
"""The statistics that :func:`depth_statistic` knows."""


def depth_statistic(
    depth: Float[Tensor, "b 1 h w"],
    weights: Float[Tensor, "b 1 h w"],
    stat: DepthStat | str = "median",
    *,
    quantile: float = 0.5,
    midpoint: bool = False,
    trim: float = 0.1,
) -> Float[Tensor, "b"]:
    """The depth of what a soft mask covers.

    ``median`` is the weighted quantile, by default the lower weighted median (for a binary mask what
    :func:`torch.median` gives); ``threshold_median`` counts the pixels above one half equally; ``mean``
    weights every pixel; ``trimmed_mean`` does so between two quantiles.

    Args:
        depth: ``(B, 1, H, W)`` finite, of any unit.
        weights: ``(B, 1, H, W)`` not negative: the soft mask, 0 where depth is missing.
        stat: which statistic.
        quantile: of ``median`` and ``threshold_median``; 0.3 leans to the nearer side of metric depth.
        midpoint: where the quantile falls between two pixels, take the middle of both, not the lower.
        trim: the share that ``trimmed_mean`` leaves out on each side.

    Returns:
        ``(B,)``, NaN where there is no weight. The gradient to depth goes to the chosen pixel,
        or to all for the means.

    Raises:
        ValueError: an unknown statistic, or a quantile or trim out of range.

    Example:
        >>> depth = torch.tensor([[[[1.0, 2.0, 4.0, 9.0]]]])
        >>> weights = torch.tensor([[[[0.2, 0.3, 1.0, 0.0]]]])
        >>> depth_statistic(depth, weights).item()
        4.0
    """
    if stat not in get_args(DepthStat):
        raise ValueError(f"depth_stat: expected one of {', '.join(get_args(DepthStat))}, got {stat!r}")
    if stat == "threshold_median":
        weights = (weights > 0.5).to(weights)
    values, weights = depth.flatten(1), weights.flatten(1)
    if stat == "mean":
        return _mean(values, weights)
    if stat == "trimmed_mean":
        return _trimmed_mean(values, weights, trim)
    return weighted_quantile(values, weights, quantile, midpoint=midpoint)


def weighted_quantile(
    values: Float[Tensor, "b n"],
    weights: Float[Tensor, "b n"],
    quantile: float = 0.5,
    *,
    midpoint: bool = False,
) -> Float[Tensor, "b"]:
    """The smallest value at which the weights of all up to it reach a share of their total.

    On a CPU single precision is selected in three sweeps, a twentieth of a sort; all else is sorted. What has
    no weight is never chosen, so missing values may be anything.

    Args:
        values: ``(B, n)``.
        weights: ``(B, n)`` not negative.
        quantile: the share, between 0 and 1.
        midpoint: where the share is met exactly between two values, take their middle.

    Returns:
        ``(B,)``, NaN where there is no weight. The gradient goes to the chosen value, none to the weights
        (almost everywhere there is none).

    Raises:
        ValueError: the quantile is not between 0 and 1.

    Example:
        >>> weighted_quantile(torch.tensor([[3.0, 1.0, 2.0]]), torch.tensor([[1.0, 1.0, 5.0]])).item()
        2.0
    """
    if not 0 < quantile < 1:
        raise ValueError(f"quantile: expected a number between 0 and 1, got {quantile}")
    with torch.no_grad():
        compiled = values.device.type == "cpu" and values.dtype == weights.dtype == torch.float32
        find = _select_places if compiled and not torch.compiler.is_compiling() else _sort_places
        places, known = find(values, weights, quantile)
    chosen = values.gather(-1, places if midpoint else places[:, :1])
    return chosen.mean(-1).masked_fill(~known, torch.nan)


def _sort_places(values: Tensor, weights: Tensor, quantile: float) -> tuple[Tensor, Tensor]:
    """The place of the quantile, and of the next value where the share is met exactly, ``(B, 2)``."""
    order = values.argsort(-1)
    reached = weights.gather(-1, order).cumsum(-1)
    # The total is the last sum itself: another order of adding could exceed it by a rounding.
    goal = quantile * reached[:, -1:]
    chosen = torch.stack([(reached < goal).sum(-1), (reached <= goal).sum(-1)], -1)
    return order.gather(-1, chosen.clamp_max(values.shape[-1] - 1)), reached[:, -1] > 0


def _select_places(values: Tensor, weights: Tensor, quantile: float) -> tuple[Tensor, Tensor]:
    from sightline.depth_scale.quantile_numba import find_quantile_places

    places = torch.empty(len(values), 2, dtype=torch.int64)
    bits = values.detach().contiguous().view(torch.int32).numpy().view(np.uint32)
    find_quantile_places(bits, weights.detach().contiguous().numpy(), quantile, places.numpy())
    return places.clamp_min(0), places[:, 0] >= 0


def _mean(values: Float[Tensor, "b n"], weights: Float[Tensor, "b n"]) -> Float[Tensor, "b"]:
    total = weights.sum(-1)
    unknown = total <= 0
    mean = (values * weights).sum(-1) / total.masked_fill(unknown, 1.0)
    return mean.masked_fill(unknown, torch.nan)


def _trimmed_mean(values: Tensor, weights: Tensor, trim: float) -> Tensor:
    if not 0 <= trim < 0.5:
        raise ValueError(f"trim: expected a share in [0, 0.5), got {trim}")
    with torch.no_grad():
        order = values.argsort(-1)
    weights = weights.gather(-1, order)
    reached = weights.cumsum(-1)
    low, high = trim * reached[:, -1:], (1 - trim) * reached[:, -1:]
    kept = (reached.minimum(high) - (reached - weights).maximum(low)).clamp_min(0)
    return _mean(values.gather(-1, order), kept)


def contact_weights(weights: Float[Tensor, "b 1 h w"], band: float) -> Float[Tensor, "b 1 h w"]:
    """Keep of each mask the band along its lower edge, where a standing object meets its ground.

    The depth of a picture *without* the object is that of the background behind it; where it will stand, the
    two meet. The band is a share of the soft height, at least one row; the row that it ends in counts in
    part, so that the statistic does not jump.

    Args:
        weights: ``(B, 1, H, W)`` the soft masks.
        band: share of the height, from below, in (0, 1].

    Raises:
        ValueError: a band out of range.

    Example:
        >>> contact_weights(torch.ones(1, 1, 4, 1), 0.5).flatten().tolist()
        [0.0, 0.0, 1.0, 1.0]
    """
    if not 0 < band <= 1:
        raise ValueError(f"contact_band: expected a share in (0, 1], got {band}")
    rows = weights.amax(-1, keepdim=True)
    below = rows.flip(-2).cumsum(-2).flip(-2) - rows
    height = rows.sum(-2, keepdim=True)
    room = (band * height).maximum(rows.amax(-2, keepdim=True)) - below
    return weights * (room / rows.clamp_min(torch.finfo(rows.dtype).tiny)).clamp(0, 1)
