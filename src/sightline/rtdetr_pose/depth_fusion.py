"""A sensor's depth beside the picture: what it says of each cell is added to the cell's features."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from sightline.geometry.depth import downsample_depth, is_measured, normalise_depth

_NUM_CHANNELS = 3


class DepthFusion(nn.Module):
    """Adds to the maps of each stride what a depth map says there; nothing at first.

    Args:
        hidden_dim: channels of the maps.
        num_levels: maps.

    Example:
        >>> fusion, maps = DepthFusion(8, 1), [torch.rand(1, 8, 4, 6)]
        >>> torch.equal(fusion(maps, torch.full((1, 1, 32, 48), 2.0))[0], maps[0])
        True
    """

    def __init__(self, hidden_dim: int = 256, num_levels: int = 3) -> None:
        super().__init__()
        self.levels = nn.ModuleList()
        for _ in range(num_levels):
            last = nn.Conv2d(hidden_dim // 4, hidden_dim, 1, bias=False)
            nn.init.zeros_(last.weight)
            self.levels.append(nn.Sequential(nn.Conv2d(_NUM_CHANNELS, hidden_dim // 4, 1), nn.SiLU(), last))

    def forward(
        self,
        maps: Sequence[Float[Tensor, "b c _ _"]],
        depth: Float[Tensor, "b 1 dh dw"],
        valid: Shaped[Tensor, "..."] | None = None,
    ) -> list[Tensor]:
        """The maps with depth added.

        Args:
            maps: one a stride.
            depth: metres; missing pixels hold 0, NaN or infinity and are left out of their cell's mean.
            valid: ``(b,)`` pictures whose depth counts, or ``(b, 1, dh, dw)`` pixels; None for all.
        """
        seen = depth[:, 0]
        if valid is not None:
            flags = valid.to(torch.bool)
            seen = torch.where(flags[:, None, None] if flags.ndim == 1 else flags[:, 0], seen, 0.0)
        fused = []
        for layer, level in zip(self.levels, maps, strict=True):
            cells = downsample_depth(seen, (level.shape[-1], level.shape[-2])).to(level)
            known = is_measured(cells)
            log_z = torch.where(known, cells, 1.0).log()
            channels = [log_z, normalise_depth(known, cells).log_ratio, known.to(level)]
            fused.append(level + layer(torch.stack(channels, 1)))
        return fused
