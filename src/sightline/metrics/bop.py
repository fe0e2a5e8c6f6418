"""BOP's scores of estimated poses: the average recall of 2019 and the average precision of 2024.

Hodan et al., "BOP Challenge 2020 on 6D object localization", ECCV Workshops 2020; Nguyen et al., "BOP
Challenge 2024 on model-based and model-free 6D object pose estimation", arXiv 2504.02812. Matching,
thresholds and what is ignored agree with the BOP toolkit. Both scores take what
:func:`sightline.metrics.pose_pairs.pair_errors` returns.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sightline.metrics.curves import average_precision
from sightline.metrics.intervals import Interval, bootstrap_weights, percentile_interval
from sightline.metrics.matching import match_groups
from sightline.metrics.pose_pairs import PairErrors
from sightline.metrics.visible_surface import BOP_SHARES

BOP_PIXELS = tuple(5.0 * step for step in range(1, 11))
"""BOP's ten limits of MSPD, 5 to 50 pixels of a picture 640 wide."""

_DETECTION_ERRORS: dict[str, tuple[Callable[[PairErrors], Tensor], tuple[float, ...]]] = {
    "mssd": (lambda pair: pair.mssd / pair.diameter, BOP_SHARES),
    "mspd": (lambda pair: pair.mspd, BOP_PIXELS),
    "mssd_mm": (lambda pair: pair.mssd, tuple(0.002 * step for step in range(1, 11))),
}
_MAX_ELEMENTS = 4_000_000


@dataclass(frozen=True)
class BopScore:
    """A score of BOP with its parts.

    Args:
        value: the score, in [0, 1]; NaN where there was nothing to find or a part is missing.
        by_error: the same for each error function alone; VSD is NaN where it was not given.
        by_object: the same for each object alone, of those that were to be found.
        num_truths: how many instances were to be found.
        interval: the confidence interval of the value by bootstrap over pictures, if asked for.
    """

    value: float
    by_error: dict[str, float]
    by_object: dict[str, float]
    num_truths: int
    interval: Interval | None = None


def bop_average_recall(
    pairs: Sequence[PairErrors], *, min_visibility: float = 0.1, resamples: int = 0, seed: int = 0
) -> BopScore:
    """AR, BOP's score of 6D localization: the mean of AR_VSD, AR_MSSD and AR_MSPD.

    Of each object the ``target_count`` surest estimates of a picture stand against its ``target_count`` most
    visible instances. Each AR is the recall averaged over ten limits (VSD: also over ten tolerances).

    Args:
        pairs: the errors, see :func:`sightline.metrics.pose_pairs.pair_errors`.
        min_visibility: where no target count is given, all instances at least this visible are to be found.
        resamples: how many bootstrap resamples of the pictures the 95 % interval rests on; 0 for none.
        seed: of the bootstrap.

    Returns:
        The score.

    Raises:
        ValueError: VSD of some pictures but not of all.

    Example:
        >>> zero = torch.zeros(1, 1, dtype=torch.float64)
        >>> one = torch.ones(1, dtype=torch.float64)
        >>> rank, mssd = torch.tensor([0]), 0.012 + zero
        >>> pair = PairErrors(0, "mug", rank, one, one, None, 0.1, zero, mssd, zero, zero[None])
        >>> bop_average_recall([pair]).by_error
        {'vsd': 1.0, 'mssd': 0.8, 'mspd': 1.0}
    """
    pairs = [pair.localization_targets(min_visibility) for pair in pairs]
    targets = torch.tensor([len(pair.visibility) for pair in pairs], dtype=torch.float64)
    hits = {
        "vsd": _count_vsd_hits(pairs),
        "mssd": _count_hits([(pair.mssd / pair.diameter)[None] for pair in pairs], BOP_SHARES),
        "mspd": _count_hits([pair.mspd[None] for pair in pairs], BOP_PIXELS),
    }

    def recall(weights: Float[Tensor, "r n"]) -> Float[Tensor, "r errors"]:
        found = torch.stack([weights @ counts.mean(-1) for counts in hits.values()], -1)
        return found / (weights @ targets)[:, None]

    names = sorted({pair.name for pair in pairs if len(pair.visibility) > 0})
    of_object = torch.tensor([[pair.name == name for pair in pairs] for name in names]).double()
    by_object = recall(of_object.reshape(len(names), len(pairs))).mean(-1)
    [parts] = recall(torch.ones(1, len(pairs), dtype=torch.float64))
    picture = torch.tensor([pair.picture for pair in pairs], dtype=torch.long)
    return BopScore(
        value=float(parts.mean()),
        by_error=dict(zip(hits, parts.tolist(), strict=True)),
        by_object=dict(zip(names, by_object.tolist(), strict=True)),
        num_truths=int(targets.sum()),
        interval=_bootstrap(lambda weights: recall(weights[:, picture]).mean(-1), pairs, resamples, seed),
    )


