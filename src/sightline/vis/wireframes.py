"""What shows a pose without a rendering: the object's axes and its box, seen by the camera."""

from __future__ import annotations

import itertools

import numpy as np
from torch import Tensor

from sightline.geometry.cameras import Camera
from sightline.records import PoseEstimate
from sightline.vis.canvas import Picture, as_array, check_fits_camera, start_canvas, stroke_px, text_px
from sightline.vis.labels import Box, paint_label
from sightline.vis.palette import AXIS_COLORS, Rgb, palette_color
from sightline.vis.strokes import paint_polylines
from sightline.vis.view_lines import project_point, project_segments

_HIDDEN_SHARE = 0.45  # how opaque the edges on the far side are


def draw_axes(
    image: np.ndarray,
    camera: Camera,
    pose: PoseEstimate,
    *,
    length: float,
    letters: bool = True,
) -> Picture:
    """Draw the object's frame: x red, y green, z blue, the nearest axis on top.

    Args:
        image: ``(h, w, 3)`` uint8 RGB, as the camera delivered it.
        camera: the camera that took it; its distortion bends the lines.
        pose: where the object is; an invalid pose draws nothing.
        length: of each axis, metres.
        letters: whether each axis ends in its letter.

    Returns:
        A new picture.

    Raises:
        ValueError: the picture does not fit the camera, or the length is not positive.

    Example:
        >>> import torch
        >>> R, t = torch.eye(3, dtype=torch.float64), torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)
        >>> camera, black = Camera.from_focal(100.0, 101, 81), np.zeros((81, 101, 3), dtype=np.uint8)
        >>> drawn = draw_axes(black, camera, PoseEstimate(R, t, 1.0, True), length=0.2, letters=False)
        >>> (abs(drawn[40, 60].astype(int) - AXIS_COLORS[0]) < 25).all()
        np.True_
    """
    canvas = start_canvas(image)
    check_fits_camera(image, camera)
    paint_axes(canvas, camera, pose, length=length, letters=letters)
    return canvas


def paint_axes(
    canvas: Picture, camera: Camera, pose: PoseEstimate, *, length: float, letters: bool = True
) -> Box | None:
    """Do the work of :func:`draw_axes` on a canvas that fits the camera; returns what the axes cover."""
    if not length > 0:
        raise ValueError(f"length: expected a positive number of metres, got {length}")
    if not pose.valid:
        return None
    rotation, origin = as_array(pose.R).astype(np.float64), as_array(pose.t).astype(np.float64)
    tips = origin + length * rotation.T
    lines = project_segments(camera, np.repeat(origin[None], 3, axis=0), tips)
    width = stroke_px(canvas) + 2
    for axis in np.argsort(-tips[:, 2], kind="stable"):
        paint_polylines(canvas, lines[axis], AXIS_COLORS[axis], width)
        place = project_point(camera, origin + 1.12 * length * rotation.T[axis])
        if letters and place is not None:
            x, y = np.rint(place).astype(int)
            size = 0.8 * text_px(canvas)
            half = round(0.6 * size)
            paint_label(canvas, "xyz"[axis], Box(x - half, y + half, x, y), AXIS_COLORS[axis], letter_px=size)
    return _covered(lines)


def draw_box_3d(
    image: np.ndarray,
    camera: Camera,
    pose: PoseEstimate,
    bounds: np.ndarray | Tensor,
    *,
    color: Rgb | None = None,
) -> Picture:
    """Draw the box around an object in space; the edges on its far side are thinner and paler.

    Args:
        image: ``(h, w, 3)`` uint8 RGB, as the camera delivered it.
        camera: the camera that took it; its distortion bends the lines.
        pose: where the object is; an invalid pose draws nothing.
        bounds: ``(2, 3)`` metres, the least and the greatest corner in the object frame
            (:attr:`sightline.records.TriangleMesh.bounds`).
        color: of the edges, by default the palette's first.

    Returns:
        A new picture.

    Raises:
        ValueError: the picture does not fit the camera, or the bounds are no box.

    Example:
        >>> import torch
        >>> R, t = torch.eye(3, dtype=torch.float64), torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)
        >>> camera, black = Camera.from_focal(100.0, 101, 81), np.zeros((81, 101, 3), dtype=np.uint8)
        >>> bounds = np.array([[-0.1, -0.1, 0.0], [0.1, 0.1, 0.1]])
        >>> drawn = draw_box_3d(black, camera, PoseEstimate(R, t, 1.0, True), bounds, color=(255, 255, 0))
        >>> drawn[40, 60, 0] > 200, drawn[40, 50].any()
        (np.True_, np.False_)
    """
    canvas = start_canvas(image)
    check_fits_camera(image, camera)
    paint_box_3d(canvas, camera, pose, bounds, palette_color(0) if color is None else color)
    return canvas


