"""What a sample shows: how large its mask is, how deep it lies, and whether it may be believed."""

from __future__ import annotations

import warnings
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from sightline.depth_scale.batches import as_pair, as_samples, mend
from sightline.depth_scale.measures import CellSize, mean_cell, size_of, touches_border
from sightline.depth_scale.options import DepthMode, Invalid, ScaleOptions
from sightline.depth_scale.statistics import contact_weights, depth_statistic

SMALL_MASK_SIDE = 4.0  # below, one cell more or less at the rim changes the square root by a tenth and more


class Observation(NamedTuple):
    """Size, depth and focal length of each sample ``(B,)``; the numbers are harmless where not valid.

    Args:
        size: length of the mask, in the unit of the cells.
        floor: one cell in that unit: smaller sizes are noise; a number where all are alike.
        depth: the statistic, 1 where there is none.
        focal: in pixels, 1 where it is unusable.
        truncated: whether the border cuts the mask off; None where the policy does not ask.
        reason: an :class:`~sightline.depth_scale.options.Invalid` as int8.
    """

    size: Float[Tensor, "b"]
    floor: Float[Tensor, "b"] | float
    depth: Float[Tensor, "b"]
    focal: Float[Tensor, "b"]
    truncated: Bool[Tensor, "b"] | None
    reason: Int[Tensor, "b"]


def observe(
    mask01: Shaped[Tensor, "..."],
    depth_map: Shaped[Tensor, "..."],
    f_px: Shaped[Tensor, "..."] | float | int,
    options: ScaleOptions,
    *,
    mask_name: str = "pred_mask01",
    depth_mask01: Shaped[Tensor, "..."] | None = None,
    image_width_px: Shaped[Tensor, "..."] | float | int | None = None,
    image_height_px: Shaped[Tensor, "..."] | float | int | None = None,
) -> Observation:
    """Read size, depth and focal length of a batch, each sample for itself.

    Nothing is read back from the device.

    Args:
        mask01: soft masks in [0, 1], 2 to 4 dimensions.
        depth_map: depth or inverse depth of the same height and width.
        f_px: focal length in pixels.
        options: what to read.
        mask_name: how the caller calls the mask.
        depth_mask01: where depth is read, if not under the mask itself.
        image_width_px: width of the picture that mask and focal length are of; sizes are then in its pixels.
        image_height_px: its height; that of square cells unless given.

    Returns:
        The batch's numbers and why samples cannot be used.

    Raises:
        ValueError: shapes that do not broadcast, or a plain number that is not positive.

    Example:
        >>> seen = observe(torch.ones(2, 4, 4), torch.full((4, 4), 2.0), 50.0, ScaleOptions())
        >>> seen.size.tolist(), seen.depth.tolist()
        ([4.0, 4.0], [2.0, 2.0])
    """
    mask, depth = as_pair(mask01, depth_map, (mask_name, "depth_map"))
    batch, _, height, width = mask.shape
    focal = as_samples(f_px, batch, "f_px", like=mask)
    cell = _cell_size(mask, (width, height), image_width_px, image_height_px)
    area = mask.sum((1, 2, 3))
    size = size_of(mask, area, options.scale_measure, cell)

    where, covered = mask, area.detach()
    if depth_mask01 is not None:
        where = as_pair(depth_mask01, mask, ("depth_mask01", mask_name))[0]
        covered = where.detach().sum((1, 2, 3))
    where = where.detach() if options.detach_stat else where
    depth = depth.detach() if options.detach_depth else depth
    if options.band is not None:
        where = contact_weights(where, options.band)
    values = depth.nan_to_num(0.0, 0.0, 0.0)
    # Floats and in place: on a CPU a mask of bools costs four times as much.
    plain = depth.detach()
    measured = values.detach().clone().gt_(0) if options.drops_zeros else plain.abs().lt_(torch.inf)
    weights = measured.mul_(where) if options.detach_stat else where * measured
    stat = depth_statistic(
        values,
        weights,
        options.depth_stat,
        quantile=options.quantile,
        midpoint=options.midpoint,
        trim=options.trim,
    )
    no_depth = stat.isnan()
    truncated = None if options.border_policy == "keep" else touches_border(mask)
    focal, bad_focal = mend(focal, f_px)
    stat, bad_stat = mend(stat, stat)

    reason = torch.zeros(batch, dtype=torch.int8, device=mask.device)
    # The last one that holds stays: from the least to the most basic reason.
    for holds, why in (
        (truncated if options.border_policy == "ignore" else None, Invalid.TRUNCATED),
        (bad_focal, Invalid.FOCAL),
        (bad_stat, Invalid.DEPTH_NOT_POSITIVE),
        (no_depth, Invalid.NO_DEPTH),
        (covered <= 0, Invalid.MASK_EMPTY),
        (size.isnan(), Invalid.MASK_NOT_FINITE),
    ):
        if holds is not None:
            reason = reason.masked_fill_(holds, why)
    return Observation(size, mean_cell(cell), stat, focal, truncated, reason)


def _cell_size(
    mask: Tensor,
    mask_size: tuple[int, int],
    image_width_px: Shaped[Tensor, "..."] | float | int | None,
    image_height_px: Shaped[Tensor, "..."] | float | int | None,
) -> CellSize:
    if image_width_px is None:
        if image_height_px is not None:
            raise ValueError("image_height_px: expected image_width_px beside it")
        return (1.0, 1.0)
    across = as_samples(image_width_px, len(mask), "image_width_px", like=mask) / mask_size[0]
    if image_height_px is None:
        return (across, across)
    return (across, as_samples(image_height_px, len(mask), "image_height_px", like=mask) / mask_size[1])


def expected_size(
    k_obj: Float[Tensor, "..."] | float,
    f_px: Float[Tensor, "..."] | float,
    depth: Float[Tensor, "..."],
    depth_mode: DepthMode | str,
    *,
    eps: float = 0.0,
) -> Float[Tensor, "..."]:
    """The size at which an object is seen: ``k f d`` of inverse depth d, ``k f / Z`` of depth Z.

    Args:
        k_obj: the object's constant.
        f_px: focal length, pixels.
        depth: depth or inverse depth.
        depth_mode: which of both.
        eps: added to a depth that is divided by.

    Returns:
        The size, in the unit in which the constant was calibrated.

    Example:
        >>> expected_size(0.2, 600.0, torch.tensor(2.0), "depth")
        tensor(60.)
    """
    focal = k_obj * f_px
    return focal * depth if depth_mode == "inv_depth" else focal / (depth + eps)


def warn_of_small_masks(seen: Observation) -> None:
    """Advise another measure where masks have too few cells for ``sqrt_area``; nothing on accelerators.

    Args:
        seen: sizes measured with ``sqrt_area``; an empty mask measures half a cell.

    Warns:
        UserWarning: at least one mask is not empty and smaller than 16 cells.
    """
    if seen.size.device.type != "cpu" or torch.compiler.is_compiling():
        return
    cells = seen.size.detach() / seen.floor
    if bool(((cells > 0.5) & (cells < SMALL_MASK_SIDE)).any()):
        # The same words each time, so that Python shows them once and not at every step.
        warnings.warn(
            f"some masks cover fewer than {SMALL_MASK_SIDE**2:g} cells: their sqrt_area is noisy. Use a "
            "finer resolution, or scale_measure='bbox_height'.",
            stacklevel=3,
        )
