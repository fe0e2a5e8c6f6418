"""From the triangle that each pixel sees to its colour, object coordinates and normal, compiled for the CPU.

Shading is deferred: only visible pixels are shaded, and their barycentric coordinates are found anew from the
edge functions of ``raster_numba``. Textures are filtered over each pixel's footprint: the derivatives of the
texture coordinates are exact, probes are spread along the footprint's longer axis, and the mip level is that
of the probes' distance, so that a slanted surface is neither aliased nor blurred (after McCormack et al.,
"Feline", 1999).
"""

# ruff: noqa: ANN001, ANN202
from __future__ import annotations

import math
from typing import NamedTuple, no_type_check

import numba
import numpy as np
from numpy.typing import NDArray

MAX_PROBES = 8
_TINY = 1e-30


class View(NamedTuple):
    """One camera and its lights.

    Args:
        cam_from_obj: ``(m, 4, 4)`` float64.
        ray_from_pixel: ``(3, 3)`` float64, the inverse of K.
        lights: ``(1 + l, 7)`` float64, see ``RenderJob.light_table``.
        lit: whether light changes the colours at all.
    """

    cam_from_obj: NDArray[np.float64]
    ray_from_pixel: NDArray[np.float64]
    lights: NDArray[np.float64]
    lit: bool


@numba.njit(cache=True, nogil=True, error_model="numpy", forceinline=True)
@no_type_check
def _cross(p, i, j):
    return (
        p[i, 1] * p[j, 2] - p[i, 2] * p[j, 1],
        p[i, 2] * p[j, 0] - p[i, 0] * p[j, 2],
        p[i, 0] * p[j, 1] - p[i, 1] * p[j, 0],
    )


@numba.njit(cache=True, nogil=True, error_model="numpy", forceinline=True)
@no_type_check
def _edges(p, faces, f):
    i, j, k = faces[f, 0], faces[f, 1], faces[f, 2]
    return _cross(p, j, k), _cross(p, k, i), _cross(p, i, j)


@numba.njit(cache=True, nogil=True, error_model="numpy", forceinline=True)
@no_type_check
def _barycentric(edges, x, y):
    (ax, ay, aw), (bx, by, bw), (cx, cy, cw) = edges
    a, b, c = ax * x + ay * y + aw, bx * x + by * y + bw, cx * x + cy * y + cw
    scale = 1.0 / (a + b + c)
    return a * scale, b * scale, c * scale, scale


@numba.njit(cache=True, nogil=True, error_model="numpy", forceinline=True)
@no_type_check
def _wrapped(u):
    # Outside [0, 1] the texture repeats; exactly 1 stays the far border.
    if u < 0.0:
        return u - math.floor(u)
    if u > 1.0:
        return u - math.ceil(u) + 1.0
    return u


@numba.njit(cache=True, nogil=True, error_model="numpy", forceinline=True)
@no_type_check
def _bilinear(texels, levels, level, u, v):
    start, height, width = levels[level, 0], levels[level, 1], levels[level, 2]
    x = min(max(_wrapped(u) * width - 0.5, 0.0), width - 1.0)
    y = min(max(_wrapped(v) * height - 0.5, 0.0), height - 1.0)
    x0, y0 = int(x), int(y)
    right = 3 if x0 + 1 < width else 0
    below = 3 * width if y0 + 1 < height else 0
    fx, fy = x - x0, y - y0
    w00, w01, w10, w11 = (1.0 - fx) * (1.0 - fy), fx * (1.0 - fy), (1.0 - fx) * fy, fx * fy
    i = start + 3 * (y0 * width + x0)
    j = i + below
    return (
        w00 * texels[i] + w01 * texels[i + right] + w10 * texels[j] + w11 * texels[j + right],
        w00 * texels[i + 1] + w01 * texels[i + 1 + right] + w10 * texels[j + 1] + w11 * texels[j + 1 + right],
        w00 * texels[i + 2] + w01 * texels[i + 2 + right] + w10 * texels[j + 2] + w11 * texels[j + 2 + right],
    )


