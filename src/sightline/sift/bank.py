"""All features of an object's templates, lifted to the object's surface: what a picture is matched with."""

from __future__ import annotations

from dataclasses import dataclass, fields

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy.spatial import KDTree
from torch import Tensor

from sightline.geometry.cameras import unproject
from sightline.geometry.poses import invert, transform
from sightline.objects.card import ObjectCard, Template
from sightline.objects.feature_cache import cached_features
from sightline.sift.features import Features, extract_features

_CACHE_KEY = "sift-rootsift-2"
_FEATURES_PER_TEMPLATE = 600
_SAME_PLACE = 0.01  # of the diameter
_SAME_LOOK = 0.9  # Hellinger similarity
_CHUNK = 1 << 18  # pairs compared at once, 256 MiB


@dataclass(frozen=True, eq=False)
class FeatureBank:
    """The lifted features of one object.

    Args:
        descriptors: ``(m, 128)`` float32 unit RootSIFT.
        points_3d: ``(m, 3)`` float64 object frame, metres.
        template: ``(m,)`` int64, the template each feature was seen in.
        template_points: ``(m, 2)`` float64 pixels in that template.
        scales: ``(m,)`` float64 pixels in that template.
        angles: ``(m,)`` float64 radians.
        depths: ``(m,)`` float64 metres, the point's depth in that template.
        leading: ``(m,)`` bool, one of each set that looks alike at one place: what is matched blindly.
        view_directions: ``(n, 3)`` float64, object to camera in the object frame, one a template.
        centers_px: ``(n, 2)`` float64, where the object's centre lies in each template.
        extents_px: ``(n,)`` float64, the object's diameter in each template.
        focals_px: ``(n,)`` float64, each template's focal length.
    """

    descriptors: Float[Tensor, "m 128"]
    points_3d: Float[Tensor, "m 3"]
    template: Int[Tensor, " m"]
    template_points: Float[Tensor, "m 2"]
    scales: Float[Tensor, " m"]
    angles: Float[Tensor, " m"]
    depths: Float[Tensor, " m"]
    leading: Bool[Tensor, " m"]
    view_directions: Float[Tensor, "n 3"]
    centers_px: Float[Tensor, "n 2"]
    extents_px: Float[Tensor, " n"]
    focals_px: Float[Tensor, " n"]

    def __len__(self) -> int:
        return len(self.points_3d)


def build_bank(card: ObjectCard) -> FeatureBank:
    """Extract, lift and collect the features of all templates of a card, or read them from its cache.

    Args:
        card: the object.

    Returns:
        The bank; empty for an object without texture.
    """
    tensors = cached_features(card, _CACHE_KEY, lambda: _compute(card))
    return FeatureBank(**tensors)


def extend_bank(bank: FeatureBank, card: ObjectCard) -> FeatureBank:
    """The bank with the features of a card's newest template; the others are not looked at again.

    Args:
        bank: of the card without that template.
        card: with it.

    Returns:
        The larger bank.
    """
    newest = _lift(card, len(card.templates) - 1)
    return FeatureBank(**{name: torch.cat([getattr(bank, name), rows]) for name, rows in newest.items()})


def _compute(card: ObjectCard) -> dict[str, Tensor]:
    lifted = [_lift(card, index) for index in range(len(card.templates))]
    bank = {f.name: torch.cat([part[f.name] for part in lifted]) for f in fields(FeatureBank)}
    bank["leading"] = _leading(bank["points_3d"], bank["descriptors"], card.diameter)
    return bank


