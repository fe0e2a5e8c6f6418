"""Boxes and cells, and the best detections of a batch."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sightline.refdet.decode import (
    RefDetMaps,
    cell_centers,
    decode_boxes,
    decode_maps,
    decode_predictions,
    encode_boxes,
)
from tests.tolerances import tolerance


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 2**31 - 1), st.sampled_from([4, 8, 16, 32]), st.sampled_from([(9, 16), (16, 9), (5, 7)])
)
def test_decoding_what_was_encoded_is_the_box(seed, stride, size):
    generator = torch.Generator().manual_seed(seed)
    low = (torch.rand(1, *size, 2, generator=generator) - 0.5) * 400
    extent = 10 ** (torch.rand(1, *size, 2, generator=generator) * 3)
    boxes = torch.cat([low, low + extent], dim=-1)
    raw = encode_boxes(boxes, cell_centers(torch.zeros(1, 1, *size), stride)[None], stride)
    decoded = decode_boxes(raw.permute(0, 3, 1, 2), stride)
    torch.testing.assert_close(decoded, boxes, **tolerance(torch.float32, "pixel"))


def test_cells_count_pixels_from_the_centre_of_the_first():
    centers = cell_centers(torch.zeros(1, 1, 2, 3), 8)
    assert centers[1, 2].tolist() == [19.5, 11.5]  # pixels 16..23 and 8..15


def maps_with(peaks, size=(12, 16), stride=8, batch=1):
    """Logits and raw boxes with given (picture, row, column, logit, box)."""
    logits, raw = torch.full((batch, 1, *size), -9.0), torch.zeros(batch, 4, *size)
    centers = cell_centers(logits, stride)
    for picture, row, column, logit, box in peaks:
        logits[picture, 0, row, column] = logit
        raw[picture, :, row, column] = encode_boxes(torch.tensor(box), centers[row, column], stride)
    return RefDetMaps((logits,), (raw,), (stride,), (size[1] * stride, size[0] * stride))


TWO = [
    (0, 2, 3, 3.0, [10.0, 10.0, 40.0, 30.0]),
    (0, 2, 4, 2.0, [11.0, 10.0, 41.0, 30.0]),
    (0, 9, 12, 1.0, [80.0, 60.0, 140.0, 110.0]),
    (1, 5, 5, 4.0, [30.0, 30.0, 60.0, 60.0]),
]


@pytest.mark.parametrize("suppression", ["greedy", "matrix"])
def test_instances_are_found_once(suppression):
    found = decode_maps(maps_with(TWO, batch=3), score_threshold=0.5, suppression=suppression)
    assert found.valid.sum(1).tolist() == [2, 1, 0]
    torch.testing.assert_close(
        found.boxes[0, 0], torch.tensor([10.0, 10.0, 40.0, 30.0]), **tolerance(torch.float32)
    )
    # clipped to the picture of 128x96
    torch.testing.assert_close(
        found.boxes[0, 1], torch.tensor([80.0, 60.0, 127.5, 95.5]), **tolerance(torch.float32)
    )
    assert (found.scores.diff(dim=1) <= 0).all()


def test_without_suppression_every_cell_speaks():
    found = decode_maps(maps_with(TWO, batch=2), score_threshold=0.5, suppression="none", max_detections=5)
    assert found.valid.sum(1).tolist() == [3, 1]
    assert found.boxes.shape == (2, 5, 4)


def test_levels_are_one_list():
    fine, coarse = (
        maps_with(TWO[:1]),
        maps_with([(0, 3, 3, 2.0, [40.0, 40.0, 90.0, 90.0])], size=(6, 8), stride=16),
    )
    both = RefDetMaps(
        fine.objectness + coarse.objectness, fine.boxes + coarse.boxes, (8, 16), fine.image_size
    )
    found = decode_maps(both, score_threshold=0.5)
    assert found.valid.sum() == 2
    torch.testing.assert_close(
        found.boxes[0, 1], torch.tensor([40.0, 40.0, 90.0, 90.0]), **tolerance(torch.float32)
    )


def test_dicts_of_detections():
    maps = maps_with(TWO, batch=3)
    pictures = decode_predictions(maps.objectness[0], maps.boxes[0], 0.5, 5, stride=8)
    assert [len(p) for p in pictures] == [2, 1, 0]
    first, second = pictures[0]
    assert set(first) == {"bbox", "score", "center", "center_coords"}
    assert first["bbox"] == pytest.approx([10, 10, 40, 30], abs=1e-4)
    assert first["center"] == [3, 2]
    assert first["center_coords"] == pytest.approx([25, 20], abs=1e-4)
    assert second["bbox"][2:] == [127, 95]  # within [0, size - 1]
    assert len(decode_predictions(maps.objectness[0], maps.boxes[0], stride=8)[0]) == 1


def test_huge_raw_sizes_stay_finite():
    raw = torch.full((1, 4, 2, 2), 1e4)
    assert decode_boxes(raw, 4).isfinite().all()


def test_other_suppression_is_refused():
    with pytest.raises(ValueError, match="greedy, matrix or none"):
        decode_maps(maps_with(TWO[:1]), suppression="soft")
