"""An own stroke alphabet, so that a printed word is the same picture on every machine.

OpenCV draws text with line fonts in version 4 and with TrueType in version 5; a frozen exam needs letters
that do not change. Each glyph is a few strokes on a grid 4 wide and 6 high; one that begins with ``~`` is
round.
"""

from __future__ import annotations

from functools import cache

import cv2
import numpy as np

Color = tuple[int, ...]

_GRID_WIDTH, _GRID_HEIGHT, _ADVANCE = 4.0, 6.0, 5.6
_SHIFT = 4  # cv2's fixed point: positions to a sixteenth of a pixel

# digits are pairs "xy", y down; strokes are separated by blanks
_GLYPHS = {
    "A": "062046 1434", "B": "0006 ~00404303 ~03434606", "C": "~414000064645", "D": "0006 ~00404606",
    "E": "40000646 0333", "F": "400006 0333", "G": "~414000064643 4323", "H": "0006 4046 0343", "I": "2026",
    "J": "~40460605", "K": "0006 4004 1346", "L": "000646", "M": "0600244046", "N": "06004640",
    "O": "~200006464020", "P": "0006 ~00404303", "Q": "~200006464020 2446", "R": "0006 ~00404303 2346",
    "S": "~4140000343460605", "T": "0040 2026", "U": "~00064640", "V": "002640", "W": "0016223640",
    "X": "0046 4006", "Y": "002340 2326", "Z": "00400646", "0": "~200006464020", "1": "112026",
    "2": "~0100404306 0646", "3": "~0100404323 ~2343460605", "4": "36300444", "5": "400003 ~0343460605",
    "6": "~400006464303", "7": "004016", "8": "~200003434020 ~230306464323", "9": "~064640000343",
    ".": "2526", "-": "1333", "/": "0640", "!": "2024 2526", "&": "~460402204205", " ": "",
}  # fmt: skip


def _rounded(points: np.ndarray, times: int = 3) -> np.ndarray:
    """Chaikin's corner cutting; the two ends stay."""
    for _ in range(times):
        first, second = points[:-1], points[1:]
        cut = np.stack([0.75 * first + 0.25 * second, 0.25 * first + 0.75 * second], axis=1).reshape(-1, 2)
        points = np.concatenate([points[:1], cut[1:-1], points[-1:]])
    return points


@cache
def _strokes(letter: str) -> tuple[np.ndarray, ...]:
    found = []
    for token in _GLYPHS[letter].split():
        digits = token.removeprefix("~")
        points = np.array([(int(x), int(y)) for x, y in zip(digits[::2], digits[1::2], strict=True)], float)
        found.append(_rounded(points) if token.startswith("~") else points)
    return tuple(found)


def text_width(text: str, height: float, *, stretch: float = 1.0) -> float:
    """The width that ``text`` takes at a letter height, both in pixels.

    Example:
        >>> text_width("AB", 6.0)
        9.6
    """
    units = len(text) * _ADVANCE - (_ADVANCE - _GRID_WIDTH) if text else 0.0
    return units * stretch * height / _GRID_HEIGHT


def draw_text(
    image: np.ndarray,
    text: str,
    left_top: tuple[float, float],
    height: float,
    color: Color,
    *,
    weight: float = 0.14,
    stretch: float = 1.0,
    slant: float = 0.0,
) -> None:
    """Draw a line of upper-case letters and digits into an RGB picture, in place.

    Args:
        image: ``(h, w, 3)`` uint8, or a view of a larger picture.
        text: letters, digits and ``.-/!&``; others are refused.
        left_top: the top-left corner of the first letter, pixels.
        height: letter height, pixels.
        color: RGB.
        weight: stroke thickness as a share of the height.
        stretch: factor on the width of letters.
        slant: how far the top leans to the right, as a share of the height.

    Raises:
        ValueError: a letter that the alphabet does not have.

    Example:
        >>> import numpy as np
        >>> page = np.zeros((20, 40, 3), np.uint8)
        >>> draw_text(page, "OAT 5", (2, 4), 12, (255, 255, 255))
        >>> bool(page.max() > 200)
        True
    """
    unknown = sorted(set(text) - set(_GLYPHS))
    if unknown:
        raise ValueError(f"text: expected letters of the alphabet, got {unknown} in {text!r}")
    scale = height / _GRID_HEIGHT
    lines = []
    for place, letter in enumerate(text):
        for stroke in _strokes(letter):
            x = (stroke[:, 0] + place * _ADVANCE) * stretch + slant * (_GRID_HEIGHT - stroke[:, 1])
            points = np.stack([x, stroke[:, 1]], axis=1) * scale + np.asarray(left_top)
            lines.append(np.round(points * (1 << _SHIFT)).astype(np.int32))
    thickness = max(1, round(weight * height))
    cv2.polylines(image, lines, False, color, thickness, cv2.LINE_AA, _SHIFT)


def draw_text_in_box(
    image: np.ndarray,
    text: str,
    box: tuple[float, float, float, float],
    color: Color,
    *,
    weight: float = 0.14,
    slant: float = 0.0,
    max_stretch: float = 1.4,
) -> None:
    """Draw ``text`` as large as it fits into ``box`` (xyxy, pixels), centred; it widens to ``max_stretch``.

    Example:
        >>> import numpy as np
        >>> page = np.zeros((20, 40, 3), np.uint8)
        >>> draw_text_in_box(page, "TEA", (2, 2, 38, 18), (255, 255, 255))
        >>> bool(page[:, 0].max() == 0)
        True
    """
    x1, y1, x2, y2 = box
    room_y = (y2 - y1) / (1.0 + weight)
    room_x = x2 - x1 - weight * room_y  # a stroke reaches half its thickness beyond its line
    natural = text_width(text, room_y) + slant * room_y
    stretch = float(np.clip(room_x / max(natural, 1e-6), 0.75, max_stretch))
    height = min(room_y, room_y * room_x / max(natural * stretch, 1e-6))
    width = text_width(text, height, stretch=stretch) + slant * height
    corner = ((x1 + x2 - width) / 2, (y1 + y2 - height) / 2)
    draw_text(image, text, corner, height, color, weight=weight, stretch=stretch, slant=slant)
