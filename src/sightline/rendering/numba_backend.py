"""Draws a soup on the CPU: bands of views shared out among threads, each compiled and free of the interpreter's lock."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sightline.rendering import raster_numba, shade_numba
from sightline.rendering.job import RenderJob
from sightline.rendering.soup import Soup

_MIN_BAND_ROWS = 16


@dataclass(frozen=True)
class _Band:
    view: int
    first_row: int
    last_row: int


def render(job: RenderJob) -> dict[str, Tensor]:
    """Draw all views of the job.

    Args:
        job: what to draw.

    Returns:
        The wanted pictures by name, on the CPU.
    """
    layers = job.empty_layers()
    arrays = {name: tensor.numpy() for name, tensor in layers.items()}
    threads = torch.get_num_threads()  # one in the workers of a DataLoader, and what the user set elsewhere
    bands = list(_bands(job, threads))
    if threads == 1 or len(bands) == 1:
        for band in bands:
            _render_band(job, band, arrays)
        return layers
    with ThreadPoolExecutor(min(threads, len(bands))) as pool:
        for done in [pool.submit(_render_band, job, band, arrays) for band in bands]:
            done.result()
    return layers


def _bands(job: RenderJob, threads: int) -> Iterator[_Band]:
    # A whole view is one band, unless there are too few views to keep the threads busy.
    height = job.image_size[1]
    per_view = max(min(-(-threads // max(job.num_views, 1)), height // _MIN_BAND_ROWS), 1)
    edges = np.linspace(0, height, per_view + 1).astype(int).tolist()
    for view in range(job.num_views):
        for first, last in zip(edges[:-1], edges[1:], strict=True):
            yield _Band(view, first, last)


def _render_band(job: RenderJob, band: _Band, out: dict[str, NDArray]) -> None:
    rows = slice(band.first_row, band.last_row)
    soup, cam_from_obj, k = job.soup, job.cam_from_obj[band.view], job.K[band.view]
    p, depth, triangle = _visible(job, band, k, 1)
    nothing = triangle < 0
    if "mask" in out:
        np.logical_not(nothing, out=out["mask"][band.view, rows])
    if "depth" in out:
        np.copyto(out["depth"][band.view, rows], np.where(nothing, 0.0, depth), casting="same_kind")
    if "instance" in out:
        out["instance"][band.view, rows] = np.where(nothing, -1, soup.face_mesh[triangle])
    if "xyz" in out or "normals" in out:
        unwanted = np.empty((0, 0, 3), np.float32)
        xyz = out["xyz"][band.view, rows] if "xyz" in out else unwanted
        normals = out["normals"][band.view, rows] if "normals" in out else unwanted
        shade_numba.describe(
            triangle,
            p,
            soup.faces,
            soup.vertices,
            soup.face_mesh,
            soup.normals,
            cam_from_obj,
            band.first_row,
            xyz,
            normals,
        )
    if "color" in out:
        k = job.finer_intrinsics(k)
        if job.samples > 1:
            p, _, triangle = _visible(job, band, k, job.samples)
        _shade(job, soup, band, k, p, triangle, out["color"][band.view, rows])


def _visible(
    job: RenderJob, band: _Band, k: NDArray[np.float64], samples: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int32]]:
    soup = job.soup
    p = np.empty_like(soup.vertices)
    pixels_from_obj = np.ascontiguousarray(k @ job.cam_from_obj[band.view][:, :3])
    raster_numba.project_vertices(soup.vertices, soup.vertex_mesh, pixels_from_obj, p)
    size = ((band.last_row - band.first_row) * samples, job.image_size[0] * samples)
    depth, triangle = np.empty(size, np.float64), np.empty(size, np.int32)
    raster_numba.rasterise(p, soup.faces, job.near, band.first_row * samples, depth, triangle)
    return p, depth, triangle


def _shade(
    job: RenderJob,
    soup: Soup,
    band: _Band,
    k: NDArray[np.float64],
    p: NDArray[np.float64],
    triangle: NDArray[np.int32],
    color: NDArray[np.uint8],
) -> None:
    shade_numba.shade(
        triangle,
        p,
        soup.faces,
        soup.face_mesh,
        soup.colors,
        soup.uv,
        soup.normals,
        soup.mesh_levels,
        soup.levels,
        soup.texels,
        job.cam_from_obj[band.view],
        np.linalg.inv(k),
        job.light_table,
        job.lit,
        job.background,
        job.samples,
        band.first_row,
        color,
    )
