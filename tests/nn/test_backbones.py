"""Backbones' form and gradients, and published weights under four schemes of names."""

from __future__ import annotations

import re

import pytest
import torch

from sightline.nn.backbones import ConvNeXtBackbone, NanoBackbone, build_backbone
from sightline.nn.convnext_weights import load_convnext_weights, rename_convnext_key
from tests.tolerances import tolerance

SMALL = {"depths": (2, 1, 3, 1), "hidden_sizes": (8, 16, 24, 32)}


@pytest.fixture
def reference():
    """A ConvNeXt of transformers with random weights, layer scales included."""
    from transformers import ConvNextConfig, ConvNextModel

    torch.manual_seed(0)
    config = ConvNextConfig(depths=[2, 1, 3, 1], hidden_sizes=[8, 16, 24, 32], num_labels=5)
    model = ConvNextModel(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape) * 0.2)
    return model


def facebook(key):
    key = key.removeprefix("encoder.")
    key = key.replace("embeddings.patch_embeddings", "downsample_layers.0.0")
    key = key.replace("embeddings.layernorm", "downsample_layers.0.1")
    key = re.sub(r"stages\.(\d)\.downsampling_layer\.(\d)", r"downsample_layers.\1.\2", key)
    key = re.sub(r"stages\.(\d)\.layers\.(\d+)\.", r"stages.\1.\2.", key)
    return key.replace("layer_scale_parameter", "gamma").replace(".layernorm", ".norm")


def timm(key):
    key = key.removeprefix("encoder.")
    key = key.replace("embeddings.patch_embeddings", "stem.0").replace("embeddings.layernorm", "stem.1")
    key = key.replace("downsampling_layer", "downsample").replace(".layers.", ".blocks.")
    for ours, theirs in {
        "layer_scale_parameter": "gamma",
        "dwconv": "conv_dw",
        ".layernorm": ".norm",
        "pwconv1": "mlp.fc1",
        "pwconv2": "mlp.fc2",
    }.items():
        key = key.replace(ours, theirs)
    return key


def torchvision(key):
    key = key.removeprefix("encoder.")
    key = key.replace("embeddings.patch_embeddings", "features.0.0").replace(
        "embeddings.layernorm", "features.0.1"
    )
    key = re.sub(r"stages\.(\d)\.downsampling_layer", lambda m: f"features.{2 * int(m[1])}", key)
    key = re.sub(r"stages\.(\d)\.layers", lambda m: f"features.{2 * int(m[1]) + 1}", key)
    for ours, theirs in {
        "layer_scale_parameter": "layer_scale",
        "dwconv": "block.0",
        "layernorm": "block.2",
        "pwconv1": "block.3",
        "pwconv2": "block.5",
    }.items():
        key = re.sub(rf"(features\.[1357]\.\d+\.){ours}", rf"\g<1>{theirs}", key)
    return key


