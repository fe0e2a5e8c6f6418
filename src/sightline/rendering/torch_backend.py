"""Draws a soup with tensor operations on any device that has float64, in pieces of bounded memory."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from sightline.rendering.job import RenderJob
from sightline.rendering.raster_torch import project_vertices, rasterise
from sightline.rendering.shade_torch import (
    Points,
    apply_lights,
    camera_normals,
    find_points,
    interpolate,
    sample_textures,
)

_CHUNK_ON_CPU = 1 << 17  # fragments, points, or triangles of views that are held at a time
_CHUNK_ON_DEVICE = 1 << 23


@dataclass(frozen=True, eq=False)
class _Views:
    """Some views on the device: poses, inverse K, homogeneous pixels and what triangle each pixel sees."""

    cam_from_obj: Float[Tensor, "n m 4 4"]
    ray_from_pixel: Float[Tensor, "n 3 3"]
    p: Float[Tensor, "n v 5"]
    depth: Float[Tensor, "n h w"]
    triangle: Int[Tensor, "n h w"]


class _Painter:
    """A job whose arrays lie on a device."""

    def __init__(self, job: RenderJob, device: torch.device) -> None:
        self.job, self.device = job, device
        self.chunk = _CHUNK_ON_CPU if device.type == "cpu" else _CHUNK_ON_DEVICE
        soup = job.soup
        self.vertices, self.colors = self.tensor(soup.vertices), self.tensor(soup.colors)
        self.vertex_mesh, self.face_mesh = self.tensor(soup.vertex_mesh), self.tensor(soup.face_mesh)
        self.faces, self.uv = self.tensor(soup.faces).long(), self.tensor(soup.uv)
        self.normals = self.tensor(soup.normals)
        self.mesh_levels, self.levels = self.tensor(soup.mesh_levels), self.tensor(soup.levels)
        self.texels = self.tensor(soup.texels)
        self.lights, self.background = self.tensor(job.light_table), self.tensor(job.background)

    def tensor(self, array: np.ndarray) -> Tensor:
        return torch.from_numpy(array).to(self.device)

    def see(self, views: slice, samples: int) -> _Views:
        job, (width, height) = self.job, self.job.image_size
        k = job.K[views] if samples == 1 else job.finer_intrinsics(job.K[views])
        pixels_from_obj = self.tensor(k[:, None] @ job.cam_from_obj[views][:, :, :3])
        p = project_vertices(self.vertices, self.vertex_mesh, pixels_from_obj)
        size = (width * samples, height * samples)
        depth, triangle = rasterise(p, self.faces, job.near, size, self.chunk)
        return _Views(self.tensor(job.cam_from_obj[views]), self.tensor(np.linalg.inv(k)), p, depth, triangle)

    def paint(self, views: slice, out: dict[str, Tensor]) -> None:
        seen = self.see(views, 1)
        there = seen.triangle >= 0
        if "mask" in out:
            out["mask"][views] = there
        if "depth" in out:
            out["depth"][views] = torch.where(there, seen.depth, 0.0).float()
        if "instance" in out:
            out["instance"][views] = torch.where(there, self.face_mesh[seen.triangle.clamp_min(0)], -1)
        if "xyz" in out or "normals" in out:
            self.describe(seen, views, out)
        if "color" in out:
            fine = seen if self.job.samples == 1 else self.see(views, self.job.samples)
            out["color"][views] = self.color(fine)

    def visible(self, seen: _Views) -> list[tuple[Int[Tensor, "k 3"], Points]]:
        where = (seen.triangle >= 0).nonzero().split(self.chunk)
        return [(at, self.points(seen, at)) for at in where]

    def points(self, seen: _Views, at: Int[Tensor, "k 3"]) -> Points:
        view, y, x = at.unbind(-1)
        face = seen.triangle[view, y, x].long()
        return find_points(seen.p, self.faces, self.face_mesh, view, face, x, y)

    def describe(self, seen: _Views, views: slice, out: dict[str, Tensor]) -> None:
        for name in ("xyz", "normals"):
            if name in out:
                out[name][views] = 0.0
        for at, points in self.visible(seen):
            view, y, x = at.unbind(-1)
            if "xyz" in out:
                corners = self.vertices[self.faces[points.face]]
                out["xyz"][views][view, y, x] = interpolate(points, corners).float()
            if "normals" in out:
                rotation = seen.cam_from_obj[view, points.mesh, :3, :3]
                out["normals"][views][view, y, x] = camera_normals(points, self.normals, rotation).float()

    def color(self, seen: _Views) -> Tensor:
        s, (width, height) = self.job.samples, self.job.image_size
        back = self.background.double().expand(height, width, 3)
        fine = back.repeat_interleave(s, 0).repeat_interleave(s, 1).repeat(len(seen.p), 1, 1, 1)
        for at, points in self.visible(seen):
            fine[at.unbind(-1)] = self.shade(seen, at, points).clamp_max(255.0)
        mean = fine.view(len(fine), height, s, width, s, 3).sum((2, 4)) * (1.0 / (s * s))
        return (mean + 0.5).to(torch.uint8)

    def shade(self, seen: _Views, at: Int[Tensor, "k 3"], points: Points) -> Float[Tensor, "k 3"]:
        color = interpolate(points, self.colors[self.faces[points.face]].double())
        textured = (self.mesh_levels[points.mesh, 1] > 0).nonzero()[:, 0]
        if len(textured):
            chosen = Points(*(getattr(points, name)[textured] for name in Points.__dataclass_fields__))
            color[textured] = sample_textures(chosen, self.uv, self.mesh_levels, self.levels, self.texels)
        if not self.job.lit:
            return color
        view, y, x = at.unbind(-1)
        pixel = torch.stack([x, y, torch.ones_like(x)], -1).double()
        ray = (seen.ray_from_pixel[view] @ pixel[..., None])[..., 0]
        position = (points.det * points.scale)[:, None] * ray
        normal = camera_normals(points, self.normals, seen.cam_from_obj[view, points.mesh, :3, :3])
        return apply_lights(color, normal, position, self.lights)


def render(job: RenderJob, device: torch.device) -> dict[str, Tensor]:
    """Draw all views of the job.

    Args:
        job: what to draw.
        device: where; it needs float64.

    Returns:
        The wanted pictures by name, on the device.
    """
    painter = _Painter(job, device)
    layers = job.empty_layers(device)
    width, height = job.image_size
    per_view = max(len(job.soup.faces), width * height * job.samples**2, 1)
    step = max(painter.chunk // per_view, 1)
    for start in range(0, job.num_views, step):
        painter.paint(slice(start, min(start + step, job.num_views)), layers)
    return layers
