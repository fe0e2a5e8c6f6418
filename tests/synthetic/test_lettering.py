from __future__ import annotations

import numpy as np
import pytest

from sightline.synthetic.lettering import draw_text, draw_text_in_box, text_width

WHITE = (255, 255, 255)


def page(width: int = 80, height: int = 40) -> np.ndarray:
    return np.zeros((height, width, 3), np.uint8)


def ink(text: str, **options: float) -> np.ndarray:
    image = page()
    draw_text(image, text, (10, 5), 30, WHITE, **options)
    return image[..., 0] > 127


def test_every_letter_leaves_its_own_mark():
    letters = "ABCDEFGHIJKLMNPQRSTUVWXYZ123456789.-/!&"
    marks = {ink(letter).tobytes() for letter in letters}
    assert len(marks) == len(letters)
    assert all(ink(letter).any() for letter in letters)


def test_letters_are_not_mirrored_nor_upside_down():
    # L: a stem on the left over the whole height, a foot on the right at the bottom alone
    mark = ink("L")
    assert mark[8:32, 10].mean() > 0.9
    assert mark[33:37, 22].any()
    assert not mark[:25, 15:].any()


def test_slant_leans_the_top_to_the_right():
    upright, leaning = ink("I"), ink("I", slant=0.3)
    top = [np.flatnonzero(mark[6]).mean() for mark in (upright, leaning)]
    foot = [np.flatnonzero(mark[34]).mean() for mark in (upright, leaning)]
    assert top[1] > top[0] + 5
    assert abs(foot[1] - foot[0]) < 2


def test_weight_thickens_and_width_follows_the_text():
    assert ink("H", weight=0.3).sum() > 1.8 * ink("H", weight=0.12).sum()
    assert text_width("ABAB", 12) > 2 * text_width("AB", 12)
    assert text_width("", 12) == 0


@pytest.mark.parametrize("text", ["I", "TEA", "LONGER WORDS HERE"])
@pytest.mark.parametrize("box", [(5.0, 5.0, 75.0, 35.0), (30.0, 4.0, 40.0, 36.0)])
def test_text_stays_in_its_box(text: str, box: tuple[float, float, float, float]):
    image = page()
    draw_text_in_box(image, text, box, WHITE)
    rows, columns = np.nonzero(image[..., 0] > 127)
    assert len(rows) > 0
    assert columns.min() >= box[0] - 2
    assert columns.max() <= box[2] + 2
    assert rows.min() >= box[1] - 2
    assert rows.max() <= box[3] + 2


def test_an_unknown_letter_is_named():
    with pytest.raises(ValueError, match=r"alphabet.*'ü'"):
        draw_text(page(), "Tür".upper().replace("Ü", "ü"), (0, 0), 10, WHITE)
