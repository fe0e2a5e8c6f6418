"""Printed labels drawn from a seed: brands, logos, text, tables, barcodes on patterned grounds.

Every painter fills the picture (often a view of a larger one) that it is given, in place, and takes its
colours from a `Palette`, so that a look-alike is the same palette with another generator.
"""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import cv2
import numpy as np
from numpy.typing import ArrayLike

from sightline.synthetic.lettering import Color, draw_text, draw_text_in_box

_ONSETS = (
    "B",
    "BR",
    "D",
    "DR",
    "F",
    "FL",
    "H",
    "K",
    "KL",
    "L",
    "M",
    "N",
    "R",
    "S",
    "ST",
    "T",
    "TR",
    "V",
    "W",
    "Y",
)
_VOWELS = ("A", "E", "I", "O", "IA", "EO", "AI", "OI")
_CODAS = ("", "", "", "N", "R", "L", "M", "NA", "LO")
_GOODS = (
    "OATS",
    "CORN",
    "TEA",
    "RICE",
    "SOAP",
    "GLUE",
    "MILK",
    "BEANS",
    "COCOA",
    "SALT",
    "PASTA",
    "HONEY",
    "NUTS",
)
_CLAIMS = (
    "NEW!",
    "500G",
    "1L",
    "ORIGINAL",
    "FRESH",
    "NO. 7",
    "EXTRA",
    "100/",
    "BIO",
    "DUO",
    "CLASSIC",
    "-30",
)
_SHIFT = 4


@dataclass(frozen=True)
class Palette:
    """Five RGB colours of one product: the ground, two accents, a light and a dark one.

    Example:
        >>> import numpy as np
        >>> make_palette(np.random.default_rng(0)) == make_palette(np.random.default_rng(0))
        True
    """

    ground: Color
    accent: Color
    second: Color
    light: Color
    dark: Color

    def shades(self) -> tuple[Color, ...]:
        """All five colours."""
        return self.ground, self.accent, self.second, self.light, self.dark


def _rgb(hue: float, saturation: float, value: float) -> Color:
    red, green, blue = colorsys.hsv_to_rgb(hue % 1.0, saturation, value)
    return round(255 * red), round(255 * green), round(255 * blue)


def make_palette(rng: np.random.Generator) -> Palette:
    """Colours that are told apart easily: contrasting hues, a light and a dark tone."""
    hue = rng.uniform()
    vivid = rng.uniform() < 0.75
    ground = _rgb(hue, rng.uniform(0.45, 0.85) if vivid else rng.uniform(0.0, 0.2), rng.uniform(0.35, 0.9))
    accent = _rgb(hue + rng.uniform(0.3, 0.7), rng.uniform(0.55, 0.9), rng.uniform(0.45, 0.9))
    second = _rgb(
        hue + rng.choice([-1, 1]) * rng.uniform(0.06, 0.2), rng.uniform(0.4, 0.8), rng.uniform(0.5, 0.95)
    )
    light = _rgb(rng.uniform(), rng.uniform(0.0, 0.12), rng.uniform(0.9, 1.0))
    dark = _rgb(hue + rng.uniform(-0.1, 0.1), rng.uniform(0.2, 0.8), rng.uniform(0.08, 0.3))
    return Palette(ground, accent, second, light, dark)


def _pick(rng: np.random.Generator, options: Sequence[str]) -> str:
    return options[int(rng.integers(len(options)))]


def make_word(rng: np.random.Generator, syllables: int = 2) -> str:
    """A brand name that nobody has registered, in capitals."""
    parts = [_pick(rng, _ONSETS) + _pick(rng, _VOWELS) for _ in range(syllables)]
    return "".join(parts) + _pick(rng, _CODAS)


def _ink_on(color: Color, palette: Palette) -> Color:
    return palette.dark if sum(color) > 380 else palette.light


def _fill(image: np.ndarray, points: ArrayLike, color: Color) -> None:
    fixed = np.round(np.asarray(points) * (1 << _SHIFT)).astype(np.int32)
    cv2.fillPoly(image, [fixed.reshape(-1, 1, 2)], color, cv2.LINE_AA, _SHIFT)


