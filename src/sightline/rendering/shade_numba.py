"""From the triangle that each pixel sees to its colour, object coordinates and normal, compiled for the CPU.

Shading is deferred: only visible pixels are shaded, and their barycentric coordinates are found anew from the edge
functions of ``raster_numba``. Textures are filtered over each pixel's footprint: the derivatives of the texture
coordinates are exact, probes are spread along the footprint's longer axis and each reads the mip level of its shorter.
"""

# ruff: noqa: ANN001, ANN202
from __future__ import annotations

import math
from typing import no_type_check

import numba
import numpy as np

MAX_PROBES = 8


@numba.njit(cache=True, nogil=True)
@no_type_check
def _cross(p, i, j):
    return (
        p[i, 1] * p[j, 2] - p[i, 2] * p[j, 1],
        p[i, 2] * p[j, 0] - p[i, 0] * p[j, 2],
        p[i, 0] * p[j, 1] - p[i, 1] * p[j, 0],
    )


@numba.njit(cache=True, nogil=True)
@no_type_check
def _edges(p, face):
    i, j, k = face[0], face[1], face[2]
    ax, ay, aw = _cross(p, j, k)
    bx, by, bw = _cross(p, k, i)
    cx, cy, cw = _cross(p, i, j)
    return ax, ay, aw, bx, by, bw, cx, cy, cw


@numba.njit(cache=True, nogil=True)
@no_type_check
def _barycentric(edges, x, y):
    ax, ay, aw, bx, by, bw, cx, cy, cw = edges
    a, b, c = ax * x + ay * y + aw, bx * x + by * y + bw, cx * x + cy * y + cw
    total = a + b + c
    return a / total, b / total, c / total, total


@numba.njit(cache=True, nogil=True)
@no_type_check
def _wrapped(u):
    # Outside [0, 1] the texture repeats; exactly 1 stays the far border.
    if u < 0.0:
        return u - math.floor(u)
    if u > 1.0:
        return u - math.ceil(u) + 1.0
    return u


@numba.njit(cache=True, nogil=True)
@no_type_check
def _bilinear(texels, level, u, v):
    start, height, width = level[0], level[1], level[2]
    x = min(max(_wrapped(u) * width - 0.5, 0.0), width - 1.0)
    y = min(max(_wrapped(v) * height - 0.5, 0.0), height - 1.0)
    x0, y0 = int(x), int(y)
    x1, y1 = min(x0 + 1, width - 1), min(y0 + 1, height - 1)
    fx, fy = x - x0, y - y0
    w00, w01, w10, w11 = (1 - fx) * (1 - fy), fx * (1 - fy), (1 - fx) * fy, fx * fy
    i00, i01 = start + 3 * (y0 * width + x0), start + 3 * (y0 * width + x1)
    i10, i11 = start + 3 * (y1 * width + x0), start + 3 * (y1 * width + x1)
    return (
        w00 * texels[i00] + w01 * texels[i01] + w10 * texels[i10] + w11 * texels[i11],
        w00 * texels[i00 + 1] + w01 * texels[i01 + 1] + w10 * texels[i10 + 1] + w11 * texels[i11 + 1],
        w00 * texels[i00 + 2] + w01 * texels[i01 + 2] + w10 * texels[i10 + 2] + w11 * texels[i11 + 2],
    )


@numba.njit(cache=True, nogil=True)
@no_type_check
def _trilinear(texels, levels, lod, u, v):
    low = int(lod)
    share = lod - low
    r, g, b = _bilinear(texels, levels[low], u, v)
    if share > 0.0:
        r1, g1, b1 = _bilinear(texels, levels[low + 1], u, v)
        r, g, b = r + share * (r1 - r), g + share * (g1 - g), b + share * (b1 - b)
    return r, g, b


