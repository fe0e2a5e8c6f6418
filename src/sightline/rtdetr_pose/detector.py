"""The detector under the pose heads: transformers' RT-DETRv2, built from a preset without downloading.

Nothing of the network is copied: backbone, hybrid encoder, query selection and deformable decoder are those
of ``transformers``. Only its initialisation is done again, as the authors of RT-DETR train it from nothing
(Zhao et al., CVPR 2024): ``transformers`` starts batch norms with gains of about 0.01, which suits loaded
weights.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

if TYPE_CHECKING:
    from transformers import RTDetrV2Config, RTDetrV2Model

STRIDES = (8, 16, 32)
CLASS_PRIOR = 0.01
"""Probability of each class at each place before anything is learnt."""


@dataclass(frozen=True)
class DetectorPreset:
    """What tells one size of RT-DETR from another.

    Args:
        widths: channels of the backbone's four stages.
        depths: blocks of each stage.
        bottleneck: whether blocks are bottlenecks.
        stem: channels after the stem.
        hidden_dim: channels of the encoder and the decoder.
        decoder_layers: number of decoder layers.
        expansion: of the channels within the fusion blocks.
        frozen_norms: whether the backbone's batch norms are constants, as where it is always pretrained.
        encoder_dim: channels of the hybrid encoder if not ``hidden_dim``.
    """

    widths: tuple[int, int, int, int]
    depths: tuple[int, int, int, int]
    bottleneck: bool
    decoder_layers: int
    expansion: float
    stem: int = 64
    hidden_dim: int = 256
    frozen_norms: bool = False
    encoder_dim: int | None = None


_WIDE = (256, 512, 1024, 2048)
PRESETS: dict[str, DetectorPreset] = {
    "tiny": DetectorPreset((32, 64, 96, 160), (1, 1, 1, 1), False, 3, 0.5, stem=32, hidden_dim=64),
    "r18": DetectorPreset((64, 128, 256, 512), (2, 2, 2, 2), False, 3, 0.5),
    "r34": DetectorPreset((64, 128, 256, 512), (3, 4, 6, 3), False, 4, 0.5),
    "r50m": DetectorPreset(_WIDE, (3, 4, 6, 3), True, 6, 0.5, frozen_norms=True),
    "r50": DetectorPreset(_WIDE, (3, 4, 6, 3), True, 6, 1.0, frozen_norms=True),
    "r101": DetectorPreset(_WIDE, (3, 4, 23, 3), True, 6, 1.0, frozen_norms=True, encoder_dim=384),
}
"""By the names of their backbones; ``tiny`` is for pictures of 192 to 256 px on a CPU."""


def detector_config(
    backbone: str = "r18",
    *,
    num_classes: int = 80,
    hidden_dim: int | None = None,
    num_queries: int = 300,
    overrides: Mapping[str, Any] | None = None,
) -> RTDetrV2Config:
    """The configuration of a detector for ``transformers``.

    Args:
        backbone: a name of :data:`PRESETS`.
        num_classes: classes, without a background.
        hidden_dim: channels of encoder and decoder; None takes the preset's.
        num_queries: boxes that the decoder refines.
        overrides: further fields of ``RTDetrV2Config``; under ``backbone_config`` those of
            ``RTDetrResNetConfig``.

    Raises:
        ValueError: an unknown preset or field.

    Example:
        >>> config = detector_config("tiny", num_classes=5)
        >>> config.d_model, config.num_labels, config.backbone_config.hidden_sizes
        (64, 5, [32, 64, 96, 160])
    """
    from transformers import RTDetrResNetConfig, RTDetrV2Config

    if backbone not in PRESETS:
        raise ValueError(f"backbone: expected one of {', '.join(PRESETS)}, got {backbone!r}")
    preset = PRESETS[backbone]
    width = preset.hidden_dim if hidden_dim is None else hidden_dim
    encoder = (preset.encoder_dim if width == preset.hidden_dim else None) or width
    changed = dict(overrides or {})
    body: dict[str, Any] = {
        "embedding_size": preset.stem,
        "hidden_sizes": list(preset.widths),
        "depths": list(preset.depths),
        "layer_type": "bottleneck" if preset.bottleneck else "basic",
        "out_indices": [2, 3, 4],
        **_known_fields(RTDetrResNetConfig, changed.pop("backbone_config", {}), extra=("out_indices",)),
    }
    values: dict[str, Any] = {
        "num_labels": num_classes,
        "num_queries": num_queries,
        "d_model": width,
        "encoder_hidden_dim": encoder,
        "encoder_in_channels": list(body["hidden_sizes"])[1:],
        "decoder_in_channels": [encoder] * len(STRIDES),
        "encoder_ffn_dim": 2048 if encoder > 256 else 4 * encoder,
        "decoder_ffn_dim": 4 * width,
        "encoder_attention_heads": _num_heads(encoder),
        "decoder_attention_heads": _num_heads(width),
        "decoder_layers": preset.decoder_layers,
        "hidden_expansion": preset.expansion,
        "freeze_backbone_batch_norms": preset.frozen_norms,
        "initializer_bias_prior_prob": CLASS_PRIOR,
        **_known_fields(RTDetrV2Config, changed, extra=("num_labels",)),
    }
    config = RTDetrV2Config(backbone_config=RTDetrResNetConfig(**body), **values)
    if config.num_feature_levels != len(STRIDES) or config.learn_initial_query or config.anchor_image_size:
        raise ValueError(f"detector: expected {len(STRIDES)} levels, no learned queries nor fixed anchors")
    return config


def _known_fields(config: Any, values: Mapping[str, Any], *, extra: tuple[str, ...]) -> dict[str, Any]:  # noqa: ANN401
    known = {field.name for field in fields(config)} | set(extra)
    unknown = sorted(set(values) - known)
    if unknown:
        raise ValueError(f"detector: {config.__name__} has no field {', '.join(unknown)}")
    return dict(values)


def _num_heads(channels: int) -> int:
    """At most eight heads, whose channels are a power of two as deformable sampling likes them."""
    for heads in range(8, 0, -1):
        share = channels // heads
        if channels % heads == 0 and share & (share - 1) == 0:
            return heads
    return 1


def build_detector(config: RTDetrV2Config) -> RTDetrV2Model:
    """Make a detector with random weights: the model with its heads of classes and boxes in its decoder.

    ``transformers`` holds the heads twice, above the model and in its decoder; here they are in the decoder
    alone, so that each weight has one name.

    Args:
        config: of :func:`detector_config`, or of a checkpoint.

    Example:
        >>> detector = build_detector(detector_config("tiny", num_classes=5))
        >>> detector.decoder.class_embed[0].out_features
        5
    """
    from transformers import RTDetrV2ForObjectDetection

    whole = RTDetrV2ForObjectDetection(copy.deepcopy(config))
    detector = whole.model
    initialise_detector(detector)
    return detector


@torch.no_grad()
def initialise_detector(detector: Any) -> None:  # noqa: ANN401  # its parts have no types
    """Draw the weights of a detector as its authors do before training from nothing.

    Args:
        detector: of :func:`build_detector`; its backbone, which ``transformers`` draws well, stays.

    Example:
        >>> detector = build_detector(detector_config("tiny", num_classes=5))
        >>> initialise_detector(detector)
        >>> round(detector.enc_score_head.bias[0].sigmoid().item(), 6)
        0.01
    """
    backbone = set(detector.backbone.modules())
    for module in detector.modules():
        if module in backbone:
            continue
        if isinstance(module, nn.Linear | nn.Conv2d | nn.BatchNorm2d | nn.LayerNorm | nn.Embedding):
            module.reset_parameters()
        if type(module).__name__ == "RTDetrV2SelfAttention":
            _xavier(module.q_proj, module.k_proj, module.v_proj)
            nn.init.zeros_(module.o_proj.bias)
    for module in detector.modules():
        if type(module).__name__ == "RTDetrV2MultiscaleDeformableAttention":
            _initialise_sampling(module)
    _xavier(detector.enc_output[0], *detector.decoder.query_pos_head.layers, bias=False)
    for head in (detector.enc_score_head, *detector.decoder.class_embed):
        nn.init.constant_(head.bias, -math.log((1 - CLASS_PRIOR) / CLASS_PRIOR))
    for head in (detector.enc_bbox_head, *detector.decoder.bbox_embed):
        nn.init.zeros_(head.layers[-1].weight)
        nn.init.zeros_(head.layers[-1].bias)


def _xavier(*layers: nn.Linear, bias: bool = True) -> None:
    for layer in layers:
        nn.init.xavier_uniform_(layer.weight)
        if bias:
            nn.init.zeros_(layer.bias)


def _initialise_sampling(attention: Any) -> None:  # noqa: ANN401  # not a public class
    """Each head looks its own way, each point a step further, all with the same weight."""
    heads, levels, points = attention.n_heads, attention.n_levels, attention.n_points
    angles = torch.arange(heads) * (2 * math.pi / heads)
    ways = torch.stack([angles.cos(), angles.sin()], -1)
    ways = ways / ways.abs().amax(-1, keepdim=True)
    steps = torch.arange(1, points + 1)
    offsets = ways[:, None, None] * steps[:, None]
    nn.init.zeros_(attention.sampling_offsets.weight)
    attention.sampling_offsets.bias.copy_(offsets.expand(-1, levels, -1, -1).flatten())
    nn.init.zeros_(attention.attention_weights.weight)
    nn.init.zeros_(attention.attention_weights.bias)
    _xavier(attention.value_proj, attention.output_proj)
