from __future__ import annotations

import functools
import math
from dataclasses import replace

import pytest
import torch

from sightline.geometry.rotations import exp
from sightline.records import Detections, PoseEstimate
from sightline.synthetic import (
    DetectionScorer,
    ExamPicture,
    PoseScorer,
    SceneSettings,
    make_object,
    make_scene,
)

SETTINGS = SceneSettings(image_size=(240, 180), size_px=(45.0, 100.0))
BOTTLE = next(
    thing
    for thing in (make_object("bottle", seed, texture="low") for seed in range(9))
    if thing.symmetries.axis is not None
)
OBJECTS = [make_object("box", 0), BOTTLE]
NAMES = tuple(thing.name for thing in OBJECTS)


@functools.cache
def picture(index: int, wanted: tuple[int, ...] = (0, 1), *, absent: bool = False) -> ExamPicture:
    shown = [make_object("mug", 0)] if absent else [OBJECTS[number] for number in wanted]
    scene = make_scene(shown, index, SETTINGS)
    rows = () if absent else tuple(range(len(wanted)))
    return ExamPicture(index, scene, tuple(NAMES[number] for number in wanted), rows)


def found(boxes: list[list[float]], scores: list[float], name: str) -> Detections:
    return Detections(
        torch.tensor(boxes).reshape(-1, 4).double(),
        torch.tensor(scores).double(),
        (name,) * len(boxes),
        (240, 180),
    )


def score_detections(answer, **options) -> dict[str, dict[str, float]]:
    scorer = DetectionScorer(OBJECTS, **options)
    for index in range(6):
        shown = picture(index, (index % 2,), absent=index in (4, 5))
        scorer.add(shown, answer(shown))
    return scorer.report().figures


def right(shown: ExamPicture) -> Detections:
    return found(shown.boxes.tolist(), [0.9] * len(shown.rows), shown.wanted[0])


def test_the_truth_scores_one():
    figures = score_detections(right, threshold=0.5)
    for half in ("all", "rich", "low"):
        assert figures[half]["ap"] == figures[half]["ap50"] == figures[half]["ap_pooled"] == 1
        assert figures[half]["recall"] == figures[half]["recall_at_5pct_alarms"] == 1
        assert figures[half]["false_alarms"] == 0
    assert [figures[half]["pictures"] for half in ("all", "rich", "low")] == [6, 3, 3]


def test_silence_scores_nought_without_alarms():
    figures = score_detections(lambda shown: found([], [], shown.wanted[0]), threshold=0.5)
    assert figures["all"]["ap"] == figures["all"]["recall"] == figures["all"]["false_alarms"] == 0


def test_detections_of_other_objects_do_not_count():
    def chatty(shown: ExamPicture) -> Detections:
        true = right(shown)
        boxes = torch.cat([true.boxes, torch.tensor([[0.0, 0, 30, 30]]).double()])
        scores = torch.cat([true.scores, torch.ones(1).double()])
        return Detections(boxes, scores, (*true.names, "mug"), (240, 180))

    figures = score_detections(chatty, threshold=0.5)["all"]
    assert figures["ap"] == figures["ap_pooled"] == figures["precision"] == 1
    assert figures["false_alarms"] == 0


def test_alarms_in_empty_pictures_are_counted_and_cost():
    def eager(shown: ExamPicture) -> Detections:
        boxes = [*shown.boxes.tolist(), [0.0, 0, 30, 30]]
        return found(boxes, [0.6] * len(shown.rows) + [0.8], shown.wanted[0])

    figures = score_detections(eager, threshold=0.5)["all"]
    assert figures["false_alarms"] == 1
    assert figures["recall"] == 1
    assert figures["precision"] == pytest.approx(4 / 10)
    assert figures["ap50"] < 0.6
    assert figures["recall_at_5pct_alarms"] == 0
    assert 0.3 < figures["false_alarms_low"] < figures["false_alarms_high"] <= 1


