"""Faults of unit, frame and camera in plain words: the one place; inference raises them."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from sightline.geometry.cameras import Camera

_SMALLEST_M, _LARGEST_M = 0.003, 5.0  # objects that a camera looks at on a table or in a room
_NEAREST_M, _FARTHEST_M = 0.05, 50.0  # what depth cameras measure
_NARROWEST, _WIDEST = 0.3, 8.0  # focal length over the picture's longer side: 118 and 7 degrees


@dataclass(frozen=True)
class Fault:
    """Something that cannot be right.

    Args:
        what: the thing, such as ``camera`` or ``depth``.
        message: what is wrong and what it looks like, in plain words.
    """

    what: str
    message: str

    def __str__(self) -> str:
        return f"{self.what}: {self.message}"


def check_camera(camera: Camera) -> list[Fault]:
    """Look for intrinsics that belong to another picture or another layout.

    Args:
        camera: the camera.

    Returns:
        What is wrong, nothing for a plausible camera.

    Example:
        >>> [str(fault) for fault in check_camera(Camera.from_focal(600.0, 640, 480))]
        []
        >>> wrong = Camera(Camera.from_focal(600.0, 1920, 1080).K, 640, 480)
        >>> print(*check_camera(wrong))
        camera: the principal point (959.5, 539.5) is outside the picture of 640x480; K is for another size?
    """
    K, longer = camera.K, max(camera.image_size)
    faults = []
    cx, cy = float(K[0, 2]), float(K[1, 2])
    if not (-0.5 <= cx <= camera.width - 0.5 and -0.5 <= cy <= camera.height - 0.5):
        text = (
            f"the principal point ({cx:g}, {cy:g}) is outside the picture of "
            f"{camera.width}x{camera.height}; K is for another size?"
        )
        faults.append(Fault("camera", text))
    fx, fy = float(K[0, 0]), float(K[1, 1])
    if not 0.5 < fx / fy < 2.0:
        faults.append(Fault("camera", f"the focal lengths {fx:g} and {fy:g} px differ by a factor of two"))
    if not _NARROWEST < fx / longer < _WIDEST:
        angle = math.degrees(2 * math.atan(longer / 2 / fx))
        text = f"a focal length of {fx:g} px for {longer} px means an angle of view of {angle:.1f} degrees"
        faults.append(Fault("camera", text))
    return faults


def check_size(diameter: float, *, what: str = "mesh") -> list[Fault]:
    """Look for an object of impossible size, as a wrong unit makes it.

    Args:
        diameter: metres.
        what: how to call it.

    Returns:
        What is wrong, nothing for 3 mm to 5 m.

    Example:
        >>> print(*check_size(150.0))
        mesh: a diameter of 150 m; 1000 times smaller it would be 0.15 m: millimetres read as metres?
    """
    if _SMALLEST_M <= diameter <= _LARGEST_M:
        return []
    return [Fault(what, f"a diameter of {diameter:g} m" + _other_unit(diameter, _SMALLEST_M, _LARGEST_M))]


def check_depth(depth: Float[Tensor, "h w"], camera: Camera) -> list[Fault]:
    """Look for a depth picture of another size, in another unit, or without any measurement.

    Args:
        depth: ``(h, w)`` metres, 0 or NaN where missing.
        camera: the camera that it belongs to.

    Returns:
        What is wrong.

    Example:
        >>> print(*check_depth(torch.full((480, 640), 800.0), Camera.from_focal(600.0, 640, 480)))
        depth: a median of 800 m; 1000 times smaller it would be 0.8 m: millimetres read as metres?
    """
    height, width = depth.shape
    if (width, height) != camera.image_size:
        return [Fault("depth", f"it has {width}x{height} pixels, its camera {camera.width}x{camera.height}")]
    known = depth[torch.isfinite(depth) & (depth > 0)]
    if len(known) == 0:
        return [Fault("depth", "no pixel has a depth above zero")]
    middle = float(known.median())
    if _NEAREST_M <= middle <= _FARTHEST_M:
        return []
    return [Fault("depth", f"a median of {middle:g} m" + _other_unit(middle, _NEAREST_M, _FARTHEST_M))]


def _other_unit(length: float, low: float, high: float) -> str:
    """The guess that a length outside [low, high] is off by a thousand, where that explains it."""
    smaller, larger = length / 1000, length * 1000
    if low <= smaller <= high:
        return f"; 1000 times smaller it would be {smaller:g} m: millimetres read as metres?"
    if low <= larger <= high:
        return f"; 1000 times larger it would be {larger:g} m: metres read as millimetres?"
    return ""


def raise_faults(faults: Iterable[Fault], *, source: str = "") -> None:
    """Turn faults into one error.

    Args:
        faults: what was found.
        source: the file that they were found in.

    Raises:
        ValueError: there is at least one.

    Example:
        >>> raise_faults([])
    """
    lines = [str(fault) for fault in faults]
    if lines:
        raise ValueError(f"{source}: " * bool(source) + "; ".join(lines))
