"""The whole matcher: what goes in and out, what a card keeps, and what must not matter."""

from __future__ import annotations

import pytest
import torch

from sightline.geometry.viewpoints import view_poses
from sightline.nn.checkpoint import load_weights, read_config, save_model
from sightline.vpog.correspondence import CorrespondenceBuilder
from sightline.vpog.model import VPOGModel

ENCODER = {"name": "tiny", "dim": 32, "depth": 1, "num_heads": 2}
SMALL = {"image_size": 64, "depth": 2, "num_heads": 2, "flow_hidden_dim": 16, "flow_layers": 1}


def build(**options: object) -> VPOGModel:
    torch.manual_seed(0)
    model = VPOGModel(ENCODER, **{**SMALL, **options}).eval()
    for parameter in model.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    return model


@pytest.fixture(scope="module")
def model() -> VPOGModel:
    return build()


@pytest.fixture(scope="module")
def pictures() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    query = torch.rand(2, 3, 64, 64, generator=generator)
    templates = torch.rand(2, 3, 3, 64, 64, generator=generator)
    return query, templates, view_poses(42, 1.0)[:3].float().expand(2, 3, 4, 4)


@torch.no_grad()
def test_shapes_and_flow_of_all_pairs(model, pictures):
    found = model(*pictures, all_pairs=True)
    assert found["classification_logits"].shape == found["coarse_logits"].shape == (2, 3, 16, 17)
    assert found["flow"].shape == (2, 3, 16, 16, 16, 16, 2)
    assert found["flow_confidence"].shape == (2, 3, 16, 16, 16, 16)
    assert found["features"]["templates"].shape == (2, 3, 16, 32)
    matches = CorrespondenceBuilder(16, conf_threshold=0.0).match(found["classification_logits"], (4, 4))
    flow = model.predict_flow(found["features"], matches)
    chosen = (matches.batch, matches.template, matches.query_patch, matches.template_patch)
    assert len(matches.batch) > 10
    assert torch.allclose(flow.flow, found["flow"][chosen], atol=1e-5)
    assert torch.allclose(flow.confidence, found["flow_confidence"][chosen], atol=1e-5)


@pytest.mark.parametrize("mode", ["asymmetric", "joint"])
@torch.no_grad()
def test_templates_have_no_order_and_padding_is_nothing(mode, pictures):
    model = build(mode=mode)
    query, templates, poses = pictures
    direction = -poses[:, 0, 2, :3]
    whole = model(query, templates, poses, direction)["classification_logits"]
    order = torch.tensor([2, 0, 1])
    mixed = model(query, templates[:, order], poses[:, order], direction)["classification_logits"]
    assert torch.allclose(mixed, whole[:, order], atol=1e-4)
    valid = torch.tensor([True, True, False]).expand(2, 3)
    padded = model(query, templates, poses, direction, template_valid=valid)["classification_logits"]
    fewer = model(query, templates[:, :2], poses[:, :2], direction)["classification_logits"]
    assert torch.allclose(padded[:, :2], fewer, atol=1e-4)
    assert not torch.allclose(whole[:, :2], fewer, atol=1e-3)


@torch.no_grad()
def test_what_a_card_keeps_is_what_forward_computes(model, pictures):
    query, templates, poses = pictures
    kept = model.onboard(templates[0], poses[0], batch_size=2)
    whole = model(query[:1], templates[:1], poses[:1])
    encoded = model.encode_query(query[:1])
    coarse = model.coarse_head.compare(
        model.coarse_head.project_query(encoded.tokens[:, :16]), kept.coarse[None]
    )
    assert torch.allclose(coarse, whole["coarse_logits"], atol=1e-4)
    after, _ = model.attention.forward_cached(
        encoded.tokens,
        kept.cache,
        encoded.positions,
        poses[:1, 0, :3, :3],
        query_rope_mask=encoded.rope_mask,
        query_grid=(4, 4),
    )
    fine = model.classification_head.compare(
        model.classification_head.project_query(after[:, :16]), kept.fine[None]
    )
    assert torch.allclose(fine, whole["classification_logits"], atol=1e-4)


@torch.no_grad()
def test_the_reference_is_the_nearest_template(model, pictures):
    query, templates, poses = pictures
    first = model(query, templates, poses)["classification_logits"]
    same = model(query, templates, poses, -poses[:, 0, 2, :3])["classification_logits"]
    other = model(query, templates, poses, -poses[:, 1, 2, :3])["classification_logits"]
    assert torch.allclose(first, same)
    assert not torch.allclose(first, other, atol=1e-4)


def test_every_parameter_learns(pictures):
    model = build().train()
    found = model(*pictures, all_pairs=True)
    terms = (found["classification_logits"], found["coarse_logits"], found["flow"], found["flow_confidence"])
    sum(term.square().mean() for term in terms).backward()
    silent = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    # the query has no added tokens here, and the softmax is blind to what is added to all keys alike
    assert all("query_added" in name or name.endswith("qkv.bias") for name in silent), silent


def test_weights_say_what_they_are(model, tmp_path):
    path = tmp_path / "small.safetensors"
    save_model(path, model, model.config)
    again = VPOGModel(**read_config(path).config)
    assert load_weights(again, path).complete


def test_bad_input_is_named(model, pictures):
    _, templates, poses = pictures
    with pytest.raises(ValueError, match="crops of 64 px"):
        model(torch.rand(2, 3, 48, 48), templates[..., :48, :48], poses)
    with pytest.raises(ValueError, match="num_template_added"):
        VPOGModel(ENCODER, **SMALL, num_template_added=0)
    with pytest.raises(ValueError, match="multiple of the patch size"):
        VPOGModel(ENCODER, **{**SMALL, "image_size": 70})
    with pytest.raises(ValueError, match="joint"):
        build(mode="joint").onboard(templates[0], poses[0])
