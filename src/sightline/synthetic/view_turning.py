"""A view of an object shown anywhere in another camera's picture, with the pose it then has, exactly.

Two pictures that differ by a turn of the camera about its centre differ by a homography, whatever they show
(Hartley and Zisserman, "Multiple View Geometry", 8.4.2): ``pixel_view ~ K_view R^T K^-1 pixel``. So a view
that was drawn once appears at any place, turned by any angle in the plane, under any focal length; only its
distance and the side it shows are the view's own.
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Bool, Float32, Float64, UInt8

from sightline.synthetic.pose_views import PoseView

_HALF = 128
_SMALLEST = 0.67  # scale below which texels are averaged before they are interpolated


class TurnedView(NamedTuple):
    """An object alone, in a window that may leave the picture.

    Args:
        corner: ``(x, y)`` of the window's first pixel in the picture.
        layers: ``(h, w, 4)`` uint8 RGBA, colours multiplied by alpha.
        depth: ``(h, w)`` float32 metres along the picture's optical axis, 0 outside the object.
        solid: ``(h, w)`` bool, the pixels of the silhouette.
        cam_from_obj: ``(4, 4)`` float64 metres, for the picture's camera.
    """

    corner: tuple[int, int]
    layers: UInt8[np.ndarray, "h w 4"]
    depth: Float32[np.ndarray, "h w"]
    solid: Bool[np.ndarray, "h w"]
    cam_from_obj: Float64[np.ndarray, "4 4"]


def turn_towards(
    position: Float64[np.ndarray, "3"], ray: Float64[np.ndarray, "3"], angle: float
) -> Float64[np.ndarray, "3 3"]:
    """The turn of a camera that brings a position onto a ray, the shortest, after one about the position.

    Args:
        position: in the camera's frame, any length above 0.
        ray: in the turned camera's frame, any length above 0.
        angle: about the position, radians, from x towards y as the picture shows it.

    Returns:
        ``(3, 3)`` turned_from_camera.

    Raises:
        ValueError: the ray is opposite to the position.

    Example:
        >>> turn = turn_towards(np.array([0.0, 0, 2]), np.array([1.0, 0, 1]), 0.0)
        >>> (turn @ [0, 0, 2]).round(3).tolist()
        [1.414, 0.0, 1.414]
    """
    a, b = position / np.linalg.norm(position), ray / np.linalg.norm(ray)
    cosine = float(a @ b)
    if cosine < -0.999:
        raise ValueError("ray: expected one before the camera, got one opposite to the position")
    cross = _cross_matrix(np.cross(a, b))
    shortest = np.eye(3) + cross + cross @ cross / (1 + cosine)
    own = _cross_matrix(a)
    about = np.eye(3) + np.sin(angle) * own + (1 - np.cos(angle)) * own @ own
    return shortest @ about


def turn_view(
    view: PoseView, K: Float64[np.ndarray, "3 3"], pixel: tuple[float, float], angle: float
) -> TurnedView:
    """Show a view with the object's origin at a pixel.

    Args:
        view: of any size and focal length.
        K: ``(3, 3)`` of the picture, pixels.
        pixel: ``(x, y)`` where the origin is to be seen.
        angle: of a turn about the line of sight, radians.

    Returns:
        What the picture shows of the object.

    Raises:
        ValueError: a pixel behind the view's camera, or a view that shows nothing.

    Example:
        >>> from sightline.synthetic.pose_views import PoseViewSettings, draw_pose_views
        >>> tiny = PoseViewSettings(num_templates=42, template_px=24, num_queries=1, query_px=64)
        >>> view = draw_pose_views(0, "train", tiny).queries.view(0)
        >>> K = np.array([[100.0, 0, 31.5], [0, 100, 23.5], [0, 0, 1]])
        >>> t = turn_view(view, K, (20.0, 30.0), 1.0).cam_from_obj[:3, 3]
        >>> (K @ t / t[2])[:2].round(6).tolist()
        [20.0, 30.0]
    """
    if not view.mask.any():
        raise ValueError("view: expected one that shows the object, its mask is empty")
    ray = np.linalg.solve(K, np.array([*pixel, 1.0]))
    turn = turn_towards(view.cam_from_obj[:3, 3], ray, angle)
    view_from_ray = view.K @ turn.T
    view_from_picture = view_from_ray @ np.linalg.inv(K)
    corner, size, scale = _window(view, np.linalg.inv(view_from_picture))
    shift = np.array([[1.0, 0, corner[0]], [0, 1, corner[1]], [0, 0, 1]])
    view_from_window = view_from_picture @ shift
    layers = _warp_colors(view, view_from_window, size, scale)
    slope = (turn.T @ np.linalg.inv(K) @ shift)[2]  # depth along the view's axis of a ray of depth 1
    depth = _warp_depth(view, view_from_window, size, slope)
    solid = (layers[..., 3] >= _HALF) & (depth > 0)
    depth[~solid] = 0
    pose = view.cam_from_obj.copy()
    pose[:3] = turn @ pose[:3]
    return TurnedView(corner, layers, depth, solid, pose)


def _cross_matrix(v: np.ndarray) -> np.ndarray:
    return np.array([[0, -v[2], v[1]], [v[2], 0, -v[0]], [-v[1], v[0], 0]])


def _window(view: PoseView, picture_from_view: np.ndarray) -> tuple[tuple[int, int], tuple[int, int], float]:
    """First pixel and size of what the silhouette's box becomes, and pixels of it for one of the view."""
    x, y, width, height = cv2.boundingRect(view.mask.view(np.uint8))
    x1, y1, x2, y2 = x - 1, y - 1, x + width, y + height
    mapped = picture_from_view @ np.array([[x1, x2, x2, x1], [y1, y1, y2, y2], [1, 1, 1, 1]])
    if mapped[2].min() <= 0 < mapped[2].max() or not np.isfinite(mapped).all():
        raise ValueError("pixel: expected one before the camera of the view, got one at its horizon")
    corners = mapped[:2] / mapped[2]
    low, high = np.floor(corners.min(1)).astype(int), np.ceil(corners.max(1)).astype(int)
    doubled = np.roll(corners, -1, 1)
    area = abs(float((corners[0] * doubled[1] - doubled[0] * corners[1]).sum())) / 2
    scale = (area / ((x2 - x1) * (y2 - y1))) ** 0.5
    return (int(low[0]), int(low[1])), (int(high[0] - low[0] + 1), int(high[1] - low[1] + 1)), scale


