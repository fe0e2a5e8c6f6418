"""Curves and areas: a loop over recall levels, numeric integration, literals."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from sightline.metrics.curves import (
    area_under_recall,
    average_precision,
    interpolated_precision,
    recall_below,
    recall_levels,
)
from tests.tolerances import tolerance

F64 = torch.float64


def naive_average_precision(right, wrong, num_truths):
    points, hits, misses = [], 0.0, 0.0
    for r, w in zip(right, wrong, strict=True):
        hits, misses = hits + r, misses + w
        if hits + misses > 0:
            points.append((hits / num_truths, hits / (hits + misses)))
    levels = np.linspace(0, 1, 101)
    return np.mean([max((p for recall, p in points if recall >= level), default=0) for level in levels])


def test_recall_levels_are_numpys():
    assert np.array_equal(recall_levels().numpy(), np.linspace(0, 1, 101))


@given(verdicts=st.lists(st.sampled_from("rwi"), max_size=30), missed=st.integers(0, 5))
def test_average_precision_equals_loop(verdicts, missed):
    right = torch.tensor([v == "r" for v in verdicts]).double()
    wrong = torch.tensor([v == "w" for v in verdicts]).double()
    num_truths = right.sum() + missed
    ours = average_precision(right, wrong, num_truths)
    if num_truths == 0:
        assert ours.isnan()
    else:
        wanted = naive_average_precision(right.tolist(), wrong.tolist(), num_truths.item())
        assert ours.item() == pytest.approx(wanted, abs=1e-12)


def test_batches_are_independent():
    generator = torch.Generator().manual_seed(0)
    right = (torch.rand(3, 4, 20, generator=generator) > 0.5).double()
    num_truths = torch.tensor([[12.0], [20.0], [0.0]], dtype=F64).expand(3, 4)
    together = average_precision(right, 1 - right, num_truths)
    assert together[2].isnan().all()
    for i in range(2):
        for j in range(4):
            alone = average_precision(right[i, j], 1 - right[i, j], num_truths[i, j])
            torch.testing.assert_close(together[i, j], alone, **tolerance(F64, "exact"))


def test_weights_count_a_detection_that_often():
    right = torch.tensor([1.0, 0.0, 1.0, 0.0, 1.0], dtype=F64)
    weights = torch.tensor([2.0, 0.0, 1.0, 3.0, 1.0], dtype=F64)
    repeats = weights.long()
    spelled_out = right.repeat_interleave(repeats)
    torch.testing.assert_close(
        average_precision(right * weights, (1 - right) * weights, torch.tensor(5.0, dtype=F64)),
        average_precision(spelled_out, 1 - spelled_out, torch.tensor(5.0, dtype=F64)),
        **tolerance(F64),
    )


def test_precision_is_made_monotone():
    right = torch.tensor([0.0, 1.0, 1.0, 1.0], dtype=F64)
    curve = interpolated_precision(right, 1 - right, torch.tensor(4.0, dtype=F64))
    assert curve[:76].eq(0.75).all()
    assert curve[76:].eq(0).all()


def test_perfect_and_hopeless():
    ones = torch.ones(7, dtype=F64)
    assert average_precision(ones, 0 * ones, torch.tensor(7.0, dtype=F64)).item() == 1
    assert average_precision(0 * ones, ones, torch.tensor(7.0, dtype=F64)).item() == 0
    assert average_precision(ones[:0], ones[:0], torch.tensor(7.0, dtype=F64)).item() == 0


def test_recall_below_is_strict_and_counts_the_lost():
    errors = torch.tensor([[0.1, 0.2, torch.nan, torch.inf], [0.0, 0.0, 0.0, 0.2]], dtype=F64)
    assert recall_below(errors, 0.2).tolist() == [0.25, 0.75]
    assert recall_below(errors, torch.tensor([0.3, 0.3, 0.3, 0.1], dtype=F64)).tolist() == [0.5, 0.75]
    assert recall_below(errors[:, :0], 1.0).isnan().all()


@given(errors=arrays(np.float64, st.integers(1, 12), elements=st.floats(0, 0.3)), limit=st.floats(0.01, 0.2))
def test_area_under_recall_equals_integral(errors, limit):
    permitted = np.linspace(0, limit, 20001)
    integral = (errors[:, None] <= permitted).mean()
    assert area_under_recall(torch.from_numpy(errors), limit).item() == pytest.approx(integral, abs=1e-3)


def test_area_under_recall_of_the_lost_is_zero():
    errors = torch.tensor([torch.nan, torch.inf, 0.0, 0.05], dtype=F64)
    assert area_under_recall(errors, 0.1).item() == pytest.approx(1.5 / 4)
    lengths = torch.tensor([0.1, 0.1, 0.1, 0.2], dtype=F64)
    assert area_under_recall(errors, lengths).item() == pytest.approx(1.75 / 4)
