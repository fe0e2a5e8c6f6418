"""The strip of reference pictures: beside the picture, all that fit, each under its name."""

from __future__ import annotations

import numpy as np
import pytest

from sightline.vis.palette import PLATE, object_colors
from sightline.vis.reference_strip import draw_reference_strip

WHITE = np.full((120, 200, 3), 255, np.uint8)


def reference(level: int) -> np.ndarray:
    return np.full((30, 30, 3), level, np.uint8)


def test_the_picture_stays_as_it_is():
    before = WHITE.copy()
    drawn = draw_reference_strip(WHITE, {"mug": [reference(77)]})
    assert drawn.shape == (120, 248, 3)
    assert np.array_equal(drawn[:, 48:], before)
    assert np.array_equal(WHITE, before)


@pytest.mark.parametrize("counts", [(1,), (3,), (6, 6), (1, 2, 4)])
def test_every_reference_is_there_once(counts):
    levels = iter(range(60, 250, 8))
    references = {f"object {i}": [reference(next(levels)) for _ in range(n)] for i, n in enumerate(counts)}
    strip = draw_reference_strip(WHITE, references)[:, :48]
    for name, pictures in references.items():
        assert (strip == object_colors(references)[name]).all(-1).any(), name
        for picture in pictures:
            assert (strip == picture[0, 0]).all(-1).sum() >= 16


def test_too_many_are_cut_off_and_none_is_a_plain_plate():
    many = {f"object {i}": [reference(200)] * 40 for i in range(9)}
    assert draw_reference_strip(WHITE, many).shape == (120, 248, 3)
    assert (draw_reference_strip(WHITE, {})[:, :48] == PLATE).all()


def test_what_is_no_picture_is_named():
    with pytest.raises(ValueError, match=r"references\['mug'\]\[1\]"):
        draw_reference_strip(WHITE, {"mug": [reference(1), np.zeros((3, 3))]})
