"""Backbones that give features at strides 4, 8, 16 and 32: the ConvNeXt family, and a small one for CPUs.

All keep to one contract: ``(b, 3, h, w)`` normalised pictures whose sides are multiples of 32 come in, a list
of four maps ``C2 .. C5`` goes out, and ``channels`` and ``strides`` tell their form. Normalisation is by
position (layer norm over the channels), so that a picture's features do not depend on what else is in it or
in the batch. Constructors take values and make random weights; files are read by ``nn.convnext_weights``.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

BackboneName = Literal["tiny", "small", "base", "nano"]
ConvNeXtVariant = Literal["tiny", "small", "base"]

STRIDES = (4, 8, 16, 32)
_CONVNEXT = {
    "tiny": ((3, 3, 9, 3), (96, 192, 384, 768)),
    "small": ((3, 3, 27, 3), (96, 192, 384, 768)),
    "base": ((3, 3, 27, 3), (128, 256, 512, 1024)),
}


class ChannelNorm(nn.LayerNorm):
    """Layer norm over the channels of a map, at every position by itself.

    Args:
        channels: how many.

    Example:
        >>> ChannelNorm(8)(torch.rand(2, 8, 3, 5)).mean(dim=1).abs().max() < 1e-5
        tensor(True)
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels, eps=1e-6)

    def forward(self, input: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """The map, each position with mean 0 and variance 1 before scale and shift."""
        return super().forward(input.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class ConvNeXtBackbone(nn.Module):
    """ConvNeXt (Liu et al., CVPR 2022) of ``transformers``, with random weights, as a pyramid of features.

    Args:
        variant: ``tiny`` (28 M parameters), ``small`` (50 M) or ``base`` (88 M).
        depths: blocks of each stage, in place of the variant's.
        hidden_sizes: channels of each stage, in place of the variant's.
        drop_path_rate: share of dropped residual branches at the last block, rising linearly from 0.
        norm_strides: which outputs get a layer norm, by their stride. Classification weights have none for
            the inner stages.

    Example:
        >>> backbone = ConvNeXtBackbone(depths=(1, 1, 1, 1), hidden_sizes=(8, 16, 24, 32))
        >>> [tuple(c.shape) for c in backbone(torch.rand(1, 3, 64, 96))]
        [(1, 8, 16, 24), (1, 16, 8, 12), (1, 24, 4, 6), (1, 32, 2, 3)]
    """

    strides = STRIDES

    def __init__(
        self,
        variant: ConvNeXtVariant | str = "tiny",
        *,
        depths: Sequence[int] | None = None,
        hidden_sizes: Sequence[int] | None = None,
        drop_path_rate: float = 0.0,
        norm_strides: Sequence[int] = STRIDES,
    ) -> None:
        super().__init__()
        from transformers import ConvNextConfig
        from transformers.models.convnext.modeling_convnext import ConvNextEmbeddings, ConvNextEncoder

        if variant not in _CONVNEXT:
            raise ValueError(f"variant must be one of {', '.join(_CONVNEXT)}, got {variant!r}")
        default_depths, default_sizes = _CONVNEXT[variant]
        self.variant = variant
        self.channels: tuple[int, ...] = tuple(hidden_sizes or default_sizes)
        config = ConvNextConfig(
            depths=list(depths or default_depths),
            hidden_sizes=list(self.channels),
            drop_path_rate=drop_path_rate,
        )
        self.embeddings = ConvNextEmbeddings(config)
        # the stages alone: the encoder's own forward records outputs by hooks, which cannot be traced
        self.stages = ConvNextEncoder(config).stages
        self.norms = _output_norms(self.channels, norm_strides)

    def forward(self, x: Float[Tensor, "b 3 h w"]) -> list[Tensor]:
        """The maps ``C2 .. C5`` of normalised pictures.

        Args:
            x: ``(b, 3, h, w)`` RGB with ImageNet's mean taken away and divided by its deviation.

        Returns:
            Four maps ``(b, channels[i], h / strides[i], w / strides[i])``.
        """
        x = self.embeddings(x)
        outputs = []
        for stage, norm in zip(self.stages, self.norms, strict=True):
            x = stage(x)
            outputs.append(norm(x))
        return outputs


class _NanoBlock(nn.Module):
    """Depthwise 3x3, layer norm, two pointwise layers with a hard swish between, residual."""

    def __init__(self, channels: int, expansion: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)
        self.norm = nn.LayerNorm(channels, eps=1e-6)
        self.expand = nn.Linear(channels, expansion * channels)
        self.reduce = nn.Linear(expansion * channels, channels)
        self.scale = nn.Parameter(torch.full((channels,), 0.1))

    def forward(self, x: Tensor) -> Tensor:
        inner = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        inner = self.reduce(F.hardswish(self.expand(inner))) * self.scale
        return x + inner.permute(0, 3, 1, 2)


class NanoBackbone(nn.Module):
    """A ConvNeXt-like backbone for CPUs: 1.1 M parameters, some 5 GFLOP for a picture of 576x1024.

    The first two steps are overlapping 3x3 convolutions instead of one 4x4 patch, which small objects need.

    Args:
        widths: channels of the four stages.
        depths: blocks of each stage.
        expansion: widening inside a block.
        norm_strides: which outputs get a layer norm, by their stride.

    Example:
        >>> [tuple(c.shape[1:]) for c in NanoBackbone()(torch.rand(1, 3, 64, 96))]
        [(32, 16, 24), (64, 8, 12), (128, 4, 6), (192, 2, 3)]
    """

    strides = STRIDES

    def __init__(
        self,
        *,
        widths: Sequence[int] = (32, 64, 128, 192),
        depths: Sequence[int] = (2, 2, 4, 2),
        expansion: int = 3,
        norm_strides: Sequence[int] = STRIDES,
    ) -> None:
        super().__init__()
        if not len(widths) == len(depths) == len(STRIDES):
            raise ValueError(f"widths and depths need 4 entries each, got {len(widths)} and {len(depths)}")
        self.channels: tuple[int, ...] = tuple(widths)
        stem = nn.Sequential(
            nn.Conv2d(3, widths[0] // 2, 3, stride=2, padding=1),
            nn.Hardswish(),
            nn.Conv2d(widths[0] // 2, widths[0], 3, stride=2, padding=1),
            ChannelNorm(widths[0]),
        )
        steps = [nn.Sequential(ChannelNorm(a), nn.Conv2d(a, b, 2, stride=2)) for a, b in pairwise(widths)]
        self.stages = nn.ModuleList(
            nn.Sequential(step, *(_NanoBlock(width, expansion) for _ in range(depth)))
            for step, width, depth in zip([stem, *steps], widths, depths, strict=True)
        )
        self.norms = _output_norms(widths, norm_strides)

    def forward(self, x: Float[Tensor, "b 3 h w"]) -> list[Tensor]:
        """The maps ``C2 .. C5`` of normalised pictures; see :meth:`ConvNeXtBackbone.forward`."""
        outputs = []
        for stage, norm in zip(self.stages, self.norms, strict=True):
            x = stage(x)
            outputs.append(norm(x))
        return outputs


def _output_norms(channels: Sequence[int], norm_strides: Sequence[int]) -> nn.ModuleList:
    return nn.ModuleList(
        ChannelNorm(width) if stride in norm_strides else nn.Identity()
        for width, stride in zip(channels, STRIDES, strict=True)
    )


def build_backbone(
    name: BackboneName | str = "tiny", *, drop_path_rate: float = 0.0, norm_strides: Sequence[int] = STRIDES
) -> ConvNeXtBackbone | NanoBackbone:
    """A backbone by its name, with random weights.

    Args:
        name: ``tiny``, ``small`` or ``base`` of ConvNeXt, or ``nano``.
        drop_path_rate: see :class:`ConvNeXtBackbone`; ``nano`` has none.
        norm_strides: which outputs get a layer norm, by their stride.

    Returns:
        The module.

    Raises:
        ValueError: for another name.

    Example:
        >>> sum(p.numel() for p in build_backbone("nano").parameters()) < 1_200_000
        True
    """
    if name not in get_args(BackboneName):
        raise ValueError(f"backbone must be one of {', '.join(get_args(BackboneName))}, got {name!r}")
    if name == "nano":
        return NanoBackbone(norm_strides=norm_strides)
    return ConvNeXtBackbone(name, drop_path_rate=drop_path_rate, norm_strides=norm_strides)
