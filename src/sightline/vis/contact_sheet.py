"""Many small pictures in one, with captions: the templates of a card, the frames of a video."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from sightline.vis.canvas import Picture, check_picture, fit_picture
from sightline.vis.labels import Box, label_size, paint_label
from sightline.vis.palette import PLATE

_GAP_PX = 6


def draw_contact_sheet(
    pictures: Sequence[np.ndarray],
    captions: Sequence[str] | None = None,
    *,
    columns: int | None = None,
    cell_px: int = 160,
    title: str = "",
) -> Picture:
    """Lay pictures out in a grid, each scaled to one size with its shape kept, captions below.

    Args:
        pictures: ``(h, w, 3)`` uint8 RGB each, of any sizes.
        captions: one each; too long ones are cut.
        columns: how many side by side, by default so that the sheet is about 3 : 2.
        cell_px: the longer side of each picture on the sheet, pixels.
        title: above the grid, none if empty.

    Returns:
        The sheet.

    Raises:
        ValueError: no pictures, something that is no picture, captions of another number, a cell below 16 px.

    Example:
        >>> tiles = [np.full((40, 60, 3), 200, dtype=np.uint8)] * 5
        >>> draw_contact_sheet(tiles, columns=2, cell_px=60).shape
        (144, 138, 3)
    """
    if not pictures:
        raise ValueError("pictures: expected at least one, got none")
    if captions is not None and len(captions) != len(pictures):
        raise ValueError(f"captions: expected one for each of {len(pictures)} pictures, got {len(captions)}")
    if cell_px < 16:
        raise ValueError(f"cell_px: expected at least 16, got {cell_px}")
    if columns is not None and columns < 1:
        raise ValueError(f"columns: expected at least 1, got {columns}")
    for index, picture in enumerate(pictures):
        check_picture(picture, f"pictures[{index}]")
    tiles = [fit_picture(picture, cell_px, cell_px) for picture in pictures]
    height, width = (max(tile.shape[side] for tile in tiles) for side in (0, 1))
    columns = min(len(tiles), columns or _default_columns(len(tiles), height / width))
    rows = math.ceil(len(tiles) / columns)
    letters = max(8.0, cell_px / 14)
    line = label_size("Ag", 10 * cell_px, letters)[1]
    head = line + 2 * _GAP_PX if title else _GAP_PX
    pitch_x, pitch_y = width + _GAP_PX, height + _GAP_PX + (line if captions is not None else 0)
    sheet = np.full((head + rows * pitch_y, columns * pitch_x + _GAP_PX, 3), PLATE, dtype=np.uint8)
    _write(sheet[_GAP_PX : head - _GAP_PX, _GAP_PX:], title, letters)
    for index, tile in enumerate(tiles):
        row, column = divmod(index, columns)
        x0, y0 = _GAP_PX + column * pitch_x, head + row * pitch_y
        top, left = y0 + (height - tile.shape[0]) // 2, x0 + (width - tile.shape[1]) // 2
        sheet[top : top + tile.shape[0], left : left + tile.shape[1]] = tile
        if captions is not None:
            _write(sheet[y0 + height : y0 + height + line, x0 : x0 + width], captions[index], letters)
    return sheet


def _write(part: Picture, text: str, letters: float) -> None:
    if part.size:
        paint_label(part, text, Box(0, 0, 0, 0), PLATE, letter_px=letters)


def _default_columns(count: int, tallness: float) -> int:
    """So many that the sheet is half as wide again as it is high."""
    return max(1, round(math.sqrt(1.5 * count * tallness)))
