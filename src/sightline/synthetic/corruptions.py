"""Eight faults of pictures in five strengths, as streams on which a model may have to adapt itself.

What a fault draws comes from its seed alone. Lengths are those of a picture 640 pixels wide, and scale with
it. After Hendrycks and Dietterich, "Benchmarking Neural Network Robustness to Common Corruptions", 2019.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import cv2
import numpy as np
from jaxtyping import Float32, UInt8

Picture = UInt8[np.ndarray, "h w 3"]
Depth = Float32[np.ndarray, "h w"]

_WIDTH = 640.0
_HAZE = np.array([205.0, 210.0, 215.0], np.float32)


def blur(image: Picture, sigma_px: float) -> Picture:
    """Gaussian blur.

    Args:
        image: RGB.
        sigma_px: in pixels of a picture 640 wide.
    """
    sigma = sigma_px * image.shape[1] / _WIDTH
    return image if sigma < 0.05 else cv2.GaussianBlur(image, (0, 0), sigma)


def noise(image: Picture, deviation: float, rng: np.random.Generator) -> Picture:
    """White noise of every channel.

    Args:
        image: RGB.
        deviation: standard, in steps of 255.
        rng: draws it.
    """
    grain = rng.standard_normal(image.shape, dtype=np.float32)
    return _rounded(image + np.float32(deviation) * grain)


def fog(image: Picture, density: float, depth: Depth | None = None) -> Picture:
    """Light scattered on the way, ``exp(-density z / z_far)`` of the picture remains (Koschmieder, 1924).

    Args:
        image: RGB.
        density: of the haze, as the optical depth of what is farthest.
        depth: ``(h, w)`` metres; where it is missing, the farthest. Without depth the upper half is far and
            the lowest row nearest.

    Example:
        >>> black = np.zeros((2, 2, 3), np.uint8)
        >>> fog(black, 1.0, np.array([[1.0, 2.0], [1.0, 0.0]], np.float32))[..., 0].tolist()
        [[81, 130], [81, 130]]
    """
    known = None if depth is None else (depth > 0) & np.isfinite(depth)
    if depth is None or known is None or not known.any():
        rows = np.linspace(0, 2, image.shape[0], dtype=np.float32)[:, None]
        share = np.broadcast_to(1 - 0.6 * np.maximum(rows - 1, 0), image.shape[:2])
    else:
        share = np.where(known, depth, depth[known].max()) / depth[known].max()
    clear = np.exp(-density * share).astype(np.float32)[..., None]
    return _rounded(image * clear + _HAZE * (1 - clear))


def contrast(image: Picture, factor: float) -> Picture:
    """Nearer to (below 1) or farther from the picture's mean grey.

    Args:
        image: RGB.
        factor: on the distance from it.
    """
    mean = np.float32(image.mean())
    return _rounded(mean + np.float32(factor) * (image - mean))


def gamma(image: Picture, exponent: float) -> Picture:
    """Each value to a power, 0 and 255 stay.

    Args:
        image: RGB.
        exponent: above 1 darkens.
    """
    table = _rounded(255 * (np.arange(256, dtype=np.float32) / 255) ** exponent)
    return cv2.LUT(image, table)


def jpeg(image: Picture, quality: int) -> Picture:
    """Through JPEG and back.

    Args:
        image: RGB.
        quality: 1 to 100.
    """
    coded, data = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    back = cv2.imdecode(data, cv2.IMREAD_COLOR) if coded else None
    if back is None:
        raise RuntimeError(f"JPEG: OpenCV could not code a picture of shape {image.shape}")
    return np.ascontiguousarray(back[..., ::-1])


def color_cast(image: Picture, gains: tuple[float, float, float]) -> Picture:
    """Each channel times a factor.

    Args:
        image: RGB.
        gains: of red, green and blue.
    """
    return _rounded(image * np.array(gains, np.float32))


def low_light(image: Picture, share: float, rng: np.random.Generator) -> Picture:
    """Few photons: darker, with shot noise and noise of the read-out.

    Args:
        image: RGB.
        share: of the light that is left.
        rng: draws the noise.
    """
    dark = image * np.float32(share)
    grain = rng.standard_normal(image.shape, dtype=np.float32)
    return _rounded(dark + grain * np.sqrt(1.0 + 0.12 * dark).astype(np.float32))


def _cast(image: Picture, strength: float, rng: np.random.Generator) -> Picture:
    """Towards a hue that the seed draws, at about the same brightness."""
    hue = rng.uniform(0, 2 * np.pi)
    waves = np.cos(hue + np.array([0, 2, 4]) * np.pi / 3)
    red, green, blue = (float(gain) for gain in 1 + strength * waves)
    return color_cast(image, (red, green, blue))


_Apply = Callable[[Picture, float, np.random.Generator, "Depth | None"], Picture]
_TABLE: Mapping[str, tuple[tuple[float, ...], _Apply]] = MappingProxyType(
    {
        "blur": ((1.5, 2.5, 3.5, 5.0, 7.0), lambda image, s, *_: blur(image, s)),
        "noise": ((12, 20, 30, 42, 58), lambda image, s, rng, _: noise(image, s, rng)),
        "fog": ((0.5, 0.8, 1.2, 1.7, 2.4), lambda image, s, _, depth: fog(image, s, depth)),
        "contrast": ((0.6, 0.45, 0.33, 0.23, 0.15), lambda image, s, *_: contrast(image, s)),
        "gamma": ((1.5, 1.9, 2.4, 3.0, 3.8), lambda image, s, *_: gamma(image, s)),
        "jpeg": ((25, 15, 10, 7, 4), lambda image, s, *_: jpeg(image, int(s))),
        "color-cast": ((0.2, 0.3, 0.42, 0.55, 0.7), lambda image, s, rng, _: _cast(image, s, rng)),
        "low-light": ((0.4, 0.28, 0.2, 0.13, 0.08), lambda image, s, rng, _: low_light(image, s, rng)),
    }
)
CORRUPTIONS: tuple[str, ...] = tuple(_TABLE)
"""The faults by name."""


def corrupt(image: Picture, name: str, severity: int, seed: int, *, depth: Depth | None = None) -> Picture:
    """Spoil a picture; the same arguments give the same bytes.

    Args:
        image: ``(h, w, 3)`` uint8 RGB.
        name: one of ``CORRUPTIONS``.
        severity: 1 to 5.
        seed: of what is drawn.
        depth: ``(h, w)`` metres, 0 where missing, for fog.

    Returns:
        ``(h, w, 3)`` uint8 RGB, a new array.

    Raises:
        ValueError: an unknown name, or a severity that is none.

    Example:
        >>> grey = np.full((8, 8, 3), 128, np.uint8)
        >>> [int(corrupt(grey, "gamma", severity, 0)[0, 0, 0]) for severity in (1, 5)]
        [91, 19]
    """
    if name not in _TABLE:
        raise ValueError(f"name: expected one of {', '.join(CORRUPTIONS)}; got {name!r}")
    if severity not in range(1, 6):
        raise ValueError(f"severity: expected 1 to 5, got {severity}")
    strengths, apply = _TABLE[name]
    rng = np.random.default_rng([seed, CORRUPTIONS.index(name)])
    return apply(image, strengths[severity - 1], rng, depth).copy()


def _rounded(values: np.ndarray) -> UInt8[np.ndarray, "..."]:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)