def _leading(
    points_3d: Float[Tensor, "m 3"], descriptors: Float[Tensor, "m 128"], diameter: float
) -> Bool[Tensor, " m"]:
    """Greedy suppression of features that another one at the same place, in another template, stands for."""
    leads = np.ones(len(points_3d), dtype=bool)
    if len(points_3d) == 0:
        return torch.from_numpy(leads)
    pairs = KDTree(points_3d.numpy()).query_pairs(_SAME_PLACE * diameter, output_type="ndarray")
    first, second = torch.from_numpy(pairs).split(1, dim=1)
    parts = zip(first[:, 0].split(_CHUNK), second[:, 0].split(_CHUNK), strict=True)
    alike = [(descriptors[i] * descriptors[j]).sum(1) > _SAME_LOOK for i, j in parts]
    pairs = pairs[torch.cat(alike).numpy()] if alike else pairs[:0]
    pairs = pairs[np.argsort(pairs[:, 0], kind="stable")]
    starts = np.searchsorted(pairs[:, 0], np.arange(len(leads) + 1))
    for index in np.flatnonzero(np.diff(starts)):
        if leads[index]:
            leads[pairs[starts[index] : starts[index + 1], 1]] = False
    return torch.from_numpy(leads)


def _lift(card: ObjectCard, index: int) -> dict[str, Tensor]:
    """The rows of the bank that one template gives."""
    view = card.templates[index]
    features = _features_on_object(view)
    depth = _depth_at(view, features.points)
    known = depth > 0
    features, depth = features.select(known), depth[known]
    points_cam = unproject(features.points, depth, view.K)
    center_cam = transform(view.cam_from_obj, card.center[None])[0]
    return {
        "descriptors": features.descriptors,
        "points_3d": transform(invert(view.cam_from_obj), points_cam),
        "template": torch.full((len(features),), index),
        "template_points": features.points,
        "scales": features.scales,
        "angles": features.angles,
        "depths": depth,
        "leading": torch.ones(len(features), dtype=torch.bool),
        "view_directions": -view.cam_from_obj[None, 2, :3],
        "centers_px": (view.K @ (center_cam / center_cam[2]))[None, :2],
        "extents_px": (view.K[0, 0] * card.diameter / center_cam[2])[None],
        "focals_px": view.K[None, 0, 0],
    }


def _features_on_object(view: Template) -> Features:
    """Features whose core lies on the object; the background is flattened so that it adds no edges."""
    mask = view.mask.numpy()
    color = view.color.numpy().copy()
    color[~mask] = np.median(color[mask], axis=0).astype(np.uint8)
    features = extract_features(color, max_features=_FEATURES_PER_TEMPLATE)
    inside = cv2.distanceTransform(np.pad(mask, 1).astype(np.uint8), cv2.DIST_L2, 3)[1:-1, 1:-1]
    distance = torch.from_numpy(_nearest(inside, features.points))
    return features.select(distance >= torch.clamp(features.scales / 2, min=1.5))


def _nearest(grid: np.ndarray, points: Float[Tensor, "n 2"]) -> np.ndarray:
    height, width = grid.shape
    columns = points[:, 0].round().long().clamp(0, width - 1).numpy()
    rows = points[:, 1].round().long().clamp(0, height - 1).numpy()
    return grid[rows, columns]


def _depth_at(view: Template, points: Float[Tensor, "n 2"]) -> Float[Tensor, " n"]:
    """Bilinear depth where all four neighbours are known and near each other, else the nearest pixel's."""
    depth = view.depth.double()
    height, width = depth.shape
    low = points.floor().long()
    x = torch.stack([low[:, 0], low[:, 0] + 1]).clamp(0, width - 1)
    y = torch.stack([low[:, 1], low[:, 1] + 1]).clamp(0, height - 1)
    corners = torch.stack([depth[y[j], x[i]] for j in (0, 1) for i in (0, 1)])
    u, v = (points - low).unbind(1)
    blend = torch.stack([(1 - u) * (1 - v), u * (1 - v), (1 - u) * v, u * v])
    smooth = (corners.amin(0) > 0) & (corners.amax(0) < 1.02 * corners.amin(0))
    nearest = torch.from_numpy(_nearest(depth.numpy(), points))
    return torch.where(smooth, (blend * corners).sum(0), nearest)
