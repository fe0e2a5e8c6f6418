"""A detector with pose as its first public constructor makes it, as a yardstick of cost.

Three stages at strides 4, 8 and 16, a pyramid down and up with single 3x3 convolutions, one transformer layer
over the cells of all levels, and a plain DETR decoder of three layers: 300 learned queries that attend to
all cells. Linear heads. The caller switches attention's fast path off: it would hold all pairs of cells.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CHANNELS, HEADS, FEED_FORWARD = 256, 8, 1024
STAGES = ((64, 1), (128, 2), (256, 2))
NUM_QUERIES = 300
OUTPUTS = {"logits": 80, "bbox": 4, "log_z": 1, "rot6d": 6, "offsets": 2}


def convolution(in_channels: int, out_channels: int, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    """With batch norm and SiLU."""
    conv = nn.Conv2d(in_channels, out_channels, kernel, stride, kernel // 2, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(out_channels), nn.SiLU())


class Stage(nn.Module):
    """A step down, then cross stage partial blocks: half of the channels pass by."""

    def __init__(self, in_channels: int, channels: int, blocks: int) -> None:
        super().__init__()
        half = channels // 2
        self.down = convolution(in_channels, channels, stride=2)
        self.beside, self.through = convolution(channels, half, 1), convolution(channels, half, 1)
        self.blocks = nn.ModuleList(
            nn.Sequential(convolution(half, half), convolution(half, half)) for _ in range(blocks)
        )
        self.join = convolution(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """The map at half the size."""
        x = self.down(x)
        y = self.through(x)
        for block in self.blocks:
            y = y + block(y)
        return self.join(torch.cat([self.beside(x), y], 1))


class SeedForm(nn.Module):
    """Pictures to the outputs of every query."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = convolution(3, 32, stride=2)
        widths = [32, *(width for width, _ in STAGES)]
        self.stages = nn.ModuleList(
            Stage(widths[i], width, blocks) for i, (width, blocks) in enumerate(STAGES)
        )
        self.lateral = nn.ModuleList(nn.Conv2d(width, CHANNELS, 1) for width in widths[1:])
        self.smooth = nn.ModuleList(convolution(CHANNELS, CHANNELS) for _ in range(4))
        self.down = nn.ModuleList(convolution(CHANNELS, CHANNELS, stride=2) for _ in range(2))
        options = {"dim_feedforward": FEED_FORWARD, "batch_first": True, "dropout": 0.0}
        self.encoder = nn.TransformerEncoderLayer(CHANNELS, HEADS, **options)
        layer = nn.TransformerDecoderLayer(CHANNELS, HEADS, **options)
        self.decoder = nn.TransformerDecoder(layer, 3)
        self.queries = nn.Embedding(NUM_QUERIES, CHANNELS)
        self.heads = nn.ModuleDict({name: nn.Linear(CHANNELS, size) for name, size in OUTPUTS.items()})

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """The outputs by name."""
        x, maps = self.stem(x), []
        for stage, lateral in zip(self.stages, self.lateral, strict=True):
            x = stage(x)
            maps.append(lateral(x))
        for i, smooth in ((1, self.smooth[0]), (0, self.smooth[1])):
            maps[i] = smooth(maps[i] + F.interpolate(maps[i + 1], size=maps[i].shape[-2:]))
        for i in (1, 2):
            maps[i] = self.smooth[i + 1](maps[i] + self.down[i - 1](maps[i - 1]))
        memory = self.encoder(torch.cat([level.flatten(2).transpose(1, 2) for level in maps], 1))
        found = self.decoder(self.queries.weight[None].expand(len(x), -1, -1), memory)
        return {name: head(found) for name, head in self.heads.items()}
