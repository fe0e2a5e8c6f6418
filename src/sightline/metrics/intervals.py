"""How sure a figure is: Wilson's interval of a share, and the bootstrap over pictures."""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor


class Interval(NamedTuple):
    """A confidence interval.

    Args:
        low: its lower end.
        high: its upper end.
    """

    low: float
    high: float


def wilson_interval(successes: int, trials: int, confidence: float = 0.95) -> Interval:
    """Wilson's score interval of a share, which stays inside [0, 1] and is honest at 0 of n.

    Wilson, "Probable inference, the law of succession, and statistical inference", JASA 1927.

    Args:
        successes: how often it happened.
        trials: how often it could have happened.
        confidence: the share of intervals that hold the true share.

    Returns:
        The interval; [0, 1], which says nothing, where there were no trials.

    Raises:
        ValueError: more successes than trials, or a negative number.

    Example:
        >>> low, high = wilson_interval(0, 50)
        >>> round(low, 4), round(high, 4)
        (0.0, 0.0713)
    """
    if not 0 <= successes <= trials:
        raise ValueError(f"successes: expected 0 to {trials} (trials), got {successes}")
    if trials == 0:
        return Interval(0.0, 1.0)
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share = successes / trials
    centre = share + z**2 / (2 * trials)
    spread = z * math.sqrt(share * (1 - share) / trials + z**2 / (4 * trials**2))
    scale = 1 + z**2 / trials
    return Interval(max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale))


def bootstrap_weights(num_items: int, num_resamples: int, seed: int = 0) -> Float[Tensor, "r n"]:
    """How often each item occurs in each resample drawn with replacement (Efron's bootstrap).

    A figure that is a ratio of sums over items can be resampled by weighting its terms, without a second pass
    over the data.

    Args:
        num_items: how many items, for example pictures, there are.
        num_resamples: how many resamples to draw.
        seed: of the generator.

    Returns:
        ``(num_resamples, num_items)`` float64 counts; each row sums to ``num_items``.

    Example:
        >>> bootstrap_weights(4, 3).sum(dim=-1)
        tensor([4., 4., 4.], dtype=torch.float64)
    """
    generator = torch.Generator().manual_seed(seed)
    weights = torch.zeros(num_resamples, num_items, dtype=torch.float64)
    if num_items == 0:
        return weights
    drawn = torch.randint(num_items, (num_resamples, num_items), generator=generator)
    return weights.scatter_add_(1, drawn, torch.ones_like(weights))


def percentile_interval(samples: Float[Tensor, " r"], confidence: float = 0.95) -> Interval:
    """The percentile interval of resampled figures.

    Args:
        samples: ``(r,)`` the figure of each resample; NaN, where a resample could not give one, is left out.
        confidence: the share of the samples that the interval holds.

    Returns:
        The interval, NaN where no resample gave a figure.

    Example:
        >>> low, high = percentile_interval(torch.arange(101, dtype=torch.float64), confidence=0.9)
        >>> round(low, 6), round(high, 6)
        (5.0, 95.0)
    """
    tail = (1 - confidence) / 2
    low, high = torch.nanquantile(samples, samples.new_tensor([tail, 1 - tail])).tolist()
    return Interval(low, high)