@numba.njit(cache=True, nogil=True)
@no_type_check
def _sample_texture(texels, levels, edges, weights, uv):
    ax, ay, _, bx, by, _, cx, cy, _ = edges
    a, b, c, total = weights
    u = a * uv[0, 0] + b * uv[1, 0] + c * uv[2, 0]
    v = a * uv[0, 1] + b * uv[1, 1] + c * uv[2, 1]
    height, width = levels[0, 1], levels[0, 2]
    sx, sy = ax + bx + cx, ay + by + cy
    ux = (ax * uv[0, 0] + bx * uv[1, 0] + cx * uv[2, 0] - u * sx) / total
    uy = (ay * uv[0, 0] + by * uv[1, 0] + cy * uv[2, 0] - u * sy) / total
    vx = (ax * uv[0, 1] + bx * uv[1, 1] + cx * uv[2, 1] - v * sx) / total
    vy = (ay * uv[0, 1] + by * uv[1, 1] + cy * uv[2, 1] - v * sy) / total
    # J^T J of the texels that one pixel covers; its singular values are the footprint's axes.
    xx = (ux * width) ** 2 + (vx * height) ** 2
    yy = (uy * width) ** 2 + (vy * height) ** 2
    xy = ux * uy * width * width + vx * vy * height * height
    spread = math.sqrt((0.5 * (xx - yy)) ** 2 + xy * xy)
    major_squared = 0.5 * (xx + yy) + spread
    if major_squared <= 1.0:
        return _bilinear(texels, levels[0], u, v)
    major = math.sqrt(major_squared)
    minor = math.sqrt(max(0.5 * (xx + yy) - spread, 0.0))
    probes = int(min(math.ceil(major / max(minor, 1.0) - 1e-3), MAX_PROBES))
    lod = min(max(math.log2(major / probes), 0.0), levels.shape[0] - 1.0)
    if probes == 1:
        return _trilinear(texels, levels, lod, u, v)
    if xx >= yy:
        dx, dy = major_squared - yy, xy
    else:
        dx, dy = xy, major_squared - xx
    length = math.sqrt(dx * dx + dy * dy)
    du, dv = (ux * dx + uy * dy) / length, (vx * dx + vy * dy) / length
    r = g = bl = 0.0
    for k in range(probes):
        s = (k + 0.5) / probes - 0.5
        r1, g1, b1 = _trilinear(texels, levels, lod, u + s * du, v + s * dv)
        r, g, bl = r + r1, g + g1, bl + b1
    return r / probes, g / probes, bl / probes


@numba.njit(cache=True, nogil=True)
@no_type_check
def _camera_normal(normals, rotation, weights, facing):
    a, b, c, _ = weights
    n0 = a * normals[0, 0] + b * normals[1, 0] + c * normals[2, 0]
    n1 = a * normals[0, 1] + b * normals[1, 1] + c * normals[2, 1]
    n2 = a * normals[0, 2] + b * normals[1, 2] + c * normals[2, 2]
    scale = facing / max(math.sqrt(n0 * n0 + n1 * n1 + n2 * n2), 1e-30)
    return (
        scale * (rotation[0, 0] * n0 + rotation[0, 1] * n1 + rotation[0, 2] * n2),
        scale * (rotation[1, 0] * n0 + rotation[1, 1] * n1 + rotation[1, 2] * n2),
        scale * (rotation[2, 0] * n0 + rotation[2, 1] * n1 + rotation[2, 2] * n2),
    )


@numba.njit(cache=True, nogil=True)
@no_type_check
def _light(lights, normal, px, py, pz):
    # Lights: rows (x, y, z, w, r, g, b) after the ambient row (r, g, b, specular, shininess).
    r, g, b, specular, shininess = lights[0, 0], lights[0, 1], lights[0, 2], lights[0, 3], lights[0, 4]
    sr = sg = sb = 0.0
    to_eye = 1.0 / math.sqrt(px * px + py * py + pz * pz)
    nx, ny, nz = normal
    for k in range(1, lights.shape[0]):
        w = lights[k, 3]
        lx, ly, lz = lights[k, 0] - w * px, lights[k, 1] - w * py, lights[k, 2] - w * pz
        scale = 1.0 / max(math.sqrt(lx * lx + ly * ly + lz * lz), 1e-30)
        lx, ly, lz = lx * scale, ly * scale, lz * scale
        cosine = nx * lx + ny * ly + nz * lz
        if cosine <= 0.0:
            continue
        r, g, b = r + cosine * lights[k, 4], g + cosine * lights[k, 5], b + cosine * lights[k, 6]
        if specular > 0.0:
            hx, hy, hz = lx - px * to_eye, ly - py * to_eye, lz - pz * to_eye
            half = max(math.sqrt(hx * hx + hy * hy + hz * hz), 1e-30)
            shine = 255.0 * specular * max((nx * hx + ny * hy + nz * hz) / half, 0.0) ** shininess
            sr, sg, sb = sr + shine * lights[k, 4], sg + shine * lights[k, 5], sb + shine * lights[k, 6]
    return r, g, b, sr, sg, sb


