from __future__ import annotations

import numpy as np
import pytest

import sightline.vis.labels as labels
from sightline.vis.labels import Box, label_size, paint_label, paint_notes
from sightline.vis.palette import PALETTE, PLATE
from tests.vis.scenes import changed, grey_picture, near_color

YELLOW = PALETTE["yellow"]


def overlap(a: Box, b: Box) -> bool:
    return a.x0 < b.x1 and b.x0 < a.x1 and a.y0 < b.y1 and b.y0 < a.y1


@pytest.mark.parametrize("near", [Box(-50, -50, -10, -10), Box(150, 100, 180, 130), Box(310, 230, 400, 300)])
@pytest.mark.parametrize("text", ["mug", "a name that is far too long for this picture " * 4])
def test_a_label_is_whole_and_inside_wherever_its_object_is(near, text):
    canvas = grey_picture()
    box = paint_label(canvas, text, near, YELLOW)
    assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= 320 and box.y1 <= 240
    inside = np.zeros((240, 320), dtype=bool)
    inside[box.y0 : box.y1, box.x0 : box.x1] = True
    assert (changed(grey_picture(), canvas) == inside).all()
    plate = canvas[box.y0 : box.y1, box.x0 : box.x1]
    assert near_color(plate, YELLOW, 0).mean() > 0.4  # the background
    assert near_color(plate, (0, 0, 0), 90).mean() > 0.04  # the letters
    for edge in (plate[0], plate[-1], plate[:, 0], plate[:, -1]):
        assert near_color(edge, YELLOW, 0).all()  # no letter touches the edge


def test_what_is_too_long_is_shrunk_first_and_then_cut():
    letter = 12.0
    whole = label_size("watering can 0.93", 1000, letter)
    shrunk = label_size("watering can 0.93", whole[0] - 10, letter)
    assert shrunk[0] <= whole[0] - 10 and shrunk[1] < whole[1]
    fitted = labels._fit_text("watering can 0.93", 60, letter)
    assert fitted.text.startswith("wa") and fitted.text.endswith("..") and fitted.box_size[0] <= 60
    assert label_size("watering can", 3, letter) == (0, 0)
    assert label_size("", 300, letter) == (0, 0)


def test_labels_avoid_one_another():
    canvas, taken = grey_picture(), []
    for text in ("first", "second", "third", "fourth"):
        taken.append(paint_label(canvas, text, Box(100, 100, 160, 140), YELLOW, taken=taken))
    assert not any(overlap(a, b) for i, a in enumerate(taken) for b in taken[:i])


def test_pictures_too_small_for_a_letter_stay_as_they_are():
    canvas = grey_picture(6, 5)
    assert paint_label(canvas, "mug", Box(0, 0, 5, 5), YELLOW) is None
    assert paint_notes(canvas, ["mug"]) is None
    assert (canvas == 100).all()


@pytest.mark.parametrize("corner", ["top-left", "top-right", "bottom-left", "bottom-right"])
def test_notes_stand_in_their_corner(corner):
    canvas = grey_picture()
    box = paint_notes(canvas, ["not found: mug", "not found: tea box, hidden"], corner=corner)
    assert (box.y0 == 0) == corner.startswith("top") and (box.y1 == 240) == corner.startswith("bottom")
    assert (box.x0 == 0) == corner.endswith("left") and (box.x1 == 320) == corner.endswith("right")
    assert near_color(canvas[box.y0 : box.y1, box.x0 : box.x1], PLATE, 0).mean() > 0.4
    outside = np.ones((240, 320), dtype=bool)
    outside[box.y0 : box.y1, box.x0 : box.x1] = False
    assert (canvas[outside] == 100).all()


def test_more_notes_than_fit_are_counted():
    written = []
    original = labels._paint_text

    def record(canvas, letters, *rest):
        written.append(letters.text)
        original(canvas, letters, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(labels, "_paint_text", record)
        paint_notes(grey_picture(320, 60), [f"note {i}" for i in range(20)])
    assert written[0] == "note 0" and written[-1] == f"and {20 - len(written) + 1} more"


def test_unknown_corner():
    with pytest.raises(ValueError, match="corner: expected 'top-left' or the like, got 'middle'"):
        paint_notes(grey_picture(), ["mug"], corner="middle")


def test_text_for_an_opencv_without_unicode(monkeypatch):
    import cv2

    assert labels._printable("±2 mm\n3°") == "±2 mm 3°"
    monkeypatch.setattr(cv2, "__version__", "4.12.0")
    assert labels._printable("±2 mm\n3° é") == "+-2 mm 3 deg ?"


def test_boxes():
    assert Box.around(np.array([[1.2, 3.7], [5.0, 4.0]])) == (1, 3, 6, 5)
    mask = np.zeros((5, 7), dtype=bool)
    assert Box.of_mask(mask) is None
    mask[1:3, 4] = True
    assert Box.of_mask(mask) == (4, 1, 5, 3)
    assert Box(-3, 2, 99, 9).clipped(grey_picture(6, 5)) == (0, 2, 6, 5)
