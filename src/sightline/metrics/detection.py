"""Detections at work: precision and recall at a threshold, the whole curve, and false alarms.

Where :mod:`sightline.metrics.coco` averages over everything, these figures say what a user meets who has
chosen a score threshold. A detection is right where its box overlaps a truth of the same object by the given
intersection over union; surer detections choose first.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from sightline.geometry.boxes import iou
from sightline.metrics.breakdown import Breakdown
from sightline.metrics.intervals import Interval, wilson_interval
from sightline.metrics.matching import match_groups
from sightline.records import Detections


@dataclass(frozen=True)
class DetectionCounts:
    """What was found, missed and imagined at one score threshold.

    Args:
        true_positives: detections of a truth.
        false_positives: detections of nothing.
        false_negatives: truths not detected.
        mean_iou: of the true positives with their truths; NaN where there are none.
    """

    true_positives: int
    false_positives: int
    false_negatives: int
    mean_iou: float

    @property
    def precision(self) -> float:
        """Share of the detections that are right; NaN without detections."""
        return _share(self.true_positives, self.true_positives + self.false_positives)

    @property
    def recall(self) -> float:
        """Share of the truths that were detected; NaN without truths."""
        return _share(self.true_positives, self.true_positives + self.false_negatives)

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall; NaN with neither detections nor truths."""
        wrong = self.false_positives + self.false_negatives
        return _share(2 * self.true_positives, 2 * self.true_positives + wrong)


@dataclass(frozen=True, eq=False)
class PrecisionRecall:
    """Precision and recall of the detections down to each score, not interpolated.

    Args:
        scores: ``(n,)`` falling.
        precision: ``(n,)``.
        recall: ``(n,)``, NaN where there was nothing to find.
    """

    scores: Float[Tensor, " n"]
    precision: Float[Tensor, " n"]
    recall: Float[Tensor, " n"]


@dataclass(frozen=True)
class FalseAlarms:
    """Detections in pictures where there is nothing to detect.

    Args:
        num_empty: pictures without the object.
        num_alarmed: of these, pictures with at least one detection of it.
        num_alarms: all detections in them.
        interval: Wilson's 95 % interval of the rate.
    """

    num_empty: int
    num_alarmed: int
    num_alarms: int
    interval: Interval

    @property
    def rate(self) -> float:
        """Share of the empty pictures with an alarm; NaN without empty pictures."""
        return _share(self.num_alarmed, self.num_empty)


def count_detections(
    detections: Sequence[Detections],
    truths: Sequence[Detections],
    *,
    min_iou: float = 0.5,
    min_score: float = 0.0,
    ignored: Sequence[Bool[Tensor, " n"]] | None = None,
) -> Breakdown[DetectionCounts]:
    """Count right, wrong and missing detections, over all and of each object.

    Args:
        detections: one record a picture.
        truths: one record a picture, in the same order; their scores are not read.
        min_iou: the intersection over union that makes a detection right.
        min_score: detections below it are left out.
        ignored: ``(n,)`` one mask a picture of truths that need not be found; a detection that finds one
            counts neither way.

    Returns:
        The counts.

    Raises:
        ValueError: lists of unequal length.

    Example:
        >>> true = Detections(torch.tensor([[10.0, 10, 50, 60]]), torch.ones(1), ("mug",), (64, 64))
        >>> count_detections([true], [true]).overall.f1
        1.0
    """
    judged = _judge(detections, truths, min_iou, ignored)
    by_object = {name: _count(verdicts, min_score) for name, verdicts in judged.by_object.items()}
    return Breakdown(_count(judged.overall, min_score), by_object)


def precision_recall_curves(
    detections: Sequence[Detections],
    truths: Sequence[Detections],
    *,
    min_iou: float = 0.5,
    ignored: Sequence[Bool[Tensor, " n"]] | None = None,
) -> Breakdown[PrecisionRecall]:
    """The precision-recall curve of all detections together and of those of each object.

    Args:
        detections: one record a picture.
        truths: one record a picture, in the same order.
        min_iou: the intersection over union that makes a detection right.
        ignored: as in :func:`count_detections`.

    Returns:
        The curves.

    Raises:
        ValueError: lists of unequal length.

    Example:
        >>> boxes = torch.tensor([[10.0, 10, 50, 60], [0.0, 0, 5, 5]])
        >>> found = Detections(boxes, torch.tensor([0.9, 0.4]), ("mug", "mug"), (64, 64))
        >>> true = Detections(boxes[:1], torch.ones(1), ("mug",), (64, 64))
        >>> precision_recall_curves([found], [true]).by_object["mug"].precision
        tensor([1.0000, 0.5000], dtype=torch.float64)
    """
    judged = _judge(detections, truths, min_iou, ignored)
    by_object = {name: _trace(verdicts) for name, verdicts in judged.by_object.items()}
    return Breakdown(_trace(judged.overall), by_object)


def count_false_alarms(
    detections: Sequence[Detections], truths: Sequence[Detections], *, min_score: float = 0.0
) -> Breakdown[FalseAlarms]:
    """Count detections of each object in pictures without it, and overall in pictures without any object.

    Args:
        detections: one record a picture.
        truths: one record a picture, in the same order.
        min_score: detections below it are left out.

    Returns:
        The false alarms.

    Raises:
        ValueError: lists of unequal length.

    Example:
        >>> found = Detections(torch.tensor([[10.0, 10, 50, 60]]), torch.tensor([0.9]), ("mug",), (64, 64))
        >>> empty = Detections(torch.zeros(0, 4), torch.zeros(0), (), (64, 64))
        >>> count_false_alarms([found, empty], [empty, empty]).overall.rate
        0.5
    """
    _check_lengths(detections, truths)
    alarms = [
        [name for name, score in zip(found.names, found.scores.tolist(), strict=True) if score >= min_score]
        for found in detections
    ]
    pictures = list(zip(alarms, truths, strict=True))
    by_object = {
        name: _alarms([found.count(name) for found, truth in pictures if name not in truth.names])
        for name in _object_names(detections, truths)
    }
    return Breakdown(_alarms([len(found) for found, truth in pictures if len(truth) == 0]), by_object)


