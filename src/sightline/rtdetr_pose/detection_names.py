"""The names of RT-DETR's weights in the four layouts in which they are published, as names of our detector.

``transformers`` puts ``model.`` before its names and may hold the heads twice; its files call attention and
feed-forward layers otherwise than its modules since version 5. The authors' own files (v1 and v2 of
github.com/lyuwenyu/RT-DETR) name everything differently and keep query, key and value in one matrix. v1 and
v2 compute the same with the same weights: v2's constant ``n_points_scale`` is what v1 divides by.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal, NamedTuple

from torch import Tensor

Layout = Literal["sightline", "transformers", "official"]

_TRANSFORMERS = [
    (r"model\.(.+)", r"\1"),
    (r"((?:class|bbox)_embed\..+)", r"decoder.\1"),
    (r"encoder\.encoder\.(.+)", r"encoder.aifi.\1"),
    (r"(.+)\.self_attn\.out_proj\.(.+)", r"\1.self_attn.o_proj.\2"),
    (r"((?:encoder\.aifi\.\d+|decoder)\.layers\.\d+)\.(fc[12]\..+)", r"\1.mlp.\2"),
]
_NORM_OR_CONV = {"conv": "0", "norm": "1", "proj": "0", "0": "0", "1": "1"}
_BRANCH = {"a": "0", "b": "1", "c": "2"}
_ENCODER_NORM = {"1": "self_attn_layer_norm", "2": "final_layer_norm"}
_DECODER_NORM = {"1": "self_attn_layer_norm", "2": "encoder_attn_layer_norm", "3": "final_layer_norm"}
_BACKBONE_PART = {"conv": "convolution", "norm": "normalization"}
_STAGE = "backbone.model.encoder.stages"
_OFFICIAL_UNUSED = re.compile(r"encoder\.pos_embed\d+|decoder\.(anchors|valid_mask)")


class Named(NamedTuple):
    """Tensors by the detector's names, each with the name that it had, and what nobody needs."""

    layout: Layout
    tensors: dict[str, tuple[str, Tensor]]
    ignored: tuple[str, ...]


def name_detection_weights(tensors: Mapping[str, Tensor]) -> Named:
    """Find the layout of a file of weights and give its tensors our detector's names.

    Args:
        tensors: by the file's names.

    Returns:
        Tensors by our names; names that no rule knows stay as they are. What is held twice is taken once.

    Raises:
        ValueError: two different tensors that become one.

    Example:
        >>> import torch
        >>> named = name_detection_weights({"decoder.dec_score_head.0.bias": torch.zeros(2)})
        >>> named.layout, list(named.tensors)
        ('official', ['decoder.class_embed.0.bias'])
    """
    layout = _layout(tensors)
    named: dict[str, tuple[str, Tensor]] = {}
    ignored: list[str] = []
    for old, tensor in tensors.items():
        if layout == "official" and _OFFICIAL_UNUSED.fullmatch(old):
            ignored.append(old)
            continue
        for new, part in _translate(layout, old, tensor):
            if new in named:
                if named[new][1].shape != part.shape or not bool((named[new][1] == part).all()):
                    raise ValueError(f"{old} and {named[new][0]} both become {new} and differ")
                ignored.append(old)
            else:
                named[new] = (old, part)
    return Named(layout, named, tuple(ignored))


def _layout(tensors: Mapping[str, Tensor]) -> Layout:
    if any(re.match(r"model\.|(class|bbox)_embed\.", name) for name in tensors):
        return "transformers"
    official = r"backbone\.(conv1|res_layers)\.|encoder\.input_proj\.|decoder\.(dec_|input_proj|decoder\.)"
    return "official" if any(re.match(official, name) for name in tensors) else "sightline"