def _warp_colors(
    view: PoseView, view_from_window: np.ndarray, size: tuple[int, int], scale: float
) -> UInt8[np.ndarray, "h w 4"]:
    layers = np.dstack([view.color, view.mask.view(np.uint8) * np.uint8(255)])
    block = round(1.0 / scale) if scale < _SMALLEST else 1
    if block > 1:  # average whole blocks of texels; interpolation does the rest
        tall, wide = (-(-side // block) for side in layers.shape[:2])
        below, right = tall * block - layers.shape[0], wide * block - layers.shape[1]
        padded = cv2.copyMakeBorder(layers, 0, below, 0, right, cv2.BORDER_CONSTANT)
        layers = cv2.resize(padded, (wide, tall), interpolation=cv2.INTER_AREA)
        step = (1 - block) / (2 * block)
        coarse = np.array([[1 / block, 0, step], [0, 1 / block, step], [0, 0, 1]])
        view_from_window = coarse @ view_from_window
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpPerspective(layers, view_from_window, size, flags=flags)


def _warp_depth(
    view: PoseView, view_from_window: np.ndarray, size: tuple[int, int], slope: np.ndarray
) -> Float32[np.ndarray, "h w"]:
    """Depth in the turned camera; 1 / z is linear in a picture on every plane, so that is interpolated."""
    inverse = np.divide(1, view.depth, out=np.zeros_like(view.depth), where=view.mask)
    covered = np.dstack([inverse, view.mask.astype(np.float32)])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    warped = cv2.warpPerspective(covered, view_from_window, size, flags=flags)
    columns, rows = np.arange(size[0]), np.arange(size[1])
    along = (slope[0] * columns + slope[1] * rows[:, None] + slope[2]).astype(np.float32)
    whole = warped[..., 0] * along
    return np.divide(warped[..., 1], whole, out=np.zeros_like(whole), where=whole > 1e-9)
