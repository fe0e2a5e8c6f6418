"""What must hold before, while and after a model adapts itself; and the watch over what it turns into."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple


@dataclass(frozen=True, kw_only=True)
class Guards:
    """Limits; None switches a guard off. Values that are not finite are never learnt from.

    Args:
        max_entropy: before: the batch's mean entropy, as a share of the largest possible.
        min_count: before: things found in the batch (pictures, of a classifier).
        max_grad_norm: gradients are scaled to at most this norm.
        trust_radius: a layer moves at most this share of its own norm away from the source, and is put back
            onto that sphere where it left it.
        max_update_norm: norm of a step's whole update; a larger one is taken back.
        max_rise: after: the objective on the same batch may rise by this share of itself; an update by which
            it rises more is taken back.
        max_kl: after: KL(source || adapted) of the predictions on the same or on the anchor batch, nats.
        max_drift: after: mean change of what was found, against the source: 1 - IoU, |log z|, rad.
        min_marginal_ratio: collapse: entropy of the histogram of predicted classes, over that of the source
            on the same pictures.
        min_entropy_ratio: collapse: mean entropy, over the source's on the same pictures.
        max_count_ratio: collapse: factor by which the number of things found differs from the source's.
        window: steps over which collapse is judged.
        max_steps: budget of updates.
        max_seconds: budget of time spent in steps.

    Example:
        >>> Guards().trust_radius, Guards.off().trust_radius
        (0.05, None)
    """

    max_entropy: float | None = 0.8
    min_count: int = 1
    max_grad_norm: float | None = 1.0
    trust_radius: float | None = 0.05
    max_update_norm: float | None = None
    max_rise: float | None = 0.0
    max_kl: float | None = 0.5
    max_drift: float | None = 0.25
    min_marginal_ratio: float | None = 0.6
    min_entropy_ratio: float | None = 0.1
    max_count_ratio: float | None = 2.0
    window: int = 8
    max_steps: int | None = None
    max_seconds: float | None = None

    def __post_init__(self) -> None:
        if self.window < 1:
            raise ValueError(f"adaptation: guards: window: expected at least 1, got {self.window}")

    @classmethod
    def off(cls) -> Guards:
        """No guards but the one against values that are not finite; to see what a method does by itself."""
        return cls(
            max_entropy=None,
            min_count=0,
            max_grad_norm=None,
            trust_radius=None,
            max_rise=None,
            max_kl=None,
            max_drift=None,
            min_marginal_ratio=None,
            min_entropy_ratio=None,
            max_count_ratio=None,
        )

    @property
    def watches_collapse(self) -> bool:
        """Whether the adapted model's predictions are watched over the steps."""
        ratios = (self.min_marginal_ratio, self.min_entropy_ratio, self.max_count_ratio)
        return any(each is not None for each in ratios)

    @property
    def needs_source(self) -> bool:
        """Whether the source's predictions are needed beside the adapted model's."""
        return self.max_kl is not None or self.max_drift is not None or self.watches_collapse


class Reading(NamedTuple):
    """What the watch sees of a model on a batch: entropy's share, number of things, histogram of classes."""

    entropy: float
    count: float
    histogram: Sequence[float]


class CollapseMonitor:
    """Compares moving averages of the adapted model's predictions with the source's on the same pictures.

    A stream of one class alone is no collapse: the source says so too.

    Args:
        guards: the limits.

    Example:
        >>> monitor = CollapseMonitor(Guards(window=2))
        >>> varied, single = Reading(0.5, 4, [2, 2]), Reading(0.4, 4, [4, 0])
        >>> monitor.observe(single, varied), monitor.observe(single, varied)
        (None, 'collapse: classes')
    """

    def __init__(self, guards: Guards) -> None:
        self.guards = guards
        self.clear()

    def clear(self) -> None:
        """Forget."""
        self._seen = 0
        self._averages: dict[str, list[float]] = {}

    def observe(self, adapted: Reading, source: Reading) -> str | None:
        """Take in a step.

        Returns:
            What collapsed, or None.
        """
        self._seen += 1
        for name, reading in (("adapted", adapted), ("source", source)):
            self._average(name, [reading.entropy, reading.count, *reading.histogram])
        return self._verdict() if self._seen >= self.guards.window else None

    def _average(self, name: str, values: list[float]) -> None:
        kept = self._averages.get(name, values)
        share = 1 / self.guards.window
        self._averages[name] = [old + share * (new - old) for old, new in zip(kept, values, strict=True)]

    def _verdict(self) -> str | None:
        guards = self.guards
        entropy, count, *histogram = self._averages["adapted"]
        source_entropy, source_count, *source_histogram = self._averages["source"]
        least = guards.min_marginal_ratio
        if least is not None and marginal_entropy(histogram) < least * marginal_entropy(source_histogram):
            return "collapse: classes"
        least = guards.min_entropy_ratio
        if least is not None and entropy < least * source_entropy:
            return "collapse: entropy"
        most = guards.max_count_ratio
        # One thing more or less is no collapse, however few there are.
        if most is not None and not source_count / most - 1 <= count <= source_count * most + 1:
            return "collapse: count"
        return None

    def state(self) -> dict[str, Any]:
        """Plain values to go on from."""
        return {"seen": self._seen, "averages": {name: list(each) for name, each in self._averages.items()}}

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on from a saved state."""
        self._seen = state["seen"]
        self._averages = {name: list(each) for name, each in state["averages"].items()}


def marginal_entropy(histogram: Sequence[float]) -> float:
    """Entropy of a histogram, nats; 0 of an empty one.

    Example:
        >>> round(marginal_entropy([1, 1, 0]), 4), marginal_entropy([0, 0])
        (0.6931, 0.0)
    """
    total = sum(histogram)
    shares = [each / total for each in histogram if each > 0] if total > 0 else []
    return -sum(each * math.log(each) for each in shares) + 0.0
