from __future__ import annotations

import numpy as np
import pytest

import sightline.vis.contact_sheet as sheet_file
from sightline.vis.contact_sheet import draw_contact_sheet
from sightline.vis.palette import PLATE
from tests.vis.scenes import grey_picture, near_color


def test_each_picture_is_in_its_cell_in_order():
    tiles = [grey_picture(60, 40, 40 * (i + 1)) for i in range(5)]
    sheet = draw_contact_sheet(tiles, columns=3, cell_px=60)
    assert sheet.shape == (2 * 46 + 6, 3 * 66 + 6, 3)
    for i in range(5):
        row, column = divmod(i, 3)
        y, x = 6 + 46 * row, 6 + 66 * column
        assert (sheet[y : y + 40, x : x + 60] == 40 * (i + 1)).all()
    assert near_color(sheet[52:, 140:], PLATE, 0).all()  # the sixth cell is empty


def test_shapes_are_kept_and_tiles_centred():
    sheet = draw_contact_sheet(
        [grey_picture(100, 50, 90), grey_picture(50, 100, 180)], columns=2, cell_px=100
    )
    wide, tall = (sheet == 90).all(axis=-1), (sheet == 180).all(axis=-1)
    assert wide.sum() == 100 * 50 and tall.sum() == 50 * 100
    rows, columns = np.nonzero(wide)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (31, 80, 6, 105)
    rows, columns = np.nonzero(tall)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (6, 105, 137, 186)


def test_captions_and_title_are_written_beside_the_pictures(monkeypatch):
    texts, paint = [], sheet_file.paint_label

    def record(canvas, text, *args, **kwargs):
        texts.append(text)
        return paint(canvas, text, *args, **kwargs)

    monkeypatch.setattr(sheet_file, "paint_label", record)
    tiles = [grey_picture(100, 100)] * 2
    sheet = draw_contact_sheet(
        tiles, ["view 0", "view 1 with a long name that is cut"], cell_px=100, title="mug"
    )
    assert texts == ["mug", "view 0", "view 1 with a long name that is cut"]
    assert (sheet == 100).all(axis=-1).sum() >= 2 * 100 * 100  # no text runs over a picture
    below = sheet[np.nonzero((sheet == 100).all(axis=-1).any(axis=1))[0].max() + 1 :]
    assert near_color(below, (255, 255, 255), 60).any()


def test_the_sheet_is_wider_than_high():
    for count in (1, 2, 7, 42, 162):
        sheet = draw_contact_sheet([grey_picture(32, 32)] * count, cell_px=32)
        assert 0.9 < sheet.shape[1] / sheet.shape[0] < 2.3


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match="pictures: expected at least one"):
        draw_contact_sheet([])
    with pytest.raises(ValueError, match="captions: expected one for each of 2 pictures, got 1"):
        draw_contact_sheet([grey_picture()] * 2, ["a"])
    with pytest.raises(ValueError, match=r"pictures\[1\]: expected uint8 RGB"):
        draw_contact_sheet([grey_picture(), np.zeros((4, 4))])
    with pytest.raises(ValueError, match="cell_px: expected at least 16, got 8"):
        draw_contact_sheet([grey_picture()], cell_px=8)
    with pytest.raises(ValueError, match="columns: expected at least 1, got 0"):
        draw_contact_sheet([grey_picture()], columns=0)
