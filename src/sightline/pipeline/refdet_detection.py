"""The command ``detect`` with the reference detector: cards or photographs in, boxes out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import track as progress_bar

from sightline.formats.images import write_image
from sightline.formats.result_records import ImageResult
from sightline.formats.results import write_results
from sightline.pipeline.refdet_banks import make_banks
from sightline.pipeline.sources import open_source
from sightline.refdet.reference_detector import ReferenceDetector
from sightline.vis.overlays import draw_detections


def run_refdet_detection(
    source_path: Path,
    references: Sequence[Path],
    output: Path,
    *,
    weights: Path,
    max_instances: int = 4,
    min_score: float | None = None,
    device: str = "cpu",
    console: Console | None = None,
) -> list[ImageResult]:
    """Find every instance of known objects in every picture of a source.

    Args:
        source_path: a picture, a folder or a video.
        references: for each object its card, or a folder of photographs, whose name is the object's.
        output: folder for detections.json and overlays; created if need be.
        weights: of the detector.
        max_instances: of one object in one picture.
        min_score: lowest score of a detection; the detector's own unless given.
        device: where the network runs.
        console: where progress goes.

    Returns:
        What was written, one entry a picture.

    Raises:
        FileNotFoundError: a source, reference or file of weights is missing.
        ValueError: one that cannot be used.
    """
    console = console or Console()
    source = open_source(source_path)
    detector = ReferenceDetector.from_checkpoint(weights, device=device)
    banks = make_banks(detector, progress_bar(references, "objects", console=console, transient=True))
    threshold = detector.settings.score_threshold if min_score is None else min_score
    output.mkdir(parents=True, exist_ok=True)
    results = []
    for frame in progress_bar(source, "pictures", total=len(source), console=console, transient=True):
        found = detector.detect(frame.image, banks, score_threshold=threshold, max_instances=max_instances)
        results.append(ImageResult.of_records(frame.name, detections=found))
        stem = Path(frame.name).stem.replace(" ", "-")
        path = output / ("overlay.png" if len(source) == 1 else f"{stem}_overlay.png")
        write_image(path, draw_detections(frame.image, found))
    write_results(output / "detections.json", results, {"detector": f"refdet {detector.name}"})
    total = sum(len(result.objects) for result in results)
    console.print(f"{output}: {total} objects in {len(results)} pictures", highlight=False, soft_wrap=True)
    if total == 0:
        hint = f"nothing has a score of {threshold:g} or more; --min-score lowers that"
        console.print(hint, highlight=False)
    return results
