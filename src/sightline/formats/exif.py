"""What a photograph says of its camera in EXIF, as numbers and as a camera."""

from __future__ import annotations

import math
from pathlib import Path
from typing import NamedTuple

from PIL.ExifTags import IFD, Base
from PIL.Image import Exif

from sightline.formats.images import open_header, read_image_size
from sightline.geometry.cameras import Camera
from sightline.geometry.focal import focal_from_exif


class ExifFocal(NamedTuple):
    """EXIF's numbers about the focal length; None where the photo does not tell.

    Args:
        width: of the upright picture, pixels.
        height: of the upright picture, pixels.
        focal_mm: the focal length.
        focal_35mm: its equivalent on 35 mm film.
        plane_x_resolution: pixels of the camera's own picture on a unit of the sensor.
        plane_resolution_unit: 2 inch, 3 cm, 4 mm, 5 um.
        exif_size: ``(width, height)`` of the camera's own picture, as stored; a resized file keeps it.
        orientation: 1 to 8.
        model: the camera's name.
    """

    width: int
    height: int
    focal_mm: float | None
    focal_35mm: float | None
    plane_x_resolution: float | None
    plane_resolution_unit: int
    exif_size: tuple[int, int] | None
    orientation: int
    model: str


class ExifCamera(NamedTuple):
    """A camera made of EXIF's numbers and, in words, what its focal length rests on."""

    camera: Camera
    source: str


def read_exif_focal(path: str | Path) -> ExifFocal:
    """Read what a photo tells about its focal length.

    Args:
        path: the picture.

    Returns:
        The numbers, None where they are absent or zero.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not a picture.
    """
    width, height = read_image_size(path)
    with open_header(path) as stored:
        exif = stored.getexif()
        photo = exif.get_ifd(IFD.Exif)
    size = (_positive(photo.get(Base.ExifImageWidth)), _positive(photo.get(Base.ExifImageHeight)))
    orientation = exif.get(Base.Orientation, 1)
    return ExifFocal(
        width=width,
        height=height,
        focal_mm=_positive(photo.get(Base.FocalLength)),
        focal_35mm=_positive(photo.get(Base.FocalLengthIn35mmFilm)),
        plane_x_resolution=_positive(photo.get(Base.FocalPlaneXResolution)),
        plane_resolution_unit=int(photo.get(Base.FocalPlaneResolutionUnit) or 2),
        exif_size=(int(size[0]), int(size[1])) if size[0] and size[1] else None,
        orientation=orientation if orientation in range(1, 9) else 1,
        model=_model(exif),
    )


def _positive(value: object) -> float | None:
    """The number, or None for the many ways in which cameras say that they do not know."""
    try:
        number = float(value)  # ty: ignore[invalid-argument-type]
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    return number if math.isfinite(number) and number > 0 else None


def _model(exif: Exif) -> str:
    value = exif.get(Base.Model, "")
    return value.strip("\0 ") if isinstance(value, str) else ""


def camera_from_exif(path: str | Path, sensor_width_mm: float | int | None = None) -> ExifCamera | None:
    """Make a camera of a photo's EXIF numbers, the principal point at the middle and without distortion.

    Args:
        path: the photo.
        sensor_width_mm: from the camera's data sheet; better than what EXIF tells.

    Returns:
        The camera of the upright picture with the reason for its focal length, or None where the numbers do
        not suffice.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not a picture.
    """
    exif = read_exif_focal(path)
    numbers = exif._asdict()
    numbers.pop("model")
    estimate = focal_from_exif(**numbers, sensor_width_mm=sensor_width_mm)
    if estimate is None:
        return None
    return ExifCamera(Camera.from_focal(estimate.focal_px, exif.width, exif.height), estimate.source)
