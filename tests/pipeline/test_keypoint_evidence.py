"""Key points that agree: where the print of an object is, and where chance is kept apart from it."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from sightline.formats.refdet_templates import TemplatePicture
from sightline.geometry.boxes import iou_matrix
from sightline.objects.photos import onboard_flat
from sightline.pipeline.keypoint_evidence import (
    Sightings,
    agreement,
    find_sightings,
    print_of_card,
    print_of_photo,
)
from sightline.sift import extract_features


def printed(seed: int, width: int = 160, height: int = 120) -> np.ndarray:
    """A cover with blobs and letters."""
    rng = np.random.default_rng(seed)
    cover = np.full((height, width, 3), 230, np.uint8)
    for _ in range(40):
        centre = tuple(int(c) for c in rng.integers(5, (width - 5, height - 5)))
        cv2.circle(cover, centre, int(rng.integers(3, 10)), rng.integers(0, 255, 3).tolist(), -1)
    for row in range(20, height, 25):
        word = "".join(chr(c) for c in rng.integers(65, 91, 8))
        cv2.putText(cover, word, (5, row), cv2.FONT_HERSHEY_SIMPLEX, 0.7, (0, 0, 0), 2)
    return cover


CORNERS = np.array([[200.0, 60], [330, 90], [300, 190], [175, 150]], np.float32)


def scene(cover: np.ndarray, corners: np.ndarray = CORNERS) -> tuple[np.ndarray, torch.Tensor]:
    """The cover, seen askew, on a grey table; and its box."""
    height, width = cover.shape[:2]
    edges = np.array(
        [[-0.5, -0.5], [width - 0.5, -0.5], [width - 0.5, height - 0.5], [-0.5, height - 0.5]], np.float32
    )
    table = np.full((240, 400, 3), 110, np.uint8)
    cv2.warpPerspective(
        cover,
        cv2.getPerspectiveTransform(edges, corners),
        (400, 240),
        table,
        borderMode=cv2.BORDER_TRANSPARENT,
    )
    return table, torch.from_numpy(np.concatenate([corners.min(0), corners.max(0)])).double()[None]


@pytest.mark.parametrize("known_by", ["photo", "card"])
def test_print_is_found_with_its_box_and_another_is_not(known_by):
    cover = printed(0)
    image, box = scene(cover)
    features = extract_features(image)
    thing, other = (
        print_of_photo(TemplatePicture(each))
        if known_by == "photo"
        else print_of_card(onboard_flat(torch.from_numpy(each), 0.2, name="book"))
        for each in (cover, printed(1))
    )
    seen = find_sightings(features, [thing], (400, 240))
    assert len(seen.counts) >= 1
    assert float(iou_matrix(seen.boxes[:1], box)) > 0.85
    assert float(seen.counts[0]) >= 15
    low, high = seen.boxes[0].split(2)
    inside = ((features.points >= low) & (features.points <= high)).all(1).sum()
    assert float(seen.shares[0]) == pytest.approx(float(seen.counts[0] / inside))
    assert 0.2 < float(seen.shares[0]) < 1
    missing = find_sightings(features, [other], (400, 240))
    assert not bool((missing.shares > 0.15).any())


def test_several_photographs_are_one_object():
    front, back = printed(2), printed(3)
    image, box = scene(back)
    features = extract_features(image)
    prints = [print_of_photo(TemplatePicture(each)) for each in (front, back, back)]
    seen = find_sightings(features, prints, (400, 240))
    # the third shows what the second showed: one place, told once
    assert float(iou_matrix(seen.boxes[:1], box)) > 0.85
    assert int((iou_matrix(seen.boxes, box)[:, 0] > 0.5).sum()) == 1
    single = find_sightings(features, prints[1:2], (400, 240))
    assert torch.equal(single.boxes[0], seen.boxes[0])
    assert len(find_sightings(features, prints[:1], (400, 240)).counts) == 0


@pytest.mark.parametrize("by", ["mask", "box"])
def test_what_is_beside_the_object_in_its_photograph_is_not_its_print(by):
    cover = printed(4)
    photo = np.concatenate([cover, printed(5)], axis=1)
    mask = np.zeros(photo.shape[:2], dtype=bool)
    mask[:, :160] = True
    known = {"mask": mask} if by == "mask" else {"box": torch.tensor([-0.5, -0.5, 159.5, 119.5]).double()}
    own = print_of_photo(TemplatePicture(photo, **known))
    beside, _ = scene(printed(5))
    assert len(find_sightings(extract_features(beside), [own], (400, 240)).counts) == 0
    image, box = scene(cover)
    seen = find_sightings(extract_features(image), [own], (400, 240))
    assert float(iou_matrix(seen.boxes[:1], box)) > 0.85


def test_large_photographs_are_matched_as_smaller_ones():
    cover = printed(6)
    image, box = scene(cover)
    large = cv2.resize(cover, None, fx=8, fy=8, interpolation=cv2.INTER_CUBIC)
    thing = print_of_photo(TemplatePicture(large))
    assert float(thing.features.template_points.max()) < 460
    seen = find_sightings(extract_features(image), [thing], (400, 240))
    assert float(iou_matrix(seen.boxes[:1], box)) > 0.85


def test_no_print_says_nothing():
    plain = print_of_photo(TemplatePicture(np.full((60, 80, 3), 90, np.uint8)))
    image, _ = scene(printed(7))
    seen = find_sightings(extract_features(image), [plain], (400, 240))
    assert seen.boxes.shape == (0, 4)
    assert torch.equal(agreement(torch.zeros(3, 4), seen), torch.zeros(3, 2).double())
    nothing = extract_features(np.full((240, 400, 3), 90, np.uint8))
    assert len(find_sightings(nothing, [print_of_photo(TemplatePicture(printed(7)))], (400, 240)).counts) == 0


def test_places_get_the_numbers_of_what_lies_on_them():
    boxes = torch.tensor([[0.0, 0, 10, 10], [20, 0, 40, 10]]).double()
    seen = Sightings(boxes, torch.tensor([9.0, 19.0]).double(), torch.tensor([0.5, 0.25]).double())
    places = torch.tensor([[20.0, 0, 39, 10], [0, 0, 4, 10], [1, 0, 10, 10]]).double()
    expected = torch.tensor([[np.log(20), 0.25], [0, 0], [np.log(10), 0.5]])
    assert torch.allclose(agreement(places, seen), expected)
