"""Hypotheses to poses, for the two searches that give poses and not correspondences."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from sightline.geometry.cameras import Camera
from sightline.geometry.pnp import PnPResult, solve_pnp
from sightline.objects.card import ObjectCard
from sightline.records import Correspondences
from sightline.vpog.inference import Hypotheses, VPOGMatcher


class ModePoses(NamedTuple):
    """Poses of one object in ``b`` pictures; what was not found is NaN and says why.

    Args:
        pose: ``(b, 4, 4)`` float64 ``cam_from_obj``, metres; NaN in its first three rows if not valid.
        confidence: ``(b,)`` float64 in [0, 1], the share of the correspondences' weight that agrees with the
            pose; 0 if not valid.
        valid: ``(b,)`` bool.
        reasons: why a pose is not valid; else empty.
    """

    pose: Float[Tensor, "b 4 4"]
    confidence: Float[Tensor, " b"]
    valid: Bool[Tensor, " b"]
    reasons: tuple[str, ...]


def find_poses(
    matcher: VPOGMatcher,
    images: Sequence[np.ndarray],
    card: ObjectCard,
    cameras: Sequence[Camera],
    boxes: Sequence[Float[Tensor, "4"] | None] | None = None,
    directions: Sequence[Float[Tensor, "3"] | None] | None = None,
    *,
    pooled: bool,
    max_error_px: float,
) -> ModePoses:
    """Search each picture and solve what was found there.

    Args:
        matcher: of one of the modes.
        images: ``(h, w, 3)`` uint8 RGB each.
        card: the object.
        cameras: of the pictures.
        boxes: ``xyxy`` pixels around the object; whole pictures where not given.
        directions: from the object to where the camera is expected, object frame.
        pooled: whether neighbouring templates are solved together, or each template for itself.
        max_error_px: of an inlier.

    Raises:
        ValueError: unequal numbers of pictures, cameras, boxes or directions.
    """
    boxes = [None] * len(images) if boxes is None else boxes
    directions = [None] * len(images) if directions is None else directions
    counts = {len(images), len(cameras), len(boxes), len(directions)}
    if len(counts) > 1:
        raise ValueError(f"images: expected as many as cameras, boxes and directions, got {sorted(counts)}")
    found = []
    for image, camera, box, direction in zip(images, cameras, boxes, directions, strict=True):
        searched = matcher.search(image, card, box=box, direction=direction)
        found.append(_best_pose(searched, camera, pooled=pooled, max_error_px=max_error_px))
    poses, confidences, reasons = zip(*found, strict=True) if found else ((), (), ())
    pose = torch.stack(poses) if poses else torch.zeros(0, 4, 4, dtype=torch.float64)
    confidence = torch.tensor(confidences, dtype=torch.float64)
    valid = torch.tensor([not reason for reason in reasons], dtype=torch.bool)
    return ModePoses(pose, confidence, valid, tuple(reasons))


def _best_pose(
    searched: Hypotheses, camera: Camera, *, pooled: bool, max_error_px: float
) -> tuple[Tensor, float, str]:
    """The pose on which most weight agrees, that weight's share, and why there is none."""
    groups = [group for group in searched.groups if pooled or len(group.template.unique()) == 1]
    best, most, share, reason = None, 0.0, 0.0, searched.reason or "no template has enough correspondences"
    for group in groups:
        solved = solve_pnp(
            group.points_2d, group.points_3d, camera, weights=group.weights, max_error_px=max_error_px
        )
        agreed = _agreed(group, solved)
        if solved.valid and agreed > most:
            best, most, share = solved, agreed, agreed / float(group.weights.sum())
        reason = solved.reason or reason
    if best is None:
        return PnPResult.failure(reason, torch.zeros(0, dtype=torch.bool)).cam_from_obj, 0.0, reason
    return best.cam_from_obj, share, ""


def _agreed(group: Correspondences, solved: PnPResult) -> float:
    return float(group.weights[solved.inliers].sum())
