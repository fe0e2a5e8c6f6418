"""The commands ``pose``, ``track`` and ``detect``: from a source and cards on disk to results on disk."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track as progress_bar

from sightline.formats.images import write_image
from sightline.formats.videos import VideoWriter
from sightline.objects.card import ObjectCard
from sightline.objects.card_files import load_card, save_card
from sightline.objects.growing import rebake
from sightline.pipeline.depth_files import DepthFiles, open_depth
from sightline.pipeline.estimate import FoundObject, PoseEstimator
from sightline.pipeline.estimators import EstimatorMaker, MatcherChoice
from sightline.pipeline.explain import write_report
from sightline.pipeline.focal import ChosenCamera, choose_camera
from sightline.pipeline.pictures import draw_found
from sightline.pipeline.results import PoseLog
from sightline.pipeline.sources import Frame, Source, open_source
from sightline.pipeline.tracking import track
from sightline.vis.plots import plot_timeline
from sightline.vis.tables import PoseRow, pose_table


@dataclass(frozen=True, eq=False)
class RunSummary:
    """What a run over a source found.

    Args:
        camera: the camera and how it is known.
        num_frames: how many pictures were looked at.
        num_valid: by name, how many of them have a valid pose.
        seconds: time of the whole run.
    """

    camera: ChosenCamera
    num_frames: int
    num_valid: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0


def run_poses(
    source_path: Path,
    card_folders: list[Path],
    output: Path,
    *,
    camera_file: Path | None = None,
    focal: float | str | None = None,
    max_instances: int = 1,
    min_score: float = 0.4,
    follow: bool = False,
    grow: bool = False,
    report: bool = True,
    choice: MatcherChoice | None = None,
    depth: Path | None = None,
    depth_unit_mm: float = 1.0,
    console: Console | None = None,
) -> RunSummary:
    """Find the objects of some cards in every picture of a source and write all that was found.

    Args:
        source_path: a picture, a folder or a video.
        card_folders: the cards.
        output: folder for poses.json, overlays and reports; created if need be.
        camera_file: JSON file with the camera.
        focal: focal length in pixels, or ``auto``.
        max_instances: of one object in one picture.
        min_score: lowest verification score of a valid pose.
        follow: whether the last pose is the prior of the next picture.
        grow: with ``follow``, whether certain frames become templates; the grown cards go to ``cards/``.
        report: whether pictures get a report.
        choice: what finds the poses; the classical matcher unless given.
        depth: a depth picture of a picture, or a folder with one of each picture of a folder, named alike.
        depth_unit_mm: millimetres in one step of a depth picture.
        console: where progress and tables go.

    Returns:
        The summary.

    Raises:
        FileNotFoundError: a source or card is missing.
        ValueError: a source, card or camera that cannot be used.
    """
    started = time.perf_counter()
    console = console or Console()
    source = open_source(source_path)
    depths = None if depth is None else open_depth(depth, source, depth_unit_mm)
    cards = [load_card(folder) for folder in card_folders]
    estimator, chosen = prepare(
        source,
        cards,
        camera_file=camera_file,
        focal=focal,
        max_instances=max_instances,
        min_score=min_score,
        choice=choice,
        console=console,
    )
    output.mkdir(parents=True, exist_ok=True)
    log = PoseLog(chosen)
    with ExitStack() as stack:
        video = None
        if source.is_video or follow:
            video = stack.enter_context(
                VideoWriter(output / "overlay.mp4", source.fps if source.is_video else 10)
            )
        results = _each(source, estimator, chosen, depths)
        if follow:
            results = _follow(source, estimator, chosen, grow=grow)
        total = len(source)
        for frame, found in progress_bar(
            results, "frames", total=total, console=console, transient=True, disable=total < 3
        ):
            log.add(frame, found, max(sum(one.seconds.values()) for one in found))
            overlay = draw_found(frame.image, chosen.camera, found)
            if video is not None:
                video.write(overlay)
                continue
            stem = "overlay" if total == 1 else f"{Path(frame.name).stem}_overlay"
            write_image(output / f"{stem}.png", overlay)
            if report:
                target = output / ("report.html" if total == 1 else f"{Path(frame.name).stem}_report.html")
                write_report(target, frame, chosen, found)
            if total == 1:
                console.print(pose_table([row_of(one) for one in found]).rich())
    log.write(output / "poses.json")
    summary = RunSummary(chosen, len(log.images), dict(log.num_valid), time.perf_counter() - started)
    if video is not None:
        _write_timeline(output / "timeline.png", log, source.fps, min_score)
    _say(console, summary, cards, output)
    if grow:
        _save_grown(estimator.cards, cards, output / "cards", console)
    return summary


def prepare(
    source: Source,
    cards: list[ObjectCard],
    *,
    camera_file: Path | None,
    focal: float | str | None,
    max_instances: int,
    min_score: float,
    console: Console,
    choice: MatcherChoice | None = None,
) -> tuple[PoseEstimator, ChosenCamera]:
    """Get ready to look at a source: read the cards' features, find out about the camera and say it.

    Args:
        source: the pictures.
        cards: the objects.
        camera_file: JSON file with the camera.
        focal: focal length in pixels, or ``auto``.
        max_instances: of one object in one picture.
        min_score: lowest verification score of a valid pose.
        console: where progress goes.
        choice: what finds the poses; the classical matcher unless given.

    Returns:
        The estimator, and the camera of all pictures.

    Raises:
        FileNotFoundError: there are no such weights.
        ValueError: the camera is not known or cannot be right, or weights of another model.
    """
    with console.status("reading the cards' features"):
        estimator = EstimatorMaker(choice)(cards, max_instances=max_instances, min_score=min_score)
    with console.status("finding out about the camera"):
        chosen = choose_camera(source, estimator, camera_file=camera_file, focal=focal)
    console.print(f"camera: {chosen.reason}", highlight=False, soft_wrap=True)
    return estimator, chosen


def row_of(found: FoundObject) -> PoseRow:
    """One line of the table of poses."""
    distance = float(found.pose.t.norm()) if found.pose.valid else None
    return PoseRow(
        name=found.card.name,
        score=found.pose.score,
        found=found.pose.valid,
        distance=distance,
        seconds=sum(found.seconds.values()),
        note=found.pose.reason,
    )


def _each(
    source: Source, estimator: PoseEstimator, chosen: ChosenCamera, depths: DepthFiles | None
) -> Iterator[tuple[Frame, list[FoundObject]]]:
    for frame in source:
        depth = None if depths is None else depths.read(frame)
        yield frame, estimator.find(frame.image, chosen.camera, depth=depth)


def _follow(
    source: Source, estimator: PoseEstimator, chosen: ChosenCamera, *, grow: bool
) -> Iterator[tuple[Frame, list[FoundObject]]]:
    for tracked in track(source, estimator, chosen.camera, grow=grow):
        yield tracked.frame, tracked.found


def _save_grown(grown: list[ObjectCard], before: list[ObjectCard], folder: Path, console: Console) -> None:
    for card, old in zip(grown, before, strict=True):
        added = len(card.templates) - len(old.templates)
        if added == 0:
            continue
        if card.provenance.kind == "mesh+photos":
            card = rebake(card)
        save_card(card, folder / card.name)
        console.print(f"{folder / card.name}: {card.name} grew by {added} frames", highlight=False)


def _write_timeline(path: Path, log: PoseLog, fps: float, min_score: float) -> None:
    scores = np.array(log.best_scores)
    picture = plot_timeline(scores, np.array(log.any_valid), frames_per_second=fps, threshold=min_score)
    write_image(path, picture)


def _say(console: Console, summary: RunSummary, cards: list[ObjectCard], output: Path) -> None:
    counts = Counter(summary.num_valid)
    for card in cards:
        console.print(
            f"{card.name}: valid pose in {counts[card.name]} of {summary.num_frames} pictures",
            highlight=False,
        )
    rate = summary.num_frames / summary.seconds
    console.print(
        f"{output}: written in {summary.seconds:.1f} s ({rate:.1f} pictures a second)",
        highlight=False,
        soft_wrap=True,
    )
