"""The exam's scorer of poses: estimates in, figures and the rows of a table out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from sightline.geometry.boxes import boxes_from_masks
from sightline.geometry.rotations import log
from sightline.geometry.symmetry import SymmetryGroup, symmetric_align
from sightline.metrics import (
    BOP_SHARES,
    ObjectShape,
    PicturePoses,
    bop_average_recall,
    ellipsoid_levels,
    in_right_mode,
    pair_errors,
    rotation_error_deg,
    translation_error,
    vsd,
)
from sightline.records import PoseEstimate
from sightline.rendering import PreparedMesh
from sightline.synthetic.exam import ExamPicture
from sightline.synthetic.exam_report import HALVES, ExamReport, make_report
from sightline.synthetic.objects import SyntheticObject
from sightline.synthetic.silhouettes import draw_silhouette

_COVERED = (50, 90, 95)  # per cent


class PoseScorer:
    """Scores poses of the wanted instances, with symmetric errors and BOP's average recall.

    Of poses that claim a covariance it also says in how many the truth lies within the ellipsoids of 50, 90
    and 95 %. ``coverage_in_mode_...`` counts those in the right mode
    (:func:`~sightline.metrics.in_right_mode`), which are as many as these say if the covariances are right;
    ``coverage_all_...`` counts all that are valid, the wrong sides among them, whose number
    ``in_right_mode`` tells: no covariance can make up for them.

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
        self._errors: list[_Errors] = []

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
            self._errors.append(_errors(best, truth, symmetries, diameter))
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
        figures = {half: self._half(half) for half in HALVES}
        levels = {
            half: {
                f"{claim}, {which}": values
                for which, errors in (("right mode", _in_right_mode(own)), ("all", own))
                for claim, values in _levels(errors).items()
            }
            for half, own in ((half, self._errors_of(half)) for half in HALVES)
        }
        return make_report(self.task, figures, levels=levels)

    def _inside(self, half: str) -> set[str]:
        return {name for name, thing in self._objects.items() if half in ("all", thing.texture)}

    def _errors_of(self, half: str) -> list[_Errors]:
        inside = self._inside(half)
        return [each for each in self._errors if each.name in inside]

    def _half(self, half: str) -> dict[str, float]:
        errors, inside = self._errors_of(half), self._inside(half)
        turn = np.array([each.turn_deg for each in errors])
        shift = np.array([each.shift for each in errors])
        found = np.isfinite(turn)
        right = _in_right_mode(errors)
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
            "in_right_mode": len(right) / found.sum() if found.any() else math.nan,
            **_coverage("coverage_in_mode", right),
            **_coverage("coverage_all", errors),
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
    return PoseEstimate(
        estimate.R.double(),
        estimate.t.double(),
        estimate.score,
        True,
        estimate.covariance,
        name=name,
        covariance_freedom=estimate.covariance_freedom,
    )


class _Errors(NamedTuple):
    """How far off one estimate is; infinite, and NaN levels, for a missing one.

    Args:
        name: of the object.
        turn_deg: degrees.
        shift: of the origin, in diameters.
        rotation: level of the smallest ellipsoid about the estimate that holds the true rotation.
        translation: the same of the true position.
    """

    name: str
    turn_deg: float
    shift: float
    rotation: float = math.nan
    translation: float = math.nan


def _errors(
    estimate: PoseEstimate | None, truth: PoseEstimate, symmetries: SymmetryGroup, diameter: float
) -> _Errors:
    if estimate is None:
        return _Errors(truth.name, math.inf, math.inf)
    wanted = symmetric_align(truth.cam_from_obj, estimate.cam_from_obj, symmetries)
    turn = float(rotation_error_deg(estimate.cam_from_obj, wanted))
    shift = float(translation_error(estimate.cam_from_obj, wanted)) / diameter
    if estimate.covariance is None:
        return _Errors(truth.name, turn, shift)
    claims = torch.stack([estimate.covariance[:3, :3], estimate.covariance[3:, 3:]])
    off = torch.stack([log(wanted[:3, :3] @ estimate.R.mT), wanted[:3, 3] - estimate.t])
    rotation, translation = ellipsoid_levels(off, claims, estimate.covariance_freedom).tolist()
    return _Errors(truth.name, turn, shift, rotation, translation)


def _in_right_mode(errors: Sequence[_Errors]) -> list[_Errors]:
    turn = torch.tensor([each.turn_deg for each in errors], dtype=torch.float64)
    shift = torch.tensor([each.shift for each in errors], dtype=torch.float64)
    return [each for each, right in zip(errors, in_right_mode(turn, shift).tolist(), strict=True) if right]


def _coverage(name: str, errors: Sequence[_Errors]) -> dict[str, float]:
    """The shares of truths in the ellipsoids."""
    return {
        f"{name}_{claim}_{level}": _share((levels <= level / 100).numpy())
        for claim, levels in _levels(errors).items()
        for level in _COVERED
    }


def _levels(errors: Sequence[_Errors]) -> dict[str, Float[Tensor, " n"]]:
    """The levels of those that claim a covariance, by what is claimed."""
    levels = {
        claim: torch.tensor([getattr(each, claim) for each in errors], dtype=torch.float64)
        for claim in ("rotation", "translation")
    }
    return {claim: values[~values.isnan()] for claim, values in levels.items()}


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
