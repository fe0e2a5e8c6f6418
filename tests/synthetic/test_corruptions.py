from __future__ import annotations

import numpy as np
import pytest

from sightline.synthetic import CORRUPTIONS, corrupt
from sightline.synthetic.corruptions import blur, contrast, fog, low_light

RNG = np.random.default_rng(0)
IMAGE = np.clip(
    np.linspace(20, 230, 160)[None, :, None] + 30 * RNG.standard_normal((120, 160, 3)), 0, 255
).astype(np.uint8)


def test_there_are_eight():
    assert CORRUPTIONS == ("blur", "noise", "fog", "contrast", "gamma", "jpeg", "color-cast", "low-light")


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_stronger_is_farther_from_the_picture_and_seeds_repeat(name: str):
    before = IMAGE.copy()
    spoilt = [corrupt(IMAGE, name, severity, 3).astype(float) for severity in range(1, 6)]
    distances = [float(np.abs(each - IMAGE).mean()) for each in spoilt]
    assert distances == sorted(distances)
    assert 1 < distances[0] < distances[-1]
    assert np.array_equal(IMAGE, before)
    assert np.array_equal(corrupt(IMAGE, name, 4, 3), corrupt(IMAGE, name, 4, 3))
    assert corrupt(IMAGE, name, 4, 3).dtype == np.uint8


@pytest.mark.parametrize("name", ["noise", "color-cast", "low-light"])
def test_what_is_drawn_follows_the_seed(name: str):
    assert not np.array_equal(corrupt(IMAGE, name, 3, 0), corrupt(IMAGE, name, 3, 1))


def test_fog_is_thicker_far_away_and_where_depth_is_missing():
    depth = np.full((120, 160), 1.0, np.float32)
    depth[:, 80:] = 4.0
    depth[0] = 0
    black = np.zeros_like(IMAGE)
    hazy = fog(black, 1.0, depth)[..., 0]
    assert hazy[5, 100] > 2 * hazy[5, 10]
    assert hazy[0, 10] == hazy[5, 100] == round(205 * (1 - np.exp(-1)))
    no_depth = fog(black, 1.0)[:, 0, 0].astype(int)
    assert no_depth[0] > no_depth[-1] > 0
    assert np.array_equal(fog(black, 1.0, np.zeros_like(depth)), fog(black, 1.0))


def test_golden_values():
    grey = np.full((4, 4, 3), 100, np.uint8)
    grey[:, 2:] = 200
    assert np.unique(contrast(grey, 0.5)).tolist() == [125, 175]
    assert np.array_equal(blur(grey, 0.0), grey)
    dark = low_light(np.full((200, 200, 3), 200, np.uint8), 0.5, np.random.default_rng(0)).astype(float)
    assert dark.mean() == pytest.approx(100, abs=0.2)
    assert dark.std() == pytest.approx(np.sqrt(13.0), rel=0.05)


def test_blur_is_measured_in_pictures_640_wide():
    # a step, twice as wide in a picture of twice the size
    small = np.zeros((8, 320, 3), np.uint8)
    small[:, 160:] = 255
    large = np.repeat(np.repeat(small, 2, 0), 2, 1)
    profile = blur(small, 6.0)[4, :, 0].astype(float)
    wide = blur(large, 6.0)[8, :, 0].astype(float).reshape(-1, 2).mean(1)
    assert np.abs(profile - wide).max() < 12


def test_bad_names_and_severities():
    with pytest.raises(ValueError, match="expected one of blur"):
        corrupt(IMAGE, "fogg", 1, 0)
    with pytest.raises(ValueError, match="1 to 5"):
        corrupt(IMAGE, "fog", 0, 0)
