"""The second look's boxes: what the refiner sees, how it learns, and what comes of it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.utils.data import default_collate

from sightline.formats.refdet_templates import TemplatePicture
from sightline.geometry.boxes import iou_matrix
from sightline.nn.checkpoint import save_model
from sightline.nn.late_interaction import Parts
from sightline.refdet.bank_detector import DetectorSettings
from sightline.refdet.box_refinement import BoxRefiner, best_templates
from sightline.refdet.composites import CompositeSettings
from sightline.refdet.detector import ConvNeXtRefDet
from sightline.refdet.recipe import begin_with_detector
from sightline.refdet.reference_detector import ReferenceDetector
from sightline.refdet.refinement import RefinementData, RefinementTask, jitter_boxes
from sightline.refdet.second_look import crop_regions, cut_crops, look_again
from sightline.refdet.selection import Proposals
from sightline.refdet.training import CompositeData
from sightline.synthetic.sprites import SpriteSettings
from sightline.training import TrainSettings, fit

SMALL = {"backbone": "nano", "detection_stride": 8, "template_scales": (1.0,)}


@pytest.fixture(scope="module")
def model() -> ConvNeXtRefDet:
    torch.manual_seed(0)
    return ConvNeXtRefDet(16, 8, 16, **SMALL, refine_boxes=True).eval()


@pytest.fixture(scope="module")
def data() -> CompositeData:
    return CompositeData(
        num_objects=4,
        num_backdrops=2,
        num_validation_objects=2,
        image_size=(96, 64),
        template_size=(32, 32),
        sprites=SpriteSettings(32, 3, 2, 1),
        composites=CompositeSettings(size_px=(150, 300), exam_size_share=0.0, distractors=(0, 1)),
    )


def test_crops_say_where_their_boxes_are():
    image = np.zeros((60, 80, 3), np.uint8)
    image[20:40, 30:50] = 255
    regions = crop_regions(torch.tensor([[29.5, 19.5, 49.5, 39.5]]), (48, 48))
    assert torch.allclose(regions, torch.tensor([[27.5, 17.5, 51.5, 41.5]]).double())
    crop = cut_crops(image, regions, (48, 48))[0]
    bright = (crop[0] > 0.5).nonzero()
    assert (bright.amin(0) - 4).abs().max() <= 1  # 2 of 24 pixels, at twice the size
    assert (bright.amax(0) - 43).abs().max() <= 1


def test_each_picture_gets_the_template_that_it_resembles():
    cosines = torch.tensor([[[0.1, 0.9], [0.5, 0.2]], [[-torch.inf, 0.0], [0.3, -1.0]]])
    stored = {8: Parts(torch.arange(4.0).view(2, 2, 1, 1), torch.ones(2, 2, 1))}
    chosen = best_templates(cosines, stored)[8].descriptors.flatten()
    assert chosen.tolist() == [1, 0, 3, 2]


def test_edges_move_with_what_they_are_of():
    """A column of cells that resembles the template, at two places: the edges that it gives move with it."""
    torch.manual_seed(1)
    refiner = BoxRefiner((8,), 4)
    for parameter in refiner.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    object_, other = torch.eye(4)[0], torch.eye(4)[1]
    crops = other.repeat(2, 6, 8, 1)
    crops[0, :, 1:3], crops[1, :, 5:7] = object_, object_
    parts = Parts(object_.repeat(2, 48, 1), torch.ones(2, 48))
    edges = refiner({8: parts}, {8: crops.flatten(1, 2)}, {8: (6, 8)})
    assert edges.shape == (2, 4)
    assert ((edges > -0.1) & (edges < 1.1)).all()
    assert (edges[0] - edges[1])[[0, 2]].abs().min() > 1e-3


def test_a_detector_that_refines_gives_other_boxes_and_the_same_evidence(model):
    plain = ConvNeXtRefDet(16, 8, 16, **SMALL)
    plain.load_state_dict({k: v for k, v in model.state_dict().items() if not k.startswith("refiner.")})
    crops, bank = torch.rand(3, 3, 64, 64), model.encode_templates(torch.rand(2, 4, 3, 64, 64))
    with torch.no_grad():
        ours, theirs = look_again(model, crops, bank), look_again(plain.eval(), crops, bank)
    assert theirs.edges is None
    assert ours.edges.shape == (2, 3, 4)
    assert torch.allclose(ours.evidence, theirs.evidence)
    single = look_again(model, crops[1:2], bank.select([1])).edges
    assert torch.allclose(single[0, 0], ours.edges[1, 1], atol=1e-5)
    detector = ReferenceDetector(model, DetectorSettings((128, 96), (64, 64)))
    image = np.random.default_rng(0).integers(0, 255, (90, 120, 3)).astype(np.uint8)
    found = Proposals(torch.tensor([[10.0, 10, 50, 40]]).double(), torch.tensor([0.5]).double())
    bank = detector.onboard([TemplatePicture(image[:40, :40])])
    looked = detector.look_twice(image, found, bank)
    region = crop_regions(found.boxes, (64, 64))
    assert (looked.boxes != found.boxes).any()
    assert (looked.boxes[:, 2:] > looked.boxes[:, :2]).all()
    assert float(iou_matrix(looked.boxes, region)) > 0  # within what was looked at


def test_boxes_err_as_they_are_told_to():
    true = torch.tensor([10.0, 20.0, 50.0, 40.0]).double()
    data = RefinementData(num_crops=4000)
    boxes = jitter_boxes(np.random.default_rng(0), true, data)
    assert float(iou_matrix(boxes, true[None]).min()) >= data.min_iou
    sides = (boxes[:, 2:] - boxes[:, :2]) / torch.tensor([40.0, 20.0])
    centers = (boxes[:, :2] + boxes[:, 2:]) / 2 - torch.tensor([30.0, 30.0])
    assert centers.mean(0).abs().max() < 0.5
    assert 0.2 < float(sides.log().std()) < data.size_jitter  # the worst are drawn anew
    assert 0.25 < float(torch.corrcoef(sides.log().T)[0, 1]) < 0.75
    exact = jitter_boxes(np.random.default_rng(0), true, replace(data, center_jitter=0, size_jitter=0))
    assert torch.allclose(exact, true.expand_as(exact))


def test_only_the_refiner_learns_and_boxes_become_better(data, tmp_path):
    torch.manual_seed(0)
    model = ConvNeXtRefDet(16, 8, 16, **SMALL, refine_boxes=True)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    crops = RefinementData(num_templates=2, num_crops=6, epoch_length=8, num_validation=2)
    task = RefinementTask(model, data, crops)
    settings = TrainSettings(
        steps=2, batch_size=4, num_workers=0, progress=False, device="cpu", warmup_steps=0
    )
    result = fit(task, settings, tmp_path)
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed
    assert all(name.startswith("refiner.") for name in changed)
    assert ReferenceDetector.from_checkpoint(result.weights).model.refiner is not None
    samples = task.validation_samples()
    batch = default_collate([samples.sample(i, np.random.default_rng(i)) for i in range(4)])
    with torch.no_grad():
        first = task.validate([batch])
    optimizer = torch.optim.Adam(model.refiner.parameters(), lr=5e-3)
    for _ in range(60):
        optimizer.zero_grad()
        task.losses(batch)["loss"].backward()
        optimizer.step()
    with torch.no_grad():
        last = task.validate([batch])
    assert last["val_iou_before"] == first["val_iou_before"]
    assert last["val_iou"] > max(first["val_iou"], first["val_iou_before"]) + 0.15


def test_samples_depend_on_their_generator_alone(data):
    task = RefinementTask(
        ConvNeXtRefDet(16, 8, 16, **SMALL, refine_boxes=True), data, RefinementData(num_crops=3)
    )
    samples = task.training_samples()
    first, again = (samples.sample(1, np.random.default_rng(5)) for _ in range(2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    other = samples.sample(1, np.random.default_rng(6))
    assert not torch.equal(first["crops"], other["crops"])
    fixed = task.validation_samples()
    assert torch.equal(
        fixed.sample(0, np.random.default_rng(1))["crops"], fixed.sample(0, np.random.default_rng(2))["crops"]
    )


def test_bad_input_is_named(model, data, tmp_path):
    with pytest.raises(ValueError, match="refine_boxes"):
        RefinementTask(ConvNeXtRefDet(16, 8, 16, **SMALL), data)
    other = ConvNeXtRefDet(16, 8, 24, **SMALL)
    save_model(tmp_path / "other.safetensors", other, other.config)
    with pytest.raises(ValueError, match=r"other\.safetensors"):
        begin_with_detector(model, tmp_path / "other.safetensors")
