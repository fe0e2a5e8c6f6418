"""Depth as a picture: one map, or where a rendered one and a measured one disagree."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from sightline.vis.canvas import Picture, as_array
from sightline.vis.palette import GREY, PALETTE, WHITE, ramp_colors


def draw_depth(
    depth: np.ndarray | Tensor, *, nearest: float | None = None, farthest: float | None = None
) -> Picture:
    """Colour a depth map, near blue over yellow to far red; missing depth is grey.

    Args:
        depth: ``(h, w)`` metres; 0, NaN and infinity are missing.
        nearest: depth of the first colour, by default the 2nd percentile.
        farthest: depth of the last colour, by default the 98th percentile.

    Returns:
        A picture of the same size.

    Raises:
        ValueError: another shape, or a negative depth.

    Example:
        >>> draw_depth(np.array([[1.0, 2.0, 0.0]]), nearest=1.0, farthest=2.0).tolist()
        [[[86, 180, 233], [213, 94, 0], [128, 128, 128]]]
    """
    metres = _check_depth(depth, "depth")
    known = metres[np.isfinite(metres)]
    low, high = np.percentile(known, [2, 98]) if len(known) else (0.0, 1.0)
    low, high = float(low if nearest is None else nearest), float(high if farthest is None else farthest)
    return ramp_colors(metres, low, high if high > low else low + 1e-6)


def draw_depth_difference(
    measured: np.ndarray | Tensor, rendered: np.ndarray | Tensor, *, worst: float
) -> Picture:
    """Colour where a measured depth differs from a rendered one.

    Args:
        measured: ``(h, w)`` metres; 0, NaN and infinity are missing.
        rendered: ``(h, w)`` metres, likewise.
        worst: the difference of the strongest colours, metres.

    Returns:
        White where both agree, blue where the measured is nearer (something is in front), red where it is
        farther, grey where either is missing.

    Raises:
        ValueError: shapes that differ, a negative depth, or ``worst`` not positive.

    Example:
        >>> draw_depth_difference(np.array([[1.0, 2.0]]), np.array([[1.0, 0.0]]), worst=0.01).tolist()
        [[[255, 255, 255], [128, 128, 128]]]
    """
    seen, expected = _check_depth(measured, "measured"), _check_depth(rendered, "rendered")
    if seen.shape != expected.shape:
        raise ValueError(f"depth: expected two maps of one shape, got {seen.shape} and {expected.shape}")
    if not worst > 0:
        raise ValueError(f"worst: expected a positive number of metres, got {worst}")
    share = np.clip((seen - expected) / worst, -1.0, 1.0)[..., None]
    toward = np.where(share < 0, PALETTE["blue"], PALETTE["vermillion"])
    colors = np.abs(share) * toward + (1 - np.abs(share)) * np.array(WHITE)
    return np.where(np.isfinite(share), np.rint(np.nan_to_num(colors)), GREY).astype(np.uint8)


def _check_depth(depth: np.ndarray | Tensor, name: str) -> np.ndarray:
    """Depth as float64 metres with NaN where it is missing."""
    metres = as_array(depth).astype(np.float64)
    if metres.ndim != 2 or metres.size == 0 or (metres < 0).any():
        raise ValueError(
            f"{name}: expected metres of shape (height, width), none negative, got {metres.shape}"
        )
    return np.where(np.isfinite(metres) & (metres > 0), metres, np.nan)
