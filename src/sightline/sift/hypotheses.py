"""Groups of matches that agree on an object's centre: one group an instance (Lowe, 2004, section 7.3)."""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from sightline.sift.bank import FeatureBank
from sightline.sift.features import Features
from sightline.sift.matching import Matches

_MIN_MATCHES = 5


def group_matches(
    matches: Matches, features: Features, bank: FeatureBank, *, max_groups: int = 8
) -> list[Bool[Tensor, " k"]]:
    """Split matches into groups that vote for one object centre, size and in-plane rotation.

    Each match places the object by a similarity: its template's object centre, moved, turned and scaled as
    the feature is. Votes agree within a third of the voted size, a factor of two and 45 degrees. Perspective
    and other viewing angles blur the votes, hence the wide bins; PnP decides afterwards.

    Args:
        matches: all matches between a picture and one object.
        features: the picture's features.
        bank: the object's.
        max_groups: how many groups at the most.

    Returns:
        One mask over the matches a group, the best supported first.
    """
    if len(matches) < _MIN_MATCHES:
        return []
    center, log_size, angle = _votes(matches, features, bank)
    size = log_size.exp2()
    reach = torch.minimum(size[:, None], size[None]) / 3
    agree = torch.cdist(center, center) < reach
    agree &= (log_size[:, None] - log_size[None]).abs() < 1.0
    turn = (angle[:, None] - angle[None] + math.pi).remainder(2 * math.pi) - math.pi
    agree &= turn.abs() < math.pi / 4
    groups: list[Bool[Tensor, " k"]] = []
    free = torch.ones(len(matches), dtype=torch.bool)
    for _ in range(max_groups):
        support = (agree & free[None]).double() @ matches.quality
        support = torch.where(free, support, -1.0)
        leader = int(support.argmax())
        group = agree[leader] & free
        if int(group.sum()) < _MIN_MATCHES:
            break
        groups.append(group)
        free = free & ~group
    return groups


def _votes(
    matches: Matches, features: Features, bank: FeatureBank
) -> tuple[Float[Tensor, "k 2"], Float[Tensor, " k"], Float[Tensor, " k"]]:
    """The centre (pixels), log2 of the object's extent (pixels) and the turn that each match votes for."""
    template = bank.template[matches.bank]
    scale = features.scales[matches.query] / bank.scales[matches.bank]
    turn = features.angles[matches.query] - bank.angles[matches.bank]
    lever = bank.centers_px[template] - bank.template_points[matches.bank]
    cos, sin = turn.cos(), turn.sin()
    moved = torch.stack([cos * lever[:, 0] - sin * lever[:, 1], sin * lever[:, 0] + cos * lever[:, 1]], dim=1)
    center = features.points[matches.query] + scale[:, None] * moved
    extent = bank.extents_px[template] * scale
    return center, extent.clamp_min(1e-6).log2(), turn
