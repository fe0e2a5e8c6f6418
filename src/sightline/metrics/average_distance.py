"""ADD(-S) scores: recall below a tenth of the diameter, and the area under the curve of recall.

The protocol of LINEMOD and YCB-Video: ADD, or ADD-S of a symmetric object, of the surest estimate of each
instance; an instance without one is missed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from sightline.metrics.breakdown import Breakdown
from sightline.metrics.curves import area_under_recall, recall_below
from sightline.metrics.matching import match_groups
from sightline.metrics.pose_pairs import PairErrors


@dataclass(frozen=True)
class DistanceScore:
    """ADD(-S) of all instances of one object, or of all objects.

    Args:
        recall: share of the instances with an error below 0.1 diameters; NaN where there was none.
        auc: area under the curve of recall for 0 to 0.1 m, divided by 0.1 m.
        auc_diameter: the same for 0 to 0.1 diameters.
        median: of the error, metres; infinite where most were missed.
        num_truths: how many instances were to be found.
    """

    recall: float
    auc: float
    auc_diameter: float
    median: float
    num_truths: int


def average_distance_scores(
    pairs: Sequence[PairErrors], *, min_visibility: float = 0.1
) -> Breakdown[DistanceScore]:
    """ADD(-S) scores of all instances together and of those of each object.

    Args:
        pairs: the errors, see :func:`sightline.metrics.pose_pairs.pair_errors`.
        min_visibility: where no target count is given, all instances at least this visible are to be found.

    Returns:
        The scores.

    Example:
        >>> error = torch.full((1, 1), 0.02, dtype=torch.float64)
        >>> one = torch.ones(1, dtype=torch.float64)
        >>> pair = PairErrors(0, "mug", torch.tensor([0]), one, one, None, 0.1, error, error, error, None)
        >>> average_distance_scores([pair]).overall.auc
        0.8
    """
    pairs = [pair.localization_targets(min_visibility) for pair in pairs]
    nearest = match_groups([pair.add[None] for pair in pairs], torch.tensor([torch.inf], dtype=torch.float64))
    errors = [_error_of_truths(pair.add, found[0, 0]) for pair, found in zip(pairs, nearest, strict=True)]
    names = sorted({pair.name for pair in pairs if len(pair.visibility) > 0})
    members = {name: [index for index, pair in enumerate(pairs) if pair.name == name] for name in names}
    return Breakdown(
        _score(errors, [pair.diameter for pair in pairs]),
        {
            name: _score([errors[index] for index in indices], [pairs[index].diameter for index in indices])
            for name, indices in members.items()
        },
    )


def _error_of_truths(add: Float[Tensor, "e g"], found: Tensor) -> Float[Tensor, " g"]:
    errors = add.new_full((add.shape[1],), torch.inf)
    hit = found >= 0
    errors[found[hit]] = add[hit, found[hit]]
    return errors


def _score(errors: list[Tensor], diameters: list[float]) -> DistanceScore:
    lengths = [
        torch.full_like(error, 0.1 * diameter) for error, diameter in zip(errors, diameters, strict=True)
    ]
    error = torch.cat([*errors, torch.empty(0, dtype=torch.float64)])
    tenth = torch.cat([*lengths, torch.empty(0, dtype=torch.float64)])
    return DistanceScore(
        recall=float(recall_below(error, tenth)),
        auc=float(area_under_recall(error, 0.1)),
        auc_diameter=float(area_under_recall(error, tenth)),
        median=float(error.median()) if len(error) else math.nan,
        num_truths=len(error),
    )
