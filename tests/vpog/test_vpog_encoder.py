"""Encoders of every kind keep to one form; files of weights that do not fit are named."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
import torch

import sightline
from sightline.nn.checkpoint import save_model, save_tensors
from sightline.nn.descriptor import DescriptorNet
from sightline.nn.pictures import IMAGENET_MEAN, IMAGENET_STD
from sightline.nn.vit import ViT
from sightline.vpog.encoder import CroCoEncoder, Encoder, TinyEncoder, begin_with_descriptor, build_encoder
from tests.tolerances import tolerance

SMALL = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
ARCHITECTURES = {
    "dinov2": {"patch_size": 14, "image_size": 56},
    "dinov2_with_registers": {"patch_size": 14, "image_size": 56, "num_register_tokens": 4},
    "vit": {"patch_size": 16, "image_size": 64},
    "dinov3_vit": {"patch_size": 16, "image_size": 64, "num_register_tokens": 4},
    "siglip_vision_model": {"patch_size": 16, "image_size": 64},
}
NAMES = ("tiny", "croco", *ARCHITECTURES)


def encoder_of(name):
    torch.manual_seed(0)
    if name in ARCHITECTURES:
        return build_encoder("hf", architecture={"model_type": name, **SMALL, **ARCHITECTURES[name]}).eval()
    options = {"croco": {"dim": 32, "depth": 1, "num_heads": 2}, "tiny": {"dim": 32, "depth": 1}}
    return build_encoder(name, **options[name]).eval()


def folder_of(tmp_path, name, mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7)):
    encoder_of(name).network.save_pretrained(tmp_path)
    processor = {"image_processor_type": "ViTImageProcessor", "image_mean": mean, "image_std": std}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(processor))
    return tmp_path


@pytest.mark.parametrize("name", NAMES)
def test_form(name):
    encoder = encoder_of(name)
    side = 5 * encoder.patch_size
    assert isinstance(encoder, Encoder)
    assert encoder.grid(side) == 5
    images = torch.rand(3, 3, side, side)
    with torch.no_grad():
        tokens, positions = encoder(images)
        alone, _ = encoder(images[1:2])
    assert tokens.shape == (3, 25, encoder.dim)
    assert positions.dtype == torch.int64
    assert positions[2, [0, 4, 5, 24]].tolist() == [[0, 0], [0, 4], [1, 0], [4, 4]]
    torch.testing.assert_close(alone, tokens[1:2], **tolerance(torch.float32, "iterative"))


@pytest.mark.parametrize("name", NAMES)
def test_tokens_follow_their_patches(name):
    """A change within one patch changes that patch's token most: no added token is taken for a patch."""
    encoder = encoder_of(name)
    p = encoder.patch_size
    images = 0.5 * torch.rand(1, 3, 5 * p, 5 * p)
    changed = images.clone()
    changed[:, :, 3 * p : 4 * p, p : 2 * p] += 0.5 * torch.rand(3, p, p)
    with torch.no_grad():
        difference = (encoder(changed)[0] - encoder(images)[0]).norm(dim=-1)[0]
    assert difference.argmax() == 3 * 5 + 1


@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_that_may_learn_does(name):
    """No parameter waits for a gradient that never comes, as DistributedDataParallel forbids."""
    encoder = encoder_of(name).train()
    side = 4 * encoder.patch_size
    tokens, _ = encoder(torch.rand(2, 3, side, side))
    (tokens * torch.randn_like(tokens)).sum().backward()
    idle = [n for n, p in encoder.named_parameters() if p.requires_grad and p.grad is None]
    assert idle == []


@pytest.mark.parametrize("name", NAMES)
def test_half_precision_under_autocast(name):
    encoder = encoder_of(name)
    side = 4 * encoder.patch_size
    images = torch.rand(2, 3, side, side)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        rough, _ = encoder(images)
    with torch.no_grad():
        fine, _ = encoder(images)
    cosines = torch.nn.functional.cosine_similarity(rough.float(), fine, dim=-1)
    assert cosines.min() > 0.99


