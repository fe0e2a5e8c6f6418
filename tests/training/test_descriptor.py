"""Stage 0: what its losses reward, and that a small descriptor learns to tell objects apart."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from sightline.nn.checkpoint import load_weights
from sightline.nn.descriptor import DescriptorNet, pool_descriptor
from sightline.synthetic.backdrops import BackdropBank
from sightline.synthetic.crops import CropPairs, CropSettings
from sightline.synthetic.sprites import SpriteBank, SpriteSettings
from sightline.training import TrainSettings, fit
from sightline.training.descriptor import CropBatch, DescriptorData, DescriptorTask, contrast, retrieval

SPRITES = SpriteSettings(size_px=48, num_lit=3, num_plain=1, num_lookalike=1)


@pytest.fixture(scope="module")
def pairs() -> CropPairs:
    bank = SpriteBank(6, settings=SPRITES)
    return CropPairs(bank, BackdropBank(2, image_size=(96, 72)), CropSettings(size=64))


def test_a_pair_depends_on_its_generator_alone(pairs):
    first, again = (pairs.draw(3, np.random.default_rng(5)) for _ in range(2))
    assert torch.equal(first.images, again.images)
    other = pairs.draw(3, np.random.default_rng(6))
    assert not torch.equal(first.images, other.images)


def test_masks_are_where_the_object_is(pairs):
    for number in range(6):
        pair = pairs.draw(number, np.random.default_rng(number))
        assert pair.masks.amin() >= 0
        assert pair.masks.amax() <= 1
        assert (pair.masks.sum((1, 2)) > 40).all()
    plain = CropPairs(pairs.bank, pairs.backdrops, CropSettings(size=64, plain_share=1.0))
    template = plain.draw(0, np.random.default_rng(0))
    assert template.images[0][:, template.masks[0] == 0].amax() < 0.05


def perfect(numbers: list[int]) -> tuple[torch.Tensor, CropBatch]:
    """Descriptors that are one-hot of the object on it, and of nothing beside it."""
    b = len(numbers)
    masks = torch.zeros(b, 2, 8, 8)
    masks[:, :, 2:6, 2:6] = 1.0
    dense = torch.zeros(2 * b, 16, 8, 8)
    dense[:, 15] = 1.0
    for row, number in enumerate(numbers):
        for crop in (0, 1):
            dense[2 * row + crop, :, 2:6, 2:6] = 0.0
            dense[2 * row + crop, number, 2:6, 2:6] = 1.0
    return dense, CropBatch(images=torch.zeros(b, 2, 3, 8, 8), masks=masks, numbers=torch.tensor(numbers))


def test_what_is_told_apart_costs_nothing():
    dense, batch = perfect([0, 1, 2])
    pooled, on_it, beside = contrast(dense, batch, torch.tensor(30.0))
    assert pooled < 1e-6
    assert on_it < 1e-6
    assert beside < 0.2


def test_templates_of_other_objects_cost_much():
    dense, batch = perfect([0, 1, 2])
    shuffled = dense.clone()
    shuffled[::2] = dense[::2].roll(1, 0)
    pooled, on_it, _ = contrast(shuffled, batch, torch.tensor(30.0))
    assert pooled > 10
    assert on_it > 10


def test_two_pairs_of_one_object_do_not_repel_each_other():
    dense, batch = perfect([0, 1, 1])
    pooled, on_it, _ = contrast(dense, batch, torch.tensor(30.0))
    assert pooled < 1e-6
    assert on_it < 1e-6


def test_background_that_looks_like_the_object_costs():
    dense, batch = perfect([0, 1, 2])
    spread = dense.clone()
    spread[1::2] = dense[1::2, :, 3:4, 3:4]
    assert contrast(spread, batch, torch.tensor(30.0))[2] > contrast(dense, batch, torch.tensor(30.0))[2] + 5


def test_pooling_counts_the_mask_alone():
    generator = torch.Generator().manual_seed(0)
    dense = torch.nn.functional.normalize(torch.randn(1, 4, 6, 6, generator=generator), dim=1)
    mask = torch.zeros(1, 24, 24)
    mask[:, 8:16, 4:12] = 1.0
    changed = dense.clone()
    changed[:, :, 0, 5] *= -1
    assert torch.equal(pool_descriptor(dense, mask), pool_descriptor(changed, mask))
    assert pool_descriptor(dense, mask).norm().item() == pytest.approx(1.0)


def test_retrieval_counts_the_right_object():
    unit = torch.eye(3)
    assert retrieval(unit, unit, torch.tensor([0, 1, 2])) == 1.0
    assert retrieval(unit, unit.roll(1, 0), torch.tensor([0, 1, 2])) == 0.0
    assert retrieval(unit, unit.roll(1, 0), torch.tensor([0, 0, 0])) == 1.0


def test_it_learns_and_its_weights_come_back(tmp_path):
    torch.manual_seed(0)
    data = DescriptorData(
        num_objects=6,
        num_backdrops=2,
        epoch_length=240,
        num_validation_objects=2,
        validation_rounds=2,
        sprites=SPRITES,
        crops=CropSettings(
            size=32,
            recolor_share=0.0,
            cover_share=0.0,
            turn_share=0.0,
            mirror_share=0.0,
            picture_fill=(0.7, 1.0),
        ),
    )
    net = DescriptorNet(fpn_channels=16, descriptor_channels=16, strides=(4,))
    task = DescriptorTask(net, data)
    settings = TrainSettings(
        batch_size=6,
        steps=40,
        lr=3e-3,
        warmup_steps=3,
        num_workers=0,
        device="cpu",
        progress=False,
        log_steps=1,
    )
    result = fit(task, settings, tmp_path / "run")
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    losses = [entry["loss_pooled"] for entry in map(json.loads, lines) if "loss_pooled" in entry]
    assert np.mean(losses[-8:]) < 0.75 * np.mean(losses[:8])
    again = DescriptorNet(**net.config)
    load_weights(again, result.weights)
    assert 0 <= result.figures["val_retrieval"] <= 1
