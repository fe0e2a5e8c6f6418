"""Normals of face corners: smooth over a bent surface, sharp at an edge."""

from __future__ import annotations

from typing import no_type_check

import numba
import numpy as np
from numpy.typing import NDArray

_CREASE_COSINE = float(np.cos(np.radians(40.0)))
_SLIVER = 1e-10


def corner_normals(vertices: NDArray[np.float64], faces: NDArray[np.int64]) -> NDArray[np.float32]:
    """Normals of each face's corners: the mean of the faces that meet there at less than 40 degrees.

    Faces are weighted by their angle at the corner, so that it does not matter how a surface is cut into
    triangles (Thürmer and Wüthrich, 1998). Vertices at one place, as along the seam of a texture, count as
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
    sides = np.roll(corners, -1, axis=1) - corners
    crosses = np.cross(sides[:, 0], sides[:, 1])
    lengths = np.linalg.norm(crosses, axis=1, keepdims=True)
    longest = np.square(sides).sum(-1).max(1, keepdims=True)
    sound = lengths > _SLIVER * longest  # below, the direction of the normal is that of rounding errors
    units = np.divide(crosses, lengths, out=np.zeros_like(crosses), where=sound)
    back = -np.roll(sides, 1, axis=1)
    angles = np.arctan2(np.linalg.norm(np.cross(sides, back), axis=-1), (sides * back).sum(-1))
    place = _same_position(vertices)[faces]
    fan = np.argsort(place.ravel(), kind="stable")
    starts = np.searchsorted(place.ravel()[fan], np.arange(place.max() + 2))
    out = np.zeros((len(faces), 3, 3), np.float32)
    _average_over_fans(place, fan, starts, angles.ravel(), units, _CREASE_COSINE, out)
    return out


def _same_position(vertices: NDArray[np.float64]) -> NDArray[np.int64]:
    # On a grid of a millionth of the extent, so that rounding does not keep the two sides of a seam apart.
    cell = max(float(np.ptp(vertices, axis=0).max()), 1e-300) * 1e-6
    grid = np.rint((vertices - vertices.min(0)) / cell).astype(np.int64)
    order = np.lexsort(grid.T)
    fresh = np.any(np.diff(grid[order], axis=0) != 0, axis=1)
    label = np.empty(len(vertices), np.int64)
    label[order] = np.concatenate([[0], np.cumsum(fresh)])
    return label


@numba.njit(cache=True, nogil=True)
@no_type_check
def _average_over_fans(place, fan, starts, angles, units, crease_cosine, out):  # noqa: ANN001, ANN202
    for face in range(place.shape[0]):
        for corner in range(3):
            x = y = z = 0.0
            for k in range(starts[place[face, corner]], starts[place[face, corner] + 1]):
                other, weight = fan[k] // 3, angles[fan[k]]
                cosine = (
                    units[face, 0] * units[other, 0]
                    + units[face, 1] * units[other, 1]
                    + units[face, 2] * units[other, 2]
                )
                if cosine >= crease_cosine:
                    x += weight * units[other, 0]
                    y += weight * units[other, 1]
                    z += weight * units[other, 2]
            length = (x * x + y * y + z * z) ** 0.5
            if length > 0.0:
                out[face, corner, 0] = x / length
                out[face, corner, 1] = y / length
                out[face, corner, 2] = z / length
