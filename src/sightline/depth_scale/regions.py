"""The regions of a mask that losses weigh differently: inside, along the border, surely outside."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float, Shaped
from torch import Tensor
from torch.nn import functional

from sightline.depth_scale.batches import as_maps


class Regions(NamedTuple):
    """A binary mask, grown and shrunk by the radius of a band, each 0 or 1.

    Args:
        inside: ``(B, 1, H, W)`` the mask itself.
        dilated: what is near it; the rest surely is background.
        core: what is not near its complement. Between both lies the band.
    """

    inside: Float[Tensor, "b 1 h w"]
    dilated: Float[Tensor, "b 1 h w"]
    core: Float[Tensor, "b 1 h w"]

    @property
    def band(self) -> Float[Tensor, "b 1 h w"]:
        """Both sides of the border."""
        return self.dilated - self.core

    @property
    def outside(self) -> Float[Tensor, "b 1 h w"]:
        """What surely is background."""
        return 1.0 - self.dilated


def soft_mask(
    mask: Shaped[Tensor, "..."], like: Float[Tensor, "b 1 h w"], name: str
) -> Float[Tensor, "b 1 h w"]:
    """A copy of a mask as constant weights in [0, 1] for maps; NaN is outside.

    Args:
        mask: 2 to 4 dimensions, one mask serves a batch.
        like: maps ``(B, 1, H, W)`` whose shape, dtype and device are taken.
        name: of the argument, for the error.

    Raises:
        ValueError: the mask does not have the height and width of the maps, or another batch.

    Example:
        >>> soft_mask(torch.tensor([[0.3, 2.0, torch.nan]]), torch.zeros(1, 1, 1, 3), "mask").tolist()
        [[[[0.30000001192092896, 1.0, 0.0]]]]
    """
    maps = as_maps(mask.detach(), name)
    if maps.shape[-2:] != like.shape[-2:] or maps.shape[0] not in (1, like.shape[0]):
        raise ValueError(f"{name}: expected a mask for {tuple(like.shape)}, got {tuple(mask.shape)}")
    return maps.to(like).expand(like.shape).nan_to_num(0.0).clamp_(0.0, 1.0)


def regions_of(mask: Float[Tensor, "b 1 h w"], radius: int) -> Regions:
    """The regions of a mask.

    Args:
        mask: ``(B, 1, H, W)`` in [0, 1]; inside is above one half.
        radius: of the band, cells; a square neighbourhood. What lies beyond the map counts for nothing.

    Raises:
        ValueError: a negative radius.

    Example:
        >>> regions = regions_of(torch.tensor([[[[0.0, 0.0, 0.0, 1.0, 1.0, 1.0]]]]), 1)
        >>> regions.dilated.flatten().tolist(), regions.band.flatten().tolist()
        ([0.0, 0.0, 1.0, 1.0, 1.0, 1.0], [0.0, 0.0, 1.0, 1.0, 0.0, 0.0])
    """
    if radius < 0:
        raise ValueError(f"radius: expected 0 or more cells, got {radius}")
    mask = mask.detach()
    if mask.device.type == "cpu":
        return _compiled_regions(mask, radius)
    inside = (mask > 0.5).to(mask.dtype)
    return Regions(inside, dilate(inside, radius), 1.0 - dilate(1.0 - inside, radius))


def _compiled_regions(mask: Float[Tensor, "b 1 h w"], radius: int) -> Regions:
    from sightline.depth_scale.regions_numba import fill_regions

    regions = Regions(*(torch.empty(mask.shape, dtype=mask.dtype) for _ in range(3)))
    fill_regions(mask[:, 0].contiguous().numpy(), radius, *(region[:, 0].numpy() for region in regions))
    return regions


def dilate(mask: Float[Tensor, "b 1 h w"], radius: int) -> Float[Tensor, "b 1 h w"]:
    """Grow a mask: the maximum over a square of ``2 radius + 1`` cells.

    Args:
        mask: ``(B, 1, H, W)``, not negative.
        radius: cells.

    Raises:
        ValueError: a negative radius.

    Example:
        >>> dilate(torch.tensor([[[[0.0, 0.0, 0.5, 1.0, 0.0, 0.0]]]]), 1).flatten().tolist()
        [0.0, 0.5, 1.0, 1.0, 1.0, 0.0]
    """
    if radius < 0:
        raise ValueError(f"radius: expected 0 or more cells, got {radius}")
    return functional.max_pool2d(mask, 2 * radius + 1, 1, radius)


def downsample_mask_area(mask: Shaped[Tensor, "..."], size: tuple[int, int]) -> Float[Tensor, "b 1 h w"]:
    """Shrink masks to the resolution of latents: each cell holds the share that is covered.

    Args:
        mask: ``(H, W)``, ``(B, H, W)`` or ``(B, 1, H, W)``; bool or numbers in [0, 1].
        size: ``(width, height)`` of the result.

    Returns:
        ``(B, 1, h, w)`` in [0, 1].

    Raises:
        ValueError: a shape that is no mask, or a size that is not positive.

    Example:
        >>> downsample_mask_area(torch.tensor([[1, 1, 1, 0], [1, 1, 0, 0]]), (2, 1)).tolist()
        [[[[1.0, 0.25]]]]
    """
    width, height = size
    if width < 1 or height < 1:
        raise ValueError(f"size: expected a positive (width, height), got {size}")
    return functional.interpolate(as_maps(mask, "mask"), size=(height, width), mode="area")
