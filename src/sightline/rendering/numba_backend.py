"""Draws a soup on the CPU: threads share the views, each in compiled code without the interpreter's lock."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sightline.rendering.job import RenderJob
from sightline.rendering.raster_numba import project_vertices, rasterise
from sightline.rendering.shade_numba import View, fill_normals, fill_xyz, shade

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
    if threads == 1 or len(bands) <= 1:
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
        for first, last in pairwise(edges):
            yield _Band(view, first, last)


def _render_band(job: RenderJob, band: _Band, out: dict[str, NDArray]) -> None:
    soup, cam_from_obj, k = job.soup, job.cam_from_obj[band.view], job.K[band.view]
    p, depth, triangle = _visible(job, band, k, 1)
    band_of = {name: picture[band.view, band.first_row : band.last_row] for name, picture in out.items()}
    if "mask" in band_of:
        np.greater_equal(triangle, 0, out=band_of["mask"])
    if "depth" in band_of:
        band_of["depth"][:] = np.where(triangle >= 0, depth, 0.0)
    if "instance" in band_of:
        band_of["instance"][:] = np.where(triangle >= 0, soup.face_mesh[triangle], -1)
    if "xyz" in band_of:
        fill_xyz(soup, p, triangle, band.first_row, band_of["xyz"])
    if "normals" in band_of:
        fill_normals(soup, cam_from_obj, p, triangle, band.first_row, band_of["normals"])
    if "color" in band_of:
        if job.samples > 1:
            k = job.finer_intrinsics(k)
            p, _, triangle = _visible(job, band, k, job.samples)
        view = View(cam_from_obj, np.linalg.inv(k), job.light_table, job.lit)
        shade(soup, view, p, triangle, job.samples, band.first_row, job.background, band_of["color"])


def _visible(
    job: RenderJob, band: _Band, k: NDArray[np.float64], samples: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int32]]:
    soup = job.soup
    p = np.empty((len(soup.vertices), 5))
    project_vertices(soup, np.ascontiguousarray(k @ job.cam_from_obj[band.view][:, :3]), p)
    size = ((band.last_row - band.first_row) * samples, job.image_size[0] * samples)
    depth, triangle = np.empty(size), np.empty(size, np.int32)
    rasterise(p, soup.faces, job.near, band.first_row * samples, depth, triangle)
    return p, depth, triangle
