"""The own ViT and CroCo's files: numbers that CroCo printed, every key accounted for, foreign files named."""

from __future__ import annotations

import argparse
import logging

import numpy as np
import pytest
import torch

from sightline.nn.croco_weights import load_croco_encoder
from sightline.nn.vit import Block, ViT, grid_phases, grid_positions
from tests.real_data import golden_path
from tests.tolerances import tolerance

KWARGS = {
    "enc_embed_dim": 32,
    "enc_depth": 2,
    "enc_num_heads": 2,
    "dec_embed_dim": 16,
    "patch_size": 8,
    "pos_embed": "RoPE100",
}


def croco_file(path, *, kwargs=KWARGS, change=lambda model: None):
    """A file of CroCo's form with random weights, its encoder's and some of its decoder's."""
    torch.manual_seed(0)
    model = {
        key: torch.randn_like(value) * 0.2 for key, value in ViT(32, 2, 2, patch_size=8).state_dict().items()
    }
    model |= {"mask_token": torch.zeros(1, 1, 16), "decoder_embed.bias": torch.zeros(16)}
    model |= {f"dec_blocks.0.{name}": torch.zeros(16) for name in ("norm_y.bias", "cross_attn.projq.bias")}
    change(model)
    torch.save({"croco_kwargs": kwargs, "model": model}, path)
    return path


@pytest.mark.real
def test_tokens_are_those_that_croco_printed():
    printed = np.load(golden_path("rope2d_and_croco.npz"))
    vit, report = load_croco_encoder(golden_path("croco_random_tiny.pth"))
    with torch.no_grad():
        tokens = vit(torch.from_numpy(printed["image"]))
    expected = torch.from_numpy(printed["encoder_tokens"])
    torch.testing.assert_close(tokens, expected, **tolerance(torch.float32))
    positions = torch.from_numpy(printed["encoder_positions_yx"])
    assert torch.equal(grid_positions(4, 4), positions[0])
    assert report.encoder.complete
    assert len(report.encoder.matched) == 28
    assert len(report.unused) == 31
    assert report.unused[0] == "mask_token"


def test_keys_of_the_base_model_are_those_of_the_published_layout():
    """The list is that of CroCo v2's encoder, dim 768, depth 12."""
    with torch.device("meta"):
        shapes = {key: tuple(value.shape) for key, value in ViT().state_dict().items()}
    expected = {
        "patch_embed.proj.weight": (768, 3, 16, 16),
        "patch_embed.proj.bias": (768,),
        "enc_norm.weight": (768,),
        "enc_norm.bias": (768,),
    }
    for i in range(12):
        for name, shape in {
            "norm1": (768,),
            "attn.qkv": (2304, 768),
            "attn.proj": (768, 768),
            "norm2": (768,),
            "mlp.fc1": (3072, 768),
            "mlp.fc2": (768, 3072),
        }.items():
            expected[f"enc_blocks.{i}.{name}.weight"] = shape
            expected[f"enc_blocks.{i}.{name}.bias"] = shape[:1]
    assert shapes == expected


def test_file_of_a_user_loads_and_says_that_it_is_not_for_commerce(tmp_path, caplog):
    path = croco_file(tmp_path / "croco.pth")
    with caplog.at_level(logging.WARNING):
        vit, report = load_croco_encoder(path)
    weights = torch.load(path, weights_only=True)["model"]
    assert all(torch.equal(value, weights[key]) for key, value in vit.state_dict().items())
    assert vit.config["depth"] == 2
    assert report.unused == tuple(weights)[-4:]
    assert "not for commercial use" in caplog.text
    assert str(path) in caplog.text


