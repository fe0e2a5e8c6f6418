"""Curves and the areas below them: precision over recall, and recall over the permitted error.

Everything is batched: curves run along the last axis, whatever stands before it is kept.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

NUM_RECALLS = 101


def recall_levels() -> Float[Tensor, " r"]:
    """COCO's 101 levels of recall, 0 to 1, to the last bit.

    Example:
        >>> recall_levels()[70].item()
        0.7000000000000001
    """
    # COCO compares recalls with multiples of a rounded 0.01, so that 7 of 10 misses the level 0.7; to agree
    # with its figures this has to be kept.
    return torch.arange(NUM_RECALLS, dtype=torch.float64) * 0.01


def interpolated_precision(
    true_positives: Float[Tensor, "*batch n"],
    false_positives: Float[Tensor, "*batch n"],
    num_truths: Float[Tensor, "*batch"],
) -> Float[Tensor, "*batch r"]:
    """The precision-recall curve of ranked detections, made monotone and read at COCO's 101 levels of recall.

    ``p(r) = max { precision_i : recall_i >= r }``, 0 where no such i exists. A detection that is neither a
    true nor a false positive is left out; weights other than 0 and 1 count a detection that often.

    Args:
        true_positives: ``(*batch, n)`` weights, the surest detection first.
        false_positives: ``(*batch, n)`` weights.
        num_truths: ``(*batch,)`` how many things there were to find.

    Returns:
        ``(*batch, 101)`` precisions at :func:`recall_levels`; NaN where there was nothing to find.

    Example:
        >>> hits = torch.tensor([1.0, 0.0, 1.0], dtype=torch.float64)
        >>> curve = interpolated_precision(hits, 1 - hits, torch.tensor(2.0, dtype=torch.float64))
        >>> curve[[0, 50, 51, 100]]
        tensor([1.0000, 1.0000, 0.6667, 0.6667], dtype=torch.float64)
    """
    hits, misses = true_positives.cumsum(-1), false_positives.cumsum(-1)
    recall = hits / num_truths[..., None]
    precision = torch.nan_to_num(hits / (hits + misses), nan=0.0)
    envelope = precision.flip(-1).cummax(-1).values.flip(-1)
    envelope = torch.cat([envelope, envelope.new_zeros(*envelope.shape[:-1], 1)], -1)
    levels = recall_levels().to(recall).expand(*recall.shape[:-1], NUM_RECALLS)
    first = torch.searchsorted(recall.contiguous(), levels.contiguous())
    return torch.where(num_truths[..., None] > 0, envelope.gather(-1, first), torch.nan)


def average_precision(
    true_positives: Float[Tensor, "*batch n"],
    false_positives: Float[Tensor, "*batch n"],
    num_truths: Float[Tensor, "*batch"],
) -> Float[Tensor, "*batch"]:
    """The average precision of ranked detections: the mean of :func:`interpolated_precision` over recall.

    Args:
        true_positives: ``(*batch, n)`` weights, the surest detection first.
        false_positives: ``(*batch, n)`` weights.
        num_truths: ``(*batch,)`` how many things there were to find.

    Returns:
        ``(*batch,)`` in [0, 1]; NaN where there was nothing to find.

    Example:
        >>> hits = torch.tensor([1.0, 0.0, 1.0], dtype=torch.float64)
        >>> average_precision(hits, 1 - hits, torch.tensor(2.0, dtype=torch.float64))
        tensor(0.8350, dtype=torch.float64)
    """
    return interpolated_precision(true_positives, false_positives, num_truths).mean(-1)


def recall_below(errors: Float[Tensor, "*batch n"], limit: float | Tensor) -> Float[Tensor, "*batch"]:
    """The share of errors that are strictly below a limit.

    Args:
        errors: ``(*batch, n)`` one an object to be found; NaN or infinity where it was not.
        limit: a number, or a tensor that broadcasts against the errors (0.1 of each object's diameter).

    Returns:
        ``(*batch,)`` in [0, 1]; NaN where there was nothing to find.

    Example:
        >>> recall_below(torch.tensor([0.004, 0.01, 0.3, torch.nan]), 0.01)
        tensor(0.2500)
    """
    return (errors < limit).to(errors.dtype).mean(-1)


def area_under_recall(errors: Float[Tensor, "*batch n"], limit: float | Tensor) -> Float[Tensor, "*batch"]:
    """The area below the curve of recall over the permitted error from 0 to a limit, divided by the limit.

    As the AUC of ADD and ADD-S (Xiang et al., "PoseCNN", RSS 2018, limit 0.1 m), but exact:
    ``1/L int_0^L share(e <= x) dx = mean(max(0, 1 - e / L))``. The toolbox that came with that paper counts
    each error from the one before it on and so prints up to ``1/n`` more.

    Args:
        errors: ``(*batch, n)`` one an object to be found; NaN or infinity where it was not.
        limit: a number, or a tensor that broadcasts against the errors (0.1 of each object's diameter).

    Returns:
        ``(*batch,)`` in [0, 1]; NaN where there was nothing to find.

    Example:
        >>> area_under_recall(torch.tensor([0.0, 0.05, 0.2, torch.inf]), 0.1)
        tensor(0.3750)
    """
    return torch.nan_to_num(1 - errors / limit, nan=0.0).clamp(min=0).mean(-1)
