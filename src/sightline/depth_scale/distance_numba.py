"""Exact signed distances of masks, compiled for the CPU.

Columns first: one sweep down and one up count the steps to the nearest pixel of the other kind in the same
column. Then rows: along a run of equal pixels the square of the distance at x is the least of ``(x - q)^2 +
steps(q)^2`` over the run's own pixels q and the two that end it, whose steps are 0. What lies beyond those is
farther away, so every run is solved by itself, and a picture is swept once for both kinds. The lower envelope
of the parabolas is that of Felzenszwalb and Huttenlocher, "Distance transforms of sampled functions", 2012.
"""

# ruff: noqa: ANN001, ANN202
from __future__ import annotations

from typing import no_type_check

import numba
import numpy as np

_FAR = 1 << 29  # more steps than any picture has, and its own successor still fits 32 bits


@numba.njit(cache=True, nogil=True, error_model="numpy")
@no_type_check
def fill_signed_distance(masks, out) -> None:
    """Write the distance of every pixel to the nearest one of the other kind, less 1/2, negative inside.

    Args:
        masks: ``(n, h, w)`` floats, inside above one half.
        out: ``(n, h, w)`` float32, pixels; 0 in a map that holds one kind only.
    """
    num_maps, height, width = masks.shape
    inside = np.empty((height, width), np.uint8)
    steps = np.empty((height, width), np.int32)
    envelope = np.empty((3, width + 3), np.float64)
    for n in range(num_maps):
        for y in range(height):
            for x in range(width):
                inside[y, x] = masks[n, y, x] > 0.5
        _count_steps(inside, steps)
        for y in range(height):
            left = 0
            while left < width:
                right = left + 1
                while right < width and inside[y, right] == inside[y, left]:
                    right += 1
                sign = np.float32(-1.0) if inside[y, left] else np.float32(1.0)
                _fill_run(steps[y], left, right, sign, envelope, out[n, y])
                left = right


@numba.njit(cache=True, nogil=True, error_model="numpy")
@no_type_check
def _count_steps(mask, steps):
    height, width = mask.shape
    for x in range(width):
        steps[0, x] = _FAR
    for y in range(1, height):
        for x in range(width):
            steps[y, x] = steps[y - 1, x] + 1 if mask[y, x] == mask[y - 1, x] else 1
    for y in range(height - 2, -1, -1):
        for x in range(width):
            below = steps[y + 1, x] + 1 if mask[y, x] == mask[y + 1, x] else 1
            steps[y, x] = min(steps[y, x], below)


@numba.njit(cache=True, nogil=True, error_model="numpy")
@no_type_check
def _fill_run(steps, left, right, sign, envelope, out):
    # The run is [left, right). The k-th parabola of the envelope is rise + (x - place)^2, and the lowest from
    # begin[k] to begin[k + 1].
    place, rise, begin = envelope
    last = -1
    for q in range(max(left - 1, 0), min(right + 1, out.size)):
        high = steps[q] if left <= q < right else 0
        if high >= _FAR:
            continue
        x, square = float(q), float(high) * float(high)
        meet = -np.inf
        while last >= 0:
            gap = x - place[last]
            meet = 0.5 * ((square - rise[last]) / gap + x + place[last])
            if meet > begin[last]:
                break
            last -= 1
        last += 1
        place[last], rise[last], begin[last] = x, square, meet if last > 0 else -np.inf
    if last < 0:
        out[left:right] = 0.0
        return
    begin[last + 1] = np.inf
    k = 0
    for i in range(left, right):
        while begin[k + 1] < i:
            k += 1
        across = i - place[k]
        out[i] = sign * (np.sqrt(np.float32(rise[k] + across * across)) - np.float32(0.5))
