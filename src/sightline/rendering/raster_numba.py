"""Which triangle does each pixel see? A homogeneous z-buffer rasteriser, compiled for the CPU.

The ray through pixel ``(x, y)`` meets a triangle with homogeneous pixel corners ``a, b, c = K X_cam`` where
its three edge functions, ``e_a = (b x c).(x, y, 1)`` and so on, have the sign of ``det(a, b, c)``; there ``z
= det / (e_a + e_b + e_c)`` and ``e_i / sum e`` are the barycentric coordinates. Nothing is divided before the
pixel is known, so triangles that reach behind the camera need no clipping: only the rectangle in which pixels
are tried does (Olano and Greer, "Triangle scan conversion using 2D homogeneous coordinates", 1997).
"""

# ruff: noqa: ANN001, ANN202
from __future__ import annotations

import math
from typing import no_type_check

import numba
import numpy as np

_SMALLEST = 5e-324  # the least float64 above zero


@numba.njit(cache=True, nogil=True, error_model="numpy")
@no_type_check
def project_vertices(soup, pixels_from_obj, out) -> None:
    """Homogeneous pixels and pixels ``(z u, z v, z, u, v)`` of all vertices.

    Args:
        soup: the triangles.
        pixels_from_obj: ``(m, 3, 4)`` float64, ``K [R | t]`` of each mesh.
        out: ``(v, 5)`` float64, written; ``u`` and ``v`` mean nothing behind the camera.
    """
    for i in range(soup.vertices.shape[0]):
        m = soup.vertex_mesh[i]
        x, y, z = soup.vertices[i, 0], soup.vertices[i, 1], soup.vertices[i, 2]
        for row in range(3):
            out[i, row] = (
                pixels_from_obj[m, row, 0] * x
                + pixels_from_obj[m, row, 1] * y
                + pixels_from_obj[m, row, 2] * z
                + pixels_from_obj[m, row, 3]
            )
        depth = out[i, 2] if out[i, 2] != 0.0 else 1.0
        out[i, 3], out[i, 4] = out[i, 0] / depth, out[i, 1] / depth


@numba.njit(cache=True, nogil=True, error_model="numpy")
@no_type_check
def _edge(p, i, j):
    # Swapping the ends gives the same numbers to the last bit, but for their sign: neighbours agree.
    return (
        p[i, 1] * p[j, 2] - p[i, 2] * p[j, 1],
        p[i, 2] * p[j, 0] - p[i, 0] * p[j, 2],
        p[i, 0] * p[j, 1] - p[i, 1] * p[j, 0],
    )


@numba.njit(cache=True, nogil=True, error_model="numpy")
@no_type_check
def _bounds_beyond_near(p, i, j, k, near):
    # The rectangle around the part of the triangle beyond the near plane; empty (left > right) if there is
    # none.
    left = top = math.inf
    right = bottom = -math.inf
    for a, b in ((i, j), (j, k), (k, i)):
        if p[a, 2] >= near:
            left, right = min(left, p[a, 3]), max(right, p[a, 3])
            top, bottom = min(top, p[a, 4]), max(bottom, p[a, 4])
        if (p[a, 2] >= near) != (p[b, 2] >= near):
            s = (near - p[a, 2]) / (p[b, 2] - p[a, 2])
            u = (p[a, 0] + s * (p[b, 0] - p[a, 0])) / near
            v = (p[a, 1] + s * (p[b, 1] - p[a, 1])) / near
            left, right = min(left, u), max(right, u)
            top, bottom = min(top, v), max(bottom, v)
    return left, top, right, bottom


@numba.njit(cache=True, nogil=True, error_model="numpy")
@no_type_check
def _pixel_box(p, i, j, k, near, first_row, rows, width):
    # The first and last column and row of the band that the triangle may cover; empty if it covers none.
    if min(p[i, 2], p[j, 2], p[k, 2]) < near:
        left, top, right, bottom = _bounds_beyond_near(p, i, j, k, near)
    else:
        left, right = min(p[i, 3], p[j, 3], p[k, 3]), max(p[i, 3], p[j, 3], p[k, 3])
        top, bottom = min(p[i, 4], p[j, 4], p[k, 4]), max(p[i, 4], p[j, 4], p[k, 4])
    # The slack keeps a centre that lies on the border; the edge functions decide.
    left, right = max(left - 1e-6, 0.0), min(right + 1e-6, width - 1.0)
    top, bottom = max(top - 1e-6, float(first_row)), min(bottom + 1e-6, first_row + rows - 1.0)
    if not (left <= right and top <= bottom):
        return 0, -1, 0, -1
    return math.ceil(left), math.floor(right), math.ceil(top), math.floor(bottom)


