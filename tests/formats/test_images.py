from __future__ import annotations

import errno

import numpy as np
import pytest
from PIL import Image

from sightline.formats import images
from tests.real_data import real_path


@pytest.fixture
def picture():
    return np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".webp"])
def test_lossless_write_then_read_is_identity(tmp_path, picture, suffix):
    path = tmp_path / f"picture{suffix}"
    images.write_image(path, picture)
    assert np.array_equal(images.read_image(path), picture)


def test_grey_becomes_rgb(tmp_path):
    grey = np.arange(6, dtype=np.uint8).reshape(2, 3)
    images.write_image(tmp_path / "grey.png", grey)
    assert np.array_equal(images.read_image(tmp_path / "grey.png"), np.repeat(grey[..., None], 3, axis=2))


def test_sixteen_bits_are_scaled_to_eight(tmp_path):
    Image.fromarray(np.array([[0, 257, 32896, 65535]], dtype=np.uint16)).save(tmp_path / "deep.png")
    assert images.read_image(tmp_path / "deep.png")[0, :, 0].tolist() == [0, 1, 128, 255]


def test_transparent_pixels_lie_over_black(tmp_path):
    rgba = np.array([[[200, 100, 50, 255], [200, 100, 50, 0]]], dtype=np.uint8)
    images.write_image(tmp_path / "alpha.png", rgba)
    assert images.read_image(tmp_path / "alpha.png").tolist() == [[[200, 100, 50], [0, 0, 0]]]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path, orientation):
    upright = np.zeros((4, 6, 3), dtype=np.uint8)
    upright[0, 0] = (255, 0, 0)
    upright[0, -1] = (0, 255, 0)
    # What the sensor stored so that the orientation tag brings it upright (EXIF 2.32, tag 274).
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright, 1),
        7: upright[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[274] = orientation
    Image.fromarray(np.ascontiguousarray(stored)).save(tmp_path / "turned.png", exif=exif)
    assert np.array_equal(images.read_image(tmp_path / "turned.png"), upright)


def test_missing_truncated_and_foreign_files_are_named(tmp_path, picture):
    with pytest.raises(FileNotFoundError, match=r"absent\.png: no such picture"):
        images.read_image(tmp_path / "absent.png")
    big = np.random.default_rng(1).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    for suffix in (".png", ".jpg", ".bmp", ".webp", ".tif"):
        whole = tmp_path / f"whole{suffix}"
        images.write_image(whole, big)
        cut = tmp_path / f"cut{suffix}"
        cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
        with pytest.raises(ValueError, match=rf"cut\{suffix}: expected a whole picture"):
            images.read_image(cut)
    (tmp_path / "text.png").write_text("hello")
    with pytest.raises(ValueError, match=r"text\.png: expected a whole picture"):
        images.read_image(tmp_path / "text.png")


def test_floating_point_pictures_are_refused(tmp_path):
    Image.fromarray(np.zeros((2, 2), dtype=np.float32)).save(tmp_path / "float.tif")
    with pytest.raises(ValueError, match="floating-point"):
        images.read_image(tmp_path / "float.tif")


@pytest.mark.parametrize(
    ("name", "pixels"),
    [
        ("a.png", np.zeros((2, 2, 3))),
        ("a.png", np.zeros((2, 2, 2), np.uint8)),
        ("a.txt", np.zeros((2, 2, 3), np.uint8)),
    ],
)
def test_what_cannot_be_written_is_refused(tmp_path, name, pixels):
    with pytest.raises(ValueError, match="expected"):
        images.write_image(tmp_path / name, pixels)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_nothing(tmp_path, picture, monkeypatch):
    def fill_up(self, target, **_options):
        target.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", fill_up)
    with pytest.raises(OSError, match="No space"):
        images.write_image(tmp_path / "a.png", picture)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("scale", [0.1, 1.0, 0.5])
def test_depth_round_trip_is_within_half_a_step(tmp_path, scale):
    depth = np.random.default_rng(2).uniform(0.2, 3.0, (5, 7)).astype(np.float32)
    depth[0, 0] = 0.0
    depth[1, 1] = np.nan
    images.write_depth(tmp_path / "depth.png", depth, scale)
    back = images.read_depth(tmp_path / "depth.png", scale)
    assert back.dtype == np.float32
    assert back[0, 0] == 0 and back[1, 1] == 0
    assert np.nanmax(np.abs(back - np.nan_to_num(depth))) <= 0.5005e-3 * scale


def test_depth_is_metres_of_millimetres(tmp_path):
    Image.fromarray(np.array([[0, 1000, 2500]], dtype=np.uint16)).save(tmp_path / "depth.png")
    assert images.read_depth(tmp_path / "depth.png").tolist() == [[0.0, 1.0, 2.5]]
    assert np.allclose(images.read_depth(tmp_path / "depth.png", 0.1), [[0.0, 0.1, 0.25]])


def test_eight_bit_depth_is_refused(tmp_path, picture):
    for name, pixels in (("rgb.png", picture), ("grey.png", picture[..., 0])):
        images.write_image(tmp_path / name, pixels)
        with pytest.raises(ValueError, match=rf"{name}: expected a depth map of one channel and 16 bits"):
            images.read_depth(tmp_path / name)


@pytest.mark.parametrize(
    ("value", "message"),
    [(70.0, "1.07"), (-1.0, ">= 0"), (np.inf, "finite"), (1e-4, "would become missing")],
)
def test_depths_that_a_file_cannot_hold_are_refused(tmp_path, value, message):
    with pytest.raises(ValueError, match=message):
        images.write_depth(tmp_path / "depth.png", np.array([[1.0, value]]))
    assert list(tmp_path.iterdir()) == []


def test_the_advised_scale_holds_the_depth(tmp_path):
    images.write_depth(tmp_path / "depth.png", np.array([[70.0]]), 1.07)
    assert images.read_depth(tmp_path / "depth.png", 1.07)[0, 0] == pytest.approx(70.0, abs=1e-3)


def test_masks_round_trip_and_other_people_s_masks(tmp_path):
    mask = np.random.default_rng(3).random((5, 4)) > 0.5
    images.write_mask(tmp_path / "mask.png", mask)
    assert np.array_equal(images.read_mask(tmp_path / "mask.png"), mask)
    Image.fromarray(mask.astype(np.uint8)).save(tmp_path / "ones.png")
    assert np.array_equal(images.read_mask(tmp_path / "ones.png"), mask)
    cut_out = np.dstack([np.full((5, 4, 3), 9, np.uint8), mask.astype(np.uint8) * 255])
    images.write_image(tmp_path / "cut_out.png", cut_out)
    assert np.array_equal(images.read_mask(tmp_path / "cut_out.png"), mask)
    opaque = np.dstack(
        [np.repeat(mask[..., None] * np.uint8(255), 3, axis=2), np.full((5, 4), 255, np.uint8)]
    )
    images.write_image(tmp_path / "opaque.png", opaque)
    assert np.array_equal(images.read_mask(tmp_path / "opaque.png"), mask)


def test_masks_must_be_bool_and_lossless(tmp_path):
    with pytest.raises(ValueError, match="expected bool"):
        images.write_mask(tmp_path / "mask.png", np.ones((2, 2), np.uint8))
    with pytest.raises(ValueError, match="lossy"):
        images.write_mask(tmp_path / "mask.jpg", np.ones((2, 2), bool))


@pytest.mark.real
def test_real_depth_is_metres():
    depth = images.read_depth(real_path("lmo_scene/depth.png"))
    assert depth.shape == (480, 640)
    assert 0.3 < np.median(depth[depth > 0]) < 2.0
