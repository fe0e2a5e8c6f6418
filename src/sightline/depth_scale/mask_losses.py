"""Losses of soft masks and of depth maps: is the place filled, to its border, as deep as it should be?

Each gives a :class:`MaskLoss`: a scalar, and which samples it is of. A sample that cannot be judged (a value
that is not finite, an empty target where one is needed) counts 0, has a gradient of 0 and is left out of the
mean; it never spoils the batch. Nothing is read back from the device.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor
from torch.nn import functional

from sightline.depth_scale.batches import as_pair, as_samples
from sightline.depth_scale.distance import DistanceConvention
from sightline.depth_scale.distance import signed_distance as signed_distance_of
from sightline.depth_scale.regions import regions_of, soft_mask


class MaskLoss(NamedTuple):
    """A loss and the samples that it is of.

    Args:
        loss: a scalar; 0 where no sample counts.
        valid: ``(B,)`` which samples count.
    """

    loss: Float[Tensor, ""]
    valid: Bool[Tensor, "b"]


def dice_loss(
    pred_mask01: Shaped[Tensor, "..."],
    target_mask01: Shaped[Tensor, "..."],
    *,
    eps: float = 1e-6,
    counts: Bool[Tensor, "b"] | None = None,
    sample_weight: Shaped[Tensor, "..."] | None = None,
) -> MaskLoss:
    """One minus the soft Dice coefficient of each sample, ``(2 sum(p t) + eps) / (sum(p) + sum(t) + eps)``.

    Args:
        pred_mask01: soft masks in [0, 1], 2 to 4 dimensions.
        target_mask01: the masks to fill; constants.
        eps: keeps the ratio defined.
        counts: ``(B,)`` samples to leave out where False.
        sample_weight: ``(B,)`` factors, such as ``1 - t`` of flow matching.

    Returns:
        The mean, and the samples with finite values and a target that is not empty.

    Raises:
        ValueError: shapes that do not broadcast.

    Example:
        >>> dice_loss(torch.tensor([[1.0, 1.0, 0.0, 0.0]]), torch.tensor([[0.0, 1.0, 1.0, 0.0]])).loss
        tensor(0.5000)
    """
    pred, target = as_pair(pred_mask01, target_mask01.detach(), ("pred_mask01", "target_mask01"))
    predicted, wanted = pred.sum((1, 2, 3)), target.sum((1, 2, 3))
    valid = _all_of(predicted.isfinite() & (wanted > 0) & wanted.isfinite(), counts)
    shared = (pred * target.nan_to_num(0.0, 0.0, 0.0)).sum((1, 2, 3))
    predicted, wanted, shared = (torch.where(valid, value, 0.0) for value in (predicted, wanted, shared))
    return _mean_of(_dice(shared, predicted, wanted, eps), valid, sample_weight)


def area_loss(
    pred_mask01: Shaped[Tensor, "..."],
    target_mask01: Shaped[Tensor, "..."],
    *,
    counts: Bool[Tensor, "b"] | None = None,
    sample_weight: Shaped[Tensor, "..."] | None = None,
) -> MaskLoss:
    """The squared logarithm of the ratio of areas, ``log(sum(p) / sum(t))^2``.

    Below an area of one cell the logarithm goes on along its tangent: the loss of a mask that vanishes and
    its gradient stay bounded, and a target smaller than a cell is compared in the same way.

    Args:
        pred_mask01: soft masks in [0, 1], 2 to 4 dimensions.
        target_mask01: the masks to fill; constants.
        counts: ``(B,)`` samples to leave out where False.
        sample_weight: ``(B,)`` factors, such as ``1 - t`` of flow matching.

    Returns:
        The mean, and the samples with finite values and a target that is not empty.

    Raises:
        ValueError: shapes that do not broadcast.

    Example:
        >>> round(area_loss(torch.ones(4, 4), torch.eye(4)).loss.sqrt().exp().item(), 3)
        4.0
    """
    pred, target = as_pair(pred_mask01, target_mask01.detach(), ("pred_mask01", "target_mask01"))
    predicted, wanted = pred.sum((1, 2, 3)), target.sum((1, 2, 3))
    valid = _all_of(predicted.isfinite() & (wanted > 0) & wanted.isfinite(), counts)
    predicted, wanted = torch.where(valid, predicted, 1.0), torch.where(valid, wanted, 1.0)
    return _mean_of(_area(predicted, wanted), valid, sample_weight)


def boundary_loss(
    pred_mask01: Shaped[Tensor, "..."],
    target_mask01: Shaped[Tensor, "..."] | None = None,
    *,
    signed_distance: Shaped[Tensor, "..."] | None = None,
    convention: DistanceConvention = "symmetric",
    normalise: bool = False,
    counts: Bool[Tensor, "b"] | None = None,
    sample_weight: Shaped[Tensor, "..."] | None = None,
) -> MaskLoss:
    """The mean of ``p phi``: what is filled far outside costs most, what is filled deep inside saves most.

    phi is the signed distance to the target's border, so the loss is negative at its best (Kervadec et al.,
    "Boundary loss for highly unbalanced segmentation", 2019).

    Args:
        pred_mask01: soft masks in [0, 1], 2 to 4 dimensions.
        target_mask01: the masks to fill, inside above one half.
        signed_distance: phi of :func:`sightline.depth_scale.distance.signed_distance`, instead of the masks;
            it can be kept with the data. 0 everywhere marks a mask without a border.
        convention: where phi is 0, if it is computed here.
        normalise: divide phi by its greatest absolute value, if it is computed here.
        counts: ``(B,)`` samples to leave out where False.
        sample_weight: ``(B,)`` factors, such as ``1 - t`` of flow matching.

    Returns:
        The mean over cells and samples, and the samples with finite values and a border.

    Raises:
        ValueError: not exactly one of masks and distances, or shapes that do not broadcast.

    Example:
        >>> target = torch.tensor([[0.0, 0.0, 1.0, 1.0]])
        >>> boundary_loss(target, target).loss.item(), boundary_loss(1 - target, target).loss.item()
        (-0.5, 0.5)
    """
    if (target_mask01 is None) == (signed_distance is None):
        raise ValueError("boundary_loss: expected exactly one of target_mask01 and signed_distance")
    if signed_distance is None:
        assert target_mask01 is not None
        signed_distance = signed_distance_of(target_mask01, convention=convention, normalise=normalise)
    pred, phi = as_pair(pred_mask01, signed_distance.detach(), ("pred_mask01", "signed_distance"))
    # NaN is no maximum that is larger than 0, and infinity is not finite.
    highest = phi.flatten(1).amax(1)
    valid = _all_of((highest > 0) & highest.isfinite() & pred.sum((1, 2, 3)).isfinite(), counts)
    mean = (pred * phi.nan_to_num(0.0, 0.0, 0.0)).mean((1, 2, 3))
    return _mean_of(torch.where(valid, mean, 0.0), valid, sample_weight)


def fill_losses(
    pred_mask: Float[Tensor, "b 1 h w"],
    target_mask: Float[Tensor, "b 1 h w"],
    signed_distance: Float[Tensor, "b 1 h w"],
    *,
    counts: Bool[Tensor, "b"],
    sample_weight: Float[Tensor, "b"] | None = None,
    eps: float = 1e-6,
) -> tuple[MaskLoss, MaskLoss, MaskLoss]:
    """Dice, area and boundary loss of the same masks, at less cost than one after the other.

    Args:
        pred_mask: soft masks in [0, 1], finite.
        target_mask: the masks to fill, finite.
        signed_distance: to their border, finite.
        counts: ``(B,)`` samples to leave out where False.
        sample_weight: ``(B,)`` factors.
        eps: of Dice.

    Returns:
        What :func:`dice_loss`, :func:`area_loss` and :func:`boundary_loss` give.

    Example:
        >>> target = torch.tensor([[[[0.0, 1.0, 1.0, 0.0]]]])
        >>> phi, counts = signed_distance_of(target), torch.tensor([True])
        >>> [loss.item() for loss, _ in fill_losses(target, target, phi, counts=counts)]
        [0.0, 0.0, -0.25]
    """
    predicted, wanted = pred_mask.sum((1, 2, 3)), target_mask.sum((1, 2, 3))
    shared = (pred_mask * target_mask).sum((1, 2, 3))
    boundary = (pred_mask * signed_distance).mean((1, 2, 3))
    losses = torch.stack([_dice(shared, predicted, wanted, eps), _area(predicted, wanted), boundary])
    filled, bordered = wanted > 0, signed_distance.amax((1, 2, 3)) > 0
    valid = torch.stack([filled, filled, bordered]) & counts
    share = valid.to(losses.dtype)
    mean = (losses * (share if sample_weight is None else share * sample_weight)).sum(1)
    dice, area, boundary = (mean / share.sum(1).clamp_min(1)).unbind()
    return MaskLoss(dice, valid[0]), MaskLoss(area, valid[1]), MaskLoss(boundary, valid[2])


def depth_consistency_loss(
    pred_depth: Shaped[Tensor, "..."],
    target_depth: Shaped[Tensor, "..."],
    mask: Shaped[Tensor, "..."],
    *,
    w_mask: float = 1.0,
    w_outside: float = 0.5,
    w_gradient: float = 0.5,
    beta: float = 0.1,
    band_radius: int = 1,
    confidence: Shaped[Tensor, "..."] | None = None,
    counts: Bool[Tensor, "b"] | None = None,
    sample_weight: Shaped[Tensor, "..."] | None = None,
) -> MaskLoss:
    """How far the predicted picture's depth is from the target's: in the mask, outside, and in its steps.

    A smooth L1 of the depth in the mask and surely outside, and of its differences between neighbours in the
    band: each a mean over the sample's measured pixels, then weighted and summed.

    Args:
        pred_depth: depth of the predicted picture, 2 to 4 dimensions, of any unit that ``beta`` fits.
        target_depth: depth of the target; a constant. NaN and infinity are missing in both.
        mask: the object's masks in [0, 1].
        w_mask: weight of the mask.
        w_outside: weight beyond the band.
        w_gradient: weight of the differences in the band.
        beta: error from which on the smooth L1 is linear.
        band_radius: cells on each side of the border.
        confidence: in [0, 1], 2 to 4 dimensions: how much each target depth counts.
        counts: ``(B,)`` samples to leave out where False.
        sample_weight: ``(B,)`` factors, such as ``1 - t`` of flow matching.

    Returns:
        The mean, and the samples with depth at all.

    Raises:
        ValueError: shapes that do not broadcast.

    Example:
        >>> mask, depth = torch.zeros(8, 8), torch.ones(8, 8)
        >>> mask[2:6, 2:6] = 1.0
        >>> round(depth_consistency_loss(depth + 0.1 * mask, depth, mask).loss.item(), 4)
        0.0583
    """
    pred, target = as_pair(pred_depth, target_depth.detach(), ("pred_depth", "target_depth"))
    soft = soft_mask(mask, pred, "mask")
    regions = regions_of(soft, band_radius)
    measured = pred.detach().isfinite() & target.isfinite()
    trust = measured.to(pred.dtype)
    if confidence is not None:
        trust = trust * soft_mask(confidence, pred, "confidence")
    # NaN is replaced before the difference: its gradient is then 0 and not NaN times 0.
    error = torch.where(measured, pred, 0.0) - torch.where(measured, target, 0.0)
    loss = w_mask * _weighted_mean([(soft * trust, _smooth_l1(error, beta))])
    loss = loss + w_outside * _weighted_mean([(regions.outside * trust, _smooth_l1(error, beta))])
    steps = []
    for axis in (-1, -2):
        both = regions.band * trust
        count = both.shape[axis] - 1
        pair = both.narrow(axis, 1, count) * both.narrow(axis, 0, count)
        steps.append((pair, _smooth_l1(error.diff(dim=axis), beta)))
    loss = loss + w_gradient * _weighted_mean(steps)
    return _mean_of(loss, _all_of(trust.flatten(1).amax(1) > 0, counts), sample_weight)


def _smooth_l1(error: Tensor, beta: float) -> Tensor:
    return functional.smooth_l1_loss(error, torch.zeros_like(error), beta=beta, reduction="none")


def _weighted_mean(parts: list[tuple[Tensor, Tensor]]) -> Float[Tensor, "b"]:
    total = torch.stack([(weight * value).sum((1, 2, 3)) for weight, value in parts]).sum(0)
    count = torch.stack([weight.sum((1, 2, 3)) for weight, _ in parts]).sum(0)
    return total / count.clamp_min(torch.finfo(count.dtype).tiny)


def _dice(shared: Tensor, predicted: Tensor, wanted: Tensor, eps: float) -> Float[Tensor, "b"]:
    return 1.0 - (2.0 * shared + eps) / (predicted + wanted + eps)


def _area(predicted: Tensor, wanted: Tensor) -> Float[Tensor, "b"]:
    return (_log_area(predicted) - _log_area(wanted)).square()


def _log_area(area: Float[Tensor, "b"]) -> Float[Tensor, "b"]:
    """The logarithm, continued below one cell along its tangent."""
    whole = area.clamp_min(1.0)
    return whole.log() + (area - whole)


def _all_of(valid: Bool[Tensor, "b"], counts: Bool[Tensor, "b"] | None) -> Bool[Tensor, "b"]:
    return valid if counts is None else valid & counts


def _mean_of(loss: Float[Tensor, "b"], valid: Bool[Tensor, "b"], sample_weight: Tensor | None) -> MaskLoss:
    if sample_weight is not None:
        loss = loss * as_samples(sample_weight, len(loss), "sample_weight", like=loss)
    return MaskLoss(torch.where(valid, loss, 0.0).sum() / valid.sum().clamp_min(1), valid)
