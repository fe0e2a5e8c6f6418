"""The one palette: colours that people with any colour vision tell apart, by name, by index or by value."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from jaxtyping import UInt8

Rgb = tuple[int, int, int]

#: The qualitative colours of Okabe and Ito ("Color Universal Design", 2008) without black, in drawing order.
PALETTE: dict[str, Rgb] = {
    "orange": (230, 159, 0),
    "sky blue": (86, 180, 233),
    "bluish green": (0, 158, 115),
    "reddish purple": (204, 121, 167),
    "yellow": (240, 228, 66),
    "vermillion": (213, 94, 0),
    "blue": (0, 114, 178),
}
#: The axes x, y and z of a frame; they carry their letters too, since red and green alone do not tell.
AXIS_COLORS: tuple[Rgb, Rgb, Rgb] = ((225, 45, 45), (20, 165, 70), (40, 105, 240))
BLACK: Rgb = (0, 0, 0)
WHITE: Rgb = (255, 255, 255)
GREY: Rgb = (128, 128, 128)
#: What text and side-by-side pictures stand on.
PLATE: Rgb = (32, 34, 38)

_RAMP = np.array([PALETTE["sky blue"], PALETTE["yellow"], PALETTE["vermillion"]], dtype=np.float64)


def palette_color(key: int | str) -> Rgb:
    """One colour of the palette.

    Args:
        key: a name of ``PALETTE``, or an index, which starts again after the last colour.

    Returns:
        ``(red, green, blue)`` in [0, 255].

    Raises:
        ValueError: no colour has this name.

    Example:
        >>> palette_color("vermillion"), palette_color(7) == palette_color(0)
        ((213, 94, 0), True)
    """
    if isinstance(key, str):
        if key not in PALETTE:
            raise ValueError(f"colour: expected one of {', '.join(PALETTE)}, got {key!r}")
        return PALETTE[key]
    colors = tuple(PALETTE.values())
    return colors[key % len(colors)]


def object_colors(names: Iterable[str]) -> dict[str, Rgb]:
    """A colour for each object, which depends on the set of names alone and not on their order.

    Args:
        names: objects' names, repeated as often as one likes.

    Returns:
        The colour of each name.

    Example:
        >>> object_colors(["mug", "box", "mug"]) == object_colors(["box", "mug"])
        True
    """
    return {name: palette_color(index) for index, name in enumerate(sorted(set(names)))}


def ramp_colors(values: np.ndarray, low: float, high: float) -> UInt8[np.ndarray, "*shape 3"]:
    """Numbers as colours from sky blue (``low`` and below) over yellow to vermillion (``high`` and above).

    Args:
        values: numbers of any shape; NaN becomes grey.
        low: the value of the first colour.
        high: the value of the last colour.

    Returns:
        uint8 RGB of the shape of ``values`` and a last axis of 3.

    Raises:
        ValueError: ``high`` is not above ``low``.

    Example:
        >>> ramp_colors(np.array([0.0, 9.0]), 0.0, 3.0).tolist()
        [[86, 180, 233], [213, 94, 0]]
    """
    if not high > low:
        raise ValueError(f"ramp: expected low < high, got {low} and {high}")
    values = np.asarray(values, dtype=np.float64)
    known = np.isfinite(values)
    place = np.clip((np.where(known, values, low) - low) / (high - low), 0.0, 1.0) * (len(_RAMP) - 1)
    stops = np.arange(len(_RAMP))
    colors = np.stack([np.interp(place, stops, channel) for channel in _RAMP.T], axis=-1)
    return np.where(known[..., None], np.rint(colors), GREY).astype(np.uint8)


def is_light(color: Rgb) -> bool:
    """Whether black is easier to read on this colour than white (relative luminance of WCAG 2.1).

    Args:
        color: ``(red, green, blue)`` in [0, 255].

    Returns:
        True where the contrast with black is the greater one.

    Example:
        >>> is_light((240, 228, 66)), is_light((0, 60, 120))
        (True, False)
    """
    channels = np.asarray(color, dtype=np.float64) / 255
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    luminance = float(linear @ np.array([0.2126, 0.7152, 0.0722]))
    return (luminance + 0.05) ** 2 > 1.05 * 0.05
