"""A matcher sits the frozen exam: cards of the exam's objects, its pictures, its scorers."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from sightline.objects.card import ObjectCard
from sightline.objects.onboard import onboard_mesh
from sightline.pipeline.detection import as_detections
from sightline.pipeline.estimate import FoundObject
from sightline.pipeline.estimators import EstimatorMaker
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
Control = Literal["swapped", "shuffled-poses"]


@dataclass(frozen=True)
class ExamRun:
    """A report and what it cost.

    Args:
        report: the scorer's figures.
        num_objects: how many objects were onboarded.
        num_pictures: how many pictures were looked at.
        onboarding_seconds: of all objects.
        picture_seconds: median time of a picture.
        object_seconds: median time of one object in one picture: with true boxes that of a crop.
    """

    report: ExamReport
    num_objects: int
    num_pictures: int
    onboarding_seconds: float
    picture_seconds: float
    object_seconds: float = math.nan


def run_exam(
    task: str,
    *,
    split: str = "exam",
    limit: int | None = None,
    min_iou: float = 0.5,
    make: EstimatorMaker | None = None,
    control: Control | None = None,
    with_depth: bool = False,
    progress: Progress = lambda items, *_: items,
) -> ExamRun:
    """Let a matcher sit one task of the frozen exam.

    Args:
        task: ``detection``, ``pose`` (true boxes are given) or ``pose-end-to-end``.
        split: ``exam``, or ``development`` for everything that is tuned.
        limit: how many pictures; all unless given.
        min_iou: of detection, the intersection over union that makes a detection right; AP has its own.
        make: makes what sits it; the classical matcher unless given.
        control: what must fail: ``swapped`` looks for each object with the card of another, whose texture is
            as rich; with ``shuffled-poses`` each template of a card is said to show another side.
        with_depth: whether the depth pictures are given too.
        progress: wraps what takes long, with a text and a total.

    Returns:
        The figures.

    Raises:
        ValueError: an unknown task or split, an intersection over union that cannot be, or too few objects to
            be swapped.
    """
    pictures = exam_pictures(task, split, limit)
    wanted = {name for index in range(len(pictures)) for name in pictures.wanted(index)}
    objects = [thing for thing in exam_objects(task, split) if thing.name in wanted]
    scorer = (
        DetectionScorer(objects, min_iou=min_iou) if task == "detection" else PoseScorer(objects, task=task)
    )
    make = make or EstimatorMaker()
    started = time.perf_counter()
    cards = [exam_card(thing) for thing in progress(objects, "onboarding", len(objects))]
    most = 4 if task == "detection" else 1
    estimators = {
        card.name: make([card], max_instances=most, min_score=0.0) for card in _controlled(cards, control)
    }
    onboarding = time.perf_counter() - started
    times, object_times = [], []
    for picture in progress(pictures, "pictures", len(pictures)):
        started = time.perf_counter()
        found = []
        for name, box in asked(picture, with_boxes=task == "pose"):
            began = time.perf_counter()
            found += estimators[name].find(
                picture.scene.image,
                picture.scene.camera,
                depth=picture.scene.depth if with_depth else None,
                boxes=None if box is None else {name: box},
            )
            object_times.append(time.perf_counter() - began)
        times.append(time.perf_counter() - started)
        if isinstance(scorer, DetectionScorer):
            scorer.add(picture, as_detections(found, picture.scene.camera.image_size))
        else:
            scorer.add(picture, _poses(picture, found, one_each=task == "pose"))
    return ExamRun(
        scorer.report(), len(objects), len(pictures), onboarding, _median(times), _median(object_times)
    )


def exam_card(thing: SyntheticObject) -> ObjectCard:
    """The card of an object of the exam.

    Args:
        thing: the object.
    """
    return onboard_mesh(thing.mesh, name=thing.name, symmetries=thing.symmetries)


def _controlled(cards: Sequence[ObjectCard], control: Control | str | None) -> list[ObjectCard]:
    """The cards as a control spoils them."""
    if control is None:
        return list(cards)
    if control == "swapped":
        if len(cards) < 3:
            raise ValueError(f"swapped: expected pictures of at least 3 objects, these have {len(cards)}")
        # By two: the objects are rich and low in texture in turn.
        others = (cards[(index + 2) % len(cards)] for index in range(len(cards)))
        return [replace(other, name=card.name) for card, other in zip(cards, others, strict=True)]
    if control == "shuffled-poses":
        return [_shuffled(card) for card in cards]
    raise ValueError(f"control: expected swapped or shuffled-poses, got {control!r}")


def _shuffled(card: ObjectCard) -> ObjectCard:
    """A card whose templates have one another's poses, none its own."""
    order = torch.randperm(len(card.templates), generator=torch.Generator().manual_seed(0)).tolist()
    views = list(card.templates)
    for here, there in zip(order, order[1:] + order[:1], strict=True):
        views[here] = replace(card.templates[here], cam_from_obj=card.templates[there].cam_from_obj)
    return replace(card, templates=tuple(views))


def asked(picture: ExamPicture, *, with_boxes: bool) -> list[tuple[str, Float[Tensor, "4"] | None]]:
    """The objects that a picture asks for, with their true boxes or without.

    Args:
        picture: of the exam.
        with_boxes: whether ``xyxy`` boxes are told; None otherwise.
    """
    if not with_boxes:
        return [(name, None) for name in picture.wanted]
    names = [picture.scene.names[row] for row in picture.rows]
    boxes = dict(zip(names, picture.boxes, strict=True))
    return [(name, boxes.get(name)) for name in picture.wanted]


def _median(times: Sequence[float]) -> float:
    return float(torch.tensor(times, dtype=torch.float64).median()) if times else math.nan


def _poses(picture: ExamPicture, found: list[FoundObject], *, one_each: bool) -> list[PoseEstimate]:
    """The estimates as the scorer wants them: of each true instance in turn, or all."""
    poses = [replace(one.pose, inliers=None) for one in found]
    if not one_each:
        return poses
    by_name = {pose.name: pose for pose in poses}
    return [by_name[truth.name] for truth in picture.poses]
