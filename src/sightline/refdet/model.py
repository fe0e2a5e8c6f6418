"""The detector by the names of its parts: built, filled with published weights, counted and described.

The network is in ``detector``; its parts are in the files of their names and gathered here.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from sightline.nn.backbones import ConvNeXtBackbone
from sightline.nn.convnext_weights import load_convnext_weights
from sightline.nn.fpn import FPN
from sightline.refdet.correlation import DepthwiseCorrelation
from sightline.refdet.detector import ConvNeXtRefDet, RefDetOutput, SearchFeatures
from sightline.refdet.fusion import FusionType, TemplateFusion
from sightline.refdet.head import DetectionHead

__all__ = [
    "FPN",
    "ConvNeXtRefDet",
    "ConvNeXtTiny",
    "DepthwiseCorrelation",
    "DetectionHead",
    "RefDetOutput",
    "SearchFeatures",
    "TemplateFusion",
    "build_convnext_refdet",
    "count_parameters",
    "describe",
    "load_pretrained_convnext",
]

_log = logging.getLogger(__name__)


class ConvNeXtTiny(ConvNeXtBackbone):
    """ConvNeXt-Tiny: ``(b, 3, h, w)`` to four maps of 96, 192, 384 and 768 channels; 28 M parameters.

    Args:
        drop_path_rate: share of dropped residual branches at the last block.

    Example:
        >>> ConvNeXtTiny().channels
        (96, 192, 384, 768)
    """

    def __init__(self, drop_path_rate: float = 0.0) -> None:
        super().__init__("tiny", drop_path_rate=drop_path_rate)


def build_convnext_refdet(
    fpn_channels: int = 256,
    corr_channels: int = 64,
    det_channels: int = 256,
    template_fusion: FusionType | str = "attention",
    pretrained_backbone: bool | str | Path = False,
    **options: Any,  # noqa: ANN401
) -> ConvNeXtRefDet:
    """A reference detector.

    Args:
        fpn_channels: channels of the pyramid.
        corr_channels: channels of the depthwise correlation.
        det_channels: channels of the head.
        template_fusion: ``attention`` or ``average``.
        pretrained_backbone: load ImageNet weights: from the hub, or from the folder or name given.
        **options: further arguments of :class:`ConvNeXtRefDet`.

    Returns:
        The model.

    Example:
        >>> model = build_convnext_refdet(fpn_channels=128, corr_channels=32, det_channels=128)
        >>> count_parameters(model) < 31_000_000
        True
    """
    model = ConvNeXtRefDet(fpn_channels, corr_channels, det_channels, template_fusion, **options)
    if pretrained_backbone:
        load_pretrained_convnext(model, None if pretrained_backbone is True else pretrained_backbone)
    return model


def load_pretrained_convnext(
    model: ConvNeXtRefDet, name_or_folder: str | Path | Mapping[str, Tensor] | None = None
) -> ConvNeXtRefDet:
    """Fill a detector's backbone with published weights, every tensor of it, and log what was matched.

    Args:
        model: with a ConvNeXt backbone.
        name_or_folder: a name on the Hugging Face hub, a folder, or a state dict of ``transformers``,
            Facebook's, timm's or torchvision's names; ``facebook/convnext-<variant>-224`` if not given.

    Returns:
        The same model.

    Raises:
        ValueError: if the backbone is no ConvNeXt, or if any key does not fit; all of them are listed.

    Example:
        >>> load_pretrained_convnext(ConvNeXtRefDet(8, 4, 8, backbone="nano"))
        Traceback (most recent call last):
        ...
        ValueError: there are no published weights for the backbone nano; take tiny, small or base
    """
    backbone = model.backbone
    if not isinstance(backbone, ConvNeXtBackbone):
        name = model.config["backbone"]
        raise ValueError(f"there are no published weights for the backbone {name}; take tiny, small or base")
    source = f"facebook/convnext-{backbone.variant}-224" if name_or_folder is None else name_or_folder
    report = load_convnext_weights(backbone, source)
    _log.info("pretrained ConvNeXt: %s", report.summary())
    return model


def count_parameters(model: nn.Module, *, trainable_only: bool = False) -> int:
    """How many numbers a module learns.

    Args:
        model: the module.
        trainable_only: leave out those that are frozen.

    Returns:
        The count.

    Example:
        >>> count_parameters(nn.Linear(3, 2))
        8
    """
    return sum(p.numel() for p in model.parameters() if p.requires_grad or not trainable_only)


def describe(model: ConvNeXtRefDet) -> str:
    """The parts of a detector with their parameters, one a line.

    Args:
        model: the detector.

    Returns:
        The text.

    Example:
        >>> print(describe(ConvNeXtRefDet(16, 8, 16, backbone="nano")).splitlines()[-1].split()[0])
        total
    """
    rows = [(name, type(part).__name__, count_parameters(part)) for name, part in model.named_children()]
    rows.append(("total", f"stride {', '.join(map(str, model.strides))}", count_parameters(model)))
    return "\n".join(f"{name:10} {kind:18} {count / 1e6:8.3f} M" for name, kind, count in rows)


if __name__ == "__main__":
    sys.stdout.write(describe(build_convnext_refdet()) + "\n")
