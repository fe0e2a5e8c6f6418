"""Views of spheres and boxes whose depth is exact: each pixel's ray is intersected with them."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from sightline.geometry.depth import pixel_grid
from sightline.geometry.poses import invert, make_pose
from sightline.vpog.flow_computer import View


class Solids(NamedTuple):
    """Spheres ``(centre, radius)`` and axis-aligned boxes ``(low, high)``, metres, object frame."""

    spheres: tuple[tuple[tuple[float, float, float], float], ...] = ()
    boxes: tuple[tuple[tuple[float, float, float], tuple[float, float, float]], ...] = ()


#: A box with a ball on one side and another before it: 0.16 m across.
OBJECT = Solids(
    spheres=(((0.05, 0.01, 0.0), 0.03), ((-0.02, 0.0, 0.055), 0.02)),
    boxes=(((-0.06, -0.04, -0.03), (0.04, 0.03, 0.03)),),
)
DIAMETER = 0.16


def camera(focal: float, size: int) -> Tensor:
    middle = (size - 1) / 2
    return torch.tensor([[focal, 0, middle], [0, focal, middle], [0, 0, 1]], dtype=torch.float64)


def view(solids: Solids, K: Tensor, cam_from_obj: Tensor, size: int, crop_from_image: Tensor | None = None):
    """One view without a batch, float64. With an affine, the rays are those of the crop's pixels."""
    px = pixel_grid(size, size)
    if crop_from_image is not None:
        px = (px - crop_from_image[:, 2]) @ torch.linalg.inv(crop_from_image[:, :2]).mT
    rays = torch.cat([px, torch.ones_like(px[..., :1])], -1) @ torch.linalg.inv(K).mT
    obj_from_cam = invert(cam_from_obj)
    eye, way = obj_from_cam[:3, 3], rays @ obj_from_cam[:3, :3].mT
    hits = [_sphere(eye, way, torch.tensor(c).to(eye), r) for c, r in solids.spheres]
    hits += [
        _box(eye, way, torch.tensor(low).to(eye), torch.tensor(high).to(eye)) for low, high in solids.boxes
    ]
    depth = torch.stack(hits).amin(0)  # the rays have z = 1, so the step along them is the depth
    mask = depth.isfinite()
    return View(torch.where(mask, depth, 0.0), mask, K, cam_from_obj)


def pose(turn: Tensor, distance: float = 0.6, aside: tuple[float, float] = (0.0, 0.0)) -> Tensor:
    return make_pose(turn.double(), torch.tensor([*aside, distance], dtype=torch.float64))


def stack(views: list[View]) -> View:
    """Views as the S templates of one query."""
    return View(*(torch.stack(each)[None] for each in zip(*views, strict=True)))


def single(one: View) -> View:
    """A view as a batch of one query."""
    return View(*(each[None] for each in one))


def _sphere(eye: Tensor, way: Tensor, center: Tensor, radius: float) -> Tensor:
    a, b = (way * way).sum(-1), (way * (eye - center)).sum(-1)
    inside = b * b - a * ((eye - center).square().sum() - radius**2)
    step = (-b - inside.clamp_min(0).sqrt()) / a
    return torch.where((inside >= 0) & (step > 0), step, torch.inf)


def _box(eye: Tensor, way: Tensor, low: Tensor, high: Tensor) -> Tensor:
    safe = torch.where(way.abs() < 1e-12, 1e-12, way)
    first, second = (low - eye) / safe, (high - eye) / safe
    enter, leave = torch.minimum(first, second).amax(-1), torch.maximum(first, second).amin(-1)
    return torch.where((enter <= leave) & (enter > 0), enter, torch.inf)
