"""Key points that agree on where an object is: what a learned detector cannot see, and seldom wrong.

A handful of a picture's key points that lie as one pose of the object has them are hardly chance, however
small or turned the print is; an object without print has none, and then nothing is said. The pose is solved
with a guessed camera and only tells which key points agree, and the box: its depth is nobody's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from sightline.formats.refdet_templates import TemplatePicture
from sightline.geometry.boxes import clip, iou_matrix
from sightline.geometry.cameras import Camera, unproject
from sightline.geometry.nms import nms_mask
from sightline.geometry.pnp import solve_pnp
from sightline.geometry.poses import invert, transform
from sightline.geometry.symmetry import SymmetryGroup
from sightline.geometry.viewpoints import icosphere_directions
from sightline.objects.card import ObjectCard, Template
from sightline.records import Correspondences
from sightline.sift import FeatureBank, Features, build_bank
from sightline.sift.hypotheses import group_matches
from sightline.sift.matching import guided_matches, match_features

SAME_PLACE_IOU = 0.5
_FOCAL_IN_SIDES = 1.2  # of a camera that nobody knows, in the picture's longer sides
_TOLERANCE = 1 / 200  # of the picture's diagonal
_REACHES = (4.0, 2.0)  # tolerances within which features are matched again
_MOST_GROUPS = 4
_FEWEST, _FEWEST_AGREEING = 5, 8
_PHOTO_SIDE_PX = 448  # of the object in a photograph: finer print is not matched
_PHOTO_MARGIN = 0.05
_EVERY = 3  # pixels of a mask that make an outline


class Sightings(NamedTuple):
    """Where key points agree on one object.

    Args:
        boxes: ``(n, 4)`` float64 xyxy pixels around the object, within the picture.
        counts: ``(n,)`` float64 how many key points agree.
        shares: ``(n,)`` float64 how many of those in the box they are; few, where print in the background
            agrees by chance.
    """

    boxes: Float[Tensor, "n 4"]
    counts: Float[Tensor, " n"]
    shares: Float[Tensor, " n"]

    def select(self, keep: Tensor) -> Sightings:
        """Those that a mask or indices name."""
        return Sightings(self.boxes[keep], self.counts[keep], self.shares[keep])


@dataclass(frozen=True, eq=False)
class ObjectPrint:
    """The key points of an object, or of one photograph of it.

    Args:
        features: with their places on the object.
        diameter: of the object, in the unit of these places.
        outline: ``(p, 3)`` float64, outermost points.
    """

    features: FeatureBank
    diameter: float
    outline: Float[Tensor, "p 3"]


def print_of_card(card: ObjectCard) -> ObjectPrint:
    """The key points of a card, which keeps them.

    Args:
        card: the object.
    """
    points = card.mesh.vertices.double() if card.mesh is not None else _seen_points(card.templates)
    return ObjectPrint(build_bank(card), card.diameter, _outermost(points))


def print_of_photo(photo: TemplatePicture) -> ObjectPrint:
    """The key points of one photograph, as if the object were flat and faced the camera.

    Args:
        photo: with a mask or box of the object, which otherwise fills it.
    """
    color, mask = _cut_out(photo)
    height, width = mask.shape
    camera = Camera.from_focal(3.0 * width, width, height)
    depth = torch.full((height, width), 3.0)
    view = Template(
        torch.from_numpy(color), torch.from_numpy(mask), depth, camera.K, torch.eye(4).double(), "photo"
    )
    points = _seen_points([view])
    bounds = torch.stack([points.amin(0), points.amax(0)])
    diameter = float((bounds[1] - bounds[0]).norm())
    card = ObjectCard("photo", (view,), bounds, max(diameter, 1e-6), SymmetryGroup.none())
    return ObjectPrint(build_bank(card), card.diameter, _outermost(points))


def find_sightings(
    features: Features, prints: Sequence[ObjectPrint], image_size: tuple[int, int]
) -> Sightings:
    """Where a picture's key points agree on an object.

    Args:
        features: the picture's.
        prints: of the object, each of which may be seen by itself.
        image_size: ``(width, height)`` pixels.

    Returns:
        At most four places for each print; of those that are one, the best.
    """
    camera = Camera.from_focal(_FOCAL_IN_SIDES * max(image_size), *image_size)
    found = [
        seen
        for each in prints
        for group in _groups(features, each)
        if (seen := _settle(features, each, group, camera)) is not None
    ]
    if not found:
        return Sightings(torch.zeros(0, 4).double(), torch.zeros(0).double(), torch.zeros(0).double())
    boxes = torch.stack([box for box, _ in found])
    counts = torch.tensor([count for _, count in found]).double()
    x, y = features.points[:, None].unbind(-1)
    inside = (x >= boxes[:, 0]) & (x <= boxes[:, 2]) & (y >= boxes[:, 1]) & (y <= boxes[:, 3])
    shares = counts / torch.maximum(inside.sum(0).double(), counts)
    seen = Sightings(boxes, counts, shares)
    seen = seen.select((counts * shares).argsort(descending=True, stable=True))
    return seen.select(nms_mask(seen.boxes, -torch.arange(len(counts)).double(), SAME_PLACE_IOU))


def agreement(boxes: Float[Tensor, "n 4"], seen: Sightings) -> Float[Tensor, "n 2"]:
    """How many key points agree on each of some places: what a logistic regression weighs.

    Args:
        boxes: ``(n, 4)`` xyxy pixels.
        seen: where key points agree.

    Returns:
        ``(n, 2)`` float64: the logarithm of their number and one, and their share of those in the box; 0
        where none do.
    """
    if not len(seen.counts):
        return torch.zeros(len(boxes), 2, dtype=torch.float64)
    overlap = iou_matrix(boxes.double(), seen.boxes)
    nearest = overlap.argmax(1)
    here = overlap.amax(1) >= SAME_PLACE_IOU
    return torch.stack([seen.counts[nearest].log1p(), seen.shares[nearest]], 1) * here[:, None]


def _groups(features: Features, thing: ObjectPrint) -> list[Correspondences]:
    matches = match_features(features, thing.features, diameter=thing.diameter)
    groups = group_matches(matches, features, thing.features, max_groups=_MOST_GROUPS)
    return [matches.select(group).correspondences(features, thing.features) for group in groups]


def _settle(
    features: Features, thing: ObjectPrint, group: Correspondences, camera: Camera
) -> tuple[Tensor, int] | None:
    """The box of a group's pose after matching again near it, and how many agree; None where none do."""
    tolerance = max(2.0, _TOLERANCE * float(np.hypot(camera.width, camera.height)))
    found = group
    for slack, reach in zip((2.0, 1.0, 1.0), (*_REACHES, None), strict=True):
        if len(found) < _FEWEST:
            return None
        solved = solve_pnp(
            found.points_2d,
            found.points_3d,
            camera,
            weights=found.weights,
            max_error_px=slack * tolerance,
            min_inliers=_FEWEST,
        )
        if not solved.valid:
            return None
        if reach is not None:
            near = guided_matches(
                features, thing.features, camera, solved.cam_from_obj, radius_px=reach * tolerance
            )
            found = near.correspondences(features, thing.features)
    pixels = camera.project(transform(solved.cam_from_obj, thing.outline))
    pixels = pixels[pixels.isfinite().all(1)]
    if not len(pixels):
        return None
    box = clip(torch.cat([pixels.amin(0), pixels.amax(0)]), camera.image_size)
    if not bool((box[2:] - box[:2] >= 2.0).all()):
        return None
    count = int(solved.inliers.sum())
    return (box, count) if count >= _FEWEST_AGREEING else None


