"""Look-alikes and rivals: who has a place."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sightline.formats.refdet_templates import TemplatePicture
from sightline.geometry.boxes import iou
from sightline.geometry.nms import nms_mask
from sightline.refdet.bank_detector import DetectorSettings
from sightline.refdet.detector import ConvNeXtRefDet
from sightline.refdet.reference_detector import ReferenceDetector
from sightline.refdet.selection import Proposals, compete, select, suppress_explained

HERE, NEAR, THERE = [0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 10.0, 8.0], [30.0, 0.0, 40.0, 10.0]


def proposals(*boxes_and_scores: tuple[list[float], float]) -> Proposals:
    boxes = torch.tensor([box for box, _ in boxes_and_scores], dtype=torch.float64).view(-1, 4)
    return Proposals(boxes, torch.tensor([score for _, score in boxes_and_scores], dtype=torch.float64))


def test_a_look_alike_takes_only_what_it_explains_better():
    found = proposals((HERE, 0.6), (THERE, 0.6))
    assert suppress_explained(found, [proposals((NEAR, 0.7))]).boxes.tolist() == [THERE]
    assert len(suppress_explained(found, [proposals((NEAR, 0.5))]).scores) == 2  # less sure
    assert len(suppress_explained(found, [proposals((NEAR, 0.6))]).scores) == 2  # no surer
    assert len(suppress_explained(found, [proposals((NEAR, 0.7))], min_iou=0.9).scores) == 2  # elsewhere
    assert len(suppress_explained(found, []).scores) == 2
    assert not len(suppress_explained(found, [proposals((THERE, 0.9)), proposals((HERE, 0.9))]).scores)


def test_rivals_compete_but_not_with_themselves():
    left = compete({"a": proposals((HERE, 0.6), (NEAR, 0.5)), "b": proposals((HERE, 0.55))}, 0.7)
    assert left["a"].scores.tolist() == [0.6, 0.5]
    assert not len(left["b"].scores)
    assert compete({}, 0.5) == {}


def test_a_beaten_rival_beats_nobody():
    """c loses to nobody: b, which would beat it, has lost to a."""
    a, b, c = [0.0, 0.0, 10.0, 10.0], [2.0, 0.0, 12.0, 10.0], [4.0, 0.0, 14.0, 10.0]
    left = compete({"a": proposals((a, 0.9)), "b": proposals((b, 0.8)), "c": proposals((c, 0.7))}, 0.5)
    assert [len(left[name].scores) for name in "abc"] == [1, 0, 1]


@pytest.mark.parametrize("seed", range(5))
def test_between_groups_equals_a_loop(seed):
    generator = torch.Generator().manual_seed(seed)
    low = torch.rand(60, 2, generator=generator) * 3
    boxes = torch.cat([low, low + 0.5 + torch.rand(60, 2, generator=generator)], dim=1)
    scores = torch.rand(60, generator=generator)
    groups = torch.randint(0, 3, (60,), generator=generator)
    kept: list[int] = []
    for i in scores.argsort(descending=True).tolist():
        rivals = [j for j in kept if groups[i] != groups[j]]
        if all(float(iou(boxes[i], boxes[j])) <= 0.3 for j in rivals):
            kept.append(i)
    mask = nms_mask(boxes, scores, 0.3, groups=groups, between_groups=True)
    assert sorted(kept) == mask.nonzero().flatten().tolist()


def test_instances_are_counted_after_look_alikes_are_gone():
    found = {"a": proposals((HERE, 0.9), (THERE, 0.6))}
    chosen = select(found, (64, 48), negatives=[proposals((HERE, 0.95))], max_instances=1)
    assert chosen.boxes.tolist() == [THERE]


def test_selection_sorts_clips_and_names():
    found = {"a": proposals(([-5.0, 0.0, 5.0, 70.0], 0.5)), "b": proposals((THERE, 0.8), (HERE, 0.1))}
    chosen = select(found, (64, 48))
    assert chosen.names == ("b", "a", "b")
    assert chosen.boxes[1].tolist() == [-0.5, 0.0, 5.0, 47.5]
    assert len(select({}, (64, 48))) == 0
    assert len(select({"a": Proposals.none()}, (64, 48), rival_iou=0.5, negatives=[Proposals.none()])) == 0


def test_an_object_is_its_own_best_look_alike():
    """With its own bank as negative nothing is better; with rivals of equal banks the first name wins."""
    torch.manual_seed(0)
    model = ConvNeXtRefDet(16, 8, 16, backbone="nano", detection_stride=8, template_scales=(1.0,))
    detector = ReferenceDetector(model, DetectorSettings((96, 64), (64, 64), score_threshold=0.001))
    image = np.random.default_rng(0).integers(0, 255, (64, 96, 3), dtype=np.uint8)
    bank = detector.onboard([TemplatePicture(image[:40, :40])])
    alone = detector.detect(image, {"a": bank})
    accused = detector.detect(image, {"a": bank}, negatives=[bank])
    assert torch.equal(accused.boxes[0], alone.boxes[0])
    both = detector.detect(image, {"a": bank, "b": bank})
    assert set(both.names[: len(alone)]) == {"a"}