@numba.njit(cache=True, nogil=True, error_model="numpy", forceinline=True)
@no_type_check
def _texture_coordinates(uv, f, edges, weights):
    # (u, v) and their derivatives by pixel: u = sum(u_i e_i) / sum(e_i), every e linear in x and y.
    (ax, ay, _), (bx, by, _), (cx, cy, _) = edges
    a, b, c, scale = weights
    u0, u1, u2 = uv[f, 0, 0], uv[f, 1, 0], uv[f, 2, 0]
    v0, v1, v2 = uv[f, 0, 1], uv[f, 1, 1], uv[f, 2, 1]
    u, v = a * u0 + b * u1 + c * u2, a * v0 + b * v1 + c * v2
    ux = (ax * (u0 - u) + bx * (u1 - u) + cx * (u2 - u)) * scale
    uy = (ay * (u0 - u) + by * (u1 - u) + cy * (u2 - u)) * scale
    vx = (ax * (v0 - v) + bx * (v1 - v) + cx * (v2 - v)) * scale
    vy = (ay * (v0 - v) + by * (v1 - v) + cy * (v2 - v)) * scale
    return u, v, ux, uy, vx, vy


@numba.njit(cache=True, nogil=True, error_model="numpy", forceinline=True)
@no_type_check
def _half_log2(square):
    # log2(sqrt(square)), linear between powers of two: near enough to choose a level by.
    mantissa, exponent = math.frexp(square)
    return 0.5 * (exponent - 2.0 + 2.0 * mantissa)


@numba.njit(cache=True, nogil=True, error_model="numpy", forceinline=True)
@no_type_check
def _footprint(ux, uy, vx, vy, width, height):
    # How many probes, their level, and the step (du, dv) along the longer axis of the texels that one pixel
    # covers: the axes are the singular values of J, which takes a step of one pixel to texels, so the
    # eigenvalues of J^T J.
    xx = (ux * width) ** 2 + (vx * height) ** 2
    yy = (uy * width) ** 2 + (vy * height) ** 2
    xy = ux * uy * width * width + vx * vy * height * height
    spread = math.sqrt(0.25 * (xx - yy) ** 2 + xy * xy)
    longer, shorter = 0.5 * (xx + yy) + spread, 0.5 * (xx + yy) - spread
    probes, du, dv = 1, 0.0, 0.0
    if longer > 1.0:
        probes = min(int(math.sqrt(longer / max(shorter, 1.0)) + 0.5), MAX_PROBES)
    if probes > 1:
        dx, dy = (0.5 * (xx - yy) + spread, xy) if xx >= yy else (xy, 0.5 * (yy - xx) + spread)
        scale = 1.0 / (math.sqrt(dx * dx + dy * dy) * probes)
        du, dv = (ux * dx + uy * dy) * scale, (vx * dx + vy * dy) * scale
    return probes, _half_log2(max(longer / (probes * probes), 1.0)), du, dv


@numba.njit(cache=True, nogil=True, error_model="numpy", forceinline=True)
@no_type_check
def _sample_texture(texels, levels, uv, first, count, f, edges, weights):
    u, v, ux, uy, vx, vy = _texture_coordinates(uv, f, edges, weights)
    probes, lod, du, dv = _footprint(ux, uy, vx, vy, levels[first, 2], levels[first, 1])
    lod = min(lod, count - 1.0)
    low = int(lod)
    share = lod - low
    last = low + 1 if share > 0.0 else low
    red = green = blue = 0.0
    # No early return and no branch around the fetches: Numba then needs no reference counting in this loop.
    for probe in range(probes):
        step = probe - 0.5 * (probes - 1)
        for level in range(low, last + 1):
            r, g, b = _bilinear(texels, levels, first + level, u + step * du, v + step * dv)
            weight = share if level > low else 1.0 - share
            red, green, blue = red + weight * r, green + weight * g, blue + weight * b
    return red / probes, green / probes, blue / probes


@numba.njit(cache=True, nogil=True, error_model="numpy", forceinline=True)
@no_type_check
def _vertex_color(colors, faces, f, weights):
    a, b, c, _ = weights
    i, j, k = faces[f, 0], faces[f, 1], faces[f, 2]
    return (
        a * colors[i, 0] + b * colors[j, 0] + c * colors[k, 0],
        a * colors[i, 1] + b * colors[j, 1] + c * colors[k, 1],
        a * colors[i, 2] + b * colors[j, 2] + c * colors[k, 2],
    )


