from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sightline.geometry import cameras
from sightline.geometry.cameras import Camera, project, unproject
from tests.tolerances import tolerance

K = torch.tensor([[620.0, 0.7, 321.3], [0, 598.0, 244.8], [0, 0, 1]], dtype=torch.float64)
LENS = torch.tensor([-0.21, 0.07, 0.0013, -0.0021, -0.011], dtype=torch.float64)


def points_in_view(seed: int, *shape: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    xy = torch.rand(*shape, 2, generator=generator, dtype=dtype) - 0.5
    depth = 0.5 + 2 * torch.rand(*shape, 1, generator=generator, dtype=dtype)
    return torch.cat([xy * 0.8, torch.ones_like(depth)], -1) * depth


def test_project_is_opencvs():
    points = points_in_view(0, 200)
    no_skew = K * torch.tensor([[1, 0, 1], [1, 1, 1], [1, 1, 1]])
    expected, _ = cv2.projectPoints(points.numpy(), np.zeros(3), np.zeros(3), no_skew.numpy(), LENS.numpy())
    torch.testing.assert_close(
        project(points, no_skew, LENS), torch.from_numpy(expected[:, 0]), **tolerance(torch.float64, "pixel")
    )


def test_K_for_its_transpose_is_seen_by_the_projection():
    with pytest.raises(ValueError, match="transposed"):
        Camera(K.T.contiguous(), 640, 480)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (torch.eye(4, dtype=torch.float64), r"expected shape \(3, 3\), got \(4, 4\)"),
        (K[:2], r"got \(2, 3\)"),
        (K[None], r"got \(1, 3, 3\)"),
        (K * torch.tensor([[-1.0], [1], [1]]), "positive focal"),
        (K * 2, "last row 0 0 1"),
        (K * torch.nan, "finite"),
        (K + torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 0, 0]]), "row 2, column 1"),
    ],
)
def test_a_bad_K_is_named(bad, message):
    with pytest.raises(ValueError, match=message):
        Camera(bad, 640, 480)


def test_a_bad_shape_is_named_by_the_functions_too():
    with pytest.raises(ValueError, match=r"got \(4,\)"):
        project(points_in_view(0, 3), torch.ones(4, dtype=torch.float64))


@pytest.mark.parametrize(
    ("distortion", "message"),
    [(torch.zeros(4), r"got shape \(4,\)"), (torch.full((5,), torch.inf), "finite")],
)
def test_a_bad_distortion_is_named(distortion, message):
    with pytest.raises(ValueError, match=message):
        Camera(K, 640, 480, distortion)


def test_an_empty_picture_is_refused():
    with pytest.raises(ValueError, match="0x480"):
        Camera(K, 0, 480)


@given(seed=st.integers(0, 2**20), distorted=st.booleans())
@settings(max_examples=25, deadline=None)
def test_unproject_undoes_project(seed, distorted):
    camera = Camera(K, 640, 480, LENS if distorted else None)
    points = points_in_view(seed, 4, 5)
    again = camera.unproject(camera.project(points), points[..., 2])
    torch.testing.assert_close(again, points, **tolerance(torch.float64, "iterative"))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_dtype_of_the_points_is_kept(dtype):
    points = points_in_view(1, 6, dtype=dtype)
    px = project(points, K, LENS)
    assert px.dtype == unproject(px, points[:, 2], K, LENS).dtype == dtype
    torch.testing.assert_close(px.double(), project(points.double(), K, LENS), **tolerance(dtype, "pixel"))


def test_a_batch_of_cameras_equals_the_loop():
    generator = torch.Generator().manual_seed(3)
    scale = 1 + 0.1 * torch.rand(2, 3, 1, 1, generator=generator, dtype=torch.float64)
    Ks = K * torch.where(torch.eye(3, dtype=torch.bool) & (torch.arange(3) < 2), scale, 1.0)
    lenses = LENS * scale[..., 0]
    points = points_in_view(4, 2, 3, 7)
    px = project(points, Ks, lenses)
    lifted = unproject(px, points[..., 2], Ks, lenses)
    for i in range(2):
        for j in range(3):
            one = project(points[i, j], Ks[i, j], lenses[i, j])
            torch.testing.assert_close(px[i, j], one, **tolerance(torch.float64))
    torch.testing.assert_close(lifted, points, **tolerance(torch.float64, "iterative"))


