"""The focal length in pixels, from millimetres, from the 35 mm equivalent, or from a photo's EXIF numbers."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

DIAGONAL_35MM = math.hypot(36.0, 24.0)  # 43.27 mm, the diagonal of the 35 mm film frame
_UNIT_MM = {2: 25.4, 3: 10.0, 4: 1.0, 5: 1e-3}  # EXIF FocalPlaneResolutionUnit: inch, cm, mm, um


def focal_mm_to_px(
    focal_mm: Float[Tensor, "..."] | float | int,
    image_width_px: Tensor | float | int,
    sensor_width_mm: Float[Tensor, "..."] | float | int,
) -> Float[Tensor, "..."]:
    """Convert a focal length from millimetres to pixels, ``f_px = f_mm / sensor_width_mm * image_width_px``.

    Args:
        focal_mm: focal length in millimetres, scalar or ``(b,)``.
        image_width_px: width of the uncropped picture in pixels, scalar or ``(b,)``.
        sensor_width_mm: width of the sensor in millimetres, scalar or ``(b,)``.

    Returns:
        The broadcast shape of the arguments, pixels; float64 where only plain numbers are given. NaN where
        an entry of a tensor is not positive and finite, so that one photo without EXIF spoils no batch.

    Raises:
        ValueError: a plain number that is not positive and finite.

    Example:
        >>> focal_mm_to_px(55.0, 718, 22.3)
        tensor(1770.8520, dtype=torch.float64)
    """
    given = {"focal_mm": focal_mm, "image_width_px": image_width_px, "sensor_width_mm": sensor_width_mm}
    for name, value in given.items():
        if not isinstance(value, Tensor) and not (math.isfinite(value) and value > 0):
            raise ValueError(f"{name}: expected a positive number, got {value}")
    focal, width, sensor = (
        torch.where((value > 0) & value.isfinite(), value, torch.nan) for value in _as_floats(*given.values())
    )
    return focal / sensor * width


def focal_35mm_to_px(focal_35mm: float | int, width: int, height: int) -> float:
    """Convert a 35 mm equivalent focal length to pixels, by the diagonals: ``f_px = f35 / 43.27 * diagonal``.

    The diagonal is what the standard (CIPA DCG-001) compares, and it does not care how the picture is turned.

    Args:
        focal_35mm: 35 mm equivalent focal length, millimetres.
        width: of the uncropped picture, pixels.
        height: of the uncropped picture, pixels.

    Returns:
        The focal length, pixels.

    Raises:
        ValueError: a number that is not positive.

    Example:
        >>> round(focal_35mm_to_px(28, 4032, 3024), 1)
        3261.6
    """
    if not (focal_35mm > 0 and width > 0 and height > 0):
        raise ValueError(f"focal_35mm: expected positive numbers, got {focal_35mm} for {width}x{height}")
    return focal_35mm / DIAGONAL_35MM * math.hypot(width, height)


class FocalEstimate(NamedTuple):
    """A focal length in pixels and, in words, what it rests on."""

    focal_px: float
    source: str


def focal_from_exif(
    width: int,
    height: int,
    *,
    focal_mm: float | int | None = None,
    focal_35mm: float | int | None = None,
    plane_x_resolution: float | int | None = None,
    plane_resolution_unit: int = 2,
    exif_size: tuple[int, int] | None = None,
    orientation: int = 1,
    sensor_width_mm: float | int | None = None,
) -> FocalEstimate | None:
    """Find the focal length in pixels from what a photo's EXIF block says.

    Tried in this order: the focal length with a sensor width that is known, the focal length with the focal
    plane's resolution, the 35 mm equivalent (whole millimetres, so 1 to 2 % coarse). Zeros, which cameras
    write for "unknown", count as absent.

    Args:
        width: of the picture as it is used, turned upright, pixels.
        height: of the picture as it is used, turned upright, pixels.
        focal_mm: tag FocalLength.
        focal_35mm: tag FocalLengthIn35mmFilm.
        plane_x_resolution: tag FocalPlaneXResolution, pixels a unit.
        plane_resolution_unit: tag FocalPlaneResolutionUnit (2 inch, 3 cm, 4 mm, 5 um).
        exif_size: tags PixelXDimension and PixelYDimension: the size that the camera wrote, as stored. The
            focal plane's resolution counts those pixels, so a picture that was resized since is corrected.
        orientation: tag Orientation; 5 to 8 say that the stored picture's width is the upright one's height.
        sensor_width_mm: from the camera's data sheet, not an EXIF tag.

    Returns:
        The estimate, or None where the numbers do not suffice.

    Raises:
        ValueError: an empty picture, an orientation outside 1..8.

    Example:
        >>> focal_px, source = focal_from_exif(3024, 4032, focal_mm=4.2, focal_35mm=26, orientation=6)
        >>> round(focal_px, 1), source
        (3028.7, '35 mm equivalent 26 mm over the diagonal')
    """
    if width <= 0 or height <= 0:
        raise ValueError(f"width, height: expected a picture, got {width}x{height}")
    if not 1 <= orientation <= 8:
        raise ValueError(f"orientation: expected EXIF's 1 to 8, got {orientation}")
    stored_width, stored_height = (height, width) if orientation >= 5 else (width, height)
    doubt = _doubt(stored_width, stored_height, exif_size)
    if focal_mm and sensor_width_mm:
        focal = float(focal_mm_to_px(focal_mm, stored_width, sensor_width_mm))
        return FocalEstimate(
            focal, f"focal length {focal_mm:g} mm, sensor {sensor_width_mm:g} mm wide{doubt}"
        )
    if focal_mm and plane_x_resolution and plane_resolution_unit in _UNIT_MM:
        pixels_per_mm = plane_x_resolution / _UNIT_MM[plane_resolution_unit]
        resized = stored_width / exif_size[0] if exif_size else 1.0
        source = f"focal length {focal_mm:g} mm, {pixels_per_mm:.4g} pixels a millimetre on the sensor{doubt}"
        return FocalEstimate(focal_mm * pixels_per_mm * resized, source)
    if focal_35mm:
        source = f"35 mm equivalent {focal_35mm:g} mm over the diagonal{doubt}"
        return FocalEstimate(focal_35mm_to_px(focal_35mm, width, height), source)
    return None


def _doubt(stored_width: int, stored_height: int, exif_size: tuple[int, int] | None) -> str:
    if exif_size is None:
        return ""
    change = (stored_width / stored_height) / (exif_size[0] / exif_size[1])
    if abs(change - 1) < 0.02:
        return ""
    was, now = f"{exif_size[0]}x{exif_size[1]}", f"{stored_width}x{stored_height}"
    return f" (doubtful: EXIF says {was}, the picture is {now}, it may have been cropped)"


def _as_floats(*values: Tensor | float | int) -> list[Tensor]:
    given = [value for value in values if isinstance(value, Tensor) and value.is_floating_point()]
    dtype = given[0].dtype if given else torch.float64
    device = given[0].device if given else None
    return [torch.as_tensor(value, dtype=dtype, device=device) for value in values]
