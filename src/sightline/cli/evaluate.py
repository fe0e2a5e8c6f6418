"""``sightline evaluate``: the frozen exam, or BOP's metrics on a results file."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from sightline.pipeline.exam_run import ExamRun


def evaluate(
    task: Literal["exam-pose", "exam-pose-end-to-end", "exam-detection", "bop"],
    matcher: Literal["sift"] = "sift",
    detector: Literal["sift", "refdet"] = "sift",
    weights: Path | None = None,
    swapped: bool = False,
    min_score: float | None = None,
    min_iou: float = 0.5,
    output: Path | None = None,
    split: str = "exam",
    limit: int | None = None,
    dataset: Path | None = None,
    results: Path | None = None,
    vsd: bool = True,
) -> None:
    """Measure accuracy on the frozen exam, or score a BOP results file.

    Args:
        task: one of the exam's, or bop.
        matcher: what sits the exams of poses.
        detector: what sits the exam of detection.
        weights: of a learned detector; those of the package unless given.
        swapped: look for each object with the views of another, as a control of a learned detector.
        min_score: of refdet, the score from which a detection counts in the figures at a threshold; that of
            the weights unless given.
        min_iou: in the exam of detection, the overlap that makes a detection right at a threshold; AP has its
            own.
        output: folder for figures.json and, of detection, a plot of precision and recall; none unless given.
        split: exam, or development for everything that is tuned; with bop, the data set's split.
        limit: how many pictures of the exam; all unless given.
        dataset: with bop, a folder in BOP's layout with models.
        results: with bop, a METHOD_DATASET-SPLIT.csv.
        vsd: with bop, whether to render for VSD, which needs depth pictures.
    """
    from rich.progress import track

    from sightline.cli.console import make_console

    console = make_console()

    def progress(items: Iterable, text: str, total: int) -> Iterable:
        return track(items, text, total=total, console=console, transient=True)

    if task == "bop":
        if dataset is None or results is None:
            raise ValueError("--task bop: expected --dataset FOLDER and --results CSV")
        _print_bop(console, dataset, results, None if split == "exam" else split, vsd, progress)
        return
    if detector == "refdet":
        from sightline.pipeline.exam_refdet import run_refdet_exam
        from sightline.refdet.shipped import shipped_weights

        if task != "exam-detection":
            raise ValueError(f"--detector refdet: expected the task exam-detection, got {task}")
        weights = weights or shipped_weights()
        run = run_refdet_exam(
            weights,
            split=split,
            limit=limit,
            swapped=swapped,
            min_score=min_score,
            min_iou=min_iou,
            progress=progress,
        )
        who = f"refdet {weights.stem}{' with swapped templates' * swapped}"
    else:
        from sightline.pipeline.exam_run import run_exam

        run = run_exam(
            task.removeprefix("exam-"), split=split, limit=limit, min_iou=min_iou, progress=progress
        )
        who = matcher
    _print_run(console, run, f"{who} on exam-{run.report.task}, version 1, split {split}")
    if output is not None:
        from sightline.pipeline.exam_files import write_exam_run

        for path in write_exam_run(output, run, f"{who} on exam-{run.report.task}, {split}"):
            console.print(str(path), highlight=False, soft_wrap=True)


def _print_run(console: Any, run: ExamRun, what: str) -> None:  # noqa: ANN401 - rich loads with a verb
    from sightline.vis.tables import Table

    report = run.report
    cells = tuple(zip(report.columns, *report.rows, strict=True))
    halves = tuple(row[0] for row in report.rows)
    console.print(Table(("figure", *halves), cells[1:], (False, *[True] * len(halves))).rich())
    if report.by_object:
        columns, rows = report.object_table()
        console.print(Table(columns, rows, (False, *[True] * (len(columns) - 1))).rich(width=118))
    console.print(
        f"{what}: {run.num_pictures} pictures of {run.num_objects} objects, {run.picture_seconds:.2f} s a "
        f"picture, onboarding {run.onboarding_seconds / max(run.num_objects, 1):.1f} s an object",
        highlight=False,
    )


def _print_bop(
    console: Any,  # noqa: ANN401 - rich is imported only when a verb runs
    dataset: Path,
    results: Path,
    split: str | None,
    vsd: bool,
    progress: Any,  # noqa: ANN401
) -> None:
    from sightline.pipeline.evaluate import evaluate_bop
    from sightline.vis.tables import Table

    scores = evaluate_bop(dataset, results, split=split, with_vsd=vsd, progress=progress)
    figures = {
        "AR": scores.recall.value,
        **{f"AR {name.upper()}": value for name, value in scores.recall.by_error.items()},
        "AP": scores.precision.value,
        **{f"AP {name.upper()}": value for name, value in scores.precision.by_error.items()},
        "ADD(-S) below 0.1 d": scores.add_recall,
        "seconds a picture": scores.seconds,
    }
    rows = tuple((name, f"{value:.3f}") for name, value in figures.items())
    console.print(Table(("figure", "value"), rows, (False, True)).rich())
    console.print(f"{results.name}: {scores.num_pictures} pictures of {dataset}", highlight=False)