def test_one_half_can_be_good_and_the_other_bad():
    def only_rich(shown: ExamPicture) -> Detections:
        return right(shown) if shown.wanted[0] == NAMES[0] else found([], [], shown.wanted[0])

    figures = score_detections(only_rich)
    assert figures["rich"]["ap50"] == 1
    assert figures["low"]["ap50"] == 0
    assert figures["all"]["ap50"] == pytest.approx(0.5)
    assert "false_alarms" not in figures["all"]


def shifted(shown: ExamPicture) -> Detections:
    """Each truth with an IoU of 0.6, and in an empty picture a faint box."""
    width = (shown.boxes[:, 2] - shown.boxes[:, 0])[:, None]
    boxes = shown.boxes + 0.25 * width * torch.tensor([1.0, 0, 1, 0]).double()
    faint = [[0.0, 0, 30, 30]] if not shown.rows else []
    return found(boxes.tolist() + faint, [0.9] * len(shown.rows) + [0.3] * len(faint), shown.wanted[0])


def test_figures_at_a_threshold_follow_the_overlap_asked_for():
    loose = score_detections(shifted, threshold=0.2)["all"]
    assert loose["recall"] == 1
    assert loose["mean_iou"] == pytest.approx(0.6)
    assert loose["precision"] == pytest.approx(4 / 6)
    assert loose["f1"] == pytest.approx(0.8)
    assert loose["recall_low"] == pytest.approx(0.5101, abs=1e-4)  # Wilson, 4 of 4
    assert (loose["empty"], loose["false_alarms"]) == (2, 1)
    strict = score_detections(shifted, threshold=0.4, min_iou=0.7)["all"]
    assert (strict["recall"], strict["false_alarms"], strict["precision"]) == (0, 0, 0)
    assert strict["ap50"] == loose["ap50"]


def test_objects_curves_and_empty_scores_are_reported():
    scorer = DetectionScorer(OBJECTS, threshold=0.5)
    for index in range(6):
        shown = picture(index, (index % 2,), absent=index in (4, 5))
        answer = shifted(shown) if index % 2 else found([], [], shown.wanted[0])
        scorer.add(shown, answer)
    report = scorer.report()
    assert {name: figures["recall"] for name, figures in report.by_object.items()} == {
        NAMES[0]: 0,
        NAMES[1]: 1,
    }
    assert [report.by_object[name]["pictures"] for name in NAMES] == [3, 3]
    assert report.curves["all"].recall.tolist() == [0.25, 0.5, 0.5]
    assert report.curves["low"].precision.tolist() == pytest.approx([1, 1, 2 / 3])
    assert len(report.curves["rich"].scores) == 0
    assert scorer.empty_scores() == pytest.approx([0.0, 0.3])


@pytest.mark.parametrize(
    "wrong", [{"threshold": 1.5}, {"threshold": -0.1}, {"min_iou": 0.0}, {"min_iou": 2.0}]
)
def test_limits_that_are_none_are_refused(wrong: dict[str, float]):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        DetectionScorer(OBJECTS, **wrong)


def test_detections_for_another_picture_size_are_refused():
    with pytest.raises(ValueError, match=r"\(240, 180\), got \(64, 64\) for picture 0"):
        DetectionScorer(OBJECTS).add(
            picture(0, (0,)), Detections(torch.zeros(0, 4), torch.zeros(0), (), (64, 64))
        )


def moved(
    pose: PoseEstimate, degrees: float = 0.0, shift: float = 0.0, axis: int = 0, **other
) -> PoseEstimate:
    turn = torch.zeros(3).double()
    turn[axis] = math.radians(degrees)
    offset = torch.tensor([shift, 0.0, 0.0]).double()
    return PoseEstimate(pose.R @ exp(turn), pose.t + offset, other.get("score", 0.9), True, name=pose.name)


