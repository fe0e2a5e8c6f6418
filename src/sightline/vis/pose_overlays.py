"""The standard picture of poses: contour, box, axes and a label each, and what was not found, with why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from torch import Tensor

from sightline.geometry.cameras import Camera
from sightline.records import PoseEstimate
from sightline.vis.canvas import Picture, as_mask, check_fits_camera, start_canvas, stroke_px
from sightline.vis.labels import Box, paint_label, paint_notes
from sightline.vis.palette import Rgb, object_colors
from sightline.vis.strokes import paint_contour
from sightline.vis.wireframes import check_bounds, paint_axes, paint_box_3d
from sightline.vis.words import label_pose

_AXES_SHARE = 0.5  # of the box's diagonal


def draw_poses(
    image: np.ndarray,
    camera: Camera,
    poses: Sequence[PoseEstimate],
    *,
    bounds: Sequence[np.ndarray | Tensor | None] | None = None,
    masks: Sequence[np.ndarray | Tensor | None] | None = None,
    colors: Mapping[str, Rgb] | None = None,
) -> Picture:
    """Draw the standard overlay: of each pose the contour, the box, the axes and a label.

    Farther objects are drawn first, labels last and off one another. An object that was not found is never
    drawn somewhere; it is listed with its reason in the bottom left corner.

    Args:
        image: ``(h, w, 3)`` uint8 RGB, as the camera delivered it.
        camera: the camera that took it.
        poses: valid ones and failures.
        bounds: of each object, ``(2, 3)`` metres in its frame; without them no box, and axes of a tenth of
            the distance.
        masks: of each object, ``(h, w)`` bool as rendered in its pose; without them no contour.
        colors: of each name, by default :func:`~sightline.vis.palette.object_colors`.

    Returns:
        A new picture.

    Raises:
        ValueError: sizes that do not fit.

    Example:
        >>> black, camera = np.zeros((120, 200, 3), dtype=np.uint8), Camera.from_focal(100.0, 200, 120)
        >>> drawn = draw_poses(black, camera, [PoseEstimate.failure("hidden", name="mug")])
        >>> bool(drawn[:60].any()), bool(drawn[90:].any())
        (False, True)
    """
    canvas = start_canvas(image)
    check_fits_camera(image, camera)
    all_bounds = _one_each(bounds, len(poses), "bounds")
    all_masks = _one_each(masks, len(poses), "masks")
    palette = {**object_colors(pose.name for pose in poses), **(colors or {})}
    found = [scene for scene in zip(poses, all_bounds, all_masks, strict=True) if scene[0].valid]
    found.sort(key=lambda scene: -float(scene[0].t[2]))
    near = [_paint_pose(canvas, camera, *scene, palette[scene[0].name]) for scene in found]
    plate = paint_notes(canvas, [label_pose(pose) for pose in poses if not pose.valid])
    taken = [plate] if plate else []
    for (pose, _, _), box in reversed(list(zip(found, near, strict=True))):
        if box is not None:
            label = paint_label(canvas, label_pose(pose), box, palette[pose.name], taken=taken)
            taken += [label] if label else []
    return canvas


def draw_pose(
    image: np.ndarray,
    camera: Camera,
    pose: PoseEstimate,
    *,
    bounds: np.ndarray | Tensor | None = None,
    mask: np.ndarray | Tensor | None = None,
    color: Rgb | None = None,
) -> Picture:
    """Draw the standard overlay of one pose, see :func:`draw_poses`.

    Args:
        image: ``(h, w, 3)`` uint8 RGB, as the camera delivered it.
        camera: the camera that took it.
        pose: where the object is, or why it was not found.
        bounds: ``(2, 3)`` metres, the object's box in its frame.
        mask: ``(h, w)`` bool, the object as rendered in this pose.
        color: of contour, box and label, by default the palette's first.

    Returns:
        A new picture.

    Raises:
        ValueError: sizes that do not fit.

    Example:
        >>> black, camera = np.zeros((120, 200, 3), dtype=np.uint8), Camera.from_focal(100.0, 200, 120)
        >>> bool(draw_pose(black, camera, PoseEstimate.failure("hidden", name="mug"))[:60].any())
        False
    """
    colors = None if color is None else {pose.name: color}
    return draw_poses(image, camera, [pose], bounds=[bounds], masks=[mask], colors=colors)


def _paint_pose(
    canvas: Picture,
    camera: Camera,
    pose: PoseEstimate,
    bounds: np.ndarray | Tensor | None,
    mask: np.ndarray | Tensor | None,
    color: Rgb,
) -> Box | None:
    """Paint one valid pose and say what its label belongs to; None where nothing of it is in view."""
    outline_box = solid_box = None
    length = 0.1 * float(pose.t.norm())
    if mask is not None:
        outline = as_mask(mask, canvas)
        paint_contour(canvas, outline, color, stroke_px(canvas))
        outline_box = Box.of_mask(outline)
    if bounds is not None:
        low, high = check_bounds(bounds)
        length = _AXES_SHARE * float(np.linalg.norm(high - low))
        solid_box = paint_box_3d(canvas, camera, pose, bounds, color)
    axes_box = paint_axes(canvas, camera, pose, length=length)
    near = solid_box or outline_box or axes_box
    return near.clipped(canvas) if near else None


def _one_each(
    values: Sequence[np.ndarray | Tensor | None] | None, count: int, name: str
) -> Sequence[np.ndarray | Tensor | None]:
    if values is None:
        return [None] * count
    if len(values) != count:
        raise ValueError(f"{name}: expected one (or None) for each of {count} poses, got {len(values)}")
    return values
