"""The face of the room: a mesh in many views, or many meshes in one view."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from sightline.records import TriangleMesh
from sightline.rendering.job import RenderJob, check_background, check_cameras, check_outputs, light_table
from sightline.rendering.result import Lights, RenderResult
from sightline.rendering.soup import build_soup

Backend = Literal["auto", "numba", "torch"]


def render_views(
    mesh: TriangleMesh,
    cam_from_obj: Tensor,
    K: Tensor,
    image_size: tuple[int, int],
    *,
    outputs: Sequence[str] = ("color", "depth", "mask"),
    lights: Lights | None = None,
    background: Tensor | Sequence[float] = (0, 0, 0),
    samples: int = 1,
    near: float = 1e-3,
    device: torch.device | str = "cpu",
    backend: Backend = "auto",
) -> RenderResult:
    """Draw one mesh as ``n`` cameras see it."""
    if cam_from_obj.ndim != 3 or tuple(cam_from_obj.shape[1:]) != (4, 4):
        raise ValueError(f"cam_from_obj: expected shape (n, 4, 4), got {tuple(cam_from_obj.shape)}")
    return _render(
        [mesh],
        cam_from_obj,
        K,
        image_size,
        len(cam_from_obj),
        outputs,
        lights,
        background,
        samples,
        near,
        device,
        backend,
    )


def render_scene(
    meshes: Sequence[TriangleMesh],
    cam_from_obj: Tensor,
    K: Tensor,
    image_size: tuple[int, int],
    *,
    outputs: Sequence[str] = ("color", "depth", "mask", "instance"),
    lights: Lights | None = None,
    background: Tensor | Sequence[float] = (0, 0, 0),
    samples: int = 1,
    near: float = 1e-3,
    device: torch.device | str = "cpu",
    backend: Backend = "auto",
) -> RenderResult:
    """Draw several meshes, each in its pose, as one camera sees them."""
    if tuple(cam_from_obj.shape) != (len(meshes), 4, 4):
        raise ValueError(
            f"cam_from_obj: expected shape ({len(meshes)}, 4, 4), got {tuple(cam_from_obj.shape)}"
        )
    return _render(
        meshes, cam_from_obj, K, image_size, 1, outputs, lights, background, samples, near, device, backend
    )


def _render(
    meshes: Sequence[TriangleMesh],
    cam_from_obj: Tensor,
    K: Tensor,
    image_size: tuple[int, int],
    num_views: int,
    outputs: Sequence[str],
    lights: Lights | None,
    background: Tensor | Sequence[float],
    samples: int,
    near: float,
    device: torch.device | str,
    backend: Backend,
) -> RenderResult:
    wanted = check_outputs(outputs)
    if samples not in (1, 2, 3, 4):
        raise ValueError(f"samples: expected 1 to 4 points along a pixel's side, got {samples}")
    poses, k = check_cameras(cam_from_obj, K, num_views, len(meshes))
    lit = lights is not None
    soup = build_soup(
        meshes,
        with_color="color" in wanted,
        with_normals="normals" in wanted or (lit and "color" in wanted),
    )
    table = light_table(lights or Lights())
    back = check_background(background, image_size)
    job = RenderJob(soup, poses, k, image_size, wanted, table, lit, back, samples, near)
    return RenderResult(_draw(job, torch.device(device), backend))


def _draw(job: RenderJob, device: torch.device, backend: Backend) -> dict[str, Tensor]:
    # The backends are imported here: Numba takes a third of a second, and may not be wanted at all.
    if backend == "torch" or (backend == "auto" and device.type not in ("cpu", "mps")):
        from sightline.rendering import torch_backend

        return torch_backend.render(job, device)
    from sightline.rendering import numba_backend

    return {name: layer.to(device) for name, layer in numba_backend.render(job).items()}
