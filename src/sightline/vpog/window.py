"""Tokens of a grid in windows, and back: exact for grids that windows do not divide.

A grid is cut into as few windows as ``window`` allows, all of one extent; what the last ones have too much is
padding, which nobody may attend to.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor


def window_extent(grid: tuple[int, int], window: int) -> tuple[int, int]:
    """Rows and columns of each window, at most ``window``, evened out over the grid.

    Args:
        grid: ``(rows, columns)`` of tokens.
        window: the most tokens on a side.

    Returns:
        ``(rows, columns)``.

    Example:
        >>> window_extent((14, 14), 7), window_extent((16, 8), 7)
        ((7, 7), (6, 4))
    """
    rows, columns = (-(-length // -(-length // window)) for length in grid)
    return rows, columns


def partition_windows(
    x: Float[Tensor, "*batch n c"], grid: tuple[int, int], window: int
) -> Float[Tensor, "*batch windows m c"]:
    """Cuts a grid of tokens into windows, row by row; zeros pad the last ones.

    Args:
        x: ``(*batch, rows * columns, c)`` tokens, row by row.
        grid: ``(rows, columns)``.
        window: the most tokens on a side.

    Returns:
        ``(*batch, windows, m, c)``.

    Example:
        >>> partition_windows(torch.arange(8.0).view(8, 1), (2, 4), 2)[..., 0]
        tensor([[0., 1., 4., 5.],
                [2., 3., 6., 7.]])
    """
    rows, columns = window_extent(grid, window)
    x = F.pad(x.unflatten(-2, grid), (0, 0, 0, -grid[1] % columns, 0, -grid[0] % rows))
    x = x.unflatten(-2, (-1, columns)).unflatten(-4, (-1, rows))
    return x.transpose(-4, -3).flatten(-3, -2).flatten(-4, -3)


def merge_windows(
    x: Float[Tensor, "*batch windows m c"], grid: tuple[int, int], window: int
) -> Float[Tensor, "*batch n c"]:
    """Puts windows together again: the inverse of ``partition_windows``.

    Args:
        x: ``(*batch, windows, m, c)``.
        grid: ``(rows, columns)``.
        window: the most tokens on a side.

    Returns:
        ``(*batch, rows * columns, c)`` without the padding.

    Example:
        >>> x = torch.rand(2, 15, 4)
        >>> torch.equal(merge_windows(partition_windows(x, (3, 5), 2), (3, 5), 2), x)
        True
    """
    rows, columns = window_extent(grid, window)
    x = x.unflatten(-3, (-1, -(-grid[1] // columns))).unflatten(-2, (rows, columns))
    x = x.transpose(-4, -3).flatten(-3, -2).flatten(-4, -3)
    return x[..., : grid[0], : grid[1], :].flatten(-3, -2)


def real_tokens(
    grid: tuple[int, int], window: int, device: torch.device | None = None
) -> Bool[Tensor, "windows m"] | None:
    """Which tokens of the windows are no padding.

    Args:
        grid: ``(rows, columns)``.
        window: the most tokens on a side.
        device: of the result.

    Returns:
        ``(windows, m)``, or None where the windows divide the grid.

    Example:
        >>> real_tokens((1, 3), 2)
        tensor([[ True,  True],
                [ True, False]])
    """
    rows, columns = window_extent(grid, window)
    if grid[0] % rows == 0 and grid[1] % columns == 0:
        return None
    ones = torch.ones(grid[0] * grid[1], 1, device=device)
    return partition_windows(ones, grid, window)[..., 0] > 0
