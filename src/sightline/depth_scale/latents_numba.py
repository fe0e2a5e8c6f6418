"""Squared distances of latents and their gradient in one sweep over memory each, compiled for the CPU."""

# ruff: noqa: ANN001, ANN202
from __future__ import annotations

from typing import no_type_check

import numba
import numpy as np


@numba.njit(cache=True, nogil=True, error_model="numpy")
@no_type_check
def fill_squared_distances(z, references, out) -> None:
    """Write the sum over the channels of the squared differences.

    Args:
        z: ``(b, c, n)``.
        references: a tuple of arrays of the same shape.
        out: likewise, of arrays ``(b, n)``, written.
    """
    for sample in range(z.shape[0]):
        for k in range(len(references)):
            _add_squares(z[sample], references[k][sample], out[k][sample])


@numba.njit(cache=True, nogil=True, error_model="numpy")
@no_type_check
def _add_squares(z, reference, out):
    out[:] = 0.0
    for channel in range(z.shape[0]):
        for i in range(z.shape[1]):
            difference = z[channel, i] - reference[channel, i]
            out[i] += difference * difference


@numba.njit(cache=True, nogil=True, error_model="numpy")
@no_type_check
def fill_distance_gradient(z, references, gradients, out) -> None:
    """Write the gradient to z; where a difference is not finite it adds nothing.

    Args:
        z: ``(b, c, n)``.
        references: a tuple of arrays of the same shape.
        gradients: likewise, of arrays ``(b, n)``, with respect to the squared distances.
        out: ``(b, c, n)``, written.
    """
    for sample in range(z.shape[0]):
        for k in range(len(references)):
            _add_gradient(z[sample], references[k][sample], gradients[k][sample], out[sample], k == 0)


@numba.njit(cache=True, nogil=True, error_model="numpy")
@no_type_check
def _add_gradient(z, reference, gradient, out, is_first):
    # Constants of the array's own precision: a wider one would halve the speed.
    zero, two, infinity = z.dtype.type(0.0), z.dtype.type(2.0), z.dtype.type(np.inf)
    for channel in range(z.shape[0]):
        if is_first:
            out[channel] = zero
        for i in range(z.shape[1]):
            difference = z[channel, i] - reference[channel, i]
            out[channel, i] += two * gradient[i] * (difference if abs(difference) < infinity else zero)
