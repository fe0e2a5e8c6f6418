"""Many pictures through an adapter, a report a step; and methods compared with the source on such streams."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from sightline.rtdetr_pose.ttt.adapter import Adapter
from sightline.rtdetr_pose.ttt.readers import Outputs
from sightline.rtdetr_pose.ttt.report import StepReport
from sightline.rtdetr_pose.ttt.spec import AdaptSpec, Tent

Row = dict[str, Any]
Keep = Callable[[Outputs], Any]


@dataclass(frozen=True, kw_only=True)
class StreamItem:
    """A batch of a stream with its geometry.

    Args:
        batch: what the model takes.
        geom: geometry of the pictures.
        geometry_source: where it comes from: ``sensor`` or ``prediction``.
    """

    batch: Any
    geom: Tensor | None = None
    geometry_source: str = "sensor"


def run_stream(
    adapter: Adapter, items: Iterable[Any], *, report_path: str | Path | None = None
) -> Iterator[tuple[Outputs, StepReport]]:
    """Adapt on each batch of a stream in turn.

    Args:
        adapter: open.
        items: batches, or :class:`StreamItem` s.
        report_path: a file that gets the reports, one JSON object a line, each as soon as it is there.

    Yields:
        Predictions and report of each batch.

    Example:
        >>> import torch
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.LayerNorm(3))
        >>> with Adapter(model) as adapter:
        ...     reports = [report for _, report in run_stream(adapter, torch.rand(3, 2, 4).unbind())]
        >>> [report.index for report in reports], summarise(reports)["steps"]
        ([0, 1, 2], 3)
    """
    with nullcontext() if report_path is None else Path(report_path).open("w", encoding="utf-8") as file:
        for item in items:
            if not isinstance(item, StreamItem):
                item = StreamItem(batch=item)
            outputs, report = adapter.step(item.batch, item.geom, geometry_source=item.geometry_source)
            if file is not None:
                file.write(json.dumps(report.to_dict(), allow_nan=False) + "\n")
                file.flush()
            yield outputs, report


def summarise(reports: Sequence[StepReport]) -> dict[str, Any]:
    """What happened in a stream, in numbers: steps, updates, what the guards did and why, seconds.

    Args:
        reports: of its steps.

    Example:
        >>> report = StepReport(index=0, method="tent", updated=False, skipped="nothing found")
        >>> summarise([report])["reasons"]
        {'nothing found': 1}
    """
    return {
        "steps": len(reports),
        "updated": sum(each.updated for each in reports),
        "skipped": sum(each.skipped is not None for each in reports),
        "rolled_back": sum(each.rolled_back is not None for each in reports),
        "resets": sum(each.reset is not None for each in reports),
        "reasons": dict(Counter(_kind(reason) for each in reports for reason in each.fired)),
        "seconds": sum(each.seconds for each in reports),
    }


def _kind(reason: str) -> str:
    """A reason without its numbers, to be counted."""
    words = [word for word in reason.split() if not any(letter.isdigit() for letter in word)]
    return " ".join(words)


def compare_on_streams(
    make_adapter: Callable[[AdaptSpec], Adapter],
    specs: Mapping[str, AdaptSpec],
    streams: Mapping[str, Sequence[Any]],
    scorer: Callable[[str, list[Any]], float],
    *,
    keep: Keep | None = None,
) -> list[Row]:
    """Score methods beside the source model that does not adapt.

    Args:
        make_adapter: an adapter of the same source model for a specification; it is closed after each stream.
        specs: by the name of the row.
        streams: batches or :class:`StreamItem` s by the stream's name, each gone through once a row.
        scorer: of a stream's name and what was kept of its predictions, batch by batch; higher is better.
        keep: of a batch's predictions; all unless given.

    Returns:
        A row a stream and method, the source's first: ``stream, method, score, gain`` (over the source) and
        what :func:`summarise` says; ``pandas.DataFrame(rows)`` takes them as they are.

    Raises:
        ValueError: no method.

    Example:
        >>> import torch
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.LayerNorm(3))
        >>> def accuracy(name, predictions):
        ...     return float((torch.cat(predictions).argmax(1) == 0).float().mean())
        >>> streams = {"noise": list(torch.rand(3, 2, 4))}
        >>> rows = compare_on_streams(lambda s: Adapter(model, s), {"tent": AdaptSpec()}, streams, accuracy)
        >>> [(row["method"], row["gain"]) for row in rows]
        [('source', 0.0), ('tent', 0.0)]
    """
    if not specs:
        raise ValueError("specs: expected at least one method to compare with the source, got none")
    # Any scope will do where nothing is learnt.
    source = replace(next(iter(specs.values())), method=Tent(), objective=None, bn="frozen")
    rows: list[Row] = []
    for stream, items in streams.items():
        plain = _row(make_adapter(source), stream, "source", items, scorer, keep, learns=False)
        rows.append({**plain, "gain": 0.0})
        for name, spec in specs.items():
            row = _row(make_adapter(spec), stream, name, items, scorer, keep, learns=True)
            rows.append({**row, "gain": row["score"] - plain["score"]})
    return rows


def _row(
    adapter: Adapter,
    stream: str,
    method: str,
    items: Sequence[Any],
    scorer: Callable[[str, list[Any]], float],
    keep: Keep | None,
    *,
    learns: bool,
) -> Row:
    kept, reports = [], []
    with adapter, nullcontext() if learns else adapter.frozen():
        for outputs, report in run_stream(adapter, items):
            kept.append(outputs if keep is None else keep(outputs))
            reports.append(report)
    return {"stream": stream, "method": method, "score": scorer(stream, kept), **summarise(reports)}
