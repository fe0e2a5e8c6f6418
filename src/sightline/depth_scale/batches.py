"""Inputs of any accepted shape, brought to one: maps ``(B, 1, H, W)`` and one number a sample ``(B,)``."""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor


def as_maps(maps: Shaped[Tensor, "..."], name: str) -> Float[Tensor, "b 1 h w"]:
    """Bring masks or depth maps to ``(B, 1, H, W)`` in single precision or better.

    Half precision is left here and not by switching autocast off: what follows are sums, maxima, sorts and
    logarithms, which autocast leaves in the precision that they are given.

    Args:
        maps: ``(H, W)``, ``(B, H, W)`` or ``(B, 1, H, W)``; bool, integers or floats.
        name: of the argument, for the error.

    Raises:
        ValueError: another number of dimensions, several channels, or no pixels.

    Example:
        >>> as_maps(torch.zeros(2, 4, 5, dtype=torch.float16), "mask").shape
        torch.Size([2, 1, 4, 5])
    """
    given = tuple(maps.shape)
    if maps.ndim == 2:
        maps = maps[None, None]
    elif maps.ndim == 3:
        maps = maps[:, None]
    if maps.ndim != 4 or maps.shape[1] != 1 or 0 in maps.shape:
        raise ValueError(f"{name}: expected (H, W), (B, H, W) or (B, 1, H, W), got {given}")
    return maps if maps.dtype in (torch.float32, torch.float64) else maps.float()


def as_pair(
    first: Shaped[Tensor, "..."], second: Shaped[Tensor, "..."], names: tuple[str, str]
) -> tuple[Float[Tensor, "b 1 h w"], Float[Tensor, "b 1 h w"]]:
    """Bring two stacks of maps to one shape and precision; one map serves a whole batch.

    Args:
        first: maps as :func:`as_maps` takes them.
        second: likewise, of the same height and width.
        names: of both arguments, for the error.

    Raises:
        ValueError: the shapes do not broadcast: another height or width, or unequal batches.

    Example:
        >>> a, b = as_pair(torch.zeros(3, 1, 4, 4), torch.ones(4, 4), ("mask", "depth"))
        >>> b.shape
        torch.Size([3, 1, 4, 4])
    """
    a, b = as_maps(first, names[0]), as_maps(second, names[1])
    if a.shape != b.shape:
        fits = a.shape[-2:] == b.shape[-2:] and 1 in (a.shape[0], b.shape[0])
        if not fits:
            raise ValueError(
                f"{names[0]} and {names[1]}: expected the same height and width and equal batches, "
                f"got {tuple(first.shape)} and {tuple(second.shape)}"
            )
        batch = max(a.shape[0], b.shape[0])
        a, b = a.expand(batch, -1, -1, -1), b.expand(batch, -1, -1, -1)
    if a.dtype != b.dtype:
        dtype = torch.promote_types(a.dtype, b.dtype)
        a, b = a.to(dtype), b.to(dtype)
    return a, b


def mend(
    value: Float[Tensor, "b"], given: Shaped[Tensor, "..."] | float | int
) -> tuple[Float[Tensor, "b"], Bool[Tensor, "b"] | None]:
    """Put 1 in place of what is not positive and finite, so that it harms no gradient.

    Args:
        value: ``(B,)``, of :func:`as_samples`.
        given: what it was made of; a plain number was checked there.

    Returns:
        The values, and which were replaced; None where none can be.

    Example:
        >>> given = torch.tensor([500.0, -1.0, torch.nan])
        >>> value, bad = mend(given, given)
        >>> value.tolist(), bad.tolist()
        ([500.0, 1.0, 1.0], [False, True, True])
    """
    if not isinstance(given, Tensor):
        return value, None
    bad = ~((value > 0) & (value < torch.inf))
    return value.masked_fill(bad, 1.0), bad


def as_samples(
    value: Shaped[Tensor, "..."] | float | int,
    batch: int,
    name: str,
    *,
    like: Float[Tensor, "..."],
) -> Float[Tensor, "b"]:
    """Bring one positive number a sample to ``(B,)``.

    Args:
        value: a number, or a tensor of shape ``()``, ``(1,)``, ``(B,)``, ``(B, 1)`` up to ``(B, 1, 1, 1)``.
        batch: B.
        name: of the argument, for the error.
        like: its dtype and device are taken.

    Raises:
        ValueError: a shape that is none of these, or a plain number that is not positive and finite. An
            entry of a tensor is not looked at (that would stall an accelerator): its sample becomes invalid.

    Example:
        >>> as_samples(500, 2, "f_px", like=torch.zeros(1))
        tensor([500., 500.])
    """
    if not isinstance(value, Tensor):
        if not (math.isfinite(value) and value > 0):
            raise ValueError(f"{name}: expected a positive number, got {value}")
        return like.new_full((batch,), float(value))
    if value.numel() == 1:
        value = value.reshape(1).expand(batch)
    elif value.shape[0] != batch or value.numel() != batch:
        raise ValueError(
            f"{name}: expected a number or a tensor of shape (), (1,), ({batch},) or ({batch}, 1), "
            f"got {tuple(value.shape)}"
        )
    return value.reshape(batch).to(like)
