"""``sightline calibrate-detector`` and ``calibrate-poses``: weights learn how far their word can be taken."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Literal


def calibrate_detector(
    output: Path,
    weights: Path | None = None,
    card: list[Path] | None = None,
    negatives: Path | None = None,
    split: str = "development",
    limit: int | None = None,
    false_alarms: float = 0.05,
    min_iou: float = 0.5,
    device: str = "cpu",
    detector: Literal["refdet", "hybrid"] = "refdet",
) -> None:
    """Find the score threshold of a reference detector for a rate of false alarms.

    Takes pictures that show none of the given objects, or else the generated detection task, and writes new
    weights that know the threshold, and a curve from which that of any other rate can be read.

    Args:
        output: the new file of weights, .safetensors.
        weights: a .safetensors file of the reference detector; those of the package unless given.
        card: object cards or folders of photographs of one object, to look for in --negatives.
        negatives: a folder of pictures, or a video, that show none of these objects.
        split: of the generated task, without --negatives; development or train.
        limit: how many pictures of the generated task; all unless given.
        false_alarms: the rate that is not to be exceeded, of one object in one picture without it.
        min_iou: the overlap that makes a detection right, for the recall on the generated task.
        device: cpu or cuda.
        detector: refdet, or hybrid, which reads key points too; the file keeps what both have learned.
    """
    from rich.progress import track

    from sightline.cli.console import make_console
    from sightline.pipeline.hybrid_detector import HybridDetector
    from sightline.pipeline.refdet_calibration import (
        calibrate_on_exam,
        calibrate_on_negatives,
        write_calibrated,
    )
    from sightline.refdet.reference_detector import ReferenceDetector
    from sightline.refdet.shipped import shipped_weights
    from sightline.vis.tables import Table

    console = make_console()

    def progress(items: Iterable, text: str, total: int) -> Iterable:
        return track(items, text, total=total, console=console, transient=True)

    if (negatives is None) != (not card):
        raise ValueError("expected --card CARD ... and --negatives FOLDER together, or neither of them")
    weights = weights or shipped_weights()
    if output.suffix != ".safetensors" or output.resolve() == weights.resolve():
        raise ValueError(f"--output {output}: expected another file than the weights, named *.safetensors")
    if not 0 < false_alarms < 1:
        raise ValueError(f"--false-alarms: expected a rate between 0 and 1, such as 0.05, got {false_alarms}")
    if not 0 < min_iou <= 1:
        raise ValueError(f"--min-iou: expected a number in (0, 1], got {min_iou}")
    if detector == "hybrid":
        # the generated task says how to weigh key points; without it that must be known
        make = HybridDetector.to_calibrate if negatives is None else HybridDetector.from_checkpoint
        judged = make(weights, device=device)
    else:
        judged = ReferenceDetector.from_checkpoint(weights, device=device)
    if negatives is not None and card:
        found = calibrate_on_negatives(judged, card, negatives, false_alarms=false_alarms, progress=progress)
    else:
        found = calibrate_on_exam(
            judged, split=split, limit=limit, false_alarms=false_alarms, min_iou=min_iou, progress=progress
        )
    write_calibrated(weights, judged, found.presence, output)
    presence = found.presence
    low, high = presence.interval
    alarms = f"{presence.num_alarms} of {presence.num_empty} ({low:.3f} to {high:.3f})"
    rows = [
        ("false alarms asked for", f"{false_alarms:g}"),
        ("score threshold", f"{presence.threshold:.4f}"),
        ("false alarms here (95 %)", alarms),
    ]
    if found.report is not None:
        figures = found.report.figures["all"]
        sure = f"({figures['recall_low']:.3f} to {figures['recall_high']:.3f})"
        rows.append(("recall here (95 %)", f"{figures['recall']:.3f} {sure}"))
        rows += [(name, f"{figures[name]:.3f}") for name in ("precision", "mean_iou")]
    console.print(Table(("figure", "value"), tuple(rows), (False, True)).rich())
    console.print(
        f"{output}: {found.num_objects} objects in {found.num_pictures} pictures without them; "
        f"rates down to {presence.curve.least_rate:.3g} can be had",
        highlight=False,
        soft_wrap=True,
    )


def calibrate_poses(
    output: Path,
    matcher: Literal["sift", "vpog"] = "vpog",
    weights: Path | None = None,
    split: str = "development",
    limit: int | None = None,
    device: str = "cpu",
) -> None:
    """Find how far a matcher's poses are really off, so that their covariances say so.

    Looks for generated objects with known poses, in colour alone and with depth, and writes the numbers by
    which claimed covariances are widened. They are taken up from WEIGHTS.errors.json beside WEIGHTS, and for
    sift from sift.errors.json beside the package's weights. Poses in a wrong mode, such as the other side of
    an object, are left out: these are what scores are about.

    Args:
        output: the file to write, named *.errors.json.
        matcher: whose poses.
        weights: of vpog; those of the package unless given.
        split: development or train.
        limit: how many pictures; all unless given.
        device: of vpog, cpu or cuda.
    """
    from rich.progress import track

    from sightline.cli.console import make_console
    from sightline.objects.pose_errors import write_error_model
    from sightline.pipeline.estimators import EstimatorMaker, MatcherChoice
    from sightline.pipeline.pose_calibration import calibrate
    from sightline.vis.tables import Table

    console = make_console()

    def progress(items: Iterable, text: str, total: int) -> Iterable:
        return track(items, text, total=total, console=console, transient=True)

    if not output.name.endswith(".errors.json"):
        raise ValueError(f"--output {output}: expected a file named *.errors.json")
    make = EstimatorMaker(MatcherChoice(matcher, weights, device=device), calibrated=False)
    found = calibrate(make, split=split, limit=limit, progress=progress)
    write_error_model(output, found.model, {"matcher": make.name, "split": split, **found.notes()})
    console.print(Table(*found.table(), (False, True, True)).rich())
    console.print(str(output), highlight=False, soft_wrap=True)
