from __future__ import annotations

import hashlib
import math
from collections import Counter

import numpy as np
import pytest
import torch

from sightline.geometry.rotations import exp
from sightline.records import PoseEstimate
from sightline.synthetic import (
    EXAM,
    ClosedSetScorer,
    ExamPicture,
    FoundPose,
    closed_set_objects,
    closed_set_pictures,
    exam_pictures,
)
from sightline.synthetic.closed_set import closed_set_composites
from sightline.synthetic.exam_settings import CLOSED_SET
from sightline.synthetic.pose_views import PoseViewSettings


@pytest.fixture(scope="module")
def pictures() -> list[ExamPicture]:
    made = closed_set_pictures()
    return [made[index] for index in (0, 3, 9)]


def test_the_settings_are_frozen():
    assert hashlib.sha256(repr(CLOSED_SET).encode()).hexdigest()[:16] == "4c2e3e1c8aa1b951"


def test_the_objects_are_as_different_as_promised():
    objects = closed_set_objects()
    assert [thing.texture for thing in objects] == ["rich", "rich", "rich", "low", "low"]
    groups = [thing.symmetries for thing in objects]
    assert [group.axis is not None for group in groups] == [False, False, False, True, False]
    assert [len(group.discrete) for group in groups] == [1, 1, 1, 1, 5]
    seeds = {thing.seed for thing in objects}
    ranges = (*EXAM.object_seeds.values(), *EXAM.print_seeds.values())
    assert not any(first <= seed < stop for seed in seeds for first, stop in ranges)


def test_splits_and_tasks_never_share_a_seed():
    seeds: set[int] = set()
    for split in ("train", "development", "exam"):
        made = closed_set_pictures(split)
        own = {made.seed_of(0), made.seed_of(len(made) - 1)}
        first, stop = EXAM.picture_seeds[split]
        assert all(first <= seed < stop for seed in own)
        for task in EXAM.tasks.values():
            assert min(own) - first >= task.seed_offset + task.num_pictures
        assert not own & seeds
        seeds |= own


def test_each_object_is_shown_about_equally_often_and_some_pictures_are_empty():
    made = closed_set_pictures()
    assert len(made) == len(closed_set_pictures(limit=500)) == 200
    shown = [made.shown(index) for index in range(200)]
    assert Counter(map(len, shown)) == {0: 20, 1: 45, 2: 45, 3: 45, 4: 45}
    counts = Counter(label for labels in shown for label in labels)
    assert len(counts) == 5
    assert max(counts.values()) < 1.25 * min(counts.values())
    assert all(len(set(labels)) == len(labels) for labels in shown)


def test_pictures_show_what_they_say(pictures: list[ExamPicture]):
    made = closed_set_pictures()
    names = [thing.name for thing in made.objects]
    for picture, count in zip(pictures, (1, 4, 0), strict=True):
        assert picture.scene.image.shape == (480, 640, 3)
        assert picture.wanted == tuple(names)
        assert len(picture.rows) == count
        shown = sorted(names[label] for label in made.shown(picture.index))
        assert sorted(picture.truth.names) == shown
        assert len(picture.scene) > count
        if count:
            assert (picture.scene.visib_fract[list(picture.rows)] >= 0.5).all()
            sides = (picture.boxes[:, 2:] - picture.boxes[:, :2]).amax(1)
            assert ((sides > 65) & (sides < 225)).all()
    assert np.array_equal(made[0].scene.image, pictures[0].scene.image)


def test_the_first_picture_is_pinned(pictures: list[ExamPicture]):
    scene = pictures[0].scene
    pins = (
        "bottle-low-40000003",
        609.016847,
        [0.33127246, -0.04787437, 0.8201552],
        [114.58, 165.37, 145.96],
    )
    assert scene.names[0] == pins[0]
    assert float(scene.camera.K[0, 0]) == pytest.approx(pins[1], abs=1e-5)
    assert scene.cam_from_obj[0, :3, 3].tolist() == pytest.approx(pins[2], abs=1e-6)
    assert scene.image.mean((0, 1)).tolist() == pytest.approx(pins[3], abs=1.0)


