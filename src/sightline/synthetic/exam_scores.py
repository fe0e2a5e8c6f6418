"""The exam's scorers: predictions in, figures and the rows of a table out.

A scorer is fed picture by picture, so that no two pictures need to be in memory at once.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from sightline.geometry.boxes import boxes_from_masks
from sightline.geometry.symmetry import SymmetryGroup, symmetric_align
from sightline.metrics import (
    BOP_SHARES,
    ObjectShape,
    PicturePoses,
    PrecisionRecall,
    bop_average_recall,
    coco_scores,
    count_detections,
    count_false_alarms,
    pair_errors,
    precision_recall_curves,
    rotation_error_deg,
    translation_error,
    vsd,
    wilson_interval,
)
from sightline.records import Detections, PoseEstimate
from sightline.rendering import PreparedMesh
from sightline.synthetic.exam import ExamPicture
from sightline.synthetic.objects import SyntheticObject
from sightline.synthetic.silhouettes import draw_silhouette

HALVES = ("all", "rich", "low")

_FALSE_ALARM_RATE = 0.05
_COUNTS = ("pictures", "poses", "empty")


@dataclass(frozen=True)
class ExamReport:
    """What a task's scorer found.

    Args:
        task: the task.
        figures: half (``"all"``, ``"rich"``, ``"low"`` texture) -> figure -> value; NaN where there was
            nothing to measure.
        columns: the table's heading, the half first.
        rows: one a half, values as text.
        by_object: object -> figure -> value; of detection alone.
        curves: half -> precision and recall over all scores; of detection alone.
    """

    task: str
    figures: Mapping[str, Mapping[str, float]]
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    by_object: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    curves: Mapping[str, PrecisionRecall] = field(default_factory=dict)

    def object_table(self) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
        """The heading and the rows of a table of the objects, without the ends of intervals."""
        first = next(iter(self.by_object.values()), {})
        names = tuple(name for name in first if not name.endswith(("_low", "_high")))
        rows = tuple(
            (thing, *(_as_text(name, values[name]) for name in names))
            for thing, values in self.by_object.items()
        )
        return ("object", *names), rows


def _report(
    task: str,
    figures: Mapping[str, Mapping[str, float]],
    by_object: Mapping[str, Mapping[str, float]] | None = None,
    curves: Mapping[str, PrecisionRecall] | None = None,
) -> ExamReport:
    names = tuple(next(iter(figures.values())))
    rows = tuple(
        (half, *(_as_text(name, values[name]) for name in names)) for half, values in figures.items()
    )
    return ExamReport(task, figures, ("texture", *names), rows, by_object or {}, curves or {})


def _as_text(name: str, value: float) -> str:
    if math.isnan(value):
        return "-"
    return str(int(value)) if name in _COUNTS else f"{value:.3f}"


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
        return _report("detection", figures, by_object, curves)

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


class PoseScorer:
    """Scores poses of the wanted instances, with symmetric errors and BOP's average recall.

    Args:
        objects: the task's objects.
        task: ``"pose"``, with one estimate for each wanted instance in its order (true boxes were given), or
            ``"pose-end-to-end"``, with any estimates, told apart by their names.
        with_vsd: whether to render for VSD, which BOP's AR needs; about 10 ms a pose.

    Example:
        >>> PoseScorer([], task="pose").report().columns[:3]
        ('texture', 'poses', 'within_10deg_10pct')
    """

    def __init__(self, objects: Sequence[SyntheticObject], *, task: str, with_vsd: bool = True) -> None:
        self.task, self.with_vsd = task, with_vsd
        self._objects = {thing.name: thing for thing in objects}
        self._shapes = {t.name: ObjectShape.from_mesh(t.mesh, t.symmetries) for t in objects}
        self._pictures: list[PicturePoses] = []
        self._errors: list[tuple[str, float, float]] = []

    def add(self, picture: ExamPicture, estimates: Sequence[PoseEstimate]) -> None:
        """Take in the estimates of one picture; a failure is a `PoseEstimate` with ``valid`` False.

        Raises:
            ValueError: with true boxes, another number of estimates than wanted instances.
        """
        truths = picture.poses
        if self.task == "pose":
            if len(estimates) != len(truths):
                raise ValueError(
                    f"estimates: expected {len(truths)}, one a wanted instance, got {len(estimates)} "
                    f"for picture {picture.index}"
                )
            estimates = [_named(e, truth.name) for e, truth in zip(estimates, truths, strict=True)]
        estimates = [e for e in estimates if e.name in picture.wanted]
        for truth in truths:
            rivals = [e for e in estimates if e.valid and e.name == truth.name]
            best = max(rivals, key=lambda e: e.score, default=None)
            symmetries = self._objects[truth.name].symmetries
            diameter = self._shapes[truth.name].diameter
            self._errors.append((truth.name, *_errors(best, truth, symmetries, diameter)))
        visibility = picture.scene.visib_fract[list(picture.rows)]
        surfaces = self._vsd(picture, estimates) if self.with_vsd else None
        targets = {name: sum(t.name == name for t in truths) for name in picture.wanted}
        self._pictures.append(
            PicturePoses.from_records(
                picture.scene.camera, truths, estimates, visibility=visibility, vsd=surfaces, targets=targets
            )
        )

    def report(self) -> ExamReport:
        """The figures of all pictures so far."""
        return _report(self.task, {half: self._half(half) for half in HALVES})

    def _half(self, half: str) -> dict[str, float]:
        inside = {name for name, t in self._objects.items() if half in ("all", t.texture)}
        turn = np.array([r for name, r, _ in self._errors if name in inside])
        shift = np.array([t for name, _, t in self._errors if name in inside])
        found = np.isfinite(turn)
        pairs = pair_errors(self._pictures, self._shapes) if self._pictures else []
        bop = bop_average_recall([pair for pair in pairs if pair.name in inside], min_visibility=0.0)
        return {
            "poses": float(len(turn)),
            "within_10deg_10pct": _share((turn <= 10) & (shift <= 0.1)),
            "within_5deg_5pct": _share((turn <= 5) & (shift <= 0.05)),
            "valid": _share(found),
            "median_deg": float(np.median(turn[found])) if found.any() else math.nan,
            "median_shift": float(np.median(shift[found])) if found.any() else math.nan,
            "ar": bop.value if self.with_vsd else math.nan,
            **{f"ar_{name}": value for name, value in bop.by_error.items()},
        }

    def _vsd(self, picture: ExamPicture, estimates: Sequence[PoseEstimate]) -> Float[Tensor, "e g t"]:
        errors = torch.ones(len(estimates), len(picture.rows), len(BOP_SHARES), dtype=torch.float64)
        for e, estimate in enumerate(estimates):
            for g, truth in enumerate(picture.poses):
                if estimate.valid and estimate.name == truth.name:
                    shape, mesh = self._shapes[truth.name], self._objects[truth.name].prepared
                    errors[e, g] = _surface_error(picture, mesh, estimate, truth, shape.diameter)
        return errors


def _named(estimate: PoseEstimate, name: str) -> PoseEstimate:
    if not estimate.valid:
        return PoseEstimate.failure(estimate.reason, name=name)
    return PoseEstimate(estimate.R.double(), estimate.t.double(), estimate.score, True, name=name)


def _errors(
    estimate: PoseEstimate | None, truth: PoseEstimate, symmetries: SymmetryGroup, diameter: float
) -> tuple[float, float]:
    """Degrees, and the distance of the origins as a share of the diameter; infinite for a missing pose."""
    if estimate is None:
        return math.inf, math.inf
    wanted = symmetric_align(truth.cam_from_obj, estimate.cam_from_obj, symmetries)
    turn = rotation_error_deg(estimate.cam_from_obj, wanted)
    return float(turn), float(translation_error(estimate.cam_from_obj, wanted)) / diameter


def _surface_error(
    picture: ExamPicture, mesh: PreparedMesh, estimate: PoseEstimate, truth: PoseEstimate, diameter: float
) -> Float[Tensor, " t"]:
    """VSD, computed in the window that holds the object in both poses."""
    camera, observed = picture.scene.camera, picture.scene.depth
    size = camera.image_size
    drawn = [draw_silhouette(mesh, pose.cam_from_obj.numpy(), camera) for pose in (estimate, truth)]
    views = torch.stack([torch.from_numpy(silhouette.depth_in(size)) for silhouette in drawn])
    box = boxes_from_masks((views > 0).any(0))
    if box.isnan().any():
        return torch.ones(len(BOP_SHARES), dtype=torch.float64)
    left, top, right, bottom = (box + 0.5).int().tolist()
    window = camera.crop(left, top, right - left, bottom - top)
    estimated, true = views[:, top:bottom, left:right]
    return vsd(observed[top:bottom, left:right], true, estimated, window.K, diameter)


def _share(right: np.ndarray) -> float:
    return float(right.mean()) if len(right) else math.nan