def paint_ground(image: np.ndarray, rng: np.random.Generator, palette: Palette) -> None:
    """A ground: gradient, stripes, rays, dots, checks or two fields, over the whole picture."""
    height, width = image.shape[:2]
    size = max(height, width)
    image[:] = palette.ground
    pattern = _pick(rng, ("gradient", "stripes", "rays", "dots", "fields", "triangles"))
    if pattern == "gradient":
        ramp = np.linspace(0.0, 1.0, height)[:, None, None]
        image[:] = np.rint((1 - ramp) * palette.ground + ramp * np.array(palette.second)).astype(np.uint8)
    elif pattern == "stripes":
        step, lean = size / rng.integers(6, 14), rng.uniform(-0.8, 0.8) * height
        for x in np.arange(-size, 2 * size, 2 * step):
            _fill(
                image, [(x, 0), (x + step, 0), (x + step + lean, height), (x + lean, height)], palette.second
            )
    elif pattern == "rays":
        centre, count = rng.uniform(0.3, 0.7, 2) * (width, height), int(rng.integers(9, 20))
        angles = np.linspace(0, 2 * np.pi, 2 * count + 1)
        rim = centre + 2 * size * np.stack([np.cos(angles), np.sin(angles)], 1)
        for index in range(0, 2 * count, 2):
            _fill(image, [centre, rim[index], rim[index + 1]], palette.second)
    elif pattern == "dots":
        for x, y, r in rng.uniform(size=(int(rng.integers(25, 70)), 3)):
            _fill_circle(image, (x * width, y * height), (0.01 + 0.04 * r) * size, palette.second)
    elif pattern == "fields":
        cut, wave = rng.uniform(0.3, 0.7) * height, rng.uniform(0.0, 0.15) * height
        x = np.linspace(0, width, 40)
        y = cut + wave * np.sin(x / width * rng.uniform(2, 9) + rng.uniform(0, 6))
        _fill(image, [*zip(x, y, strict=True), (width, height), (0, height)], palette.second)
    else:
        for _ in range(int(rng.integers(12, 30))):
            corners = rng.uniform(0, 1, 2) * (width, height) + rng.uniform(-0.16, 0.16, (3, 2)) * size
            _fill(image, corners, palette.shades()[int(rng.integers(0, 4))])


def _fill_circle(image: np.ndarray, centre: tuple[float, float], radius: float, color: Color) -> None:
    x, y = (round(value * (1 << _SHIFT)) for value in centre)
    cv2.circle(image, (x, y), max(1, round(radius * (1 << _SHIFT))), color, -1, cv2.LINE_AA, _SHIFT)


def paint_logo(image: np.ndarray, rng: np.random.Generator, palette: Palette) -> None:
    """One emblem in the middle: a star, a ring, leaves or an angular sign."""
    height, width = image.shape[:2]
    centre, radius = np.array([width / 2, height / 2]), 0.46 * min(width, height)
    kind = _pick(rng, ("star", "rings", "leaves", "shard"))
    first, second = palette.accent, palette.light
    if kind == "star":
        points = int(rng.integers(5, 12))
        angles = np.arange(2 * points) * np.pi / points + rng.uniform(0, 1)
        reach = np.where(np.arange(2 * points) % 2, rng.uniform(0.45, 0.75), 1.0) * radius
        _fill(image, centre + reach[:, None] * np.stack([np.cos(angles), np.sin(angles)], 1), first)
        _fill_circle(image, tuple(centre), 0.35 * radius, second)
    elif kind == "rings":
        for share, color in zip((1.0, 0.75, 0.45), (palette.dark, second, first), strict=True):
            _fill_circle(image, tuple(centre + rng.uniform(-0.1, 0.1, 2) * radius), share * radius, color)
    elif kind == "leaves":
        for angle in np.linspace(0, 2 * np.pi, int(rng.integers(3, 8)), endpoint=False) + rng.uniform(0, 1):
            axis = np.array([np.cos(angle), np.sin(angle)])
            side = 0.28 * radius * np.array([-axis[1], axis[0]])
            tip, middle = centre + radius * axis, centre + 0.5 * radius * axis
            _fill(image, [centre, middle + side, tip, middle - side], first)
        _fill_circle(image, tuple(centre), 0.22 * radius, second)
    else:
        angles = np.sort(rng.uniform(0, 2 * np.pi, 7))
        reach = radius * rng.uniform(0.4, 1.0, 7)
        _fill(image, centre + reach[:, None] * np.stack([np.cos(angles), np.sin(angles)], 1), palette.dark)
        _fill(image, centre + 0.6 * radius * rng.uniform(-1, 1, (3, 2)), first)


def paint_brand(image: np.ndarray, rng: np.random.Generator, palette: Palette, word: str) -> None:
    """The brand's name on a banner or a badge, or in outlined letters."""
    height, width = image.shape[:2]
    slant, weight = float(rng.choice([0.0, 0.0, 0.18])), rng.uniform(0.16, 0.24)
    style = _pick(rng, ("banner", "ellipse", "outline"))
    plate = palette.light if rng.uniform() < 0.5 else palette.accent
    if style == "banner":
        lean = rng.uniform(0.0, 0.08) * width
        _fill(image, [(lean, 0), (width, 0), (width - lean, height), (0, height)], plate)
    elif style == "ellipse":
        angles = np.linspace(0, 2 * np.pi, 64, endpoint=False)
        middle = np.array([width / 2, height / 2])
        rim = np.stack([np.cos(angles) * width / 2, np.sin(angles) * height / 2], 1)
        _fill(image, rim + middle, palette.dark)
        _fill(image, 0.94 * rim + middle, plate)
    box = (0.08 * width, 0.2 * height, 0.92 * width, 0.8 * height)
    if style == "outline":
        draw_text_in_box(image, word, box, palette.dark, weight=weight + 0.12, slant=slant)
        draw_text_in_box(image, word, box, palette.light, weight=weight, slant=slant)
    else:
        draw_text_in_box(image, word, box, _ink_on(plate, palette), weight=weight, slant=slant)


