from __future__ import annotations

import numpy as np
import pytest

from sightline.vis.strokes import paint_contour, paint_dot, paint_polylines, paint_tint
from tests.vis.scenes import grey_picture, near_color


@pytest.mark.parametrize("width", [1, 3, 5, 7])
@pytest.mark.parametrize("y", [20.0, 20.25, 20.5, 20.75])
def test_lines_are_as_wide_as_asked_and_where_asked(width, y):
    canvas = np.zeros((41, 81, 3), dtype=np.uint8)
    paint_polylines(canvas, [np.array([[10.0, y], [70.0, y]])], (255, 255, 255), width, halo=False)
    column = canvas[:, 40, 0] / 255
    assert abs(column.sum() - width) < 0.75
    assert abs(column @ np.arange(41) / column.sum() - y) < 0.2  # what OpenCV's smoothing is good for


def test_halo_is_dark_around_light_and_light_around_dark():
    for color, halo in [((255, 255, 0), 0), ((0, 0, 90), 255)]:
        canvas = grey_picture(81, 41)
        paint_polylines(canvas, [np.array([[10.0, 20.0], [70.0, 20.0]])], color, 3)
        assert canvas[20, 40].tolist() == list(color)
        assert (np.abs(canvas[[18, 22], 40].astype(int) - halo) < 60).all()
        assert (canvas[[14, 26], 40] == 100).all()


def test_points_far_outside_neither_wrap_around_nor_fail():
    canvas = np.zeros((40, 40, 3), dtype=np.uint8)
    paint_polylines(canvas, [np.array([[-1e12, 20.0], [1e12, 20.0]])], (255, 0, 0), 3, halo=False)
    assert (canvas[20, :, 0] == 255).all() and not canvas[:17].any() and not canvas[24:].any()


def test_dots_have_their_radius():
    canvas = np.zeros((41, 41, 3), dtype=np.uint8)
    paint_dot(canvas, np.array([20.25, 19.5]), (255, 255, 255), 6.0, halo=False)
    weight = canvas[..., 0] / 255
    rows, columns = np.mgrid[:41, :41]
    assert abs(weight.sum() - np.pi * 36) < 12
    assert abs((weight * columns).sum() / weight.sum() - 20.25) < 0.1
    assert abs((weight * rows).sum() / weight.sum() - 19.5) < 0.1


def test_tint_blends_inside_the_mask_alone():
    canvas, mask = grey_picture(4, 2), np.zeros((2, 4), dtype=bool)
    mask[0, 1] = True
    paint_tint(canvas, mask, (200, 0, 100), 0.25)
    assert canvas[0, 1].tolist() == [125, 75, 100]
    assert (canvas[~mask] == 100).all()
    with pytest.raises(ValueError, match="alpha: expected a share in"):
        paint_tint(canvas, mask, (0, 0, 0), 1.5)


def test_contour_follows_the_hole_too():
    canvas, mask = grey_picture(100, 100), np.zeros((100, 100), dtype=bool)
    mask[20:80, 20:80] = True
    mask[40:60, 40:60] = False
    paint_contour(canvas, mask, (255, 0, 0), 3)
    ring = near_color(canvas, (255, 0, 0))
    assert ring[20, 50] and ring[79, 50] and ring[50, 20] and ring[50, 79]
    assert ring[39, 50] and ring[60, 50]
    assert (canvas[[30, 50, 10], 50] == 100).all()
