"""Poses of detected objects: found by their boxes, then judged by depth, rotation, position and ADD(-S).

Unlike BOP's scores these do not ask a pose to be right before its object counts as found; they say how good
the poses are of what a detector finds, and how often object and pose are right together.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from sightline.geometry.boxes import iou
from sightline.geometry.symmetry import SymmetryGroup, symmetric_align
from sightline.metrics.matching import match_groups
from sightline.metrics.pose import add, adds, rotation_error_deg, translation_error
from sightline.records import Detections

SUCCESS_LIMITS: tuple[tuple[float, float], ...] = ((5.0, 0.05), (10.0, 0.1), (15.0, 0.1))
"""Degrees and metres within which a pose is a success."""
ADD_SHARE = 0.1
"""Of the diameter, below which ADD(-S) is right."""


@dataclass(frozen=True, eq=False)
class KnownShape:
    """What these figures have to know of an object.

    Args:
        points: ``(n, 3)`` float64 of its surface, metres, object frame.
        diameter: metres.
        symmetries: of it.
    """

    points: Float[Tensor, "n 3"]
    diameter: float
    symmetries: SymmetryGroup = field(default_factory=SymmetryGroup.none)


@dataclass(frozen=True, eq=False)
class DetectedPoses:
    """Detections of one picture with poses.

    Args:
        detections: with names; truths have any scores.
        cam_from_obj: ``(n, 4, 4)`` float64 metres, NaN where there is none.

    Raises:
        ValueError: another number of poses than of detections.
    """

    detections: Detections
    cam_from_obj: Float[Tensor, "_ 4 4"]

    def __post_init__(self) -> None:
        """Check that there is a pose, or NaN, for each."""
        if len(self.cam_from_obj) != len(self.detections):
            wanted, came = len(self.detections), len(self.cam_from_obj)
            raise ValueError(f"cam_from_obj: expected {wanted}, one a detection, got {came}")


class ObjectErrors(NamedTuple):
    """How one true object was found; infinite errors where no pose was.

    Args:
        name: of the object.
        iou: of the detection that found it; 0 where none did.
        turn_deg: rotation error, degrees, the least over the symmetries.
        shift: of the position, metres.
        depth_error: of z, metres.
        depth: true z, metres.
        add_share: ADD, or ADD-S of a symmetric object, in diameters.
    """

    name: str
    iou: float
    turn_deg: float
    shift: float
    depth_error: float
    depth: float
    add_share: float


@dataclass(frozen=True)
class DetectedPoseScore:
    """Figures of all true objects together; NaN where there was nothing to measure.

    Means and medians are over the objects that were found with a pose, shares over all.

    Args:
        num_truths: how many there were.
        found: share that was found, by box and name.
        mean_iou: of those.
        turn_median_deg: rotation, degrees.
        turn_mean_deg: rotation, degrees.
        shift_median: position, metres.
        shift_mean: position, metres.
        depth_abs_rel: mean of ``|z - z_true| / z_true``.
        depth_rmse: root of the mean square, metres.
        depth_median: median of ``|z - z_true| / z_true``.
        add_recall: share with ADD(-S) below a tenth of the diameter.
        success: share within each of ``SUCCESS_LIMITS``.
    """

    num_truths: int
    found: float
    mean_iou: float
    turn_median_deg: float
    turn_mean_deg: float
    shift_median: float
    shift_mean: float
    depth_abs_rel: float
    depth_rmse: float
    depth_median: float
    add_recall: float
    success: tuple[float, ...]


def detected_pose_errors(
    found: DetectedPoses,
    truth: DetectedPoses,
    shapes: Mapping[str, KnownShape],
    *,
    min_iou: float = 0.5,
    min_score: float = 0.0,
) -> list[ObjectErrors]:
    """How each true object of a picture was found.

    Detections choose in the order of their scores, each the free object of its name with which its box agrees
    best, as COCO has it.

    Args:
        found: what a method says.
        truth: what there is, each with a pose.
        shapes: of every object that there is.
        min_iou: intersection over union that makes a detection right.
        min_score: detections below it are not looked at.

    Returns:
        One entry a true object, in their order.

    Raises:
        ValueError: an object without a shape.

    Example:
        >>> pose = torch.eye(4, dtype=torch.float64)[None].clone()
        >>> pose[0, 2, 3] = 2.0
        >>> box, score = torch.tensor([[10.0, 10, 50, 60]]), torch.tensor([0.9])
        >>> truth = DetectedPoses(Detections(box, score, ("mug",), (64, 64)), pose)
        >>> shapes = {"mug": KnownShape(0.1 * torch.eye(3, dtype=torch.float64), 0.14)}
        >>> detected_pose_errors(truth, truth, shapes)[0].iou
        1.0
    """
    missing = sorted(set(truth.detections.names) - set(shapes))
    if missing:
        raise ValueError(f"shapes: expected one for each object, got none for {', '.join(missing)}")
    order = found.detections.scores.argsort(descending=True, stable=True)
    order = order[found.detections.scores[order] >= min_score]
    names = [found.detections.names[row] for row in order.tolist()]
    agreement = iou(found.detections.boxes[order][:, None].double(), truth.detections.boxes.double())
    same = torch.tensor([[a == b for b in truth.detections.names] for a in names], dtype=torch.bool)
    agreement = torch.where(same.reshape(agreement.shape), agreement, -torch.inf)
    limit = torch.tensor([-min_iou], dtype=torch.float64)
    chosen = match_groups([-agreement[None]], limit, inclusive=True)[0][0, 0].tolist()
    finder = {place: row for row, place in enumerate(chosen) if place >= 0}
    errors = []
    for place, name in enumerate(truth.detections.names):
        true_pose = truth.cam_from_obj[place]
        row = finder.get(place)
        if row is None:
            errors.append(_missed(name, true_pose, 0.0))
            continue
        pose = found.cam_from_obj[order[row]]
        errors.append(_errors(name, float(agreement[row, place]), pose, true_pose, shapes[name]))
    return errors


def score_detected_poses(errors: Sequence[ObjectErrors]) -> DetectedPoseScore:
    """The figures of true objects together.

    Args:
        errors: of each, see :func:`detected_pose_errors`.

    Example:
        >>> score = score_detected_poses([ObjectErrors("mug", 0.8, 4.0, 0.01, 0.02, 1.0, 0.05)])
        >>> score.found, score.depth_median, score.success
        (1.0, 0.02, (1.0, 1.0, 1.0))
    """
    columns = list(zip(*(each[1:] for each in errors), strict=True)) or [()] * 6
    agreement, turn, shift, off, depth, share = (
        torch.tensor(column, dtype=torch.float64) for column in columns
    )
    hit, posed = agreement > 0, turn.isfinite()
    relative = off[posed] / depth[posed]
    within = [((turn <= degrees) & (shift <= metres)) for degrees, metres in SUCCESS_LIMITS]
    return DetectedPoseScore(
        num_truths=len(errors),
        found=_mean(hit),
        mean_iou=_mean(agreement[hit]),
        turn_median_deg=_median(turn[posed]),
        turn_mean_deg=_mean(turn[posed]),
        shift_median=_median(shift[posed]),
        shift_mean=_mean(shift[posed]),
        depth_abs_rel=_mean(relative),
        depth_rmse=math.sqrt(_mean(off[posed].square())),
        depth_median=_median(relative),
        add_recall=_mean(share < ADD_SHARE),
        success=tuple(_mean(each) for each in within),
    )


def _errors(name: str, agreement: float, pose: Tensor, true_pose: Tensor, shape: KnownShape) -> ObjectErrors:
    if not bool(pose.isfinite().all()):
        return _missed(name, true_pose, agreement)
    wanted = symmetric_align(true_pose, pose, shape.symmetries)
    symmetric = shape.symmetries.axis is not None or len(shape.symmetries.discrete) > 1
    distance = (adds if symmetric else add)(pose, true_pose, shape.points)
    return ObjectErrors(
        name,
        agreement,
        float(rotation_error_deg(pose, wanted)),
        float(translation_error(pose, wanted)),
        abs(float(pose[2, 3] - wanted[2, 3])),
        float(wanted[2, 3]),
        float(distance) / shape.diameter,
    )


def _missed(name: str, true_pose: Tensor, agreement: float) -> ObjectErrors:
    return ObjectErrors(name, agreement, *[math.inf] * 3, float(true_pose[2, 3]), math.inf)


def _mean(values: Tensor) -> float:
    return float(values.double().mean()) if len(values) else math.nan


def _median(values: Tensor) -> float:
    """Of an even number the mean of the middle two."""
    return float(values.quantile(0.5)) if len(values) else math.nan
