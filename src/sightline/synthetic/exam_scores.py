"""The exam's scorer of detections: predictions in, figures and the rows of a table out.

A scorer is fed picture by picture, so that no two pictures need to be in memory at once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from sightline.metrics import (
    coco_scores,
    count_detections,
    count_false_alarms,
    precision_recall_curves,
    wilson_interval,
)
from sightline.records import Detections
from sightline.synthetic.exam import ExamPicture
from sightline.synthetic.exam_report import HALVES, ExamReport, make_report
from sightline.synthetic.objects import SyntheticObject

_FALSE_ALARM_RATE = 0.05


class DetectionScorer:
    """Scores detections of the objects that each picture asks for.

    Args:
        objects: the task's objects.
        threshold: the score from which a detection is reported to a user, found on another set (calibrated on
            ``"development"``); without it no figure at a threshold is given.
        min_iou: the intersection over union that makes a detection right; COCO's figures have their own.

    Raises:
        ValueError: a threshold outside [0, 1], or an intersection over union that none or all boxes have.

    Example:
        >>> scorer = DetectionScorer([])
        >>> scorer.report().columns[:3]
        ('texture', 'pictures', 'ap50')
    """

    def __init__(
        self, objects: Sequence[SyntheticObject], *, threshold: float | None = None, min_iou: float = 0.5
    ) -> None:
        if threshold is not None and not 0 <= threshold <= 1:
            raise ValueError(f"threshold: expected a score in [0, 1], got {threshold}")
        if not 0 < min_iou <= 1:
            raise ValueError(f"min_iou: expected a number in (0, 1], got {min_iou}")
        self.threshold, self.min_iou = threshold, min_iou
        self._texture = {thing.name: thing.texture for thing in objects}
        self._found: list[Detections] = []
        self._truths: list[Detections] = []
        self._wanted: list[str] = []

    def add(self, picture: ExamPicture, found: Detections) -> None:
        """Take in what was found in one picture; detections of objects that it does not ask for do not count.

        Raises:
            ValueError: the detections belong to a picture of another size.
        """
        if tuple(found.image_size) != picture.scene.camera.image_size:
            raise ValueError(
                f"found: expected detections in a picture of {picture.scene.camera.image_size}, "
                f"got {found.image_size} for picture {picture.index}"
            )
        keep = [row for row, name in enumerate(found.names) if name in picture.wanted]
        names = tuple(found.names[row] for row in keep)
        self._found.append(Detections(found.boxes[keep], found.scores[keep], names, found.image_size))
        truth = picture.truth
        self._truths.append(Detections(truth.boxes, truth.scores, truth.names, truth.image_size))
        self._wanted.append(picture.wanted[0])

    def report(self) -> ExamReport:
        """The figures of all pictures so far."""
        rows = {half: self._rows(half) for half in HALVES}
        curves = {
            half: precision_recall_curves(*self._records(own), min_iou=self.min_iou).overall
            for half, own in rows.items()
        }
        by_object = {name: self._object_figures(name) for name in sorted(set(self._wanted))}
        figures = {half: self._half_figures(own) for half, own in rows.items()}
        return make_report("detection", figures, by_object, curves)

    def empty_scores(self) -> list[float]:
        """The best score in each picture that lacks what it asks for; 0 where nothing was found in it."""
        pairs = zip(self._found, self._truths, strict=True)
        return [float(f.scores.max()) if len(f) else 0.0 for f, t in pairs if len(t) == 0]

    def _rows(self, half: str) -> list[int]:
        return [i for i, name in enumerate(self._wanted) if half in ("all", self._texture[name])]

    def _records(self, rows: Sequence[int]) -> tuple[list[Detections], list[Detections]]:
        return [self._found[i] for i in rows], [self._truths[i] for i in rows]

    def _half_figures(self, rows: Sequence[int]) -> dict[str, float]:
        found, truths = self._records(rows)
        score = coco_scores(found, truths) if rows else None
        pooled = coco_scores(_pooled(found), _pooled(truths)) if rows else None
        return {
            "pictures": float(len(rows)),
            "ap50": score.ap50 if score else math.nan,
            "ap": score.ap if score else math.nan,
            "ap50_pooled": pooled.ap50 if pooled else math.nan,
            "ap_pooled": pooled.ap if pooled else math.nan,
            "recall_at_5pct_alarms": _recall_at_alarms(found, truths, self.min_iou),
            **self._figures_at_threshold(found, truths),
        }

    def _object_figures(self, name: str) -> dict[str, float]:
        rows = [i for i, wanted in enumerate(self._wanted) if wanted == name]
        found, truths = self._records(rows)
        score = coco_scores(found, truths)
        figures = {"pictures": float(len(rows)), "ap50": score.ap50, "ap": score.ap}
        return figures | self._figures_at_threshold(found, truths)

    def _figures_at_threshold(
        self, found: Sequence[Detections], truths: Sequence[Detections]
    ) -> dict[str, float]:
        if self.threshold is None:
            return {}
        counts = count_detections(found, truths, min_score=self.threshold, min_iou=self.min_iou).overall
        alarms = count_false_alarms(found, truths, min_score=self.threshold).overall
        sure = wilson_interval(counts.true_positives, counts.true_positives + counts.false_negatives)
        return {
            "precision": counts.precision,
            "recall": counts.recall,
            "recall_low": sure.low,
            "recall_high": sure.high,
            "f1": counts.f1,
            "mean_iou": counts.mean_iou,
            "empty": float(alarms.num_empty),
            "false_alarms": alarms.rate,
            "false_alarms_low": alarms.interval.low,
            "false_alarms_high": alarms.interval.high,
        }


def _pooled(records: Sequence[Detections]) -> list[Detections]:
    """All objects as one, so that scores have to be comparable between objects."""
    return [Detections(r.boxes, r.scores, ("object",) * len(r), r.image_size) for r in records]


def _recall_at_alarms(found: Sequence[Detections], truths: Sequence[Detections], min_iou: float) -> float:
    """Recall at the lowest threshold, found on this very set, that alarms in 5 % of the empty pictures."""
    empty = [f for f, t in zip(found, truths, strict=True) if len(t) == 0]
    if not empty or len(empty) == len(found):
        return math.nan
    surest = sorted((float(f.scores.max()) if len(f) else -math.inf for f in empty), reverse=True)
    allowed = math.floor(_FALSE_ALARM_RATE * len(empty))
    threshold = np.nextafter(surest[allowed], math.inf)
    return count_detections(found, truths, min_score=float(threshold), min_iou=min_iou).overall.recall
