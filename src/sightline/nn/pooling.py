"""Exact area averages to any size, as two products of matrices; masked averages.

Unlike adaptive pooling the cells neither overlap nor round: each input pixel counts by the share of it that
lies in a cell. As products they are the same for sizes that are known only at run time.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def area_pool(x: Float[Tensor, "*batch h w"], size: tuple[int, int]) -> Float[Tensor, "*batch out_h out_w"]:
    """Averages over the cells of a grid that is laid over the whole map.

    Args:
        x: ``(*batch, h, w)`` maps.
        size: ``(rows, columns)`` of the grid.

    Returns:
        ``(*batch, rows, columns)`` means; the input itself where the size is the same.

    Example:
        >>> area_pool(torch.arange(6.0).view(1, 6), (1, 4))
        tensor([[0.3333, 1.6667, 3.3333, 4.6667]])
    """
    rows = _weights(x.shape[-2], size[0], x)
    columns = _weights(x.shape[-1], size[1], x)
    return rows @ x @ columns.transpose(0, 1)


def masked_pool(
    features: Float[Tensor, "*batch c h w"], mask: Float[Tensor, "*batch 1 h w"], size: tuple[int, int]
) -> Float[Tensor, "*batch c out_h out_w"]:
    """Averages over the cells of a grid that count the mask's pixels alone; zero where there are none.

    Args:
        features: ``(*batch, c, h, w)`` maps.
        mask: ``(*batch, 1, h, w)`` shares of the object in [0, 1].
        size: ``(rows, columns)`` of the grid.

    Returns:
        ``(*batch, c, rows, columns)`` means.

    Example:
        >>> masked_pool(torch.tensor([[[1.0, 5.0]]]), torch.tensor([[[1.0, 0.0]]]), (1, 1))
        tensor([[[1.]]])
    """
    return area_pool(features * mask, size) / area_pool(mask, size).clamp_min(1e-6)


def _weights(length: int, cells: int, like: Tensor) -> Tensor:
    """``(cells, length)``: the share of each cell that each pixel makes up."""
    if isinstance(length, int) and length == cells:
        return torch.eye(cells, dtype=like.dtype, device=like.device)
    edges = torch.arange(cells + 1, dtype=like.dtype, device=like.device) * (length / cells)
    pixels = torch.arange(length, dtype=like.dtype, device=like.device)
    last = torch.minimum(edges[1:, None], pixels + 1)
    first = torch.maximum(edges[:-1, None], pixels)
    return (last - first).clamp_min(0) * (cells / length)