def answers(
    picture: ExamPicture, *, turn: float = 0.0, deeper: float = 1.0, score: float = 0.9
) -> list[FoundPose]:
    R = exp(torch.tensor([turn, 0, 0], dtype=torch.float64))
    return [
        FoundPose(
            truth.name, score, box, PoseEstimate(truth.R @ R, truth.t * deeper, score, True, name=truth.name)
        )
        for truth, box in zip(picture.poses, picture.boxes, strict=True)
    ]


def test_the_truth_scores_full_marks(pictures: list[ExamPicture]):
    scorer = ClosedSetScorer()
    for picture in pictures:
        scorer.add(picture, answers(picture))
    report = scorer.report()
    figures = report.figures["all"]
    assert report.task == "closed-set-pose"
    assert (figures["pictures"], figures["objects"]) == (3, 5)
    assert figures["ap"] == figures["ap50"] == figures["found"] == figures["add_01d"] == 1
    assert figures["within_5deg_5cm"] == 1
    assert figures["median_deg"] == pytest.approx(0, abs=1e-5)
    assert figures["depth_rmse_m"] == pytest.approx(0, abs=1e-9)
    assert set(report.by_object) == {thing.name for thing in closed_set_objects()}
    assert report.object_table()[0][:3] == ("object", "pictures", "objects")


def test_errors_show_where_they_are_made(pictures: list[ExamPicture]):
    scorer = ClosedSetScorer()
    for picture in pictures:
        scorer.add(picture, answers(picture, turn=math.radians(12), deeper=1.05))
    figures = scorer.report().figures["all"]
    assert figures["ap50"] == 1
    assert figures["median_deg"] == pytest.approx(12, abs=0.1)
    assert figures["median_depth_pct"] == pytest.approx(5, abs=1e-6)
    assert figures["depth_abs_rel"] == pytest.approx(0.05)
    assert figures["within_5deg_5cm"] == 0
    assert figures["within_15deg_10cm"] > 0


def test_false_alarms_cost_precision_and_strangers_do_not_count(pictures: list[ExamPicture]):
    honest, eager = ClosedSetScorer(), ClosedSetScorer()
    name = closed_set_objects()[0].name
    box = torch.tensor([5.0, 5, 90, 90])
    for picture in pictures:
        alarms = [FoundPose(name, 0.99, box), FoundPose("stranger", 0.99, box)]
        honest.add(picture, answers(picture))
        eager.add(picture, [*alarms, *answers(picture)])
    assert honest.report().figures["all"]["ap50"] == 1
    assert eager.report().figures["all"]["ap50"] < 1
    assert eager.report().figures["low"]["ap50"] == 1
    with pytest.raises(ValueError, match="min_iou"):
        ClosedSetScorer(min_iou=0)


def test_faint_false_alarms_cost_nothing(pictures: list[ExamPicture]):
    scorer = ClosedSetScorer()
    box = torch.tensor([5.0, 5, 90, 90])
    for picture in pictures:
        faint = [FoundPose(thing.name, 0.1, box) for thing in closed_set_objects()]
        scorer.add(picture, [*faint, *answers(picture)])
    assert scorer.report().figures["all"]["ap50"] == 1


def test_other_tasks_point_here_and_the_exam_is_not_for_training():
    with pytest.raises(ValueError, match="closed_set_pictures"):
        exam_pictures("closed-set-pose")
    with pytest.raises(ValueError, match="split"):
        closed_set_pictures("test")
    with pytest.raises(ValueError, match="split"):
        closed_set_composites(split="exam")
    with pytest.raises(ValueError, match="limit"):
        closed_set_pictures(limit=-1)


def test_training_pictures_of_the_closed_set():
    views = PoseViewSettings(num_queries=4, query_px=48, query_aside=0.0)
    made = closed_set_composites(views=views, num_others=0, num_backdrops=1)
    seen = {int(label) for seed in range(12) for label in made.draw(np.random.default_rng(seed)).labels}
    assert seen == set(range(5))
