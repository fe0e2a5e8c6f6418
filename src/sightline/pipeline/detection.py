"""The command ``detect``: boxes and silhouettes of known objects, as files that other tools read."""

from __future__ import annotations

from pathlib import Path

import torch
from rich.console import Console
from rich.progress import track as progress_bar

from sightline.formats.images import write_image
from sightline.formats.result_records import ImageResult
from sightline.objects.card_files import load_card
from sightline.pipeline.detection_files import DetectionFormat, write_detections
from sightline.pipeline.estimate import FoundObject
from sightline.pipeline.pictures import quadrilateral, silhouette
from sightline.pipeline.run import prepare
from sightline.pipeline.sources import open_source
from sightline.records import Detections
from sightline.vis.overlays import draw_detections, draw_quadrilateral


def run_detection(
    source_path: Path,
    card_folders: list[Path],
    output: Path,
    *,
    camera_file: Path | None = None,
    focal: float | str | None = "auto",
    max_instances: int = 4,
    min_score: float = 0.4,
    form: DetectionFormat | str = "json",
    console: Console | None = None,
) -> list[ImageResult]:
    """Find the boxes of known objects in every picture of a source.

    Args:
        source_path: a picture, a folder or a video.
        card_folders: the cards.
        output: folder for detections.json and overlays; created if need be.
        camera_file: JSON file with the camera.
        focal: focal length in pixels, or ``auto``.
        max_instances: of one object in one picture.
        min_score: lowest verification score of a detection.
        form: ``coco`` and ``bop`` write such files too, see :func:`write_detections`.
        console: where progress goes.

    Returns:
        What was written, one entry a picture.

    Raises:
        FileNotFoundError: a source or card is missing.
        ValueError: a source, card or camera that cannot be used.
    """
    console = console or Console()
    source = open_source(source_path)
    cards = [load_card(folder) for folder in card_folders]
    estimator, chosen = prepare(
        source,
        cards,
        camera_file=camera_file,
        focal=focal,
        max_instances=max_instances,
        min_score=min_score,
        console=console,
    )
    output.mkdir(parents=True, exist_ok=True)
    results = []
    for frame in progress_bar(source, "pictures", total=len(source), console=console, transient=True):
        found = [one for one in estimator.find(frame.image, chosen.camera) if one.pose.valid]
        masks = [silhouette(one, chosen.camera) for one in found]
        detections = as_detections(found, chosen.camera.image_size)
        if found and all(mask is not None for mask in masks):
            stacked = torch.stack([torch.from_numpy(mask) for mask in masks if mask is not None])
            detections = Detections(
                detections.boxes, detections.scores, detections.names, detections.image_size, stacked
            )
        seconds = max((sum(one.seconds.values()) for one in found), default=None)
        results.append(ImageResult.of_records(frame.name, detections=detections, time=seconds))
        picture = draw_detections(frame.image, detections)
        for one in found:
            corners = quadrilateral(one, chosen.camera)
            if corners is not None:
                picture = draw_quadrilateral(picture, corners)
        stem = Path(frame.name).stem.replace(" ", "-")
        write_image(output / ("overlay.png" if len(source) == 1 else f"{stem}_overlay.png"), picture)
        if len(source) == 1:
            for one in found:
                box = ", ".join(f"{side:.1f}" for side in one.box.tolist())
                console.print(f"{one.card.name}: score {one.pose.score:.2f}, box {box}", highlight=False)
    write_detections(
        output,
        results,
        {"camera": chosen.reason},
        names=[card.name for card in cards],
        source=source_path,
        form=form,
    )
    total = sum(len(result.objects) for result in results)
    console.print(f"{output}: {total} objects in {len(results)} pictures", highlight=False, soft_wrap=True)
    return results


def as_detections(found: list[FoundObject], image_size: tuple[int, int]) -> Detections:
    """The boxes of valid poses as a record.

    Args:
        found: objects of one picture.
        image_size: ``(width, height)`` pixels.

    Returns:
        One detection a valid pose.
    """
    kept = [one for one in found if one.pose.valid]
    return Detections(
        torch.stack([one.box for one in kept]) if kept else torch.zeros(0, 4, dtype=torch.float64),
        torch.tensor([one.pose.score for one in kept], dtype=torch.float64),
        tuple(one.card.name for one in kept),
        image_size,
    )