def score_poses(answer, task: str = "pose", **options) -> dict[str, dict[str, float]]:
    scorer = PoseScorer(OBJECTS, task=task, **options)
    for index in range(2):
        scorer.add(picture(index), [answer(pose) for pose in picture(index).poses])
    return scorer.report().figures


@pytest.mark.parametrize("task", ["pose", "pose-end-to-end"])
def test_true_poses_score_one(task: str):
    figures = score_poses(lambda pose: pose, task)
    for half in ("all", "rich", "low"):
        values = figures[half]
        assert values["within_5deg_5pct"] == values["within_10deg_10pct"] == values["valid"] == 1
        assert values["ar"] == values["ar_vsd"] == values["ar_mssd"] == values["ar_mspd"] == 1
        assert values["median_deg"] < 1e-4
    assert [figures[half]["poses"] for half in ("all", "rich", "low")] == [4, 2, 2]


@pytest.mark.parametrize(
    ("degrees", "within_10", "within_5"), [(4.9, 1, 1), (5.1, 1, 0), (9.9, 1, 0), (10.1, 0, 0)]
)
def test_limits_of_rotation(degrees: float, within_10: int, within_5: int):
    figures = score_poses(lambda pose: moved(pose, degrees), with_vsd=False)["all"]
    assert figures["within_10deg_10pct"] == within_10
    assert figures["within_5deg_5pct"] == within_5
    assert figures["median_deg"] == pytest.approx(degrees, abs=1e-6)


def test_limits_of_translation_are_shares_of_the_diameter():
    diameter = {thing.name: thing.mesh.diameter for thing in OBJECTS}
    figures = score_poses(lambda pose: moved(pose, shift=0.07 * diameter[pose.name]), with_vsd=False)["all"]
    assert figures["within_10deg_10pct"] == 1
    assert figures["within_5deg_5pct"] == 0
    assert figures["median_shift"] == pytest.approx(0.07)
    assert math.isnan(figures["ar"])


def test_turning_a_plain_bottle_about_its_axis_costs_nothing():
    figures = score_poses(lambda pose: moved(pose, 123.0, axis=2))
    assert figures["low"]["within_5deg_5pct"] == 1
    assert figures["low"]["ar_mssd"] > 0.95
    assert figures["rich"]["within_10deg_10pct"] == 0


def test_failures_are_flagged_and_score_nought():
    figures = score_poses(lambda pose: PoseEstimate.failure("nothing matched"))["all"]
    assert figures["valid"] == figures["within_10deg_10pct"] == figures["ar"] == 0
    assert math.isnan(figures["median_deg"])


def test_end_to_end_the_surest_estimate_of_a_name_counts():
    def answers(sure: float, unsure: float) -> dict[str, float]:
        scorer = PoseScorer(OBJECTS, task="pose-end-to-end")
        truth = picture(0).poses
        wrong = [moved(pose, 90.0, 0.1, score=unsure) for pose in truth]
        stranger = PoseEstimate(truth[0].R, truth[0].t, 0.99, True, name="teapot")
        scorer.add(picture(0), [*wrong, stranger, *(moved(pose, score=sure) for pose in truth)])
        return scorer.report().figures["all"]

    assert answers(0.9, 0.1)["within_5deg_5pct"] == answers(0.9, 0.1)["ar"] == 1
    assert answers(0.1, 0.9)["within_5deg_5pct"] == 0
    assert answers(0.1, 0.9)["ar"] < 0.5


def test_a_hidden_part_of_the_truth_does_not_count_in_vsd():
    # VSD against the picture's own depth: sensor noise and occlusion must not cost a true pose anything
    scene = make_scene([*OBJECTS, make_object("toy", 0)], 12, SETTINGS, num_targets=2)
    shown = ExamPicture(12, scene, NAMES, (0, 1))
    scorer = PoseScorer(OBJECTS, task="pose")
    scorer.add(shown, shown.poses)
    assert scorer.report().figures["all"]["ar_vsd"] == 1


