from __future__ import annotations

import numpy as np
import pytest
import torch

from sightline.vis.canvas import (
    as_array,
    as_mask,
    as_points,
    check_fits_camera,
    check_picture,
    fit_picture,
    start_canvas,
    stroke_px,
    text_px,
)
from tests.vis.scenes import grey_picture, make_camera


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((4, 4, 3), dtype=np.float32),
        np.zeros((4, 4), dtype=np.uint8),
        np.zeros((4, 4, 4), dtype=np.uint8),
        np.zeros((0, 4, 3), dtype=np.uint8),
    ],
)
def test_what_is_no_picture_is_refused_by_name(image):
    with pytest.raises(ValueError, match=r"overlay: expected uint8 RGB of shape \(height, width, 3\), got"):
        check_picture(image, "overlay")


def test_canvas_is_a_copy_that_opencv_can_paint_on():
    image = np.arange(36, dtype=np.uint8).reshape(3, 4, 3)
    image.flags.writeable = False
    canvas = start_canvas(image[:, ::-1])
    assert (canvas == image[:, ::-1]).all() and canvas.flags["C_CONTIGUOUS"] and canvas.flags["WRITEABLE"]
    assert not np.shares_memory(canvas, image)


def test_a_picture_of_another_size_than_the_camera_is_refused():
    check_fits_camera(grey_picture(320, 240), make_camera())
    with pytest.raises(ValueError, match="320 x 240 pixels, got 240 x 320"):
        check_fits_camera(grey_picture(240, 320), make_camera())


def test_masks_and_points_are_checked():
    image = grey_picture(6, 4)
    assert as_mask(torch.ones(4, 6, dtype=torch.bool), image).all()
    with pytest.raises(ValueError, match="mask: expected bool"):
        as_mask(np.ones((4, 6), dtype=np.uint8), image)
    with pytest.raises(ValueError, match=r"of the picture's shape \(4, 6\), got bool of shape \(6, 4\)"):
        as_mask(np.ones((6, 4), dtype=bool), image)
    with pytest.raises(ValueError, match=r"corners: expected pixels of shape \(m, 2\)"):
        as_points(np.zeros((4, 3)), "corners")
    needs_grad = torch.ones(2, 2, requires_grad=True)
    assert as_array(needs_grad).tolist() == [[1, 1], [1, 1]]


def test_strokes_and_letters_follow_the_size_of_the_picture():
    sizes = [(64, 64), (320, 240), (640, 480), (1920, 1080), (4000, 3000)]
    strokes = [stroke_px(grey_picture(*size)) for size in sizes]
    letters = [text_px(grey_picture(*size)) for size in sizes]
    assert strokes == sorted(strokes) and strokes[0] == 1 and strokes[2] == 3 and strokes[-1] >= 9
    assert letters == sorted(letters) and letters[0] == 8 and letters[-1] > 60


@pytest.mark.parametrize("size", [(100, 50), (50, 100), (3, 400), (40, 40)])
def test_fitting_keeps_the_shape(size):
    fitted = fit_picture(grey_picture(*size), 40, 40)
    assert max(fitted.shape[:2]) == 40
    assert abs(fitted.shape[1] * size[1] - fitted.shape[0] * size[0]) <= max(size)
    assert (fitted == 100).all()
    with pytest.raises(ValueError, match="at least 1 x 1"):
        fit_picture(grey_picture(), 0, 10)
