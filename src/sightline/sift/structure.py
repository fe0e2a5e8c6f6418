"""From posed photographs alone to a card: their features are matched with one another and triangulated.

Without a mesh a template knows the depth of its matched key points only, which is what the classical matcher
needs. There is nothing to render, so poses from such a card are not verified, and say so.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sightline.geometry.cameras import Camera
from sightline.geometry.poses import transform
from sightline.geometry.symmetry import SymmetryGroup
from sightline.geometry.triangulation import triangulate_robust
from sightline.objects.baking import PosedPhoto
from sightline.objects.card import ObjectCard, Provenance, Template
from sightline.objects.photos import straighten
from sightline.sift.features import Features, extract_features

_MAX_RATIO = 0.8
_MAX_ERROR = 1 / 250  # of the picture's longer side: the reprojection error of a kept point
_MIN_PARALLAX = 0.03  # radians between two rays of a kept point
_MIN_POINTS = 30
_TRIMMED = 0.01  # of the points at either end of each axis, which may be outliers


def onboard_photos(
    photos: list[PosedPhoto], *, name: str, provenance: Provenance | None = None
) -> ObjectCard:
    """Make a card from posed photographs without a mesh.

    Args:
        photos: at least two that overlap; masks keep the background out, which otherwise counts as object.
        name: the object's name.
        provenance: where the photographs come from.

    Returns:
        The card, not yet saved, without a mesh; its templates know depth at matched key points.

    Raises:
        ValueError: fewer than two photographs, or too few points that they agree on.
    """
    if len(photos) < 2:
        raise ValueError(
            f"expected a mesh, or at least two posed photographs without one; got {len(photos)} photograph"
        )
    photos = [straighten(photo) for photo in photos]
    features = [_features(photo) for photo in photos]
    lifted = [_lift(index, photos, features) for index in range(len(photos))]
    points = torch.cat([found.points for found in lifted])
    if len(points) < _MIN_POINTS:
        raise ValueError(
            f"the photographs agree on {len(points)} points, at least {_MIN_POINTS} are needed; "
            "are the poses right, and do neighbouring photographs overlap?"
        )
    low, high = points.quantile(_TRIMMED, dim=0), points.quantile(1 - _TRIMMED, dim=0)
    return ObjectCard(
        name=name,
        templates=tuple(
            _template(photo, found, low, high)
            for photo, found in zip(photos, lifted, strict=True)
            if len(found.points) > 0
        ),
        bounds=torch.stack([low, high]),
        diameter=float((high - low).norm()),
        symmetries=SymmetryGroup.none(),
        provenance=provenance or Provenance("photos"),
    )


class _Lifted(NamedTuple):
    """The key points of one photograph whose place in space is known."""

    pixels: Float[Tensor, "n 2"]
    points: Float[Tensor, "n 3"]


def _features(photo: PosedPhoto) -> Features:
    found = extract_features(photo.image.numpy(), max_features=6000)
    if photo.mask is None:
        return found
    x, y = found.points.round().long().unbind(1)
    height, width = photo.mask.shape
    return found.select(photo.mask[y.clamp(0, height - 1), x.clamp(0, width - 1)])


def _lift(index: int, photos: list[PosedPhoto], features: list[Features]) -> _Lifted:
    """Triangulate the key points of one photograph with all others that match them."""
    here, count = features[index], len(features[index])
    px = torch.full((len(photos), count, 2), torch.nan, dtype=torch.float64)
    px[index] = here.points
    for other, there in enumerate(features):
        if other != index and count and len(there) >= 2:
            mine, theirs = _mutual_matches(here, there)
            px[other, mine] = there.points[theirs]
    K = torch.stack([photo.camera.K for photo in photos])
    poses = torch.stack([photo.cam_from_obj for photo in photos])
    tolerance = _MAX_ERROR * max(photos[index].camera.image_size)
    solved = triangulate_robust(px, K, poses, max_error_px=tolerance, min_parallax=_MIN_PARALLAX)
    good = solved.valid & solved.inliers[index] & (solved.inliers.sum(0) >= 2)
    return _Lifted(here.points[good], solved.points[good])


def _mutual_matches(a: Features, b: Features) -> tuple[Int[Tensor, " k"], Int[Tensor, " k"]]:
    """Pairs that are each other's nearest and pass Lowe's test."""
    similarity = a.descriptors @ b.descriptors.T
    best = similarity.topk(2, dim=1)
    distance = (2 - 2 * best.values).clamp_min(0).sqrt()
    back = similarity.argmax(0)
    mine = torch.arange(len(a))
    mutual = back[best.indices[:, 0]] == mine
    kept = mutual & (distance[:, 0] < _MAX_RATIO * distance[:, 1])
    return mine[kept], best.indices[kept, 0]


def _template(
    photo: PosedPhoto, found: _Lifted, low: Float[Tensor, "3"], high: Float[Tensor, "3"]
) -> Template:
    """The whole photograph, with depth at the pixels of its key points."""
    camera = photo.camera
    depth = torch.zeros(camera.height, camera.width)
    columns, rows = found.pixels.round().long().unbind(1)
    depth[rows, columns] = transform(photo.cam_from_obj, found.points)[:, 2].float()
    mask = photo.mask if photo.mask is not None else _box_region(camera, photo.cam_from_obj, low, high)
    return Template(photo.image, mask, depth, camera.K, photo.cam_from_obj, "photo")


def _box_region(
    camera: Camera, cam_from_obj: Float[Tensor, "4 4"], low: Float[Tensor, "3"], high: Float[Tensor, "3"]
) -> Tensor:
    """Where the box around the points lies in the picture, when no mask says it better."""
    corners = torch.cartesian_prod(*torch.stack([low, high]).T)
    pixels = camera.project(transform(cam_from_obj, corners))
    mask = torch.zeros(camera.height, camera.width, dtype=torch.bool)
    x0, y0 = pixels.amin(0).floor().long().clamp_min(0).tolist()
    x1, y1 = pixels.amax(0).ceil().long().tolist()
    mask[y0 : y1 + 1, x0 : x1 + 1] = True
    return mask
