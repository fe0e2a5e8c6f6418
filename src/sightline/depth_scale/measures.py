"""How large a mask is, as one differentiable length: the square root of its area, its height, its outline."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor
from torch.nn import functional

from sightline.depth_scale.batches import as_maps

ScaleMeasure = Literal[
    "sqrt_area", "bbox_height", "bbox_width", "diagonal", "moment_height", "moment_width", "perimeter"
]
"""The lengths that :func:`measure_scale` knows; all double when the object is seen twice as large."""

CellSize = tuple[Tensor | float, Tensor | float]
"""Width and height of a cell of the mask, in the unit of the result; numbers or ``(B,)``."""

_ONE_CELL = 1.0


def measure_scale(
    mask01: Shaped[Tensor, "..."], measure: ScaleMeasure | str = "sqrt_area", *, cell: CellSize = (1.0, 1.0)
) -> Float[Tensor, "b 1 1 1"]:
    r"""The size of each soft mask as one length.

    ``sqrt_area`` is :math:`\sqrt{\sum M}`; below an area of one cell it continues along its tangent, so that
    the gradient of an empty mask is finite and not zero. ``bbox_height`` and ``bbox_width`` sum the maxima of
    the rows and of the columns, which for a binary mask is the exact box whatever its holes; ``diagonal`` is
    that box's. ``moment_height`` and ``moment_width`` are :math:`\sqrt{12\,\mathrm{Var}+1}`, exact for a
    filled rectangle (an ellipse's axis is :math:`\sqrt{4/3}` times that, which a calibrated constant
    absorbs). ``perimeter`` is the total variation, :math:`\sum |\nabla M|` of four neighbours, the outline
    of a mask that ends at the border included.

    Args:
        mask01: ``(H, W)``, ``(B, H, W)`` or ``(B, 1, H, W)`` in [0, 1].
        measure: which length.
        cell: width and height of a cell; ``(1, 1)`` measures in cells of the mask.

    Returns:
        ``(B, 1, 1, 1)``, in the unit of ``cell``; NaN, with a gradient of 0, for a mask that is not finite.

    Raises:
        ValueError: an unknown measure, or a shape that is no mask.

    Example:
        >>> mask = torch.zeros(8, 8)
        >>> mask[1:7, 2:5] = 1.0
        >>> [round(measure_scale(mask, name).item(), 2) for name in ("sqrt_area", "bbox_height", "perimeter")]
        [4.24, 6.0, 18.0]
    """
    if measure not in get_args(ScaleMeasure):
        raise ValueError(
            f"scale_measure: expected one of {', '.join(get_args(ScaleMeasure))}, got {measure!r}"
        )
    mask = as_maps(mask01, "mask01")
    return size_of(mask, mask.sum((1, 2, 3)), measure, cell).view(-1, 1, 1, 1)


def size_of(
    mask: Float[Tensor, "b 1 h w"],
    area: Float[Tensor, "b"],
    measure: ScaleMeasure | str,
    cell: CellSize = (1.0, 1.0),
) -> Float[Tensor, "b"]:
    """What :func:`measure_scale` gives, for who has the mask's sum already.

    Args:
        mask: ``(B, 1, H, W)`` soft masks.
        area: ``(B,)`` their sums.
        measure: a known one.
        cell: width and height of a cell.

    Returns:
        ``(B,)``, in the unit of ``cell``; NaN, with a gradient of 0, for a mask that is not finite.

    Example:
        >>> mask = torch.ones(1, 1, 4, 9)
        >>> size_of(mask, mask.sum((1, 2, 3)), "sqrt_area").item()
        6.0
    """
    broken = ~(area.detach().abs() < torch.inf)
    if measure == "sqrt_area":
        size = _sqrt_area(area.masked_fill(broken, 1.0), cell)
    else:
        # Other than a sum's, their gradient depends on the mask, and 0 * NaN would be NaN.
        size = _MEASURES[measure](torch.where(broken[:, None, None], 0.0, mask[:, 0]), cell)
    return size.masked_fill(broken, torch.nan)


def mean_cell(cell: CellSize) -> Tensor | float:
    """The side of a square cell of the same area.

    Args:
        cell: width and height of a cell.

    Example:
        >>> mean_cell((8.0, 8.0))
        8.0
    """
    return (cell[0] * cell[1]) ** 0.5


def touches_border(mask01: Shaped[Tensor, "..."]) -> Bool[Tensor, "b"]:
    """Which masks are cut off: somewhere along the picture's border they exceed one half.

    Args:
        mask01: masks as :func:`measure_scale` takes them.

    Example:
        >>> touches_border(torch.eye(3)[None] * torch.tensor([1.0, 0.4])[:, None, None]).tolist()
        [True, False]
    """
    mask = as_maps(mask01, "mask01").detach()[:, 0]
    border = torch.cat([mask[:, 0], mask[:, -1], mask[:, :, 0], mask[:, :, -1]], -1)
    return border.amax(-1) > 0.5


@torch.no_grad()
def hard_box_size(mask01: Shaped[Tensor, "..."], threshold: float = 0.5) -> Float[Tensor, "b 2"]:
    """Width and height of the box of what exceeds a threshold, for a log: it has no gradient.

    Args:
        mask01: masks as :func:`measure_scale` takes them.
        threshold: what belongs to the object.

    Returns:
        ``(B, 2)`` cells; 0 for an empty mask.

    Example:
        >>> hard_box_size(torch.tensor([[0.0, 0.9, 0.0, 0.8], [0.0, 0.0, 0.1, 0.0]])).tolist()
        [[3.0, 1.0]]
    """
    inside = as_maps(mask01, "mask01")[:, 0] > threshold
    return torch.stack([_span(inside.any(1)), _span(inside.any(2))], -1)


def _span(occupied: Bool[Tensor, "b n"]) -> Float[Tensor, "b"]:
    n = occupied.shape[-1]
    first = occupied.int().argmax(-1)
    last = n - 1 - occupied.flip(-1).int().argmax(-1)
    return torch.where(occupied.any(-1), last - first + 1, 0).float()


def _sqrt_area(area: Tensor, cell: CellSize) -> Tensor:
    below = (area.clamp_max(_ONE_CELL) - _ONE_CELL) / 2
    root = area.clamp_min(_ONE_CELL).sqrt() + below
    return root * mean_cell(cell)


def _height(mask: Tensor, cell: CellSize) -> Tensor:
    return mask.amax(-1).sum(-1) * cell[1]


def _width(mask: Tensor, cell: CellSize) -> Tensor:
    return mask.amax(-2).sum(-1) * cell[0]


def _diagonal(mask: Tensor, cell: CellSize) -> Tensor:
    return torch.linalg.vector_norm(torch.stack([_width(mask, cell), _height(mask, cell)]), dim=0)


def _moment(profile: Float[Tensor, "b n"]) -> Float[Tensor, "b"]:
    place = torch.arange(profile.shape[-1], dtype=profile.dtype, device=profile.device)
    total = profile.sum(-1, keepdim=True)
    weight = profile / torch.where(total > 0, total, 1.0)
    mean = (weight * place).sum(-1, keepdim=True)
    # A lone cell has no variance but is one cell high: the 1 makes the discrete rectangle exact.
    return (12 * (weight * (place - mean).square()).sum(-1) + 1).sqrt()


def _moment_height(mask: Tensor, cell: CellSize) -> Tensor:
    return _moment(mask.sum(-1)) * cell[1]


def _moment_width(mask: Tensor, cell: CellSize) -> Tensor:
    return _moment(mask.sum(-2)) * cell[0]


def _perimeter(mask: Tensor, cell: CellSize) -> Tensor:
    padded = functional.pad(mask, (1, 1, 1, 1))
    across = padded.diff(dim=-1).abs().sum((-2, -1)) * cell[1]
    return padded.diff(dim=-2).abs().sum((-2, -1)) * cell[0] + across


_MEASURES: dict[str, Callable[[Tensor, CellSize], Tensor]] = {
    "bbox_height": _height,
    "bbox_width": _width,
    "diagonal": _diagonal,
    "moment_height": _moment_height,
    "moment_width": _moment_width,
    "perimeter": _perimeter,
}
