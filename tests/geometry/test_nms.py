"""Non-maximum suppression against a naive loop."""

from __future__ import annotations

import math
import time

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sightline.geometry import nms as nms_module
from sightline.geometry.boxes import iou, xyxy_from_cxcywh
from sightline.geometry.nms import matrix_nms, nms, nms_mask


def naive(boxes, scores, threshold, groups=None):
    kept = []
    for i in sorted(range(len(boxes)), key=lambda i: -scores[i].item()):  # stable
        rivals = [j for j in kept if groups is None or groups[i] == groups[j]]
        if all(iou(boxes[i], boxes[j]).item() <= threshold for j in rivals):
            kept.append(i)
    return kept


def crowd(count, seed, spread=3.0):
    generator = torch.Generator().manual_seed(seed)
    center = spread * torch.rand(count, 2, generator=generator)
    size = 0.5 + torch.rand(count, 2, generator=generator)
    scores = torch.randint(0, 20, (count,), generator=generator) / 20  # with ties
    groups = torch.randint(0, 3, (count,), generator=generator)
    return xyxy_from_cxcywh(torch.cat([center, size], dim=-1)), scores, groups


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 40),
    st.integers(0, 2**31 - 1),
    st.sampled_from([0.0, 0.1, 0.3, 0.5, 0.7, 1.0]),
    st.booleans(),
)
def test_equals_a_naive_loop(count, seed, threshold, grouped):
    boxes, scores, groups = crowd(count, seed)
    groups = groups if grouped else None
    assert nms(boxes, scores, threshold, groups=groups).tolist() == naive(boxes, scores, threshold, groups)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**31 - 1), st.integers(1, 7))
def test_blocks_change_nothing(seed, block):
    boxes, scores, groups = crowd(30, seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nms_module, "_BLOCK", block)
        assert nms(boxes, scores, 0.3, groups=groups).tolist() == naive(boxes, scores, 0.3, groups)


def test_a_long_chain_of_boxes_each_covering_the_next():
    left = torch.arange(50.0) * 0.4
    boxes = torch.stack([left, torch.zeros(50), left + 1, torch.ones(50)], dim=-1)
    scores = torch.linspace(1, 0, 50)
    # IoU of neighbours is 0.6 / 1.4, of the next but one 0.2 / 1.8
    assert nms(boxes, scores, 0.4).tolist() == list(range(0, 50, 2))


def test_a_batch_equals_its_pictures_and_padding_is_not_kept():
    pictures = [crowd(count, seed) for seed, count in enumerate([12, 30, 0, 21])]
    boxes, scores = torch.zeros(4, 30, 4), torch.full((4, 30), -math.inf)
    groups = torch.zeros(4, 30, dtype=torch.long)
    for row, (b, s, g) in enumerate(pictures):
        boxes[row, : len(b)], scores[row, : len(b)], groups[row, : len(b)] = b, s, g
    keep = nms_mask(boxes, scores, 0.4, groups=groups)
    for row, (b, s, g) in enumerate(pictures):
        assert keep[row].nonzero()[:, 0].tolist() == sorted(naive(b, s, 0.4, g))
    # the same pictures in one list, told apart by their groups
    real = scores > -math.inf
    flat_groups = (groups + 10 * torch.arange(4)[:, None])[real]
    flat = nms(boxes[real], scores[real], 0.4, groups=flat_groups)
    assert torch.equal(torch.zeros(63, dtype=torch.bool).index_fill(0, flat, True), keep[real])


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**31 - 1))
def test_idempotent_and_blind_to_order(seed):
    boxes, _, groups = crowd(40, seed)
    generator = torch.Generator().manual_seed(seed)
    scores = torch.rand(40, generator=generator)
    kept = nms(boxes, scores, 0.3, groups=groups)
    assert nms(boxes[kept], scores[kept], 0.3, groups=groups[kept]).tolist() == list(range(len(kept)))
    shuffle = torch.randperm(40, generator=generator)
    again = nms(boxes[shuffle], scores[shuffle], 0.3, groups=groups[shuffle])
    assert torch.equal(shuffle[again], kept)