@pytest.mark.parametrize("name", NAMES)
def test_config_builds_the_same_network(name):
    encoder = encoder_of(name)
    config = json.loads(json.dumps(encoder.config))
    other = build_encoder(**config)
    other.load_state_dict(encoder.state_dict())
    side = 4 * encoder.patch_size
    images = torch.rand(1, 3, side, side)
    with torch.no_grad():
        assert torch.equal(other.eval()(images)[0], encoder(images)[0])
    assert other.licence == encoder.licence


def test_normalisation_is_inside():
    torch.manual_seed(0)
    vit = ViT(32, 1, 2)
    images = torch.rand(2, 3, 32, 32)
    normal = (images - torch.tensor(IMAGENET_MEAN).view(3, 1, 1)) / torch.tensor(IMAGENET_STD).view(3, 1, 1)
    assert torch.equal(CroCoEncoder(vit)(images)[0], vit(normal))
    assert not any(key in ("mean", "std") for key in CroCoEncoder(vit).state_dict())


def test_picture_sides_that_are_no_multiples_are_refused_with_those_that_are():
    encoder = encoder_of("dinov2")
    with pytest.raises(ValueError, match="patch size 14, such as 126 or 140, got 128"):
        encoder(torch.rand(1, 3, 128, 128))
    assert encoder.grid(224) == 16


def test_licences():
    assert encoder_of("tiny").licence.commercial is True
    assert encoder_of("croco").licence == ("CC BY-NC-SA 4.0", False)
    assert encoder_of("dinov2").licence.commercial is None
    with torch.device("meta"):
        assert build_encoder("dinov2-small").licence == ("Apache-2.0", True)


def test_published_sizes():
    with torch.device("meta"):
        sizes = {
            name: sum(p.numel() for p in build_encoder(name).parameters())
            for name in ("croco-base", "croco-large", "dinov2-small", "dinov2-base-reg")
        }
    # a ViT-B has 12 blocks of 7.09 M, a ViT-L 24 of 12.6 M; DINOv2-S is published with 22.1 M, B with 86.6 M
    assert sizes["croco-base"] == pytest.approx(85.6e6, rel=0.01)
    assert sizes["croco-large"] == pytest.approx(303e6, rel=0.01)
    assert sizes["dinov2-small"] == pytest.approx(22.1e6, rel=0.01)
    assert sizes["dinov2-base-reg"] == pytest.approx(86.6e6, rel=0.01)


def test_tiny_is_tiny_and_sees_finer_than_its_patches():
    torch.manual_seed(0)
    encoder = TinyEncoder().eval()
    assert sum(p.numel() for p in encoder.parameters()) < 1_000_000
    assert encoder.grid(128) == 8
    with torch.no_grad():
        encoder.join.weight[:, 4 * 64 :] = 0  # stride 16 is not read: what is left comes from stride 8
        images = torch.rand(1, 3, 128, 128)
        changed = images.clone()
        changed[:, :, 64:68, 64:68] = 0
        assert (encoder(images)[0] - encoder(changed)[0]).abs().max() > 1e-3


def test_cells_of_stride_8_land_in_their_own_patch():
    encoder = TinyEncoder(depth=0).eval()
    with torch.no_grad():
        encoder.join.weight[:, 4 * 64 :] = 0
        images = torch.zeros(1, 3, 128, 128)
        changed = images.clone()
        changed[:, :, 40:56, 88:104] = torch.rand(3, 16, 16)  # inside rows 2-3, columns 5-6
        difference = (encoder(images)[0] - encoder(changed)[0]).norm(dim=-1).view(8, 8)
    rows, columns = (difference > 0.1 * difference.max()).nonzero().T
    assert {*rows.tolist()} <= {2, 3}
    assert {*columns.tolist()} <= {5, 6}


def test_tiny_starts_from_a_descriptor(tmp_path, caplog):
    torch.manual_seed(0)
    net = DescriptorNet(fpn_channels=16, descriptor_channels=8)
    path = tmp_path / "descriptor.safetensors"
    save_model(path, net, net.config)
    with caplog.at_level(logging.INFO):
        encoder = build_encoder("tiny", dim=32, weights=path)
    assert "matched" in caplog.text
    images = torch.rand(1, 3, 64, 64)
    ours = encoder.backbone((images - encoder.mean) / encoder.std)
    theirs = net.backbone((images - net.mean) / net.std)
    for a, b in zip(ours[1:], theirs[1:3], strict=True):  # stride 4 has no norm here
        assert torch.equal(a, b)
    report = begin_with_descriptor(encoder, path)
    assert {name.partition(".")[0] for name in report.missing} == {"join", "blocks", "norm"}
    assert "backbone.stages.3.0.1.weight" in report.unexpected
    assert set(report.matched) == {f"backbone.{name}" for name in encoder.backbone.state_dict()}


