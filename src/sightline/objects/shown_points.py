"""What an object shows from all around, as few points: on its surface, and just beside its outline."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import avg_pool2d, max_pool2d

from sightline.geometry.cameras import unproject
from sightline.geometry.depth import pixel_grid
from sightline.geometry.poses import invert, transform
from sightline.geometry.viewpoints import view_poses
from sightline.objects.comparison import prepared_mesh
from sightline.objects.lighting import template_lights
from sightline.records import TriangleMesh
from sightline.rendering import fit_camera, render_views

_SIDE = 56  # pixels of a view
_FILL = 0.8  # of them by the object's larger extent
_DISTANCE = 4.0  # diameters from which it is seen
_NUM_POINTS, _NUM_BESIDE, _NUM_EXTREMES = 96, 32, 24  # a view
_NEAR, _FAR = 1, 3  # pixels beside the outline between which a point lies


class ShownPoints(NamedTuple):
    """Points that ``v`` views show, relative to the middle of the object's box, float32 metres.

    Args:
        middle: ``(3,)`` float64 of the box, object frame.
        rotations: ``(v, 3, 3)`` of each view, ``cam_from_obj``.
        points: ``(v, n, 3)`` on the surface, object axes.
        normals: ``(v, n, 3)`` unit, towards the camera, object axes.
        colors: ``(v, n, 3)`` of the surface there, RGB in [0, 255].
        beside: ``(v, m, 3)`` just beside the outline, as far away as the outline is, object axes.
        extremes: ``(v, e, 3)`` farthest out to each of ``e`` sides: what a box about the view is about.
    """

    middle: Float[Tensor, "3"]
    rotations: Float[Tensor, "v 3 3"]
    points: Float[Tensor, "v n 3"]
    normals: Float[Tensor, "v n 3"]
    colors: Float[Tensor, "v n 3"]
    beside: Float[Tensor, "v m 3"]
    extremes: Float[Tensor, "v e 3"]


@lru_cache(maxsize=64)
def shown_points(mesh: TriangleMesh, num_views: int = 162) -> ShownPoints:
    """Points of a mesh as it is seen from all around; prepared once, meshes are hashed by identity.

    Args:
        mesh: the object, metres.
        num_views: 42, 162 or 642 directions.

    Example:
        >>> corners = torch.tensor([[0.0, 0, 0], [0.1, 0, 0], [0, 0.1, 0], [0, 0, 0.1]], dtype=torch.float64)
        >>> faces = torch.tensor([[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]])
        >>> shown_points(TriangleMesh(corners, faces), 42).points.shape
        torch.Size([42, 96, 3])
    """
    middle = mesh.bounds.double().mean(0)
    centred = torch.eye(4, dtype=torch.float64)
    centred[:3, 3] = -middle
    poses = view_poses(num_views, _DISTANCE * mesh.diameter) @ centred
    K = fit_camera(mesh, poses, (_SIDE, _SIDE), _FILL)
    drawn = render_views(
        prepared_mesh(mesh),
        poses,
        K,
        (_SIDE, _SIDE),
        outputs=("color", "depth", "normals"),
        lights=template_lights(mesh),
    )
    depth = drawn.depth.double()
    seen = (depth > 0) & (depth < 2 * _DISTANCE * mesh.diameter)
    points = _chosen(seen, _NUM_POINTS)
    outline = _outline_depth(depth, seen)
    near, far = (_grown(seen, pixels) for pixels in (_NEAR, _FAR))
    beside = _chosen(far & ~near & (outline > 0), _NUM_BESIDE)
    lift = _Lift(poses, K, middle)
    normals = _at(drawn.normals.double(), points) @ poses[:, :3, :3]
    return ShownPoints(
        middle,
        poses[:, :3, :3].float(),
        lift(depth, points).float(),
        normals.float(),
        _at(drawn.color.float(), points),
        lift(outline, beside).float(),
        lift(depth, _extremes(seen)).float(),
    )


class _Lift(NamedTuple):
    """Pixels of each view with a depth to points of the object."""

    poses: Tensor
    K: Tensor
    middle: Tensor

    def __call__(self, depth: Tensor, pixels: Tensor) -> Tensor:
        places = _at(pixel_grid(_SIDE, _SIDE).expand(len(depth), -1, -1, -1), pixels)
        in_camera = unproject(places, _at(depth[..., None], pixels)[..., 0], self.K)
        return transform(invert(self.poses), in_camera) - self.middle


def _at(layers: Tensor, pixels: Tensor) -> Tensor:
    """``(v, h, w, c)`` layers at ``(v, n)`` flat pixels."""
    flat = layers.flatten(1, 2)
    return flat.gather(1, pixels[..., None].expand(-1, -1, flat.shape[-1]))


def _chosen(mask: Tensor, count: int) -> Tensor:
    """``(v, count)`` flat pixels of each view's mask, evenly by chance, some twice where there are few."""
    generator = torch.Generator().manual_seed(0)
    order = (torch.rand(mask[0].numel(), generator=generator) + mask.flatten(1)).argsort(descending=True)
    available = mask.flatten(1).sum(1, keepdim=True).clamp_min(1)
    return order.gather(1, torch.arange(count) % available)


def _extremes(mask: Tensor) -> Tensor:
    """``(v, e)`` flat pixels of each view's mask, the farthest out to each of ``e`` sides."""
    angles = torch.arange(_NUM_EXTREMES) * (2 * math.pi / _NUM_EXTREMES)
    sides = torch.stack([angles.cos(), angles.sin()]).double()
    reach = (pixel_grid(_SIDE, _SIDE).view(-1, 2) @ sides).T
    return torch.where(mask.flatten(1)[:, None], reach, -torch.inf).argmax(-1)


def _outline_depth(depth: Tensor, seen: Tensor) -> Tensor:
    """At each pixel the mean depth of the object's pixels near by, 0 where there is none."""
    window, padding = 2 * _FAR + 1, _FAR
    total, count = (
        avg_pool2d(layer[:, None], window, 1, padding)[:, 0] for layer in (depth * seen, seen.double())
    )
    return torch.where(count > 0, total / count.clamp_min(1e-9), 0.0)


def _grown(mask: Tensor, pixels: int) -> Tensor:
    return max_pool2d(mask.float()[:, None], 2 * pixels + 1, 1, pixels)[:, 0] > 0
