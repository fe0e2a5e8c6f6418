"""COCO's AP: hand-made cases, our own matching and curves as an independent reference, silence."""

from __future__ import annotations

import math

import pytest
import torch

from sightline.geometry.boxes import iou
from sightline.metrics.coco import COCO_IOUS, coco_scores
from sightline.metrics.curves import average_precision, interpolated_precision
from sightline.metrics.matching import match_greedily
from sightline.records import Detections

F64 = torch.float64
SIZE = (400, 300)
EMPTY = Detections(torch.zeros(0, 4), torch.zeros(0), (), SIZE)


def record(boxes, names, scores=None, **options):
    boxes = torch.tensor(boxes, dtype=F64).reshape(-1, 4)
    scores = torch.ones(len(boxes)) if scores is None else torch.tensor(scores, dtype=F64)
    return Detections(boxes, scores, tuple(names), options.pop("image_size", SIZE), **options)


def random_pictures(count, seed):
    """Truths, and detections that jitter, miss and imagine."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(*shape):
        return torch.rand(*shape, generator=generator, dtype=F64)

    truths, detections = [], []
    for _ in range(count):
        number = int(4 * uniform(1))
        corner, size = 200 * uniform(number, 2), 5 + 120 * uniform(number, 2)
        boxes = torch.cat([corner, corner + size], 1)
        names = tuple("mug" if coin < 0.6 else "can" for coin in uniform(number).tolist())
        truths.append(Detections(boxes, torch.ones(number), names, SIZE))
        keep = uniform(number) < 0.85
        found = boxes[keep] + 0.15 * size[keep].repeat(1, 2) * (uniform(int(keep.sum()), 4) - 0.5)
        corner = 200 * uniform(2, 2)
        found = torch.cat([found, torch.cat([corner, corner + 50], 1)])
        found_names = [name for name, kept in zip(names, keep.tolist(), strict=True) if kept] + ["mug", "can"]
        detections.append(Detections(found, uniform(len(found)), tuple(found_names), SIZE))
    return detections, truths


def reference_precision(detections, truths, name):
    """(10, n) verdicts of all detections of one object by falling score, from our own matching."""
    right, scores, wanted = [], [], 0
    for record, truth in zip(detections, truths, strict=True):
        rows = [row for row, found in enumerate(record.names) if found == name]
        rows = sorted(rows, key=lambda row: -record.scores[row])
        columns = [row for row, true_name in enumerate(truth.names) if true_name == name]
        overlap = iou(record.boxes[rows][:, None], truth.boxes[columns])
        right.append(match_greedily(-overlap, -torch.tensor(COCO_IOUS, dtype=F64), inclusive=True) >= 0)
        scores.append(record.scores[rows])
        wanted += len(columns)
    order = torch.cat(scores).argsort(descending=True)
    return torch.cat(right, 1)[:, order].double(), torch.tensor(float(wanted), dtype=F64).expand(10)


def test_equals_own_matching_and_curve():
    detections, truths = random_pictures(40, 0)
    score = coco_scores(detections, truths)
    by_object = {}
    for name in ("can", "mug"):
        right, wanted = reference_precision(detections, truths, name)
        curve = interpolated_precision(right, 1 - right, wanted)
        torch.testing.assert_close(score.precision[name], curve, rtol=0, atol=1e-12)
        ap = average_precision(right, 1 - right, wanted)
        by_object[name] = ap.mean().item()
        assert score.by_object50[name] == pytest.approx(ap[0].item(), abs=1e-12)
    assert score.by_object == pytest.approx(by_object, abs=1e-12)
    assert score.ap == pytest.approx(sum(by_object.values()) / 2, abs=1e-12)
    assert score.ap50 == pytest.approx(sum(score.by_object50.values()) / 2, abs=1e-12)
    assert 0.2 < score.ap < score.ap75 < score.ap50 < 1


def test_order_of_detections_and_pictures_does_not_matter():
    detections, truths = random_pictures(20, 1)
    order = torch.randperm(20, generator=torch.Generator().manual_seed(0)).tolist()
    flipped = [Detections(d.boxes.flip(0), d.scores.flip(0), d.names[::-1], SIZE) for d in detections]
    again = coco_scores([flipped[i] for i in order], [truths[i] for i in order])
    assert again.by_object == pytest.approx(coco_scores(detections, truths).by_object, abs=1e-12)


def test_perfect_detections_score_one():
    _, truths = random_pictures(20, 2)
    truths.append(record([[100, 100, 250, 250]], ["mug"]))
    score = coco_scores(truths, truths)
    figures = score.ap, score.ap50, score.ap75, score.ap_small, score.ap_medium, score.ap_large, score.ar
    assert figures == pytest.approx([1] * 7)


def test_sizes_are_told_apart():
    small, medium, large = [10, 10, 30, 30], [50, 50, 100, 100], [100, 100, 250, 250]
    truth = record([small, medium, large], ["mug"] * 3)
    found = record([small, large], ["mug"] * 2, [0.9, 0.8])
    score = coco_scores([found], [truth])
    assert (score.ap_small, score.ap_medium, score.ap_large) == (1, 0, 1)
    assert score.ar == pytest.approx(2 / 3)


def test_an_imagined_object_in_an_empty_picture_is_wrong():
    box = [10, 10, 60, 60]
    truths = [record([box], ["mug"]), EMPTY]
    detections = [record([box], ["mug"], [0.5]), record([box], ["mug"], [0.9])]
    assert coco_scores(detections, truths).ap == pytest.approx(0.5)
    assert coco_scores(detections[:1], truths[:1]).ap == 1


def test_overlap_decides():
    truth = record([[0, 0, 100, 100]], ["mug"])
    score = coco_scores([record([[0, 0, 100, 72]], ["mug"])], [truth])  # IoU 0.72: right at 0.5, 0.55 ... 0.7
    assert (score.ap, score.ap50, score.ap75) == (pytest.approx(0.5), 1, 0)
    score = coco_scores([record([[0, 0, 100, 77]], ["mug"])], [truth])
    assert (score.ap, score.ap75) == (pytest.approx(0.6), 1)


def test_ignored_truths_count_neither_way():
    boxes = [[10, 10, 60, 60], [100, 100, 160, 160]]
    truth, ignored = record(boxes, ["mug"] * 2), [torch.tensor([False, True])]
    assert coco_scores([record(boxes[:1], ["mug"])], [truth], ignored=ignored).ap == 1
    assert coco_scores([record(boxes, ["mug"] * 2, [0.5, 0.9])], [truth], ignored=ignored).ap == 1
    # a second detection of the ignored truth is wrong, as the flag for crowds would not have it
    twice = record([boxes[0], boxes[1], boxes[1]], ["mug"] * 3, [0.5, 0.9, 0.8])
    assert coco_scores([twice], [truth], ignored=ignored).ap == pytest.approx(0.5)


def test_only_so_many_detections_are_looked_at():
    truth = record([[10, 10, 60, 60]], ["mug"])
    found = record([[100, 100, 150, 150], [10, 10, 60, 60]], ["mug"] * 2, [0.9, 0.8])
    assert coco_scores([found], [truth]).ap == pytest.approx(0.5)
    assert coco_scores([found], [truth], max_detections=1).ap == 0


def test_masks_of_whole_boxes_score_as_the_boxes():
    generator = torch.Generator().manual_seed(3)
    pictures = []
    for _ in range(2):
        corner = torch.randint(0, 30, (4, 2), generator=generator)
        boxes = torch.cat([corner, corner + torch.randint(8, 30, (4, 2), generator=generator)], 1)
        masks = torch.zeros(4, 64, 64, dtype=torch.bool)
        for mask, (x1, y1, x2, y2) in zip(masks, boxes.tolist(), strict=True):
            mask[y1:y2, x1:x2] = True
        scores = torch.rand(4, generator=generator)
        pictures.append(Detections(boxes.double(), scores, ("mug",) * 4, (64, 64), masks))
    found, truth = pictures
    by_mask = coco_scores([found, truth], [truth, truth], kind="masks")
    by_box = coco_scores([found, truth], [truth, truth])
    assert by_mask.ap == pytest.approx(by_box.ap, abs=1e-12)
    assert 0 < by_mask.ap < 1


def test_nothing_to_find():
    for truths in ([], [EMPTY]):
        score = coco_scores(truths, truths)
        assert math.isnan(score.ap)
        assert math.isnan(score.ar)
        assert score.by_object == {}
    assert coco_scores([EMPTY], [record([[0, 0, 9, 9]], ["mug"])]).ap == 0


def test_objects_that_are_nowhere_are_left_out():
    box = [10, 10, 60, 60]
    score = coco_scores([record([box, box], ["mug", "can"])], [record([box], ["mug"])])
    assert (score.ap, list(score.by_object)) == (1, ["mug"])


def test_says_nothing(capfd):
    detections, truths = random_pictures(3, 4)
    coco_scores(detections, truths)
    assert capfd.readouterr() == ("", "")


def test_faulty_input_is_refused():
    truth = record([[0, 0, 9, 9]], ["mug"])
    with pytest.raises(ValueError, match="one record a picture, 1, got 0"):
        coco_scores([truth], [])
    with pytest.raises(ValueError, match="picture 0 has none"):
        coco_scores([truth], [truth], kind="masks")
    with pytest.raises(ValueError, match="ignored"):
        coco_scores([truth], [truth], ignored=[torch.tensor([True, False])])