def _cut_out(photo: TemplatePicture) -> tuple[np.ndarray, np.ndarray]:
    """The part of a photograph that shows the object, no larger than it is matched, and its mask."""
    height, width = photo.image.shape[:2]
    mask = np.ones((height, width), dtype=bool) if photo.mask is None else photo.mask
    if photo.mask is None and photo.box is not None:
        columns, rows = np.arange(width), np.arange(height)[:, None]
        x1, y1, x2, y2 = photo.box.tolist()
        mask = (columns >= x1) & (columns <= x2) & (rows >= y1) & (rows <= y2)
    rows, columns = np.nonzero(mask.any(1))[0], np.nonzero(mask.any(0))[0]
    side = max(rows[-1] - rows[0], columns[-1] - columns[0]) + 1
    margin = round(_PHOTO_MARGIN * side)
    part = tuple(slice(max(own[0] - margin, 0), own[-1] + 1 + margin) for own in (rows, columns))
    color, mask = photo.image[part], mask[part]
    scale = min(1.0, _PHOTO_SIDE_PX / side)
    size = tuple(max(round(own * scale), 1) for own in color.shape[1::-1])
    smaller = cv2.resize(mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST).astype(bool)
    return cv2.resize(color, size, interpolation=cv2.INTER_AREA), smaller


def _seen_points(views: Sequence[Template]) -> Float[Tensor, "p 3"]:
    """Points of the object that its views show, object frame."""
    points = []
    for view in views:
        depth = view.depth * view.mask
        rows, columns = (depth[::_EVERY, ::_EVERY] > 0).nonzero().mul(_EVERY).unbind(1)
        pixels = torch.stack([columns, rows], 1).double()
        points.append(
            transform(
                invert(view.cam_from_obj.double()), unproject(pixels, depth[rows, columns].double(), view.K)
            )
        )
    return torch.cat(points)


def _outermost(points: Float[Tensor, "p 3"]) -> Float[Tensor, "q 3"]:
    """The points that lie farthest in some direction; all that a box around them needs."""
    return points[(points @ icosphere_directions(642).T).argmax(0).unique()]
