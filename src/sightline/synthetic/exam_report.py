"""What the exam's scorers report: figures by half of the objects, and the rows of a table."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from jaxtyping import Float
from torch import Tensor

from sightline.metrics import PrecisionRecall

HALVES = ("all", "rich", "low")

_COUNTS = ("pictures", "poses", "empty", "objects")


@dataclass(frozen=True)
class ExamReport:
    """What a task's scorer found.

    Args:
        task: the task.
        figures: half (``"all"``, ``"rich"``, ``"low"`` texture) -> figure -> value; NaN where there was
            nothing to measure.
        columns: the table's heading, the half first.
        rows: one a half, values as text.
        by_object: object -> figure -> value; of detection and of the closed set.
        curves: half -> precision and recall over all scores; of detection alone.
        levels: half -> ``rotation`` and ``translation``, each of poses in the right mode and of all -> of
            each pose that claims a covariance, the level of the smallest ellipsoid of it that holds the
            truth; of poses alone.
    """

    task: str
    figures: Mapping[str, Mapping[str, float]]
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    by_object: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    curves: Mapping[str, PrecisionRecall] = field(default_factory=dict)
    levels: Mapping[str, Mapping[str, Float[Tensor, " n"]]] = field(default_factory=dict)

    def object_table(self) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
        """The heading and the rows of a table of the objects, without the ends of intervals."""
        first = next(iter(self.by_object.values()), {})
        names = tuple(name for name in first if not name.endswith(("_low", "_high")))
        rows = tuple(
            (thing, *(_as_text(name, values[name]) for name in names))
            for thing, values in self.by_object.items()
        )
        return ("object", *names), rows


def make_report(
    task: str,
    figures: Mapping[str, Mapping[str, float]],
    by_object: Mapping[str, Mapping[str, float]] | None = None,
    curves: Mapping[str, PrecisionRecall] | None = None,
    levels: Mapping[str, Mapping[str, Float[Tensor, " n"]]] | None = None,
) -> ExamReport:
    """The report of a task, with its table.

    Args:
        task: the task.
        figures: half -> figure -> value.
        by_object: object -> figure -> value.
        curves: half -> precision and recall.
        levels: half -> what is claimed -> levels.
    """
    names = tuple(next(iter(figures.values())))
    rows = tuple(
        (half, *(_as_text(name, values[name]) for name in names)) for half, values in figures.items()
    )
    return ExamReport(task, figures, ("texture", *names), rows, by_object or {}, curves or {}, levels or {})


def _as_text(name: str, value: float) -> str:
    if math.isnan(value):
        return "-"
    return str(int(value)) if name in _COUNTS else f"{value:.3f}"
