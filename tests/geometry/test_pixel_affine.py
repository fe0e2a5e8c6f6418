from __future__ import annotations

import cv2
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sightline.geometry import pixel_affine as affine
from sightline.geometry.cameras import Camera
from sightline.geometry.distortion import distort_pixels, undistort_pixels
from tests.tolerances import tolerance

EXACT = tolerance(torch.float64, "closed_form")


def some_affine(seed: int, *batch: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    noise = torch.rand(*batch, 2, 3, generator=generator, dtype=torch.float64) - 0.5
    return noise * torch.tensor([0.4, 0.4, 20]) + torch.tensor([[1.0, 0, 0], [0, 1, 0]])


def some_pixels(seed: int, *shape: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 100 * torch.rand(*shape, 2, generator=generator, dtype=torch.float64)


@given(seed=st.integers(0, 2**20))
@settings(max_examples=25, deadline=None)
def test_compose_and_invert_are_those_of_maps(seed):
    b_from_a, c_from_b = some_affine(seed, 3), some_affine(seed + 1, 3)
    px = some_pixels(seed, 3, 7)
    through = affine.apply(c_from_b, affine.apply(b_from_a, px))
    torch.testing.assert_close(
        affine.apply(affine.compose(c_from_b, b_from_a), px), through, rtol=1e-12, atol=1e-9
    )
    back = affine.apply(affine.invert(b_from_a), affine.apply(b_from_a, px))
    torch.testing.assert_close(back, px, rtol=1e-12, atol=1e-9)


def test_a_batch_equals_the_loop():
    matrices, px = some_affine(0, 4), some_pixels(1, 4, 5)
    looped = torch.stack([affine.apply(m, p) for m, p in zip(matrices, px, strict=True)])
    torch.testing.assert_close(affine.apply(matrices, px), looped, **EXACT)
    pictures = some_pixels(2, 4, 3, 9)
    looped = torch.stack([affine.warp(p, m, (6, 5)) for m, p in zip(matrices, pictures, strict=True)])
    torch.testing.assert_close(affine.warp(pictures, matrices, (6, 5)), looped, **EXACT)


def test_resize_keeps_edges_and_rotation_its_centre():
    ends = torch.tensor([[-0.5, -0.5], [639.5, 479.5]], dtype=torch.float64)
    resized = affine.apply(affine.resize((640, 480), (224, 100)), ends)
    torch.testing.assert_close(resized, ends.new_tensor([[-0.5, -0.5], [223.5, 99.5]]), **EXACT)
    pivot = torch.tensor([[12.0, 34.0]], dtype=torch.float64)
    torch.testing.assert_close(affine.apply(affine.rotate(0.7, (12.0, 34.0)), pivot), pivot, **EXACT)
    opencv = torch.from_numpy(cv2.getRotationMatrix2D((12.0, 34.0), -40.0, 1.0))
    torch.testing.assert_close(affine.rotate(torch.pi * 40 / 180, (12.0, 34.0)), opencv, rtol=1e-9, atol=1e-9)


def test_a_box_fills_its_square():
    boxes = torch.tensor([[10.0, 20, 50, 30], [0, 0, 8, 64]], dtype=torch.float64)
    squares = affine.square_crop(boxes, 224, margin=1.25)
    corners = affine.apply(squares, boxes.view(2, 2, 2))
    torch.testing.assert_close(corners.mean(1), corners.new_full((2, 2), 111.5), **EXACT)
    longer = (corners[:, 1] - corners[:, 0]).amax(-1)
    torch.testing.assert_close(longer, longer.new_full((2,), 224 / 1.25), **EXACT)


@pytest.mark.parametrize("box", [[5.0, 5, 5, 5], [0, 0, torch.nan, 4], [9.0, 9, 2, 2]])
def test_a_box_without_extent_is_refused(box):
    with pytest.raises(ValueError, match="boxes"):
        affine.square_crop(torch.tensor(box), 64)


@pytest.mark.parametrize("mode", ["bilinear", "nearest"])
@pytest.mark.parametrize("fill", [0.0, 0.4])
def test_warp_is_opencvs(mode, fill):
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(3, 40, 50, generator=generator)
    turned = affine.compose(affine.resize((50, 40), (73, 31)), affine.rotate(0.3, (20.3, 11.1)))
    flag = cv2.INTER_LINEAR if mode == "bilinear" else cv2.INTER_NEAREST
    expected = cv2.warpAffine(
        image.permute(1, 2, 0).numpy(), turned.numpy(), (73, 31), flags=flag, borderValue=(fill,) * 3
    )
    got = affine.warp(image, turned, (73, 31), mode=mode, fill=fill).permute(1, 2, 0)
    wrong = (got - torch.from_numpy(expected)).abs().amax(-1)
    if mode == "bilinear":  # OpenCV may round positions to 1/32 of a pixel
        assert float(wrong.max()) < 0.05 and float(wrong.mean()) < 0.01
    else:  # and a position halfway between two pixels may fall to either
        assert float((wrong > 1e-6).double().mean()) < 0.02


def test_whole_pixel_moves_are_exact():
    image = torch.arange(60.0, dtype=torch.float64).view(1, 6, 10)
    torch.testing.assert_close(affine.warp(image, affine.crop(2, 1), (5, 4)), image[:, 1:5, 2:7], **EXACT)
    torch.testing.assert_close(
        affine.warp(image, affine.flip_horizontal(10), (10, 6)), image.flip(-1), **EXACT
    )
    column = image[..., :1]
    torch.testing.assert_close(affine.warp(column, affine.crop(0, 0), (1, 6)), column, **EXACT)


def test_warped_pictures_and_moved_pixels_agree():
    rows = torch.arange(64, dtype=torch.float64)
    dot = torch.exp(-((rows[:, None] - 30.2) ** 2 + (rows[None, :] - 22.7) ** 2) / 18)[None]
    turned = affine.compose(affine.flip_horizontal(64), affine.rotate(0.4, (31.5, 31.5)), affine.crop(-3, 2))
    drawn = affine.warp(dot, turned, (64, 64))[0]
    found = torch.stack([(drawn.sum(0) * rows).sum(), (drawn.sum(1) * rows).sum()]) / drawn.sum()
    moved = affine.apply(turned, torch.tensor([[22.7, 30.2]], dtype=torch.float64))[0]
    torch.testing.assert_close(found, moved, rtol=0, atol=0.01)


def test_K_follows_crop_resize_and_flip():
    camera = Camera(torch.tensor([[620.0, 0.7, 321.3], [0, 598.0, 244.8], [0, 0, 1]]), 640, 480)
    cropped = affine.apply_to_intrinsics(affine.crop(31, -7), camera.K)
    torch.testing.assert_close(cropped, camera.crop(31, -7, 100, 100).K, **EXACT)
    resized = affine.apply_to_intrinsics(affine.resize((640, 480), (320, 120)), camera.K)
    torch.testing.assert_close(resized, camera.resize(320, 120).K, **EXACT)
    flipped = affine.apply_to_intrinsics(affine.flip_horizontal(640), camera.K)
    torch.testing.assert_close(flipped, camera.flip_horizontal().K, **EXACT)
    with pytest.raises(ValueError, match="turn"):
        affine.apply_to_intrinsics(affine.rotate(0.1, (0.0, 0.0)), camera.K)


@given(seed=st.integers(0, 2**20))
@settings(max_examples=15, deadline=None)
def test_what_a_picture_went_through_is_undone_before_undistortion(seed):
    K = torch.tensor([[300.0, 0, 128], [0, 300, 120], [0, 0, 1]], dtype=torch.float64)
    lens = torch.tensor([-0.2, 0.05, 1e-3, -1e-3, 0], dtype=torch.float64)
    ideal = some_pixels(seed, 20) + 80
    picture = affine.compose(
        some_affine(seed), affine.flip_horizontal(256), affine.rotate(0.5, (128.0, 120.0))
    )
    seen = affine.apply(picture, distort_pixels(ideal, K, lens))
    again, valid = undistort_pixels(affine.apply(affine.invert(picture), seen), K, lens)
    assert valid.all()
    torch.testing.assert_close(again, ideal, **tolerance(torch.float64, "pixel"))


def test_gradients():
    matrix = some_affine(0, 2).requires_grad_()
    px = some_pixels(1, 2, 3).requires_grad_()
    assert torch.autograd.gradcheck(affine.apply, (matrix, px))
    assert torch.autograd.gradcheck(affine.invert, (matrix,))
    boxes = torch.tensor([[10.0, 20, 50, 31]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda b: affine.square_crop(b, 64), (boxes,))
    images = some_pixels(2, 2, 1, 5).requires_grad_()
    assert torch.autograd.gradcheck(lambda i, a: affine.warp(i, a, (4, 3)), (images, matrix))
