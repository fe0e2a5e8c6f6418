"""The reference detector sits the detection exam: a bank of views for each object, then the pictures."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from sightline.objects.onboard import onboard_mesh
from sightline.pipeline.exam_run import ExamRun, Progress
from sightline.pipeline.hybrid_detector import HybridDetector
from sightline.refdet.bank_detector import Bank, BankDetector
from sightline.refdet.reference_detector import ReferenceDetector
from sightline.synthetic import DetectionScorer, SyntheticObject, exam_objects, exam_pictures
from sightline.synthetic.exam import ExamPictures


@dataclass(frozen=True)
class Sitting:
    """What a detector said about the exam's pictures, down to the faintest detection, and what it took.

    Args:
        scorer: has taken in all pictures.
        num_objects: how many objects were onboarded.
        num_pictures: how many pictures were looked at.
        onboarding_seconds: of all objects.
        picture_seconds: median time of a picture.
    """

    scorer: DetectionScorer
    num_objects: int
    num_pictures: int
    onboarding_seconds: float
    picture_seconds: float


def run_refdet_exam(
    weights: str | Path,
    *,
    hybrid: bool = False,
    split: str = "exam",
    limit: int | None = None,
    num_views: int = 42,
    swapped: bool = False,
    min_score: float | None = None,
    min_iou: float = 0.5,
    progress: Progress = lambda items, *_: items,
) -> ExamRun:
    """Let a reference detector sit the detection exam.

    Args:
        weights: of the detector.
        hybrid: whether key points are read too.
        split: ``exam``, or ``development`` for everything that is tuned.
        limit: how many pictures; all unless given.
        num_views: views of each object in its bank.
        swapped: look for each object with the views of another, as a control.
        min_score: the threshold of the figures at a threshold; that of the weights unless given.
        min_iou: the intersection over union that makes a detection right in them.
        progress: wraps what takes long, with a text and a total.

    Returns:
        The figures.

    Raises:
        FileNotFoundError: there is no such file of weights.
        ValueError: weights of another model, an unknown split, a threshold that is none, or too few objects
            to be swapped.
    """
    kind = HybridDetector if hybrid else ReferenceDetector
    detector = kind.from_checkpoint(weights)
    threshold = detector.settings.score_threshold if min_score is None else min_score
    sat = sit_refdet_exam(
        detector,
        split=split,
        limit=limit,
        num_views=num_views,
        swapped=swapped,
        threshold=threshold,
        min_iou=min_iou,
        progress=progress,
    )
    return ExamRun(
        sat.scorer.report(), sat.num_objects, sat.num_pictures, sat.onboarding_seconds, sat.picture_seconds
    )


def sit_refdet_exam(
    detector: BankDetector[Bank],
    *,
    split: str,
    limit: int | None = None,
    num_views: int = 42,
    banks: Mapping[str, Bank] | None = None,
    swapped: bool = False,
    threshold: float | None = None,
    min_iou: float = 0.5,
    progress: Progress = lambda items, *_: items,
) -> Sitting:
    """Show a detector the pictures of the detection exam.

    Args:
        detector: whose threshold is not read: all that it finds is taken in.
        split: ``exam``, or ``development`` for everything that is tuned.
        limit: how many pictures; all unless given.
        num_views: views of each object in its bank.
        banks: of the objects by name, where they are there already.
        swapped: look for each object with the views of another.
        threshold: of the scorer.
        min_iou: of the scorer.
        progress: wraps what takes long, with a text and a total.

    Returns:
        The scorer, ready to report.

    Raises:
        ValueError: an unknown split, a threshold that is none, or too few objects to be swapped.
    """
    pictures = exam_pictures("detection", split, limit)
    objects = _asked_for(pictures, split)
    if swapped and len(objects) < 3:
        raise ValueError(f"swapped: expected pictures of at least 3 objects, these have {len(objects)}")
    scorer = DetectionScorer(objects, threshold=threshold, min_iou=min_iou)
    started = time.perf_counter()
    if banks is None:
        banks = onboard_exam(detector, pictures, split=split, num_views=num_views, progress=progress)
    onboarding = time.perf_counter() - started
    if swapped:
        names = list(banks)
        # By two: the objects are rich and low in texture in turn.
        banks = {name: banks[other] for name, other in zip(names, names[2:] + names[:2], strict=True)}
    times = []
    for picture in progress(pictures, "pictures", len(pictures)):
        asked = {name: banks[name] for name in picture.wanted}
        started = time.perf_counter()
        found = detector.detect(picture.scene.image, asked, score_threshold=0.0)
        times.append(time.perf_counter() - started)
        scorer.add(picture, found)
    middle = float(torch.tensor(times).median())
    return Sitting(scorer, len(objects), len(pictures), onboarding, middle)


def onboard_exam(
    detector: BankDetector[Bank],
    pictures: ExamPictures,
    *,
    split: str,
    num_views: int = 42,
    progress: Progress = lambda items, *_: items,
) -> dict[str, Bank]:
    """The banks of all objects that some of the exam's pictures ask for, by name.

    Args:
        detector: that encodes them.
        pictures: of the detection task.
        split: that the pictures are of.
        num_views: views of each object.
        progress: wraps what takes long, with a text and a total.
    """
    objects = _asked_for(pictures, split)
    return {
        thing.name: _bank(detector, thing, num_views)
        for thing in progress(objects, "onboarding", len(objects))
    }


def _asked_for(pictures: ExamPictures, split: str) -> list[SyntheticObject]:
    wanted = {name for index in range(len(pictures)) for name in pictures.wanted(index)}
    return [thing for thing in exam_objects("detection", split) if thing.name in wanted]


def _bank(detector: BankDetector[Bank], thing: SyntheticObject, num_views: int) -> Bank:
    card = onboard_mesh(thing.mesh, name=thing.name, num_views=num_views, symmetries=thing.symmetries)
    return detector.onboard_card(card, max_templates=num_views)
