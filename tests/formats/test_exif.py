from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from PIL.TiffImagePlugin import IFDRational

from sightline.formats.exif import camera_from_exif, read_exif_focal
from sightline.formats.images import write_image
from tests.real_data import real_path


def photo(path, size=(40, 30), orientation=1, **tags):
    exif = Image.Exif()
    exif[274] = orientation
    exif[272] = "Pocket 3\0"
    exif.get_ifd(0x8769).update(tags.pop("tags", {}))
    Image.fromarray(np.zeros((size[1], size[0], 3), np.uint8)).save(path, exif=exif)
    return path


def test_the_35mm_equivalent_of_a_turned_photo(tmp_path):
    path = photo(tmp_path / "a.jpg", orientation=6, tags={37386: IFDRational(42, 10), 41989: 26})
    numbers = read_exif_focal(path)
    assert (numbers.width, numbers.height, numbers.orientation) == (30, 40, 6)
    assert numbers.focal_mm == pytest.approx(4.2) and numbers.focal_35mm == 26
    assert numbers.model == "Pocket 3"
    camera, source = camera_from_exif(path)
    assert camera.image_size == (30, 40)
    assert float(camera.K[0, 0]) == pytest.approx(26 / 43.2666 * 50, rel=1e-4)
    assert camera.K[:2, 2].tolist() == [14.5, 19.5] and "35 mm equivalent" in source


def test_a_resized_photo_uses_the_size_that_exif_tells(tmp_path):
    # 4000 pixels on 20 mm of sensor, the file resized to 40.
    tags = {37386: IFDRational(10, 1), 41486: IFDRational(200, 1), 41488: 4, 40962: 4000, 40963: 3000}
    camera, _ = camera_from_exif(photo(tmp_path / "a.jpg", tags=tags))
    assert float(camera.K[0, 0]) == pytest.approx(10 / 20 * 40)


@pytest.mark.parametrize("tags", [{}, {37386: IFDRational(0, 0)}, {41989: 0}])
def test_a_photo_that_does_not_tell_gives_no_camera(tmp_path, tags):
    assert camera_from_exif(photo(tmp_path / "a.jpg", tags=tags)) is None


def test_a_picture_without_exif_and_a_missing_one(tmp_path):
    write_image(tmp_path / "a.png", np.zeros((3, 4, 3), np.uint8))
    assert camera_from_exif(tmp_path / "a.png") is None
    with pytest.raises(FileNotFoundError, match=r"absent\.jpg"):
        camera_from_exif(tmp_path / "absent.jpg")


@pytest.mark.real
def test_the_real_photo():
    path = real_path("cookies_box/resized_IMG_3875.JPG")
    numbers = read_exif_focal(path)
    assert numbers.focal_mm == 55 and numbers.exif_size == (5184, 3456) and "550D" in numbers.model
    # The sensor's 22.3 mm give 1770.85, which corners.json says too; the focal plane's resolution 3 % less.
    assert float(camera_from_exif(path, 22.3).camera.K[0, 0]) == pytest.approx(1770.852, abs=1e-3)
    assert float(camera_from_exif(path).camera.K[0, 0]) == pytest.approx(1770.85, rel=0.035)
