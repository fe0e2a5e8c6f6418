"""The command ``detect`` on a video: objects are followed; each frame says what is found and what lost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import track as progress_bar

from sightline.formats.images import write_image
from sightline.formats.result_records import ImageResult
from sightline.formats.results import image_entry
from sightline.formats.results_stream import stream_results
from sightline.formats.videos import VideoWriter
from sightline.pipeline.refdet_banks import Bank, make_banks
from sightline.pipeline.sources import Source, open_source
from sightline.records import Detections
from sightline.refdet.bank_detector import BankDetector
from sightline.refdet.video import TrackedFrame, TrackedInstance, TrackSettings, follow
from sightline.vis.overlays import draw_detections, draw_notes
from sightline.vis.palette import Rgb, object_colors
from sightline.vis.plots import plot_timeline

_FOLDER_FPS = 10


@dataclass(frozen=True)
class VideoSummary:
    """What a run over a video found.

    Args:
        num_frames: how many frames there were.
        num_shown: by name, in how many of them an instance was seen.
    """

    num_frames: int
    num_shown: dict[str, int]


def run_refdet_video(
    source_path: Path,
    references: Sequence[Path],
    output: Path,
    *,
    detector: BankDetector[Bank],
    settings: TrackSettings,
    negatives: Sequence[Path] = (),
    window: float | None = None,
    console: Console | None = None,
) -> VideoSummary:
    """Follow known objects through a video, or a folder whose pictures are its frames.

    One frame is held at a time. ``detections.json`` is written as it goes: of each frame its number
    (``index``), its time (``time_s``, from the frame rate; null for a folder), the ``tracks`` with ``name``,
    ``track_id`` and ``state``, and the boxes. ``overlay.mp4`` and ``timeline.png`` show the same.

    Args:
        source_path: a video or a folder.
        references: for each object its card, or a folder of photographs, whose name is the object's.
        output: folder for the results; created if need be.
        detector: finds them in each frame.
        settings: when an instance is found and when it is lost.
        negatives: cards or folders of photographs of look-alikes.
        window: see :func:`~sightline.refdet.video.follow`.
        console: where progress goes.

    Returns:
        The summary.

    Raises:
        FileNotFoundError: a source or reference is missing.
        ValueError: one that cannot be used, or a window that is too small.
    """
    console = console or Console()
    source = open_source(source_path)
    banks = make_banks(detector, progress_bar(references, "objects", console=console, transient=True))
    others = list(make_banks(detector, negatives).values())
    fps = source.fps if source.is_video else None
    names, colors = sorted(banks), object_colors(banks)
    meta = {"detector": detector.title, "frames_per_second": fps}
    output.mkdir(parents=True, exist_ok=True)
    best, shown = [], {name: [] for name in banks}
    with (
        stream_results(output / "detections.json", names, meta) as write,
        VideoWriter(output / "overlay.mp4", fps or _FOLDER_FPS) as video,
    ):
        images = (frame.image for frame in source)
        followed = follow(images, detector, banks, settings, negatives=others, window=window)
        for frame in progress_bar(
            followed, "frames", total=len(source), console=console, transient=True, disable=len(source) < 3
        ):
            write(_frame_entry(frame, source, fps, names))
            video.write(_draw(frame, colors, number=settings.max_instances > 1))
            best.append(max((each.score for each in frame.instances), default=0.0))
            for name in banks:
                shown[name].append(any(i.name == name and i.box is not None for i in frame.instances))
    seen = np.array([any(row) for row in zip(*shown.values(), strict=True)])
    timeline = plot_timeline(
        np.array(best),
        seen,
        frames_per_second=fps,
        threshold=settings.found_score,
        title="Detection",
        what="an object",
    )
    write_image(output / "timeline.png", timeline)
    summary = VideoSummary(len(best), {name: sum(row) for name, row in shown.items()})
    for name, count in summary.num_shown.items():
        console.print(f"{name}: seen in {count} of {len(best)} frames", highlight=False)
    console.print(f"{output}: detections.json, overlay.mp4, timeline.png", highlight=False, soft_wrap=True)
    if not any(summary.num_shown.values()):
        hint = (
            f"nothing has a score of {settings.found_score:g} or more in {settings.confirm_frames} frames "
            "on end; --min-score and --confirm-frames lower that"
        )
        console.print(hint, highlight=False, soft_wrap=True)
    return summary


def _frame_entry(
    frame: TrackedFrame, source: Source, fps: float | None, names: Sequence[str]
) -> dict[str, Any]:
    name = f"frame {frame.index:06d}" if source.is_video else source.files[frame.index].name
    shown = [each for each in frame.instances if each.box is not None]
    entry = image_entry(ImageResult.of_records(name, detections=_record(frame, shown)), names)
    for found, each in zip(entry["detections"], shown, strict=True):
        found["track_id"] = each.track_id
    entry["index"] = frame.index
    entry["time_s"] = None if fps is None else frame.index / fps
    entry["tracks"] = [
        {"name": each.name, "track_id": each.track_id, "state": each.state} for each in frame.instances
    ]
    return entry


def _record(frame: TrackedFrame, shown: Sequence[TrackedInstance]) -> Detections:
    boxes = [each.box for each in shown if each.box is not None]
    return Detections(
        torch.stack(boxes) if boxes else torch.zeros(0, 4, dtype=torch.float64),
        torch.tensor([each.score for each in shown], dtype=torch.float64),
        tuple(each.name for each in shown),
        (frame.image.shape[1], frame.image.shape[0]),
    )


def _draw(frame: TrackedFrame, colors: Mapping[str, Rgb], *, number: bool) -> np.ndarray:
    """Boxes, and a line for everything that is not in the picture."""
    shown = [each for each in frame.instances if each.box is not None]
    plain = _record(frame, shown)
    called = [f"{each.name} #{each.track_id}" if number else each.name for each in shown]
    palette = {word: colors[each.name] for word, each in zip(called, shown, strict=True)}
    labelled = Detections(plain.boxes, plain.scores, tuple(called), plain.image_size)
    drawn = draw_detections(frame.image, labelled, colors=palette)
    notes = [
        f"{each.name} #{each.track_id}: {each.state}" if number and each.track_id is not None
        else f"{each.name}: {each.state}"
        for each in frame.instances
        if each.state != "found"
    ]  # fmt: skip
    return draw_notes(drawn, notes, corner="bottom-left")
