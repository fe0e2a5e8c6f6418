"""A detector learns from pictures without its objects how high chance scores, and keeps the threshold."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from sightline.geometry.boxes import iou_matrix
from sightline.nn.checkpoint import read_config, save_model
from sightline.pipeline.exam_refdet import onboard_exam, sit_refdet_exam
from sightline.pipeline.exam_run import Progress
from sightline.pipeline.hybrid_detector import EXTRA, HybridDetector
from sightline.pipeline.refdet_banks import make_banks
from sightline.pipeline.sources import open_source
from sightline.refdet.presence import PresenceThreshold, calibrate_presence
from sightline.refdet.reference_detector import ReferenceDetector
from sightline.refdet.second_look import fit_rescoring
from sightline.synthetic import ExamReport, exam_pictures
from sightline.synthetic.exam import ExamPicture

Calibrated = ReferenceDetector | HybridDetector


@dataclass(frozen=True)
class DetectorCalibration:
    """What was found.

    Args:
        presence: the threshold.
        num_objects: objects that were looked for.
        num_pictures: pictures without them.
        report: the figures at the threshold where truths are known; None for a folder of negatives.
    """

    presence: PresenceThreshold
    num_objects: int
    num_pictures: int
    report: ExamReport | None = None


def calibrate_on_negatives(
    detector: Calibrated,
    references: Sequence[Path],
    negatives: Path,
    *,
    false_alarms: float = 0.05,
    progress: Progress = lambda items, *_: items,
) -> DetectorCalibration:
    """Look for objects in pictures that show none of them.

    Args:
        detector: whose threshold is wanted.
        references: for each object its card, or a folder of photographs.
        negatives: a folder of pictures, or a video, without any of the objects.
        false_alarms: the rate that is not to be exceeded, of one object in one picture.
        progress: wraps what takes long, with a text and a total.

    Returns:
        The threshold with what it does on these pictures.

    Raises:
        FileNotFoundError: a reference or the folder is missing.
        ValueError: a reference or picture that cannot be used, or too few pictures for the rate.
    """
    source = open_source(negatives)
    banks = make_banks(detector, progress(references, "objects", len(references)))
    best = []
    own = detector.settings
    detector.settings = replace(own, rival_iou=None)  # what an object scores where no other silences it
    try:
        for frame in progress(source, "pictures", len(source)):
            found = detector.detect(frame.image, banks, score_threshold=0.0, max_instances=1)
            scores = dict(zip(found.names, found.scores.tolist(), strict=True))
            best += [scores.get(name, 0.0) for name in banks]
    finally:
        detector.settings = own
    presence = calibrate_presence(best, false_alarms, num_pictures=len(best) // max(len(banks), 1))
    return DetectorCalibration(presence, len(banks), presence.curve.num_pictures)


def calibrate_on_exam(
    detector: Calibrated,
    *,
    split: str = "development",
    limit: int | None = None,
    num_views: int = 42,
    false_alarms: float = 0.05,
    min_iou: float = 0.5,
    progress: Progress = lambda items, *_: items,
) -> DetectorCalibration:
    """Calibrate on the generated detection task, a third of whose pictures lack what they ask for.

    Args:
        detector: whose threshold is wanted.
        split: ``development`` or ``train``; nothing is tuned on the exam.
        limit: how many pictures; all unless given.
        num_views: views of each object in its bank.
        false_alarms: the rate that is not to be exceeded.
        min_iou: the intersection over union that makes a detection right, for the recall.
        progress: wraps what takes long, with a text and a total.

    Returns:
        The threshold, and the figures at it.

    Raises:
        ValueError: the split of the exam, or too few pictures for the rate.
    """
    if split == "exam":
        raise ValueError("split: expected development or train, nothing is tuned on the exam")
    count = len(exam_pictures("detection", split, limit))
    # the threshold's promise holds for scores that were joined on other pictures
    pictures = exam_pictures("detection", split, 2 * count)
    banks = onboard_exam(detector, pictures, split=split, num_views=num_views, progress=progress)
    rest = range(count, len(pictures))
    others = (pictures[index] for index in progress(rest, "looking twice", len(rest)))
    joined = join_looks(detector, others, banks, min_iou=min_iou)
    if joined is not None:
        detector.learn(joined)
    sat = sit_refdet_exam(detector, split=split, limit=count, banks=banks, min_iou=min_iou, progress=progress)
    presence = calibrate_presence(sat.scorer.empty_scores(), false_alarms)
    sat.scorer.threshold = presence.threshold
    return DetectorCalibration(presence, sat.num_objects, presence.num_empty, sat.scorer.report())


def join_looks(
    detector: Calibrated,
    pictures: Iterable[ExamPicture],
    banks: Mapping[str, Any],
    *,
    min_iou: float = 0.5,
) -> Float[Tensor, " weights"] | None:
    """How much each thing that a detector sees of a place says about being right.

    Args:
        detector: whose looks are judged one by one.
        pictures: with their truth.
        banks: of the objects that they ask for.
        min_iou: the intersection over union that makes a place right.

    Returns:
        What :func:`~sightline.refdet.second_look.fit_rescoring` gives; None where all places are right or
        all wrong, of which nothing can be learned.
    """
    columns, right = [], []
    for picture in pictures:
        image, boxes = picture.scene.image, picture.boxes
        for name in picture.wanted:
            (seen,) = detector.look(image, [banks[name]])
            columns.append(seen.columns)
            overlap = iou_matrix(seen.boxes, boxes.double())
            right.append((overlap >= min_iou).any(1))
    labels = torch.cat(right)
    if bool(labels.all()) or not bool(labels.any()):
        return None
    return fit_rescoring(torch.cat(columns), labels)


def write_calibrated(weights: Path, detector: Calibrated, presence: PresenceThreshold, output: Path) -> None:
    """Write weights that know their threshold, and the curve for other rates.

    What the learned detector and the hybrid one have learned stands side by side in one file.

    Args:
        weights: the file that the detector was read from, whose other values stay.
        detector: what it holds.
        presence: the threshold.
        output: the new file, ``.safetensors``.

    Raises:
        ValueError: another suffix.
    """
    stored = read_config(weights)
    found = presence.curve.to_extra(presence.rate)
    if isinstance(detector, HybridDetector):
        found = {EXTRA: {"rescoring": detector.rescoring.tolist(), **found}}
        model = detector.learned.model
    else:
        model = detector.model
    save_model(output, model, stored.config, {**stored.extra, **found})
