"""Which cells are hidden, and the geometry that they are to be reconstructed from."""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

from sightline.geometry.depth import create_geom_input, downsample_depth

ADVISED_RATIO = (0.4, 0.7)
"""Shares of hidden cells with a useful signal."""


def generate_mask(
    prob: float = 0.6,
    size: tuple[int, int] = (20, 20),
    *,
    batch: int | None = None,
    patch: int = 1,
    seed: int | None = None,
    generator: torch.Generator | None = None,
    device: torch.device | str = "cpu",
) -> Bool[Tensor, "..."]:
    """Draw a mask of square patches, each hidden with a probability of its own.

    The random numbers are drawn on the CPU, so that a seed gives the same mask on every device.

    Args:
        prob: of hiding a patch; 0.4 to 0.7 is advised.
        size: ``(width, height)`` of the mask: cells (those of a picture of 640 px by default), or pixels with
            a ``patch`` that is a multiple of the cells' stride, so that each cell is hidden whole or not.
        batch: masks; None for one without a leading axis.
        patch: side of a patch; patches at the far edges are cut.
        seed: of the numbers.
        generator: of the numbers, on the CPU, instead of a seed.
        device: of the mask.

    Returns:
        ``(h, w)`` or ``(batch, h, w)``, True where hidden.

    Raises:
        ValueError: no probability, no size, or both seed and generator.

    Example:
        >>> mask = generate_mask(0.5, (4, 4), patch=2, seed=3)
        >>> mask.shape, bool((mask == mask[::2, ::2].repeat_interleave(2, 0).repeat_interleave(2, 1)).all())
        (torch.Size([4, 4]), True)
    """
    if not 0 <= prob <= 1:
        raise ValueError(f"prob: expected a probability, got {prob}")
    if min(*size, patch) < 1:
        raise ValueError(f"size, patch: expected at least 1, got {size} and {patch}")
    if seed is not None:
        if generator is not None:
            raise ValueError("give a seed or a generator, not both")
        generator = torch.Generator().manual_seed(seed)
    width, height = size
    rows, columns = math.ceil(height / patch), math.ceil(width / patch)
    hidden = torch.rand(1 if batch is None else batch, rows, columns, generator=generator) < prob
    hidden = hidden.repeat_interleave(patch, 1).repeat_interleave(patch, 2)[:, :height, :width]
    return (hidden[0] if batch is None else hidden).to(device)


def prepare_geometry(
    image: Float[Tensor, "..."],
    *,
    mask: Shaped[Tensor, "..."],
    depth: Float[Tensor, "..."],
    stride: int = 4,
    z_ref: Float[Tensor, "..."] | float | None = None,
) -> Float[Tensor, "b 3 gh gw"]:
    """The geometry tensor of pictures from their objects' mask and depth, from a sensor or from predictions.

    Args:
        image: ``(B, 3, H, W)`` or ``(3, H, W)``, the network's input; it says for which size.
        mask: ``(B, H, W)``, ``(B, 1, H, W)`` or ``(H, W)``: objects against the rest, > 0.
        depth: likewise, metres; missing pixels hold 0, NaN or infinity.
        stride: pixels of the picture to one of the tensor.
        z_ref: reference depth in metres; None takes the median of each picture, common to all its objects, so
            that they keep their depths relative to each other.

    Returns:
        Mask, ``log(depth / z_ref)`` and where depth is known.

    Raises:
        ValueError: mask or depth of another size than the picture.

    Example:
        >>> image, mask = torch.rand(1, 3, 64, 64), torch.ones(1, 64, 64)
        >>> prepare_geometry(image, mask=mask, depth=torch.full((1, 64, 64), 2.0)).shape
        torch.Size([1, 3, 16, 16])
    """
    batch = image.shape[0] if image.ndim == 4 else 1
    height, width = image.shape[-2:]
    maps = []
    for name, given in (("mask", mask), ("depth", depth)):
        flat = given[:, 0] if given.ndim == 4 else given
        flat = flat if flat.ndim == 3 else flat[None]
        if flat.shape[-2:] != (height, width) or flat.shape[0] not in (1, batch):
            expected = f"({batch}, {height}, {width})"
            raise ValueError(f"{name}: expected {expected} as the picture, got {tuple(given.shape)}")
        maps.append(flat.expand(batch, height, width))
    inside = maps[0] > 0
    size = (math.ceil(width / stride), math.ceil(height / stride))
    seen = downsample_depth(torch.where(inside, maps[1], 0.0), size)
    occupied = torch.nn.functional.adaptive_max_pool2d(inside.to(seen)[:, None], size[::-1])[:, 0]
    return create_geom_input(occupied, seen, z_ref=z_ref, with_validity=True)
