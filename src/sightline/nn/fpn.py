"""A feature pyramid network (Lin et al., CVPR 2017) that builds only the levels that are read."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

STRIDES = (4, 8, 16, 32)


class FPN(nn.Module):
    """Lateral 1x1 convolutions, a top-down path of sums, and 3x3 convolutions on the levels asked for.

    Args:
        in_channels: channels of ``C2 .. C5``.
        out_channels: channels of every level.
        strides: the levels to build, of 4, 8, 16 and 32. Levels that nobody reads have no convolution, and
            maps finer than the finest one are not read at all.

    Example:
        >>> import torch
        >>> maps = [torch.rand(1, c, 64 // s, 96 // s) for c, s in zip((8, 16, 24, 32), (4, 8, 16, 32))]
        >>> [tuple(level.shape) for level in FPN((8, 16, 24, 32), 12, strides=(8, 16))(maps)]
        [(1, 12, 8, 12), (1, 12, 4, 6)]
    """

    def __init__(
        self,
        in_channels: Sequence[int] = (96, 192, 384, 768),
        out_channels: int = 256,
        *,
        strides: Sequence[int] = STRIDES,
    ) -> None:
        super().__init__()
        if not strides or set(strides) - set(STRIDES):
            raise ValueError(f"strides must be some of {STRIDES}, got {tuple(strides)}")
        self.strides = tuple(sorted(strides))
        self._finest = STRIDES.index(self.strides[0])
        self.laterals = nn.ModuleList(nn.Conv2d(c, out_channels, 1) for c in in_channels[self._finest :])
        self.outputs = nn.ModuleDict(
            {str(s): nn.Conv2d(out_channels, out_channels, 3, padding=1) for s in self.strides}
        )

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """The pyramid's levels.

        Args:
            features: ``C2 .. C5``, each ``(b, in_channels[i], h_i, w_i)``.

        Returns:
            One map ``(b, out_channels, h_i, w_i)`` for each of ``strides``, the finest first.
        """
        merged: list[Tensor] = []
        for lateral, feature in zip(reversed(self.laterals), reversed(features[self._finest :]), strict=True):
            level = lateral(feature)
            if merged:
                size = level.shape[-2:]
                level = level + F.interpolate(merged[-1], size=size, mode="bilinear", align_corners=False)
            merged.append(level)
        by_stride = dict(zip(STRIDES[self._finest :], reversed(merged), strict=True))
        return [self.outputs[str(s)](by_stride[s]) for s in self.strides]
