"""The classical matcher sits the frozen exam: cards of the exam's objects, its pictures, its scorers."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import torch

from sightline.objects.card import ObjectCard
from sightline.objects.onboard import onboard_mesh
from sightline.pipeline.detection import as_detections
from sightline.pipeline.estimate import FoundObject, PoseEstimator
from sightline.pipeline.run import make_estimator
from sightline.records import PoseEstimate
from sightline.synthetic import (
    DetectionScorer,
    ExamPicture,
    ExamReport,
    PoseScorer,
    SyntheticObject,
    exam_objects,
    exam_pictures,
)

Progress = Callable[[Iterable, str, int], Iterable]


@dataclass(frozen=True)
class ExamRun:
    """A report and what it cost.

    Args:
        report: the scorer's figures.
        num_objects: how many objects were onboarded.
        num_pictures: how many pictures were looked at.
        onboarding_seconds: of all objects.
        picture_seconds: median time of a picture.
    """

    report: ExamReport
    num_objects: int
    num_pictures: int
    onboarding_seconds: float
    picture_seconds: float


def run_exam(
    task: str,
    *,
    split: str = "exam",
    limit: int | None = None,
    min_iou: float = 0.5,
    progress: Progress = lambda items, *_: items,
) -> ExamRun:
    """Let the classical matcher sit one task of the frozen exam.

    Args:
        task: ``detection``, ``pose`` (true boxes are given) or ``pose-end-to-end``.
        split: ``exam``, or ``development`` for everything that is tuned.
        limit: how many pictures; all unless given.
        min_iou: of detection, the intersection over union that makes a detection right; AP has its own.
        progress: wraps what takes long, with a text and a total.

    Returns:
        The figures.

    Raises:
        ValueError: an unknown task or split, or an intersection over union that cannot be.
    """
    pictures = exam_pictures(task, split, limit)
    wanted = {name for index in range(len(pictures)) for name in pictures.wanted(index)}
    objects = [thing for thing in exam_objects(task, split) if thing.name in wanted]
    scorer = (
        DetectionScorer(objects, min_iou=min_iou) if task == "detection" else PoseScorer(objects, task=task)
    )
    started = time.perf_counter()
    estimators = {
        thing.name: make_estimator(
            [_card(thing)], max_instances=4 if task == "detection" else 1, min_score=0.0
        )
        for thing in progress(objects, "onboarding", len(objects))
    }
    onboarding = time.perf_counter() - started
    times = []
    for picture in progress(pictures, "pictures", len(pictures)):
        started = time.perf_counter()
        found = _look(picture, estimators, with_boxes=task == "pose")
        times.append(time.perf_counter() - started)
        if isinstance(scorer, DetectionScorer):
            scorer.add(picture, as_detections(found, picture.scene.camera.image_size))
        else:
            scorer.add(picture, _poses(picture, found, one_each=task == "pose"))
    middle = float(torch.tensor(times).median())
    return ExamRun(scorer.report(), len(objects), len(pictures), onboarding, middle)


def _card(thing: SyntheticObject) -> ObjectCard:
    return onboard_mesh(thing.mesh, name=thing.name, symmetries=thing.symmetries)


def _look(
    picture: ExamPicture, estimators: dict[str, PoseEstimator], *, with_boxes: bool
) -> list[FoundObject]:
    names = [picture.scene.names[row] for row in picture.rows]
    boxes = dict(zip(names, picture.boxes, strict=True)) if with_boxes else {}
    found = []
    for name in picture.wanted:
        box = {name: boxes[name]} if name in boxes else None
        found += estimators[name].find(picture.scene.image, picture.scene.camera, boxes=box)
    return found


def _poses(picture: ExamPicture, found: list[FoundObject], *, one_each: bool) -> list[PoseEstimate]:
    """The estimates as the scorer wants them: of each true instance in turn, or all."""
    poses = [replace(one.pose, inliers=None) for one in found]
    if not one_each:
        return poses
    by_name = {pose.name: pose for pose in poses}
    return [by_name[truth.name] for truth in picture.poses]
