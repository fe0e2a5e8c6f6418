"""The hybrid detector: what key points add to an untrained network, and how both are calibrated."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from sightline.cli.main import main
from sightline.formats.images import write_image
from sightline.formats.refdet_templates import TemplatePicture
from sightline.formats.results import read_results
from sightline.geometry.boxes import iou_matrix
from sightline.nn.checkpoint import read_config, save_model
from sightline.objects.onboard import onboard_mesh
from sightline.objects.photos import onboard_flat
from sightline.pipeline import exam_refdet
from sightline.pipeline.hybrid_detector import HybridBank, HybridDetector
from sightline.refdet.detector import ConvNeXtRefDet
from sightline.refdet.reference_detector import ReferenceDetector
from sightline.refdet.selection import Proposals
from sightline.sift import build_bank
from tests.pipeline.test_keypoint_evidence import printed, scene

WEIGHTS = torch.tensor([-4.0, 0.0, 0.0, 0.0, 0.0, 0.0, 20.0])  # of the share alone


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    model = ConvNeXtRefDet(16, 8, 16, backbone="nano", detection_stride=8, template_scales=(1.0,))
    torch.nn.init.normal_(model.head.objectness[-1].weight, std=0.5)
    path = tmp_path_factory.mktemp("weights") / "small.safetensors"
    save_model(path, model, model.config, {"search_size": [96, 64], "template_size": [64, 64]})
    return path


@pytest.fixture
def detector(weights) -> HybridDetector:
    made = HybridDetector.to_calibrate(weights)
    made.learn(WEIGHTS)
    return made


def test_key_points_say_the_box_and_are_looked_at_where_the_network_sees_nothing(detector, monkeypatch):
    cover = printed(0)
    image, box = scene(cover)
    bank = detector.onboard([TemplatePicture(cover)])
    found = detector.detect(image, {"book": bank}, score_threshold=0.5)
    assert len(found) == 1
    assert float(iou_matrix(found.boxes.double(), box)) > 0.85

    (places,) = detector.look(image, [bank])
    (learned,) = detector.learned.look(image, [bank.learned])
    at = int(places.columns[:, 4].argmax())
    assert float(iou_matrix(places.boxes[at : at + 1], box)) > 0.85
    assert float(places.columns[at, 3]) > np.log(15)
    # what the network says of its own places is as without key points
    count = len(learned.boxes)
    assert torch.equal(places.columns[:count, :3], learned.columns)
    fresh = places.columns[count:]
    assert bool((fresh[:, 3] > 0).all())

    # a network that proposes nothing at all
    none = detector.learned.look_once(image, [bank.learned], score_threshold=2.0)
    monkeypatch.setattr(detector.learned, "look_once", lambda *args, **kwargs: none)
    (places,) = detector.look(image, [bank])
    assert len(places.boxes) == len(places.columns) >= 1
    assert float(iou_matrix(places.boxes[:1], box)) > 0.85


def two_of_one_print() -> tuple[np.ndarray, np.ndarray, torch.Tensor]:
    """The picture, the cover that is twice in it, and both boxes."""
    cover = printed(1)
    image, first = scene(cover, np.array([[20.0, 20], [160, 20], [160, 120], [20, 120]], np.float32))
    other, second = scene(cover, np.array([[220.0, 100], [360, 100], [360, 200], [220, 200]], np.float32))
    image = np.where((other != 110).any(-1, keepdims=True), other, image)
    return image, cover, torch.cat([first, second])


def test_key_points_correct_the_networks_boxes(detector, monkeypatch):
    image, cover, boxes = two_of_one_print()
    bank = detector.onboard([TemplatePicture(cover)])
    coarse = boxes + torch.tensor([0.0, 0, 20, 10]).double()
    elsewhere = torch.tensor([[180.0, 20, 240, 70]]).double()
    once = Proposals(torch.cat([coarse, elsewhere]), torch.tensor([0.6, 0.5, 0.4]).double())
    monkeypatch.setattr(detector.learned, "look_once", lambda *args, **kwargs: [once])
    (places,) = detector.look(image, [bank])
    assert len(places.boxes) == 3
    assert bool((iou_matrix(places.boxes[:2], boxes).diagonal() > 0.92).all())
    assert torch.allclose(places.boxes[2:], elsewhere)
    assert bool((places.columns[:2, 3:] > 0).all())
    assert bool((places.columns[2, 3:] == 0).all())


def test_the_first_looks_score_goes_with_the_place(detector, monkeypatch):
    """Where the second look has left out what key points see, the network says what it saw there."""
    image, cover, boxes = two_of_one_print()
    bank = detector.onboard([TemplatePicture(cover)])
    look_twice = detector.learned.look_twice
    nowhere = look_twice(image, Proposals.none(), bank.learned)
    for scores in ([0.3, 0.8, 0.1], [0.8, 0.3, 0.1]):
        given = torch.cat([boxes, torch.tensor([[180.0, 20, 240, 70]]).double()])
        once = Proposals(given, torch.tensor(scores).double())
        monkeypatch.setattr(detector.learned, "look_once", lambda *args, found=once, **kwargs: [found])
        monkeypatch.setattr(
            detector.learned,
            "look_twice",
            lambda image, found, bank, first=once: (
                nowhere if found is first else look_twice(image, found, bank)
            ),
        )
        (places,) = detector.look(image, [bank])
        assert len(places.boxes) == len(places.columns) == 2
        order = torch.tensor(scores[:2]).argsort(descending=True)
        assert bool((iou_matrix(places.boxes, boxes[order]).diagonal() > 0.92).all())
        assert torch.allclose(places.columns[:, 0].sigmoid(), torch.tensor([0.8, 0.3]).double(), atol=1e-6)
    # seen by key points alone
    once = Proposals(given[2:], torch.tensor([0.1]).double())
    monkeypatch.setattr(detector.learned, "look_once", lambda *args, **kwargs: [once])
    (places,) = detector.look(image, [bank])
    assert torch.allclose(places.columns[-2:, 0].sigmoid(), torch.full((2,), 0.1).double(), atol=1e-6)


def test_a_region_bounds_key_points_too(detector):
    cover = printed(2)
    image, _ = scene(cover)
    bank = detector.onboard([TemplatePicture(cover)])
    region = torch.tensor([0.0, 60, 150, 200]).double()  # left of the object
    (places,) = detector.look(image, [bank], region=region)
    assert bool((places.columns[:, 3:] == 0).all())


def test_a_cards_key_points_are_those_of_poses(detector):
    whole = onboard_flat(torch.from_numpy(printed(3)), 0.2, name="book")
    card = replace(whole, templates=whole.templates[:3])
    bank = detector.onboard_card(card, max_templates=2)
    assert isinstance(bank, HybridBank)
    assert bank.learned.num_templates == 2
    (own,) = bank.prints
    assert torch.equal(own.features.descriptors, build_bank(card).descriptors)
    assert own.diameter == card.diameter


@pytest.fixture
def small_views(monkeypatch) -> None:
    """Cards of the generated task in the blink of an eye."""
    monkeypatch.setattr(exam_refdet, "onboard_mesh", partial(onboard_mesh, template_size=64))


@pytest.mark.usefixtures("small_views")
def test_two_calibrations_stand_side_by_side(weights, tmp_path, capsys):
    plain, both = tmp_path / "plain.safetensors", tmp_path / "both.safetensors"
    options = ["--limit", "6", "--false-alarms", "0.4"]
    assert main(["calibrate-detector", "--weights", str(weights), "--output", str(plain), *options]) == 0
    with pytest.raises(ValueError, match="calibrate-detector --detector hybrid"):
        HybridDetector.from_checkpoint(plain)
    command = ["calibrate-detector", "--detector", "hybrid", "--weights", str(plain), "--output", str(both)]
    assert main([*command, *options]) == 0
    extra, before = read_config(both).extra, read_config(plain).extra
    assert {name: extra[name] for name in before} == before
    assert len(extra["hybrid"]["rescoring"]) == 7
    made = HybridDetector.from_checkpoint(both)
    assert made.rescoring.tolist() == pytest.approx(extra["hybrid"]["rescoring"], rel=1e-6)
    assert made.settings.score_threshold == extra["hybrid"]["score_threshold"]
    learned = ReferenceDetector.from_checkpoint(both)
    assert learned.settings.score_threshold == before["score_threshold"]

    capsys.readouterr()
    exam = ["--detector", "hybrid", "--weights", str(both), "--split", "development", "--limit", "6"]
    assert main(["evaluate", "exam-detection", *exam]) == 0
    assert "hybrid both on exam-detection" in capsys.readouterr().out


def test_damaged_numbers_are_named(weights, tmp_path):
    stored = read_config(weights)
    model = ReferenceDetector.from_checkpoint(weights).model
    path = tmp_path / "damaged.safetensors"
    save_model(path, model, stored.config, {**stored.extra, "hybrid": {"rescoring": [0.0] * 7}})
    with pytest.raises(ValueError, match=r"damaged\.safetensors: damaged numbers"):
        HybridDetector.from_checkpoint(path)
    with pytest.raises(ValueError, match="expected 7 numbers, got 3"):
        HybridDetector(ReferenceDetector.from_checkpoint(weights), torch.zeros(3))


def test_the_verb(weights, tmp_path, capsys):
    stored = read_config(weights)
    model = ReferenceDetector.from_checkpoint(weights).model
    path = tmp_path / "both.safetensors"
    numbers = {"rescoring": WEIGHTS.tolist(), "score_threshold": 0.5}
    save_model(path, model, stored.config, {**stored.extra, "hybrid": numbers})
    cover = printed(4)
    write_image(tmp_path / "photos" / "book" / "front.png", cover)
    write_image(tmp_path / "table.png", scene(cover)[0])
    command = ["detect", str(tmp_path / "table.png"), "--card", str(tmp_path / "photos" / "book")]
    command += ["--detector", "hybrid", "--weights", str(path)]
    assert main([*command, "--output", str(tmp_path / "out")]) == 0
    written = tmp_path / "out" / "detections.json"
    (found,) = read_results(written).images[0].objects
    assert found.name == "book"
    assert '"hybrid both"' in written.read_text()
    capsys.readouterr()
    assert main([*command, "--flip"]) == 2
    assert "expected with --detector refdet, got --detector hybrid" in capsys.readouterr().err
