"""Which triangle does each pixel see? A homogeneous z-buffer rasteriser, compiled for the CPU.

The ray through pixel ``(x, y)`` meets a triangle with homogeneous pixel corners ``a, b, c = K X_cam`` where its three
edge functions, ``e_a = (b x c).(x, y, 1)`` and so on, have the sign of ``det(a, b, c)``; there ``z = det / (e_a + e_b +
e_c)`` and ``e_i / sum e`` are the barycentric coordinates. Nothing is divided before the pixel is known, so triangles
that reach behind the camera need no clipping: only the rectangle in which pixels are tried does (Olano and Greer,
"Triangle scan conversion using 2D homogeneous coordinates", 1997).
"""

# ruff: noqa: ANN001, ANN202
from __future__ import annotations

import math
from typing import no_type_check

import numba
import numpy as np


@numba.njit(cache=True, nogil=True)
@no_type_check
def project_vertices(vertices, vertex_mesh, pixels_from_obj, out):
    """Homogeneous pixels ``(z u, z v, z)`` of all vertices.

    Args:
        vertices: ``(v, 3)`` float64.
        vertex_mesh: ``(v,)`` int32.
        pixels_from_obj: ``(m, 3, 4)`` float64, ``K [R | t]`` of each mesh.
        out: ``(v, 3)`` float64, written.
    """
    for i in range(vertices.shape[0]):
        x, y, z = vertices[i, 0], vertices[i, 1], vertices[i, 2]
        matrix = pixels_from_obj[vertex_mesh[i]]
        for row in range(3):
            out[i, row] = matrix[row, 0] * x + matrix[row, 1] * y + matrix[row, 2] * z + matrix[row, 3]


@numba.njit(cache=True, nogil=True)
@no_type_check
def _edge(p, i, j):
    # The edge of two neighbours must be the same to the last bit, but for its sign: cross in one order always.
    if i > j:
        x, y, w = _edge(p, j, i)
        return -x, -y, -w
    return (
        p[i, 1] * p[j, 2] - p[i, 2] * p[j, 1],
        p[i, 2] * p[j, 0] - p[i, 0] * p[j, 2],
        p[i, 0] * p[j, 1] - p[i, 1] * p[j, 0],
    )


@numba.njit(cache=True, nogil=True)
@no_type_check
def _pixel_bounds(p, i, j, k, near):
    # The rectangle around the part of the triangle beyond the near plane.
    left = top = math.inf
    right = bottom = -math.inf
    for a, b in ((i, j), (j, k), (k, i)):
        za, zb = p[a, 2], p[b, 2]
        if za >= near:
            u, v = p[a, 0] / za, p[a, 1] / za
            left, right = min(left, u), max(right, u)
            top, bottom = min(top, v), max(bottom, v)
        if (za >= near) != (zb >= near):
            s = (near - za) / (zb - za)
            u = (p[a, 0] + s * (p[b, 0] - p[a, 0])) / near
            v = (p[a, 1] + s * (p[b, 1] - p[a, 1])) / near
            left, right = min(left, u), max(right, u)
            top, bottom = min(top, v), max(bottom, v)
    return left, top, right, bottom


@numba.njit(cache=True, nogil=True)
@no_type_check
def rasterise(p, faces, near, first_row, depth, triangle):
    """Fill a band of the z-buffer; both sides of a triangle are drawn.

    A pixel's centre on the edge of two triangles belongs to one of them (top-left rule); of surfaces at the same depth
    the first triangle wins.

    Args:
        p: ``(v, 3)`` float64 homogeneous pixels.
        faces: ``(f, 3)`` int32.
        near: nearest depth that is drawn, metres.
        first_row: the picture's row at which the band begins.
        depth: ``(rows, w)`` float64, written: metres, infinity where nothing is.
        triangle: ``(rows, w)`` int32, written: index of the face, -1 where nothing is.
    """
    rows, width = depth.shape
    depth[:] = math.inf
    triangle[:] = -1
    for f in range(faces.shape[0]):
        i, j, k = faces[f, 0], faces[f, 1], faces[f, 2]
        left, top, right, bottom = _pixel_bounds(p, i, j, k, near)
        if not (right >= 0.0 and left <= width - 1 and bottom >= first_row and top <= first_row + rows - 1):
            continue
        ax, ay, aw = _edge(p, j, k)
        det = p[i, 0] * ax + p[i, 1] * ay + p[i, 2] * aw
        if det == 0.0:
            continue
        bx, by, bw = _edge(p, k, i)
        cx, cy, cw = _edge(p, i, j)
        if det < 0.0:
            det = -det
            ax, ay, aw = -ax, -ay, -aw
            bx, by, bw = -bx, -by, -bw
            cx, cy, cw = -cx, -cy, -cw
        own_a = ax > 0.0 or (ax == 0.0 and ay > 0.0)
        own_b = bx > 0.0 or (bx == 0.0 and by > 0.0)
        own_c = cx > 0.0 or (cx == 0.0 and cy > 0.0)
        x0 = int(math.ceil(max(left - 1e-6, 0.0)))
        x1 = int(math.floor(min(right + 1e-6, width - 1.0)))
        y0 = int(math.ceil(max(top - 1e-6, float(first_row))))
        y1 = int(math.floor(min(bottom + 1e-6, first_row + rows - 1.0)))
        for y in range(y0, y1 + 1):
            row_a, row_b, row_c = ay * y + aw, by * y + bw, cy * y + cw
            for x in range(x0, x1 + 1):
                a, b, c = ax * x + row_a, bx * x + row_b, cx * x + row_c
                if a < 0.0 or b < 0.0 or c < 0.0:
                    continue
                if (a == 0.0 and not own_a) or (b == 0.0 and not own_b) or (c == 0.0 and not own_c):
                    continue
                z = det / (a + b + c)
                if near <= z < depth[y - first_row, x]:
                    depth[y - first_row, x] = z
                    triangle[y - first_row, x] = f
