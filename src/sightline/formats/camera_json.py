"""One camera as JSON: ``K`` or BOP's ``cam_K``, or ``fx fy cx cy``; with size and distortion if known."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from sightline.formats.json_files import read_json
from sightline.geometry.cameras import Camera


@dataclass(frozen=True, eq=False)
class CameraNumbers:
    """What a camera file says, true or not.

    Args:
        K: ``(3, 3)`` float64, as it stands there, pixels.
        image_size: ``(width, height)`` that the file states.
        distortion: ``(5,)`` k1 k2 p1 p2 k3.
        depth_scale_mm: millimetres in one step of the depth pictures, as BOP states it.
    """

    K: Float[Tensor, "3 3"]
    image_size: tuple[int, int] | None = None
    distortion: Float[Tensor, "..."] | None = None
    depth_scale_mm: float | None = None


def read_camera(path: str | Path, image_size: tuple[int, int]) -> Camera:
    """Read a camera and check it against the size of the pictures.

    Args:
        path: the JSON file.
        image_size: ``(width, height)`` of the pictures that it is meant for, pixels.

    Returns:
        The camera.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not JSON, no intrinsics in it, or a camera of another picture size.

    Example:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp()) / "camera.json"
        >>> _ = file.write_text('{"fx": 600, "fy": 600, "cx": 319.5, "cy": 239.5}')
        >>> read_camera(file, (640, 480)).K[0, 2].item()
        319.5
    """
    numbers = read_camera_numbers(path)
    size = numbers.image_size or image_size
    if size != tuple(image_size):
        raise ValueError(
            f"{path}: the camera is for {size[0]}x{size[1]} pixels, the picture has "
            f"{image_size[0]}x{image_size[1]}"
        )
    try:
        return Camera(numbers.K, *size, numbers.distortion)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def read_camera_numbers(path: str | Path, index: int | None = None) -> CameraNumbers:
    """Read a camera without judging it: a transposed K comes as it stands in the file.

    Args:
        path: the JSON file; also a BOP ``scene_camera.json``.
        index: which image of a ``scene_camera.json``; not needed where there is one.

    Returns:
        The numbers.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not JSON, no intrinsics in it, or several cameras and no index.

    Example:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp()) / "scene_camera.json"
        >>> _ = file.write_text('{"3": {"cam_K": [600, 0, 320, 0, 600, 240, 0, 0, 1], "depth_scale": 0.1}}')
        >>> read_camera_numbers(file).depth_scale_mm
        0.1
    """
    source = Path(path)
    entry = read_json(source)
    if not isinstance(entry, dict):
        raise ValueError(f"{source}: expected one camera, as an object of keys")
    if entry and all(key.isdigit() and isinstance(value, dict) for key, value in entry.items()):
        entry = _choose(source, entry, index)
    distortion, scale = entry.get("distortion"), entry.get("depth_scale")
    stated = "width" in entry and "height" in entry
    try:
        return CameraNumbers(
            _intrinsics(source, entry),
            (int(entry["width"]), int(entry["height"])) if stated else None,
            None if distortion is None else torch.tensor(distortion, dtype=torch.float64),
            None if scale is None else float(scale),
        )
    except (ValueError, TypeError) as error:
        text = str(error)
        raise ValueError(text if text.startswith(str(source)) else f"{source}: {text}") from error


def _choose(source: Path, entries: dict, index: int | None) -> dict:
    if index is None and len(entries) == 1:
        return next(iter(entries.values()))
    if index is None or str(index) not in entries:
        raise ValueError(f"{source}: expected the number of one of {len(entries)} images, got {index}")
    return entries[str(index)]


def _intrinsics(source: Path, entry: dict) -> torch.Tensor:
    for key in ("K", "cam_K"):
        if key in entry:
            K = torch.tensor(entry[key], dtype=torch.float64)
            if K.numel() != 9:
                raise ValueError(f"{source}: expected {key!r} to be nine numbers, got {K.numel()}")
            return K.reshape(3, 3)
    missing = [key for key in ("fx", "fy", "cx", "cy") if key not in entry]
    if missing:
        raise ValueError(
            f"{source}: expected the key 'K' or 'cam_K', or fx, fy, cx, cy; {missing[0]} is missing"
        )
    fx, fy, cx, cy = (float(entry[key]) for key in ("fx", "fy", "cx", "cy"))
    return torch.tensor([[fx, 0, cx], [0, fy, cy], [0, 0, 1]], dtype=torch.float64)
