"""Squares in flat depth: what the tests of the scale loss look at."""

from __future__ import annotations

import torch

FOCAL, K = 500.0, 0.08  # at inverse depth 0.5: a size of 20


def square(
    batch: int = 1, side: int = 20, size: int = 64, dtype: torch.dtype = torch.float32
) -> torch.Tensor:
    mask = torch.zeros(batch, 1, size, size, dtype=dtype)
    first = (size - side) // 2
    mask[..., first : first + side, first : first + side] = 1.0
    return mask


def flat(value: float, batch: int = 1, size: int = 64, dtype=torch.float32) -> torch.Tensor:
    return torch.full((batch, 1, size, size), value, dtype=dtype)
