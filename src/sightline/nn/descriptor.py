"""A dense descriptor of objects: a unit vector at every position, alike wherever the same object is seen.

A backbone with a pyramid and a projection, for ``training.descriptor`` to pre-train on generated objects. It
is meant for learned rooms to start from; none does yet.
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
from sightline.nn.pooling import area_pool

_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class DescriptorNet(nn.Module):
    """Descriptors at one or several strides.

    Args:
        backbone: ``nano``, or ``tiny``, ``small``, ``base`` of ConvNeXt.
        fpn_channels: channels of the pyramid.
        descriptor_channels: length of a descriptor.
        strides: of the levels, in pixels.

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
    ) -> None:
        super().__init__()
        self.config: dict[str, Any] = {
            "backbone": backbone,
            "fpn_channels": fpn_channels,
            "descriptor_channels": descriptor_channels,
            "strides": list(strides),
        }
        self.backbone = build_backbone(backbone)
        self.fpn = FPN(self.backbone.channels, fpn_channels, strides=strides)
        self.projections = nn.ModuleDict(
            {str(s): nn.Conv2d(fpn_channels, descriptor_channels, 1, bias=False) for s in self.fpn.strides}
        )
        self.log_sharpness = nn.Parameter(torch.tensor(2.5))  # of cosines that are compared by a softmax
        self.register_buffer("mean", torch.tensor(_MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(_STD).view(3, 1, 1), persistent=False)

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


def pool_descriptor(
    dense: Float[Tensor, "b d h w"], masks: Float[Tensor, "b mask_h mask_w"]
) -> Float[Tensor, "b d"]:
    """The descriptor of a whole object: the unit mean of those under its mask.

    Args:
        dense: ``(b, d, h, w)`` unit descriptors.
        masks: ``(b, mask_h, mask_w)`` in [0, 1], of any size.

    Example:
        >>> dense = torch.tensor([[[[1.0, 0.0]], [[0.0, 1.0]]]])
        >>> pool_descriptor(dense, torch.tensor([[[1.0, 1.0, 0.0, 0.0]]])).tolist()
        [[1.0, 0.0]]
    """
    shares = area_pool(masks[:, None].to(dense), (dense.shape[-2], dense.shape[-1]))
    return F.normalize((dense * shares).sum((2, 3)), dim=1)
