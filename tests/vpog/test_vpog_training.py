"""The matcher's task: losses that learn, labels that count, recipes that are checked."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from sightline.nn.checkpoint import load_weights, read_config
from sightline.synthetic.pose_crops import PoseCropSettings
from sightline.synthetic.pose_views import PoseViewSettings
from sightline.training import TrainSettings, fit
from sightline.vpog.model import VPOGModel
from sightline.vpog.recipe import read_vpog_recipe
from sightline.vpog.training import PoseData, VPOGLoss, VPOGTask

ENCODER = {"name": "tiny", "dim": 32, "depth": 1, "num_heads": 2}
SMALL = {"image_size": 64, "depth": 1, "num_heads": 2, "flow_hidden_dim": 32, "flow_layers": 1}
RECIPES = Path(__file__).parents[2] / "configs" / "vpog"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> PoseData:
    return PoseData(
        folder=tmp_path_factory.mktemp("views"),
        num_objects=2,
        num_backdrops=2,
        num_validation_objects=2,
        num_validation=4,
        epoch_length=16,
        num_positives=2,
        num_negatives=1,
        views=PoseViewSettings(num_templates=42, template_px=64, num_queries=4, query_px=64),
        crops=PoseCropSettings(turn=0.3),
    )


@pytest.fixture
def task(data) -> VPOGTask:
    torch.manual_seed(0)
    return VPOGTask(VPOGModel(ENCODER, **SMALL), data)


@pytest.fixture(scope="module")
def batch(data):
    samples = data.training()
    return samples.collate([samples[i] for i in range(4)])


def test_a_few_steps_on_one_batch_lower_every_loss(task, batch):
    optimizer = torch.optim.Adam(task.net.parameters(), lr=2e-3)
    history = []
    for _ in range(25):
        losses = task.losses(batch)
        history.append({name: float(value.detach()) for name, value in losses.items()})
        optimizer.zero_grad()
        losses["loss"].backward()
        optimizer.step()
    assert set(history[0]) == {"loss", "loss_classification", "loss_coarse", "loss_flow"}
    for name in history[0]:
        assert history[-1][name] < history[0][name], name
    with torch.no_grad():
        figures = task.validate([batch])
    assert figures["val_flow_px"] < 8
    assert 0 <= figures["val_accuracy_seen"] <= 1


def test_parts_can_be_weighed_and_left_out(posed, batch):
    task = posed
    task.weights = VPOGLoss()
    with torch.no_grad():
        usual = task.losses(batch)
        task.weights = VPOGLoss(weight_background=0.0, regularization=0.01, epro_pnp=0.5)
        other = task.losses(batch)
    assert other["loss_classification"] < usual["loss_classification"]  # two cross-entropies against one
    parts = {name: float(value) for name, value in other.items()}
    assert parts["loss_regularization"] > 0
    assert torch.isfinite(other["loss_pose"])
    wanted = (
        parts["loss_classification"]
        + 0.5 * parts["loss_coarse"]
        + parts["loss_flow"]
        + 0.01 * parts["loss_regularization"]
        + 0.5 * parts["loss_pose"]
    )
    assert parts["loss"] == pytest.approx(wanted, rel=1e-4)


@pytest.fixture
def posed(data) -> VPOGTask:
    torch.manual_seed(0)
    return VPOGTask(VPOGModel(ENCODER, **SMALL, pose_log_scale=2.0), data, VPOGLoss(epro_pnp=1.0))


def test_a_model_without_its_scale_cannot_learn_from_the_pose(data):
    with pytest.raises(ValueError, match="pose_log_scale"):
        VPOGTask(VPOGModel(ENCODER, **SMALL), data, VPOGLoss(epro_pnp=1.0))


def test_the_scale_of_the_pose_loss_is_learned_and_kept(posed, tmp_path):
    settings = TrainSettings(steps=3, batch_size=2, num_workers=0, progress=False, device="cpu", lr=1e-2)
    result = fit(posed, settings, tmp_path)
    reread = VPOGModel(**read_config(result.weights).config)
    load_weights(reread, result.weights)
    assert reread.pose_scale is not None
    assert abs(float(reread.pose_scale.log_scale.detach()) - 2.0) > 1e-3
    assert float(reread.pose_scale.norm_factor) != pytest.approx(math.exp(2.0), abs=1e-6)


def test_judging_leaves_the_scale_of_the_pose_loss_alone(posed, batch):
    posed.net.eval()
    with torch.no_grad():
        posed.validate([batch])
    assert float(posed.net.pose_scale.norm_factor) == pytest.approx(math.exp(2.0))


def test_the_pose_teaches_the_network(posed, batch):
    task = posed
    task.weights = replace(task.weights, classification=0, coarse=0, flow=0)
    task.losses(batch)["loss"].backward()
    gradients = [p.grad for p in task.net.flow_head.parameters()]
    assert all(g is not None and g.isfinite().all() for g in gradients)
    assert any(g.any() for g in gradients)


def test_a_run_ends_with_weights_that_know_their_turn(task, tmp_path):
    settings = TrainSettings(steps=2, batch_size=2, num_workers=0, progress=False, device="cpu")
    result = fit(task, settings, tmp_path)
    card = read_config(result.weights)
    assert card.kind == "VPOGModel"
    assert card.extra["turn"] == 0.3
    assert {"val_loss", "val_accuracy_seen", "val_coarse_accuracy_unseen", "val_flow_px"} <= set(
        result.figures
    )


def test_the_tiny_recipe_is_tiny():
    task, settings = read_vpog_recipe(RECIPES / "tiny.yaml")
    assert sum(p.numel() for p in task.net.parameters()) < 2_000_000
    assert task.data.crops.turn == 0.55
    assert settings.precision == "bf16"
    assert settings.max_minutes is not None
    assert settings.max_minutes <= 90


def test_recipes_are_checked(tmp_path):
    path = tmp_path / "r.yaml"
    path.write_text("data: {crops: {turns: 1.0}}\n")
    with pytest.raises(ValueError, match=r"r\.yaml: data: crops: unknown key 'turns'"):
        read_vpog_recipe(path)
    path.write_text(
        "model: {encoder: {name: croco, dim: 32, depth: 1, num_heads: 2}, image_size: 64, num_heads: 2}\n"
    )
    with pytest.raises(ValueError, match="tiny encoder"):
        read_vpog_recipe(path, descriptor=tmp_path / "none.safetensors")
