"""Photographs of an object with what is known of camera and pose: one JSON file, read for onboarding.

One photo is an object of keys, several are a list of such objects or ``{"photos": [...]}``::

    image              file name, relative to the JSON file
    K                  nine numbers, row-wise, pixels; or "focal_px" with the principal point at the centre
    distortion         k1 k2 p1 p2 k3, optional
    mask               file name of a mask picture, optional
    cam_from_obj       16 numbers, row-wise, with "unit" for its translation; or
    object_points      n x 3 with "unit" (or object_points_m, _cm, _mm), together with
    image_points_px    n x 2 pixels
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from sightline.formats.images import read_image, read_mask
from sightline.geometry.cameras import Camera

_UNITS = {"m": 1.0, "cm": 0.01, "mm": 0.001, "in": 0.0254}


@dataclass(frozen=True, eq=False)
class PhotoEntry:
    """One photograph: with its pose, or with the point pairs that fix it.

    Args:
        path: the picture's file.
        image: ``(h, w, 3)`` uint8 RGB.
        camera: its camera.
        cam_from_obj: ``(4, 4)`` float64 metres, or None.
        object_points: ``(n, 3)`` float64 metres, or None.
        image_points: ``(n, 2)`` float64 pixels, or None.
        mask: ``(h, w)`` bool, or None.
    """

    path: Path
    image: UInt8[Tensor, "h w 3"]
    camera: Camera
    cam_from_obj: Float[Tensor, "4 4"] | None
    object_points: Float[Tensor, "n 3"] | None
    image_points: Float[Tensor, "n 2"] | None
    mask: Bool[Tensor, "h w"] | None


def read_posed_photos(path: str | Path) -> list[PhotoEntry]:
    """Read the photos that a JSON file describes.

    Args:
        path: the JSON file.

    Returns:
        One entry a photo.

    Raises:
        FileNotFoundError: the file or a picture is missing.
        ValueError: not JSON, a key that is missing or malformed (named), or an unknown unit.
    """
    source = Path(path)
    try:
        content = json.loads(source.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{source}: expected JSON, {error}") from error
    entries = content.get("photos", [content]) if isinstance(content, dict) else content
    if not isinstance(entries, list) or not entries:
        raise ValueError(f"{source}: expected one photo or a list of photos")
    return [_read_entry(source, index, entry) for index, entry in enumerate(entries)]


def _read_entry(source: Path, index: int, entry: dict[str, Any]) -> PhotoEntry:
    where = f"{source}, photo {index}"
    if "image" not in entry:
        raise ValueError(f"{where}: the key 'image' is missing")
    path = source.parent / entry["image"]
    image = torch.from_numpy(read_image(path))
    camera = _camera(where, entry, image)
    pose = _numbers(where, entry, "cam_from_obj", (4, 4))
    if pose is not None:
        pose[:3, 3] *= _unit(where, entry)
    objects, pixels = _object_points(where, entry), _numbers(where, entry, "image_points_px", (-1, 2))
    if pose is None and (objects is None or pixels is None):
        raise ValueError(f"{where}: expected 'cam_from_obj', or 'object_points' and 'image_points_px'")
    if objects is not None and pixels is not None and len(objects) != len(pixels):
        raise ValueError(f"{where}: {len(objects)} object points but {len(pixels)} image points")
    mask = torch.from_numpy(read_mask(source.parent / entry["mask"])) if "mask" in entry else None
    return PhotoEntry(path, image, camera, pose, objects, pixels, mask)


def _camera(where: str, entry: dict[str, Any], image: Tensor) -> Camera:
    height, width = image.shape[:2]
    distortion = _numbers(where, entry, "distortion", (5,))
    K = _numbers(where, entry, "K", (3, 3))
    if K is None:
        if "focal_px" not in entry:
            raise ValueError(f"{where}: expected the key 'K' (nine numbers) or 'focal_px'")
        K = Camera.from_focal(float(entry["focal_px"]), width, height).K
    try:
        return Camera(K, width, height, distortion)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error


def _object_points(where: str, entry: dict[str, Any]) -> Tensor | None:
    for suffix, scale in _UNITS.items():
        points = _numbers(where, entry, f"object_points_{suffix}", (-1, 3))
        if points is not None:
            return points * scale
    points = _numbers(where, entry, "object_points", (-1, 3))
    return None if points is None else points * _unit(where, entry)


def _unit(where: str, entry: dict[str, Any]) -> float:
    unit = entry.get("unit")
    if unit not in _UNITS:
        raise ValueError(f"{where}: expected 'unit' to be one of {', '.join(_UNITS)}, got {unit!r}")
    return _UNITS[unit]


def _numbers(where: str, entry: dict[str, Any], key: str, shape: tuple[int, ...]) -> Tensor | None:
    if key not in entry:
        return None
    try:
        return torch.from_numpy(np.array(entry[key], dtype=np.float64).reshape(shape))
    except (ValueError, TypeError) as error:
        wanted = " x ".join("n" if size < 0 else str(size) for size in shape)
        raise ValueError(f"{where}: expected {key!r} to be {wanted} numbers") from error
