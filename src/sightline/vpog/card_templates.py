"""A card's templates as the network has learned to see templates.

Whatever a template was drawn or taken with, its camera is turned about its own centre until it looks at the
middle of the object with z upwards, and zoomed until the object's sphere fills the frame. That moves pixels
by a homography, whatever their depth, and shows nothing that the template did not show.
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from sightline.geometry import pixel_affine
from sightline.geometry.boxes import boxes_from_masks
from sightline.geometry.depth import pixel_grid, sample_depth
from sightline.geometry.poses import invert, look_at
from sightline.nn.pictures import float_picture
from sightline.objects.card import ObjectCard, Template
from sightline.synthetic.pose_views import PoseViewSettings, sphere_camera
from sightline.vpog.crops import cut_part

_FILL = PoseViewSettings.template_fill
_JUMP = 0.02  # of the diameter, as in the labels
_NEAREST = 1.1  # radii: a camera nearer than this zooms as if it stood there


class FramedTemplates(NamedTuple):
    """``n`` templates as the network takes them.

    Args:
        pictures: ``(n, 3, s, s)`` float32 RGB in [0, 1] on black.
        depth: ``(n, s, s)`` float32 metres, 0 where unknown.
        K: ``(n, 3, 3)`` float64 pixels.
        cam_from_obj: ``(n, 4, 4)`` float64 metres.
        card_from_framed: ``(n, 3, 3)`` float64, the homographies to the pixels of the card's templates.
    """

    pictures: Float[Tensor, "n 3 s s"]
    depth: Float[Tensor, "n s s"]
    K: Float[Tensor, "n 3 3"]
    cam_from_obj: Float[Tensor, "n 4 4"]
    card_from_framed: Float[Tensor, "n 3 3"]


def frame_templates(card: ObjectCard, size: int, *, first: int = 0) -> FramedTemplates:
    """The templates of a card.

    Args:
        card: the object.
        size: side of the framed templates, pixels.
        first: the number of the first that is wanted.

    Returns:
        Them, in their order.
    """
    radius = object_radius(card)
    framed = [_frame(view, card, radius, size) for view in card.templates[first:]]
    return FramedTemplates(*(torch.stack(each) for each in zip(*framed, strict=True)))


def object_radius(card: ObjectCard) -> float:
    """The radius of the sphere around the middle of an object's box that holds it, metres."""
    if card.mesh is None:
        return card.diameter / 2
    return float((card.mesh.vertices.double() - card.center).norm(dim=-1).max())


def _frame(view: Template, card: ObjectCard, radius: float, size: int) -> tuple[Tensor, ...]:
    eye = invert(view.cam_from_obj)[:3, 3]
    pose = look_at(eye, card.center.double())
    distance = max(float((eye - card.center).norm()), _NEAREST * radius)
    K = sphere_camera(radius, distance, size, _FILL)
    turn = pose[:3, :3] @ view.cam_from_obj[:3, :3].mT
    framed_from_card = K @ turn @ torch.linalg.inv(view.K)
    card_from_framed = torch.linalg.inv(framed_from_card)
    px = pixel_grid(size, size).view(-1, 2)
    rays = torch.cat([px, torch.ones_like(px[:, :1])], -1)
    there = rays @ card_from_framed.mT
    surface = torch.where(view.mask, view.depth, 0.0).double()
    z = sample_depth(surface, there[:, :2] / there[:, 2:], max_jump=_JUMP * card.diameter)
    along = (rays @ torch.linalg.inv(K).mT @ turn)[:, 2]  # z of the old camera where the new one has 1
    depth = torch.where(there[:, 2] > 0, z / along, torch.nan).nan_to_num(0.0)
    scale = float((K[0, 0] + K[1, 1]) / (view.K[0, 0] + view.K[1, 1]))
    picture = _draw(view, framed_from_card, scale, size)
    return float_picture(picture), depth.view(size, size).float(), K, pose, card_from_framed


def _draw(view: Template, framed_from_card: Tensor, scale: float, size: int) -> np.ndarray:
    """The object's pixels, on black."""
    alone = view.color.numpy() * view.mask.numpy()[..., None]
    part = cut_part(alone, boxes_from_masks(view.mask).double(), scale)
    if part is None:
        raise ValueError("template: expected a mask within its picture")
    small, small_from_card = part
    last_row = torch.tensor([[0.0, 0.0, 1.0]], dtype=torch.float64)
    card_from_small = torch.cat([pixel_affine.invert(small_from_card), last_row])
    matrix = (framed_from_card @ card_from_small).numpy()
    return cv2.warpPerspective(small, matrix, (size, size), flags=cv2.INTER_LINEAR)