def test_behind_the_camera_is_nan_with_zero_gradient():
    points = torch.tensor([[0.1, 0.2, 1.0], [0.1, 0.2, -1.0], [0.1, 0.2, 0.0]], dtype=torch.float64)
    points.requires_grad_()
    px = project(points, K, LENS)
    assert px.isnan().all(-1).tolist() == [False, True, True]
    px.nansum().backward()
    assert points.grad.isfinite().all()
    assert points.grad[1:].abs().sum() == 0


def test_beyond_the_lens_is_nan_with_zero_gradient():
    px = torch.tensor([[320.0, 240.0], [9000.0, 9000.0]], dtype=torch.float64, requires_grad=True)
    depth = torch.ones(2, dtype=torch.float64, requires_grad=True)
    points = unproject(px, depth, K, LENS)
    assert points.isnan().all(-1).tolist() == [False, True]
    points.nansum().backward()
    assert px.grad.isfinite().all() and depth.grad.tolist()[1] == 0


def test_gradients():
    points = points_in_view(5, 4).requires_grad_()
    matrix, lens = K.clone().requires_grad_(), LENS.clone().requires_grad_()
    assert torch.autograd.gradcheck(project, (points, matrix, lens))
    px = project(points, K, LENS).detach().requires_grad_()
    assert torch.autograd.gradcheck(unproject, (px, points[:, 2].detach().requires_grad_(), matrix, lens))


def test_crop_resize_and_flip_follow_the_pixels():
    camera = Camera(K, 640, 480, LENS)
    points = points_in_view(6, 50)
    px = camera.project(points)
    pixel = tolerance(torch.float64, "pixel")
    torch.testing.assert_close(
        camera.crop(31, -7, 200, 100).project(points), px - px.new_tensor([31, -7]), **pixel
    )
    half = camera.resize(320, 120)
    torch.testing.assert_close(half.project(points), (px + 0.5) * px.new_tensor([0.5, 0.25]) - 0.5, **pixel)
    mirrored = camera.flip_horizontal().project(points * points.new_tensor([-1, 1, 1]))
    torch.testing.assert_close(mirrored, px * px.new_tensor([-1, 1]) + px.new_tensor([639, 0]), **pixel)
    assert half.image_size == (320, 120)


def test_resizing_by_opencv_moves_pixels_as_resize_says():
    image = np.zeros((48, 64), np.float32)
    image[12:20, 24:32] = 1  # its centre of mass is (27.5, 15.5)
    small = cv2.resize(image, (32, 24), interpolation=cv2.INTER_AREA)
    rows, columns = np.nonzero(small)
    camera = Camera.from_focal(50, 64, 48)
    ray = camera.unproject(
        torch.tensor([27.5, 15.5], dtype=torch.float64), torch.ones((), dtype=torch.float64)
    )
    expected = torch.tensor([columns.mean(), rows.mean()])
    torch.testing.assert_close(
        camera.resize(32, 24).project(ray), expected, **tolerance(torch.float64, "pixel")
    )


def test_the_principal_point_of_from_focal_is_the_middle_pixel():
    camera = Camera.from_focal(500, 5, 3)
    assert camera.project(torch.tensor([0.0, 0, 1], dtype=torch.float64)).tolist() == [2, 1]


def test_sees_is_in_front_in_the_picture_and_before_the_lens_folds():
    barrel = torch.tensor([-0.3, 0, 0, 0, 0], dtype=torch.float64)  # folds at r = 1.054
    camera = Camera(torch.tensor([[300.0, 0, 320], [0, 300, 240], [0, 0, 1]]), 640, 480, barrel)
    points = torch.tensor(
        [[0, 0, 1.0], [0, 0, -1], [0.9, 0, 1], [1.7, 0, 1], [0, 0.95, 1]], dtype=torch.float64
    )
    folded = camera.project(points)[3]
    assert (folded >= 0).all() and (folded < 640).all()  # what makes the fold a trap
    assert camera.sees(points).tolist() == [True, False, True, False, True]
    assert Camera(camera.K, 640, 480).sees(points).tolist() == [True, False, True, False, False]


def test_the_seeds_focal_function_has_its_address_here():
    assert float(cameras.focal_mm_to_px(36.0, 640, 36.0)) == 640