def test_with_true_boxes_every_instance_needs_an_answer():
    with pytest.raises(ValueError, match="expected 2, one a wanted instance, got 1 for picture 0"):
        PoseScorer(OBJECTS, task="pose").add(picture(0), [PoseEstimate.failure("?")])


def test_reports_have_a_table():
    report = PoseScorer(OBJECTS, task="pose").report()
    assert report.columns[0] == "texture"
    assert [row[0] for row in report.rows] == ["all", "rich", "low"]
    assert all(len(row) == len(report.columns) for row in report.rows)
    assert all(cell == "-" or cell.replace(".", "").isdigit() for row in report.rows for cell in row[1:])
    assert math.isnan(DetectionScorer(OBJECTS).report().figures["all"]["ap"])


def claiming(
    pose: PoseEstimate, degrees: float, shift: float, sigma_deg: float, sigma: float
) -> PoseEstimate:
    claim = torch.diag(torch.tensor([math.radians(sigma_deg)] * 3 + [sigma] * 3).double() ** 2)
    return replace(moved(pose, degrees, shift), covariance=claim)


def test_covariances_that_hold_the_truth_cover_it():
    # the ellipsoids of 50, 90 and 95 % reach 1.54, 2.50 and 2.80 sigma
    for sigmas, covered in ((1.2, [1, 1, 1]), (2.0, [0, 1, 1]), (2.6, [0, 0, 1]), (3.0, [0, 0, 0])):
        figures = score_poses(lambda pose, s=sigmas: claiming(pose, s, 0.01 * s, 1.0, 0.01), with_vsd=False)
        for half in ("all", "rich", "low"):
            rotation = [figures[half][f"coverage_all_rotation_{level}"] for level in (50, 90, 95)]
            translation = [figures[half][f"coverage_all_translation_{level}"] for level in (50, 90, 95)]
            assert rotation == translation == covered


def test_wrong_sides_are_counted_apart():
    sides = iter([3.0, 178.0] * 9)
    figures = score_poses(lambda pose: claiming(pose, next(sides), 0.0, 3.0, 0.01), with_vsd=False)["all"]
    assert figures["in_right_mode"] == 0.5
    assert figures["coverage_in_mode_rotation_50"] == 1
    assert figures["coverage_all_rotation_95"] == 0.5
    assert figures["coverage_in_mode_translation_50"] == figures["coverage_all_translation_50"] == 1


def test_rotation_and_position_are_covered_apart():
    figures = score_poses(lambda pose: claiming(pose, 9.0, 0.001, 1.0, 0.01), with_vsd=False)["all"]
    assert (figures["coverage_all_rotation_95"], figures["coverage_all_translation_50"]) == (0, 1)


def test_the_claims_are_about_the_camera_frame():
    # sure about x alone: an error about x is outside, one about another axis is inside
    claim = torch.diag(torch.tensor([1e-4, 1.0, 1.0, 1.0, 1.0, 1.0]).double())
    for axis, covered in ((0, 0.0), (1, 1.0)):
        scorer = PoseScorer(OBJECTS, task="pose", with_vsd=False)
        turn = torch.zeros(3).double()
        turn[axis] = 0.1
        answers = [
            PoseEstimate(exp(turn) @ pose.R, pose.t, 0.9, True, claim, name=pose.name)
            for pose in picture(0, (0,)).poses
        ]
        scorer.add(picture(0, (0,)), answers)
        assert scorer.report().figures["all"]["coverage_all_rotation_95"] == covered


def test_poses_without_a_claim_are_not_counted():
    report = PoseScorer(OBJECTS, task="pose", with_vsd=False).report()
    assert math.isnan(report.figures["all"]["coverage_all_rotation_50"])
    figures = score_poses(lambda pose: pose, with_vsd=False)
    assert math.isnan(figures["all"]["coverage_all_translation_90"])