def bop_average_precision(
    pairs: Sequence[PairErrors],
    *,
    errors: Sequence[str] = ("mssd", "mspd"),
    min_visibility: float = 0.1,
    max_estimates: int = 100,
    resamples: int = 0,
    seed: int = 0,
) -> BopScore:
    """AP, BOP's score of 6D detection: the mean of AP_MSSD and AP_MSPD.

    Estimates of all pictures are ranked by score; AP over COCO's 101 levels of recall is averaged over the
    limits, then over the objects. An estimate that finds a hardly visible instance counts neither way.

    Args:
        pairs: the errors, see :func:`sightline.metrics.pose_pairs.pair_errors`.
        errors: which error functions: "mssd", "mspd", "mssd_mm" (the limits 2 to 20 mm of industrial data).
        min_visibility: instances less visible need not be found.
        max_estimates: how many of a picture's estimates, the surest of all objects, are looked at.
        resamples: how many bootstrap resamples of the pictures the 95 % interval rests on; 0 for none.
        seed: of the bootstrap.

    Returns:
        The score.

    Raises:
        ValueError: an unknown error function.

    Example:
        >>> zero = torch.zeros(1, 1, dtype=torch.float64)
        >>> one = torch.ones(1, dtype=torch.float64)
        >>> rank, mssd = torch.tensor([0]), 0.012 + zero
        >>> pair = PairErrors(0, "mug", rank, one, one, None, 0.1, zero, mssd, zero, None)
        >>> bop_average_precision([pair]).by_error
        {'mssd': 0.8, 'mspd': 1.0}
    """
    unknown = sorted(set(errors) - set(_DETECTION_ERRORS))
    if unknown:
        raise ValueError(f"errors: expected some of {', '.join(_DETECTION_ERRORS)}, got {', '.join(unknown)}")
    pairs = [pair.select(estimates=pair.rank < max_estimates) for pair in pairs]
    truths = dict.fromkeys(sorted({pair.name for pair in pairs}), 0)
    for pair in pairs:
        truths[pair.name] += int((pair.visibility >= min_visibility).sum())
    names = [name for name, count in truths.items() if count > 0]
    ranked = [
        _rank([pair for pair in pairs if pair.name == name], error, min_visibility)
        for error in errors
        for name in names
    ]

    def precision(weights: Float[Tensor, "r pictures"]) -> Float[Tensor, "r errors objects"]:
        columns = [_weighted_precision(ranking, weights) for ranking in ranked]
        return torch.stack(columns, -1).reshape(len(weights), len(errors), len(names))

    def value(weights: Float[Tensor, "r pictures"]) -> Float[Tensor, " r"]:
        return precision(weights).nanmean((-2, -1))

    if not names:
        return BopScore(math.nan, dict.fromkeys(errors, math.nan), {}, 0)
    [parts] = precision(torch.ones(1, _num_pictures(pairs), dtype=torch.float64))
    return BopScore(
        value=float(parts.mean()),
        by_error=dict(zip(errors, parts.mean(1).tolist(), strict=True)),
        by_object=dict(zip(names, parts.mean(0).tolist(), strict=True)),
        num_truths=sum(truths.values()),
        interval=_bootstrap(value, pairs, resamples, seed),
    )


