"""The focal length in pixels, from millimetres, the 35 mm equivalent, a field of view, or EXIF numbers."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

DIAGONAL_35MM = math.hypot(36.0, 24.0)  # 43.27 mm, the diagonal of the 35 mm film frame


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
        The broadcast shape of the arguments, pixels; float64 where only plain numbers are given.

    Raises:
        ValueError: a number that is not positive and finite.

    Example:
        >>> focal_mm_to_px(55.0, 718, 22.3)
        tensor(1770.8520, dtype=torch.float64)
    """
    focal, width, sensor = _as_floats(focal_mm, image_width_px, sensor_width_mm)
    for name, value in (("focal_mm", focal), ("image_width_px", width), ("sensor_width_mm", sensor)):
        if not bool(((value > 0) & value.isfinite()).all()):
            raise ValueError(f"{name}: expected positive numbers, got {value.tolist()}")
    return focal / sensor * width


def _as_floats(*values: Tensor | float | int) -> list[Tensor]:
    given = [value for value in values if isinstance(value, Tensor) and value.is_floating_point()]
    dtype = given[0].dtype if given else torch.float64
    device = given[0].device if given else None
    return [torch.as_tensor(value, dtype=dtype, device=device) for value in values]
