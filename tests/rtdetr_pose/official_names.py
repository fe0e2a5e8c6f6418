"""A detector's weights under the names that the authors of RT-DETR give them.

The other direction than ``detection_names``, by plain replacement, so that neither is tested by itself.
"""

from __future__ import annotations

import torch

_PLAIN = [
    ("backbone.model.embedder.embedder.0.", "backbone.conv1.conv1_1."),
    ("backbone.model.embedder.embedder.1.", "backbone.conv1.conv1_2."),
    ("backbone.model.embedder.embedder.2.", "backbone.conv1.conv1_3."),
    ("backbone.model.encoder.stages.", "backbone.res_layers."),
    (".layers.0.layer.", ".blocks.0.layer."),
    (".layers.1.layer.", ".blocks.1.layer."),
    (".layers.0.shortcut.1.", ".blocks.0.short.conv."),
    (".layers.0.shortcut.", ".blocks.0.short."),
    (".layer.0.", ".branch2a."),
    (".layer.1.", ".branch2b."),
    (".layer.2.", ".branch2c."),
    ("convolution.", "conv."),
    ("normalization.", "norm."),
]


def official_state(state: dict[str, torch.Tensor], version: int) -> dict[str, torch.Tensor]:
    """What ``["ema"]["module"]`` of an official checkpoint of v1 or v2 holds."""
    official: dict[str, torch.Tensor] = {}
    for name, tensor in state.items():
        if ".self_attn." in name and "_proj" in name and "o_proj" not in name:
            continue
        if name.endswith("n_points_scale") and version == 1:
            continue
        official[_name(name, version)] = tensor
    for name in state:
        if name.endswith("self_attn.q_proj.weight"):
            stem = name.removesuffix("q_proj.weight")
            for kind in ("weight", "bias"):
                joined = torch.cat([state[f"{stem}{letter}_proj.{kind}"] for letter in "qkv"])
                official[_attention(stem) + f"in_proj_{kind}"] = joined
    official["decoder.anchors"] = torch.zeros(1, 8, 4)
    official["decoder.valid_mask"] = torch.ones(1, 8, 1, dtype=torch.bool)
    official["encoder.pos_embed2"] = torch.zeros(1, 4, 8)
    return official


def _attention(stem: str) -> str:
    return stem.replace("encoder.aifi", "encoder.encoder").replace("decoder.layers", "decoder.decoder.layers")


def _name(name: str, version: int) -> str:
    conv, norm, proj = ("conv", "norm", "proj") if version == 2 else ("0", "1", "0")
    if name.startswith("backbone."):
        for ours, theirs in _PLAIN:
            name = name.replace(ours, theirs)
        return name
    if name.startswith(("encoder_input_proj.", "decoder_input_proj.")):
        room, level, part, end = name.replace("_input_proj", "").split(".")
        return f"{room}.input_proj.{level}.{(conv, norm)[int(part)]}.{end}"
    if name.startswith("enc_output."):
        _, part, end = name.split(".")
        return f"decoder.enc_output.{(proj, norm)[int(part)]}.{end}"
    if name.startswith(("enc_", "denoising_")):
        return f"decoder.{name}"
    name = name.replace("class_embed", "dec_score_head").replace("bbox_embed", "dec_bbox_head")
    name = name.replace("mlp.fc", "linear").replace("o_proj", "out_proj")
    name = name.replace("self_attn_layer_norm", "norm1").replace("encoder_attn_layer_norm", "norm2")
    last = "norm2" if name.startswith("encoder.") else "norm3"
    name = name.replace("final_layer_norm", last).replace("encoder_attn", "cross_attn")
    return _attention(name.replace("n_points_scale", "num_points_scale"))
