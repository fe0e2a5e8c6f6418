import numpy as np
import pytest

from sightline.vis import plot_sizes

EXPECTED = np.array([10.0, 20.0, 40.0, 80.0])


def count(picture, color) -> int:
    return int((np.abs(picture.astype(int) - color).max(axis=2) < 12).sum())


def test_sizes_beyond_the_tolerance_stand_out():
    inside = plot_sizes(EXPECTED, EXPECTED * 1.05, tolerance=0.1)
    outside = plot_sizes(EXPECTED, EXPECTED * np.array([1.05, 1.2, 0.8, 1.0]), tolerance=0.1)
    vermillion = (213, 94, 0)
    assert count(inside, vermillion) == 0
    assert count(outside, vermillion) > 50
    assert inside.shape == (520, 640, 3)


def test_without_tolerance_nothing_is_outside():
    assert count(plot_sizes(EXPECTED, EXPECTED * 3), (213, 94, 0)) == 0


def test_bad_sizes():
    for expected, measured in (
        (EXPECTED, EXPECTED[:2]),
        ([], []),
        ([1.0, -1.0], [1.0, 1.0]),
        ([np.nan], [1.0]),
    ):
        with pytest.raises(ValueError, match="positive measured as expected sizes"):
            plot_sizes(np.array(expected), np.array(measured))
