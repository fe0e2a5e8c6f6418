"""Text on pictures: readable on its background, never outside, labels beside one another where possible."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from sightline.vis.canvas import Picture, text_px
from sightline.vis.palette import BLACK, PLATE, WHITE, Rgb, is_light

_MIN_SHRINK = 0.7  # text is made this much smaller before it is cut


class Box(NamedTuple):
    """Whole pixels ``x0 <= x < x1`` and ``y0 <= y < y1``."""

    x0: int
    y0: int
    x1: int
    y1: int

    @classmethod
    def around(cls, points: np.ndarray) -> Box:
        """The pixels that hold all of ``(m, 2)`` points."""
        (x0, y0), (x1, y1) = np.floor(points.min(axis=0)), np.ceil(points.max(axis=0))
        return cls(int(x0), int(y0), int(x1) + 1, int(y1) + 1)

    @classmethod
    def of_mask(cls, mask: np.ndarray) -> Box | None:
        """The pixels around those that a ``(h, w)`` bool mask marks, None where it marks none."""
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        if len(rows) == 0:
            return None
        return cls(int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)

    def clipped(self, canvas: Picture) -> Box:
        """The part inside a picture (empty, at its edge, where there is none)."""
        height, width = canvas.shape[:2]
        (x0, x1), (y0, y1) = np.clip(self[::2], 0, width), np.clip(self[1::2], 0, height)
        return Box(int(x0), int(y0), int(x1), int(y1))


class _Lettering(NamedTuple):
    text: str
    scale: float
    thickness: int
    width: int
    ascent: int
    descent: int
    pad: int

    @property
    def box_size(self) -> tuple[int, int]:
        return self.width + 2 * self.pad, self.ascent + self.descent + self.pad


def paint_label(
    canvas: Picture,
    text: str,
    near: Box,
    color: Rgb,
    *,
    taken: Sequence[Box] = (),
    letter_px: float | None = None,
) -> Box | None:
    """Paint a label above, below or beside something, inside the picture and off the labels that are there.

    Args:
        canvas: ``(h, w, 3)`` uint8 RGB, changed in place.
        text: one line; control characters become spaces, and what is too long ends in dots.
        near: what the label belongs to, pixels; it may lie outside the picture.
        color: of the background; the letters are black or white, whichever is easier to read.
        taken: boxes that the label should not cover.
        letter_px: height of a capital letter, by default what suits the picture.

    Returns:
        The painted box, or None where the text is empty or the picture is too small for a letter.

    Example:
        >>> canvas = np.zeros((60, 200, 3), dtype=np.uint8)
        >>> box = paint_label(canvas, "mug 0.93", Box(-40, -40, 20, 20), (240, 228, 66))
        >>> box.x0 >= 0 and box.y1 <= 60 and canvas[box.y0, box.x0].tolist() == [240, 228, 66]
        True
    """
    height, width = canvas.shape[:2]
    letters = _fit_text(text, width, letter_px or text_px(canvas))
    if letters is None or letters.box_size[1] > height:
        return None
    box = _place(letters.box_size, near, (width, height), taken)
    canvas[box.y0 : box.y1, box.x0 : box.x1] = color
    _paint_text(canvas, letters, box, BLACK if is_light(color) else WHITE)
    return box


def paint_notes(canvas: Picture, lines: Sequence[str], *, corner: str = "bottom-left") -> Box | None:
    """Paint lines of text on one dark plate in a corner.

    Args:
        canvas: ``(h, w, 3)`` uint8 RGB, changed in place.
        lines: from top to bottom; those that do not fit are counted in the last line.
        corner: "top-left", "top-right", "bottom-left" or "bottom-right".

    Returns:
        The plate, or None where there is nothing to say or no room to say it.

    Raises:
        ValueError: no such corner.

    Example:
        >>> canvas = np.zeros((100, 200, 3), dtype=np.uint8)
        >>> paint_notes(canvas, ["not found: mug"], corner="top-left")[:2]
        (0, 0)
    """
    vertical, _, horizontal = corner.partition("-")
    if vertical not in ("top", "bottom") or horizontal not in ("left", "right"):
        raise ValueError(f"corner: expected 'top-left' or the like, got {corner!r}")
    height, width = canvas.shape[:2]
    fitted = [letters for line in lines if (letters := _fit_text(line, width, text_px(canvas))) is not None]
    if not fitted:
        return None
    line_height = max(letters.box_size[1] for letters in fitted)
    room = height // line_height
    if room == 0:
        return None
    if len(fitted) > room:
        rest = _fit_text(f"and {len(fitted) - room + 1} more", width, text_px(canvas))
        fitted = fitted[: room - 1] + ([rest] if rest else [])
    plate_width, plate_height = max(letters.box_size[0] for letters in fitted), line_height * len(fitted)
    x0 = 0 if horizontal == "left" else width - plate_width
    y0 = 0 if vertical == "top" else height - plate_height
    canvas[y0 : y0 + plate_height, x0 : x0 + plate_width] = PLATE
    for row, letters in enumerate(fitted):
        top = y0 + row * line_height
        _paint_text(canvas, letters, Box(x0, top, x0 + letters.box_size[0], top + line_height), WHITE)
    return Box(x0, y0, x0 + plate_width, y0 + plate_height)


def label_size(text: str, max_width: int, letter_px: float) -> tuple[int, int]:
    """The width and height that :func:`paint_label` needs, ``(0, 0)`` for what it cannot paint."""
    letters = _fit_text(text, max_width, letter_px)
    return (0, 0) if letters is None else letters.box_size


def _place(size: tuple[int, int], near: Box, picture: tuple[int, int], taken: Sequence[Box]) -> Box:
    """The first place around ``near``, moved into the picture, that covers the least of ``taken``."""
    (w, h), left, right = size, near.x0, near.x1 - size[0]
    middle = (near.y0 + near.y1 - h) // 2
    places = [(left, near.y0 - h), (left, near.y1), (right, near.y0 - h), (right, near.y1)]
    places += [(left, near.y0), (near.x1, middle), (near.x0 - w, middle)]
    places += [(left, y) for y in (near.y0 - 2 * h, near.y0 - 3 * h, near.y1 + h, near.y1 + 2 * h)]
    boxes = []
    for x, y in places:
        x0, y0 = min(max(x, 0), picture[0] - w), min(max(y, 0), picture[1] - h)
        boxes.append(Box(x0, y0, x0 + w, y0 + h))
    return min(boxes, key=lambda box: sum(_overlap(box, other) for other in taken))


def _overlap(a: Box, b: Box) -> int:
    return max(0, min(a.x1, b.x1) - max(a.x0, b.x0)) * max(0, min(a.y1, b.y1) - max(a.y0, b.y0))


def _fit_text(text: str, max_width: int, letter_px: float) -> _Lettering | None:
    """The text in letters that fit into a width: as they are, else smaller, else fewer of them."""
    text = _printable(text)
    whole = _measure(text, letter_px)
    if not text or whole.box_size[0] <= max_width:
        return whole if text else None
    smaller = max(letter_px * max_width / whole.box_size[0], letter_px * _MIN_SHRINK, 7.0)
    low, high = 0, len(text)  # the most letters that fit with dots behind them; none do if low stays 0
    shrunk = _measure(text, smaller)
    if shrunk.box_size[0] <= max_width:
        return shrunk
    while low < high - 1:
        middle = (low + high) // 2
        fits = _measure(text[:middle].rstrip() + "..", smaller).box_size[0] <= max_width
        low, high = (middle, high) if fits else (low, middle)
    return _measure(text[:low].rstrip() + "..", smaller) if low else None


def _measure(text: str, letter_px: float) -> _Lettering:
    import cv2

    thickness = 2 if letter_px >= 16 else 1
    scale = letter_px / 21.0  # a capital of this font is 21 px tall at scale 1
    (width, ascent), descent = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, thickness)
    return _Lettering(text, scale, thickness, width, ascent, descent, max(2, round(letter_px / 4)))


def _paint_text(canvas: Picture, letters: _Lettering, box: Box, color: Rgb) -> None:
    import cv2

    # All lines of one size share a baseline, whether or not a letter of theirs reaches below it.
    origin = (box.x0 + letters.pad, box.y0 + letters.pad // 2 + letters.ascent)
    inside = np.ascontiguousarray(canvas[box.y0 : box.y1, box.x0 : box.x1])
    origin = (origin[0] - box.x0, origin[1] - box.y0)
    font, style = cv2.FONT_HERSHEY_SIMPLEX, cv2.LINE_AA
    cv2.putText(inside, letters.text, origin, font, letters.scale, color, letters.thickness, style)
    canvas[box.y0 : box.y1, box.x0 : box.x1] = inside


def _printable(text: str) -> str:
    import cv2

    text = "".join(letter if letter.isprintable() else " " for letter in text).strip()
    if int(cv2.__version__.partition(".")[0]) >= 5:
        return text
    # OpenCV 4 has the letters of ASCII alone.
    return text.replace("±", "+-").replace("°", " deg").encode("ascii", "replace").decode()
