"""Flow between a picture and a template as colours and arrows, and which of their patches belong together.

The hue is the flow's direction, the saturation its length, and grey says that a pixel is not to be seen in
the other picture. Flow is in patch units, x to the right and y down, as the network gives it.
"""

from __future__ import annotations

import math

import numpy as np
from torch import Tensor

from sightline.vis.canvas import Picture, as_array, check_picture, fit_picture, start_canvas
from sightline.vis.labels import Box, paint_label
from sightline.vis.palette import GREY, PLATE, WHITE, Rgb
from sightline.vis.strokes import paint_dot, paint_polylines

_GAP_PX = 8
_HEAD_SHARE = 0.35  # of an arrow's length


def draw_flow(
    flow: np.ndarray | Tensor,
    unseen: np.ndarray | Tensor | None = None,
    *,
    largest: float | None = None,
) -> Picture:
    """Colour a map of flow: hue ``(atan2(y, x) + pi) / 2 pi``, saturation by the length, grey for unseen.

    Args:
        flow: ``(h, w, 2)``, x then y.
        unseen: ``(h, w)`` bool, pixels without flow; NaN counts as unseen too.
        largest: the length of the fullest colour, by default the 99th percentile of what is seen.

    Returns:
        ``(h, w, 3)`` a picture of the same size.

    Raises:
        ValueError: another shape, or a length that is not positive.

    Example:
        >>> draw_flow(np.array([[[0.0, 0.0], [-1.0, 0.0], [np.nan, 0.0]]]), largest=1.0).tolist()
        [[[255, 255, 255], [255, 0, 0], [128, 128, 128]]]
    """
    values, seen = _checked_flow(flow, unseen)
    length = np.hypot(values[..., 0], values[..., 1])
    if largest is None:
        largest = largest_flow(values, ~seen)
    if not largest > 0:
        raise ValueError(f"largest: expected a positive length, got {largest}")
    hue = (np.arctan2(values[..., 1], values[..., 0]) + math.pi) / (2 * math.pi)
    colors = _from_hue(hue, np.clip(length / largest, 0.0, 1.0))
    return np.where(seen[..., None], colors, GREY).astype(np.uint8)


def largest_flow(flow: np.ndarray | Tensor, unseen: np.ndarray | Tensor | None = None) -> float:
    """The 99th percentile of the lengths of the flow that is seen, for colours that can be compared.

    Args:
        flow: ``(h, w, 2)``, x then y.
        unseen: ``(h, w)`` bool; NaN counts as unseen too.

    Returns:
        A positive length; 1 where nothing is seen or nothing moves.

    Example:
        >>> largest_flow(np.array([[[3.0, 4.0], [np.nan, 0.0]]]))
        5.0
    """
    values, seen = _checked_flow(flow, unseen)
    length = np.hypot(values[..., 0], values[..., 1])[seen]
    largest = float(np.percentile(length, 99)) if len(length) else 0.0
    return largest if largest > 0 else 1.0


def draw_flow_wheel(size_px: int = 160, *, largest: float = 1.0, unit: str = "patches") -> Picture:
    """The legend of the colours: where a colour stands is where its flow points.

    Args:
        size_px: side of the picture.
        largest: the length at the rim.
        unit: of the length, for the caption.

    Returns:
        ``(size_px, size_px, 3)`` a picture.

    Raises:
        ValueError: less than 32 px.

    Example:
        >>> draw_flow_wheel(64).shape
        (64, 64, 3)
    """
    if size_px < 32:
        raise ValueError(f"size_px: expected at least 32, got {size_px}")
    caption_px = round(0.16 * size_px)
    side = size_px - caption_px
    middle = (side - 1) / 2
    steps = np.arange(side) - middle
    across = np.broadcast_to(np.arange(size_px) - (size_px - 1) / 2, (side, size_px))
    offsets = np.stack([across, np.broadcast_to(steps[:, None], across.shape)], axis=-1) / middle
    inside = np.hypot(offsets[..., 0], offsets[..., 1]) <= 1
    wheel = np.full((size_px, size_px, 3), PLATE, dtype=np.uint8)
    wheel[:side] = np.where(inside[..., None], draw_flow(offsets, largest=1.0), PLATE)
    foot = wheel[side:]
    paint_label(foot, f"{largest:.3g} {unit}", Box(0, 0, size_px, 0), PLATE, letter_px=0.5 * caption_px)
    return wheel


