"""Matches between a picture's features and an object's bank: first blind, then guided by a pose."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sightline.geometry.cameras import Camera
from sightline.geometry.poses import transform
from sightline.records import Correspondences
from sightline.sift.bank import FeatureBank
from sightline.sift.features import Features

_NEIGHBOURS = 8
_CHUNK = 2048


@dataclass(frozen=True, eq=False)
class Matches:
    """Pairs of a picture's feature and a bank's feature.

    Args:
        query: ``(k,)`` int64 into the picture's features.
        bank: ``(k,)`` int64 into the bank.
        quality: ``(k,)`` float64 in (0, 1], 1 minus the ratio of the two nearest distances.
    """

    query: Int[Tensor, " k"]
    bank: Int[Tensor, " k"]
    quality: Float[Tensor, " k"]

    def __len__(self) -> int:
        return len(self.query)

    def select(self, keep: Tensor) -> Matches:
        """The pairs that a bool mask or an index tensor selects."""
        return Matches(self.query[keep], self.bank[keep], self.quality[keep])

    def correspondences(self, features: Features, bank: FeatureBank) -> Correspondences:
        """The pairs as 2-D to 3-D correspondences; a finer feature weighs more."""
        return Correspondences.build(
            features.points[self.query],
            bank.points_3d[self.bank],
            weights=localisation_weight(features.scales[self.query]),
            template=bank.template[self.bank],
            template_points=bank.template_points[self.bank],
        )


def localisation_weight(scales: Float[Tensor, " k"]) -> Float[Tensor, " k"]:
    """The inverse standard deviation of a key point's position, which grows with its scale."""
    return 1.0 / (1.0 + 0.05 * scales**2).sqrt()


def match_features(
    features: Features, bank: FeatureBank, *, diameter: float, max_ratio: float = 0.85
) -> Matches:
    """Match each feature of a picture with the nearest of a bank, by Lowe's ratio test.

    The second nearest is the nearest *at another place of the object* (a twentieth of the diameter away),
    since the same place is seen in many templates.

    Args:
        features: the picture's.
        bank: the object's.
        diameter: of the object, metres.
        max_ratio: the highest ratio of nearest to second nearest distance that is accepted.

    Returns:
        The accepted pairs.

    Cost: one ``n x m x 128`` matrix product, in chunks of 2,048 features.
    """
    if len(features) == 0 or len(bank) == 0:
        return _no_matches()
    leading = bank.leading.nonzero()[:, 0]
    descriptors = bank.descriptors[leading]
    count = min(_NEIGHBOURS, len(leading))
    best = [(part @ descriptors.T).topk(count, dim=1) for part in features.descriptors.split(_CHUNK)]
    similarity = torch.cat([b.values for b in best]).double()
    index = leading[torch.cat([b.indices for b in best])]
    apart = (bank.points_3d[index] - bank.points_3d[index[:, :1]]).norm(dim=-1) > diameter / 20
    # where all neighbours are the same place, the last bounds the second nearest from above
    apart[:, -1] = True
    second = similarity.gather(1, apart.int().argmax(1, keepdim=True))[:, 0]
    ratio = (_distance(similarity[:, 0]) / _distance(second).clamp_min(1e-9)).clamp(max=1.0)
    kept = (ratio < max_ratio).nonzero()[:, 0]
    return Matches(kept, index[kept, 0], 1.0 - ratio[kept])


def guided_matches(
    features: Features,
    bank: FeatureBank,
    camera: Camera,
    cam_from_obj: Float[Tensor, "4 4"],
    *,
    radius_px: float,
    max_view_angle: float = 0.7,
    min_similarity: float = 0.8,
) -> Matches:
    """Match near the places where a pose expects the features of the bank.

    Args:
        features: the picture's.
        bank: the object's.
        camera: the picture's camera.
        cam_from_obj: the expected pose, metres.
        radius_px: how far from its expected place a feature may lie, pixels.
        max_view_angle: templates seen from a direction farther off than this are left out, radians.
        min_similarity: the lowest Hellinger similarity accepted.

    Returns:
        For each feature of the picture the most similar one of the bank within reach.
    """
    if len(features) == 0 or len(bank) == 0:
        return _no_matches()
    direction = _view_direction(cam_from_obj, bank.points_3d)
    near = (bank.view_directions @ direction) > math.cos(max_view_angle)
    candidates = near[bank.template].nonzero()[:, 0]
    expected = camera.project(transform(cam_from_obj, bank.points_3d[candidates]))
    query, column = _pairs_within(features.points, expected, radius_px)
    scale = _expected_scale(bank, camera, cam_from_obj, candidates)
    like = (features.scales[query] / scale[column]).log2().abs() < 1.0
    query, column = query[like], column[like]
    # one product for the features that have a candidate at all; only the pairs are read from it
    rows, place = query.unique(return_inverse=True)
    similarity = (features.descriptors[rows] @ bank.descriptors[candidates].T)[place, column]
    best = torch.full((len(rows),), -1.0).scatter_reduce(0, place, similarity, "amax")
    winner = (similarity == best[place]) & (similarity > min_similarity)
    query, column, similarity = query[winner], column[winner], similarity[winner]
    first = torch.ones(len(query), dtype=torch.bool)
    first[1:] = query[1:] != query[:-1]
    return Matches(query[first], candidates[column[first]], similarity[first].double())


def _no_matches() -> Matches:
    none = torch.zeros(0, dtype=torch.long)
    return Matches(none, none, torch.zeros(0, dtype=torch.float64))


def _pairs_within(
    points: Float[Tensor, "n 2"], others: Float[Tensor, "m 2"], radius_px: float
) -> tuple[Int[Tensor, " p"], Int[Tensor, " p"]]:
    """All pairs nearer than a radius, in the order of the first; by k-d trees."""
    from scipy.spatial import KDTree

    known = others.isfinite().all(1).nonzero()[:, 0]
    if len(known) == 0:
        none = torch.zeros(0, dtype=torch.long)
        return none, none
    trees = (KDTree(points.numpy()), KDTree(others[known].numpy()))
    found = trees[0].sparse_distance_matrix(trees[1], radius_px, output_type="ndarray")
    first, second = torch.from_numpy(found["i"].copy()), torch.from_numpy(found["j"].copy())
    order = first.argsort(stable=True)
    return first[order], known[second[order]]


def _expected_scale(
    bank: FeatureBank, camera: Camera, cam_from_obj: Float[Tensor, "4 4"], candidates: Int[Tensor, " m"]
) -> Float[Tensor, " m"]:
    """The size at which the pose shows each feature of the bank, pixels."""
    depth = transform(cam_from_obj, bank.points_3d[candidates])[:, 2].clamp_min(1e-6)
    there = bank.focals_px[bank.template[candidates]] / bank.depths[candidates]
    return bank.scales[candidates] * (camera.K[0, 0] / depth) / there


def _view_direction(cam_from_obj: Float[Tensor, "4 4"], points: Float[Tensor, "m 3"]) -> Float[Tensor, "3"]:
    R, t = cam_from_obj[:3, :3], cam_from_obj[:3, 3]
    towards = -(R.T @ t) - (points.mean(0) if len(points) else torch.zeros(3, dtype=torch.float64))
    return towards / towards.norm()


def _distance(similarity: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
    """The Euclidean distance of two unit vectors with this dot product."""
    return (2.0 - 2.0 * similarity).clamp_min(0).sqrt()
