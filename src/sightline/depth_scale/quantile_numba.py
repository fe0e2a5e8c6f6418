"""Weighted quantiles by selection instead of sorting, compiled for the CPU.

A float32 whose sign bit is flipped, or all of whose bits are if it is negative, is an integer of the same
order. Its 11, 11 and 10 bits are found one after the other: the weights are added up by the next bits of what
is still in question, up to where the share is reached. Only the first of three sweeps is over everything.
"""

# ruff: noqa: ANN001, ANN202
from __future__ import annotations

from typing import no_type_check

import numba
import numpy as np

_BINS = 2048
_SHIFTS = (np.uint32(21), np.uint32(10), np.uint32(0))
_LANES = 4


@numba.njit(cache=True, nogil=True, error_model="numpy")
@no_type_check
def find_quantile_places(bits, weights, quantile, places) -> None:
    """Find the smallest value at which the weights of all up to it reach a share of their total.

    Args:
        bits: ``(b, n)`` uint32, the float32 values as they lie in memory.
        weights: ``(b, n)`` float32; what is not positive is never chosen.
        quantile: the share, in (0, 1).
        places: ``(b, 2)`` int64, written: an index of that value, and of the next larger one where the share
            is met exactly between both, else of the same; -1 in rows without weight.
    """
    num_rows, num_values = bits.shape
    sums = np.empty((_LANES, _BINS), np.float64)
    keys = np.empty(num_values, np.uint32)
    left = np.empty(num_values, np.int64)
    for row in range(num_rows):
        places[row] = -1
        sums[:] = 0.0
        for i in range(num_values):
            keys[i] = _ordered(bits[row, i])
            if weights[row, i] > 0.0:
                # Depths share their first bits: one sum of them all would wait for itself at every step.
                sums[i % _LANES, keys[i] >> _SHIFTS[0]] += weights[row, i]
        for lane in range(1, _LANES):
            sums[0] += sums[lane]
        total = sums[0].sum()
        if not total > 0.0:
            continue
        goal = quantile * total
        first, before = _reach(sums[0], 0.0, goal)
        num_left = 0
        for i in range(num_values):
            # Without a branch, which would be guessed wrong too often.
            left[num_left] = i
            num_left += (keys[i] >> _SHIFTS[0] == first) & (weights[row, i] > 0.0)
        for shift in _SHIFTS[1:]:
            digits = sums[0]
            digits[:] = 0.0
            for i in left[:num_left]:
                digits[(keys[i] >> shift) % _BINS] += weights[row, i]
            digit, before = _reach(digits, before, goal)
            num_kept = 0
            for i in left[:num_left]:
                left[num_kept] = i
                num_kept += (keys[i] >> shift) % _BINS == digit
            num_left = num_kept
        place = left[0]
        places[row] = place
        if before + weights[row][left[:num_left]].astype(np.float64).sum() == goal:
            places[row, 1] = _following(keys, weights[row], place)


@numba.njit(cache=True, nogil=True, error_model="numpy")
@no_type_check
def _ordered(bits):
    return ~bits if bits >> np.uint32(31) else bits | np.uint32(0x80000000)


@numba.njit(cache=True, nogil=True, error_model="numpy")
@no_type_check
def _reach(sums, before, goal):
    # The bin in which the goal is reached, and the weight before it. Rounding may miss the goal by a hair in
    # the last bin that has weight.
    last, before_last = 0, before
    for j in range(sums.size):
        if sums[j] > 0.0:
            last, before_last = j, before
            before += sums[j]
            if before >= goal:
                break
    return last, before_last


@numba.njit(cache=True, nogil=True, error_model="numpy")
@no_type_check
def _following(keys, weights, place):
    following = place
    for i in range(keys.size):
        larger = weights[i] > 0.0 and keys[i] > keys[place]
        if larger and (following == place or keys[i] < keys[following]):
            following = i
    return following
