"""Sampling by gathers and by grids: the same, and right by hand."""

from __future__ import annotations

import copy

import pytest
import torch
from transformers.models.rt_detr_v2.modeling_rt_detr_v2 import multi_scale_deformable_attention_v2

from sightline.rtdetr_pose.deformable_sampling import replace_attention, sample_levels
from sightline.rtdetr_pose.model import RTDETRPose

SHAPES = [(6, 9), (3, 5), (2, 2)]
TOKENS = sum(h * w for h, w in SHAPES)


def draw(batch: int = 2, queries: int = 7, heads: int = 2, points: int = 4):
    torch.manual_seed(0)
    locations = torch.rand(batch, queries, heads, len(SHAPES) * points, 2) * 1.6 - 0.3
    weights = torch.rand(batch, queries, heads, len(SHAPES) * points).softmax(-1)
    return torch.randn(batch, TOKENS, heads, 8), locations, weights


def test_gathers_are_grid_sampling():
    value, locations, weights = draw()
    grids = multi_scale_deformable_attention_v2(value, SHAPES, locations, weights, [4, 4, 4])
    torch.testing.assert_close(sample_levels(value, SHAPES, locations, weights), grids, atol=1e-5, rtol=0)


def test_gradients_agree():
    value, locations, weights = draw()
    found = []
    for sample in (
        lambda v, x, w: sample_levels(v, SHAPES, x, w),
        lambda v, x, w: multi_scale_deformable_attention_v2(v, SHAPES, x, w, [4, 4, 4]),
    ):
        leaves = [each.clone().requires_grad_() for each in (value, locations, weights)]
        found.append(torch.autograd.grad(sample(*leaves).square().sum(), leaves))
    for one, two in zip(*found, strict=True):
        torch.testing.assert_close(one, two, atol=2e-4, rtol=1e-4)


def test_a_constant_map_gives_the_constant():
    _, locations, weights = draw()
    value = torch.full((2, TOKENS, 2, 8), 3.0)
    inside = locations.clamp(0.3, 0.7)
    torch.testing.assert_close(sample_levels(value, SHAPES, inside, weights), torch.full((2, 7, 16), 3.0))


def test_pixel_centres_give_pixels_and_outside_is_zero():
    value = torch.arange(12.0).view(1, 12, 1, 1)
    places = torch.tensor([[2.5 / 4, 1.5 / 3], [-0.2, 0.5], [0.5, 1.3]]).view(1, 3, 1, 1, 2)
    found = sample_levels(value, [(3, 4)], places, torch.ones(1, 3, 1, 1))
    assert found.flatten().tolist() == [6.0, 0.0, 0.0]


def test_points_that_levels_do_not_share():
    with pytest.raises(ValueError, match="as many points"):
        sample_levels(*draw(points=4)[:1], [(6, 9), (3, 5)], *draw(points=1)[1:])


@pytest.mark.parametrize("sampling", ["gather", "grid_sample"])
def test_a_model_with_replaced_attention(sampling):
    small = {"backbone_config": {"hidden_sizes": [16, 16, 24, 32], "embedding_size": 16}}
    torch.manual_seed(0)
    model = RTDETRPose(3, 32, 8, backbone="tiny", detector=small).eval()
    other = copy.deepcopy(model)
    replace_attention(other.detector, sampling)
    assert other.state_dict().keys() == model.state_dict().keys()
    picture = torch.rand(2, 3, 64, 96)
    with torch.no_grad():
        for name in ("logits", "bbox", "log_z", "rot6d"):
            torch.testing.assert_close(other(picture)[name], model(picture)[name], atol=1e-5, rtol=1e-5)


def test_other_ways_of_sampling():
    model = RTDETRPose(3, 64, 8, backbone="tiny")
    with pytest.raises(ValueError, match="expected one of grid_sample, gather"):
        replace_attention(model.detector, "nearest")
    discrete = RTDETRPose(3, 64, 8, backbone="tiny", detector={"decoder_method": "discrete"})
    with pytest.raises(ValueError, match="expected default, got discrete"):
        replace_attention(discrete.detector, "gather")


def test_fused_convolutions_of_the_encoder():
    """A 3x3 and a 1x1 convolution with their norms, added, are one 3x3 convolution (RepVGG)."""
    torch.manual_seed(0)
    block = RTDETRPose(3, 64, 8, backbone="tiny").detector.encoder.fpn_blocks[0].bottlenecks[0].train()
    channels = block.conv1.conv.in_channels
    with torch.no_grad():
        block(torch.randn(4, channels, 9, 9))
        block.eval()
        kernels, biases = [], []
        for branch in (block.conv1, block.conv2):
            gain = branch.norm.weight / (branch.norm.running_var + branch.norm.eps).sqrt()
            kernel = branch.conv.weight * gain[:, None, None, None]
            kernels.append(torch.nn.functional.pad(kernel, [1 - kernel.shape[-1] // 2] * 4))
            biases.append(branch.norm.bias - branch.norm.running_mean * gain)
        x = torch.randn(2, channels, 9, 9)
        fused = block.activation(torch.nn.functional.conv2d(x, sum(kernels), sum(biases), padding=1))
        torch.testing.assert_close(fused, block(x), atol=1e-4, rtol=0)
