"""One camera as JSON: ``K`` or BOP's ``cam_K``, or ``fx fy cx cy``; with size and distortion if known."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from sightline.geometry.cameras import Camera


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
    source = Path(path)
    try:
        entry = json.loads(source.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{source}: expected JSON, {error}") from error
    if not isinstance(entry, dict):
        raise ValueError(f"{source}: expected one camera, as an object of keys")
    size = (int(entry.get("width", image_size[0])), int(entry.get("height", image_size[1])))
    if size != tuple(image_size):
        raise ValueError(
            f"{source}: the camera is for {size[0]}x{size[1]} pixels, the picture has "
            f"{image_size[0]}x{image_size[1]}"
        )
    try:
        distortion = entry.get("distortion")
        return Camera(
            _intrinsics(source, entry),
            *size,
            None if distortion is None else torch.tensor(distortion, dtype=torch.float64),
        )
    except (ValueError, TypeError) as error:
        text = str(error)
        raise ValueError(text if text.startswith(str(source)) else f"{source}: {text}") from error


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