def paint_text(image: np.ndarray, rng: np.random.Generator, ink: Color, lines: int) -> None:
    """A paragraph of words in small letters."""
    height, width = image.shape[:2]
    pitch = height / lines
    size = min(0.62 * pitch, width / 9.0)
    for line in range(lines):
        x = 0.0
        while True:
            word = make_word(rng, int(rng.integers(1, 3)))
            advance = (5.6 * len(word) + 3.0) * size / 6.0
            if x + advance > width:
                break
            draw_text(image, word, (x, line * pitch + 0.2 * pitch), size, ink, weight=0.12)
            x += advance


def paint_barcode(image: np.ndarray, rng: np.random.Generator) -> None:
    """A barcode, black bars on a white field with its number below."""
    height, width = image.shape[:2]
    image[:] = 250
    module = max(1.0, width / 60.0)
    x = 4 * module
    while x < width - 5 * module:
        bar = module * rng.integers(1, 4)
        image[round(0.08 * height) : round(0.78 * height), round(x) : round(x + bar)] = 15
        x += bar + module * rng.integers(1, 4)
    digits = "".join(str(d) for d in rng.integers(0, 10, 10))
    draw_text_in_box(image, digits, (0.08 * width, 0.8 * height, 0.92 * width, 0.97 * height), (15, 15, 15))


