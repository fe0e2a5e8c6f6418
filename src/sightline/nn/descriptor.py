"""A dense descriptor of objects: a unit vector at every position, alike wherever the same object is seen.

A backbone with a pyramid and a projection, for ``training.descriptor`` to pre-train on generated objects:
what learned rooms start from.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from sightline.nn.backbones import build_backbone
from sightline.nn.fpn import FPN
from sightline.nn.pictures import IMAGENET_MEAN, IMAGENET_STD


class DescriptorNet(nn.Module):
    """Descriptors at one or several strides.

    Args:
        backbone: ``nano``, or ``tiny``, ``small``, ``base`` of ConvNeXt.
        fpn_channels: channels of the pyramid.
        descriptor_channels: length of a descriptor.
        strides: of the levels, in pixels.
        late_strides: of those whose cells are compared part by part.

    Example:
        >>> net = DescriptorNet(fpn_channels=16, descriptor_channels=8, strides=(8, 16))
        >>> [tuple(level.shape) for level in net(torch.rand(2, 3, 64, 64))]
        [(2, 8, 8, 8), (2, 8, 4, 4)]
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        *,
        backbone: str = "nano",
        fpn_channels: int = 64,
        descriptor_channels: int = 64,
        strides: Sequence[int] = (8, 16, 32),
        late_strides: Sequence[int] = (8, 16),
    ) -> None:
        super().__init__()
        if not set(late_strides) or set(late_strides) - set(strides):
            raise ValueError(f"late_strides: expected some of {tuple(strides)}, got {tuple(late_strides)}")
        self.config: dict[str, Any] = {
            "backbone": backbone,
            "fpn_channels": fpn_channels,
            "descriptor_channels": descriptor_channels,
            "strides": list(strides),
            "late_strides": list(late_strides),
        }
        self.late_strides = tuple(late_strides)
        self.backbone = build_backbone(backbone)
        self.fpn = FPN(self.backbone.channels, fpn_channels, strides=strides)
        self.projections = nn.ModuleDict(
            {str(s): nn.Conv2d(fpn_channels, descriptor_channels, 1, bias=False) for s in self.fpn.strides}
        )
        self.log_sharpness = nn.Parameter(torch.tensor(2.5))  # of cosines that are compared by a softmax
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(3, 1, 1), persistent=False)

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> list[Float[Tensor, "b d _ _"]]:
        """Unit descriptors of every level, the finest first.

        Args:
            images: ``(b, 3, h, w)`` RGB in [0, 1], sides multiples of 32.
        """
        levels = self.fpn(self.backbone((images - self.mean) / self.std))
        return [
            F.normalize(self.projections[str(s)](level), dim=1)
            for s, level in zip(self.fpn.strides, levels, strict=True)
        ]