@numba.njit(cache=True, nogil=True, error_model="numpy", forceinline=True)
@no_type_check
def _determinant(p, faces, f, edges):
    i, (ax, ay, aw) = faces[f, 0], edges[0]
    return p[i, 0] * ax + p[i, 1] * ay + p[i, 2] * aw


@numba.njit(cache=True, nogil=True, error_model="numpy", forceinline=True)
@no_type_check
def _camera_normal(n, cam_from_obj, f, m, weights, det):
    # Of the two sides, the one that is seen: a face seen from outside has a negative determinant.
    a, b, c, _ = weights
    x = a * n[f, 0, 0] + b * n[f, 1, 0] + c * n[f, 2, 0]
    y = a * n[f, 0, 1] + b * n[f, 1, 1] + c * n[f, 2, 1]
    z = a * n[f, 0, 2] + b * n[f, 1, 2] + c * n[f, 2, 2]
    scale = 1.0 / max(math.sqrt(x * x + y * y + z * z), _TINY)
    if det > 0.0:
        scale = -scale
    x, y, z = x * scale, y * scale, z * scale
    return (
        cam_from_obj[m, 0, 0] * x + cam_from_obj[m, 0, 1] * y + cam_from_obj[m, 0, 2] * z,
        cam_from_obj[m, 1, 0] * x + cam_from_obj[m, 1, 1] * y + cam_from_obj[m, 1, 2] * z,
        cam_from_obj[m, 2, 0] * x + cam_from_obj[m, 2, 1] * y + cam_from_obj[m, 2, 2] * z,
    )


@numba.njit(cache=True, nogil=True, error_model="numpy", forceinline=True)
@no_type_check
def _apply_lights(lights, albedo, normal, px, py, pz):
    nx, ny, nz = normal
    red, green, blue = lights[0, 0], lights[0, 1], lights[0, 2]
    specular, shininess = lights[0, 3], lights[0, 4]
    shine_red = shine_green = shine_blue = 0.0
    to_eye = -1.0 / math.sqrt(px * px + py * py + pz * pz)
    for k in range(1, lights.shape[0]):
        w = lights[k, 3]
        lx, ly, lz = lights[k, 0] - w * px, lights[k, 1] - w * py, lights[k, 2] - w * pz
        scale = 1.0 / max(math.sqrt(lx * lx + ly * ly + lz * lz), _TINY)
        lx, ly, lz = lx * scale, ly * scale, lz * scale
        cosine = nx * lx + ny * ly + nz * lz
        if cosine <= 0.0:
            continue
        red += cosine * lights[k, 4]
        green += cosine * lights[k, 5]
        blue += cosine * lights[k, 6]
        if specular > 0.0:
            hx, hy, hz = lx + px * to_eye, ly + py * to_eye, lz + pz * to_eye
            half = max(math.sqrt(hx * hx + hy * hy + hz * hz), _TINY)
            shine = 255.0 * specular * max((nx * hx + ny * hy + nz * hz) / half, 0.0) ** shininess
            shine_red += shine * lights[k, 4]
            shine_green += shine * lights[k, 5]
            shine_blue += shine * lights[k, 6]
    r, g, b = albedo
    return r * red + shine_red, g * green + shine_green, b * blue + shine_blue


