from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from sightline.records import Detections
from sightline.vis.overlays import draw_contour, draw_detections, draw_mesh, draw_notes, draw_quadrilateral
from sightline.vis.palette import PALETTE, palette_color
from tests.vis.scenes import changed, grey_picture, grown, near_color

RED = (255, 0, 0)


def blob(*corners: tuple[int, int]) -> np.ndarray:
    mask = np.zeros((240, 320), dtype=np.uint8)
    cv2.fillPoly(mask, [np.array(corners, dtype=np.int32)], 1)
    return mask.astype(bool)


TRIANGLE = blob((100, 50), (200, 60), (150, 180))
SQUARE = blob((220, 150), (300, 150), (300, 220), (220, 220))


def edge_of(mask: np.ndarray) -> np.ndarray:
    """The pixels of a mask with a neighbour outside it, left, right, above or below."""
    cross = np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]], dtype=np.uint8)
    return mask & cv2.dilate((~mask).astype(np.uint8), cross).astype(bool)


def test_contour_covers_the_edge_and_touches_nothing_else():
    image = grey_picture()
    drawn = draw_contour(image, TRIANGLE, color=RED)
    assert near_color(drawn[edge_of(TRIANGLE)], RED, 90).mean() > 0.95
    assert not (changed(image, drawn) & ~grown(edge_of(TRIANGLE), 3)).any()
    assert (image == 100).all()  # the argument is left alone


def test_each_mask_has_its_colour():
    drawn = draw_contour(grey_picture(), torch.from_numpy(np.stack([TRIANGLE, SQUARE])))
    for mask, color in ((TRIANGLE, palette_color(0)), (SQUARE, palette_color(1))):
        assert near_color(drawn[edge_of(mask)], color, 90).mean() > 0.95
    twice = draw_contour(grey_picture(), np.stack([TRIANGLE, SQUARE]), color=[RED, (0, 0, 255)])
    assert near_color(twice[edge_of(SQUARE)], (0, 0, 255), 90).mean() > 0.95


def test_an_empty_mask_draws_nothing_and_a_wrong_one_is_refused():
    image = grey_picture()
    assert (draw_contour(image, np.zeros((240, 320), dtype=bool)) == image).all()
    with pytest.raises(ValueError, match="mask: expected bool of the picture's shape"):
        draw_contour(image, TRIANGLE.T)
    with pytest.raises(ValueError, match="mask: expected bool of the picture's shape"):
        draw_contour(image, TRIANGLE.astype(np.uint8))
    with pytest.raises(ValueError, match="color: expected one, or one for each of 1 masks, got 2"):
        draw_contour(image, TRIANGLE, color=[RED, RED])
    with pytest.raises(ValueError, match="image: expected uint8 RGB"):
        draw_contour(image.astype(np.float32), TRIANGLE)


def test_mesh_is_blended_inside_the_mask_alone():
    image, rendered = grey_picture(), grey_picture(value=200)
    drawn = draw_mesh(image, torch.from_numpy(rendered), torch.from_numpy(TRIANGLE), alpha=0.25)
    assert (drawn[TRIANGLE] == 125).all() and (drawn[~TRIANGLE] == 100).all()
    assert (draw_mesh(image, rendered, TRIANGLE, alpha=0.0) == image).all()
    slope = np.broadcast_to(np.arange(240, dtype=np.uint8)[:, None, None], image.shape)
    assert (draw_mesh(image, slope, TRIANGLE, alpha=1.0)[TRIANGLE] == slope[TRIANGLE]).all()
    with pytest.raises(ValueError, match="rendered: expected the picture's shape"):
        draw_mesh(image, rendered[:100], TRIANGLE)
    with pytest.raises(ValueError, match="rendered: expected uint8 RGB"):
        draw_mesh(image, rendered / 255, TRIANGLE)
    with pytest.raises(ValueError, match="alpha"):
        draw_mesh(image, rendered, TRIANGLE, alpha=2.0)


