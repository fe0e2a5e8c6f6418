"""Small cameras, poses and pictures that the tests of this room draw on."""

from __future__ import annotations

import numpy as np
import torch

from sightline.geometry.cameras import Camera
from sightline.geometry.rotations import exp
from sightline.records import PoseEstimate

BARREL = (-0.3, 0.08, 0.001, -0.002, 0.0)


def grey_picture(width: int = 320, height: int = 240, value: int = 100) -> np.ndarray:
    return np.full((height, width, 3), value, dtype=np.uint8)


def make_camera(focal: float = 300.0, width: int = 320, height: int = 240, distortion=None) -> Camera:
    camera = Camera.from_focal(focal, width, height)
    if distortion is None:
        return camera
    return Camera(camera.K, width, height, torch.tensor(distortion, dtype=torch.float64))


def make_estimate(
    turn=(0.0, 0.0, 0.0), t=(0.0, 0.0, 1.0), score: float = 0.93, name: str = "mug", **fields
) -> PoseEstimate:
    R = exp(torch.tensor(turn, dtype=torch.float64))
    return PoseEstimate(R, torch.tensor(t, dtype=torch.float64), score, True, name=name, **fields)


def near_color(pixels: np.ndarray, color, tolerance: int = 40) -> np.ndarray:
    """Where pixels are a colour, but for the smoothing of a thin line."""
    return (np.abs(pixels.astype(int) - np.array(color)) <= tolerance).all(axis=-1)


def changed(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    return (before != after).any(axis=-1)


def grown(mask: np.ndarray, radius: int) -> np.ndarray:
    """A mask grown by a radius in pixels: where a stroke along it may reach."""
    import cv2

    kernel = np.ones((2 * radius + 1, 2 * radius + 1), dtype=np.uint8)
    return cv2.dilate(mask.astype(np.uint8), kernel).astype(bool)