def paint_table(image: np.ndarray, rng: np.random.Generator) -> None:
    """A table of ingredients: a frame, a heading, rows of words and numbers."""
    height, width = image.shape[:2]
    rows = int(rng.integers(5, 9))
    image[:] = 245
    cv2.rectangle(image, (0, 0), (width - 1, height - 1), (20, 20, 20), max(1, width // 60))
    pitch = height / (rows + 1.5)
    draw_text_in_box(
        image, _pick(rng, _GOODS), (0.08 * width, 0.15 * pitch, 0.9 * width, 1.3 * pitch), (15,) * 3
    )
    for row in range(rows):
        y = (row + 1.4) * pitch
        cv2.line(image, (0, round(y)), (width, round(y)), (20, 20, 20), 1)
        size, word = 0.5 * pitch, make_word(rng, 2)
        draw_text(
            image,
            word[: max(1, int(5 * width / (6 * size)) // 6)],
            (0.06 * width, y + 0.25 * pitch),
            size,
            (20,) * 3,
        )
        draw_text(image, str(rng.integers(1, 99)), (0.74 * width, y + 0.25 * pitch), size, (20, 20, 20))


def paint_picture(image: np.ndarray, rng: np.random.Generator, palette: Palette) -> None:
    """A heap of what is inside: overlapping beans, flakes or petals, each with a rim and a highlight."""
    height, width = image.shape[:2]
    base = np.array(palette.accent if rng.uniform() < 0.6 else palette.second, float)
    length, slim, corners = (
        rng.uniform(0.1, 0.2) * min(height, width),
        rng.uniform(0.4, 0.9),
        rng.integers(5, 24),
    )
    turn = np.linspace(0, 2 * np.pi, corners, endpoint=False)
    outline = np.stack([np.cos(turn), slim * np.sin(turn)], 1) * length
    reach = np.array([width, height]) / 2 - 1.15 * length
    for angle, radius, lean, shade in rng.uniform(size=(int(rng.integers(25, 50)), 4)):
        spot = 2 * np.pi * angle
        centre = np.array([width, height]) / 2 + np.sqrt(radius) * reach * (np.cos(spot), np.sin(spot))
        c, s = np.cos(np.pi * lean), np.sin(np.pi * lean)
        bean = outline @ np.array([[c, s], [-s, c]])
        tone = tuple(int(v) for v in np.clip(base * (0.7 + 0.6 * shade), 0, 255))
        _fill(image, centre + bean, palette.dark)
        _fill(image, centre + 0.86 * bean, tone)
        _fill_circle(
            image, (centre[0] - 0.2 * length, centre[1] - 0.25 * length), 0.18 * length, palette.light
        )


def paint_front(image: np.ndarray, rng: np.random.Generator, palette: Palette, word: str) -> None:
    """The face of a product: ground, brand, logo or picture, what it is, a claim; side by side if wide."""
    height, width = image.shape[:2]
    paint_ground(image, rng, palette)
    if width > 1.3 * height:
        spots = [
            (0.04, 0.08, 0.62, 0.5),
            (0.64, 0.08, 0.96, 0.92),
            (0.04, 0.56, 0.62, 0.78),
            (0.04, 0.82, 0.3, 0.96),
        ]
    elif rng.uniform() < 0.5:
        spots = [
            (0.06, 0.05, 0.94, 0.31),
            (0.2, 0.36, 0.94, 0.78),
            (0.0, 0.8, 1.0, 0.95),
            (0.03, 0.34, 0.38, 0.45),
        ]
    else:
        spots = [
            (0.06, 0.5, 0.94, 0.76),
            (0.06, 0.04, 0.8, 0.48),
            (0.0, 0.79, 1.0, 0.92),
            (0.6, 0.03, 0.96, 0.14),
        ]
    if spots[0][0] == 0.06 and rng.uniform() < 0.5:
        spots = [(1 - x2, y1, 1 - x1, y2) for x1, y1, x2, y2 in spots]
    brand, emblem, strip, claim = (_part(image, *spot) for spot in spots)
    painter = paint_picture if rng.uniform() < 0.5 else paint_logo
    painter(emblem, rng, palette)
    paint_brand(brand, rng, palette, word)
    for field, words, fill, ink in (
        (strip, _GOODS, palette.dark, palette.light),
        (claim, _CLAIMS, palette.light, palette.dark),
    ):
        field[:] = fill
        box = (0.06 * field.shape[1], 0.14 * field.shape[0], 0.94 * field.shape[1], 0.86 * field.shape[0])
        draw_text_in_box(field, _pick(rng, words), box, ink, weight=0.18)


def paint_back(image: np.ndarray, rng: np.random.Generator, palette: Palette, word: str) -> None:
    """The side with the small print: brand, paragraph, table, barcode, in an order of its own."""
    image[:] = palette.light if rng.uniform() < 0.5 else palette.ground
    ink = _ink_on(tuple(int(c) for c in image[0, 0]), palette)
    paint_brand(_part(image, 0.06, 0.03, 0.94, 0.16), rng, palette, word)
    tall = image.shape[0] > 1.2 * image.shape[1]
    spots = [(0.07, 0.2, 0.93, 0.44), (0.07, 0.48, 0.93, 0.74), (0.07, 0.78, 0.93, 0.96)]
    if not tall:
        spots = [(0.05, 0.22, 0.5, 0.95), (0.54, 0.22, 0.95, 0.58), (0.54, 0.63, 0.95, 0.95)]
    for painter, index in enumerate(rng.permutation(3)):
        region = _part(image, *spots[index])
        if painter == 0:
            paint_text(region, rng, ink, max(3, region.shape[0] // 14))
        elif painter == 1:
            paint_table(region, rng)
        else:
            paint_barcode(region, rng)


def paint_lid(image: np.ndarray, rng: np.random.Generator, palette: Palette, word: str) -> None:
    """A small panel (a lid, a bottom, an end flap): ground, a logo and the name."""
    height, width = image.shape[:2]
    paint_ground(image, rng, palette)
    paint_logo(_part(image, 0.08, 0.1, 0.45, 0.9), rng, palette)
    box = (0.48 * width, 0.2 * height, 0.94 * width, 0.5 * height)
    draw_text_in_box(image, word, box, _ink_on(palette.ground, palette), weight=0.18)
    lines = _part(image, 0.5, 0.56, 0.94, 0.88)
    paint_text(lines, rng, _ink_on(palette.ground, palette), max(2, lines.shape[0] // 14))


def paint_wrap(image: np.ndarray, rng: np.random.Generator, palette: Palette, word: str) -> None:
    """A label around a can or a bottle: two fronts with small print between, closing without a seam."""
    width = image.shape[1]
    cuts = np.round(np.cumsum([0.0, 0.32, 0.2, 0.3, 0.18]) * width).astype(int)
    for index, (start, stop) in enumerate(pairwise(cuts)):
        painter = paint_back if index % 2 else paint_front
        painter(image[:, start:stop], rng, palette, word)
    band = max(2, image.shape[0] // 24)
    image[:band], image[-band:] = palette.accent, palette.dark


def _part(image: np.ndarray, x1: float, y1: float, x2: float, y2: float) -> np.ndarray:
    """The view of a picture between shares of its width and height."""
    height, width = image.shape[:2]
    columns = slice(int(x1 * width), max(int(x2 * width), int(x1 * width) + 1))
    return image[int(y1 * height) : max(int(y2 * height), int(y1 * height) + 1), columns]