def _translate(layout: Layout, name: str, tensor: Tensor) -> list[tuple[str, Tensor]]:
    if layout == "sightline":
        return [(name, tensor)]
    if layout == "transformers":
        for pattern, replacement in _TRANSFORMERS:
            name = re.sub(rf"^{pattern}$", replacement, name)
        return [(name, tensor)]
    joined = re.fullmatch(r"(.+\.self_attn)\.in_proj_(weight|bias)", name)
    if joined is None:
        return [(_official(name), tensor)]
    stem, kind = _official(joined[1] + ".q_proj.x").removesuffix(".q_proj.x"), joined[2]
    parts = zip("qkv", tensor.chunk(3), strict=True)
    return [(f"{stem}.{letter}_proj.{kind}", part) for letter, part in parts]


def _official(name: str) -> str:
    """Our name of one of the authors' names."""
    for translate in (_official_backbone, _official_encoder, _official_decoder):
        new = translate(name)
        if new is not None:
            return new
    return name


def _official_backbone(name: str) -> str | None:
    found = re.fullmatch(r"backbone\.conv1\.conv1_(\d)\.(conv|norm)\.(\w+)", name)
    if found:
        level, part, end = found.groups()
        return f"backbone.model.embedder.embedder.{int(level) - 1}.{_BACKBONE_PART[part]}.{end}"
    found = re.fullmatch(r"backbone\.res_layers\.(\d)\.blocks\.(\d+)\.(.+)\.(conv|norm)\.(\w+)", name)
    if not found:
        return None
    stage, block, where, part, end = found.groups()
    branch = re.fullmatch(r"branch2([abc])", where)
    if branch:
        where = f"layer.{_BRANCH[branch[1]]}"
    elif where in ("short", "short.conv"):
        where = "shortcut" if where == "short" else "shortcut.1"
    else:
        return None
    return f"{_STAGE}.{stage}.layers.{block}.{where}.{_BACKBONE_PART[part]}.{end}"


def _official_encoder(name: str) -> str | None:
    found = re.fullmatch(r"encoder\.input_proj\.(\d)\.(conv|norm|0|1)\.(\w+)", name)
    if found:
        return f"encoder_input_proj.{found[1]}.{_NORM_OR_CONV[found[2]]}.{found[3]}"
    found = re.fullmatch(r"encoder\.encoder\.(\d)\.layers\.(\d+)\.(.+)", name)
    if not found:
        return None
    return f"encoder.aifi.{found[1]}.layers.{found[2]}.{_layer_part(found[3], _ENCODER_NORM)}"


def _official_decoder(name: str) -> str | None:
    found = re.fullmatch(r"decoder\.decoder\.layers\.(\d+)\.(.+)", name)
    if found:
        part = found[2].replace("cross_attn.", "encoder_attn.").replace("num_points_scale", "n_points_scale")
        return f"decoder.layers.{found[1]}.{_layer_part(part, _DECODER_NORM)}"
    found = re.fullmatch(r"decoder\.dec_(score|bbox)_head\.(.+)", name)
    if found:
        return f"decoder.{'class' if found[1] == 'score' else 'bbox'}_embed.{found[2]}"
    found = re.fullmatch(r"decoder\.input_proj\.(\d)\.(conv|norm|0|1)\.(\w+)", name)
    if found:
        return f"decoder_input_proj.{found[1]}.{_NORM_OR_CONV[found[2]]}.{found[3]}"
    found = re.fullmatch(r"decoder\.enc_output\.(proj|norm|0|1)\.(\w+)", name)
    if found:
        return f"enc_output.{_NORM_OR_CONV[found[1]]}.{found[2]}"
    found = re.fullmatch(r"decoder\.((?:enc_(?:score|bbox)_head|denoising_class_embed)\..+)", name)
    return found[1] if found else None


def _layer_part(part: str, norms: Mapping[str, str]) -> str:
    """A part of a transformer layer: norms by their order, the feed-forward and the output of attention."""
    found = re.fullmatch(r"norm(\d)\.(\w+)", part)
    if found:
        return f"{norms[found[1]]}.{found[2]}"
    part = re.sub(r"^linear([12])\.", r"mlp.fc\1.", part)
    return re.sub(r"^self_attn\.out_proj\.", "self_attn.o_proj.", part)