@numba.njit(cache=True, nogil=True)
@no_type_check
def shade(
    triangle,
    p,
    faces,
    face_mesh,
    colors,
    uv,
    normals,
    mesh_levels,
    levels,
    texels,
    cam_from_obj,
    ray_from_pixel,
    lights,
    lit,
    background,
    samples,
    first_row,
    color,
):
    """Colour a band of the picture: the mean over ``samples x samples`` points of each pixel.

    Args:
        triangle: ``(samples rows, samples w)`` int32 from ``rasterise``.
        p: ``(v, 3)`` homogeneous pixels of the finer grid.
        faces: ``(f, 3)``, and with it ``face_mesh``, ``colors``, ``uv``, ``normals``, ``mesh_levels``, ``levels``
            and ``texels`` as in ``Soup``.
        cam_from_obj: ``(m, 4, 4)`` float64.
        ray_from_pixel: ``(3, 3)`` float64, the inverse of the finer grid's K.
        lights: ``(1 + l, 7)`` float64, see ``_light``.
        lit: whether lights are to be applied.
        background: ``(h, w, 3)`` or ``(1, 1, 3)`` uint8.
        samples: points along a pixel's side.
        first_row: the picture's row at which the band begins.
        color: ``(rows, w, 3)`` uint8, written.
    """
    rows, width = color.shape[0], color.shape[1]
    area = float(samples * samples)
    for y in range(rows):
        back_y = y + first_row if background.shape[0] > 1 else 0
        for x in range(width):
            back_x = x if background.shape[1] > 1 else 0
            red = green = blue = 0.0
            for sub in range(samples * samples):
                fine_x, fine_row = x * samples + sub % samples, y * samples + sub // samples
                f = triangle[fine_row, fine_x]
                if f < 0:
                    red += background[back_y, back_x, 0]
                    green += background[back_y, back_x, 1]
                    blue += background[back_y, back_x, 2]
                    continue
                fine_y = fine_row + first_row * samples
                edges = _edges(p, faces[f])
                weights = _barycentric(edges, fine_x, fine_y)
                mesh = face_mesh[f]
                first, count = mesh_levels[mesh, 0], mesh_levels[mesh, 1]
                if count > 0:
                    r, g, b = _sample_texture(texels, levels[first : first + count], edges, weights, uv[f])
                else:
                    wa, wb, wc, _ = weights
                    i, j, k = faces[f, 0], faces[f, 1], faces[f, 2]
                    r = wa * colors[i, 0] + wb * colors[j, 0] + wc * colors[k, 0]
                    g = wa * colors[i, 1] + wb * colors[j, 1] + wc * colors[k, 1]
                    b = wa * colors[i, 2] + wb * colors[j, 2] + wc * colors[k, 2]
                if lit:
                    i, j, k = faces[f, 0], faces[f, 1], faces[f, 2]
                    ax, ay, aw = edges[0], edges[1], edges[2]
                    det = p[i, 0] * ax + p[i, 1] * ay + p[i, 2] * aw
                    z = det / weights[3]
                    px = z * (
                        ray_from_pixel[0, 0] * fine_x + ray_from_pixel[0, 1] * fine_y + ray_from_pixel[0, 2]
                    )
                    py = z * (
                        ray_from_pixel[1, 0] * fine_x + ray_from_pixel[1, 1] * fine_y + ray_from_pixel[1, 2]
                    )
                    facing = -1.0 if det > 0.0 else 1.0
                    normal = _camera_normal(normals[f], cam_from_obj[mesh], weights, facing)
                    lr, lg, lb, sr, sg, sb = _light(lights, normal, px, py, z)
                    r, g, b = r * lr + sr, g * lg + sg, b * lb + sb
                red, green, blue = red + min(r, 255.0), green + min(g, 255.0), blue + min(b, 255.0)
            color[y, x, 0] = np.uint8(red / area + 0.5)
            color[y, x, 1] = np.uint8(green / area + 0.5)
            color[y, x, 2] = np.uint8(blue / area + 0.5)


@numba.njit(cache=True, nogil=True)
@no_type_check
def describe(triangle, p, faces, vertices, face_mesh, normals, cam_from_obj, first_row, xyz, camera_normals):
    """Object coordinates and normals of a band; an output of zero rows is not wanted.

    Args:
        triangle: ``(rows, w)`` int32 from ``rasterise``.
        p: ``(v, 3)`` homogeneous pixels.
        faces: ``(f, 3)``, and with it ``vertices``, ``face_mesh`` and ``normals`` as in ``Soup``.
        vertices: see ``faces``.
        face_mesh: see ``faces``.
        normals: see ``faces``.
        cam_from_obj: ``(m, 4, 4)`` float64.
        first_row: the picture's row at which the band begins.
        xyz: ``(rows, w, 3)`` float32, written, or ``(0, 0, 3)``.
        camera_normals: likewise.
    """
    rows, width = triangle.shape
    for y in range(rows):
        for x in range(width):
            f = triangle[y, x]
            if f < 0:
                xyz[y : y + 1, x : x + 1] = 0.0
                camera_normals[y : y + 1, x : x + 1] = 0.0
                continue
            i, j, k = faces[f, 0], faces[f, 1], faces[f, 2]
            edges = _edges(p, faces[f])
            weights = _barycentric(edges, x, y + first_row)
            if xyz.shape[0] > 0:
                for axis in range(3):
                    xyz[y, x, axis] = (
                        weights[0] * vertices[i, axis]
                        + weights[1] * vertices[j, axis]
                        + weights[2] * vertices[k, axis]
                    )
            if camera_normals.shape[0] > 0:
                det = p[i, 0] * edges[0] + p[i, 1] * edges[1] + p[i, 2] * edges[2]
                facing = -1.0 if det > 0.0 else 1.0
                normal = _camera_normal(normals[f], cam_from_obj[face_mesh[f]], weights, facing)
                camera_normals[y, x, 0], camera_normals[y, x, 1], camera_normals[y, x, 2] = normal
