"""Missing depth that passes for measured: zeros declared valid, and holes blended into their surroundings."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from sightline.objects.checks import Fault

_ENOUGH_PX = 30  # of the border of holes, to judge it
_BLENDED = 0.3  # share of that border that steps down to zero gradually
_FLYING = (0.04, 0.9)  # of the surface behind, between which no surface beside a hole should lie
_FLAT = 0.05  # relative difference of two neighbours on one surface


def check_zeros(depth: Float[Tensor, "h w"]) -> list[Fault]:
    """Look for zeros in a depth picture whose every value is said to be measured.

    Args:
        depth: ``(h, w)`` metres, without a value for "missing".

    Returns:
        What is wrong.

    Example:
        >>> depth = torch.ones(4, 4)
        >>> depth[0] = 0
        >>> print(*check_zeros(depth))
        depth: 25 % of its pixels are exactly 0 m although all are said to be measured: 0 stands for missing
    """
    share = float((depth == 0).double().mean())
    if share == 0:
        return []
    text = (
        f"{100 * share:.2g} % of its pixels are exactly 0 m although all are said to be measured: "
        "0 stands for missing"
    )
    return [Fault("depth", text, "depth_zeros", {"share": share})]


def check_holes(depth: Float[Tensor, "h w"]) -> list[Fault]:
    """Look for holes that were blended into their surroundings, as resizing with interpolation does.

    Beside a hole a camera sees a surface or nothing. A value between zero and the surface that lies one pixel
    further is the mean of both, and no measurement.

    Args:
        depth: ``(h, w)`` metres, 0 or NaN where missing.

    Returns:
        What is wrong.

    Example:
        >>> depth = torch.ones(64, 64)
        >>> depth[20:40, 20:40], depth[19, 20:40], depth[40, 20:40] = 0, 0.5, 0.4
        >>> [(fault.kind, dict(fault.evidence)) for fault in check_holes(depth)]
        [('depth_zeros', {'share': 0.5, 'border_px': 80})]
    """
    values = torch.nan_to_num(depth, 0.0, 0.0, 0.0).clamp(min=0).numpy()
    views = (values, values[:, ::-1], values.T, values.T[:, ::-1])
    counts = np.array([_count_border(view) for view in views]).sum(0)
    crossings, flying = (int(count) for count in counts)
    if crossings < _ENOUGH_PX or flying < _BLENDED * crossings:
        return []
    share = flying / crossings
    text = (
        f"{100 * share:.2g} % of the border of its holes lies in the air between 0 and the surface: "
        "zeros that stand for missing were interpolated"
    )
    return [Fault("depth", text, "depth_zeros", {"share": share, "border_px": crossings})]


def _count_border(rows: NDArray[np.floating]) -> tuple[int, int]:
    """How often a row leaves a hole for a surface, and how often over a value in the air."""
    hole, first, second, third, fourth = (rows[:, i : rows.shape[1] - 4 + i] for i in range(5))
    left = (hole == 0) & (first > 0) & (second > 0) & (third > 0)
    surface = left & (np.abs(fourth - third) < _FLAT * third)
    rising = surface & (first <= second * (1 + _FLAT)) & (second <= third * (1 + _FLAT))
    flying = rising & (first > _FLYING[0] * third) & (first < _FLYING[1] * third)
    return int(surface.sum()), int(flying.sum())