def draw_flow_arrows(
    image: np.ndarray,
    flow: np.ndarray | Tensor,
    unseen: np.ndarray | Tensor | None = None,
    *,
    unit_px: float = 16.0,
    step_px: int = 8,
    largest: float | None = None,
) -> Picture:
    """Draw flow as arrows over a picture (a quiver); a grey dot is unseen.

    Args:
        image: ``(h, w, 3)`` uint8 RGB.
        flow: ``(h, w, 2)``, x then y.
        unseen: ``(h, w)`` bool; where the flow is NaN instead there is neither arrow nor dot.
        unit_px: how many pixels an arrow of length 1 takes, the patch size for flow in patches.
        step_px: an arrow every so many pixels.
        largest: the length of the fullest colour, see :func:`draw_flow`.

    Returns:
        A new picture.

    Raises:
        ValueError: a flow of another size than the picture.

    Example:
        >>> plain = np.zeros((32, 32, 3), dtype=np.uint8)
        >>> bool(draw_flow_arrows(plain, np.ones((32, 32, 2))).any())
        True
    """
    canvas = start_canvas(image)
    values, seen = _checked_flow(flow, unseen)
    if seen.shape != canvas.shape[:2]:
        raise ValueError(f"flow: expected the picture's size {canvas.shape[:2]}, got {seen.shape}")
    if step_px < 1:
        raise ValueError(f"step_px: expected at least 1, got {step_px}")
    blank = np.asarray(np.isnan(as_array(flow)).any(axis=2))
    colors = draw_flow(values, ~seen, largest=largest)
    height, width = seen.shape
    for y in range(step_px // 2, height, step_px):
        for x in range(step_px // 2, width, step_px):
            start = np.array([x, y], dtype=np.float64)
            if seen[y, x]:
                _paint_arrow(canvas, start, unit_px * values[y, x], _as_rgb(colors[y, x]))
            elif not blank[y, x]:
                paint_dot(canvas, start, GREY, 1.0, halo=False)
    return canvas


def draw_patch_flow(
    flow: np.ndarray | Tensor,
    visible: np.ndarray | Tensor,
    query: np.ndarray,
    template: np.ndarray,
    query_patch: int,
    template_patch: int,
    *,
    cell_px: int = 20,
) -> Picture:
    """Show one matched patch in detail: its pixels, their flow, and where they land in the template.

    Args:
        flow: ``(p, p, 2)`` patch units, x then y, from the centre of the template patch.
        visible: ``(p, p)`` bool, pixels that have a target.
        query: ``(h, w, 3)`` uint8 RGB, the crop.
        template: ``(h, w, 3)`` uint8 RGB.
        query_patch: which patch of the query, counted row by row.
        template_patch: the template patch that it is matched with.
        cell_px: how large one pixel is drawn.

    Returns:
        Side by side: the query's patch; its flow in colours with an arrow a pixel; three by three patches of
        the template around the matched one, which is framed, with a dot where each pixel lands.

    Raises:
        ValueError: shapes that do not fit, or a patch outside its picture.

    Example:
        >>> grey = np.full((24, 24, 3), 90, dtype=np.uint8)
        >>> draw_patch_flow(np.zeros((8, 8, 2)), np.ones((8, 8), bool), grey, grey, 4, 4, cell_px=6).shape
        (48, 160, 3)
    """
    values, seen = _checked_flow(flow, ~as_array(visible).astype(bool))
    size = len(values)
    own = _cut_patch(check_picture(query, "query"), query_patch, size, "query_patch", around=0)
    other = _cut_patch(check_picture(template, "template"), template_patch, size, "template_patch", around=1)
    side = size * cell_px
    left = _enlarge(own, side)
    colors = _enlarge(draw_flow(values, ~seen, largest=largest_flow(values, ~seen)), side)
    target = _enlarge(other, side)
    third = side / 3
    corners = np.array([[third, third], [2 * third, third], [2 * third, 2 * third], [third, 2 * third]]) - 0.5
    paint_polylines(target, [corners], WHITE, 1, closed=True)
    shades = _position_colors(size, size)
    for row, column in np.argwhere(seen):
        place = (np.array([column, row]) + 0.5) * cell_px - 0.5
        _paint_arrow(colors, place, values[row, column] * cell_px, (0, 0, 0), halo=False)
        shade = _as_rgb(shades[row, column])
        paint_dot(left, place, shade, max(1.0, 0.18 * cell_px))
        landing = (values[row, column] + 1.5) * third - 0.5
        if (landing > -1).all() and (landing < side).all():
            paint_dot(target, landing, shade, max(1.0, 0.12 * cell_px), halo=False)
    return _side_by_side([left, colors, target])


def draw_patch_matches(
    query: np.ndarray,
    template: np.ndarray,
    labels: np.ndarray | Tensor,
    *,
    patch_size: int = 16,
    tint: float = 0.55,
) -> Picture:
    """Draw which patch of the template each patch of the query shows: the same colour is the same place.

    Args:
        query: ``(h, w, 3)`` uint8 RGB, the crop.
        template: ``(th, tw, 3)`` uint8 RGB.
        labels: ``(Nq,)``: the template patch, -1 for background, the number of template patches for unseen.
        patch_size: pixels.
        tint: share of the colour, in [0, 1].

    Returns:
        Query left and template right. Each patch of the template that is matched has the colour of its place;
        patches of the query that match it have its colour, unseen ones are grey, background is left as it is.

    Raises:
        ValueError: another number of labels than patches, or a label that is none.

    Example:
        >>> grey = np.full((16, 16, 3), 90, dtype=np.uint8)
        >>> draw_patch_matches(grey, grey, np.array([0, 1, -1, 4]), patch_size=8).shape
        (320, 648, 3)
    """
    left, right = start_canvas(query, "query"), start_canvas(template, "template")
    chosen = as_array(labels)
    rows, columns = left.shape[0] // patch_size, left.shape[1] // patch_size
    there, across = right.shape[0] // patch_size, right.shape[1] // patch_size
    if chosen.shape != (rows * columns,):
        raise ValueError(f"labels: expected {rows * columns}, one a patch of the query, got {chosen.shape}")
    if chosen.min() < -1 or chosen.max() > there * across:
        raise ValueError(f"labels: expected -1 to {there * across}, got {chosen.min()} to {chosen.max()}")
    places = np.concatenate([_position_colors(there, across).reshape(-1, 3), [GREY, GREY]]).astype(np.uint8)
    used = np.isin(np.arange(there * across), chosen)
    _tint_patches(left, places[chosen], chosen >= 0, columns, patch_size, tint)
    _tint_patches(right, places[:-2], used, across, patch_size, tint)
    height = max(left.shape[0], right.shape[0], 320)
    return _side_by_side([fit_picture(picture, 4 * height, height) for picture in (left, right)])


def _checked_flow(
    flow: np.ndarray | Tensor, unseen: np.ndarray | Tensor | None
) -> tuple[np.ndarray, np.ndarray]:
    """Flow in float64 with 0 where it is unseen, and where it is seen."""
    values = as_array(flow).astype(np.float64)
    if values.ndim != 3 or values.shape[2] != 2 or values.size == 0:
        raise ValueError(f"flow: expected shape (height, width, 2), got {values.shape}")
    seen = np.asarray(np.isfinite(values).all(axis=2))
    if unseen is not None:
        hidden = as_array(unseen)
        if hidden.shape != seen.shape:
            raise ValueError(f"unseen: expected the flow's shape {seen.shape}, got {hidden.shape}")
        seen = seen & ~hidden.astype(bool)
    return np.where(seen[..., None], values, 0.0), seen


def _from_hue(hue: np.ndarray, saturation: np.ndarray) -> np.ndarray:
    """HSV of value 1 as RGB, ``255 (1 - s + s clip(|6 h - k| ...))`` with one ramp a channel."""
    around = 6 * hue[..., None] - np.array([3.0, 2.0, 4.0])
    ramp = np.abs(around) * np.array([1.0, -1.0, -1.0]) + np.array([-1.0, 2.0, 2.0])
    return np.rint(255 * (1 - saturation[..., None] * (1 - np.clip(ramp, 0.0, 1.0))))


def _position_colors(rows: int, columns: int) -> np.ndarray:
    """A colour for each place of a grid, different in both directions: ``(rows, columns, 3)`` uint8."""
    y, x = np.meshgrid(np.linspace(-1, 1, rows), np.linspace(-1, 1, columns), indexing="ij")
    return draw_flow(np.stack([x, y], axis=-1), largest=1.2)


def _tint_patches(
    canvas: Picture, colors: np.ndarray, chosen: np.ndarray, columns: int, patch_size: int, share: float
) -> None:
    grid = np.where(chosen, share, 0.0).reshape(-1, columns).repeat(patch_size, 0).repeat(patch_size, 1)
    paint = colors.reshape(-1, columns, 3).repeat(patch_size, 0).repeat(patch_size, 1)
    part = canvas[: grid.shape[0], : grid.shape[1]]
    part[:] = np.rint((1 - grid[..., None]) * part + grid[..., None] * paint).astype(np.uint8)


def _cut_patch(picture: Picture, index: int, size: int, name: str, *, around: int) -> Picture:
    """A patch with ``around`` patches on each side; black where the picture ends."""
    rows, columns = picture.shape[0] // size, picture.shape[1] // size
    if not 0 <= index < rows * columns:
        raise ValueError(f"{name}: expected 0 to {rows * columns - 1}, got {index}")
    row, column = divmod(index, columns)
    margin, side = around * size, (2 * around + 1) * size
    padded = np.pad(picture, ((margin, margin), (margin, margin), (0, 0)))
    return padded[row * size : row * size + side, column * size : column * size + side]


def _enlarge(picture: np.ndarray, side: int) -> Picture:
    """A square picture with its pixels as squares."""
    import cv2

    square = np.ascontiguousarray(picture)
    return np.asarray(cv2.resize(square, (side, side), interpolation=cv2.INTER_NEAREST))


def _side_by_side(pictures: list[Picture]) -> Picture:
    height = max(picture.shape[0] for picture in pictures)
    width = sum(picture.shape[1] for picture in pictures) + _GAP_PX * (len(pictures) - 1)
    sheet = np.full((height, width, 3), PLATE, dtype=np.uint8)
    x0 = 0
    for picture in pictures:
        sheet[: picture.shape[0], x0 : x0 + picture.shape[1]] = picture
        x0 += picture.shape[1] + _GAP_PX
    return sheet


def _as_rgb(color: np.ndarray) -> Rgb:
    red, green, blue = (int(channel) for channel in color)
    return red, green, blue


def _paint_arrow(
    canvas: Picture, start: np.ndarray, step: np.ndarray, color: Rgb, *, halo: bool = True
) -> None:
    end, length = start + step, float(np.hypot(*step))
    if length < 1.0:
        paint_dot(canvas, start, color, 1.0, halo=False)
        return
    back = -_HEAD_SHARE * min(length, 12.0) * step / length
    aside = np.array([-back[1], back[0]]) * 0.6
    lines = [np.stack([start, end]), np.stack([end + back + aside, end, end + back - aside])]
    paint_polylines(canvas, lines, color, 1, halo=halo)
