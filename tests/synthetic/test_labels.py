from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sightline.synthetic import labels

PAINTERS = {
    "ground": lambda image, rng, palette: labels.paint_ground(image, rng, palette),
    "logo": lambda image, rng, palette: labels.paint_logo(image, rng, palette),
    "picture": lambda image, rng, palette: labels.paint_picture(image, rng, palette),
    "barcode": lambda image, rng, palette: labels.paint_barcode(image, rng),
    "table": lambda image, rng, palette: labels.paint_table(image, rng),
    "text": lambda image, rng, palette: labels.paint_text(image, rng, palette.dark, 5),
    "brand": lambda image, rng, palette: labels.paint_brand(image, rng, palette, "MAROLA"),
    "front": lambda image, rng, palette: labels.paint_front(image, rng, palette, "MAROLA"),
    "back": lambda image, rng, palette: labels.paint_back(image, rng, palette, "MAROLA"),
    "lid": lambda image, rng, palette: labels.paint_lid(image, rng, palette, "MAROLA"),
    "wrap": lambda image, rng, palette: labels.paint_wrap(image, rng, palette, "MAROLA"),
}


def painted(name: str, seed: int, width: int = 160, height: int = 120) -> np.ndarray:
    rng = np.random.default_rng(seed)
    image = np.full((height, width, 3), 128, np.uint8)
    PAINTERS[name](image, rng, labels.make_palette(rng))
    return image


@pytest.mark.parametrize("name", PAINTERS)
def test_a_seed_gives_the_same_bytes_and_another_seed_others(name: str):
    assert (painted(name, 1) == painted(name, 1)).all()
    assert (painted(name, 1) != painted(name, 2)).any()


@pytest.mark.parametrize("name", PAINTERS)
@settings(max_examples=8, deadline=None)
@given(width=st.integers(4, 90), height=st.integers(4, 90), seed=st.integers(0, 2**16))
def test_painters_fill_any_panel(name: str, width: int, height: int, seed: int):
    assert painted(name, seed, width, height).shape == (height, width, 3)


def test_a_painter_touches_nothing_but_its_view():
    rng = np.random.default_rng(0)
    image = np.full((100, 100, 3), 7, np.uint8)
    labels.paint_front(image[20:80, 30:70], rng, labels.make_palette(rng), "OAT")
    image[20:80, 30:70] = 7
    assert (image == 7).all()


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_palettes_have_contrast(seed: int):
    palette = labels.make_palette(np.random.default_rng(seed))
    assert len(palette.shades()) == 5
    assert sum(palette.light) - sum(palette.dark) > 300
    assert all(0 <= channel <= 255 for shade in palette.shades() for channel in shade)


def test_fronts_are_rich_in_corners():
    import cv2

    counts = [len(cv2.SIFT_create().detect(painted("front", seed, 200, 300), None)) for seed in range(12)]
    assert min(counts) > 25
    assert np.median(counts) > 100
