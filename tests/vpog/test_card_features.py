from __future__ import annotations

import logging
from dataclasses import replace

import pytest
import torch
from torch import nn

from sightline.geometry.symmetry import SymmetryGroup
from sightline.nn.checkpoint import save_model
from sightline.objects.card_files import load_card, save_card
from sightline.objects.onboard import onboard_mesh
from sightline.vpog.card_features import card_features
from sightline.vpog.inference import MatchSettings, VPOGMatcher
from sightline.vpog.model import VPOGModel
from tests.printed_box import box_pose, picture_of, printed_box


def small_model(**changed) -> VPOGModel:
    torch.manual_seed(0)
    options = {"image_size": 64, "depth": 1, "num_heads": 2, "flow_hidden_dim": 32, "flow_layers": 1}
    return VPOGModel({"name": "tiny", "dim": 32, "depth": 1, "num_heads": 2}, **(options | changed))


@pytest.fixture(scope="module")
def card():
    none = SymmetryGroup.none()
    return onboard_mesh(printed_box(), name="box", num_views=42, template_size=96, symmetries=none)


@pytest.fixture(scope="module")
def model() -> VPOGModel:
    return small_model().eval()


def test_a_card_keeps_its_features_and_says_when_they_are_computed(card, model, tmp_path, caplog):
    save_card(card, tmp_path / "box")
    saved = load_card(tmp_path / "box")
    with caplog.at_level(logging.INFO, logger="sightline.vpog"):
        first = VPOGMatcher(model).known(saved)
    assert "box: computing the features of 42 templates" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.INFO, logger="sightline.vpog"):
        again = VPOGMatcher(model).known(load_card(tmp_path / "box"))
    assert caplog.text == ""
    for name in ("coarse", "fine", "depth", "K", "cam_from_obj", "card_from_framed"):
        assert torch.equal(getattr(first, name), getattr(again, name))
    assert torch.equal(first.cache.keys, again.cache.keys)
    with torch.no_grad():
        other = small_model()
        other.coarse_head.template_projection[0].bias.add_(1)
    matcher = VPOGMatcher(other)
    with caplog.at_level(logging.INFO, logger="sightline.vpog"):
        matcher.known(saved)
    assert "computing" in caplog.text
    assert len(list((tmp_path / "box" / "features").glob("vpog-*"))) == 2


def test_features_are_those_of_the_model_but_for_half_precision(card, model):
    known = card_features(model, card, "none", torch.device("cpu"))
    assert known.coarse.dtype == known.cache.keys.dtype == torch.float16
    assert len(known) == 42
    norms = known.fine.float().norm(dim=-1)
    assert torch.allclose(norms, torch.ones_like(norms), atol=2e-3)


def test_a_grown_card_costs_its_newest_template_alone(card, model):
    smaller = replace(card, templates=card.templates[:-1])
    matcher, encoded = VPOGMatcher(model), []
    matcher.known(smaller)
    handle = model.encoder.register_forward_hook(lambda _, args, __: encoded.append(len(args[0])))
    grown = smaller.with_templates(card.templates[-1])
    matcher.extend(grown)
    handle.remove()
    assert encoded == [1]
    found, whole = matcher.known(grown), VPOGMatcher(model).known(card)
    for name in ("keys", "values", "tokens"):
        ours, wanted = getattr(found.cache, name).float(), getattr(whole.cache, name).float()
        assert torch.allclose(ours, wanted, atol=5e-3)
    assert torch.allclose(found.coarse.float(), whole.coarse.float(), atol=2e-3)
    assert torch.equal(found.depth, whole.depth)


def test_chunks_change_nothing_and_global_is_deterministic(card, model):
    picture, box = picture_of(printed_box(), box_pose()), torch.tensor([80.0, 50.0, 250.0, 200.0])
    options = {"mode": "global", "conf_threshold": 0.0, "flow_threshold": 0.0, "num_angles": 2}
    whole, parts = (
        VPOGMatcher(model, MatchSettings(**options, chunk_size=size)).search(picture, card, box=box)
        for size in (42, 10)
    )
    assert [len(group) for group in whole.groups] == [len(group) for group in parts.groups]
    for ours, wanted in zip(parts.groups, whole.groups, strict=True):
        assert torch.allclose(ours.points_3d, wanted.points_3d, atol=1e-4)
        assert torch.equal(ours.template, wanted.template)


def test_an_untrained_model_gives_a_reason_or_groups_but_never_an_error(card, model):
    picture = picture_of(printed_box(), box_pose())
    found = VPOGMatcher(model, MatchSettings(conf_threshold=0.9)).search(picture, card)
    assert found.groups or found.reason


def test_checkpoints_open_again_and_others_are_refused_by_name(card, model, tmp_path):
    path = tmp_path / "m.safetensors"
    save_model(path, model, model.config, {"turn": 0.55})
    matcher = VPOGMatcher.from_checkpoint(path)
    assert (matcher.num_angles, matcher.turn, matcher.name) == (8, 0.55, "m")
    assert matcher.fingerprint == VPOGMatcher(model).fingerprint
    other = tmp_path / "linear.safetensors"
    save_model(other, nn.Linear(2, 1), {})
    with pytest.raises(
        ValueError, match=r"linear.safetensors: expected weights of a VPOGModel, got a Linear"
    ):
        VPOGMatcher.from_checkpoint(other)
    foreign = tmp_path / "foreign.safetensors"
    save_model(foreign, model, model.config | {"encoder": {"name": "clip"}})
    with pytest.raises(ValueError, match=r"foreign.safetensors: encoder: expected tiny.*got 'clip'"):
        VPOGMatcher.from_checkpoint(foreign)
    with pytest.raises(FileNotFoundError):
        VPOGMatcher.from_checkpoint(tmp_path / "none.safetensors")
    with pytest.raises(ValueError, match="asymmetric"):
        VPOGMatcher(small_model(mode="joint"))


@pytest.mark.parametrize("wrong", [{"mode": "best"}, {"num_turns": 0}, {"places": 0}])
def test_settings_are_checked(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        MatchSettings(**wrong)
