"""Stage 0: what its losses reward, and that a small descriptor learns to tell objects apart."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from sightline.nn.checkpoint import load_weights
from sightline.nn.descriptor import DescriptorNet
from sightline.nn.late_interaction import any_template, late_interaction, parts_of_map
from sightline.synthetic.backdrops import BackdropBank
from sightline.synthetic.crops import Crops, CropSettings
from sightline.synthetic.sprites import SpriteBank, SpriteSettings
from sightline.training import TrainSettings, fit
from sightline.training.descriptor import DescriptorData, DescriptorTask, contrast

SPRITES = SpriteSettings(size_px=48, num_lit=3, num_plain=5, num_lookalike=1)


@pytest.fixture(scope="module")
def crops() -> Crops:
    bank = SpriteBank(6, settings=SPRITES)
    return Crops(bank, BackdropBank(2, image_size=(96, 72)), CropSettings(size=64))


def test_a_set_depends_on_its_generator_alone(crops):
    first, again = (crops.draw(3, np.random.default_rng(5)) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first[1:], again[1:], strict=True))
    other = crops.draw(3, np.random.default_rng(6))
    assert not torch.equal(first.pictures, other.pictures)


def test_masks_are_where_the_object_is(crops):
    for number in range(6):
        drawn = crops.draw(number, np.random.default_rng(number))
        assert drawn.template_masks.amin() >= 0
        assert drawn.template_masks.amax() <= 1
        assert (drawn.template_masks.sum((1, 2)) > 40).all()
    plain = Crops(crops.bank, crops.backdrops, CropSettings(size=64, plain_share=1.0))
    template = plain.draw(0, np.random.default_rng(0))
    assert template.templates[0][:, template.template_masks[0] == 0].amax() < 0.05


def test_the_first_template_shows_what_the_picture_shows(crops):
    sprites = crops.bank[1]
    cosines = sprites.plain_from @ sprites.lit_from[2]
    for seed in range(5):
        views = sprites.choose_views(np.random.default_rng(seed), 2, 4, plain=True, near=2)
        rows = [next(i for i, each in enumerate(sprites.plain) if np.array_equal(each, v)) for v in views]
        assert cosines[rows[0]] >= np.sort(cosines)[-2]
        assert len(set(rows)) == 4
    lit = sprites.choose_views(np.random.default_rng(0), 2, 2, plain=False)
    assert not any(np.array_equal(view, sprites.lit[2]) for view in lit)


def test_parts_find_their_match_wherever_it_lies():
    generator = torch.Generator().manual_seed(0)
    parts = torch.nn.functional.normalize(torch.randn(2, 5, 8, generator=generator), dim=-1)
    background = torch.nn.functional.normalize(torch.randn(1, 7, 8, generator=generator), dim=-1)
    picture = torch.cat([background, parts[:1].flip(1)], dim=1)
    found = late_interaction(parts, torch.ones(2, 5), picture)
    assert found[0, 0].item() == pytest.approx(1.0)
    assert found[1, 0] < 0.9
    hidden = torch.cat([background, parts[:1, :2]], dim=1)
    seen = torch.tensor([[1.0, 1.0, 0.0, 0.0, 0.0]])
    assert late_interaction(parts[:1], seen, hidden).item() == pytest.approx(1.0)


def test_the_gradient_is_that_of_the_best_match():
    generator = torch.Generator().manual_seed(1)
    templates, pictures = (torch.randn(2, 3, 4, generator=generator, dtype=torch.float64) for _ in range(2))
    shares = torch.rand(2, 3, generator=generator, dtype=torch.float64)
    inputs = templates.requires_grad_(), pictures.requires_grad_()
    assert torch.autograd.gradcheck(lambda t, p: late_interaction(t, shares, p), inputs)
    loops = torch.stack(
        [
            torch.stack([((t @ p.T).amax(1) * s).sum() / s.sum() for p in pictures])
            for t, s in zip(templates, shares, strict=True)
        ]
    )
    assert torch.allclose(late_interaction(templates, shares, pictures), loops)


def test_a_large_map_is_averaged_within_its_mask():
    dense = torch.zeros(1, 2, 24, 24)
    dense[:, 0, :, :12], dense[:, 1, :, 12:] = 1.0, 1.0
    mask = torch.zeros(1, 48, 48)
    mask[:, :, :26] = 1.0
    parts = parts_of_map(dense, mask, most=3)
    assert parts.descriptors.shape == (1, 9, 2)
    assert torch.allclose(parts.shares.view(3, 3)[0], torch.tensor([1.0, 0.625, 0.0]))
    # of the middle column's cells 4 are of the left half and 1 of the right one is in the mask
    assert torch.allclose(parts.descriptors.view(3, 3, 2)[0, 1] / 4, torch.tensor([1.0, 0.25]) / 17**0.5)


def test_templates_that_are_padding_say_nothing():
    cosines, sharp = torch.tensor([[[0.5], [0.9]]]), torch.tensor(10.0).log()
    one = any_template(cosines[:, :1], sharp)
    padded = any_template(cosines, sharp, torch.tensor([[True, False]]))
    assert torch.allclose(one, padded)
    assert torch.allclose(any_template(cosines[:, [0, 0]], sharp), one)


def test_what_is_told_apart_costs_nothing_and_what_is_not_costs_much():
    numbers, right = torch.tensor([0, 1, 2]), 20 * torch.eye(3)
    assert contrast(torch.cat([right, torch.zeros(3, 3)], 1), numbers) < 1e-6
    assert contrast(torch.cat([right.roll(1, 0), torch.zeros(3, 3)], 1), numbers) > 10
    assert contrast(torch.cat([right, right], 1), numbers) > 0.3  # look-alikes that look alike


def test_two_sets_of_one_object_do_not_repel_each_other():
    same = torch.tensor([[20.0, 0.0, 0.0], [0.0, 20.0, 20.0], [0.0, 20.0, 20.0]])
    assert contrast(torch.cat([same, torch.zeros(3, 3)], 1), torch.tensor([0, 1, 1])) < 1e-6


def test_it_learns_and_its_weights_come_back(tmp_path):
    torch.manual_seed(0)
    data = DescriptorData(
        num_objects=6,
        num_backdrops=2,
        epoch_length=240,
        num_validation_objects=2,
        validation_rounds=2,
        validation_templates=2,
        sprites=SPRITES,
        crops=CropSettings(
            size=32,
            recolor_share=0.0,
            cover_share=0.0,
            turn_share=0.0,
            mirror_share=0.0,
            coarse_share=0.0,
            picture_fill=(0.7, 1.0),
        ),
    )
    net = DescriptorNet(fpn_channels=16, descriptor_channels=16, strides=(4,), late_strides=(4,))
    task = DescriptorTask(net, data)
    settings = TrainSettings(
        batch_size=6,
        steps=120,
        lr=3e-3,
        warmup_steps=3,
        num_workers=0,
        device="cpu",
        progress=False,
        log_steps=1,
    )
    result = fit(task, settings, tmp_path / "run")
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    losses = [entry["loss"] for entry in map(json.loads, lines) if "loss" in entry]
    assert np.mean(losses[-8:]) < 0.75 * np.mean(losses[:8])
    again = DescriptorNet(**net.config)
    load_weights(again, result.weights)
    assert set(result.figures) == {"val_retrieval", "val_over_lookalike"}
    assert all(0 <= figure <= 1 for figure in result.figures.values())
