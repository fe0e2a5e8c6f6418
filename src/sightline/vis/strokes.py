"""Anti-aliased lines, dots and tints that are painted onto a canvas, to a sixteenth of a pixel."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sightline.vis.canvas import Picture
from sightline.vis.palette import BLACK, WHITE, Rgb, is_light

_SHIFT = 4  # binary digits behind the point in the coordinates that OpenCV draws
_FAR_PX = 1e6  # beyond this a coordinate would overflow OpenCV's fixed point


def paint_polylines(
    canvas: Picture,
    lines: Sequence[np.ndarray],
    color: Rgb,
    width: int,
    *,
    closed: bool = False,
    halo: bool = True,
) -> None:
    """Paint lines through points, with a thin halo that keeps them visible on any background.

    All halos are painted before all lines, so that lines which meet do not cut one another.

    Args:
        canvas: ``(h, w, 3)`` uint8 RGB, changed in place.
        lines: ``(m, 2)`` finite pixels each; parts outside the picture are left out.
        color: of the lines.
        width: of the lines without the halo, an odd number of pixels.
        closed: whether the last point of each joins its first.
        halo: whether to paint the halo, black around a light line and white around a dark one.

    Example:
        >>> canvas = np.zeros((3, 9, 3), dtype=np.uint8)
        >>> paint_polylines(canvas, [np.array([[0.0, 1.0], [8.0, 1.0]])], (255, 0, 0), 1, halo=False)
        >>> canvas[1, 4, 0] > 200, canvas[0, 4, 0] < 100
        (np.True_, np.True_)
    """
    import cv2

    fixed = [_to_fixed(line) for line in lines]
    if halo:
        around = BLACK if is_light(color) else WHITE
        cv2.polylines(canvas, fixed, closed, around, _thickness(width + 2), cv2.LINE_AA, _SHIFT)
    cv2.polylines(canvas, fixed, closed, color, _thickness(width), cv2.LINE_AA, _SHIFT)


def paint_dot(canvas: Picture, point: np.ndarray, color: Rgb, radius: float, *, halo: bool = True) -> None:
    """Paint a filled disc.

    Args:
        canvas: ``(h, w, 3)`` uint8 RGB, changed in place.
        point: ``(2,)`` finite centre, pixels.
        color: of the disc.
        radius: of the disc without the halo, pixels.
        halo: whether to paint a thin ring around it, as for lines.

    Example:
        >>> canvas = np.zeros((9, 9, 3), dtype=np.uint8)
        >>> paint_dot(canvas, np.array([4.0, 4.0]), (255, 0, 0), 2.0, halo=False)
        >>> canvas[4, 4].tolist(), canvas[0, 0].tolist()
        ([255, 0, 0], [0, 0, 0])
    """
    import cv2

    x, y = _to_fixed(point).tolist()
    discs = [(radius + 1, BLACK if is_light(color) else WHITE)] if halo else []
    for size, paint in (*discs, (radius, color)):
        # A disc that OpenCV smoothes comes out half a pixel larger than asked for.
        fixed = round(max(size - 0.5, 0.5) * (1 << _SHIFT))
        cv2.circle(canvas, (x, y), fixed, paint, -1, cv2.LINE_AA, _SHIFT)


def paint_tint(canvas: Picture, mask: np.ndarray, color: np.ndarray | Rgb, alpha: float) -> None:
    """Blend a colour, or a picture, over the pixels of a mask.

    Args:
        canvas: ``(h, w, 3)`` uint8 RGB, changed in place.
        mask: ``(h, w)`` bool.
        color: one colour, or ``(h, w, 3)`` uint8 RGB.
        alpha: share of the colour, in [0, 1].

    Raises:
        ValueError: ``alpha`` is not in [0, 1].

    Example:
        >>> canvas = np.zeros((1, 2, 3), dtype=np.uint8)
        >>> paint_tint(canvas, np.array([[True, False]]), (200, 100, 0), 0.5)
        >>> canvas.tolist()
        [[[100, 50, 0], [0, 0, 0]]]
    """
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha: expected a share in [0, 1], got {alpha}")
    over = np.asarray(color)
    if over.ndim == 3:
        over = over[mask]
    canvas[mask] = np.rint((1 - alpha) * canvas[mask] + alpha * over).astype(np.uint8)


def paint_contour(canvas: Picture, mask: np.ndarray, color: Rgb, width: int) -> None:
    """Paint the outline of a mask and of its holes along the mask's outermost pixels.

    Args:
        canvas: ``(h, w, 3)`` uint8 RGB, changed in place.
        mask: ``(h, w)`` bool.
        color: of the line.
        width: of the line without its halo, an odd number of pixels.

    Example:
        >>> canvas, mask = np.zeros((20, 20, 3), dtype=np.uint8), np.zeros((20, 20), dtype=bool)
        >>> mask[5:15, 5:15] = True
        >>> paint_contour(canvas, mask, (255, 0, 0), 1)
        >>> canvas[5, 10, 0] > 200, canvas[10, 10].any()
        (np.True_, np.False_)
    """
    import cv2

    outlines, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    paint_polylines(canvas, [outline[:, 0] for outline in outlines], color, width, closed=True)


def _thickness(width: int) -> int:
    """What to ask OpenCV for: its smoothed lines of thickness 1, 2, 4, 6 are 1.4, 3.4, 5.4, 7.4 px wide."""
    return max(1, width - 1)


def _to_fixed(points: np.ndarray) -> np.ndarray:
    return np.rint(np.clip(points, -_FAR_PX, _FAR_PX) * (1 << _SHIFT)).astype(np.int32)
