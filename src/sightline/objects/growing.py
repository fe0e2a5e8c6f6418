"""A card that grows: frames whose pose is certain become templates and show what no photograph showed."""

from __future__ import annotations

import math
from dataclasses import replace

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from sightline.geometry.cameras import Camera
from sightline.objects.baking import PosedPhoto, bake_photos
from sightline.objects.card import ObjectCard
from sightline.objects.comparison import compare
from sightline.objects.onboard import render_templates
from sightline.objects.photos import photo_template
from sightline.objects.verification import Verification, correlation_map
from sightline.records import PoseEstimate

_CERTAIN_SCORE = 0.6
_CERTAIN_SUPPORT = 0.75  # of the known texture must be seen: a covered object is no template
_CERTAIN_TURN = math.radians(1.0)  # standard deviation of the rotation
_NEW_VIEW = math.radians(12.0)  # from every photograph and frame that the card has
_CONTRADICTION = 0.2  # correlation below which known texture counts as covered


def is_certain(pose: PoseEstimate, check: Verification) -> bool:
    """Whether a pose is sure enough to learn from.

    Args:
        pose: an estimate.
        check: its verification.

    Returns:
        True if it is valid, well borne out, unoccluded and its rotation is known to a degree.
    """
    if not pose.valid or check.score < _CERTAIN_SCORE or check.support < _CERTAIN_SUPPORT:
        return False
    if pose.covariance is None or check.inside < 0.99:
        return False
    return float(pose.covariance[:3, :3].trace()) < _CERTAIN_TURN**2


def shows_a_new_view(card: ObjectCard, cam_from_obj: Float[Tensor, "4 4"]) -> bool:
    """Whether a pose shows the object from a direction that no photograph or frame of the card has.

    Args:
        card: the object.
        cam_from_obj: the pose.

    Returns:
        True if all of them are at least 12 degrees away; rendered views do not count.
    """
    seen = [view.cam_from_obj[2, :3] for view in card.templates if view.source != "render"]
    if not seen:
        return True
    cosine = torch.stack(seen) @ cam_from_obj[2, :3]
    return bool((cosine < math.cos(_NEW_VIEW)).all())


def grow_card(
    card: ObjectCard, image: UInt8[Tensor, "h w 3"], camera: Camera, cam_from_obj: Float[Tensor, "4 4"]
) -> ObjectCard:
    """Add a frame to a card as a template; what covers known texture in it is masked out.

    Args:
        card: the object, with a mesh.
        image: ``(h, w, 3)`` uint8 RGB.
        camera: its camera.
        cam_from_obj: the object's certain pose in it.

    Returns:
        The card with one more template, unsaved.

    Raises:
        ValueError: a card without a mesh.
    """
    if card.mesh is None:
        raise ValueError(f"card {card.name}: only a card with a mesh can grow, since a frame has no depth")
    mask = _uncovered(card, image, camera, cam_from_obj)
    view = photo_template(card.mesh, PosedPhoto(image, camera, cam_from_obj, mask))
    return card.with_templates(replace(view, source="frame"))


def rebake(card: ObjectCard) -> ObjectCard:
    """Bake all photographs and frames of a card onto its mesh and render its views anew.

    Args:
        card: with a mesh whose texture came from photographs.

    Returns:
        The card with a fuller texture, unsaved.

    Raises:
        ValueError: no mesh, or no photograph.
    """
    if card.mesh is None:
        raise ValueError(f"card {card.name}: expected a mesh to bake onto, there is none")
    seen = [view for view in card.templates if view.source != "render"]
    photos = [PosedPhoto(v.color, v.camera, v.cam_from_obj, v.mask) for v in seen]
    textured, _ = bake_photos(card.mesh, photos)
    size = next((view.mask.shape[0] for view in card.templates if view.source == "render"), 224)
    templates = (*seen, *render_templates(textured, template_size=size))
    return replace(card, mesh=textured, templates=templates, folder=None)


def _uncovered(
    card: ObjectCard, image: UInt8[Tensor, "h w 3"], camera: Camera, cam_from_obj: Float[Tensor, "4 4"]
) -> Bool[Tensor, "h w"]:
    """All of the picture but the places where the object's known texture is contradicted."""
    everything = torch.ones(camera.height, camera.width, dtype=torch.bool)
    assert card.mesh is not None
    both = compare(card.mesh, cam_from_obj, image.numpy(), camera)
    if both is None:
        return everything
    correlation, weight = correlation_map(both)
    covered = (both.mask & (weight > 0.5) & (correlation < _CONTRADICTION)).astype(np.uint8)
    covered = cv2.morphologyEx(covered, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    rows, columns = np.nonzero(cv2.dilate(covered, np.ones((5, 5), np.uint8)))
    if len(rows) == 0:
        return everything
    places = both.look_up[rows, columns]
    reach = math.ceil(float(camera.K[0, 0] / both.window.K[0, 0])) + 1
    hidden = np.zeros((camera.height, camera.width), np.uint8)
    inside = ((places >= 0) & (places < torch.tensor(camera.image_size) - 1)).all(-1)
    u, v = places[inside].round().long().unbind(-1)
    hidden[v.numpy(), u.numpy()] = 1
    hidden = cv2.dilate(hidden, np.ones((2 * reach + 1, 2 * reach + 1), np.uint8))
    return torch.from_numpy(hidden == 0)
