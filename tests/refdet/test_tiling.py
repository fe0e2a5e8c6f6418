"""Tiles: where they lie, and that what they share is one object."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sightline.formats.refdet_templates import TemplatePicture
from sightline.geometry import pixel_affine
from sightline.refdet.detector import ConvNeXtRefDet
from sightline.refdet.framing import prepare_search, transform_boxes, whole_picture
from sightline.refdet.reference_detector import DetectorSettings, ReferenceDetector
from sightline.refdet.selection import Proposals
from sightline.refdet.tiling import find_cut, merge_regions, plan_regions

SEARCH = (100, 80)
WIDE = (230, 131)  # divided by no tile


def proposals(*boxes_and_scores: tuple[list[float], float]) -> Proposals:
    boxes = torch.tensor([box for box, _ in boxes_and_scores], dtype=torch.float64).view(-1, 4)
    return Proposals(boxes, torch.tensor([score for _, score in boxes_and_scores], dtype=torch.float64))


def seen_by(regions: Tensor, *objects: list[float], score: float = 0.8) -> tuple[Proposals, Tensor]:
    """What a perfect detector finds: in each region the part of each object that lies in it."""
    found, where = [], []
    for index, region in enumerate(regions):
        for box in objects:
            part = torch.tensor(box, dtype=torch.float64)
            part = torch.cat([torch.maximum(part[:2], region[:2]), torch.minimum(part[2:], region[2:])])
            if bool((part[2:] - part[:2] > 4).all()):
                found.append((part.tolist(), score - 0.01 * index))
                where.append(index)
    return proposals(*found), torch.tensor(where)


@settings(deadline=None)
@given(
    st.tuples(st.integers(20, 900), st.integers(20, 900)),
    st.sampled_from(["auto", 2, 3, 5]),
    st.floats(0, 0.6),
)
def test_tiles_cover_the_picture_and_overlap(size, tiles, overlap):
    regions = plan_regions(size, SEARCH, tiles, overlap=overlap)
    whole = whole_picture(size)
    assert torch.equal(regions[0], whole)
    if len(regions) == 1:
        assert tiles == "auto"
        assert max(size[0] / 100, size[1] / 80) < 1.25
        return
    sides = regions[1:, 2:] - regions[1:, :2]
    torch.testing.assert_close(sides, sides[:1].expand_as(sides))  # one form, that of the search
    assert float(sides[0, 0] / sides[0, 1]) == pytest.approx(100 / 80)
    for low, high in ((0, 2), (1, 3)):
        starts, ends = regions[1:, low].unique(), regions[1:, high].unique()
        assert float(starts[0]) <= -0.5 + 1e-9
        assert float(ends[-1]) >= float(whole[high]) - 1e-9
        if len(starts) > 1:
            assert float(starts[0]) == -0.5
            assert float(ends[-1]) == pytest.approx(float(whole[high]))
            shared = (ends[:-1] - starts[1:]) / sides[0, low]
            assert float(shared.min()) >= overlap - 1 / float(sides[0, low]) - 1e-9  # whole pixels
    if isinstance(tiles, int):
        assert max(len(regions[1:, 0].unique()), len(regions[1:, 1].unique())) >= tiles


def test_a_number_counts_along_the_limiting_side():
    regions = plan_regions((400, 100), SEARCH, 3)
    assert len(regions[1:, 0].unique()) == 3
    assert len(regions[1:, 1].unique()) == 1
    assert len(plan_regions((400, 100), SEARCH, 1)) == 1


def test_tiles_of_the_own_resolution_are_the_pixels_themselves():
    image = np.random.default_rng(0).integers(0, 255, (WIDE[1], WIDE[0], 3), dtype=np.uint8)
    for region in plan_regions(WIDE, SEARCH, "auto")[1:]:
        picture = prepare_search(image, SEARCH, region=region).picture
        x, y = (int(edge) for edge in region[:2] + 0.5)
        assert np.array_equal(
            (picture * 255).round().byte().permute(1, 2, 0).numpy(), image[y : y + 80, x : x + 100]
        )


@pytest.mark.parametrize("tiles", ["auto", 2, 3, 4])
def test_boxes_come_back_exactly(tiles):
    image = np.zeros((WIDE[1], WIDE[0], 3), np.uint8)
    box = torch.tensor([[17.25, 3.5, 100.75, 129.0]], dtype=torch.float64)
    for region in plan_regions(WIDE, SEARCH, tiles):
        affine = prepare_search(image, SEARCH, region=region).search_from_image
        back = transform_boxes(transform_boxes(box, affine), pixel_affine.invert(affine))
        torch.testing.assert_close(back, box, rtol=0, atol=1e-9)


@pytest.mark.parametrize("tiles", ["auto", 3])
@pytest.mark.parametrize(
    "box",
    [
        [10.0, 10.0, 30.0, 25.0],  # inside one tile
        [60.0, 40.0, 80.0, 60.0],  # on a seam
        [90.0, 45.0, 115.0, 85.0],  # where four tiles meet
        [5.0, 5.0, 220.0, 125.0],  # larger than a tile
        [-0.5, 50.0, 229.5, 60.0],  # as wide as the picture
    ],
)
def test_an_object_is_reported_once(tiles, box):
    regions = plan_regions(WIDE, SEARCH, tiles)
    found, where = seen_by(regions, box)
    merged = merge_regions(found, where, regions, WIDE, SEARCH)
    assert merged.boxes.tolist() == [box]
    without_whole = where > 0  # the whole picture's search missed it
    merged = merge_regions(found.select(without_whole), where[without_whole], regions, WIDE, SEARCH)
    assert merged.boxes.tolist() == [box]


def test_close_neighbours_stay_apart_across_seams():
    regions = plan_regions(WIDE, SEARCH, "auto")
    row = [[float(x), 50.0, float(x) + 18, 75.0] for x in range(5, 200, 20)]
    merged = merge_regions(*seen_by(regions, *row), regions, WIDE, SEARCH)
    assert sorted(merged.boxes.tolist()) == row


def test_a_cut_box_is_believed_least():
    regions = plan_regions((150, 80), SEARCH, "auto")
    cut, uncut = [80.0, 9.0, 99.4, 29.0], [80.0, 9.0, 120.0, 29.0]
    merged = merge_regions(
        proposals((cut, 0.9), (uncut, 0.4)), torch.tensor([1, 2]), regions, (150, 80), SEARCH
    )
    assert merged.boxes.tolist() == [uncut]
    assert merged.scores.tolist() == [0.4]
    alone = merge_regions(proposals((cut, 0.9)), torch.tensor([1]), regions, (150, 80), SEARCH)
    assert alone.boxes.tolist() == [cut]  # better than nothing


def test_the_picture_s_own_border_cuts_nothing():
    regions = plan_regions((150, 80), SEARCH, "auto")
    boxes = torch.tensor([[-0.5, -0.5, 30, 79.5], [60, 70, 99.5, 79.5], [49.5, 3, 70, 30]]).double()
    assert find_cut(boxes, regions[[1, 1, 2]], (150, 80), SEARCH).tolist() == [False, True, True]


def test_merging_does_not_depend_on_the_order():
    regions = plan_regions(WIDE, SEARCH, 3)
    found, where = seen_by(regions, [60.0, 40.0, 80.0, 60.0], [5.0, 5.0, 220.0, 35.0])
    expected = merge_regions(found, where, regions, WIDE, SEARCH)
    order = torch.randperm(len(where), generator=torch.Generator().manual_seed(0))
    again = merge_regions(found.select(order), where[order], regions, WIDE, SEARCH)
    assert torch.equal(again.boxes, expected.boxes)


def test_thousands_of_proposals_are_no_burden():
    regions = plan_regions((2000, 1500), SEARCH, "auto")
    generator = torch.Generator().manual_seed(0)
    where = torch.randint(0, len(regions), (9000,), generator=generator)
    low = regions[where, :2] + 60 * torch.rand(9000, 2, generator=generator).double()
    boxes = torch.cat([low, low + 5 + 30 * torch.rand(9000, 2, generator=generator).double()], dim=1)
    scores = torch.rand(9000, generator=generator).double()
    merged = merge_regions(Proposals(boxes, scores), where, regions, (2000, 1500), SEARCH)
    assert 100 < len(merged.scores) <= 2000
    assert merged.scores[0] > 0.99
    assert bool((merged.scores.diff() <= 0).all())


def test_nothing_found_is_nothing_merged():
    regions = plan_regions(WIDE, SEARCH, 2)
    empty = merge_regions(Proposals.none(), torch.zeros(0, dtype=torch.long), regions, WIDE, SEARCH)
    assert len(empty.scores) == 0


@pytest.fixture(scope="module")
def model() -> ConvNeXtRefDet:
    torch.manual_seed(0)
    return ConvNeXtRefDet(16, 8, 16, backbone="nano", detection_stride=8, template_scales=(1.0,)).eval()


def test_batches_of_tiles_change_nothing(model):
    image = np.random.default_rng(1).integers(0, 255, (100, 150, 3), dtype=np.uint8)
    found = []
    for batch_size in (1, 4):
        chosen = DetectorSettings(
            (96, 64), (64, 64), score_threshold=0.001, tiles="auto", batch_size=batch_size
        )
        detector = ReferenceDetector(model, chosen)
        bank = detector.onboard([TemplatePicture(image[:40, :40])])
        found.append(detector.detect(image, {"a": bank, "b": bank}))
    assert len(found[0]) > 0
    torch.testing.assert_close(found[0].boxes, found[1].boxes, atol=1e-3, rtol=0)
    assert found[0].names == found[1].names


def test_a_small_picture_needs_no_tiles(model):
    image = np.random.default_rng(1).integers(0, 255, (64, 96, 3), dtype=np.uint8)
    off, auto = (
        ReferenceDetector(model, DetectorSettings((96, 64), (64, 64), score_threshold=0.001, tiles=tiles))
        for tiles in ("off", "auto")
    )
    bank = off.onboard([TemplatePicture(image[:40, :40])])
    assert torch.equal(off.detect(image, {"a": bank}).boxes, auto.detect(image, {"a": bank}).boxes)


def test_a_region_is_searched_alone(model):
    image = np.random.default_rng(1).integers(0, 255, (128, 192, 3), dtype=np.uint8)
    detector = ReferenceDetector(model, DetectorSettings((96, 64), (64, 64), score_threshold=0.0))
    bank = detector.onboard([TemplatePicture(image[:40, :40])])
    region = torch.tensor([95.5, 63.5, 191.5, 127.5])
    found = detector.detect(image, {"a": bank}, region=region)
    part = detector.detect(image[64:, 96:].copy(), {"a": bank})
    assert len(found) > 0
    assert found.boxes[:, 0].min() > 95.5 + 2
    shifted = found.boxes - torch.tensor([96.0, 64.0, 96.0, 64.0])
    for box in shifted:
        assert float((part.boxes - box).abs().amax(1).min()) < 1e-3


@pytest.mark.parametrize("tiles", [0, -1, "some", True])
def test_bad_tiles_are_refused(tiles):
    with pytest.raises(ValueError, match="tiles: expected a number of at least 1, auto or off"):
        DetectorSettings(tiles=tiles)


def test_bad_settings_are_refused():
    with pytest.raises(ValueError, match="tile_overlap"):
        DetectorSettings(tile_overlap=1.0)
    with pytest.raises(ValueError, match="batch_size"):
        DetectorSettings(batch_size=0)
    with pytest.raises(ValueError, match="rival_iou"):
        DetectorSettings(rival_iou=0.0)
