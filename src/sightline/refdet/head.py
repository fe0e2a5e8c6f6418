"""The anchor-free head: at every cell whether an object's centre is here, and its box."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sightline.nn.backbones import ChannelNorm

OBJECTNESS_BIAS = -4.6
"""``sigmoid(-4.6)`` is 0.01: at first hardly any cell claims an object (RetinaNet, FCOS)."""
_SIZE_BIAS = math.log(4.0)


class DetectionHead(nn.Module):
    """Convolutions over the evidence, then objectness and box side by side.

    Args:
        in_channels: channels of the evidence.
        det_channels: channels inside; those of the evidence if not given.
        num_convs: convolutions that both outputs share.
        dropout: share of channels that are dropped before the outputs in training.
        separable: a depthwise 5x5 and a pointwise convolution in place of a full 3x3: a larger field of view
            for a seventh of the work.
        objectness_bias: the first logit of every cell.

    Example:
        >>> objectness, boxes = DetectionHead(16)(torch.rand(2, 16, 5, 7))
        >>> objectness.shape, boxes.shape
        (torch.Size([2, 1, 5, 7]), torch.Size([2, 4, 5, 7]))
    """

    def __init__(
        self,
        in_channels: int = 256,
        det_channels: int | None = None,
        *,
        num_convs: int = 4,
        dropout: float = 0.0,
        separable: bool = True,
        objectness_bias: float = OBJECTNESS_BIAS,
    ) -> None:
        super().__init__()
        width = det_channels or in_channels
        layers = [_convolution(width if i else in_channels, width, separable) for i in range(num_convs)]
        self.shared = nn.Sequential(*layers, nn.Dropout2d(dropout))
        narrow = max((width if num_convs else in_channels) // 2, 4)
        self.objectness = _output(width if num_convs else in_channels, narrow, [objectness_bias])
        self.box = _output(width if num_convs else in_channels, narrow, [0.0, 0.0, _SIZE_BIAS, _SIZE_BIAS])

    def forward(self, x: Float[Tensor, "b c h w"]) -> tuple[Tensor, Tensor]:
        """Logits and raw boxes; see :func:`~sightline.refdet.decode.decode_boxes` for their meaning.

        Args:
            x: ``(b, in_channels, h, w)`` evidence.

        Returns:
            ``(b, 1, h, w)`` logits of objectness and ``(b, 4, h, w)`` raw boxes.
        """
        x = self.shared(x)
        return self.objectness(x), self.box(x)


def _convolution(channels: int, out_channels: int, separable: bool) -> nn.Sequential:
    if separable:
        layers = [
            nn.Conv2d(channels, channels, 5, padding=2, groups=channels),
            nn.Conv2d(channels, out_channels, 1),
        ]
    else:
        layers = [nn.Conv2d(channels, out_channels, 3, padding=1)]
    return nn.Sequential(*layers, ChannelNorm(out_channels), nn.Hardswish())


def _output(channels: int, hidden: int, biases: Sequence[float]) -> nn.Sequential:
    last = nn.Conv2d(hidden, len(biases), 1)
    nn.init.normal_(last.weight, std=0.01)
    last.bias = nn.Parameter(torch.tensor(biases))
    return nn.Sequential(nn.Conv2d(channels, hidden, 1), nn.Hardswish(), last)
