"""Straight lines in space as curves in a picture: cut at the view's edges, bent as the lens bends them.

A line is cut against the pyramid of the camera's view in space, where the cut is exact and nothing behind the
camera comes back mirrored, and only then projected, point by point.
"""

from __future__ import annotations

import numpy as np
import torch

from sightline.geometry.cameras import Camera
from sightline.geometry.distortion import invertible_radius

_NEAR_SHARE = 1e-6  # of a segment's farthest depth: where a segment that reaches the camera is cut
_MARGIN = 0.1  # share of the view kept on each side, so that thick lines leave the picture properly
_BENT_POINTS = 33  # on a line that a lens bends


def project_segments(camera: Camera, starts_cam: np.ndarray, ends_cam: np.ndarray) -> list[list[np.ndarray]]:
    """The visible part of each segment as polylines of pixels.

    Args:
        camera: with lens distortion or without.
        starts_cam: ``(n, 3)`` metres, camera frame; behind the camera is allowed.
        ends_cam: ``(n, 3)`` metres, camera frame.

    Returns:
        For each segment none, one or several polylines ``(m, 2)``, pixels, cut a little outside the picture.

    Raises:
        ValueError: the ends are not finite or not of the shape above.

    Example:
        >>> camera = Camera.from_focal(100.0, 101, 81)
        >>> start, end = np.array([[0.0, 0.0, 1.0]]), np.array([[0.2, 0.0, 1.0]])
        >>> project_segments(camera, start, end)[0][0].tolist()
        [[50.0, 40.0], [70.0, 40.0]]
    """
    starts, ends = (np.asarray(points, dtype=np.float64) for points in (starts_cam, ends_cam))
    if starts.ndim != 2 or starts.shape[1] != 3 or starts.shape != ends.shape:
        raise ValueError(f"segments: expected two arrays (n, 3), got {starts.shape} and {ends.shape}")
    if not (np.isfinite(starts).all() and np.isfinite(ends).all()):
        raise ValueError("segments: expected finite points, got NaN or infinity")
    enter, leave = _cut(starts, ends, _view_planes(camera))
    visible = enter < leave
    ray_start = _rays(starts + enter[:, None] * (ends - starts), visible)
    ray_end = _rays(starts + leave[:, None] * (ends - starts), visible)
    # A straight line in space is straight in normalised coordinates too, so equal steps there look equal.
    num_points = 2 if camera.distortion is None else _BENT_POINTS
    steps = np.linspace(0.0, 1.0, num_points)[None, :, None]
    rays = (1 - steps) * ray_start[:, None] + steps * ray_end[:, None]
    points = torch.from_numpy(np.concatenate([rays, np.ones_like(rays[..., :1])], axis=-1))
    pixels = camera.project(points).numpy()
    held = visible[:, None] & (np.linalg.norm(rays, axis=-1) <= _lens_limit(camera))
    return [_runs(line, keep) for line, keep in zip(pixels, held, strict=True)]


def project_point(camera: Camera, point_cam: np.ndarray) -> np.ndarray | None:
    """One point in pixels, or None where it is not in the picture.

    Args:
        camera: the camera.
        point_cam: ``(3,)`` metres, camera frame.

    Returns:
        ``(2,)`` pixels inside the picture, or None.

    Example:
        >>> project_point(Camera.from_focal(100.0, 101, 81), np.array([0.0, 0.0, -1.0])) is None
        True
    """
    point = torch.from_numpy(np.asarray(point_cam, dtype=np.float64))
    return camera.project(point).numpy() if bool(camera.sees(point)) else None


def _view_planes(camera: Camera) -> np.ndarray:
    """Rows ``n`` with ``n @ X >= 0`` for the points of the view: left, right, top and bottom."""
    width, height = camera.image_size
    columns, rows = np.linspace(-0.5, width - 0.5, 17), np.linspace(-0.5, height - 0.5, 17)
    pixels = torch.from_numpy(np.stack(np.meshgrid(columns, rows), axis=-1))
    rays = camera.unproject(pixels, torch.ones(pixels.shape[:-1], dtype=torch.float64)).numpy()[..., :2]
    rays = rays[np.isfinite(rays).all(axis=-1)]  # a lens model may not hold in the corners
    low, high = rays.min(axis=0), rays.max(axis=0)
    low, high = low - _MARGIN * (high - low), high + _MARGIN * (high - low)
    return np.array([[1, 0, -low[0]], [-1, 0, high[0]], [0, 1, -low[1]], [0, -1, high[1]]])


def _cut(starts: np.ndarray, ends: np.ndarray, planes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The shares of each segment where it enters and leaves all half-spaces (Liang and Barsky, 1984)."""
    near = _NEAR_SHARE * np.maximum(np.maximum(starts[:, 2], ends[:, 2]), 1e-9)[:, None]
    at_start = np.concatenate([starts @ planes.T, starts[:, 2:] - near], axis=1)
    at_end = np.concatenate([ends @ planes.T, ends[:, 2:] - near], axis=1)
    slope = at_end - at_start
    with np.errstate(divide="ignore", invalid="ignore"):
        crossing = np.where(slope == 0, 0.0, -at_start / slope)
    enter = np.where(at_start < 0, crossing, 0.0).max(axis=1, initial=0.0)
    leave = np.where(at_end < 0, crossing, 1.0).min(axis=1, initial=1.0)
    return enter, leave  # a segment with both ends outside one plane leaves before it enters


def _rays(points_cam: np.ndarray, visible: np.ndarray) -> np.ndarray:
    return points_cam[:, :2] / np.where(visible, points_cam[:, 2], 1.0)[:, None]


def _lens_limit(camera: Camera) -> float:
    return np.inf if camera.distortion is None else float(invertible_radius(camera.distortion))


def _runs(line: np.ndarray, keep: np.ndarray) -> list[np.ndarray]:
    """The parts of a polyline whose points are all kept."""
    edges = np.flatnonzero(np.diff(keep.astype(np.int8), prepend=0, append=0))
    return [line[first:last] for first, last in edges.reshape(-1, 2) if last - first > 1]
