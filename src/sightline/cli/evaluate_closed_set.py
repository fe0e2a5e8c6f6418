"""The parts of ``sightline evaluate`` that are about the closed-set network."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sightline.pipeline.exam_run import ExamRun

_METHODS = ("safe", "mim_safe", "eata_safe", "sar_safe", "cotta_safe")


def evaluate_closed_set(
    progress: Any,  # noqa: ANN401
    weights: Path | None,
    refined: bool,
    with_depth: bool,
    ttt: list[str] | None,
    corruption: str | None,
    severity: int,
    split: str,
    limit: int | None,
    min_iou: float,
    device: str,
) -> tuple[ExamRun, str]:
    """The network on its exam, and what that was, in words."""
    from sightline.pipeline.adaptation_choice import read_adaptation
    from sightline.pipeline.rtdetr_pose_exam import Spoiled, run_rtdetr_pose_exam
    from sightline.rtdetr_pose.shipped import shipped_weights

    if ttt is not None and len(ttt) != 1:
        raise ValueError(
            f"--ttt: expected one way to adapt, got {len(ttt)}; exam-adaptation compares several"
        )
    weights = weights or shipped_weights()
    run = run_rtdetr_pose_exam(
        weights,
        split=split,
        limit=limit,
        refined=refined,
        with_depth=with_depth,
        adapt=None if ttt is None else read_adaptation(ttt[0]),
        spoiled=None if corruption is None else Spoiled(corruption, severity),
        min_iou=min_iou,
        device=device,
        progress=progress,
    )
    words = [f"rtdetr-pose {weights.stem}"]
    words += ["refined"] * refined + ["with depth"] * with_depth
    words += [] if ttt is None else [f"adapting by {ttt[0]}"]
    words += [] if corruption is None else [f"on {corruption} {severity}"]
    return run, f"{', '.join(words)} on exam-closed-set-pose, version 1, split {split}"


def evaluate_adaptation(
    console: Any,  # noqa: ANN401 - rich loads with a verb
    progress: Any,  # noqa: ANN401
    weights: Path | None,
    ttt: list[str] | None,
    corruption: str | None,
    severity: int,
    split: str,
    limit: int | None,
    with_depth: bool,
    output: Path | None,
) -> None:
    """Ways to adapt beside the network as it is, on streams of spoiled pictures."""
    from dataclasses import asdict

    from sightline.formats.atomic import atomic_write
    from sightline.pipeline.adaptation_choice import read_adaptation
    from sightline.pipeline.rtdetr_pose_exam import Spoiled, compare_adaptations
    from sightline.rtdetr_pose.shipped import shipped_weights
    from sightline.synthetic.corruptions import CORRUPTIONS
    from sightline.vis.tables import Table

    names = CORRUPTIONS if corruption is None else (corruption,)
    rows = compare_adaptations(
        weights or shipped_weights(),
        {name: read_adaptation(name) for name in ttt or _METHODS},
        [Spoiled(name, severity) for name in names],
        split=split,
        limit=limit,
        with_depth=with_depth,
        progress=progress,
    )
    cells = tuple(
        (
            row.stream,
            row.method,
            f"{row.ap:.1f}",
            f"{row.ap50:.1f}",
            f"{row.gain:+.1f}",
            str(row.updated),
            str(row.rolled_back),
            f"{row.seconds:.2f}",
        )
        for row in rows
    )
    columns = ("stream", "method", "AP", "AP50", "gain", "updates", "taken back", "s a picture")
    console.print(Table(columns, cells, (False, False, *[True] * 6)).rich())
    for method in dict.fromkeys(row.method for row in rows if row.method != "source"):
        gains = [row.gain for row in rows if row.method == method]
        console.print(
            f"{method}: {sum(gains) / len(gains):+.2f} AP points in the mean, {min(gains):+.2f} at the worst",
            highlight=False,
        )
    if output is not None:
        output.mkdir(parents=True, exist_ok=True)
        path = output / "adaptation.json"
        with atomic_write(path) as temporary:
            temporary.write_text(json.dumps([asdict(row) for row in rows], indent=1), encoding="utf-8")
        console.print(str(path), highlight=False, soft_wrap=True)
