"""Poses that cannot be told apart are said to be so, in words and in files."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from sightline.formats.result_records import ImageResult
from sightline.formats.results import read_results, write_results
from sightline.geometry.rotations import exp
from sightline.geometry.symmetry import SymmetryGroup
from sightline.pipeline.ambiguity import with_alternatives
from sightline.records import PoseEstimate
from sightline.vis.words import label_pose

NONE = SymmetryGroup.none()


def turned(degrees: float, score: float) -> PoseEstimate:
    w = torch.tensor([0.0, math.radians(degrees), 0.0], dtype=torch.float64)
    return PoseEstimate(exp(w), torch.tensor([0.0, 0.0, 0.6]).double(), score, True, name="mug")


def test_another_side_that_scores_as_well_is_named():
    best = with_alternatives(turned(0, 0.60), [turned(3, 0.60), turned(180, 0.59), turned(90, 0.40)], NONE)
    assert [round(other.score, 2) for other in best.alternatives] == [0.59]
    assert best.reason == "the picture bears out another pose as well, turned by 180 degrees"
    assert best.score == 0.60


@pytest.mark.parametrize(
    "other",
    [turned(180, 0.50), turned(20, 0.60), PoseEstimate.failure("lost")],
    ids=["worse", "the same", "invalid"],
)
def test_what_is_worse_or_the_same_is_no_alternative(other):
    best = turned(0, 0.60)
    assert with_alternatives(best, [other], NONE) is best


def test_poses_that_a_symmetry_makes_equal_are_one():
    best, other = turned(0, 0.60), turned(180, 0.60)
    assert with_alternatives(best, [other], SymmetryGroup.cyclic(2, (0, 1, 0))) is best
    assert with_alternatives(best, [other], SymmetryGroup.continuous((0, 1, 0))) is best
    assert with_alternatives(best, [other], SymmetryGroup.cyclic(2, (0, 0, 1))).alternatives


def test_each_side_is_named_once_and_the_reason_is_kept():
    best = replace(turned(0, 0.60), reason="flat")
    found = with_alternatives(best, [turned(178, 0.58), turned(180, 0.59), turned(90, 0.58)], NONE)
    assert [round(other.score, 2) for other in found.alternatives] == [0.59, 0.58]
    assert found.reason.startswith("flat; the picture")


def test_files_and_labels_hold_them(tmp_path):
    best = with_alternatives(turned(0, 0.60), [turned(180, 0.59)], NONE)
    write_results(tmp_path / "poses.json", [ImageResult.of_records("a.png", poses=[best])])
    read = read_results(tmp_path / "poses.json").images[0].poses[0]
    torch.testing.assert_close(read.alternatives[0].R, best.alternatives[0].R)
    assert read.alternatives[0].score == 0.59
    assert "or another side" in label_pose(best)
    assert "or another side" not in label_pose(turned(0, 0.6))
