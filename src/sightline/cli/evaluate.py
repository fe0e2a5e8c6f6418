"""``sightline evaluate``: the frozen exam, or BOP's metrics on a results file."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from sightline.pipeline.exam_run import ExamRun


def evaluate(
    task: Literal[
        "exam-pose",
        "exam-pose-end-to-end",
        "exam-detection",
        "exam-closed-set-pose",
        "exam-adaptation",
        "bop",
    ],
    matcher: Literal["sift", "vpog"] = "sift",
    detector: Literal["sift", "refdet", "hybrid"] = "sift",
    weights: Path | None = None,
    mode: Literal["cluster", "global", "global-fast"] | None = None,
    device: str = "cpu",
    swapped: bool = False,
    shuffled_poses: bool = False,
    with_depth: bool = False,
    min_score: float | None = None,
    min_iou: float = 0.5,
    output: Path | None = None,
    split: str = "exam",
    limit: int | None = None,
    dataset: Path | None = None,
    results: Path | None = None,
    detections: Path | None = None,
    true_boxes: bool = False,
    cards: Path | None = None,
    vsd: bool = True,
    refined: bool = False,
    ttt: list[str] | None = None,
    corruption: str | None = None,
    severity: int = 3,
) -> None:
    """Measure accuracy on the frozen exam or a BOP data set, or score a BOP results file.

    Where there is no results file yet, bop runs the matcher on the data set's targets first, and writes it;
    a run that was stopped goes on with the next picture when the command is given again.

    Args:
        task: one of the exam's, or bop.
        matcher: what sits the exams of poses.
        detector: what sits the exam of detection; hybrid is refdet with key points beside it.
        weights: of a learned matcher or detector; those of the package unless given.
        mode: how vpog looks at a crop; see pose.
        device: of vpog, cpu or cuda.
        swapped: look for each object with the views of another: a control that must fail.
        shuffled_poses: of poses, say of each template that it shows another side: a control that must fail.
        with_depth: of poses, give the depth pictures too.
        min_score: of refdet and hybrid, the score from which a detection counts in the figures at a
            threshold; that of the weights unless given.
        min_iou: in the exam of detection, the overlap that makes a detection right at a threshold; AP has its
            own.
        output: folder for figures.json and a plot: of detection precision and recall, of poses how often the
            truth lies within what their covariances claim; none unless given.
        split: exam, or development for everything that is tuned; with bop, the data set's split.
        limit: how many pictures of the exam; all unless given.
        dataset: with bop, a folder in BOP's layout with models.
        results: with bop, a METHOD_DATASET-SPLIT.csv, to be scored, or to be written and scored.
        detections: with bop, a JSON file of detections as BOP shares them, such as CNOS'; says where to look.
        true_boxes: with bop, look where the truth says; not to be compared with methods that detect.
        cards: with bop, a folder where the objects' cards are kept between runs; made anew unless given.
        vsd: with bop, whether to render for VSD, which needs depth pictures.
        refined: of the closed set, whether the network's poses are moved onto the picture by rendering.
        ttt: of the closed set, how the network adapts itself, see adapt; of exam-adaptation the methods that
            are compared.
        corruption: of the closed set, what spoils the pictures: blur, noise, fog, contrast, gamma, jpeg,
            color-cast or low-light; exam-adaptation goes through all unless one is given.
        severity: of the corruption, 1 to 5.
    """
    from rich.progress import track

    from sightline.cli.console import make_console

    console = make_console()

    def progress(items: Iterable, text: str, total: int) -> Iterable:
        return track(items, text, total=total, console=console, transient=True)

    if task == "bop":
        if dataset is None or results is None:
            raise ValueError("--task bop: expected --dataset FOLDER and --results CSV")
        folder = None if split == "exam" else split
        if detections is not None or true_boxes or not results.exists():
            from sightline.pipeline.bop_run import run_bop
            from sightline.pipeline.estimators import EstimatorMaker, MatcherChoice

            make = EstimatorMaker(MatcherChoice(matcher, weights, mode, device=device))
            done = run_bop(
                dataset,
                results,
                make=make,
                detections=detections,
                true_boxes=true_boxes,
                split=folder,
                with_depth=with_depth,
                cards_folder=cards,
                progress=progress,
            )
            console.print(*done.lines(), sep="\n", highlight=False, soft_wrap=True)
        _print_bop(console, dataset, results, folder, vsd, progress)
        return
    if task in ("exam-closed-set-pose", "exam-adaptation"):
        from sightline.cli.evaluate_closed_set import evaluate_adaptation, evaluate_closed_set

        _refuse(
            task,
            matcher=matcher != "sift",
            detector=detector != "sift",
            swapped=swapped,
            shuffled_poses=shuffled_poses,
            mode=mode is not None,
        )
        if task == "exam-adaptation":
            evaluate_adaptation(
                console, progress, weights, ttt, corruption, severity, split, limit, with_depth, output
            )
            return
        run, who = evaluate_closed_set(
            progress, weights, refined, with_depth, ttt, corruption, severity, split, limit, min_iou, device
        )
        _print_run(console, run, who)
        if output is not None:
            from sightline.pipeline.exam_files import write_exam_run

            for path in write_exam_run(output, run, who):
                console.print(str(path), highlight=False, soft_wrap=True)
        return
    _refuse(task, refined=refined, ttt=ttt is not None, corruption=corruption is not None)
    if swapped and shuffled_poses:
        raise ValueError("--swapped, --shuffled-poses: expected one control at a time, got both")
    if detector in ("refdet", "hybrid"):
        from sightline.pipeline.exam_refdet import run_refdet_exam
        from sightline.refdet.shipped import shipped_weights

        if task != "exam-detection":
            raise ValueError(f"--detector {detector}: expected the task exam-detection, got {task}")
        _refuse(
            f"--detector {detector} on {task}",
            matcher=matcher != "sift",
            mode=mode is not None,
            device=device != "cpu",
            shuffled_poses=shuffled_poses,
            with_depth=with_depth,
        )
        weights = weights or shipped_weights()
        run = run_refdet_exam(
            weights,
            hybrid=detector == "hybrid",
            split=split,
            limit=limit,
            swapped=swapped,
            min_score=min_score,
            min_iou=min_iou,
            progress=progress,
        )
        who = f"{detector} {weights.stem}"
    else:
        from sightline.pipeline.estimators import EstimatorMaker, MatcherChoice
        from sightline.pipeline.exam_run import run_exam

        _refuse(f"--detector sift on {task}", min_score=min_score is not None)
        if task == "exam-detection":
            _refuse(
                f"--detector sift on {task}",
                matcher=matcher != "sift",
                swapped=swapped,
                shuffled_poses=shuffled_poses,
                with_depth=with_depth,
            )
        make = EstimatorMaker(MatcherChoice(matcher, weights, mode, device=device))
        run = run_exam(
            task.removeprefix("exam-"),
            split=split,
            limit=limit,
            min_iou=min_iou,
            make=make,
            control="swapped" if swapped else "shuffled-poses" if shuffled_poses else None,
            with_depth=with_depth,
            progress=progress,
        )
        who = f"{make.name}{' with depth' * with_depth}"
    who += " with swapped templates" * swapped + " with shuffled poses" * shuffled_poses
    _print_run(console, run, f"{who} on exam-{run.report.task}, version 1, split {split}")
    if output is not None:
        from sightline.pipeline.exam_files import write_exam_run

        for path in write_exam_run(output, run, f"{who} on exam-{run.report.task}, {split}"):
            console.print(str(path), highlight=False, soft_wrap=True)


def _refuse(what: str, **given: bool) -> None:
    """Say which options do not belong to what is measured."""
    foreign = [f"--{name.replace('_', '-')}" for name, is_given in given.items() if is_given]
    if foreign:
        raise ValueError(f"{', '.join(foreign)}: does not apply to {what}")


def _print_run(console: Any, run: ExamRun, what: str) -> None:  # noqa: ANN401 - rich loads with a verb
    from sightline.vis.tables import Table

    report = run.report
    cells = tuple(zip(report.columns, *report.rows, strict=True))
    halves = tuple(row[0] for row in report.rows)
    console.print(Table(("figure", *halves), cells[1:], (False, *[True] * len(halves))).rich())
    if report.by_object:
        columns, rows = report.object_table()
        if len(columns) > len(rows):  # few objects with many figures are read better side by side
            columns, *rows = zip(columns, *rows, strict=True)
        console.print(Table(columns, tuple(rows), (False, *[True] * (len(columns) - 1))).rich(width=118))
    crop = (
        "" if math.isnan(run.object_seconds) else f" and {run.object_seconds:.2f} s an object in it (medians)"
    )
    console.print(
        f"{what}: {run.num_pictures} pictures of {run.num_objects} objects, {run.picture_seconds:.2f} s a "
        f"picture{crop}, onboarding {run.onboarding_seconds / max(run.num_objects, 1):.1f} s an object",
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