@numba.njit(cache=True, nogil=True, error_model="numpy")
@no_type_check
def _is_hidden(depth, box, first_row, nearest):
    x0, x1, y0, y1 = box
    for y in range(y0 - first_row, y1 + 1 - first_row):
        for x in range(x0, x1 + 1):
            if depth[y, x] >= nearest:
                return False
    return True


@numba.njit(cache=True, nogil=True, error_model="numpy")
@no_type_check
def _least_inside(slope_x, slope_y):
    # An edge owns the pixels whose centres lie on it if the triangle is to its right, or below a level one.
    return 0.0 if slope_x > 0.0 or (slope_x == 0.0 and slope_y > 0.0) else _SMALLEST


@numba.njit(cache=True, nogil=True, error_model="numpy")
@no_type_check
def _draw(p, faces, f, box, near, first_row, depth, triangle):
    i, j, k = faces[f, 0], faces[f, 1], faces[f, 2]
    ax, ay, aw = _edge(p, j, k)
    bx, by, bw = _edge(p, k, i)
    cx, cy, cw = _edge(p, i, j)
    det = p[i, 0] * ax + p[i, 1] * ay + p[i, 2] * aw
    if det < 0.0:
        det = -det
        ax, ay, aw = -ax, -ay, -aw
        bx, by, bw = -bx, -by, -bw
        cx, cy, cw = -cx, -cy, -cw
    least_a, least_b, least_c = _least_inside(ax, ay), _least_inside(bx, by), _least_inside(cx, cy)
    x0, x1, y0, y1 = box
    for y in range(y0, y1 + 1):
        row_a, row_b, row_c = ay * y + aw, by * y + bw, cy * y + cw
        row = y - first_row
        for x in range(x0, x1 + 1):
            a, b, c = ax * x + row_a, bx * x + row_b, cx * x + row_c
            if a < least_a or b < least_b or c < least_c:
                continue
            z = det / (a + b + c)
            if z >= near and (z < depth[row, x] or (z == depth[row, x] and f < triangle[row, x])):
                depth[row, x] = z
                triangle[row, x] = f


@numba.njit(cache=True, nogil=True, error_model="numpy")
@no_type_check
def rasterise(p, faces, near, first_row, depth, triangle) -> None:
    """Fill a band of the z-buffer; both sides of a triangle are drawn.

    A pixel's centre on the edge of two triangles belongs to one of them (top-left rule); of surfaces at the
    same depth the first triangle wins. Faces seen from behind come last: of a closed surface they are hidden,
    which the z-buffer tells without drawing them.

    Args:
        p: ``(v, 5)`` float64 from ``project_vertices``.
        faces: ``(f, 3)`` int32, counter-clockwise seen from outside.
        near: nearest depth that is drawn, metres.
        first_row: the picture's row at which the band begins.
        depth: ``(rows, w)`` float64, written: metres, infinity where nothing is.
        triangle: ``(rows, w)`` int32, written: index of the face, -1 where nothing is.
    """
    rows, width = depth.shape
    depth[:] = math.inf
    triangle[:] = -1
    from_behind = np.empty(faces.shape[0], np.int32)
    num_from_behind = 0
    for f in range(faces.shape[0]):
        i, j, k = faces[f, 0], faces[f, 1], faces[f, 2]
        box = _pixel_box(p, i, j, k, near, first_row, rows, width)
        if box[0] > box[1] or box[2] > box[3]:
            continue
        ax, ay, aw = _edge(p, j, k)
        det = p[i, 0] * ax + p[i, 1] * ay + p[i, 2] * aw
        if det < 0.0:
            _draw(p, faces, f, box, near, first_row, depth, triangle)
        elif det > 0.0:
            from_behind[num_from_behind] = f
            num_from_behind += 1
    for f in from_behind[:num_from_behind]:
        i, j, k = faces[f, 0], faces[f, 1], faces[f, 2]
        box = _pixel_box(p, i, j, k, near, first_row, rows, width)
        nearest = max(min(p[i, 2], p[j, 2], p[k, 2]), near) * (1.0 - 1e-9)
        if not _is_hidden(depth, box, first_row, nearest):
            _draw(p, faces, f, box, near, first_row, depth, triangle)