def paint_box_3d(
    canvas: Picture, camera: Camera, pose: PoseEstimate, bounds: np.ndarray | Tensor, color: Rgb
) -> Box | None:
    """Do the work of :func:`draw_box_3d`; returns what the box covers, if it is in view."""
    import cv2

    box = check_bounds(bounds)
    if not pose.valid:
        return None
    rotation, origin = as_array(pose.R).astype(np.float64), as_array(pose.t).astype(np.float64)
    starts, ends, hidden = box_edges(box, -rotation.T @ origin)
    lines = project_segments(camera, starts @ rotation.T + origin, ends @ rotation.T + origin)
    width = stroke_px(canvas)
    faint = canvas.copy()
    paint_polylines(faint, _lines_where(lines, hidden), color, max(1, width - 2), halo=False)
    cv2.addWeighted(faint, _HIDDEN_SHARE, canvas, 1 - _HIDDEN_SHARE, 0.0, dst=canvas)
    paint_polylines(canvas, _lines_where(lines, ~hidden), color, width)
    return _covered(lines)


def box_edges(bounds: np.ndarray, eye_obj: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The twelve edges of an axis-aligned box, and which of them its own faces hide from an eye.

    An edge is hidden when both faces that meet in it are turned away; seen from inside no edge is.

    Args:
        bounds: ``(2, 3)`` metres, the least and the greatest corner.
        eye_obj: ``(3,)`` metres, the camera's centre in the object frame.

    Returns:
        Starts ``(12, 3)``, ends ``(12, 3)`` and ``(12,)`` bool, True where hidden.

    Example:
        >>> unit = np.array([[0.0, 0, 0], [1, 1, 1]])
        >>> int(box_edges(unit, np.array([0.5, 0.5, -3.0]))[2].sum())
        8
    """
    seen = np.stack([eye_obj < bounds[0], eye_obj > bounds[1]])  # the face on this side of this axis
    starts, ends, hidden = [], [], []
    for axis in range(3):
        first, second = (axis + 1) % 3, (axis + 2) % 3
        for a, b in itertools.product((0, 1), repeat=2):
            corner = np.empty(3)
            corner[[axis, first, second]] = bounds[0, axis], bounds[a, first], bounds[b, second]
            starts.append(corner)
            ends.append(np.where(np.arange(3) == axis, bounds[1], corner))
            hidden.append(bool(seen.any() and not (seen[a, first] or seen[b, second])))
    return np.stack(starts), np.stack(ends), np.array(hidden)


def check_bounds(bounds: np.ndarray | Tensor) -> np.ndarray:
    """Bounds as ``(2, 3)`` float64.

    Args:
        bounds: ``(2, 3)`` metres, the least and the greatest corner.

    Returns:
        The same numbers.

    Raises:
        ValueError: another shape, not finite, or corners in the wrong order.

    Example:
        >>> check_bounds(np.array([[0, 0, 0], [1, 1, 1]])).dtype
        dtype('float64')
    """
    box = as_array(bounds).astype(np.float64)
    if box.shape != (2, 3) or not np.isfinite(box).all() or (box[1] < box[0]).any():
        raise ValueError(f"bounds: expected finite (2, 3) metres, least corner first, got {box.tolist()}")
    return box


def _lines_where(lines: list[list[np.ndarray]], chosen: np.ndarray) -> list[np.ndarray]:
    return [line for parts, keep in zip(lines, chosen, strict=True) if keep for line in parts]


def _covered(lines: list[list[np.ndarray]]) -> Box | None:
    parts = list(itertools.chain.from_iterable(lines))
    return Box.around(np.concatenate(parts)) if parts else None
