"""Detections at one threshold: counts, curves and false alarms."""

from __future__ import annotations

import math

import pytest
import torch

from sightline.metrics.detection import count_detections, count_false_alarms, precision_recall_curves
from sightline.metrics.intervals import wilson_interval
from sightline.records import Detections

SIZE = (400, 300)
A, B, C = [10, 10, 60, 60], [100, 100, 160, 160], [200, 50, 260, 110]


def record(boxes, names, scores=None):
    boxes = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    scores = torch.ones(len(boxes)) if scores is None else torch.tensor(scores)
    return Detections(boxes, scores, tuple(names), SIZE)


EMPTY = record([], [])


def test_counts():
    truths = [record([A, B], ["mug", "can"]), record([C], ["mug"])]
    detections = [record([A, B, C], ["mug", "mug", "can"], [0.9, 0.8, 0.7]), record([C], ["mug"], [0.4])]
    counts = count_detections(detections, truths)
    mug, can = counts.by_object["mug"], counts.by_object["can"]
    assert (mug.true_positives, mug.false_positives, mug.false_negatives) == (2, 1, 0)
    assert (can.true_positives, can.false_positives, can.false_negatives) == (0, 1, 1)
    overall = counts.overall
    assert (overall.true_positives, overall.false_positives, overall.false_negatives) == (2, 2, 1)
    assert overall.precision == 0.5
    assert overall.recall == pytest.approx(2 / 3)
    assert overall.f1 == pytest.approx(4 / 7)
    assert overall.mean_iou == 1


def test_score_threshold_includes_its_value():
    truths = [record([A, B], ["mug"] * 2)]
    detections = [record([A, B, C], ["mug"] * 3, [0.75, 0.5, 0.25])]
    counts = [
        count_detections(detections, truths, min_score=score).overall for score in (0.25, 0.5, 0.51, 0.8)
    ]
    assert [(c.true_positives, c.false_positives, c.false_negatives) for c in counts] == [
        (2, 1, 0),
        (2, 0, 0),
        (1, 0, 1),
        (0, 0, 2),
    ]
    assert math.isnan(counts[-1].precision)
    assert counts[-1].recall == counts[-1].f1 == 0
    assert math.isnan(counts[-1].mean_iou)


def test_overlap_threshold_includes_its_value():
    truths, detections = [record([[0, 0, 100, 100]], ["mug"])], [record([[0, 0, 100, 50]], ["mug"])]
    found = count_detections(detections, truths, min_iou=0.5).overall
    assert (found.true_positives, found.mean_iou) == (1, 0.5)
    assert count_detections(detections, truths, min_iou=0.501).overall.true_positives == 0


def test_the_surest_chooses_first_and_takes_the_best_overlap():
    near = [12, 10, 62, 60]
    truths = [record([near, A], ["mug"] * 2)]
    # the surer detection lies on A, whichever comes first in the list
    for scores in ([0.9, 0.3], [0.3, 0.9]):
        boxes = [A, [14, 10, 64, 60]] if scores[0] > scores[1] else [[14, 10, 64, 60], A]
        counts = count_detections([record(boxes, ["mug"] * 2, scores)], truths).overall
        assert counts.true_positives == 2
        assert counts.mean_iou == pytest.approx((1 + 48 / 52) / 2)


def test_a_truth_is_found_once():
    counts = count_detections([record([A, A], ["mug"] * 2, [0.9, 0.8])], [record([A], ["mug"])]).overall
    assert (counts.true_positives, counts.false_positives) == (1, 1)


def test_other_objects_do_not_match_whatever_the_threshold():
    counts = count_detections([record([A], ["can"])], [record([A], ["mug"])], min_iou=0.0)
    assert counts.overall.true_positives == 0
    assert counts.by_object["can"].false_positives == counts.by_object["mug"].false_negatives == 1


def test_ignored_truths_count_neither_way():
    truths, ignored = [record([A, B], ["mug"] * 2)], [torch.tensor([False, True])]
    found = count_detections([record([A, B], ["mug"] * 2)], truths, ignored=ignored).overall
    assert (found.true_positives, found.false_positives, found.false_negatives) == (1, 0, 0)
    missed = count_detections([EMPTY], truths, ignored=ignored).overall
    assert missed.false_negatives == 1


