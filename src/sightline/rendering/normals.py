"""Normals of face corners: smooth over a bent surface, sharp at an edge."""

from __future__ import annotations

from typing import no_type_check

import numba
import numpy as np
from numpy.typing import NDArray

_CREASE_COSINE = float(np.cos(np.radians(40.0)))


def corner_normals(vertices: NDArray[np.float64], faces: NDArray[np.int64]) -> NDArray[np.float32]:
    """Normals of each face's corners: the mean of the faces that meet there at less than 40 degrees.

    The mean is weighted by area. Vertices that only differ by a seam of the texture (same position) count as
    one.

    Args:
        vertices: ``(v, 3)`` float64 positions.
        faces: ``(f, 3)`` int64 indices, counter-clockwise seen from outside.

    Returns:
        ``(f, 3, 3)`` float32 unit normals in the vertices' frame; zero for a face without area.

    Example:
        >>> import numpy as np
        >>> square = np.array([[0.0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]])
        >>> corner_normals(square, np.array([[0, 1, 2], [0, 2, 3]]))[1, 2].tolist()
        [0.0, 0.0, 1.0]
    """
    corners = vertices[faces]
    area_normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    lengths = np.linalg.norm(area_normals, axis=1, keepdims=True)
    units = np.divide(area_normals, lengths, out=np.zeros_like(area_normals), where=lengths > 0)
    place = _same_position(vertices)[faces]
    order = np.argsort(place.ravel(), kind="stable")
    starts = np.searchsorted(place.ravel()[order], np.arange(place.max() + 2))
    out = np.zeros((len(faces), 3, 3), np.float32)
    _average_over_fans(place, order // 3, starts, area_normals, units, _CREASE_COSINE, out)
    return out


def _same_position(vertices: NDArray[np.float64]) -> NDArray[np.int64]:
    order = np.lexsort(vertices.T)
    fresh = np.any(np.diff(vertices[order], axis=0) != 0, axis=1)
    label = np.empty(len(vertices), np.int64)
    label[order] = np.concatenate([[0], np.cumsum(fresh)])
    return label


@numba.njit(cache=True, nogil=True)
@no_type_check
def _average_over_fans(place, fan, starts, area_normals, units, crease_cosine, out):  # noqa: ANN001, ANN202
    for face in range(place.shape[0]):
        for corner in range(3):
            x = y = z = 0.0
            for k in range(starts[place[face, corner]], starts[place[face, corner] + 1]):
                other = fan[k]
                cosine = (
                    units[face, 0] * units[other, 0]
                    + units[face, 1] * units[other, 1]
                    + units[face, 2] * units[other, 2]
                )
                if cosine >= crease_cosine or other == face:
                    x += area_normals[other, 0]
                    y += area_normals[other, 1]
                    z += area_normals[other, 2]
            length = (x * x + y * y + z * z) ** 0.5
            if length > 0.0:
                out[face, corner, 0] = x / length
                out[face, corner, 1] = y / length
                out[face, corner, 2] = z / length