class _Ranking(NamedTuple):
    """All estimates of one object, the surest first, judged under c limits; and what there was to find."""

    right: Float[Tensor, "c n"]
    wrong: Float[Tensor, "c n"]
    picture: Int[Tensor, " n"]
    num_truths: Float[Tensor, " m"]
    truth_picture: Int[Tensor, " m"]


def _rank(pairs: list[PairErrors], error: str, min_visibility: float) -> _Ranking:
    measure, limits = _DETECTION_ERRORS[error]
    found = match_groups([measure(pair)[None] for pair in pairs], _limits(limits))
    order = torch.cat([pair.scores for pair in pairs]).argsort(descending=True, stable=True)
    visible = [pair.visibility >= min_visibility for pair in pairs]
    right = [
        # -1, nothing found, looks up the False put last
        torch.nn.functional.pad(seen, (0, 1))[truth[0]]
        for seen, truth in zip(visible, found, strict=True)
    ]
    wrong = [truth[0] == -1 for truth in found]
    return _Ranking(
        right=torch.cat(right, -1)[:, order].double(),
        wrong=torch.cat(wrong, -1)[:, order].double(),
        picture=torch.cat([torch.full_like(pair.rank, pair.picture) for pair in pairs])[order],
        num_truths=torch.tensor([seen.sum() for seen in visible]).double(),
        truth_picture=torch.tensor([pair.picture for pair in pairs]),
    )


def _weighted_precision(ranking: _Ranking, weights: Float[Tensor, "r pictures"]) -> Float[Tensor, " r"]:
    """The AP of one object, averaged over the limits, each picture counted as often as its weight says."""
    rows = max(1, _MAX_ELEMENTS // max(1, ranking.right.numel()))
    parts = []
    for part in weights.split(rows):
        often = part[:, None, ranking.picture]
        num_truths = (part[:, ranking.truth_picture] @ ranking.num_truths)[:, None]
        num_truths = num_truths.expand(-1, len(ranking.right))
        parts.append(average_precision(ranking.right * often, ranking.wrong * often, num_truths).mean(-1))
    return torch.cat(parts)


def _count_vsd_hits(pairs: list[PairErrors]) -> Float[Tensor, "n c"]:
    given = [pair.vsd for pair in pairs if pair.vsd is not None]
    if not given:
        return torch.full((len(pairs), 1), torch.nan, dtype=torch.float64)
    missing = [pair for pair in pairs if pair.vsd is None and pair.mssd.numel() > 0]
    if missing:
        raise ValueError(
            f"vsd: expected for all pictures or for none, missing for picture {missing[0].picture}"
        )
    nothing = given[0].new_zeros(len(given[0]), 1, 1)
    errors = [nothing.expand(-1, *pair.mssd.shape) if pair.vsd is None else pair.vsd for pair in pairs]
    return _count_hits(errors, BOP_SHARES)


def _count_hits(errors: list[Tensor], limits: tuple[float, ...]) -> Float[Tensor, "n c"]:
    """How many estimates are right, for each group and each kind of error and limit."""
    found = match_groups(errors, _limits(limits))
    counts = [(truth >= 0).sum(-1).flatten().double() for truth in found]
    return torch.stack(counts) if counts else torch.zeros(0, 1, dtype=torch.float64)


def _limits(limits: tuple[float, ...]) -> Float[Tensor, " c"]:
    return torch.tensor(limits, dtype=torch.float64)


def _num_pictures(pairs: Sequence[PairErrors]) -> int:
    return max((pair.picture for pair in pairs), default=-1) + 1


def _bootstrap(
    value: Callable[[Tensor], Tensor], pairs: Sequence[PairErrors], resamples: int, seed: int
) -> Interval | None:
    if resamples == 0:
        return None
    return percentile_interval(value(bootstrap_weights(_num_pictures(pairs), resamples, seed)))