class _Verdicts(NamedTuple):
    """Detections of one object or of all, the surest first, and how many truths there were."""

    scores: Float[Tensor, " n"]
    ious: Float[Tensor, " n"]
    right: Bool[Tensor, " n"]
    wrong: Bool[Tensor, " n"]
    num_truths: int


_NO_VERDICTS = (*torch.zeros(2, 0, dtype=torch.float64), *torch.zeros(2, 0, dtype=torch.bool))


def _judge(
    detections: Sequence[Detections],
    truths: Sequence[Detections],
    min_iou: float,
    ignored: Sequence[Tensor] | None,
) -> Breakdown[_Verdicts]:
    _check_lengths(detections, truths)
    if ignored is None:
        ignored = [torch.zeros(len(truth), dtype=torch.bool) for truth in truths]
    detections = [_by_score(record) for record in detections]
    overlaps = [_overlaps(record, truth) for record, truth in zip(detections, truths, strict=True)]
    limit = torch.tensor([-min_iou], dtype=torch.float64)
    matches = match_groups([-overlap[None] for overlap in overlaps], limit, inclusive=True)
    parts = [
        _verdicts(record, overlap, match[0, 0], skip)
        for record, overlap, match, skip in zip(detections, overlaps, matches, ignored, strict=True)
    ]
    columns = [torch.cat(column) for column in zip(_NO_VERDICTS, *parts, strict=True)]
    names = [name for record in detections for name in record.names]
    wanted = [
        name
        for truth, skip in zip(truths, ignored, strict=True)
        for name, skipped in zip(truth.names, skip.tolist(), strict=True)
        if not skipped
    ]
    by_object = {
        name: _rank([column[_equal(names, name)] for column in columns], wanted.count(name))
        for name in _object_names(detections, truths)
    }
    return Breakdown(_rank(columns, len(wanted)), by_object)


def _verdicts(
    record: Detections, overlap: Float[Tensor, "e g"], match: Tensor, skip: Bool[Tensor, " g"]
) -> tuple[Tensor, ...]:
    hit, chosen = match >= 0, match.clamp(min=0)
    # a column more, so that there is something to look up in a picture without truths
    iou = torch.nn.functional.pad(overlap, (0, 1)).gather(1, chosen[:, None])[:, 0]
    skipped = torch.nn.functional.pad(skip, (0, 1))[chosen]
    return record.scores.double(), iou, hit & ~skipped, ~hit


def _overlaps(record: Detections, truth: Detections) -> Float[Tensor, "e g"]:
    ious = iou(record.boxes[:, None].double(), truth.boxes.double())
    same = torch.stack([_equal(truth.names, name) for name in record.names]) if len(record) else ious > 0
    return torch.where(same, ious, -torch.inf)


def _by_score(record: Detections) -> Detections:
    order = record.scores.argsort(descending=True, stable=True)
    names = tuple(record.names[row] for row in order.tolist())
    return Detections(record.boxes[order], record.scores[order], names, record.image_size)


def _rank(columns: Sequence[Tensor], num_truths: int) -> _Verdicts:
    order = columns[0].argsort(descending=True, stable=True)
    scores, ious, right, wrong = (column[order] for column in columns)
    return _Verdicts(scores, ious, right, wrong, num_truths)


def _count(verdicts: _Verdicts, min_score: float) -> DetectionCounts:
    kept = verdicts.scores >= min_score
    right = verdicts.right & kept
    found = int(right.sum())
    return DetectionCounts(
        true_positives=found,
        false_positives=int((verdicts.wrong & kept).sum()),
        false_negatives=verdicts.num_truths - found,
        mean_iou=float(verdicts.ious[right].mean()),
    )


def _trace(verdicts: _Verdicts) -> PrecisionRecall:
    counted = verdicts.right | verdicts.wrong
    right = verdicts.right[counted].double().cumsum(0)
    precision = right / torch.arange(1, len(right) + 1, dtype=torch.float64)
    return PrecisionRecall(verdicts.scores[counted], precision, right / verdicts.num_truths)


def _alarms(per_picture: list[int]) -> FalseAlarms:
    alarmed = sum(count > 0 for count in per_picture)
    interval = wilson_interval(alarmed, len(per_picture))
    return FalseAlarms(len(per_picture), alarmed, sum(per_picture), interval)


def _object_names(*records: Sequence[Detections]) -> list[str]:
    return sorted({name for group in records for record in group for name in record.names})


def _equal(names: Sequence[str], wanted: str) -> Bool[Tensor, " n"]:
    return torch.tensor([name == wanted for name in names], dtype=torch.bool)


def _check_lengths(detections: Sequence[Detections], truths: Sequence[Detections]) -> None:
    if len(detections) != len(truths):
        raise ValueError(f"truths: expected one record a picture, {len(detections)}, got {len(truths)}")


def _share(part: int, whole: int) -> float:
    return part / whole if whole else math.nan
