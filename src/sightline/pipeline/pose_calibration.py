"""How far a matcher's poses are off, learned from objects whose poses are known: a model of errors fitted.

Poses in the right mode alone are looked at. A few numbers (see :class:`PoseErrors`) are chosen so that the
levels of the ellipsoids that hold the truth are uniform, for rotation and position at once; of what does that
about equally well, the likelihood of the errors prefers the sharper.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from sightline.geometry.rotations import log
from sightline.geometry.symmetry import symmetric_align
from sightline.metrics import coverage, ellipsoid_levels, in_right_mode
from sightline.objects.card import ObjectCard
from sightline.objects.pose_errors import ErrorModel, PoseErrors
from sightline.pipeline.estimate import PoseEstimator
from sightline.pipeline.estimators import EstimatorMaker
from sightline.pipeline.exam_run import Progress, asked, exam_card
from sightline.records import PoseEstimate
from sightline.synthetic import exam_objects, exam_pictures

_LEVELS = (0.5, 0.9, 0.95)
_LEAST = 30  # poses in the right mode from which anything is learned
_SHARPNESS = 5e-3  # weight of the likelihood beside the levels
_FIRST = (5.0, 1.0, 1.0, 0.01, 0.01, 0.01)
_SMALLEST, _LARGEST = 1e-4, 100.0
_LEAST_FREEDOM, _MOST_FREEDOM = 3.0, 1e4
_STEPS = (0.7, -1.5, 0.7)  # of the search and of its new beginnings, in logarithms


@dataclass(frozen=True, eq=False)
class PoseClaims:
    """Poses in the right mode with what was claimed of them; ``n`` of them.

    Args:
        errors: ``(n, 6)`` truth less estimate as ``(w, v)`` in ``R' = exp(w) R``, ``t' = t + v``, rad and m.
        covariance: ``(n, 6, 6)`` claimed.
        cam_from_obj: ``(n, 4, 4)`` the poses.
        middle: ``(n, 3)`` of the objects, object frame, metres.
        diameter: ``(n,)`` metres.
        score: ``(n,)`` of verification.
        objects: of each pose the name of its object.
        num_valid: how many poses were valid, those in a wrong mode among them.
    """

    errors: Float[Tensor, "n 6"]
    covariance: Float[Tensor, "n 6 6"]
    cam_from_obj: Float[Tensor, "n 4 4"]
    middle: Float[Tensor, "n 3"]
    diameter: Float[Tensor, " n"]
    score: Float[Tensor, " n"]
    objects: tuple[str, ...]
    num_valid: int

    def __len__(self) -> int:
        return len(self.errors)

    def select(self, keep: Sequence[int]) -> PoseClaims:
        """Some of them.

        Args:
            keep: their numbers.
        """
        rows = torch.tensor(list(keep), dtype=torch.long)
        return PoseClaims(
            self.errors[rows],
            self.covariance[rows],
            self.cam_from_obj[rows],
            self.middle[rows],
            self.diameter[rows],
            self.score[rows],
            tuple(self.objects[row] for row in keep),
            self.num_valid,
        )

    def levels(self, model: PoseErrors) -> Float[Tensor, "2 n"]:
        """Of rotation and position, the level of the smallest ellipsoid that holds the truth.

        Args:
            model: widens what was claimed.
        """
        widened = self._widened(model)
        parts = torch.stack([widened[:, :3, :3], widened[:, 3:, 3:]])
        return ellipsoid_levels(self.errors.unflatten(1, (2, 3)).transpose(0, 1), parts, model.freedom)

    def unlikelihood(self, model: PoseErrors) -> float:
        """The mean negative logarithm of the likelihood by the model's Student's t, but for a constant.

        Args:
            model: widens what was claimed.
        """
        factor = torch.linalg.cholesky(self._widened(model))
        whitened = torch.linalg.solve_triangular(factor, self.errors[..., None], upper=False)
        squared = whitened.square().sum((-2, -1))
        log_size = factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        v = min(model.freedom, _MOST_FREEDOM)
        norm = math.lgamma(v / 2) - math.lgamma(v / 2 + 3) + 3 * math.log(v - 2)
        return norm + float((log_size + (v / 2 + 3) * torch.log1p(squared / (v - 2))).mean())

    def _widened(self, model: PoseErrors) -> Float[Tensor, "n 6 6"]:
        return model.widen(self.covariance, self.cam_from_obj, self.middle, self.diameter, self.score)


@dataclass(frozen=True, eq=False)
class PoseCalibration:
    """What was fitted and how well it holds.

    Args:
        model: of errors, in colour alone and with depth.
        claims: what each part was fitted on.
        held: ``(2, n)`` levels by models that were fitted on other objects.
    """

    model: ErrorModel
    claims: tuple[PoseClaims, PoseClaims]
    held: tuple[Float[Tensor, "2 n"], Float[Tensor, "2 n"]]

    def notes(self) -> dict[str, Any]:
        """For people, beside the model."""
        return {
            name: {
                "poses": each.num_valid,
                "in_right_mode": len(each),
                "held_out_coverage": dict(zip(("rotation", "translation"), _covered(held), strict=True)),
            }
            for name, each, held in zip(ErrorModel._fields, self.claims, self.held, strict=True)
        }

    def table(self) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
        """The heading and the rows of a table."""
        parts = [vars(each) for each in self.model]
        rows = [(name, *(f"{part[name]:.4f}" for part in parts)) for name in parts[0]]
        rows.append(("poses in the right mode", *(f"{len(e)} of {e.num_valid}" for e in self.claims)))
        covered = [_covered(each) for each in self.held]
        for row, claim in enumerate(("rotation", "translation")):
            for column, level in enumerate(_LEVELS):
                shares = (f"{each[row][column]:.2f}" for each in covered)
                rows.append((f"other objects: {claim} within {level:.0%}", *shares))
        return ("figure", "colour", "with depth"), tuple(rows)


def calibrate(
    make: EstimatorMaker,
    *,
    split: str = "development",
    limit: int | None = None,
    progress: Progress = lambda items, *_: items,
) -> PoseCalibration:
    """Fit the model of errors of a matcher.

    Args:
        make: makes what finds poses; it must not widen covariances.
        split: ``development`` or ``train``; nothing is tuned on the exam.
        limit: how many pictures; all unless given.
        progress: wraps what takes long, with a text and a total.

    Raises:
        ValueError: the split of the exam, or too few poses in the right mode.
    """
    colour, depth = collect_claims(make, split=split, limit=limit, progress=progress)
    return PoseCalibration(
        ErrorModel(fit_pose_errors(colour), fit_pose_errors(depth, with_depth=True)),
        (colour, depth),
        (cross_fitted_levels(colour), cross_fitted_levels(depth, with_depth=True)),
    )


def collect_claims(
    make: EstimatorMaker,
    *,
    split: str = "development",
    limit: int | None = None,
    progress: Progress = lambda items, *_: items,
) -> tuple[PoseClaims, PoseClaims]:
    """Find objects in generated pictures, in their true boxes, and keep what is about right.

    Args:
        make: makes what finds them; it must not widen covariances.
        split: ``development`` or ``train``; nothing is tuned on the exam.
        limit: how many pictures; all unless given.
        progress: wraps what takes long, with a text and a total.

    Returns:
        What is found in colour alone, and with depth.

    Raises:
        ValueError: the split of the exam.
    """
    if split == "exam":
        raise ValueError("split: expected development or train, nothing is tuned on the exam")
    pictures = exam_pictures("pose", split, limit)
    things = {thing.name: thing for thing in exam_objects("pose", split)}
    estimators: dict[str, PoseEstimator] = {}
    found = _Claims(), _Claims()
    for picture in progress(pictures, "pictures", len(pictures)):
        truths = {truth.name: truth for truth in picture.poses}
        scene = picture.scene
        for name, box in asked(picture, with_boxes=True):
            if name not in estimators:
                estimators[name] = make([exam_card(things[name])], min_score=0.0)
            where = None if box is None else {name: box}
            for claims, depth in zip(found, (None, scene.depth), strict=True):
                one = estimators[name].find(scene.image, scene.camera, depth=depth, boxes=where)[0]
                claims.add(one.card, one.pose, truths[name])
    return found[0].stacked(), found[1].stacked()


class _Claims:
    """Collects claims one by one."""

    def __init__(self) -> None:
        self.rows: list[tuple[Tensor, ...]] = []
        self.objects: list[str] = []
        self.num_valid = 0

    def add(self, card: ObjectCard, pose: PoseEstimate, truth: PoseEstimate) -> None:
        if not pose.valid or pose.covariance is None or not bool(pose.covariance.isfinite().all()):
            return
        self.num_valid += 1
        wanted = symmetric_align(truth.cam_from_obj, pose.cam_from_obj, card.symmetries)
        turn, shift = log(wanted[:3, :3] @ pose.R.mT), wanted[:3, 3] - pose.t
        diameter = torch.tensor(card.diameter, dtype=torch.float64)
        if bool(in_right_mode(torch.rad2deg(turn.norm()), shift.norm() / diameter)):
            middle, score = card.center.double(), torch.tensor(pose.score, dtype=torch.float64)
            row = (torch.cat([turn, shift]), pose.covariance, pose.cam_from_obj, middle, diameter, score)
            self.rows.append(row)
            self.objects.append(card.name)

    def stacked(self) -> PoseClaims:
        shapes = ((0, 6), (0, 6, 6), (0, 4, 4), (0, 3), (0,), (0,))
        columns = (
            [torch.stack(column) for column in zip(*self.rows, strict=True)]
            if self.rows
            else [torch.zeros(shape, dtype=torch.float64) for shape in shapes]
        )
        return PoseClaims(*columns, tuple(self.objects), self.num_valid)


def fit_pose_errors(claims: PoseClaims, *, with_depth: bool = False) -> PoseErrors:
    """Choose the numbers that make claims right.

    Args:
        claims: what was claimed and what was true.
        with_depth: of poses with depth, whose distance is measured: ``zoom`` stays zero.

    Returns:
        The model.

    Raises:
        ValueError: too few poses.
    """
    from scipy.optimize import minimize

    if len(claims) < _LEAST:
        raise ValueError(
            f"expected at least {_LEAST} poses in the right mode to learn from, got {len(claims)}"
        )

    def model(logs: np.ndarray) -> PoseErrors:
        freedom, doubt, scale, turn, shift, *zoom = np.exp(logs).tolist()
        return PoseErrors(scale, turn, shift, *zoom, doubt=doubt, freedom=_LEAST_FREEDOM + freedom)

    def badness(logs: np.ndarray) -> float:
        tried = model(logs)
        return _unevenness(claims.levels(tried)) + _SHARPNESS * claims.unlikelihood(tried)

    best = np.log(_FIRST[: 5 if with_depth else 6])
    bounds = [(math.log(_SMALLEST), math.log(_LARGEST))] * len(best)
    for step in _STEPS:
        simplex = np.vstack([best, best + step * np.eye(len(best))])
        options: dict[str, Any] = {"maxiter": 250, "xatol": 1e-2, "fatol": 1e-5, "initial_simplex": simplex}
        best = minimize(badness, best, method="Nelder-Mead", bounds=bounds, options=options).x
    fitted = model(best)
    return PoseErrors(**{name: round(value, 5) for name, value in vars(fitted).items()})


def cross_fitted_levels(
    claims: PoseClaims, *, with_depth: bool = False, folds: int = 2
) -> Float[Tensor, "2 n"]:
    """The levels that models have which were fitted on other objects: what to expect of new ones.

    Args:
        claims: what was claimed and what was true.
        with_depth: see :func:`fit_pose_errors`.
        folds: into how many parts the objects are put.
    """
    order = {name: number for number, name in enumerate(dict.fromkeys(claims.objects))}
    part = [order[name] % folds for name in claims.objects]
    levels = torch.full((2, len(claims)), torch.nan, dtype=torch.float64)
    for fold in range(folds):
        held = [row for row, own in enumerate(part) if own == fold]
        rest = [row for row, own in enumerate(part) if own != fold]
        levels[:, held] = claims.select(held).levels(
            fit_pose_errors(claims.select(rest), with_depth=with_depth)
        )
    return levels


def _unevenness(levels: Float[Tensor, "k n"]) -> float:
    """How far levels are from uniform, summed: of their whole distribution, and at those that are reported.

    Errors have heavier tails than a normal distribution has; the levels that are reported share what is left.
    """
    n = levels.shape[1]
    middles = (np.arange(n) + 0.5) / n
    ordered = levels.nan_to_num(1.0).sort(1).values.numpy()
    whole = np.square(ordered - middles).mean(1).sum()
    reported = [np.square(np.interp(_LEVELS, each, middles) - _LEVELS).mean() for each in ordered]
    return float(whole / 2 + sum(reported))


def _covered(levels: Float[Tensor, "2 n"]) -> list[list[float]]:
    """Of rotation and position, the shares of truths in the ellipsoids of the levels."""
    at = torch.tensor(_LEVELS, dtype=torch.float64)
    return [[round(share, 3) for share in coverage(each, at).tolist()] for each in levels]
