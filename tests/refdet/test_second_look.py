"""The second look: where crops are cut, how both looks become one score, and what it changes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from sightline.formats.refdet_templates import TemplatePicture
from sightline.objects.card_files import load_card, save_card
from sightline.objects.photos import onboard_flat
from sightline.refdet.bank_detector import DetectorSettings
from sightline.refdet.detector import ConvNeXtRefDet
from sightline.refdet.reference_detector import ReferenceDetector
from sightline.refdet.second_look import (
    MARGIN,
    Looked,
    crop_regions,
    cut_crops,
    fit_rescoring,
    joined_logits,
    look_again,
    look_twice,
    own_likeness,
    rescored,
)
from sightline.refdet.selection import Proposals


@pytest.fixture(scope="module")
def detector() -> ReferenceDetector:
    torch.manual_seed(0)
    model = ConvNeXtRefDet(16, 8, 16, backbone="nano", detection_stride=8, template_scales=(1.0,))
    return ReferenceDetector(model, DetectorSettings((128, 96), (64, 64), score_threshold=0.0))


def checks(width: int, height: int) -> np.ndarray:
    rows, columns = np.mgrid[:height, :width]
    return np.stack([(rows * 3) % 256, (columns * 5) % 256, (rows // 8 + columns // 8) % 2 * 255], -1).astype(
        np.uint8
    )


def test_a_crop_shows_its_box_with_a_margin_in_the_middle():
    image = np.zeros((90, 120, 3), np.uint8)
    image[20:60, 30:50] = 255
    box = torch.tensor([[29.5, 19.5, 49.5, 59.5]])
    crop = cut_crops(image, crop_regions(box, (48, 96)), (48, 96))[0]
    assert crop.shape == (3, 96, 48)
    bright = (crop[0] > 0.5).nonzero()
    size = bright.amax(0) - bright.amin(0) + 1
    # 20 x 40 with a margin of 4 is 28 x 48: its width limits it in a frame of 48 x 96
    assert size.tolist() == pytest.approx([40 * 48 / 28, 20 * 48 / 28], abs=1.5)
    middle = (bright.amax(0) + bright.amin(0)) / 2
    assert middle.tolist() == pytest.approx([47.5, 23.5], abs=1.0)
    assert MARGIN == 0.1
    outside = cut_crops(image, crop_regions(torch.tensor([[-20.5, -20.5, 9.5, 9.5]]), (32, 32)), (32, 32))
    assert outside[0, 0, 0, 0] > 0.3  # filled, not black


def test_the_evidence_of_a_template_for_itself_is_the_highest(detector):
    generator = torch.Generator().manual_seed(1)
    pictures = torch.rand(3, 3, 64, 64, generator=generator)
    bank = detector.model.encode_templates(pictures[:, None])
    evidence = look_again(detector.model, pictures, bank).evidence
    assert evidence.shape == (3, 3)
    assert (evidence.argmax(1) == torch.arange(3)).all()
    single = look_again(detector.model, pictures, bank.select([1])).evidence
    assert torch.allclose(single[0], evidence[1], atol=1e-4)


def test_the_best_places_are_looked_at_once_each(detector):
    image, bank = checks(120, 90), detector.onboard([TemplatePicture(checks(40, 30))])
    boxes = torch.tensor(
        [[0, 0, 30, 30], [1, 0, 31, 30], [60, 10, 90, 40], [5, 5, 5.5, 40], [80, 50, 110, 80]]
    ).double()
    found = Proposals(boxes, torch.tensor([0.3, 0.4, 0.2, 0.9, 0.1]).double())
    looked = look_twice(detector.model, image, found, bank, (64, 64), most=2)
    # not the thin one, and not the same place twice: its box is the mean of both, by their scores
    together = (0.3 * boxes[0] + 0.4 * boxes[1]) / 0.7
    assert torch.allclose(looked.boxes, torch.stack([together, boxes[2]]))
    assert torch.allclose(looked.logits.sigmoid(), torch.tensor([0.4, 0.2]).double())
    nothing = look_twice(detector.model, image, Proposals.none(), bank, (64, 64))
    assert len(nothing.evidence) == len(rescored(detector.model, nothing).scores) == 0


def test_both_looks_make_one_probability(detector):
    model = ConvNeXtRefDet(**detector.model.config)
    boxes = torch.tensor([[0.0, 0, 9, 9], [20, 0, 29, 9]]).double()
    said = torch.tensor([[1.0, -1.0], [2.0, 4.0], [0.8, 0.8]]).double()
    looked = Looked(boxes, *said)
    assert torch.allclose(rescored(model, looked).scores, looked.logits.sigmoid())  # until it is fitted
    model.rescoring.copy_(torch.tensor([-3.0, 0.6, 0.5, 1.0, 0.0]))
    assert torch.allclose(rescored(model, looked).scores, torch.tensor([-0.5, 0.5]).double().sigmoid())
    # templates that are more alike than usual ask for more
    model.rescoring.copy_(torch.tensor([-3.0, 0.6, 0.5, 1.0, -5.0]))
    assert torch.allclose(rescored(model, looked).scores, torch.tensor([-1.5, -0.5]).double().sigmoid())
    single = looked._replace(likeness=torch.zeros(2).double())  # of which nothing is known
    assert torch.allclose(rescored(model, single).scores, torch.tensor([-0.5, 0.5]).double().sigmoid())


def test_the_fit_finds_the_weights_that_made_the_labels():
    generator = torch.Generator().manual_seed(2)
    columns = 3 * torch.randn(20_000, 4, generator=generator).double()
    columns[:, 1] += 10
    columns[:, 2] = 2 + columns[:, 2] / 3
    columns[::10, 2] = 0  # objects of a single template
    true = torch.tensor([-16.0, 2.0, 0.5, 1.5, -1.0, 0.7]).double()
    right = torch.rand(len(columns), generator=generator) < joined_logits(columns, true).sigmoid()
    weights = fit_rescoring(columns, right)
    assert torch.allclose(weights, true, atol=0.15, rtol=0.05)
    assert float(weights[1]) == pytest.approx(float(columns[:, 2][columns[:, 2] != 0].mean()))
    divided = fit_rescoring(torch.arange(120).view(40, 3).double(), torch.arange(40) > 20)
    assert divided.isfinite().all()
    with pytest.raises(ValueError, match="both kinds"):
        fit_rescoring(columns, torch.ones(len(columns), dtype=torch.bool))


def test_likeness_is_of_different_templates(detector):
    generator = torch.Generator().manual_seed(3)
    pictures = torch.rand(4, 3, 64, 64, generator=generator)
    pictures[1] = pictures[0]
    bank = detector.model.encode_templates(
        pictures[None].expand(3, -1, -1, -1, -1),
        valid=torch.tensor([[1, 1, 0, 0], [1, 0, 1, 1], [0, 0, 0, 1]]).bool(),
    )
    twins, strangers, single = own_likeness(detector.model, bank).tolist()
    levels = len(detector.model.late_strides)
    assert twins == pytest.approx(levels, abs=1e-4)  # each finds itself in the other
    assert 0 < strangers < 0.99 * levels
    assert single == 0
    # what a picture finds in another is what the second look finds in a crop of it
    pair = detector.model.encode_templates(pictures[2:][None])
    sharpness = detector.model.log_sharpness.detach().exp()
    one, other = (detector.model.encode_templates(each[None, None]) for each in pictures[2:])
    with torch.no_grad():
        there = look_again(detector.model, pictures[3:], one).evidence
        back = look_again(detector.model, pictures[2:3], other).evidence
    expected = float((there + back) / 2 / sharpness)
    assert own_likeness(detector.model, pair).tolist() == pytest.approx([expected], abs=1e-4)


def test_a_bank_of_an_earlier_version_gets_its_likeness(detector, tmp_path):
    front, back = checks(60, 60), checks(60, 60)[::-1].copy()
    flat = [onboard_flat(torch.from_numpy(each), 0.1, name="thing") for each in (front, back)]
    card = replace(flat[0], templates=tuple(each.templates[0] for each in flat))
    save_card(card, tmp_path / "thing")
    card = load_card(tmp_path / "thing")
    bank = detector.onboard_card(card)
    assert bank.likeness is not None
    assert float(bank.likeness) > 0
    (path,) = (tmp_path / "thing" / "features").iterdir()
    with safe_open(path, framework="pt") as stored:
        metadata = stored.metadata()
    tensors = load_file(path)
    kept = tensors.pop("likeness")
    assert torch.equal(kept, bank.likeness)
    save_file(tensors, path, metadata=metadata)
    assert torch.allclose(detector.onboard_card(card).likeness, kept)


def test_a_detector_looks_twice_once_it_has_learned_to(detector):
    model = ConvNeXtRefDet(**detector.model.config)
    model.load_state_dict(detector.model.state_dict())
    own = ReferenceDetector(model, detector.settings)
    image = checks(120, 90)
    banks = {"thing": own.onboard([TemplatePicture(image[10:50, 20:70])])}
    once = own.detect(image, banks)
    model.rescoring.copy_(torch.tensor([0.0, 0.0, 0.0, 1.0, 0.0]))
    twice = own.detect(image, banks)
    assert 0 < len(twice) <= own.settings.second_looks < len(once)
    regions = crop_regions(twice.boxes[:1], own.settings.template_size)
    crops = cut_crops(image, regions, own.settings.template_size)
    with torch.no_grad():
        evidence = look_again(model, crops, banks["thing"]).evidence[0, 0]
    assert float(evidence.sigmoid()) == pytest.approx(float(twice.scores[0]), abs=1e-4)
    own.settings = replace(own.settings, second_looks=0)
    assert len(own.detect(image, banks)) == len(once)


def test_fingerprints_are_of_what_makes_banks(detector):
    model = ConvNeXtRefDet(**detector.model.config)
    model.load_state_dict(detector.model.state_dict())
    model.rescoring.copy_(torch.tensor([0.0, 0.0, 0.0, 1.0, 0.0]))
    assert ReferenceDetector(model).fingerprint == detector.fingerprint
    refining = ConvNeXtRefDet(**dict(detector.model.config, refine_boxes=True))
    refining.load_state_dict(model.state_dict(), strict=False)
    assert ReferenceDetector(refining).fingerprint == detector.fingerprint
    with torch.no_grad():
        model.fpn.state_dict()[next(iter(model.fpn.state_dict()))].add_(0.1)
    assert ReferenceDetector(model).fingerprint != detector.fingerprint


def test_a_smaller_picture_is_searched_too(detector, monkeypatch):
    model = ConvNeXtRefDet(**detector.model.config)
    model.load_state_dict(detector.model.state_dict())
    own = ReferenceDetector(model, replace(detector.settings, search_scales=(1.0, 0.5)))
    sizes = []
    features = model.search_features
    monkeypatch.setattr(model, "search_features", lambda x: sizes.append(tuple(x.shape[-2:])) or features(x))
    image = checks(120, 90)
    bank = own.onboard([TemplatePicture(image[10:50, 20:70])])
    (both,) = own.look_once(image, [bank], score_threshold=0.0)
    assert sizes == [(96, 128), (48, 64)]
    own.settings = replace(own.settings, search_scales=(1.0,))
    (once,) = own.look_once(image, [bank], score_threshold=0.0)
    places = {tuple(box) for box in once.boxes.tolist()}
    fresh = [box for box in both.boxes.tolist() if tuple(box) not in places]
    assert fresh  # boxes that only the smaller picture gave
    assert len(fresh) < len(both.scores)
    with pytest.raises(ValueError, match="search_scales"):
        replace(own.settings, search_scales=(0.5,))
