"""Says exactly where an object is in a crop that shows it roughly: the second look's other answer.

The first look says a box from a small picture, where a pixel is a large share of it. In the second look each
part of the best template has found its place in the crop, and each place of the crop the part that it
resembles; a few convolutions read from these maps where the object begins and ends.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from sightline.nn.late_interaction import Parts

_SHARPNESS = 20.0
_MAPS = 4  # of a level: likeness, two coordinates in the template, and what the template's parts claim
_BEYOND = 0.075  # how far outside the crop an edge may be said to be, in shares of it
_COSINE_CENTER, _COSINE_SCALE = 0.33, 3.0  # brings cosines to about zero mean and unit spread


class BoxRefiner(nn.Module):
    """Edges of the object in crops, from descriptors of a crop and of the template that it resembles most.

    Args:
        strides: levels whose descriptors are compared, the finest first.
        descriptor_channels: length of a descriptor.
        channels: of the convolutions.
        num_blocks: convolutions with a residual.

    Example:
        >>> refiner = BoxRefiner((8,), 16)
        >>> parts = Parts(torch.rand(2, 16, 16), torch.ones(2, 16))
        >>> refiner({8: parts}, {8: torch.rand(2, 16, 16)}, {8: (4, 4)}).shape
        torch.Size([2, 4])
    """

    def __init__(
        self, strides: Sequence[int], descriptor_channels: int, channels: int = 48, num_blocks: int = 3
    ) -> None:
        super().__init__()
        self.strides = tuple(strides)
        seen = channels // 4
        self.see = nn.Linear(descriptor_channels, seen)
        self.stem = nn.Conv2d(_MAPS * len(self.strides) + seen + 2, channels, 3, padding=1)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.GroupNorm(4, channels), nn.GELU(), nn.Conv2d(channels, channels, 3, padding=1))
            for _ in range(num_blocks)
        )
        self.norm = nn.GroupNorm(4, channels)
        self.left_right = nn.Conv1d(2 * channels, 2, 3, padding=1)
        self.top_bottom = nn.Conv1d(2 * channels, 2, 3, padding=1)

    def forward(
        self,
        templates: Mapping[int, Parts],
        crops: Mapping[int, Float[Tensor, "m cells d"]],
        grids: Mapping[int, tuple[int, int]],
    ) -> Float[Tensor, "m 4"]:
        """Where the object begins and ends.

        Args:
            templates: for each stride the parts of each crop's own template, ``(m, cells, d)``.
            crops: for each stride the unit descriptors of the crops' cells, row by row.
            grids: for each stride ``(rows, columns)`` of the cells.

        Returns:
            ``(m, 4)`` x1 y1 x2 y2 in shares of the crop.
        """
        rows, columns = grids[self.strides[0]]
        maps = []
        for stride in self.strides:
            level = _likeness_maps(templates[stride], crops[stride], grids[stride])
            if grids[stride] != (rows, columns):
                level = F.interpolate(level, size=(rows, columns), mode="bilinear", align_corners=False)
            maps.append(level)
        own = self.see(crops[self.strides[0]]).transpose(1, 2).unflatten(2, (rows, columns))
        places = _places(rows, columns, own).T.unflatten(1, (rows, columns)).expand(len(own), -1, -1, -1)
        x = self.stem(torch.cat([*maps, own * _COSINE_SCALE, places], dim=1))
        for block in self.blocks:
            x = x + block(x)
        x = F.gelu(self.norm(x))
        across = self.left_right(torch.cat([x.mean(2), x.amax(2)], dim=1))
        down = self.top_bottom(torch.cat([x.mean(3), x.amax(3)], dim=1))
        (left, right), (top, bottom) = _mean_place(across).unbind(1), _mean_place(down).unbind(1)
        return torch.stack([left, top, right, bottom], dim=1)


def best_templates(cosines: Float[Tensor, "k n m"], stored: Mapping[int, Parts]) -> dict[int, Parts]:
    """The template of each object that each picture resembles most.

    Args:
        cosines: ``(k, n, m)`` of k objects' n templates with m pictures, summed over the levels; templates
            that are not real have the least.
        stored: for each stride the templates' descriptors ``(k, n, cells, d)`` and shares ``(k, n, cells)``.

    Returns:
        For each stride the chosen parts, ``(k * m, cells, d)``.
    """
    best = cosines.argmax(1).flatten()  # (k m)
    objects = torch.arange(len(cosines), device=best.device).repeat_interleave(cosines.shape[2])
    return {
        stride: Parts(parts.descriptors[objects, best].float(), parts.shares[objects, best])
        for stride, parts in stored.items()
    }


def _likeness_maps(parts: Parts, cells: Tensor, grid: tuple[int, int]) -> Float[Tensor, "m 4 h w"]:
    """Of each cell: its best cosine, which place of the template that is, and how much of it ends here."""
    cosines = torch.einsum("mpd,mcd->mpc", parts.descriptors, cells)
    cosines = cosines.masked_fill((parts.shares <= 0)[..., None], -1.0)
    likeness = (cosines.amax(1, keepdim=True) - _COSINE_CENTER) * _COSINE_SCALE
    origin = (_SHARPNESS * cosines).softmax(1).transpose(1, 2) @ _places(*grid, cosines)
    weights = parts.shares / parts.shares.sum(1, keepdim=True).clamp_min(1e-6)
    claims = weights[:, None] @ (_SHARPNESS * cosines).softmax(2) * (cosines.shape[2] / 8)
    return torch.cat([likeness, origin.transpose(1, 2), claims], dim=1).unflatten(2, grid)


def _places(rows: int, columns: int, like: Tensor) -> Float[Tensor, "cells 2"]:
    """Centres of cells, row by row, x and y in [-1, 1]."""
    y, x = ((torch.arange(n, device=like.device).to(like.dtype) * 2 + 1) / n - 1 for n in (rows, columns))
    return torch.stack([x.expand(rows, columns), y[:, None].expand(rows, columns)], dim=-1).flatten(0, 1)


def _mean_place(logits: Float[Tensor, "m 2 cells"]) -> Float[Tensor, "m 2"]:
    """The mean of a distribution over cells, in shares of the crop."""
    count = logits.shape[-1]
    places = (torch.arange(count, device=logits.device).to(logits.dtype) + 0.5) / count
    return logits.softmax(-1) @ ((places - 0.5) * (1 + 2 * _BEYOND) + 0.5)
