"""Depth maps: what is missing, the median under a mask, normalised depth, sampling, lifting to points.

Depth is z in metres. A pixel without depth holds 0, a negative number, NaN or infinity: all mean missing.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor
from torch.nn import functional

from sightline.geometry.cameras import unproject


class NormalisedDepth(NamedTuple):
    """``log(depth / z_ref)``, 0 where not ``valid``, and the reference depth in metres."""

    log_ratio: Float[Tensor, "*batch h w"]
    valid: Bool[Tensor, "*batch h w"]
    z_ref: Float[Tensor, "*batch"]


def is_measured(depth: Float[Tensor, "*shape"]) -> Bool[Tensor, "*shape"]:
    """Which depths are there: finite and positive.

    Args:
        depth: any shape, metres.

    Example:
        >>> is_measured(torch.tensor([2.0, 0.0, -1.0, torch.nan, torch.inf])).tolist()
        [True, False, False, False, False]
    """
    return (depth > 0) & depth.isfinite()


def masked_median(
    values: Float[Tensor, "*batch h w"], mask: Bool[Tensor, "*batch h w"]
) -> Float[Tensor, "*batch"]:
    """The median of each map under its mask; of an even number of values, the lower of the middle two.

    The lower median is a value that occurs (numpy's mean of the middle two may be no depth of the object at
    all) and is what :func:`torch.median` gives: of 1, 2, 4, 8 it is 2.

    Args:
        values: ``(*batch, h, w)``; NaN is left out.
        mask: ``(*batch, h, w)`` which pixels count.

    Returns:
        ``(*batch,)``, NaN where nothing counts. The gradient goes to the one median pixel.

    Example:
        >>> masked_median(torch.tensor([[1.0, 2.0], [4.0, 8.0]]), torch.ones(2, 2, dtype=torch.bool))
        tensor(2.)
    """
    return torch.where(mask, values, torch.nan).flatten(-2).nanmedian(-1).values


def normalise_depth(
    mask: Shaped[Tensor, "..."],
    depth: Float[Tensor, "..."],
    *,
    z_ref: Float[Tensor, "..."] | float | None = None,
) -> NormalisedDepth:
    """Depth of an object relative to a reference, ``log(D / z_ref)``, invariant to the unit of D.

    Args:
        mask: ``(*batch, h, w)`` the object's pixels, > 0; bool or numbers.
        depth: ``(*batch, h, w)`` metres; missing pixels hold 0, NaN or infinity.
        z_ref: reference depth in metres, scalar or ``(*batch,)``; None takes the lower median over the mask.
            Objects that shall keep their depths relative to each other need a common one.

    Returns:
        ``log_ratio`` and ``valid`` ``(*batch, h, w)``, ``z_ref`` ``(*batch,)`` (NaN where the mask holds no
        depth). All gradients are finite.

    Raises:
        ValueError: mask and depth differ in shape.

    Example:
        >>> mask = torch.tensor([[1, 1], [0, 0]])
        >>> normalise_depth(mask, torch.tensor([[2.0, 4.0], [0.0, torch.nan]])).log_ratio
        tensor([[0.0000, 0.6931],
                [0.0000, 0.0000]])
    """
    if mask.shape != depth.shape or mask.ndim < 2:
        shapes = f"{tuple(mask.shape)} and {tuple(depth.shape)}"
        raise ValueError(f"mask, depth: expected the same shape (*batch, h, w), got {shapes}")
    valid = (mask > 0) & is_measured(depth)
    if z_ref is None:
        reference = masked_median(depth, valid)
    else:
        reference = torch.as_tensor(z_ref, dtype=depth.dtype, device=depth.device).expand(depth.shape[:-2])
    valid = valid & is_measured(reference)[..., None, None]
    # Where nothing is valid both logarithms are of 1: no NaN reaches the value or the gradient.
    numerator = torch.where(valid, depth, 1.0).log()
    denominator = torch.where(is_measured(reference), reference, 1.0).log()[..., None, None]
    return NormalisedDepth(torch.where(valid, numerator - denominator, 0.0), valid, reference)


def create_geom_input(
    mask: Shaped[Tensor, "..."],
    depth_obj: Float[Tensor, "..."],
    *,
    z_ref: Float[Tensor, "..."] | float | None = None,
    with_validity: bool = False,
) -> Float[Tensor, "..."]:
    """Stack an object's mask and its normalised depth into a geometry tensor.

    Args:
        mask: ``(*batch, h, w)`` the object's mask, 0 or 1.
        depth_obj: ``(*batch, h, w)`` depth in metres; missing pixels hold 0, NaN or infinity.
        z_ref: common reference depth in metres; None takes each mask's lower median (see
            :func:`normalise_depth`).
        with_validity: add a third channel, 1 where the depth is known.

    Returns:
        ``(*batch, 2, h, w)``: the mask and ``mask * log(depth / z_ref)``, 0 where depth is missing; with
        ``with_validity`` ``(*batch, 3, h, w)``.

    Raises:
        ValueError: mask and depth differ in shape.

    Example:
        >>> depth = torch.tensor([[2.0, 4.0, torch.nan], [8.0, 0.0, 0.0]])
        >>> create_geom_input(torch.tensor([[1.0, 1.0, 0.0], [1.0, 0.0, 0.0]]), depth)[1]
        tensor([[-0.6931,  0.0000,  0.0000],
                [ 0.6931,  0.0000,  0.0000]])
    """
    normalised = normalise_depth(mask, depth_obj, z_ref=z_ref)
    weight = mask.to(depth_obj)
    channels = [weight, weight * normalised.log_ratio]
    if with_validity:
        channels.append(normalised.valid.to(depth_obj))
    return torch.stack(channels, -3)


def create_geom_from_predictions(
    bbox: Float[Tensor, "... 4"],
    mask_pred: Float[Tensor, "..."],
    depth_pred: Float[Tensor, "..."] | float | int,
    K: Float[Tensor, "... 4"],
    *,
    z_ref: Float[Tensor, "..."] | float | None = None,
    with_validity: bool = False,
) -> Float[Tensor, "..."]:
    """Make the geometry tensor from a model's own predictions.

    Args:
        bbox: ``(*batch, 4)`` predicted box cx cy w h. The mask says where the object is and the depth is
            relative, so the tensor does not depend on the box nor on K; both belong to the signature.
        mask_pred: ``(*batch, h, w)`` predicted mask, soft or binary; above 0.5 is the object.
        depth_pred: predicted depth in metres: one number, one an object ``(*batch,)``, or a map
            ``(*batch, h, w)``.
        K: ``(*batch, 4)`` fx fy cx cy, pixels.
        z_ref: common reference depth in metres; None takes each mask's lower median.
        with_validity: add a third channel, 1 where the depth is known.

    Returns:
        ``(*batch, 2, h, w)``, or 3 channels with ``with_validity``, as :func:`create_geom_input` gives.

    Raises:
        ValueError: the depth's shape fits neither the mask nor its batch.

    Example:
        >>> mask, K = torch.tensor([[0.9, 0.2]]), torch.tensor([600.0, 600.0, 320.0, 240.0])
        >>> create_geom_from_predictions(torch.rand(4), mask, 1.5, K)
        tensor([[[1., 0.]],
        <BLANKLINE>
                [[0., 0.]]])
    """
    mask = (mask_pred > 0.5).to(mask_pred)
    depth = torch.as_tensor(depth_pred, dtype=mask.dtype, device=mask.device)
    if depth.shape == mask.shape[:-2] or depth.ndim == 0:
        depth = depth[..., None, None].expand(mask.shape)
    return create_geom_input(mask, depth, z_ref=z_ref, with_validity=with_validity)


def pixel_grid(width: int, height: int, *, dtype: torch.dtype = torch.float64) -> Float[Tensor, "h w 2"]:
    """The coordinates ``(x, y)`` of every pixel's centre.

    Args:
        width: of the picture, pixels.
        height: of the picture, pixels.
        dtype: of the result.

    Example:
        >>> pixel_grid(2, 1).tolist()
        [[[0.0, 0.0], [1.0, 0.0]]]
    """
    rows, columns = torch.arange(height, dtype=dtype), torch.arange(width, dtype=dtype)
    return torch.stack(torch.meshgrid(columns, rows, indexing="xy"), -1)


def depth_to_points(
    depth: Float[Tensor, "*batch h w"],
    K: Float[Tensor, "... 3 3"],
    distortion: Float[Tensor, "... 5"] | None = None,
) -> Float[Tensor, "*batch h w 3"]:
    """Lift depth maps to points in the camera frame.

    Args:
        depth: ``(*batch, h, w)`` metres.
        K: ``(3, 3)`` or ``(*batch, 3, 3)`` pixels.
        distortion: ``(5,)`` or ``(*batch, 5)`` k1 k2 p1 p2 k3, or None.

    Returns:
        ``(*batch, h, w, 3)`` metres, NaN where depth is missing or the pixel is beyond the lens model.

    Example:
        >>> depth_to_points(torch.full((1, 2), 2.0), torch.eye(3))
        tensor([[[0., 0., 2.],
                 [2., 0., 2.]]])
    """
    height, width = depth.shape[-2:]
    measured = is_measured(depth)
    px = pixel_grid(width, height, dtype=depth.dtype).to(depth.device).view(-1, 2)
    px = px.expand(*depth.shape[:-2], -1, 2)
    points = unproject(px, torch.where(measured, depth, 1.0).flatten(-2), K, distortion)
    return torch.where(measured[..., None], points.unflatten(-2, (height, width)), torch.nan)


def sample_depth(
    depth: Float[Tensor, "*batch h w"],
    px: Float[Tensor, "*batch n 2"],
    *,
    mode: Literal["bilinear", "nearest"] = "bilinear",
    max_jump: float | Float[Tensor, "*batch"] | None = None,
) -> Float[Tensor, "*batch n"]:
    """Read depth at pixel positions, leaving missing pixels out instead of mixing them in.

    Args:
        depth: ``(*batch, h, w)`` metres.
        px: ``(*batch, n, 2)`` pixels.
        mode: ``"bilinear"`` weighs those of the four neighbours that hold depth; ``"nearest"`` takes the
            nearest pixel.
        max_jump: metres, one for all or one a map; a neighbour whose depth differs by more from that of the
            nearest pixel belongs to another surface and is left out too, and where the nearest pixel holds no
            depth there is none. None for no limit.

    Returns:
        ``(*batch, n)`` metres, NaN where there is no depth to read or the position lies outside the picture.

    Example:
        >>> depth = torch.tensor([[2.0, 4.0, 0.0]])
        >>> sample_depth(depth, torch.tensor([[0.5, 0.0], [1.5, 0.0], [2.0, 0.0], [9.0, 0.0]]))
        tensor([3., 4., nan, nan])
        >>> sample_depth(depth, torch.tensor([[0.4, 0.0], [0.6, 0.0], [1.6, 0.0]]), max_jump=0.1)
        tensor([2., 4., nan])
    """
    which = torch.arange(math.prod(depth.shape[:-2]), device=depth.device).view(*depth.shape[:-2], 1)
    if isinstance(max_jump, Tensor):
        max_jump = max_jump[..., None]
    return _sample(depth, which, px, mode, max_jump)


def sample_depth_of(
    depth: Float[Tensor, "maps h w"],
    which: Int[Tensor, "*#points"],
    px: Float[Tensor, "*points 2"],
    *,
    max_jump: float | Float[Tensor, "*#points"] | None = None,
) -> Float[Tensor, "*points"]:
    """Read depth bilinearly at pixel positions, each in a map of its own choice.

    Args:
        depth: ``(maps, h, w)`` metres.
        which: ``(*points,)``, or what broadcasts to it, the map of each position.
        px: ``(*points, 2)`` pixels.
        max_jump: metres, one for all or one a position, as for :func:`sample_depth`.

    Returns:
        ``(*points,)`` metres, NaN where there is no depth to read or the position lies outside the picture.

    Example:
        >>> depth = torch.tensor([[[2.0, 4.0]], [[6.0, 6.0]]])
        >>> sample_depth_of(depth, torch.tensor([1, 0]), torch.tensor([[0.0, 0.0], [0.5, 0.0]]))
        tensor([6., 3.])
    """
    return _sample(depth, which, px, "bilinear", max_jump)


def center_depth(
    depth: Float[Tensor, "h w"],
    box: Float[Tensor, "4"],
    mask: Shaped[Tensor, "h w"] | None = None,
) -> float | None:
    """Read the depth at the centre of a box.

    Args:
        depth: ``(h, w)`` metres.
        box: ``(4,)`` xyxy pixels.
        mask: ``(h, w)`` the object's pixels, > 0; None for all.

    Returns:
        Metres, or None where the pixel nearest to the centre holds no depth, is not the object's, or lies
        outside the picture. Missing is never taken for a depth of zero.

    Example:
        >>> depth = torch.tensor([[0.0, 1.5]])
        >>> center_depth(depth, torch.tensor([0.5, -0.5, 1.5, 0.5]))
        1.5
        >>> center_depth(depth, torch.tensor([-0.5, -0.5, 0.5, 0.5])) is None
        True
    """
    seen = depth if mask is None else torch.where(mask > 0, depth, 0.0)
    middle = ((box[:2] + box[2:]) / 2)[None]
    value = float(sample_depth(seen, middle, mode="nearest")[0])
    return None if math.isnan(value) else value


def downsample_depth(
    depth: Float[Tensor, "*batch h w"], new_size: tuple[int, int]
) -> Float[Tensor, "*batch new_h new_w"]:
    """Shrink depth maps, averaging in each cell the pixels that hold depth.

    Args:
        depth: ``(*batch, h, w)`` metres.
        new_size: ``(width, height)``, best a divisor of the old size (otherwise neighbouring cells share
            pixels).

    Returns:
        ``(*batch, new_h, new_w)`` metres, 0 where a cell held no depth.

    Example:
        >>> downsample_depth(torch.tensor([[2.0, 0.0, 0.0, 0.0], [4.0, torch.nan, 0.0, 0.0]]), (2, 1))
        tensor([[3., 0.]])
    """
    measured = is_measured(depth)
    known = torch.where(measured, depth, 0.0)
    maps = torch.stack([known, measured.to(depth)]).view(2, -1, *depth.shape[-2:])
    total, share = functional.adaptive_avg_pool2d(maps, (new_size[1], new_size[0]))
    mean = torch.where(share > 0, total / torch.where(share > 0, share, 1.0), 0.0)
    return mean.view(*depth.shape[:-2], new_size[1], new_size[0])


def _sample(
    depth: Tensor, which: Tensor, px: Tensor, mode: str, max_jump: float | Tensor | None
) -> Float[Tensor, "*points"]:
    """Depth at ``(*points, 2)`` pixels of the maps that ``which``, broadcast to ``(*points,)``, names."""
    # One plane a coordinate and a corner: arithmetic on pairs would run over two numbers at a time.
    height, width = depth.shape[-2:]
    flat, start = torch.where(is_measured(depth), depth, 0.0).reshape(-1), which * (height * width)
    x, y = px.unbind(-1)
    inside = (x >= -0.5) & (x <= width - 0.5) & (y >= -0.5) & (y <= height - 0.5)
    x, y = torch.where(inside, x, 0.0), torch.where(inside, y, 0.0)

    def place(columns: Tensor, rows: Tensor) -> Tensor:
        return start + rows.clamp(0, height - 1).long() * width + columns.clamp(0, width - 1).long()

    nearest = flat[place((x + 0.5).floor(), (y + 0.5).floor())]
    if mode == "nearest":
        return torch.where(inside & (nearest > 0), nearest, torch.nan)
    left, top = x.floor(), y.floor()
    columns, rows = torch.stack([left, left + 1]), torch.stack([top, top + 1])[:, None]
    across, down = x - left, y - top
    weights = torch.stack([1 - down, down])[:, None] * torch.stack([1 - across, across])
    within = (rows >= 0) & (rows < height) & ((columns >= 0) & (columns < width))
    values, weights, within = (each.flatten(0, 1) for each in (flat[place(columns, rows)], weights, within))
    usable = within & (values > 0)
    if max_jump is not None:
        usable = usable & (((values - nearest).abs() <= max_jump) & (nearest > 0))
    weights = weights * usable
    total = weights.sum(0)
    known = inside & (total > 0)
    mean = (weights * values).sum(0) / torch.where(known, total, 1.0)
    return torch.where(known, mean, torch.nan)
