"""Poses that the picture cannot tell apart: said so, not settled by the third decimal of a score."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from sightline.geometry.symmetry import SymmetryGroup, symmetric_distance
from sightline.records import PoseEstimate

_OTHER_SIDE = math.radians(30.0)  # apart; less is the same pose found twice
_NO_WORSE = 0.03  # of the verification score: a chosen margin


def with_alternatives(
    pose: PoseEstimate, others: Sequence[PoseEstimate], symmetries: SymmetryGroup
) -> PoseEstimate:
    """Note on a pose which other ones the picture bears out as well.

    Args:
        pose: a valid one, the best of its place.
        others: of the same object at the same place; invalid ones, and those that score clearly less or say
            nearly the same, do not count.
        symmetries: of the object: two poses that they make equal are one.

    Returns:
        The pose, with the others as ``alternatives`` and a ``reason`` where there are any.
    """
    kept: list[PoseEstimate] = []
    for other in sorted((o for o in others if o.valid), key=lambda o: o.score, reverse=True):
        apart = all(
            float(symmetric_distance(other.R, known.R, symmetries)) > _OTHER_SIDE for known in (pose, *kept)
        )
        if apart and other.score >= pose.score - _NO_WORSE:
            kept.append(replace(other, inliers=None, alternatives=()))
    if not kept:
        return pose
    turned = math.degrees(float(symmetric_distance(kept[0].R, pose.R, symmetries)))
    doubt = f"the picture bears out another pose as well, turned by {turned:.0f} degrees"
    reason = f"{pose.reason}; {doubt}" if pose.reason else doubt
    return replace(pose, reason=reason, alternatives=tuple(kept))
