"""Flow in patch units: where a pixel lies relative to the centre of a patch, one unit being one patch.

A picture is cut into square patches of ``patch_size`` pixels, counted row by row. As the centre of the
top-left pixel is (0, 0), patch i of a row covers [16 i - 0.5, 16 i + 15.5] and its centre is 16 i + 7.5.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

PATCH_SIZE = 16


def patch_centers(
    grid_size: tuple[int, int], patch_size: int = PATCH_SIZE, *, dtype: torch.dtype = torch.float32
) -> Float[Tensor, "patches 2"]:
    """The pixel coordinates of the centres of all patches, row by row.

    Args:
        grid_size: ``(columns, rows)`` of the patch grid.
        patch_size: pixels.
        dtype: of the result.

    Returns:
        ``(columns * rows, 2)`` pixels ``(x, y)``.

    Example:
        >>> patch_centers((2, 1))
        tensor([[ 7.5000,  7.5000],
                [23.5000,  7.5000]])
    """
    columns, rows = (torch.arange(count, dtype=dtype) for count in grid_size)
    return torch.cartesian_prod(rows, columns).flip(-1) * patch_size + (patch_size - 1) / 2


def patch_index(
    px: Float[Tensor, "*points 2"], grid_size: tuple[int, int], patch_size: int = PATCH_SIZE
) -> Int[Tensor, "*points"]:
    """Which patch each pixel position lies in.

    Args:
        px: ``(*points, 2)`` pixels.
        grid_size: ``(columns, rows)`` of the patch grid.
        patch_size: pixels.

    Returns:
        ``(*points,)`` int64 ``row * columns + column``; -1 outside the grid or for NaN.

    Example:
        >>> patch_index(torch.tensor([[15.4, 0.0], [15.6, 0.0], [0.0, 16.0], [-1.0, 0.0]]), (14, 14)).tolist()
        [0, 1, 14, -1]
    """
    cell = ((px + 0.5) / patch_size).floor()
    inside = ((cell >= 0) & (cell < cell.new_tensor(grid_size))).all(-1)
    column, row = torch.where(inside[..., None], cell, 0.0).long().unbind(-1)
    return torch.where(inside, row * grid_size[0] + column, -1)


def pixels_to_flow(
    px: Float[Tensor, "... 2"], centers: Float[Tensor, "... 2"], patch_size: int = PATCH_SIZE
) -> Float[Tensor, "... 2"]:
    """Express pixels relative to patch centres, ``flow = (px - center) / patch_size``.

    Args:
        px: ``(..., 2)`` pixels.
        centers: ``(..., 2)`` pixels, broadcast against ``px``.
        patch_size: pixels.

    Returns:
        ``(..., 2)`` patch units, x then y.

    Example:
        >>> pixels_to_flow(torch.tensor([23.5, 7.5]), torch.tensor([7.5, 7.5]))
        tensor([1., 0.])
    """
    return (px - centers) / patch_size


def flow_to_pixels(
    flow: Float[Tensor, "... 2"], centers: Float[Tensor, "... 2"], patch_size: int = PATCH_SIZE
) -> Float[Tensor, "... 2"]:
    """Turn flow relative to patch centres back into pixels, ``px = center + patch_size flow``.

    Args:
        flow: ``(..., 2)`` patch units, x then y.
        centers: ``(..., 2)`` pixels, broadcast against ``flow``.
        patch_size: pixels.

    Returns:
        ``(..., 2)`` pixels.

    Example:
        >>> flow_to_pixels(torch.tensor([1.0, 0.0]), torch.tensor([7.5, 7.5]))
        tensor([23.5000,  7.5000])
    """
    return centers + flow * patch_size


def offsets_in_patch(
    patch_size: int = PATCH_SIZE, *, dtype: torch.dtype = torch.float32
) -> Float[Tensor, "patch patch 2"]:
    """The flow of a patch's own pixels relative to its centre: what two identical views have.

    Args:
        patch_size: pixels.
        dtype: of the result.

    Returns:
        ``(patch_size, patch_size, 2)`` patch units, x then y, indexed by row and column.

    Example:
        >>> offsets_in_patch()[0, 0], offsets_in_patch()[0, 15]
        (tensor([-0.4688, -0.4688]), tensor([ 0.4688, -0.4688]))
    """
    steps = torch.arange(patch_size, dtype=dtype)
    return (torch.stack(torch.meshgrid(steps, steps, indexing="xy"), -1) - (patch_size - 1) / 2) / patch_size
