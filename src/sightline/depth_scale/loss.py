"""The depth-aware scale loss: an object's size in the picture must fit its depth and the focal length."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor
from torch.nn import functional

from sightline.depth_scale.batches import as_samples, mend
from sightline.depth_scale.measures import ScaleMeasure
from sightline.depth_scale.observation import Observation, expected_size, observe, warn_of_small_masks
from sightline.depth_scale.options import REASONS, BorderPolicy, DepthMode, DepthOf, Invalid, ScaleOptions
from sightline.depth_scale.statistics import DepthStat


class DepthScaleLossInfo(NamedTuple):
    """What the loss saw; without gradients.

    Args:
        s_pred: ``(B, 1, 1, 1)`` size of each mask, in cells or, with ``image_width_px``, in image pixels.
        s_exp: ``(B, 1, 1, 1)`` size to be expected, NaN where not valid.
        depth_stat: ``(B, 1, 1, 1)`` the depth that it rests on, NaN where not valid.
        log_ratio: ``(B,)`` ``log(s_pred / s_exp)``, NaN where not valid.
        valid: ``(B,)`` which samples count.
        reason: ``(B,)`` int8, why a sample does not, an :class:`~sightline.depth_scale.options.Invalid`.
        num_valid: how many count.
    """

    s_pred: Float[Tensor, "b 1 1 1"]
    s_exp: Float[Tensor, "b 1 1 1"]
    depth_stat: Float[Tensor, "b 1 1 1"]
    log_ratio: Float[Tensor, "b"]
    valid: Bool[Tensor, "b"]
    reason: Int[Tensor, "b"]
    num_valid: Int[Tensor, ""]

    def describe(self) -> list[str]:
        """One sentence for each sample that does not count; reads from the device."""
        return [f"sample {i}: {REASONS[Invalid(r)]}" for i, r in enumerate(self.reason.tolist()) if r]


def depth_aware_scale_loss(
    pred_mask01: Shaped[Tensor, "..."],
    depth_map: Shaped[Tensor, "..."],
    f_px: Shaped[Tensor, "..."] | float | int,
    k_obj: Shaped[Tensor, "..."] | float | int,
    depth_mode: DepthMode | str = "inv_depth",
    depth_stat: DepthStat | str = "median",
    scale_measure: ScaleMeasure | str = "sqrt_area",
    detach_depth: bool = True,
    *,
    detach_stat: bool = True,
    quantile: float = 0.5,
    midpoint: bool = False,
    trim: float = 0.1,
    depth_of: DepthOf | str = "target",
    depth_mask01: Shaped[Tensor, "..."] | None = None,
    contact_band: float | None = None,
    image_width_px: Shaped[Tensor, "..."] | float | int | None = None,
    image_height_px: Shaped[Tensor, "..."] | float | int | None = None,
    object_id: Shaped[Tensor, "..."] | None = None,
    border_policy: BorderPolicy | str = "keep",
    zero_is_missing: bool | None = None,
    sample_weight: Shaped[Tensor, "..."] | None = None,
    huber_delta: float | None = 3.0,
    eps: float = 1e-6,
) -> tuple[Float[Tensor, ""], DepthScaleLossInfo]:
    r"""Penalise an object whose size does not fit its depth: :math:`\mathrm{mean}\,\log^2(s / s_{exp})`.

    A pinhole camera shows an object in proportion to :math:`f / Z`; the constant ``k_obj`` turns that into
    the size of its mask. The logarithm treats twice too large and twice too small alike. The gradient of
    ``sqrt_area`` is the same at every pixel: it says how much, other losses say where. A sample that cannot
    be judged counts 0 and has a gradient of 0; the mean is over the others.

    Args:
        pred_mask01: soft masks in [0, 1]: ``(H, W)``, ``(B, H, W)`` or ``(B, 1, H, W)``.
        depth_map: depth or inverse depth, of the same height and width; one map serves a batch.
        f_px: focal length in pixels: a number, or a tensor of shape ``()``, ``(1,)``, ``(B,)``, ``(B, 1)``.
        k_obj: the object's constant, likewise; with ``object_id`` a table ``(K,)``.
        depth_mode: ``"inv_depth"`` expects ``k f d``, ``"depth"`` expects ``k f / Z``.
        depth_stat: ``"median"`` (weighted), ``"mean"``, ``"trimmed_mean"`` or ``"threshold_median"``.
        scale_measure: which length of the mask is its size.
        detach_depth: stop gradients into the depth map.
        detach_stat: stop gradients into the mask through where depth is read.
        quantile: of the median.
        midpoint: whether an even median is the middle of both, not the lower.
        trim: share left out on each side by the trimmed mean.
        depth_of: of which picture the depth is; ``"context"`` reads it in the contact band.
        depth_mask01: where depth is read; under the predicted mask unless given.
        contact_band: share of the height, from below, in which depth is read.
        image_width_px: width of the picture; sizes are then in its pixels, whatever the mask's resolution.
        image_height_px: its height, where the cells are not square.
        object_id: ``(B,)`` integers, the rows of ``k_obj``; a row that does not exist is invalid.
        border_policy: of masks cut off by the border: ``"keep"``, ``"ignore"``, or ``"one_sided"``, which
            only asks them not to be larger than expected.
        zero_is_missing: whether depth that is not positive is missing; None: in ``"depth"`` mode.
        sample_weight: ``(B,)`` factors, such as ``1 - t`` of flow matching.
        huber_delta: where the square of the log ratio goes on linearly; 3 is 20 times too large. None: never.
        eps: added to both sizes, and to a depth that is divided by.

    Returns:
        The loss, a scalar in float32 or float64, and what it saw.

    Raises:
        ValueError: shapes that do not broadcast, an unknown mode, statistic or measure, or a plain number
            that is not positive.

    Warns:
        UserWarning: masks too small for ``sqrt_area``. Only on the CPU, for reading it would stall an
            accelerator.

    Example:
        >>> mask, depth = torch.zeros(1, 1, 64, 64), torch.full((1, 1, 64, 64), 2.0)
        >>> mask[..., 20:40, 20:40] = 1.0
        >>> loss, info = depth_aware_scale_loss(mask, depth, f_px=500.0, k_obj=0.04, depth_mode="depth")
        >>> round(loss.item(), 4), info.s_pred.item(), round(info.s_exp.item(), 3)
        (0.4805, 20.0, 10.0)
    """
    options = ScaleOptions(
        depth_mode=depth_mode,
        depth_stat=depth_stat,
        scale_measure=scale_measure,
        quantile=quantile,
        midpoint=midpoint,
        trim=trim,
        depth_of=depth_of,
        contact_band=contact_band,
        border_policy=border_policy,
        zero_is_missing=zero_is_missing,
        detach_depth=detach_depth,
        detach_stat=detach_stat,
    )
    seen = observe(
        pred_mask01,
        depth_map,
        f_px,
        options,
        depth_mask01=depth_mask01,
        image_width_px=image_width_px,
        image_height_px=image_height_px,
    )
    if scale_measure == "sqrt_area":
        warn_of_small_masks(seen)
    k, bad_k = _constants(k_obj, object_id, like=seen.size)
    expected = expected_size(k, seen.focal, seen.depth, depth_mode, eps=eps)
    reason = seen.reason
    if bad_k is not None:
        reason = reason.masked_fill(bad_k & (reason == 0), Invalid.CONSTANT)
    valid = reason == Invalid.NO
    ratio = _floored_log(seen.size + eps, seen.floor) - (expected + eps).log()
    ratio = ratio.masked_fill(~valid, 0.0)
    if border_policy == "one_sided" and seen.truncated is not None:
        ratio = torch.where(seen.truncated, ratio.clamp_min(0), ratio)
    penalty = ratio.square() if huber_delta is None else _huber(ratio, huber_delta)
    if sample_weight is not None:
        penalty = penalty * as_samples(sample_weight, len(penalty), "sample_weight", like=penalty)
    num_valid = valid.sum()
    loss = penalty.sum() / num_valid.clamp_min(1)
    return loss, _info(seen, expected, ratio, valid, reason, num_valid)


def relative_scale_loss(
    pred_mask01: Shaped[Tensor, "..."],
    pred_depth: Shaped[Tensor, "..."],
    target_mask01: Shaped[Tensor, "..."],
    target_depth: Shaped[Tensor, "..."],
    depth_mode: DepthMode | str = "inv_depth",
    *,
    huber_delta: float | None = 3.0,
    eps: float = 1e-6,
    options: ScaleOptions | None = None,
) -> tuple[Float[Tensor, ""], DepthScaleLossInfo]:
    """The scale loss against the target picture itself: no constant and no focal length are needed.

    The object must be larger than in the target as it is nearer: ``s_exp = s_target d_pred / d_target``.

    Args:
        pred_mask01: soft masks, 2 to 4 dimensions.
        pred_depth: depth of the predicted picture.
        target_mask01: the object's masks in the target.
        target_depth: depth of the target, up to the same factor as ``pred_depth``.
        depth_mode: what the depth maps hold.
        huber_delta: as in :func:`depth_aware_scale_loss`.
        eps: added to both sizes.
        options: how size and depth are read; its ``depth_mode`` gives way to the argument.

    Returns:
        The loss and what it saw.

    Raises:
        ValueError: shapes that do not broadcast.

    Example:
        >>> mask, depth = torch.zeros(8, 8), torch.ones(8, 8)
        >>> mask[2:6, 2:6] = 1.0
        >>> loss, _ = relative_scale_loss(mask, depth, mask, 2 * depth, "depth")
        >>> round(loss.exp().item(), 3), round(torch.tensor(0.5).log().square().exp().item(), 3)
        (1.617, 1.617)
    """
    options = replace(options or ScaleOptions(), depth_mode=depth_mode)
    target = observe(target_mask01, target_depth, 1.0, options, mask_name="target_mask01")
    seen = observe(pred_mask01, pred_depth, 1.0, options)
    unit = expected_size(1.0, 1.0, seen.depth, depth_mode) / expected_size(1.0, 1.0, target.depth, depth_mode)
    expected = target.size.detach() * unit
    reason = torch.where(seen.reason == 0, target.reason, seen.reason)
    valid = reason == Invalid.NO
    logs = [_floored_log(size + eps, seen.floor) for size in (seen.size, expected)]
    ratio = (logs[0] - logs[1]).masked_fill(~valid, 0.0)
    penalty = ratio.square() if huber_delta is None else _huber(ratio, huber_delta)
    num_valid = valid.sum()
    return penalty.sum() / num_valid.clamp_min(1), _info(seen, expected, ratio, valid, reason, num_valid)


def _constants(
    k_obj: Tensor | float, object_id: Tensor | None, *, like: Tensor
) -> tuple[Float[Tensor, "b"], Bool[Tensor, "b"] | None]:
    batch = len(like)
    if object_id is None:
        return mend(as_samples(k_obj, batch, "k_obj", like=like), k_obj)
    if not isinstance(k_obj, Tensor) or k_obj.ndim != 1:
        raise ValueError("k_obj: expected a table of shape (K,) beside object_id")
    if tuple(object_id.shape) not in ((batch,), (batch, 1)):
        raise ValueError(f"object_id: expected shape ({batch},), got {tuple(object_id.shape)}")
    row = object_id.reshape(batch).to(device=like.device, dtype=torch.long)
    known = (row >= 0) & (row < len(k_obj))
    k = torch.where(known, k_obj.to(like)[torch.where(known, row, 0)], torch.nan)
    return mend(k, k_obj)


def _floored_log(size: Tensor, floor: Tensor | float) -> Tensor:
    """The logarithm, continued along its tangent below ``floor``: a vanishing mask keeps a finite slope."""
    return size.clamp_min(floor).log() + (size / floor).clamp_max(1) - 1


def _huber(ratio: Tensor, delta: float) -> Tensor:
    return 2 * functional.huber_loss(ratio, torch.zeros_like(ratio), reduction="none", delta=delta)


def _info(
    seen: Observation, expected: Tensor, ratio: Tensor, valid: Tensor, reason: Tensor, num_valid: Tensor
) -> DepthScaleLossInfo:
    invalid = ~valid

    def shown(value: Tensor) -> Tensor:
        return value.detach().masked_fill(invalid, torch.nan)

    return DepthScaleLossInfo(
        s_pred=seen.size.detach().view(-1, 1, 1, 1),
        s_exp=shown(expected).view(-1, 1, 1, 1),
        depth_stat=shown(seen.depth).view(-1, 1, 1, 1),
        log_ratio=shown(ratio),
        valid=valid,
        reason=reason,
        num_valid=num_valid,
    )