def test_quadrilateral_joins_its_corners_in_order():
    image, corners = grey_picture(), np.array([[50.0, 60], [250, 40], [270, 200], [40, 180]])
    drawn = draw_quadrilateral(image, corners, color=RED)
    ideal = np.zeros((240, 320), dtype=np.uint8)
    cv2.polylines(ideal, [corners.astype(np.int32)], True, 1, 1)
    assert near_color(drawn, RED, 90)[ideal > 0].mean() > 0.95
    assert not (changed(image, drawn) & ~grown(ideal > 0, 4)).any()
    labelled = draw_quadrilateral(image, corners, color=RED, label="tea box")
    assert near_color(labelled[:60, 40:130], RED, 0).mean() > near_color(drawn[:60, 40:130], RED, 0).mean()
    for bad in (corners[:3], np.where(corners == 50, np.nan, corners)):
        with pytest.raises(ValueError, match="corners: expected four finite pixels"):
            draw_quadrilateral(image, bad)


def detections(masks: bool = False, size: tuple[int, int] = (320, 240)) -> Detections:
    boxes = torch.tensor([[20.0, 40, 120, 160], [150, 100, 300, 220], [60, 80, 200, 200]])
    found = torch.from_numpy(np.stack([TRIANGLE, SQUARE, TRIANGLE])) if masks else None
    return Detections(boxes, torch.tensor([0.9, 0.5, 0.7]), ("mug", "can", "mug"), size, found)


def test_detections_are_boxed_in_the_colour_of_their_name():
    image = grey_picture()
    drawn = draw_detections(image, detections())
    mug, can = PALETTE["sky blue"], PALETTE["orange"]  # in the order of the names
    assert near_color(drawn[160, 25:50], mug).all() and near_color(drawn[110:190, 300], can).all()
    assert near_color(drawn[200, 70:140], mug).all()
    assert (drawn[10:20, 200:] == 100).all() and (drawn[230:, :] == 100).all()
    given = draw_detections(image, detections(), colors={"mug": RED})
    assert near_color(given[160, 25:50], RED).all() and near_color(given[110:190, 300], can).all()


def test_a_surer_box_lies_on_top():
    boxes, names = torch.tensor([[20.0, 120, 200, 200], [60, 60, 140, 160]]), ("a", "b")
    for scores, on_top in ((torch.tensor([0.9, 0.2]), "orange"), (torch.tensor([0.2, 0.9]), "sky blue")):
        drawn = draw_detections(grey_picture(), Detections(boxes, scores, names, (320, 240)))
        assert near_color(drawn[120, 60], PALETTE[on_top]).all()


def test_masks_of_detections_are_tinted():
    image = grey_picture()
    drawn = draw_detections(image, detections(masks=True), mask_alpha=0.5)
    inside = SQUARE & ~grown(~SQUARE, 4)
    inside[:, 290:] = inside[215:] = False  # the box of this detection runs through here
    expected = np.rint(0.5 * np.array(PALETTE["orange"]) + 50).astype(int)
    assert np.abs(drawn[inside].astype(int) - expected).max() <= 1


def test_detections_of_another_picture_are_refused_and_none_draw_nothing():
    image = grey_picture()
    with pytest.raises(ValueError, match=r"picture of \(240, 320\), got \(320, 240\)"):
        draw_detections(image, detections(size=(240, 320)))
    none = Detections(torch.zeros(0, 4), torch.zeros(0), (), (320, 240))
    assert (draw_detections(image, none) == image).all()


def test_notes_leave_the_rest_alone():
    image = grey_picture()
    drawn = draw_notes(image, ["frame 12", "focal length 625 px"], corner="bottom-right")
    assert changed(image, drawn)[200:, 200:].any()
    assert not changed(image, drawn)[:190].any() and not changed(image, drawn)[:, :100].any()