@numba.njit(cache=True, nogil=True, error_model="numpy")
@no_type_check
def shade(soup, view, p, triangle, samples, first_row, background, color) -> None:
    """Colour a band of the picture: the mean over ``samples x samples`` points of each pixel.

    Args:
        soup: the triangles.
        view: the camera of the finer grid.
        p: ``(v, 5)`` float64 from ``project_vertices``, on the finer grid.
        triangle: ``(samples rows, samples w)`` int32 from ``rasterise``.
        samples: points along a pixel's side.
        first_row: the picture's row at which the band begins.
        background: ``(h, w, 3)`` or ``(1, 1, 3)`` uint8.
        color: ``(rows, w, 3)`` uint8, written.
    """
    rows, width = color.shape[0], color.shape[1]
    faces, face_mesh, colors, uv = soup.faces, soup.face_mesh, soup.colors, soup.uv
    normals, mesh_levels, levels, texels = soup.normals, soup.mesh_levels, soup.levels, soup.texels
    cam_from_obj, ray, lights, lit = view.cam_from_obj, view.ray_from_pixel, view.lights, view.lit
    share = 1.0 / (samples * samples)
    for y in range(rows):
        back_y = y + first_row if background.shape[0] > 1 else 0
        for x in range(width):
            back_x = x if background.shape[1] > 1 else 0
            red = green = blue = 0.0
            for fine_row in range(y * samples, (y + 1) * samples):
                for fine_x in range(x * samples, (x + 1) * samples):
                    f = triangle[fine_row, fine_x]
                    if f < 0:
                        red += background[back_y, back_x, 0]
                        green += background[back_y, back_x, 1]
                        blue += background[back_y, back_x, 2]
                        continue
                    fine_y = fine_row + first_row * samples
                    m = face_mesh[f]
                    edges = _edges(p, faces, f)
                    weights = _barycentric(edges, fine_x, fine_y)
                    if mesh_levels[m, 1] > 0:
                        first, count = mesh_levels[m, 0], mesh_levels[m, 1]
                        r, g, b = _sample_texture(texels, levels, uv, first, count, f, edges, weights)
                    else:
                        r, g, b = _vertex_color(colors, faces, f, weights)
                    if lit:
                        det = _determinant(p, faces, f, edges)
                        z = det * weights[3]
                        px = z * (ray[0, 0] * fine_x + ray[0, 1] * fine_y + ray[0, 2])
                        py = z * (ray[1, 0] * fine_x + ray[1, 1] * fine_y + ray[1, 2])
                        normal = _camera_normal(normals, cam_from_obj, f, m, weights, det)
                        r, g, b = _apply_lights(lights, (r, g, b), normal, px, py, z)
                    red, green, blue = red + min(r, 255.0), green + min(g, 255.0), blue + min(b, 255.0)
            color[y, x, 0] = np.uint8(red * share + 0.5)
            color[y, x, 1] = np.uint8(green * share + 0.5)
            color[y, x, 2] = np.uint8(blue * share + 0.5)


@numba.njit(cache=True, nogil=True, error_model="numpy")
@no_type_check
def fill_xyz(soup, p, triangle, first_row, xyz) -> None:
    """Object coordinates of a band.

    Args:
        soup: the triangles.
        p: ``(v, 5)`` float64 from ``project_vertices``.
        triangle: ``(rows, w)`` int32 from ``rasterise``.
        first_row: the picture's row at which the band begins.
        xyz: ``(rows, w, 3)`` float32, written.
    """
    vertices = soup.vertices
    for y in range(triangle.shape[0]):
        for x in range(triangle.shape[1]):
            f = triangle[y, x]
            if f < 0:
                xyz[y, x, 0] = xyz[y, x, 1] = xyz[y, x, 2] = 0.0
                continue
            i, j, k = soup.faces[f, 0], soup.faces[f, 1], soup.faces[f, 2]
            a, b, c, _ = _barycentric(_edges(p, soup.faces, f), x, y + first_row)
            for axis in range(3):
                xyz[y, x, axis] = a * vertices[i, axis] + b * vertices[j, axis] + c * vertices[k, axis]


@numba.njit(cache=True, nogil=True, error_model="numpy")
@no_type_check
def fill_normals(soup, cam_from_obj, p, triangle, first_row, normals) -> None:
    """Unit normals of a band in the camera frame, on the visible side.

    Args:
        soup: the triangles.
        cam_from_obj: ``(m, 4, 4)`` float64.
        p: ``(v, 5)`` float64 from ``project_vertices``.
        triangle: ``(rows, w)`` int32 from ``rasterise``.
        first_row: the picture's row at which the band begins.
        normals: ``(rows, w, 3)`` float32, written.
    """
    for y in range(triangle.shape[0]):
        for x in range(triangle.shape[1]):
            f = triangle[y, x]
            if f < 0:
                normals[y, x, 0] = normals[y, x, 1] = normals[y, x, 2] = 0.0
                continue
            edges = _edges(p, soup.faces, f)
            weights = _barycentric(edges, x, y + first_row)
            det = _determinant(p, soup.faces, f, edges)
            normal = _camera_normal(soup.normals, cam_from_obj, f, soup.face_mesh[f], weights, det)
            normals[y, x, 0], normals[y, x, 1], normals[y, x, 2] = normal
