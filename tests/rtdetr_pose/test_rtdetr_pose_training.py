"""The room's task: losses that learn, a file that says what it is for, recipes that are checked."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from sightline.nn.checkpoint import read_config
from sightline.rtdetr_pose.inference import RTDETRPoseDetector
from sightline.rtdetr_pose.model import RTDETRPose
from sightline.rtdetr_pose.recipe import read_rtdetr_pose_recipe
from sightline.rtdetr_pose.teacher import (
    GeometryAutoencoder,
    TeacherTask,
    begin_with_teacher,
    reconstruction_gain,
)
from sightline.rtdetr_pose.training import PoseLoss, RTDETRPoseTask
from sightline.rtdetr_pose.training_data import PoseSceneData
from sightline.synthetic.pose_composites import CompositeSettings
from sightline.training import TrainSettings, fit

RECIPES = sorted((Path(__file__).parents[2] / "configs" / "rtdetr_pose").glob("*.yaml"))
SMALL = CompositeSettings(empty_share=0.0, wanted=(2, 3), others=(0, 1), extent=(0.2, 0.4))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> PoseSceneData:
    return PoseSceneData(
        folder=tmp_path_factory.mktemp("views"),
        image_size=(128, 96),
        epoch_length=16,
        num_validation=4,
        num_views=12,
        num_others=1,
        num_backdrops=2,
        composites=SMALL,
    )


def _task(data: PoseSceneData, **model: object) -> RTDETRPoseTask:
    torch.manual_seed(0)
    values = {"enable_mim": True, "use_uncertainty": True, **model}
    return RTDETRPoseTask(RTDETRPose(5, 64, 20, backbone="tiny", **values), data, PoseLoss(mim_share=1.0))


@pytest.fixture(scope="module")
def batch(data):
    samples = data.validation()
    return samples.collate([samples.sample(i, np.random.default_rng(i)) for i in range(4)])


def test_steps_on_one_batch_lower_detection_and_pose(data, batch):
    task = _task(data)
    task.at_progress(1.0)
    task.net.train()
    optimizer = torch.optim.AdamW(task.net.parameters(), lr=1e-3)
    history = []
    for _ in range(30):
        losses = task.losses(batch)
        history.append({name: float(value.detach()) for name, value in losses.items()})
        optimizer.zero_grad()
        losses["loss"].backward()
        torch.nn.utils.clip_grad_norm_(task.net.parameters(), 1.0)
        optimizer.step()
    for name in ("loss", "loss_box", "loss_z", "loss_t", "loss_mim", "loss_dn"):
        assert history[-1][name] < 0.8 * history[0][name] or history[-1][name] < history[0][name] - 0.3, name


def test_every_parameter_learns_but_the_frozen_teacher(data, batch):
    task = _task(data)
    task.at_progress(1.0)
    task.net.train()
    task.losses(batch)["loss"].backward()
    idle = {name for name, p in task.net.named_parameters() if p.grad is None}
    assert all(name.startswith("mim.teacher.") for name in idle), sorted(idle)[:5]
    assert idle


def test_validation_says_what_people_ask(data, batch):
    task = _task(data)
    task.net.eval()
    with torch.no_grad():
        figures = task.validate([batch])
    assert {"val_loss", "val_iou", "val_score", "val_rotation_deg", "val_log_depth"} <= figures.keys()
    assert 0 <= figures["val_iou"] <= 1
    assert 0 <= figures["val_rotation_deg"] <= 180
    assert all(math.isfinite(value) for value in figures.values())


def test_a_run_writes_weights_that_know_their_objects(data, tmp_path):
    task = _task(data)
    settings = TrainSettings(
        batch_size=4, steps=2, num_workers=0, device="cpu", progress=False, checkpoint_dir=tmp_path
    )
    weights = fit(task, settings, tmp_path).weights
    assert read_config(weights).extra["input_size"] == [128, 96]
    detector = RTDETRPoseDetector.from_checkpoint(weights)
    assert detector.names == tuple(each.name for each in data.classes)
    assert detector.symmetries[3].axis is not None  # the bottle
    assert torch.allclose(detector.model.object_sizes, task.net.object_sizes)


def test_another_number_of_classes_is_refused(data):
    with pytest.raises(ValueError, match=r"num_classes: expected 5 as the data have, got 3"):
        RTDETRPoseTask(RTDETRPose(3, 64, 10, backbone="tiny"), data)


def test_a_share_of_the_data_repeats_its_pictures(data):
    few = replace(data, share=0.25).training().source
    first, again = few.draw(1, np.random.default_rng(0)), few.draw(5, np.random.default_rng(9))
    assert (first.image == again.image).all()
    other = few.draw(2, np.random.default_rng(0))
    assert (first.image != other.image).any()


def test_the_teacher_learns_to_keep_geometry_and_the_model_begins_with_it(data, batch, tmp_path):
    torch.manual_seed(0)
    task = TeacherTask(GeometryAutoencoder(64), data)
    settings = TrainSettings(
        batch_size=4, steps=20, lr=3e-3, num_workers=0, device="cpu", progress=False, checkpoint_dir=tmp_path
    )
    before = float(task.losses(batch)["loss"].detach())
    weights = fit(task, settings, tmp_path).weights
    with torch.no_grad():
        assert float(task.net.eval() and task.losses(batch)["loss"]) < 0.7 * before
    model = _task(data).net
    begin_with_teacher(model, weights)
    assert model.mim is not None
    assert torch.equal(
        model.mim.teacher.state_dict()["layers.0.conv.weight"],
        task.net.teacher.state_dict()["layers.0.conv.weight"],
    )
    assert not any(p.requires_grad for p in model.mim.teacher.parameters())
    error, constant = reconstruction_gain(model.eval(), [batch])
    assert error > 0
    assert constant > 0


def test_a_teacher_of_another_size_is_refused(data, tmp_path):
    from sightline.nn.checkpoint import save_model

    path = tmp_path / "teacher.safetensors"
    other = GeometryAutoencoder(32)
    save_model(path, other, other.config)
    with pytest.raises(ValueError, match=r"teacher\.safetensors: expected a teacher of this model's sizes"):
        begin_with_teacher(_task(data).net, path)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_recipes_build_what_they_say(path):
    task, settings, teacher = read_rtdetr_pose_recipe(path)
    assert (teacher is None) == (task.net.mim is None or task.net.mim.target != "teacher")
    assert settings.batch_size >= 1
    if path.stem == "tiny":
        assert sum(p.numel() for p in task.net.parameters()) < 2.5e6


def test_a_misspelt_key_is_named(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text("model: {backbone: tiny}\nloss: {matchfrom: 0.1}\n")
    with pytest.raises(ValueError, match=r"a\.yaml: loss: unknown key 'matchfrom' .*match_from"):
        read_rtdetr_pose_recipe(path)
