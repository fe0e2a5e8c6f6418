"""A mask grown and shrunk by a square, compiled for the CPU."""

# ruff: noqa: ANN001, ANN202
from __future__ import annotations

from typing import no_type_check

import numba
import numpy as np


@numba.njit(cache=True, nogil=True, error_model="numpy")
@no_type_check
def fill_regions(masks, radius, inside, dilated, core) -> None:
    """Write what lies above one half, that grown, and that shrunk; beyond the map nothing is known.

    Args:
        masks: ``(n, h, w)``.
        radius: cells.
        inside: ``(n, h, w)``, written, 0 or 1.
        dilated: likewise.
        core: likewise.
    """
    num_maps, height, width = masks.shape
    reach = min(radius, max(height, width))
    grown, shrunk = np.empty((height, width), masks.dtype), np.empty((height, width), masks.dtype)
    for n in range(num_maps):
        for y in range(height):
            for x in range(width):
                inside[n, y, x] = masks[n, y, x] > 0.5
            grown[y], shrunk[y] = inside[n, y], inside[n, y]
            for shift in range(1, min(reach, width - 1) + 1):
                left, right = inside[n, y, : width - shift], inside[n, y, shift:]
                _keep_extremes(right, right, grown[y, : width - shift], shrunk[y, : width - shift])
                _keep_extremes(left, left, grown[y, shift:], shrunk[y, shift:])
        for y in range(height):
            dilated[n, y], core[n, y] = grown[y], shrunk[y]
            for row in range(max(y - reach, 0), min(y + reach + 1, height)):
                _keep_extremes(grown[row], shrunk[row], dilated[n, y], core[n, y])


@numba.njit(cache=True, nogil=True, error_model="numpy")
@no_type_check
def _keep_extremes(large, small, largest, smallest):
    for i in range(largest.size):
        largest[i] = large[i] if large[i] > largest[i] else largest[i]
        smallest[i] = small[i] if small[i] < smallest[i] else smallest[i]