def without(*keys):
    return lambda model: [model.pop(key) for key in keys]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            without("enc_norm.bias", "enc_blocks.1.mlp.fc2.bias"),
            "2 missing: enc_blocks.1.mlp.fc2.bias, enc_norm",
        ),
        (
            lambda m: m.update({"enc_blocks.2.norm1.bias": torch.zeros(32)}),
            "1 unexpected: enc_blocks.2.norm1.bias",
        ),
        (lambda m: m.update({"enc_norm.bias": torch.zeros(3)}), r"enc_norm.bias \(\[3\] in the weights"),
        (
            lambda m: m.update({"dec_blocks2.0.norm1.bias": torch.zeros(3)}),
            "dec_blocks2.* of DUSt3R or MASt3R",
        ),
        (
            lambda m: m.update({"downstream_head1.x": torch.zeros(3)}),
            "downstream_head1.* of DUSt3R or MASt3R",
        ),
        (lambda m: (m.clear(), m.update({"blocks.0.norm1.bias": torch.zeros(3)})), "of DINO or timm"),
        (
            lambda m: (m.clear(), m.update({"encoder.layer.0.x": torch.zeros(3)})),
            "encoder.layer.0.x is of a Vision Transformer of transformers",
        ),
        (lambda m: (m.clear(), m.update({"conv1.weight": torch.zeros(3)})), "of a convolutional network"),
        (lambda m: (m.clear(), m.update({"aggregator.x": torch.zeros(3)})), "of VGGT"),
        (lambda m: (m.clear(), m.update({"w": torch.zeros(3)})), "no key is of its encoder .*: w"),
        (lambda m: m.update({"epoch": 3}), "the entries croco_kwargs and model"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path, change, message):
    path = croco_file(tmp_path / "strange.pth", change=change)
    with pytest.raises(ValueError, match=rf"strange.pth: .*{message}"):
        load_croco_encoder(path)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({}, "this is CroCo v1, with cosine positions"),
        (KWARGS | {"pos_embed": "learned"}, "pos_embed: expected RoPE100 or alike, got 'learned'"),
        (KWARGS | {"enc_num_heads": 3}, "multiple of 4 \\* num_heads"),
        (KWARGS | {"enc_depth": "two"}, "croco.pth"),
    ],
)
def test_other_constructions_are_refused(tmp_path, kwargs, message):
    with pytest.raises(ValueError, match=message):
        load_croco_encoder(croco_file(tmp_path / "croco.pth", kwargs=kwargs))


def test_files_that_could_run_code_are_not_opened(tmp_path):
    path = tmp_path / "dust3r.pth"
    torch.save({"args": argparse.Namespace(x=1), "model": {}}, path)
    with pytest.raises(ValueError, match=r"dust3r.pth: .* can run code \(files of DUSt3R"):
        load_croco_encoder(path)


def test_absent_and_damaged_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none.pth: no such file"):
        load_croco_encoder(tmp_path / "none.pth")
    whole = croco_file(tmp_path / "whole.pth").read_bytes()
    (tmp_path / "half.pth").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"half.pth: .*damaged or truncated"):
        load_croco_encoder(tmp_path / "half.pth")
    (tmp_path / "text.pth").write_text("<html>not found</html>")
    with pytest.raises(ValueError, match=r"text.pth: expected a CroCo v2 file"):
        load_croco_encoder(tmp_path / "text.pth")


def test_blocks_see_relative_places_alone():
    """Attention of a block does not change when the whole grid moves."""
    torch.manual_seed(0)
    block = Block(32, 2).double()
    x = torch.randn(2, 6, 32, dtype=torch.float64)
    phases = grid_phases(2, 3, 16, like=x)
    far = grid_phases(9, 3, 16, like=x).view(9, 3, -1)[5:7].flatten(0, 1)
    torch.testing.assert_close(block(x, phases), block(x, far), **tolerance(torch.float64))
    turned = grid_phases(3, 2, 16, like=x)
    assert (block(x, phases) - block(x, turned)).abs().max() > 1e-3


def test_pictures_need_not_be_square_and_do_not_meet():
    torch.manual_seed(0)
    vit = ViT(32, 1, 2, patch_size=8).eval()
    pictures = torch.randn(3, 3, 16, 40)
    tokens = vit(pictures)
    assert tokens.shape == (3, 10, 32)
    torch.testing.assert_close(vit(pictures[1:2]), tokens[1:2], **tolerance(torch.float32, "iterative"))
    with pytest.raises(ValueError, match="multiples of 8, got 16x41"):
        vit(torch.zeros(1, 3, 16, 41))


def test_every_parameter_of_the_vit_learns():
    torch.manual_seed(0)
    vit = ViT(32, 2, 2, patch_size=8)
    (vit(torch.randn(2, 3, 16, 24)) * torch.randn(2, 6, 32)).sum().backward()
    assert [name for name, p in vit.named_parameters() if p.grad is None or not p.grad.any()] == []