def test_curve():
    truths = [record([A, B], ["mug"] * 2), record([C], ["can"])]
    detections = [record([C, A], ["mug"] * 2, [0.8, 0.6]), record([C], ["can"], [0.7])]
    curves = precision_recall_curves(detections, truths)
    torch.testing.assert_close(curves.overall.scores, torch.tensor([0.8, 0.7, 0.6]).double())
    assert curves.overall.precision.tolist() == pytest.approx([0, 1 / 2, 2 / 3])
    assert curves.overall.recall.tolist() == pytest.approx([0, 1 / 3, 2 / 3])
    assert curves.by_object["mug"].precision.tolist() == pytest.approx([0, 1 / 2])
    assert curves.by_object["mug"].recall.tolist() == pytest.approx([0, 1 / 2])


def test_curve_leaves_out_what_counts_neither_way():
    truths, ignored = [record([A, B], ["mug"] * 2)], [torch.tensor([True, False])]
    curve = precision_recall_curves(
        [record([A, B], ["mug"] * 2, [0.9, 0.8])], truths, ignored=ignored
    ).overall
    assert (curve.precision.tolist(), curve.recall.tolist()) == ([1], [1])


def test_curve_and_counts_agree():
    generator = torch.Generator().manual_seed(0)
    truths, detections = [], []
    for _ in range(12):
        corner = 100 * torch.rand(3, 2, generator=generator)
        boxes = torch.cat([corner, corner + 60], 1)
        truths.append(Detections(boxes, torch.ones(3), ("mug", "can", "mug"), SIZE))
        moved = boxes + 20 * torch.rand(3, 1, generator=generator)
        detections.append(Detections(moved, torch.rand(3, generator=generator), ("can", "mug", "mug"), SIZE))
    curves = precision_recall_curves(detections, truths)
    for index, score in enumerate(curves.overall.scores.tolist()):
        counts = count_detections(detections, truths, min_score=score).overall
        assert counts.precision == pytest.approx(curves.overall.precision[index].item())
        assert counts.recall == pytest.approx(curves.overall.recall[index].item())
    assert 0 < curves.overall.recall[-1] < 1


def test_false_alarms():
    truths = [EMPTY, EMPTY, EMPTY, record([A], ["mug"])]
    detections = [
        record([A, B], ["mug", "mug"], [0.9, 0.3]),
        record([A], ["can"], [0.5]),
        EMPTY,
        record([A, C], ["mug", "can"]),
    ]
    alarms = count_false_alarms(detections, truths)
    assert (alarms.overall.num_empty, alarms.overall.num_alarmed, alarms.overall.num_alarms) == (3, 2, 3)
    assert alarms.overall.interval == wilson_interval(2, 3)
    mug, can = alarms.by_object["mug"], alarms.by_object["can"]
    assert (mug.num_empty, mug.num_alarmed, mug.num_alarms) == (3, 1, 2)
    assert (can.num_empty, can.num_alarmed, can.num_alarms, can.rate) == (4, 2, 2, 0.5)
    # the score decides what is an alarm, its own value included
    assert count_false_alarms(detections, truths, min_score=0.5).overall.num_alarms == 2
    assert count_false_alarms(detections, truths, min_score=0.6).overall.rate == pytest.approx(1 / 3)


def test_nothing_at_all():
    for pictures in ([], [EMPTY]):
        counts = count_detections(pictures, pictures)
        assert counts.by_object == {}
        assert math.isnan(counts.overall.f1)
        assert len(precision_recall_curves(pictures, pictures).overall.scores) == 0
    assert math.isnan(count_false_alarms([], []).overall.rate)
    assert count_false_alarms([], []).overall.interval == (0, 1)


def test_missed_pictures():
    counts = count_detections([EMPTY, EMPTY], [record([A], ["mug"]), EMPTY]).overall
    assert (counts.recall, counts.false_negatives) == (0, 1)


@pytest.mark.parametrize("score", [count_detections, precision_recall_curves, count_false_alarms])
def test_lists_of_unequal_length_are_refused(score):
    with pytest.raises(ValueError, match="one record a picture, 1, got 2"):
        score([EMPTY], [EMPTY, EMPTY])
