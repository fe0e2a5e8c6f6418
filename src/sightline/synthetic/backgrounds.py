"""What lies behind and below the objects: rooms, wood, cloth, tiles, pages, clutter, drawn from a seed."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import cv2
import numpy as np

from sightline.synthetic.labels import (
    Palette,
    make_palette,
    paint_barcode,
    paint_ground,
    paint_table,
    paint_text,
)
from sightline.synthetic.lettering import Color


def fractal_noise(
    rng: np.random.Generator, size: tuple[int, int], *, octaves: int = 5, base: tuple[int, int] = (3, 4)
) -> np.ndarray:
    """Smooth random values with detail at all scales, that repeat without a seam.

    Args:
        rng: draws the grids.
        size: (width, height), pixels.
        octaves: each has half the amplitude and twice the frequency of the one before.
        base: rows and columns of the coarsest grid.

    Returns:
        ``(h, w)`` float32 in [0, 1].

    Example:
        >>> import numpy as np
        >>> noise = fractal_noise(np.random.default_rng(0), (32, 24))
        >>> noise.shape, float(noise.min()), float(noise.max())
        ((24, 32), 0.0, 1.0)
    """
    total = np.zeros((size[1], size[0]), np.float32)
    for octave in range(octaves):
        rows, columns = (count * 2**octave for count in base)
        grid = np.pad(rng.normal(size=(rows, columns)).astype(np.float32), 2, mode="wrap")
        to_grid = np.array([[columns / size[0], 0.0, 1.5], [0.0, rows / size[1], 1.5]])
        flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
        total += cv2.warpAffine(grid, to_grid, size, flags=flags) * 0.5**octave
    total -= total.min()
    return total / max(float(total.max()), 1e-6)


def _blend(share: np.ndarray, first: Color, second: Color) -> np.ndarray:
    low, high = np.array(first, np.float32), np.array(second, np.float32)
    return np.clip(low + share[..., None] * (high - low), 0, 255).astype(np.uint8)


def _muted(color: Color, rng: np.random.Generator) -> Color:
    """Towards grey: what surrounds things is mostly less vivid than a label."""
    grey, keep = float(np.mean(color)), rng.uniform(0.15, 0.7)
    return tuple(int(grey + keep * (channel - grey)) for channel in color)


def _cloud(rng: np.random.Generator, size: tuple[int, int], palette: Palette) -> np.ndarray:
    return _blend(fractal_noise(rng, size), palette.ground, palette.second)


def _gradient(rng: np.random.Generator, size: tuple[int, int], palette: Palette) -> np.ndarray:
    width, height = size
    angle = rng.uniform(0, 2 * np.pi)
    x, y = np.meshgrid(np.linspace(-0.5, 0.5, width), np.linspace(-0.5, 0.5, height))
    share = 0.5 + 0.7 * (np.cos(angle) * x + np.sin(angle) * y)
    return _blend(np.clip(share, 0, 1).astype(np.float32), palette.light, palette.ground)


def _wood(rng: np.random.Generator, size: tuple[int, int], palette: Palette) -> np.ndarray:
    width, height = size
    warp = fractal_noise(rng, size, octaves=3, base=(2, 2))
    across = np.linspace(0, 1, height, dtype=np.float32)[:, None]
    planks = int(rng.integers(2, 7))
    shade = rng.uniform(-0.25, 0.25, planks).astype(np.float32)[
        np.minimum((across * planks).astype(int), planks - 1)
    ]
    rings = 0.5 + 0.3 * np.sin(2 * np.pi * (across * rng.uniform(8, 25) + warp * rng.uniform(2, 7)))
    grain = cv2.resize(rng.normal(0, 0.1, (height, max(width // 24, 2))).astype(np.float32), size)
    brown = (int(rng.integers(120, 200)), int(rng.integers(85, 140)), int(rng.integers(50, 95)))
    picture = _blend(rings + grain + shade, tuple(int(0.55 * channel) for channel in brown), brown)
    for row in range(1, planks):
        cv2.line(picture, (0, row * height // planks), (width, row * height // planks), (40, 30, 20), 2)
    return picture


def _cloth(rng: np.random.Generator, size: tuple[int, int], palette: Palette) -> np.ndarray:
    width, height = size
    across = 2 * int(rng.integers(5, 26))
    down = max(2, 2 * round(across * height / width / 2))
    x = ((np.arange(width) * across // width) % 2)[None, :].astype(np.float32)
    y = ((np.arange(height) * down // height) % 2)[:, None].astype(np.float32)
    picture = _blend((x + y) / 2, palette.light, palette.ground).astype(np.int16)
    weave = rng.normal(0, 6, (height, width, 1))
    folds = (fractal_noise(rng, size, octaves=2)[..., None] - 0.5) * 60
    return np.clip(picture + weave + folds, 0, 255).astype(np.uint8)


def _tiles(rng: np.random.Generator, size: tuple[int, int], palette: Palette) -> np.ndarray:
    width, height = size
    across, down = int(rng.integers(4, 14)), 2 * int(rng.integers(3, 10))
    picture = np.empty((height, width, 3), np.uint8)
    picture[:] = _muted(palette.light, rng)
    base = np.array(_muted(palette.ground, rng), float)
    for row in range(down):
        top, bottom = row * height // down + 2, (row + 1) * height // down - 1
        for column in range(across):
            tone = np.clip(base + rng.normal(0, 12), 0, 255).astype(np.uint8)
            left = round((column + 0.5 * (row % 2)) * width / across) + 2
            right = round((column + 1 + 0.5 * (row % 2)) * width / across) - 1
            picture[top:bottom, left:right] = tone
            picture[top:bottom, : max(right - width, 0)] = tone  # the last one of a row comes round
    speckle = (fractal_noise(rng, size)[..., None] - 0.5) * 40
    return np.clip(picture + speckle, 0, 255).astype(np.uint8)


def _clutter(rng: np.random.Generator, size: tuple[int, int], palette: Palette) -> np.ndarray:
    picture = _gradient(rng, size, palette)
    for _ in range(int(rng.integers(25, 90))):
        centre, reach = rng.uniform(0, 1, 2) * size, rng.uniform(10, 90)
        corners = np.round(centre + rng.uniform(-reach, reach, (int(rng.integers(3, 7)), 2))).astype(np.int32)
        color = tuple(int(channel) for channel in rng.integers(0, 256, 3))
        cv2.fillPoly(picture, [corners], _muted(color, rng), cv2.LINE_AA)
    return picture


def _page(rng: np.random.Generator, size: tuple[int, int], palette: Palette) -> np.ndarray:
    width, height = size
    picture = np.full((height, width, 3), int(rng.integers(210, 250)), np.uint8)
    columns = int(rng.integers(1, 4))
    for column in range(columns):
        x1, x2 = int((column + 0.08) * width / columns), int((column + 0.94) * width / columns)
        y = int(0.04 * height)
        while y < 0.9 * height:
            tall = int(rng.uniform(0.1, 0.35) * height)
            region, pick = picture[y : min(y + tall, height - 8), x1:x2], rng.uniform()
            if pick < 0.6:
                paint_text(region, rng, (40, 40, 45), max(2, region.shape[0] // int(rng.integers(10, 20))))
            elif pick < 0.75:
                paint_table(region[:, : region.shape[1] // 2], rng)
            elif pick < 0.9:
                paint_ground(region, rng, palette)
            else:
                paint_barcode(region[:, : region.shape[1] // 2], rng)
            y += tall + int(0.03 * height)
    return picture


def _room(rng: np.random.Generator, size: tuple[int, int], palette: Palette) -> np.ndarray:
    """A wall, furniture and a floor, out of focus."""
    width, height = size
    picture = _blend(fractal_noise(rng, size, octaves=2), palette.light, _muted(palette.ground, rng))
    floor = int(rng.uniform(0.5, 0.8) * height)
    picture[floor:] = _muted(palette.dark, rng)
    for _ in range(int(rng.integers(4, 14))):
        x, tall = int(rng.uniform(-0.1, 0.95) * width), int(rng.uniform(0.1, 0.7) * height)
        foot = floor + int(rng.uniform(-0.05, 0.2) * height)
        color = _muted(palette.shades()[int(rng.integers(0, 5))], rng)
        cv2.rectangle(picture, (x, foot - tall), (x + int(rng.uniform(0.05, 0.3) * width), foot), color, -1)
    return cv2.GaussianBlur(picture, (0, 0), rng.uniform(1.0, 6.0))


_KINDS: Mapping[str, Callable[[np.random.Generator, tuple[int, int], Palette], np.ndarray]] = {
    "cloud": _cloud,
    "gradient": _gradient,
    "wood": _wood,
    "cloth": _cloth,
    "tiles": _tiles,
    "clutter": _clutter,
    "page": _page,
    "room": _room,
}

BACKGROUND_KINDS: tuple[str, ...] = tuple(_KINDS)
TABLE_KINDS: tuple[str, ...] = ("wood", "cloth", "tiles", "cloud", "page")


def make_background(rng: np.random.Generator, size: tuple[int, int], kind: str) -> np.ndarray:
    """A picture without objects.

    Args:
        rng: draws it; the same state gives the same bytes.
        size: (width, height), pixels.
        kind: one of ``BACKGROUND_KINDS``.

    Returns:
        ``(h, w, 3)`` uint8 RGB.

    Raises:
        ValueError: an unknown kind.

    Example:
        >>> import numpy as np
        >>> make_background(np.random.default_rng(0), (64, 48), "wood").shape
        (48, 64, 3)
    """
    if kind not in _KINDS:
        raise ValueError(f"kind: expected one of {', '.join(BACKGROUND_KINDS)}; got {kind!r}")
    return _KINDS[kind](rng, size, make_palette(rng))
