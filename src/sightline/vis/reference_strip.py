"""A strip of reference pictures beside a picture: what was looked for, beside what was found."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from sightline.vis.canvas import Picture, check_picture, fit_picture
from sightline.vis.labels import Box, label_size, paint_label
from sightline.vis.palette import PLATE, Rgb, object_colors

_GAP_PX = 4
_SHARE = 0.24  # of the strip in the picture's longer side
_MOST_COLUMNS = 8


def draw_reference_strip(
    image: np.ndarray,
    references: Mapping[str, Sequence[np.ndarray]],
    *,
    colors: Mapping[str, Rgb] | None = None,
) -> Picture:
    """Put each object's reference pictures to the left of a picture, under its name in its colour.

    The strip is as high as the picture, and a quarter of its longer side wide. The small pictures are as
    large as lets all of them fit; where even eight side by side are too many, the last ones are left out.

    Args:
        image: ``(h, w, 3)`` uint8 RGB, for example with detections drawn.
        references: ``(h, w, 3)`` uint8 RGB of any sizes, by the object's name.
        colors: of each name, by default :func:`~sightline.vis.palette.object_colors`.

    Returns:
        A new picture: the strip, and the picture pixel for pixel.

    Raises:
        ValueError: something that is no picture.

    Example:
        >>> image = np.full((90, 120, 3), 255, dtype=np.uint8)
        >>> drawn = draw_reference_strip(image, {"mug": [np.full((20, 30, 3), 200, dtype=np.uint8)]})
        >>> drawn.shape, bool((drawn[:, -120:] == image).all())
        ((90, 168, 3), True)
    """
    check_picture(image)
    for name, pictures in references.items():
        for index, picture in enumerate(pictures):
            check_picture(picture, f"references[{name!r}][{index}]")
    palette = {**object_colors(references), **(colors or {})}
    height, width = image.shape[:2]
    strip_width = max(48, round(_SHARE * max(height, width)))
    strip = np.full((height, strip_width, 3), PLATE, dtype=np.uint8)
    letters = max(8.0, strip_width / 18)
    line = label_size("Ag", 10 * strip_width, letters)[1] + _GAP_PX
    columns = _columns([len(pictures) for pictures in references.values()], strip_width, height, line)
    pitch = (strip_width - _GAP_PX) // columns
    top = _GAP_PX
    for name, pictures in references.items():
        caption = strip[top : top + line, _GAP_PX : strip_width - _GAP_PX]
        if caption.size:
            paint_label(caption, name, Box(0, 0, 0, 0), palette[name], letter_px=letters)
        top += line
        for index, picture in enumerate(pictures):
            row, column = divmod(index, columns)
            _paste(
                strip, picture, top + row * pitch, _GAP_PX + column * pitch, pitch - _GAP_PX, palette[name]
            )
        top += math.ceil(len(pictures) / columns) * pitch
    return np.concatenate([strip, image], axis=1)


def _columns(counts: Sequence[int], width: int, height: int, line: int) -> int:
    """The fewest columns, and so the largest pictures, with which everything fits."""
    for columns in range(1, _MOST_COLUMNS):
        pitch = (width - _GAP_PX) // columns
        if _GAP_PX + sum(line + math.ceil(count / columns) * pitch for count in counts) <= height:
            return columns
    return _MOST_COLUMNS


def _paste(strip: Picture, picture: np.ndarray, top: int, left: int, side: int, color: Rgb) -> None:
    """A small picture in its frame, centred in its square, if there is still room for it."""
    if side < 3 or top + side > strip.shape[0]:
        return
    strip[top : top + side, left : left + side] = color
    small = fit_picture(picture, side - 2, side - 2)
    y, x = top + (side - small.shape[0]) // 2, left + (side - small.shape[1]) // 2
    strip[y : y + small.shape[0], x : x + small.shape[1]] = small
