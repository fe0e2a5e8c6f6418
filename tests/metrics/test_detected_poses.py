from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from sightline.geometry.rotations import exp
from sightline.geometry.symmetry import SymmetryGroup
from sightline.metrics import (
    DetectedPoses,
    KnownShape,
    ObjectErrors,
    detected_pose_errors,
    score_detected_poses,
)
from sightline.records import Detections

POINTS = torch.tensor([[0.05, 0, 0], [0, 0.05, 0], [0, 0, 0.05], [-0.05, 0, 0], [0, -0.05, 0]]).double()
SHAPES = {
    "mug": KnownShape(POINTS, 0.1),
    "can": KnownShape(POINTS, 0.1, SymmetryGroup.continuous((0, 0, 1))),
}


def pose(turn: tuple[float, float, float] = (0, 0, 0), t: tuple[float, float, float] = (0, 0, 1)) -> Tensor:
    matrix = torch.eye(4, dtype=torch.float64)
    matrix[:3, :3] = exp(torch.tensor(turn, dtype=torch.float64))
    matrix[:3, 3] = torch.tensor(t)
    return matrix


def poses(
    names: list[str], boxes: list[list[float]], matrices: list[Tensor], scores: list[float] | None = None
):
    record = Detections(
        torch.tensor(boxes, dtype=torch.float64).reshape(-1, 4),
        torch.tensor(scores or [1.0] * len(names), dtype=torch.float64),
        tuple(names),
        (200, 200),
    )
    stacked = torch.stack(matrices) if matrices else torch.zeros(0, 4, 4).double()
    return DetectedPoses(record, stacked)


A, B = [10.0, 10, 60, 60], [100.0, 100, 150, 150]


def test_golden_errors():
    truth = poses(["mug"], [A], [pose()])
    found = poses(["mug"], [A], [pose((0, 0, math.radians(12)), (0.03, 0, 1.04))])
    [error] = detected_pose_errors(found, truth, SHAPES)
    assert error.iou == 1
    assert error.turn_deg == pytest.approx(12)
    assert error.shift == pytest.approx(0.05)
    assert error.depth_error == pytest.approx(0.04)
    assert error.depth == 1
    score = score_detected_poses([error])
    assert score.success == (0, 0, 1)
    assert score.depth_abs_rel == score.depth_median == pytest.approx(0.04)
    assert score.depth_rmse == pytest.approx(0.04)
    assert score.add_recall == 0
    near = poses(["mug"], [A], [pose((0, 0, math.radians(3)), (0.003, 0, 1.0))])
    assert score_detected_poses(detected_pose_errors(near, truth, SHAPES)).add_recall == 1


def test_a_turn_about_the_axis_of_a_can_is_none():
    truth = poses(["can"], [A], [pose((0.2, 0, 0))])
    about = pose((0.2, 0, 0)) @ pose((0, 0, 1.3), (0, 0, 0))
    [error] = detected_pose_errors(poses(["can"], [A], [about]), truth, SHAPES)
    assert error.turn_deg == pytest.approx(0, abs=1e-5)
    [error] = detected_pose_errors(
        poses(["mug"], [A], [about]), poses(["mug"], [A], [pose((0.2, 0, 0))]), SHAPES
    )
    assert error.turn_deg == pytest.approx(math.degrees(1.3))


def test_adds_is_for_symmetric_objects_alone():
    # a quarter turn about z maps the points of the ring onto each other
    quarter = pose((0, 0, math.pi / 2))
    shares = {}
    for name in ("mug", "can"):
        truth = poses([name], [A], [pose()])
        shares[name] = detected_pose_errors(poses([name], [A], [quarter]), truth, SHAPES)[0].add_share
    assert shares["can"] == pytest.approx(0, abs=1e-6)
    assert shares["mug"] > 0.3


def test_the_surest_overlapping_detection_of_the_name_is_the_one():
    truth = poses(["mug", "can"], [A, B], [pose(), pose()])
    near = [12.0, 10, 60, 60]
    found = poses(
        ["mug", "mug", "can", "mug"],
        [A, near, A, B],
        [pose(t=(0, 0, 2)), pose(t=(0, 0, 1.5)), pose(), pose()],
        [0.5, 0.8, 0.9, 0.95],
    )
    mug, can = detected_pose_errors(found, truth, SHAPES)
    assert mug.depth_error == pytest.approx(0.5)
    assert 0.9 < mug.iou < 1
    assert can.iou == 0
    assert math.isinf(can.turn_deg)
    [mug, _] = detected_pose_errors(found, truth, SHAPES, min_score=0.85)
    assert mug.iou == 0


def test_missed_objects_count_in_shares_and_not_in_medians():
    hit = ObjectErrors("mug", 0.9, 2.0, 0.01, 0.01, 1.0, 0.02)
    far = ObjectErrors("mug", 0.7, 8.0, 0.03, 0.03, 1.0, 0.2)
    missed = ObjectErrors("mug", 0.0, *[math.inf] * 3, 1.0, math.inf)
    score = score_detected_poses([hit, far, missed, missed])
    assert (score.num_truths, score.found, score.mean_iou) == (4, 0.5, 0.8)
    assert (score.turn_median_deg, score.turn_mean_deg) == (5.0, 5.0)
    assert score.success == (0.25, 0.5, 0.5)
    assert score.add_recall == 0.25


def test_a_detection_without_a_pose_is_found_without_one():
    truth = poses(["mug"], [A], [pose()])
    found = poses(["mug"], [A], [torch.full((4, 4), torch.nan, dtype=torch.float64)])
    score = score_detected_poses(detected_pose_errors(found, truth, SHAPES))
    assert score.found == 1
    assert math.isnan(score.turn_median_deg)
    assert score.success == (0, 0, 0)


def test_nothing_at_all():
    empty = poses([], [], [])
    truth = poses(["mug"], [A], [pose()])
    assert detected_pose_errors(truth, empty, SHAPES) == []
    assert detected_pose_errors(empty, truth, SHAPES)[0].iou == 0
    score = score_detected_poses([])
    assert score.num_truths == 0
    assert math.isnan(score.found)
    with pytest.raises(ValueError, match="shapes: expected one for each object, got none for mug"):
        detected_pose_errors(truth, truth, {})
    with pytest.raises(ValueError, match="one a detection"):
        DetectedPoses(truth.detections, torch.zeros(2, 4, 4).double())
