"""Depth networks of each family with random weights, small and quick, saved as folders."""

import json
from pathlib import Path

import torch

NARROW = {"neck_hidden_sizes": [8, 8, 8, 8], "fusion_hidden_size": 8}
STAGES = {"out_features": ["stage1", "stage2", "stage3", "stage4"], "reshape_hidden_states": False}
LAYERS = {"hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2}
IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
HALF = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
STEPS = {
    "do_resize": True,
    "do_rescale": True,
    "do_normalize": True,
    "rescale_factor": 1 / 255,
    "resample": 3,
}


def save_network(folder: Path, network, **processor) -> Path:
    from transformers.utils import logging

    logging.disable_progress_bar()
    with torch.no_grad():  # random weights of the usual size give a map that is all but constant
        for weight in network.parameters():
            weight.copy_(torch.randn(weight.shape) * 0.2)
    network.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps({**STEPS, **processor}))
    return folder


def save_depth_anything(folder: Path, **kind) -> Path:
    """As published it sees 56x84 of 60x91 pixels: no side shorter than 56, multiples of 14."""
    from transformers import DepthAnythingConfig, DepthAnythingForDepthEstimation, Dinov2Config

    backbone = Dinov2Config(image_size=56, patch_size=14, **LAYERS, **STAGES)
    sizes = {"reassemble_hidden_size": 16, "head_hidden_size": 4, **NARROW}
    config = DepthAnythingConfig(backbone_config=backbone, **sizes, **kind)
    resize = {"size": {"height": 56, "width": 56}, "keep_aspect_ratio": True, "ensure_multiple_of": 14}
    kind_of_processor = {"image_processor_type": "DPTImageProcessor"}
    return save_network(
        folder, DepthAnythingForDepthEstimation(config), **kind_of_processor, **resize, **IMAGENET
    )


def save_dpt(folder: Path) -> Path:
    from transformers import DPTConfig, DPTForDepthEstimation

    config = DPTConfig(
        image_size=32,
        patch_size=8,
        intermediate_size=32,
        backbone_out_indices=[0, 1, 2, 3],
        **LAYERS,
        **NARROW,
    )
    resize = {"size": {"height": 32, "width": 32}, "keep_aspect_ratio": False, "ensure_multiple_of": 1}
    kind_of_processor = {"image_processor_type": "DPTImageProcessor"}
    return save_network(folder, DPTForDepthEstimation(config), **kind_of_processor, **resize, **HALF)


def save_zoe(folder: Path) -> Path:
    from transformers import BeitConfig, ZoeDepthConfig, ZoeDepthForDepthEstimation

    sizes = {"image_size": 64, "patch_size": 16, "intermediate_size": 32}
    config = ZoeDepthConfig(
        backbone_config=BeitConfig(use_relative_position_bias=True, **sizes, **LAYERS, **STAGES),
        bottleneck_features=8,
        num_relative_features=4,
        num_attractors=[2, 2, 2, 1],
        bin_embedding_dim=8,
        bin_configurations=[{"n_bins": 8, "min_depth": 0.001, "max_depth": 10.0}],
        **NARROW,
    )
    resize = {"size": {"height": 64, "width": 96}, "keep_aspect_ratio": True, "ensure_multiple_of": 32}
    rest = {"do_pad": True, "image_processor_type": "ZoeDepthImageProcessor", **resize, **HALF}
    return save_network(folder, ZoeDepthForDepthEstimation(config), **{**rest, "resample": 2})


def save_glpn(folder: Path) -> Path:
    """A family whose configuration does not say what it gives."""
    from transformers import GLPNConfig, GLPNForDepthEstimation

    config = GLPNConfig(
        hidden_sizes=[8, 8, 8, 8],
        depths=[1, 1, 1, 1],
        num_attention_heads=[1, 1, 1, 1],
        decoder_hidden_size=8,
    )
    resize = {"size": {"height": 64, "width": 64}, "image_processor_type": "DPTImageProcessor"}
    return save_network(folder, GLPNForDepthEstimation(config), **resize, **IMAGENET)
