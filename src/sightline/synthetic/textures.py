"""The skin of an object: painters for its panels, patterns in space, and the atlas that holds them all.

A painter fills one panel's picture in place. Patterns in space colour by the object point, so that they run
over panel borders without a seam. The atlas gives each panel a gutter, wrapped where the panel wraps, so that
neither interpolation nor a smaller version of the texture mixes neighbours.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import cv2
import numpy as np

from sightline.synthetic.labels import Palette
from sightline.synthetic.lettering import Color
from sightline.synthetic.shapes import Panel, Surface

Painter = Callable[[np.ndarray, Panel], None]

_GUTTER = 8
_LEAST_TEXELS = 8


def plain(color: Color) -> Painter:
    """One colour."""

    def paint(image: np.ndarray, panel: Panel) -> None:
        image[:] = color

    return paint


def brushed(color: Color, rng: np.random.Generator, *, amount: float = 10.0) -> Painter:
    """Brushed metal: fine streaks along u about one colour."""

    def paint(image: np.ndarray, panel: Panel) -> None:
        streaks = rng.normal(0.0, amount, image.shape[0])[:, None, None]
        grain = rng.normal(0.0, amount / 4, image.shape[:2])[..., None]
        image[:] = np.clip(np.array(color, float) + streaks + grain, 0, 255).astype(np.uint8)

    return paint


def bands(colors: Sequence[Color], rng: np.random.Generator) -> Painter:
    """A few upright stripes of unequal width."""

    def paint(image: np.ndarray, panel: Panel) -> None:
        width = image.shape[1]
        image[:] = colors[0]
        edges = np.sort(rng.uniform(0.05, 0.95, 5)) * width
        edges[1] = max(edges[1], edges[0] + 0.1 * width)
        for index, (start, stop) in enumerate(((edges[0], edges[1]), (edges[2], edges[3]))):
            image[:, int(start) : int(stop)] = colors[1 + index % (len(colors) - 1)]

    return paint


def large_shapes(colors: Sequence[Color], rng: np.random.Generator, *, count: int = 2) -> Painter:
    """A few large discs and polygons on a plain ground, clear of the panel's left and right edge."""

    def paint(image: np.ndarray, panel: Panel) -> None:
        height, width = image.shape[:2]
        image[:] = colors[0]
        for index in range(count):
            radius = rng.uniform(0.22, 0.36) * min(height, width / count)
            x = (index + rng.uniform(0.4, 0.6)) * width / count
            centre = np.array([x, rng.uniform(0.35, 0.65) * height])
            corners = int(rng.choice([3, 4, 24]))
            angle = np.arange(corners) * 2 * np.pi / corners + rng.uniform(0, 2 * np.pi)
            outline = centre + radius * np.stack([np.cos(angle), np.sin(angle)], 1)
            fixed = np.round(outline * 16).astype(np.int32)
            cv2.fillPoly(image, [fixed], colors[1 + index % (len(colors) - 1)], cv2.LINE_AA, 4)

    return paint


def panel_points(image: np.ndarray, panel: Panel) -> np.ndarray:
    """The object point under each texel's centre, ``(h, w, 3)`` metres."""
    height, width = image.shape[:2]
    rows, columns = panel.points.shape[:2]
    u, v = (np.arange(width) + 0.5) / width * (columns - 1), (np.arange(height) + 0.5) / height * (rows - 1)
    map_u, map_v = np.meshgrid(u.astype(np.float32), v.astype(np.float32))
    return cv2.remap(
        panel.points.astype(np.float32), map_u, map_v, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )


def patches(palette: Palette, surface: np.ndarray, rng: np.random.Generator, *, cells: int = 70) -> Painter:
    """A mosaic in space: cells of the palette's colours with dark joints, and spots in them.

    Args:
        palette: the colours.
        surface: ``(n, 3)`` points of the surface among which cells and spots are strewn, metres.
        rng: draws the mosaic once, for all panels.
        cells: how many cells there are.
    """
    from scipy.spatial import KDTree

    size = float(np.ptp(surface, axis=0).max())
    colors = np.array(palette.shades(), float)
    middles = _strewn(surface, cells, rng)
    shades = colors[rng.choice(5, cells, p=(0.34, 0.2, 0.2, 0.16, 0.1))] * rng.uniform(0.75, 1.2, (cells, 1))
    spots = _strewn(surface, 4 * cells, rng)
    spot_colors = colors[rng.integers(0, 5, len(spots))]
    reach = rng.uniform(0.01, 0.028, len(spots)) * size
    cell_tree, spot_tree = KDTree(middles), KDTree(spots)

    def paint(image: np.ndarray, panel: Panel) -> None:
        height, width = image.shape[:2]
        small = np.empty((max(height // 2, 1), max(width // 2, 1), 3), np.uint8)
        points = panel_points(small, panel).reshape(-1, 3)
        distance, nearest = cell_tree.query(points, k=2)
        color = shades[nearest[:, 0]]
        color[distance[:, 1] - distance[:, 0] < 0.01 * size] = palette.dark
        off, spot = spot_tree.query(points)
        hit = off < reach[spot]
        color[hit] = spot_colors[spot[hit]]
        small[:] = np.clip(color, 0, 255).reshape(small.shape).astype(np.uint8)
        image[:] = cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR)

    return paint


def _strewn(surface: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    jitter = rng.normal(0.0, 0.02 * np.ptp(surface, axis=0).max(), (count, 3))
    return surface[rng.integers(0, len(surface), count)] + jitter


def tones(colors: Sequence[Color], size: float, rng: np.random.Generator) -> Painter:
    """Two colours that meet in a soft plane through the object: a low-texture pattern in space."""
    direction = rng.normal(size=3)
    direction /= np.linalg.norm(direction)
    offset = rng.uniform(-0.15, 0.15) * size
    first, second = np.array(colors[0], float), np.array(colors[1], float)

    def paint(image: np.ndarray, panel: Panel) -> None:
        height = (panel_points(image, panel) @ direction - offset) / (0.02 * size)
        share = np.clip(0.5 + height, 0.0, 1.0)[..., None]
        image[:] = np.rint((1 - share) * first + share * second).astype(np.uint8)

    return paint


def paint_atlas(
    surface: Surface, painters: Sequence[Painter], *, texels: int = 400
) -> tuple[np.ndarray, np.ndarray]:
    """Paint all panels of a surface and pack them into one texture.

    Args:
        surface: the surface with its panels.
        painters: one a panel.
        texels: along the largest extent of the surface's bounding box.

    Returns:
        ``(uv, texture)``: ``(f, 3, 2)`` float32 in [0, 1] of the atlas, v down; ``(h, w, 3)`` uint8 RGB.
    """
    density = texels / np.ptp(surface.vertices, axis=0).max()
    pictures = []
    for panel, paint in zip(surface.panels, painters, strict=True):
        width, height = (max(_LEAST_TEXELS, round(density * side)) for side in (panel.width, panel.height))
        picture = np.zeros((height, width, 3), np.uint8)
        paint(picture, panel)
        pictures.append(picture)
    corners, (atlas_width, atlas_height) = _shelves([picture.shape[:2] for picture in pictures])
    texture = np.zeros((atlas_height, atlas_width, 3), np.uint8)
    scale, start = np.empty((len(pictures), 2)), np.empty((len(pictures), 2))
    for index, (picture, panel, (x, y)) in enumerate(zip(pictures, surface.panels, corners, strict=True)):
        height, width = picture.shape[:2]
        texture[y : y + height + 2 * _GUTTER, x : x + width + 2 * _GUTTER] = _with_gutter(
            picture, panel.wraps
        )
        scale[index], start[index] = (width, height), (x + _GUTTER, y + _GUTTER)
    place = surface.panel_of_face[:, None]
    uv = (surface.uv * scale[place] + start[place]) / (atlas_width, atlas_height)
    return uv.astype(np.float32), texture


def _with_gutter(picture: np.ndarray, wraps: bool) -> np.ndarray:
    side = cv2.BORDER_WRAP if wraps else cv2.BORDER_REPLICATE
    wide = cv2.copyMakeBorder(picture, 0, 0, _GUTTER, _GUTTER, side)
    return cv2.copyMakeBorder(wide, _GUTTER, _GUTTER, 0, 0, cv2.BORDER_REPLICATE)


def _shelves(sizes: Sequence[tuple[int, ...]]) -> tuple[list[tuple[int, int]], tuple[int, int]]:
    """Top-left corners of pictures (with gutters) packed on shelves, tallest first, and the atlas' size."""
    padded = [(height + 2 * _GUTTER, width + 2 * _GUTTER) for height, width in sizes]
    area = sum(height * width for height, width in padded)
    room = max(int(np.sqrt(area) * 1.1), *(width for _, width in padded))
    corners, x, y, shelf = [(0, 0)] * len(padded), 0, 0, 0
    for index in sorted(range(len(padded)), key=lambda i: -padded[i][0]):
        height, width = padded[index]
        if x + width > room:
            x, y, shelf = 0, y + shelf, 0
        corners[index], x, shelf = (x, y), x + width, max(shelf, height)
    # multiples of 8 let the texture be halved three times without a remainder
    return corners, (-(-room // 8) * 8, -(-(y + shelf) // 8) * 8)
