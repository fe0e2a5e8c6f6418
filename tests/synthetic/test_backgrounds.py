from __future__ import annotations

import numpy as np
import pytest

from sightline.synthetic.backgrounds import BACKGROUND_KINDS, TABLE_KINDS, fractal_noise, make_background


@pytest.mark.parametrize("kind", BACKGROUND_KINDS)
def test_backgrounds_are_whole_and_seeded(kind: str):
    first, again, other = (make_background(np.random.default_rng(s), (160, 120), kind) for s in (4, 4, 5))
    assert first.shape == (120, 160, 3)
    assert first.dtype == np.uint8
    assert (first == again).all()
    assert (first != other).any()
    assert first.std() > 2


def test_noise_repeats_without_a_seam():
    noise = fractal_noise(np.random.default_rng(0), (256, 192))
    inside = np.abs(np.diff(noise, axis=1)).mean()
    assert np.abs(noise[:, 0] - noise[:, -1]).mean() < 2 * inside
    inside = np.abs(np.diff(noise, axis=0)).mean()
    assert np.abs(noise[0] - noise[-1]).mean() < 2 * inside


def test_noise_has_coarse_and_fine_detail():
    noise = fractal_noise(np.random.default_rng(0), (256, 256))
    smooth = noise.reshape(16, 16, 16, 16).mean((1, 3))
    assert smooth.std() > 0.1
    assert np.diff(noise, axis=0).std() > 0.003


def test_unknown_kinds_are_refused():
    assert set(TABLE_KINDS) <= set(BACKGROUND_KINDS)
    with pytest.raises(ValueError, match=r"kind: expected one of .*wood.*got 'marble'"):
        make_background(np.random.default_rng(0), (16, 16), "marble")
