"""The reference detector sits the detection exam: a bank of views for each object, then the pictures."""

from __future__ import annotations

import time
from pathlib import Path

import torch

from sightline.objects.onboard import onboard_mesh
from sightline.pipeline.exam_run import ExamRun, Progress
from sightline.refdet.bank import TemplateBank
from sightline.refdet.reference_detector import ReferenceDetector
from sightline.synthetic import DetectionScorer, SyntheticObject, exam_objects, exam_pictures


def run_refdet_exam(
    weights: str | Path,
    *,
    split: str = "exam",
    limit: int | None = None,
    num_views: int = 42,
    swapped: bool = False,
    progress: Progress = lambda items, *_: items,
) -> ExamRun:
    """Let a reference detector sit the detection exam.

    Args:
        weights: of the detector.
        split: ``exam``, or ``development`` for everything that is tuned.
        limit: how many pictures; all unless given.
        num_views: views of each object in its bank.
        swapped: look for each object with the views of another, as a control.
        progress: wraps what takes long, with a text and a total.

    Returns:
        The figures.

    Raises:
        FileNotFoundError: there is no such file of weights.
        ValueError: weights of another model, an unknown split, or too few objects to be swapped.
    """
    detector = ReferenceDetector.from_checkpoint(weights)
    pictures = exam_pictures("detection", split, limit)
    wanted = {name for index in range(len(pictures)) for name in pictures.wanted(index)}
    objects = [thing for thing in exam_objects("detection", split) if thing.name in wanted]
    started = time.perf_counter()
    banks = {
        thing.name: _bank(detector, thing, num_views)
        for thing in progress(objects, "onboarding", len(objects))
    }
    onboarding = time.perf_counter() - started
    if swapped:
        names = list(banks)
        if len(names) < 3:
            raise ValueError(f"swapped: expected pictures of at least 3 objects, these have {len(names)}")
        # By two: the objects are rich and low in texture in turn.
        banks = {name: banks[other] for name, other in zip(names, names[2:] + names[:2], strict=True)}
    scorer, times = DetectionScorer(objects), []
    for picture in progress(pictures, "pictures", len(pictures)):
        started = time.perf_counter()
        found = detector.detect(picture.scene.image, {name: banks[name] for name in picture.wanted})
        times.append(time.perf_counter() - started)
        scorer.add(picture, found)
    middle = float(torch.tensor(times).median())
    return ExamRun(scorer.report(), len(objects), len(pictures), onboarding, middle)


def _bank(detector: ReferenceDetector, thing: SyntheticObject, num_views: int) -> TemplateBank:
    card = onboard_mesh(
        thing.mesh, name=thing.name, num_views=num_views, template_size=detector.settings.template_size[0]
    )
    return detector.onboard_card(card, max_templates=num_views)
