"""The detector's task: what a batch costs, what validation counts, swapped templates as a control."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sightline.refdet.composites import CompositeSettings
from sightline.refdet.detector import ConvNeXtRefDet
from sightline.refdet.training import CompositeData, RefDetTask, detect_batch, swap_templates
from sightline.synthetic.sprites import SpriteSettings


@pytest.fixture(scope="module")
def task() -> RefDetTask:
    torch.manual_seed(0)
    model = ConvNeXtRefDet(16, 8, 16, backbone="nano", detection_stride=8, template_scales=(1.0,))
    data = CompositeData(
        num_objects=4,
        num_backdrops=2,
        epoch_length=8,
        num_validation_objects=3,
        num_validation=4,
        image_size=(96, 64),
        template_size=(32, 32),
        max_templates=2,
        validation_templates=2,
        sprites=SpriteSettings(size_px=48, num_lit=3, num_plain=1, num_lookalike=1),
        composites=CompositeSettings(absent_share=0.25),
    )
    return RefDetTask(model, data)


def batch_of(task: RefDetTask, *, training: bool):
    samples = task.training_samples() if training else task.validation_samples()
    return task.collate([samples.sample(i, np.random.default_rng(i)) for i in range(4)])


def test_every_part_of_the_loss_is_there_and_learns(task):
    losses = task.losses(batch_of(task, training=True))
    assert {"loss", "loss_obj", "loss_bbox", "loss_match", "loss_contrast"} <= set(losses)
    losses["loss"].backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in task.model.parameters())


def test_contrast_can_be_left_out(task):
    batch = batch_of(task, training=True)
    plain = RefDetTask(task.detector, task.data, lambda_contrast=0.0).losses(batch)
    full = task.losses(batch)
    assert (full["loss"] - plain["loss"]).item() == pytest.approx(full["loss_contrast"].item(), rel=1e-4)


def test_epochs_differ_and_validation_does_not(task):
    training, validation = task.training_samples(), task.validation_samples()
    first, second = (training.sample(0, np.random.default_rng(seed)).search for seed in (1, 2))
    assert not torch.equal(first, second)
    first, second = (validation.sample(0, np.random.default_rng(seed)).search for seed in (1, 2))
    assert torch.equal(first, second)


def test_validation_shows_objects_that_training_does_not(task):
    shown = {task.training_samples().sample(i, np.random.default_rng(i)).object_id for i in range(8)}
    judged = {task.validation_samples().sample(i, np.random.default_rng(i)).object_id for i in range(4)}
    assert not shown & judged


def test_swapped_templates_are_those_of_another_sample(task):
    batch = batch_of(task, training=False)
    swapped = swap_templates(batch)
    assert torch.equal(swapped["templates"][1], batch["templates"][0])
    assert torch.equal(swapped["search"], batch["search"])
    task.model.eval()
    with torch.no_grad():
        right, wrong = (detect_batch(task.detector, each).objectness[0] for each in (batch, swapped))
    assert not torch.allclose(right, wrong)


def test_validation_gives_both_figures(task):
    task.model.eval()
    with torch.no_grad():
        figures = task.validate([batch_of(task, training=False)])
    assert set(figures) == {"val_ap50", "val_ap50_swapped"}
    assert all(0 <= figure <= 1 for figure in figures.values())
