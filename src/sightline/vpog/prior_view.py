"""What an expected pose says about a crop: from which side the object is seen there, and how it is turned."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from sightline.geometry import pixel_affine
from sightline.geometry.boxes import boxes_from_points
from sightline.geometry.cameras import Camera
from sightline.geometry.poses import invert, transform
from sightline.geometry.rotations import angle_between, exp
from sightline.geometry.viewpoints import view_direction
from sightline.objects.card import ObjectCard

_FILL = 0.8  # of a crop, by the object's outline


class PriorView(NamedTuple):
    """An object as a pose expects it.

    Args:
        direction: ``(3,)`` unit, from the middle of the object to the camera, object frame.
        ray: ``(3,)`` unit, from the camera to the middle of the object, camera frame.
    """

    direction: Float[Tensor, "3"]
    ray: Float[Tensor, "3"]


def prior_view(cam_from_obj: Float[Tensor, "4 4"], center: Float[Tensor, "3"]) -> PriorView:
    """From which side a camera sees an object, wherever in the picture that is.

    Args:
        cam_from_obj: ``(4, 4)`` metres.
        center: ``(3,)`` the middle of the object, object frame.

    Example:
        >>> pose = torch.eye(4, dtype=torch.float64)
        >>> pose[:3, 3] = torch.tensor([0.6, 0.0, 0.8])
        >>> prior_view(pose, torch.zeros(3, dtype=torch.float64)).ray
        tensor([0.6000, 0.0000, 0.8000], dtype=torch.float64)
    """
    toward = invert(cam_from_obj)[:3, 3] - center
    direction = toward / toward.norm()
    return PriorView(direction, -cam_from_obj[:3, :3] @ direction)


def in_plane_turn(
    R: Float[Tensor, "3 3"], view: PriorView, template: Float[Tensor, "3 3"]
) -> Float[Tensor, ""]:
    """By how much a picture is turned in its plane against a template.

    The template's camera is carried to the pose's side of the object by the shortest turn, and the pose's
    camera is turned by the shortest way until it looks at the object; what is then left between them is a
    turn about their common axis.

    Args:
        R: ``(3, 3)`` rotation of the pose, ``cam_from_obj``.
        view: of that pose.
        template: ``(3, 3)`` rotation of a template that looks at the middle of the object.

    Returns:
        Radians, from the x axis towards the y axis: a crop turned by the opposite is upright as the template.

    Example:
        >>> view = PriorView(torch.tensor([0.0, 0, -1]), torch.tensor([0.0, 0, 1]))
        >>> in_plane_turn(exp(torch.tensor([0.0, 0, 0.5])), view, torch.eye(3))
        tensor(0.5000)
    """
    moved = template @ _shortest_turn(view.direction, view_direction(template))
    ahead = torch.tensor([0.0, 0.0, 1.0], dtype=R.dtype, device=R.device)
    left = _shortest_turn(ahead, view.ray).mT @ R @ moved.mT
    return torch.atan2(left[1, 0], left[0, 0])


def prior_affine(
    card: ObjectCard, cam_from_obj: Float[Tensor, "4 4"], camera: Camera, turn: float, size: int
) -> Float[Tensor, "2 3"] | None:
    """What brings the object, where a pose expects it, to the middle of a turned square crop.

    Args:
        card: the object.
        cam_from_obj: ``(4, 4)`` metres.
        camera: of the picture.
        turn: of the crop, radians.
        size: side of the crop, pixels.

    Returns:
        ``(2, 3)`` float64 crop_from_image; None where the object is not before the camera.
    """
    points = card.mesh.vertices if card.mesh is not None else torch.cartesian_prod(*card.bounds.T)
    pixels = camera.project(transform(cam_from_obj, points.double()))
    if not bool(pixels.isfinite().all()):
        return None
    turned = pixel_affine.rotate(turn, (0.0, 0.0))
    box = boxes_from_points(pixel_affine.apply(turned, pixels))
    return pixel_affine.compose(pixel_affine.square_crop(box, size, margin=1 / _FILL), turned)


def _shortest_turn(start: Float[Tensor, "3"], end: Float[Tensor, "3"]) -> Float[Tensor, "3 3"]:
    """The rotation of the least angle that brings one unit vector to another, not its opposite."""
    axis = torch.linalg.cross(start, end)
    length = axis.norm()
    share = torch.where(length > 0, angle_between(start, end) / length.clamp_min(1e-300), 1.0)
    return exp(axis * share)
