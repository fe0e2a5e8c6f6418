"""A packed view turned in its plane, cut out and scaled, with pose, camera and depth that stay exact.

A turn about the principal point is a turn of the camera about its optical axis, and a crop only changes K:
whatever is done to the picture here is done to the geometry. Depth is interpolated as 1 / z, which is linear
in the picture on every plane; across edges, where interpolation would invent points, the nearest is taken.
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Bool, Float32, Float64, UInt8

from sightline.synthetic.pose_views import PoseView

_EDGE = 0.02  # of the object's diameter: a bend of the depth within two pixels that is larger is an edge
_STEEP = 8.0  # so many times that for a step: a plane that is seen almost along itself has such, too
_MIRROR = np.diag([-1.0, 1.0, 1.0, 1.0])


class WarpedView(NamedTuple):
    """An object alone in a crop.

    Args:
        layers: ``(s, s, 4)`` uint8 RGBA, colours multiplied by alpha.
        depth: ``(s, s)`` float32 metres, 0 outside the object.
        mask: ``(s, s)`` bool, the pixels with depth.
        K: ``(3, 3)`` float64 of the crop, pixels.
        cam_from_obj: ``(4, 4)`` float64 metres, the camera turned with the picture.
        crop_from_image: ``(2, 3)`` float64, from the turned picture's pixels: a scale and a shift.
    """

    layers: UInt8[np.ndarray, "s s 4"]
    depth: Float32[np.ndarray, "s s"]
    mask: Bool[np.ndarray, "s s"]
    K: Float64[np.ndarray, "3 3"]
    cam_from_obj: Float64[np.ndarray, "4 4"]
    crop_from_image: Float64[np.ndarray, "2 3"]


class TurnedCrop(NamedTuple):
    """A square crop of a turned picture, as geometry.

    Args:
        affine: ``(2, 3)`` float64, crop pixels from picture pixels.
        crop_from_turned: ``(2, 3)`` float64, from the turned picture's pixels: a scale and a shift.
        K: ``(3, 3)`` float64 of the crop, square pixels.
        turn: ``(2, 2)`` float64, by which the camera turns about its axis.
    """

    affine: Float64[np.ndarray, "2 3"]
    crop_from_turned: Float64[np.ndarray, "2 3"]
    K: Float64[np.ndarray, "3 3"]
    turn: Float64[np.ndarray, "2 2"]

    def pose(self, cam_from_obj: Float64[np.ndarray, "4 4"]) -> Float64[np.ndarray, "4 4"]:
        """What a pose is for the turned camera."""
        turned = cam_from_obj.copy()
        turned[:2] = self.turn @ turned[:2]
        return turned


def turned_crop(
    K: Float64[np.ndarray, "3 3"],
    pixels: Float64[np.ndarray, "n 2"],
    angle: float,
    fill: float,
    shift: tuple[float, float],
    side: int,
) -> TurnedCrop:
    """Turn a picture about its principal point and cut a square around some of its pixels.

    Pixels that are not square become so before the turn, because only then a turn of the picture is one of
    the camera.

    Args:
        K: of the picture, pixels.
        pixels: ``(n, 2)`` (x, y) to be framed.
        angle: of the turn, radians, from the x axis towards the y axis.
        fill: longer side of the box around the turned pixels, in shares of the crop.
        shift: of the crop from the middle of that box, in shares of the box's longer side.
        side: of the crop, pixels.

    Returns:
        The crop.

    Example:
        >>> K = np.array([[50.0, 0, 31.5], [0, 50, 31.5], [0, 0, 1]])
        >>> corners = np.array([[20.0, 20.0], [29.0, 24.0]])
        >>> turned_crop(K, corners, 0.0, 0.5, (0.0, 0.0), 40).K[0].tolist()
        [100.0, 0.0, 33.5]
    """
    focal, center = K[0, 0], K[:2, 2]
    square = np.array([[focal, 0, center[0]], [0, focal, center[1]], [0, 0, 1]]) @ np.linalg.inv(K)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    about = np.vstack([np.column_stack([turn, center - turn @ center]), [0, 0, 1]])
    turned_from_image = about @ square
    spread = pixels @ turned_from_image[:2, :2].T + turned_from_image[:2, 2]
    low, high = spread.min(0), spread.max(0)
    longer = float((high - low).max()) + 1
    scale = side * fill / longer
    middle = (low + high) / 2 + np.asarray(shift) * longer
    crop = np.column_stack([scale * np.eye(2), (side - 1) / 2 - scale * middle])
    affine = crop @ turned_from_image
    straight = np.array([[focal, 0, center[0]], [0, focal, center[1]], [0, 0, 1]])
    return TurnedCrop(affine, crop, np.vstack([crop, [0, 0, 1]]) @ straight, turn)


def warp_view(
    view: PoseView, angle: float, fill: float, shift: tuple[float, float], side: int, diameter: float
) -> WarpedView:
    """Turn a view and cut a square out of it.

    Args:
        view: of any size.
        angle: of the turn, radians, from the x axis towards the y axis.
        fill: longer side of the box around the turned silhouette, in shares of the crop.
        shift: of the crop from the middle of that box, in shares of the box's longer side.
        side: of the crop, pixels.
        diameter: of the object, metres.

    Returns:
        What the crop shows.

    Example:
        >>> from sightline.synthetic.pose_views import PoseViewSettings, draw_pose_views
        >>> tiny = PoseViewSettings(num_templates=42, template_px=24, num_queries=1, query_px=64)
        >>> views = draw_pose_views(0, "train", tiny)
        >>> warped = warp_view(views.queries.view(0), 0.5, 0.8, (0.0, 0.0), 40, views.diameter)
        >>> max(int(np.ptp(places)) + 1 for places in np.nonzero(warped.mask))
        32
    """
    rows, columns = np.nonzero(view.mask)
    pixels = np.stack([columns, rows], axis=-1).astype(np.float64)
    made = turned_crop(view.K, pixels, angle, fill, shift, side)
    layers, depth = resample_view(view, made.affine, side, diameter)
    pose = made.pose(view.cam_from_obj)
    return WarpedView(layers, depth, depth > 0, made.K, pose, made.crop_from_turned)


def resample_view(
    view: PoseView, affine: Float64[np.ndarray, "2 3"], side: int, diameter: float
) -> tuple[UInt8[np.ndarray, "s s 4"], Float32[np.ndarray, "s s"]]:
    """Colours with alpha, and depth, in the grid of a crop.

    Args:
        view: of the object, of any size.
        affine: ``(2, 3)``, crop pixels from those of the view.
        side: of the crop, pixels.
        diameter: of the object, metres.

    Returns:
        ``(s, s, 4)`` uint8 RGBA, colours multiplied by alpha, and ``(s, s)`` float32 metres, 0 outside.
    """
    size, mask, edge = (side, side), view.mask, _EDGE * diameter
    alpha = mask.view(np.uint8) * np.uint8(255)
    layers = cv2.warpAffine(np.dstack([view.color, alpha]), affine, size, flags=cv2.INTER_LINEAR)
    inverse = np.divide(1, view.depth, out=np.zeros_like(view.depth), where=mask)
    covered = np.dstack([inverse, mask.astype(np.float32)])
    linear = cv2.warpAffine(covered, affine, size, flags=cv2.INTER_LINEAR)
    kept = np.dstack([view.depth, _edges(view, inverse, edge)])
    nearest = cv2.warpAffine(kept, affine, size, flags=cv2.INTER_NEAREST)
    smooth = (nearest[..., 1] == 0) & (linear[..., 0] > 0) & (nearest[..., 0] > 0)
    depth = np.divide(linear[..., 1], linear[..., 0], out=nearest[..., 0].copy(), where=smooth)
    return layers, depth


def _edges(view: PoseView, inverse: np.ndarray, edge: float) -> Float32[np.ndarray, "h w"]:
    """1 at the pixels beside a step of the depth or a sharp bend of it, which a plane never has."""
    depth, mask = view.depth, view.mask
    kernel = np.ones((3, 3), np.uint8)
    step = cv2.dilate(depth, kernel) - cv2.erode(np.where(mask, depth, np.float32(1e9)), kernel)
    rough = step > _STEEP * edge
    for axis in (0, 1):
        w, inside, found = (each.swapaxes(0, axis) for each in (inverse, mask, rough))  # views
        bend = np.abs(w[:-2] - 2 * w[1:-1] + w[2:]) * depth.swapaxes(0, axis)[1:-1] ** 2
        found[1:-1] |= (bend > edge) & inside[:-2] & inside[1:-1] & inside[2:]
    return rough.astype(np.float32)


def mirror_pose(cam_from_obj: Float64[np.ndarray, "*n 4 4"]) -> Float64[np.ndarray, "*n 4 4"]:
    """The pose of the object's mirror image (x to -x in its own frame) in the mirrored picture.

    Example:
        >>> mirror_pose(np.eye(4)).tolist() == np.eye(4).tolist()
        True
    """
    return _MIRROR @ cam_from_obj @ _MIRROR


def mirror_camera(K: Float64[np.ndarray, "*n 3 3"], width: int) -> Float64[np.ndarray, "*n 3 3"]:
    """K of the mirrored picture, for the mirrored scene.

    Example:
        >>> mirror_camera(np.array([[50.0, 0, 10], [0, 50, 20], [0, 0, 1]]), 64)[0].tolist()
        [50.0, 0.0, 53.0]
    """
    mirrored = K.copy()
    mirrored[..., 0, 2] = width - 1 - K[..., 0, 2]
    return mirrored