def test_nan_neither_survives_nor_suppresses():
    boxes = torch.tensor([[0.0, 0, 1, 1], [0, 0, 1, math.nan], [0, 0, 1, 1], [0, 0, 1, 1]])
    scores = torch.tensor([0.5, 0.9, math.nan, -math.inf])
    assert nms(boxes, scores, 0.5).tolist() == [0]


def test_nothing_in_nothing_out():
    assert nms(torch.zeros(0, 4), torch.zeros(0), 0.5).tolist() == []
    assert nms_mask(torch.zeros(3, 0, 4), torch.zeros(3, 0), 0.5).shape == (3, 0)


def naive_decay(boxes, scores, decay, sigma=2.0, groups=None):
    order = sorted(range(len(boxes)), key=lambda i: -scores[i].item())
    lowered = scores.clone()
    compensation = {}

    def overlap(i, j):
        return iou(boxes[i], boxes[j]).item() if groups is None or groups[i] == groups[j] else 0.0

    def fall(x):
        return math.exp(-sigma * x * x) if decay == "gaussian" else 1 - x

    for place, j in enumerate(order):
        better = order[:place]
        compensation[j] = max((overlap(i, j) for i in better), default=0.0)
        shares = [fall(overlap(i, j)) / max(fall(compensation[i]), 1e-6) for i in better]
        lowered[j] = scores[j] * min([1.0, *shares])
    return lowered


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 25), st.integers(0, 2**31 - 1), st.sampled_from(["gaussian", "linear"]), st.booleans())
def test_matrix_nms_equals_a_naive_loop(count, seed, decay, grouped):
    boxes, scores, groups = crowd(count, seed)
    groups = groups if grouped else None
    lowered = matrix_nms(boxes, scores, decay=decay, groups=groups)
    torch.testing.assert_close(
        lowered, naive_decay(boxes, scores, decay, groups=groups), rtol=1e-4, atol=1e-5
    )


def test_matrix_nms_of_a_batch_with_padding():
    boxes, scores, _ = crowd(12, 3)
    padded = torch.cat([boxes, torch.full((2, 4), torch.nan)])
    padded_scores = torch.cat([scores, torch.tensor([0.9, -math.inf])])
    both = matrix_nms(
        torch.stack([padded, padded.flip(0)]), torch.stack([padded_scores, padded_scores.flip(0)])
    )
    assert (both[0, 12:] == -math.inf).all()
    torch.testing.assert_close(both[0, :12], matrix_nms(boxes, scores))
    assert matrix_nms(torch.zeros(3, 0, 4), torch.zeros(3, 0)).shape == (3, 0)


def test_matrix_nms_refuses_other_decays():
    with pytest.raises(ValueError, match="gaussian or linear"):
        matrix_nms(torch.zeros(1, 4), torch.zeros(1), decay="hard")


@pytest.mark.parametrize("function", [lambda b, s: nms(b, s, 0.5), matrix_nms])
def test_a_thousand_boxes_ten_times_faster_than_a_loop(function):
    boxes, scores, _ = crowd(1000, 5, spread=12.0)
    function(boxes, scores)

    def seconds(run):
        start = time.process_time()
        run()
        return time.process_time() - start

    ours = min(seconds(lambda: function(boxes, scores)) for _ in range(7))
    rows = boxes.tolist()

    def loop():
        kept = []
        for i in scores.argsort(descending=True).tolist():
            a = rows[i]
            for j in kept:
                b = rows[j]
                inner = max(0, min(a[2], b[2]) - max(a[0], b[0])) * max(0, min(a[3], b[3]) - max(a[1], b[1]))
                outer = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - inner
                if inner > 0.5 * outer:
                    break
            else:
                kept.append(i)

    assert seconds(loop) > 10 * ours
