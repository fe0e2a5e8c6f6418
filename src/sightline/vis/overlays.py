"""What is drawn over a photograph: outlines, renderings, quadrilaterals and detections.

Every ``draw_...`` returns a new picture and leaves its argument alone. Masks and renderings come as arrays,
made by whoever can render.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from torch import Tensor

from sightline.records import Detections
from sightline.vis.canvas import (
    Picture,
    as_array,
    as_mask,
    as_points,
    check_picture,
    start_canvas,
    stroke_px,
)
from sightline.vis.labels import Box, paint_label, paint_notes
from sightline.vis.palette import Rgb, object_colors, palette_color
from sightline.vis.strokes import paint_contour, paint_polylines, paint_tint


def draw_contour(
    image: np.ndarray, mask: np.ndarray | Tensor, *, color: Rgb | Sequence[Rgb] | None = None
) -> Picture:
    """Draw the outline of one or several masks, holes included, with a halo.

    Args:
        image: ``(h, w, 3)`` uint8 RGB.
        mask: ``(h, w)`` or ``(n, h, w)`` bool, for example a rendering's mask.
        color: one colour, or one a mask; by default the palette's in turn.

    Returns:
        A new picture.

    Raises:
        ValueError: a mask that is not bool or not of the picture's size, or too few colours.

    Example:
        >>> black, mask = np.zeros((40, 40, 3), dtype=np.uint8), np.zeros((40, 40), dtype=bool)
        >>> mask[10:30, 10:30] = True
        >>> outline = draw_contour(black, mask, color=(255, 0, 0))
        >>> outline[10, 20, 0] > 200, outline[20, 20].any()
        (np.True_, np.False_)
    """
    canvas = start_canvas(image)
    masks = as_array(mask)
    masks = masks[None] if masks.ndim == 2 else masks
    for one, its_color in zip(masks, _colors_for(color, len(masks)), strict=True):
        paint_contour(canvas, as_mask(one, image), its_color, stroke_px(canvas))
    return canvas


def draw_mesh(
    image: np.ndarray, rendered: np.ndarray | Tensor, mask: np.ndarray | Tensor, *, alpha: float = 0.6
) -> Picture:
    """Blend a rendering of the object over the picture.

    Args:
        image: ``(h, w, 3)`` uint8 RGB.
        rendered: ``(h, w, 3)`` uint8 RGB, the object in the estimated pose.
        mask: ``(h, w)`` bool, where the rendering shows the object.
        alpha: share of the rendering, in [0, 1].

    Returns:
        A new picture, unchanged outside the mask.

    Raises:
        ValueError: sizes or types that do not fit, or ``alpha`` outside [0, 1].

    Example:
        >>> black, red = np.zeros((2, 2, 3), dtype=np.uint8), np.full((2, 2, 3), (200, 0, 0), dtype=np.uint8)
        >>> draw_mesh(black, red, np.eye(2, dtype=bool), alpha=0.5)[:, :, 0].tolist()
        [[100, 0], [0, 100]]
    """
    canvas = start_canvas(image)
    over = check_picture(as_array(rendered), "rendered")
    if over.shape != image.shape:
        raise ValueError(f"rendered: expected the picture's shape {image.shape}, got {over.shape}")
    paint_tint(canvas, as_mask(mask, image), over, alpha)
    return canvas


def draw_quadrilateral(
    image: np.ndarray, corners: np.ndarray | Tensor, *, label: str = "", color: Rgb | None = None
) -> Picture:
    """Draw a flat object's outline as a closed quadrilateral.

    Args:
        image: ``(h, w, 3)`` uint8 RGB.
        corners: ``(4, 2)`` pixels in order around it; they may lie outside the picture.
        label: text beside it, none if empty.
        color: of the line, by default the palette's first.

    Returns:
        A new picture.

    Raises:
        ValueError: not four finite corners.

    Example:
        >>> corners = np.array([[5.0, 5], [30, 5], [30, 30], [5, 30]])
        >>> drawn = draw_quadrilateral(np.zeros((40, 40, 3), dtype=np.uint8), corners, color=(255, 0, 0))
        >>> (drawn[[5, 30], [20, 10], 0] > 200).all()
        np.True_
    """
    canvas = start_canvas(image)
    points = as_points(corners, "corners")
    if points.shape != (4, 2) or not np.isfinite(points).all():
        raise ValueError(f"corners: expected four finite pixels (4, 2), got {points.tolist()}")
    color = palette_color(0) if color is None else color
    paint_polylines(canvas, [points], color, stroke_px(canvas), closed=True)
    paint_label(canvas, label, Box.around(points).clipped(canvas), color)
    return canvas


def draw_detections(
    image: np.ndarray,
    detections: Detections,
    *,
    colors: Mapping[str, Rgb] | None = None,
    mask_alpha: float = 0.35,
    labels: bool = True,
) -> Picture:
    """Draw boxes with name and score, and masks where there are any, the surest last and so on top.

    Args:
        image: ``(h, w, 3)`` uint8 RGB.
        detections: found in this picture.
        colors: of each name, by default :func:`~sightline.vis.palette.object_colors`.
        mask_alpha: how strongly masks are tinted, in [0, 1].
        labels: whether names and scores are written.

    Returns:
        A new picture.

    Raises:
        ValueError: the detections belong to a picture of another size.

    Example:
        >>> import torch
        >>> found = Detections(torch.tensor([[8., 20., 50., 50.]]), torch.tensor([0.9]), ("mug",), (64, 64))
        >>> drawn = draw_detections(np.zeros((64, 64, 3), dtype=np.uint8), found)
        >>> drawn[50, 30, 0] > 200, drawn[35, 30].any()
        (np.True_, np.False_)
    """
    canvas = start_canvas(image)
    height, width = image.shape[:2]
    if detections.image_size != (width, height):
        raise ValueError(f"detections: made for a picture of {detections.image_size}, got {(width, height)}")
    palette = {**object_colors(detections.names), **(colors or {})}
    boxes = as_array(detections.boxes).astype(np.float64)
    order = np.argsort(as_array(detections.scores), kind="stable")
    for index in order:
        color = palette[detections.names[index]]
        if detections.masks is not None:
            mask = as_mask(detections.masks[index], image)
            paint_tint(canvas, mask, color, mask_alpha)
            paint_contour(canvas, mask, color, stroke_px(canvas))
        x0, y0, x1, y1 = boxes[index]
        rectangle = np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]])
        paint_polylines(canvas, [rectangle], color, stroke_px(canvas), closed=True)
    taken: list[Box] = []
    for index in order[::-1] if labels else ():
        name, score = detections.names[index], float(detections.scores[index])
        near = Box.around(boxes[index].reshape(2, 2)).clipped(canvas)
        label = paint_label(canvas, f"{name} {score:.2f}", near, palette[name], taken=taken)
        taken += [label] if label else []
    return canvas


def draw_notes(image: np.ndarray, lines: Sequence[str], *, corner: str = "top-left") -> Picture:
    """Write lines of text on a dark plate in a corner, for example the number of a frame and what was lost.

    Args:
        image: ``(h, w, 3)`` uint8 RGB.
        lines: from top to bottom; those that do not fit are counted in the last line.
        corner: "top-left", "top-right", "bottom-left" or "bottom-right".

    Returns:
        A new picture.

    Raises:
        ValueError: no such corner.

    Example:
        >>> drawn = draw_notes(np.zeros((60, 200, 3), dtype=np.uint8), ["frame 12"])
        >>> bool(drawn[:20, :80].any()), bool(drawn[30:].any())
        (True, False)
    """
    canvas = start_canvas(image)
    paint_notes(canvas, lines, corner=corner)
    return canvas


def _colors_for(color: Rgb | Sequence[Rgb] | None, count: int) -> list[Rgb]:
    if color is None:
        return [palette_color(index) for index in range(count)]
    colors = [(int(r), int(g), int(b)) for r, g, b in np.atleast_2d(np.asarray(color))]
    if len(colors) not in (1, count):
        raise ValueError(f"color: expected one, or one for each of {count} masks, got {len(colors)}")
    return colors * count if len(colors) == 1 else colors