@pytest.mark.parametrize(
    "backbone", [NanoBackbone(), ConvNeXtBackbone(**SMALL), NanoBackbone(norm_strides=())]
)
@pytest.mark.parametrize("size", [(64, 96), (96, 64)])
def test_maps_of_all_strides(backbone, size):
    maps = backbone(torch.rand(2, 3, *size))
    expected = [
        (2, c, size[0] // s, size[1] // s) for c, s in zip(backbone.channels, backbone.strides, strict=True)
    ]
    assert [tuple(m.shape) for m in maps] == expected


@pytest.mark.parametrize("backbone", [NanoBackbone(), ConvNeXtBackbone(**SMALL)])
def test_every_parameter_learns(backbone):
    sum((m * torch.randn_like(m)).sum() for m in backbone(torch.rand(1, 3, 64, 64))).backward()
    assert [n for n, p in backbone.named_parameters() if p.grad is None or not p.grad.any()] == []


@pytest.mark.parametrize("backbone", [NanoBackbone().eval(), ConvNeXtBackbone(**SMALL).eval()])
def test_a_picture_does_not_depend_on_its_batch(backbone):
    pictures = torch.rand(3, 3, 64, 64)
    with torch.no_grad():
        together, alone = backbone(pictures), backbone(pictures[1:2])
    for a, b in zip(together, alone, strict=True):
        torch.testing.assert_close(a[1:2], b, **tolerance(torch.float32, "iterative"))


def test_published_sizes():
    counts = {
        name: sum(p.numel() for p in build_backbone(name, norm_strides=()).parameters())
        for name in ("tiny", "nano")
    }
    # Liu et al., table 9: 28.6 M, of which the classifier has 769,000 and the last norm 1,536
    assert counts["tiny"] == 28_589_128 - 769_000 - 1_536
    assert counts["nano"] < 1_200_000


def test_other_names_are_refused():
    with pytest.raises(ValueError, match="tiny, small, base, nano"):
        build_backbone("huge")
    with pytest.raises(ValueError, match="tiny, small, base"):
        ConvNeXtBackbone("nano")
    with pytest.raises(ValueError, match="4 entries"):
        NanoBackbone(widths=(8, 8))


@pytest.mark.parametrize("scheme", [str, facebook, timm, torchvision])
def test_every_scheme_of_names_gives_the_same_features(reference, scheme):
    weights = {scheme(key): value for key, value in reference.state_dict().items()}
    if scheme is torchvision:  # keeps layer scales as (c, 1, 1)
        weights = {k: v.view(-1, 1, 1) if k.endswith("layer_scale") else v for k, v in weights.items()}
    if scheme is timm:  # some of its files keep pointwise layers as convolutions
        weights = {k: v[..., None, None] if "fc" in k and v.ndim == 2 else v for k, v in weights.items()}
    weights["head.fc.weight"] = torch.zeros(5, 32)
    backbone = ConvNeXtBackbone(**SMALL, norm_strides=()).eval()
    report = load_convnext_weights(backbone, weights)
    assert report.complete
    assert set(report.matched) == set(backbone.state_dict())
    assert "head.fc.weight" in report.unused
    pictures = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        last = reference(pictures).last_hidden_state
        torch.testing.assert_close(backbone(pictures)[-1], last, **tolerance(torch.float32))


def test_from_a_folder(reference, tmp_path):
    reference.save_pretrained(tmp_path)
    backbone = ConvNeXtBackbone(**SMALL).eval()
    report = load_convnext_weights(backbone, tmp_path)
    assert report.complete
    assert report.new == tuple(f"norms.{i}.{end}" for i in range(4) for end in ("weight", "bias"))
    own = backbone.state_dict()
    for key, value in reference.state_dict().items():
        name = rename_convnext_key(key)
        assert name is None or torch.equal(own[name], value)


def test_a_partial_match_is_refused_and_changes_nothing(reference):
    weights = dict(reference.state_dict())
    del weights["encoder.stages.2.layers.1.pwconv1.weight"]
    weights["encoder.stages.0.layers.0.dwconv.weight"] = torch.zeros(8, 1, 5, 5)
    weights["decoder.weight"] = torch.zeros(1)
    backbone = ConvNeXtBackbone(**SMALL)
    before = {key: value.clone() for key, value in backbone.state_dict().items()}
    with pytest.raises(
        ValueError, match=r"stages\.2\.layers\.1\.pwconv1\.weight.*decoder\.weight.*\(8, 1, 5, 5\)"
    ):
        load_convnext_weights(backbone, weights)
    assert all(torch.equal(before[key], value) for key, value in backbone.state_dict().items())
    report = load_convnext_weights(backbone, weights, strict=False)
    assert report.missing == ("stages.2.layers.1.pwconv1.weight",)
    assert report.unexpected == ("decoder.weight",)
    assert report.mismatched == ("stages.0.layers.0.dwconv.weight (8, 1, 5, 5) for (8, 1, 7, 7)",)
    assert len(report.matched) == len([k for k in before if not k.startswith("norms.")]) - 2


def test_of_another_size_is_refused(reference):
    with pytest.raises(ValueError, match="missing"):
        load_convnext_weights(ConvNeXtBackbone("tiny"), reference.state_dict())
