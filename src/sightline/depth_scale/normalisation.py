"""Relative depth made usable: positive normalisations of maps that are known up to scale and shift."""

from __future__ import annotations

from typing import Literal, NamedTuple, get_args

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from sightline.depth_scale.batches import as_maps, as_pair
from sightline.depth_scale.statistics import weighted_quantile

DepthNormalisation = Literal["background_ratio", "affine", "rescale"]
"""What :func:`normalise_relative_depth` offers."""

_OFFSET = 0.1  # keeps the farthest depth of a rescaled map above zero
_LOW, _HIGH = 0.02, 0.98


class AffineFit(NamedTuple):
    """``aligned = scale * depth + shift`` ``(B, 1, H, W)``; scale and shift ``(B,)``, NaN without a fit."""

    aligned: Float[Tensor, "b 1 h w"]
    scale: Float[Tensor, "b"]
    shift: Float[Tensor, "b"]


def normalise_relative_depth(
    depth_map: Shaped[Tensor, "..."],
    method: DepthNormalisation | str = "rescale",
    *,
    object_mask01: Shaped[Tensor, "..."] | None = None,
    reference: Shaped[Tensor, "..."] | None = None,
) -> Float[Tensor, "b 1 h w"]:
    """Normalise relative (inverse) depth of each picture so that it stays positive.

    An estimator such as MiDaS gives ``a / Z + b`` with other a and b for each picture. A calibrated constant
    absorbs a common a, never b.

    Args:
        depth_map: relative depth, 2 to 4 dimensions; what is not finite is missing and stays so.
        method: ``"background_ratio"`` divides by the median outside the object, which cancels a and needs
            b = 0; ``"affine"`` fits a and b to a reference, see :func:`align_depth`; ``"rescale"`` maps the
            2nd and 98th percentiles to 0.1 and 1.1 and clamps below.
        object_mask01: the object's mask, for the background ratio.
        reference: true inverse depth where it is known, NaN elsewhere, for the affine fit.

    Returns:
        ``(B, 1, H, W)``, NaN where depth is missing or the picture has nothing to normalise by.

    Raises:
        ValueError: an unknown method, an argument that it needs is missing, or ``"zscore"``: a z-score is
            negative for half of the pixels, and a negative size has no logarithm.

    Example:
        >>> normalise_relative_depth(torch.linspace(-3, 7, 101).view(1, -1)).aminmax()
        torch.return_types.aminmax(
        min=tensor(0.1000),
        max=tensor(1.1208))
        >>> normalise_relative_depth(torch.rand(4, 4), "zscore")
        Traceback (most recent call last):
        ValueError: method: a z-score makes depth negative, whose logarithm does not exist; expected one of \
background_ratio, affine, rescale
    """
    choices = ", ".join(get_args(DepthNormalisation))
    if method in ("zscore", "z-score", "z_score"):
        raise ValueError(
            "method: a z-score makes depth negative, whose logarithm does not exist; "
            f"expected one of {choices}"
        )
    if method == "background_ratio":
        if object_mask01 is None:
            raise ValueError("object_mask01: expected beside method='background_ratio'")
        return _background_ratio(depth_map, object_mask01)
    if method == "affine":
        if reference is None:
            raise ValueError("reference: expected beside method='affine'")
        return align_depth(depth_map, reference).aligned
    if method == "rescale":
        return _rescale(as_maps(depth_map, "depth_map"))
    raise ValueError(f"method: expected one of {choices}, got {method!r}")


def _background_ratio(depth_map: Tensor, object_mask01: Tensor) -> Tensor:
    depth, mask = as_pair(depth_map, object_mask01, ("depth_map", "object_mask01"))
    background = depth.isfinite() * (1 - mask).clamp_min(0)
    middle = weighted_quantile(depth.flatten(1), background.flatten(1)).view(-1, 1, 1, 1)
    ratio = depth / torch.where(middle > 0, middle, torch.nan)
    return torch.where(ratio.isfinite(), ratio, torch.nan)


def _rescale(depth: Tensor) -> Tensor:
    values, known = depth.flatten(1), depth.isfinite().flatten(1).to(depth)
    low, high = (weighted_quantile(values, known, q).view(-1, 1, 1, 1) for q in (_LOW, _HIGH))
    room = torch.where(high > low, high - low, torch.nan)
    scaled = ((depth - low) / room).clamp_min(0) + _OFFSET
    return torch.where(depth.isfinite(), scaled, torch.nan)


def align_depth(
    depth_map: Shaped[Tensor, "..."],
    reference: Shaped[Tensor, "..."],
    *,
    weights: Shaped[Tensor, "..."] | None = None,
) -> AffineFit:
    """Fit scale and shift of relative depth to a sparse reference, by weighted least squares.

    Args:
        depth_map: relative depth, 2 to 4 dimensions.
        reference: the same quantity where it is known (inverse depth from a few measured points or a known
            ground plane), NaN elsewhere.
        weights: how much each pixel counts, not negative.

    Returns:
        The aligned maps with scale and shift; NaN where fewer than two different depths are known. What the
        fit takes below zero stays there: it is not usable, and the loss says so.

    Raises:
        ValueError: shapes that do not broadcast.

    Example:
        >>> depth = torch.linspace(0, 1, 16).view(4, 4)
        >>> fit = align_depth(depth, 2 * depth + 0.5)
        >>> round(fit.scale.item(), 4), round(fit.shift.item(), 4)
        (2.0, 0.5)
    """
    depth, target = as_pair(depth_map, reference, ("depth_map", "reference"))
    known = (depth.isfinite() & target.isfinite()).double()
    if weights is not None:
        known = known * as_pair(weights, depth, ("weights", "depth_map"))[0].double()
    x, y = (torch.where(known > 0, m.double(), 0.0) for m in (depth, target))
    total = known.sum((2, 3), keepdim=True)
    share = known / torch.where(total > 0, total, 1.0)
    mean_x, mean_y = ((share * m).sum((2, 3), keepdim=True) for m in (x, y))
    variance = (share * (x - mean_x).square()).sum((2, 3), keepdim=True)
    covariance = (share * (x - mean_x) * (y - mean_y)).sum((2, 3), keepdim=True)
    varied = variance > 1e-12 * mean_x.square().clamp_min(1e-12)
    scale = covariance / torch.where(varied, variance, torch.nan)
    shift = mean_y - scale * mean_x
    aligned = torch.where(depth.isfinite(), scale * depth + shift, torch.nan)
    return AffineFit(aligned.to(depth), scale.flatten().to(depth), shift.flatten().to(depth))
