from __future__ import annotations

import functools
import hashlib
from collections import Counter
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pytest
import torch

from sightline.synthetic import EXAM, ExamPicture, ExamPictures, exam_object, exam_objects, exam_pictures
from sightline.synthetic.exam_settings import RESERVED_TASKS

TASKS = tuple(EXAM.tasks)
SPLITS = ("train", "development", "exam")


@functools.cache
def pictures(task: str) -> ExamPictures:
    return exam_pictures(task)


@functools.cache
def picture_of(task: str, index: int) -> ExamPicture:
    return pictures(task)[index]


def test_the_settings_are_frozen():
    # a change of any value is a new version of the exam, with the figures of both given
    values = repr((EXAM.version, EXAM.rich_kinds, EXAM.low_kinds))
    values += repr([dict(seeds) for seeds in (EXAM.object_seeds, EXAM.print_seeds, EXAM.picture_seeds)])
    values += repr(dict(EXAM.tasks))
    assert hashlib.sha256(values.encode()).hexdigest()[:16] == "cfb8ca8f18bc687c"


@pytest.mark.parametrize("seeds", [EXAM.object_seeds, EXAM.print_seeds, EXAM.picture_seeds])
def test_splits_never_share_a_seed(seeds: dict[str, tuple[int, int]]):
    assert tuple(seeds) == SPLITS
    for (first, stop), (other_first, other_stop) in combinations(seeds.values(), 2):
        assert stop <= other_first or other_stop <= first


def test_prints_of_lookalikes_are_not_those_of_objects():
    for (first, stop), (other, end) in (
        (a, b) for a in EXAM.object_seeds.values() for b in EXAM.print_seeds.values()
    ):
        assert stop <= other or end <= first


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("split", SPLITS)
def test_all_seeds_lie_in_their_split(task: str, split: str):
    settings = EXAM.tasks[task]
    made = ExamPictures(
        settings, split, [exam_object(0, split), exam_object(1, split)] * 3, settings.num_pictures
    )
    first, stop = EXAM.picture_seeds[split]
    assert first <= made.seed_of(0) < made.seed_of(len(made) - 1) < stop
    low, high = EXAM.object_seeds[split]
    for index in (0, settings.num_objects - 1):
        assert low <= exam_object(index, split).seed < high
    alike = made._lookalike(0)
    low, high = EXAM.print_seeds[split]
    assert low <= alike.label_seed < high


def test_tasks_use_other_pictures_of_a_split():
    detection, pose = (EXAM.tasks[task] for task in ("detection", "pose"))
    assert detection.seed_offset + detection.num_pictures <= pose.seed_offset
    assert EXAM.tasks["pose-end-to-end"] == pose


def test_the_exam_is_as_large_as_promised():
    detection, pose = EXAM.tasks["detection"], EXAM.tasks["pose"]
    assert (detection.num_objects, detection.num_pictures) == (40, 400)
    assert detection.distractors[0] >= 1
    assert pose.num_objects >= 50
    assert pose.num_pictures * pose.num_wanted >= 1000
    assert pose.absent_every == 0


def test_half_of_the_objects_have_little_texture():
    # names and kinds follow from the number alone, so a few stand for all
    textures = [exam_object(index).texture for index in range(8)]
    assert textures == ["rich", "low"] * 4
    kinds = {thing.kind for thing in exam_objects("detection", limit=18)}
    assert kinds == set(EXAM.rich_kinds) == set(EXAM.low_kinds)


def test_a_third_of_the_pictures_lacks_the_object():
    settings = EXAM.tasks["detection"]
    dummy = ExamPictures(settings, "exam", [exam_object(0)] * 40, 400)
    asked = [dummy._wanted(index) for index in range(400)]
    counts = Counter(wanted[0] for wanted, _ in asked)
    assert set(counts.values()) == {10}
    absent = Counter(wanted[0] for wanted, missing in asked if missing)
    assert 0.31 < sum(absent.values()) / 400 < 0.36
    assert set(absent.values()) <= {3, 4}


@pytest.mark.parametrize("count", [40, 41, 42, 300])
def test_no_object_is_always_absent(count: int):
    dummy = ExamPictures(EXAM.tasks["detection"], "train", [exam_object(0)] * count, 6 * count)
    absent = Counter(w[0] for w, missing in map(dummy._wanted, range(6 * count)) if missing)
    assert set(absent.values()) == {2}
    assert len(absent) == count


def test_pose_pictures_ask_for_all_objects_equally_often():
    settings = EXAM.tasks["pose"]
    dummy = ExamPictures(settings, "exam", [exam_object(0)] * 60, 250)
    asked = [dummy._wanted(index)[0] for index in range(250)]
    assert all(len(set(wanted)) == 4 for wanted in asked)
    counts = Counter(number for wanted in asked for number in wanted)
    assert len(counts) == 60
    assert max(counts.values()) - min(counts.values()) <= 1


def test_training_may_use_more_objects_and_pictures_than_the_exam():
    objects = [exam_object(index, "train") for index in range(6)]
    made = exam_pictures("pose", "train", 100_000, objects=objects)
    assert len(made) == 100_000
    picture = made[99_999]
    assert set(picture.wanted) <= {thing.name for thing in objects}
    assert len(exam_pictures("pose", "development", 300)) == 300
    assert len(exam_pictures("pose", "exam", 300)) == 250