def test_tiny_starts_from_the_shipped_detector():
    path = Path(sightline.__file__).parent / "weights" / "refdet-tiny.safetensors"
    report = begin_with_descriptor(TinyEncoder(), path)
    assert all(name.startswith("backbone.") for name in report.matched)


def test_descriptors_that_do_not_fit_are_named_and_change_nothing(tmp_path):
    encoder = TinyEncoder(dim=32, depth=1)
    before = {key: value.clone() for key, value in encoder.state_dict().items()}
    weights = {f"backbone.{key}": torch.ones_like(v) for key, v in encoder.backbone.state_dict().items()}
    del weights["backbone.stages.1.1.expand.bias"]
    weights["backbone.stages.0.0.0.weight"] = torch.zeros(4, 3, 3, 3)
    save_tensors(tmp_path / "part.safetensors", weights, {})
    with pytest.raises(
        ValueError, match=r"part.safetensors: .*missing: stages.1.1.expand.bias; 1 mismatched: stages"
    ):
        begin_with_descriptor(encoder, tmp_path / "part.safetensors")
    assert all(torch.equal(value, before[key]) for key, value in encoder.state_dict().items())


def test_croco_file_of_another_size_is_refused(tmp_path):
    kwargs = {"enc_embed_dim": 32, "enc_depth": 1, "enc_num_heads": 2, "pos_embed": "RoPE100"}
    torch.save({"croco_kwargs": kwargs, "model": ViT(32, 1, 2).state_dict()}, tmp_path / "small.pth")
    assert build_encoder("croco", weights=tmp_path / "small.pth").dim == 32
    with pytest.raises(ValueError, match=r"small.pth: expected croco-base .* the file has dim 32, depth 1"):
        build_encoder("croco-base", weights=tmp_path / "small.pth")


@pytest.mark.parametrize("name", ["dinov2", "vit"])
def test_folders_of_transformers(tmp_path, name):
    folder = folder_of(tmp_path, name)
    encoder = build_encoder(f"hf:{folder}").eval()
    torch.testing.assert_close(encoder.mean.flatten(), torch.tensor([0.1, 0.2, 0.3]))
    torch.testing.assert_close(encoder.std.flatten(), torch.tensor([0.5, 0.6, 0.7]))
    same = encoder_of(name)
    side = 4 * same.patch_size
    normal = torch.randn(1, 3, side, side)
    with torch.no_grad():
        assert torch.equal(encoder.encode(normal), same.encode(normal))


def test_folders_that_are_incomplete_are_named(tmp_path):
    folder = folder_of(tmp_path, "vit")
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(ValueError, match=r"preprocessor_config.json with the image_mean"):
        build_encoder(f"hf:{folder}")
    (folder / "model.safetensors").unlink()
    with pytest.raises(ValueError, match=r"expected a folder with config.json and model.safetensors"):
        build_encoder(f"hf:{folder}")
    with pytest.raises(ValueError, match=r"expected dinov2-base, its config.json has"):
        build_encoder("dinov2-base", weights=folder_of(tmp_path / "other", "dinov2"))


def test_names_and_options_that_do_not_exist_are_refused():
    with pytest.raises(ValueError, match="expected tiny, croco, croco-base"):
        build_encoder("resnet")
    with pytest.raises(ValueError, match="dinov2-giant, or one of these with -reg, got 'dinov2-huge'"):
        build_encoder("dinov2-huge")
    with pytest.raises(ValueError, match="hf:<name> and no weights"):
        build_encoder("hf")
    with pytest.raises(ValueError, match="square patches, got convnext"):
        build_encoder(
            "hf", architecture={"model_type": "convnext", "hidden_sizes": [8] * 4, "depths": [1] * 4}
        )
    with pytest.raises(TypeError, match="widths"):
        build_encoder("tiny", widths=3)
