"""The reference detector in its first form, as a yardstick of cost: every frame encodes its templates anew.

ConvNeXt-Tiny, a pyramid of four levels of which two are read, three templates that are encoded with each
frame and fused at every position, a correlation with kernels of 7x7 at strides 4 and 8, and 256 channels of
full 3x3 convolutions over stride 4: two that fuse, four of the head, and one before each output.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sightline.nn.backbones import build_backbone

CHANNELS, CORRELATION = 256, 64
NUM_TEMPLATES = 3
KERNEL = 7


def convolution(channels: int, out_channels: int) -> nn.Sequential:
    """A full 3x3 convolution with group normalisation."""
    return nn.Sequential(
        nn.Conv2d(channels, out_channels, 3, padding=1, bias=False),
        nn.GroupNorm(32, out_channels),
        nn.ReLU(inplace=True),
    )


class Pyramid(nn.Module):
    """Four levels, each with its own 3x3 convolution, needed or not."""

    def __init__(self, channels: tuple[int, ...]) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(nn.Conv2d(c, CHANNELS, 1) for c in channels)
        self.smooth = nn.ModuleList(nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1) for _ in channels)

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """The levels, the finest first."""
        levels = [lateral(each) for lateral, each in zip(self.lateral, maps, strict=True)]
        for i in range(len(levels) - 2, -1, -1):
            levels[i] = levels[i] + F.interpolate(levels[i + 1], size=levels[i].shape[-2:], mode="bilinear")
        return [smooth(level) for smooth, level in zip(self.smooth, levels, strict=True)]


class Fusion(nn.Module):
    """Weights of three templates at every position, from all of them one after the other."""

    def __init__(self) -> None:
        super().__init__()
        self.weights = nn.Sequential(
            nn.Conv2d(NUM_TEMPLATES * CHANNELS, CHANNELS, 1),
            nn.ReLU(inplace=True),
            nn.Conv2d(CHANNELS, NUM_TEMPLATES, 1),
        )

    def forward(self, maps: Tensor) -> Tensor:
        """``(b, 3, c, h, w)`` to ``(b, c, h, w)``."""
        weights = self.weights(maps.flatten(1, 2)).softmax(dim=1)
        return (weights[:, :, None] * maps).sum(1)


class Correlation(nn.Module):
    """A sum of the products with the template's mean and with its kernel, picture by picture."""

    def __init__(self) -> None:
        super().__init__()
        self.template, self.search = (
            nn.Sequential(
                nn.Conv2d(CHANNELS, CORRELATION, 1, bias=False), nn.GroupNorm(32, CORRELATION), nn.ReLU()
            )
            for _ in range(2)
        )
        self.evidence = nn.Sequential(convolution(CORRELATION, CORRELATION), nn.Conv2d(CORRELATION, 1, 1))

    def forward(self, template: Tensor, search: Tensor) -> Tensor:
        """``(b, 1, h, w)``."""
        own, seen = self.template(template), self.search(search)
        kernels = F.adaptive_avg_pool2d(own, KERNEL)
        local = torch.cat(
            [
                F.conv2d(one[None], kernel[:, None], padding=KERNEL // 2, groups=CORRELATION)
                for one, kernel in zip(seen, kernels, strict=True)
            ]
        )
        return self.evidence(local + seen * own.mean(dim=(-2, -1), keepdim=True))


class SeedFormRefDet(nn.Module):
    """Templates ``(b, 3, 3, h, w)`` and pictures in, logits and raw boxes at stride 4 out."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = build_backbone("tiny")
        self.pyramid = Pyramid(self.backbone.channels)
        self.fusions = nn.ModuleList(Fusion() for _ in range(2))
        self.correlations = nn.ModuleList(Correlation() for _ in range(2))
        self.fuse = nn.Sequential(convolution(CHANNELS + 2, CHANNELS), convolution(CHANNELS, CHANNELS))
        self.shared = nn.Sequential(*(convolution(CHANNELS, CHANNELS) for _ in range(4)))
        self.outputs = nn.ModuleList(
            nn.Sequential(nn.Conv2d(CHANNELS, 128, 3, padding=1), nn.ReLU(inplace=True), nn.Conv2d(128, n, 1))
            for n in (1, 4)
        )

    def forward(self, templates: Tensor, search: Tensor) -> tuple[Tensor, Tensor]:
        """``(b, 1, h / 4, w / 4)`` logits and ``(b, 4, h / 4, w / 4)`` raw boxes."""
        levels = self.pyramid(self.backbone(search))[:2]
        views = self.pyramid(self.backbone(templates.flatten(0, 1)))[:2]
        fused = [
            fusion(each.unflatten(0, templates.shape[:2]))
            for fusion, each in zip(self.fusions, views, strict=True)
        ]
        maps = [
            correlate(template, level)
            for correlate, template, level in zip(self.correlations, fused, levels, strict=True)
        ]
        coarse = F.interpolate(maps[1], size=maps[0].shape[-2:], mode="bilinear")
        x = self.shared(self.fuse(torch.cat([levels[0], maps[0], coarse], dim=1)))
        return self.outputs[0](x), self.outputs[1](x)
