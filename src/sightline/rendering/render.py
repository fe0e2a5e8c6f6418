"""The face of the room: a mesh in many views, or many meshes in one view."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from sightline.records import TriangleMesh
from sightline.rendering.job import RenderJob, build_job
from sightline.rendering.prepared import PreparedMesh
from sightline.rendering.result import Lights, RenderResult

Backend = Literal["auto", "numba", "torch"]


def render_views(
    mesh: TriangleMesh | PreparedMesh,
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
    """Draw one mesh as ``n`` pinhole cameras see it.

    Depth, mask, object coordinates and normals are those of the ray through each pixel's centre, computed in
    float64. Colour is the texture, the vertex colours or a plain grey, times the light. Textures are filtered
    over each pixel's footprint and need no more samples; ``samples`` smooths what a filter cannot, the
    outlines of objects and of their faces. Both sides of a face are drawn. A face may reach behind the
    camera.

    Args:
        mesh: the surface, metres; a ``PreparedMesh`` saves its preparation (normals, filtered texture) from
            the second call on.
        cam_from_obj: ``(n, 4, 4)`` poses, metres, OpenCV camera frame.
        K: ``(3, 3)`` for all views or ``(n, 3, 3)``, pixels; pixel centres at integers, no distortion.
        image_size: ``(width, height)`` pixels.
        outputs: which of ``color``, ``depth``, ``mask``, ``xyz``, ``normals``, ``instance`` to draw.
        lights: None for none: the colours as they are (a plain mesh is then one grey; give it
            ``Lights.headlight()``).
        background: RGB in [0, 255], or a uint8 picture ``(h, w, 3)``.
        samples: the colour of a pixel is the mean over ``samples x samples`` points of it, 1 to 4.
        near: nothing nearer than this depth is drawn, metres.
        device: where the pictures shall lie.
        backend: ``numba`` (any number of CPU threads, as many as PyTorch may use), ``torch`` (the device
            itself; it needs float64), or ``auto``: ``torch`` on a GPU with float64, else ``numba``. The
            pictures are equal.

    Returns:
        The pictures asked for.

    Raises:
        ValueError: a pose, K, background or option that cannot be drawn.

    Example:
        >>> import torch
        >>> corners = torch.tensor([[-0.1, -0.1, 0], [0.1, -0.1, 0], [0, 0.1, 0]], dtype=torch.float64)
        >>> pose = torch.eye(4, dtype=torch.float64)
        >>> pose[2, 3] = 0.5
        >>> K = torch.tensor([[100.0, 0, 31.5], [0, 100, 23.5], [0, 0, 1]])
        >>> result = render_views(TriangleMesh(corners, torch.tensor([[0, 2, 1]])), pose[None], K, (64, 48))
        >>> result.color[0, 24, 32].tolist(), float(result.depth[0, 24, 32]), int(result.mask.sum())
        ([180, 180, 180], 0.5, 800)
    """
    if cam_from_obj.ndim != 3 or tuple(cam_from_obj.shape[1:]) != (4, 4):
        raise ValueError(f"cam_from_obj: expected shape (n, 4, 4), got {tuple(cam_from_obj.shape)}")
    job = build_job(
        [mesh],
        cam_from_obj[:, None],
        K,
        image_size,
        outputs=outputs,
        lights=lights,
        background=background,
        samples=samples,
        near=near,
    )
    return RenderResult(_draw(job, torch.device(device), backend))


def render_scene(
    meshes: Sequence[TriangleMesh | PreparedMesh],
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
    """Draw several meshes, each in its pose, as one pinhole camera sees them; the nearest surface wins.

    Args:
        meshes: ``m`` surfaces, metres.
        cam_from_obj: ``(m, 4, 4)`` poses, one a mesh.
        K: ``(3, 3)``, pixels.
        image_size: ``(width, height)`` pixels.
        outputs: as in ``render_views``; ``instance`` is the index into ``meshes``, -1 where nothing is.
        lights: as in ``render_views``.
        background: as in ``render_views``.
        samples: as in ``render_views``.
        near: as in ``render_views``.
        device: as in ``render_views``.
        backend: as in ``render_views``.

    Returns:
        The pictures asked for, with ``n = 1``.

    Raises:
        ValueError: no mesh, or a pose, K, background or option that cannot be drawn.

    Example:
        >>> import torch
        >>> corners = torch.tensor([[-1.0, -1, 1], [1, -1, 1], [0, 1, 1]])
        >>> near = TriangleMesh(corners, torch.tensor([[0, 2, 1]]))
        >>> poses = torch.eye(4).expand(2, 4, 4)
        >>> K = torch.tensor([[20.0, 0, 15.5], [0, 20, 15.5], [0, 0, 1]])
        >>> render_scene([near, near.scaled(2.0)], poses, K, (32, 32)).instance.unique().tolist()
        [-1, 0]
    """
    if len(meshes) == 0 or tuple(cam_from_obj.shape) != (len(meshes), 4, 4):
        raise ValueError(
            f"cam_from_obj: expected one pose a mesh, ({len(meshes)}, 4, 4) with at least one, "
            f"got {tuple(cam_from_obj.shape)}"
        )
    job = build_job(
        meshes,
        cam_from_obj[None],
        K,
        image_size,
        outputs=outputs,
        lights=lights,
        background=background,
        samples=samples,
        near=near,
    )
    return RenderResult(_draw(job, torch.device(device), backend))


def _draw(job: RenderJob, device: torch.device, backend: Backend) -> dict[str, Tensor]:
    # Apple's GPU has no float64: there the CPU draws, and the pictures are moved.
    if backend == "torch" or (backend == "auto" and device.type not in ("cpu", "mps")):
        from sightline.rendering import torch_backend

        return torch_backend.render(job, device)
    from sightline.rendering import numba_backend

    return {name: layer.to(device) for name, layer in numba_backend.render(job).items()}