def test_detection_pictures():
    made = pictures("detection")
    assert len(made) == 400
    assert len(made.objects) == len({thing.name for thing in made.objects}) == 40
    for index in (0, 2):
        picture = picture_of("detection", index)
        assert picture.wanted == (made.objects[index].name,)
        assert picture.wanted == made.wanted(index) == made.wanted(index - 400)
        assert picture.scene.image.shape == (480, 640, 3)
        assert len(picture.scene) > len(picture.rows)
        assert picture.scene.names.count(picture.wanted[0]) == len(picture.rows) == len(picture.truth)
        assert (picture.scene.visib_fract[list(picture.rows)] >= 0.5).all()
    assert len(picture_of("detection", 0).rows) >= 1
    assert len(picture_of("detection", 2).rows) == 0


def test_pose_pictures():
    picture = picture_of("pose", 0)
    assert len(picture.wanted) == len(set(picture.wanted)) == len(picture.rows) == len(picture.poses) == 4
    assert tuple(pose.name for pose in picture.poses) == picture.wanted
    assert torch.equal(picture.poses[2].cam_from_obj, picture.scene.cam_from_obj[picture.rows[2]])
    assert torch.equal(picture.boxes, picture.scene.boxes[list(picture.rows)])
    longest = (picture.boxes[:, 2:] - picture.boxes[:, :2]).amax(1)
    assert (longest >= 69).all()
    assert (longest <= 221).all()


def test_a_picture_is_the_same_whatever_was_looked_at_before():
    made = pictures("detection")
    alone = ExamPictures(made.settings, "exam", made.objects, 400)
    assert (alone[-398].scene.image == picture_of("detection", 2).scene.image).all()
    with pytest.raises(IndexError):
        made[400]


@dataclass(frozen=True)
class Pin:
    """Version 1: poses to the digits of the layout, colours to what JPEG coders may differ in."""

    names: tuple[str, ...]
    focal: float
    shifts: list[list[float]]
    first_row: list[float]
    visible: list[float]
    mean_color: list[float]


PINS = {
    "detection": Pin(
        ("box-rich-11000000", "bracket-rich-11000034", "bumpy-low-11000027", "can-low-11000033"),
        766.6973697,
        [
            [0.0680886734, 0.0668974357, 0.9100050413],
            [0.2594324781, -0.2072697517, 1.1951046483],
            [-0.1376933984, -0.1298598905, 0.5133731740],
            [0.1303554725, -0.1761530472, 1.0178389164],
        ],
        [-0.8200062988, -0.5713257264, 0.0343013730],
        [1.0, 1.0, 0.8212736818, 1.0],
        [161.25, 138.84, 127.18],
    ),
    "pose": Pin(
        ("knob-rich-11000014", "knob-rich-11000050", "knob-low-11000049", "can-rich-11000056"),
        607.6836512,
        [
            [-0.1388311337, 0.0524855281, 0.3820190287],
            [0.1139309522, -0.1002056, 0.6893243107],
            [0.0379476125, 0.0332380804, 0.5533521903],
            [-0.1760193093, -0.1153938025, 0.5262966932],
        ],
        [0.3382083951, 0.5572121422, -0.7583730679],
        [1.0, 1.0, 1.0, 1.0],
        [116.77, 149.06, 131.08],
    ),
}


@pytest.mark.parametrize("task", PINS)
def test_the_first_picture_is_pinned(task: str):
    pin, scene = PINS[task], picture_of(task, 0).scene
    count = len(pin.names)
    assert scene.names[:count] == pin.names
    assert float(scene.camera.K[0, 0]) == pytest.approx(pin.focal, abs=1e-5)
    assert scene.cam_from_obj[:count, :3, 3].numpy() == pytest.approx(np.array(pin.shifts), abs=1e-6)
    assert scene.cam_from_obj[0, 0, :3].tolist() == pytest.approx(pin.first_row, abs=1e-6)
    assert scene.visib_fract[:count].tolist() == pytest.approx(pin.visible, abs=0.01)
    assert scene.image.mean((0, 1)).tolist() == pytest.approx(pin.mean_color, abs=1.0)


def test_reserved_and_unknown_names_are_refused():
    for task in RESERVED_TASKS:
        with pytest.raises(ValueError, match="not part of version 1"):
            exam_objects(task)
    with pytest.raises(ValueError, match="task: expected one of detection, pose"):
        exam_pictures("detetcion")
    with pytest.raises(ValueError, match="split: expected one of train, development, exam"):
        exam_objects("pose", "test")
    with pytest.raises(ValueError, match="the exam's own are fixed"):
        exam_pictures("pose", objects=[exam_object(0)])
    with pytest.raises(ValueError, match="more than 4, got 1"):
        exam_pictures("pose", "train", objects=[exam_object(0)])
    with pytest.raises(ValueError, match="limit"):
        exam_pictures("pose", limit=-1)
    with pytest.raises(ValueError, match="index"):
        exam_object(10**9)
