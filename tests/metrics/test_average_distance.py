"""ADD(-S) recall and area under its curve."""

from __future__ import annotations

import math

import pytest
import torch

from sightline.metrics.average_distance import average_distance_scores
from sightline.metrics.pose_pairs import PairErrors

F64 = torch.float64


def pair(add, *, name="mug", diameter=0.2, visibility=None, picture=0):
    table = torch.tensor(add, dtype=F64)
    estimates, truths = table.shape
    scores = torch.linspace(1, 0.5, estimates, dtype=F64)
    visibility = torch.ones(truths, dtype=F64) if visibility is None else torch.tensor(visibility, dtype=F64)
    rank = torch.arange(estimates)
    return PairErrors(picture, name, rank, scores, visibility, None, diameter, table, table, table, None)


def test_literals():
    pairs = [
        pair([[0.01]]),
        pair([[0.03]], picture=1),
        pair([[0.2]], picture=2),
        pair([[0.03]], name="box", diameter=0.4),
    ]
    scores = average_distance_scores(pairs)
    mug, box = scores.by_object["mug"], scores.by_object["box"]
    assert (mug.recall, mug.num_truths) == (pytest.approx(1 / 3), 3)  # below 0.02
    assert mug.auc == pytest.approx((0.9 + 0.7 + 0) / 3)
    assert mug.auc_diameter == pytest.approx(0.5 / 3)
    assert mug.median == 0.03
    assert (box.recall, box.auc, box.auc_diameter) == (1, pytest.approx(0.7), pytest.approx(0.25))
    assert scores.overall.recall == 0.5
    assert scores.overall.auc == pytest.approx((0.9 + 0.7 + 0 + 0.7) / 4)
    assert scores.overall.num_truths == 4


def test_an_error_of_exactly_a_tenth_is_wrong():
    assert average_distance_scores([pair([[0.1 * 0.2]])]).overall.recall == 0


def test_instances_without_an_estimate_are_missed():
    missed = pair([[0.0]], picture=0), pair(torch.zeros(0, 1).tolist() or [[math.nan]], picture=1)
    scores = average_distance_scores(missed).overall
    assert (scores.recall, scores.auc, scores.num_truths) == (0.5, 0.5, 2)


def test_surest_estimates_stand_for_the_instances():
    # three estimates of two instances: the third is not looked at, the first takes the nearer instance
    table = [[0.05, 0.004], [0.01, 0.002], [0.0, 0.0]]
    scores = average_distance_scores([pair(table)]).overall
    assert scores.auc == pytest.approx((1 - 0.04 + 1 - 0.1) / 2)


def test_hardly_visible_instances_need_not_be_found():
    assert average_distance_scores([pair([[0.0, 0.5]], visibility=[0.5, 0.05])]).overall.num_truths == 1


def test_nothing_to_find():
    scores = average_distance_scores([])
    assert scores.overall.num_truths == 0
    assert math.isnan(scores.overall.recall)
    assert math.isnan(scores.overall.median)
    assert scores.by_object == {}
