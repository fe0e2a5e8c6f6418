"""The command ``detect`` with the reference detector: cards or photographs in, boxes out."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import track as progress_bar

from sightline.formats.images import write_image
from sightline.formats.result_records import ImageResult
from sightline.pipeline.detection_files import DetectionFormat, write_detections
from sightline.pipeline.hybrid_detector import HybridDetector
from sightline.pipeline.refdet_banks import Bank, make_banks, make_thumbnails
from sightline.pipeline.sources import open_source
from sightline.refdet.bank_detector import BankDetector
from sightline.refdet.ensemble import DetectorEnsemble
from sightline.vis.overlays import draw_detections
from sightline.vis.palette import object_colors
from sightline.vis.reference_strip import draw_reference_strip


def open_detector(
    weights: Sequence[Path],
    *,
    with_key_points: bool = False,
    device: str = "cpu",
    flip: bool = False,
    scales: Sequence[float] | None = None,
    **settings: object,
) -> DetectorEnsemble | HybridDetector:
    """The detector that the options of a verb name.

    Args:
        weights: files; of several the opinions are fused.
        with_key_points: whether print is read too (:class:`HybridDetector`).
        device: where it runs.
        flip: whether mirrored pictures are searched too.
        scales: of the network's picture; 1 alone unless given.
        **settings: fields of :class:`~sightline.refdet.bank_detector.DetectorSettings`.

    Raises:
        FileNotFoundError: no such file of weights.
        ValueError: another model, or options that do not go with key points.
    """
    if not with_key_points:
        return DetectorEnsemble.from_checkpoints(
            weights, device=device, flip=flip, scales=scales or (1.0,), **settings
        )
    if flip or scales or len(weights) > 1:
        raise ValueError(
            "--flip, --scales, several --weights: expected with --detector refdet, got --detector hybrid"
        )
    return HybridDetector.from_checkpoint(weights[0], device=device, **settings)


def run_refdet_detection(
    source_path: Path,
    references: Sequence[Path],
    output: Path,
    *,
    detector: BankDetector[Bank],
    negatives: Sequence[Path] = (),
    max_instances: int = 4,
    min_score: float | None = None,
    form: DetectionFormat | str = "json",
    console: Console | None = None,
) -> list[ImageResult]:
    """Find every instance of known objects in every picture of a source.

    Args:
        source_path: a picture, a folder or a video.
        references: for each object its card, or a folder of photographs, whose name is the object's.
        output: folder for detections.json and overlays; created if need be.
        detector: finds them.
        negatives: cards or folders of photographs of look-alikes: what they explain better is left out.
        max_instances: of one object in one picture.
        min_score: lowest score of a detection; the detector's own unless given.
        form: ``coco`` and ``bop`` write such files too, see :func:`write_detections`.
        console: where progress goes.

    Returns:
        What was written, one entry a picture.

    Raises:
        FileNotFoundError: a source or reference is missing.
        ValueError: one that cannot be used.
    """
    console = console or Console()
    source = open_source(source_path)
    banks = make_banks(detector, progress_bar(references, "objects", console=console, transient=True))
    others = list(make_banks(detector, negatives).values())
    shown = make_thumbnails(references)
    colors = object_colors(banks)
    threshold = detector.settings.score_threshold if min_score is None else min_score
    output.mkdir(parents=True, exist_ok=True)
    results = []
    for frame in progress_bar(source, "pictures", total=len(source), console=console, transient=True):
        started = time.perf_counter()
        found = detector.detect(
            frame.image, banks, negatives=others, score_threshold=threshold, max_instances=max_instances
        )
        seconds = time.perf_counter() - started
        results.append(ImageResult.of_records(frame.name, detections=found, time=seconds))
        stem = Path(frame.name).stem.replace(" ", "-")
        path = output / ("overlay.png" if len(source) == 1 else f"{stem}_overlay.png")
        drawn = draw_detections(frame.image, found, colors=colors)
        write_image(path, draw_reference_strip(drawn, shown, colors=colors))
    meta = {"detector": detector.title, "score_threshold": threshold}
    write_detections(output, results, meta, names=list(banks), source=source_path, form=form)
    total = sum(len(result.objects) for result in results)
    console.print(f"{output}: {total} objects in {len(results)} pictures", highlight=False, soft_wrap=True)
    if total == 0:
        hint = f"nothing has a score of {threshold:g} or more; --min-score lowers that"
        console.print(hint, highlight=False)
    return results
