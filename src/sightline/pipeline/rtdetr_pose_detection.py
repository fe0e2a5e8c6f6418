"""The commands ``detect`` and ``pose`` with the closed-set network: one pass a picture, refined by cards."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track as progress_bar
from torch import Tensor

from sightline.formats.images import write_image
from sightline.formats.result_records import ImageResult
from sightline.geometry.cameras import Camera
from sightline.objects.card import ObjectCard
from sightline.objects.card_files import load_card
from sightline.objects.pose_polish import polish_pose
from sightline.pipeline.depth_files import open_depth
from sightline.pipeline.detection_files import DetectionFormat, write_detections
from sightline.pipeline.focal import choose_camera
from sightline.pipeline.sources import open_source
from sightline.rtdetr_pose.adapted import AdaptedDetector
from sightline.rtdetr_pose.inference import PosedDetections, RTDETRPoseDetector
from sightline.rtdetr_pose.ttt import AdaptSpec, summarise
from sightline.vis.overlays import draw_detections
from sightline.vis.palette import object_colors
from sightline.vis.pose_overlays import draw_poses


def run_rtdetr_pose(
    source_path: Path,
    output: Path,
    *,
    detector: RTDETRPoseDetector,
    card_folders: Sequence[Path] = (),
    camera_file: Path | None = None,
    focal: float | str | None = None,
    min_score: float = 0.5,
    max_detections: int = 20,
    adapt: AdaptSpec | None = None,
    depth: Path | None = None,
    depth_unit_mm: float = 1.0,
    save: Path | None = None,
    form: DetectionFormat | str = "json",
    console: Console | None = None,
) -> list[ImageResult]:
    """Find the objects that a network was trained for, with their poses, in every picture of a source.

    Args:
        source_path: a picture, a folder or a video.
        output: folder for detections.json and overlays; created if need be.
        detector: the network.
        card_folders: cards of some of its objects, by whose meshes their poses are refined and verified.
        camera_file: JSON file with the camera.
        focal: focal length in pixels.
        min_score: lowest score of a detection.
        max_detections: in a picture.
        adapt: how the network adapts itself to the pictures, whose report is written beside the results; None
            for not at all.
        depth: a depth picture of a picture, or a folder with one of each picture of a folder, named alike.
        depth_unit_mm: millimetres in one step of a depth picture.
        save: with ``adapt``, a file for the weights that it led to.
        form: ``coco`` and ``bop`` write such files too, see :func:`write_detections`.
        console: where progress goes.

    Returns:
        What was written, one entry a picture.

    Raises:
        FileNotFoundError: a source or card is missing.
        ValueError: one that cannot be used, a card of an object that the network does not know, or a camera
            that is not known.
    """
    console = console or Console()
    source = open_source(source_path)
    cards = _cards(card_folders, detector)
    depths = None if depth is None else open_depth(depth, source, depth_unit_mm)
    chosen = choose_camera(source, None, camera_file=camera_file, focal=focal)
    console.print(f"camera: {chosen.reason}", highlight=False, soft_wrap=True)
    colors = object_colors(detector.names)
    output.mkdir(parents=True, exist_ok=True)
    results = []
    with ExitStack() as stack:
        network: RTDETRPoseDetector | AdaptedDetector = detector
        if adapt is not None:
            network = stack.enter_context(AdaptedDetector(detector, adapt))
        for frame in progress_bar(source, "pictures", total=len(source), console=console, transient=True):
            started = time.perf_counter()
            measured = None if depths is None else depths.read(frame)
            limits = {"min_score": min_score, "max_detections": max_detections}
            if isinstance(network, AdaptedDetector):
                found = network.detect(frame.image, chosen.camera, depth=measured, **limits)
            else:
                found = network.detect(frame.image, chosen.camera, **limits)
            found = refine_by_cards(found, cards, frame.image, chosen.camera, depth=measured)
            seconds = time.perf_counter() - started
            results.append(
                ImageResult.of_records(
                    frame.name,
                    detections=found.detections,
                    poses=found.poses,
                    camera=chosen.camera,
                    time=seconds,
                )
            )
            stem = Path(frame.name).stem.replace(" ", "-")
            path = output / ("overlay.png" if len(source) == 1 else f"{stem}_overlay.png")
            write_image(path, _drawn(frame.image, chosen.camera, found, cards, colors))
        meta = {"detector": f"rtdetr-pose {detector.name}", "score_threshold": min_score, "units": "m"}
        if isinstance(network, AdaptedDetector):
            summary = summarise(network.reports)
            report = {"summary": summary, "steps": [each.to_dict() for each in network.reports]}
            (output / "adaptation.json").write_text(json.dumps(report, indent=1), encoding="utf-8")
            console.print(_words(summary), highlight=False, soft_wrap=True)
            if save is not None:
                detector.save(save)
                console.print(f"{save}: the adapted weights", highlight=False, soft_wrap=True)
            meta["adaptation"] = network.reports[0].method if network.reports else "none"
    write_detections(output, results, meta, names=list(detector.names), source=source_path, form=form)
    total = sum(len(result.objects) for result in results)
    console.print(f"{output}: {total} objects in {len(results)} pictures", highlight=False, soft_wrap=True)
    if total == 0:
        console.print(f"nothing has a score of {min_score:g} or more; --min-score lowers that")
    return results


def refine_by_cards(
    found: PosedDetections,
    cards: Mapping[str, ObjectCard],
    image: NDArray[np.uint8],
    camera: Camera,
    *,
    depth: Tensor | None = None,
) -> PosedDetections:
    """Move each predicted pose onto the picture, where there is a card with a mesh of the object.

    Args:
        found: in the picture.
        cards: by name.
        image: ``(h, w, 3)`` uint8 RGB.
        camera: of the picture.
        depth: ``(h, w)`` metres, 0 or NaN where missing.

    Returns:
        The same with better poses, whose score is that of the verification.
    """
    poses = []
    for pose in found.poses:
        card = cards.get(pose.name)
        if card is not None and card.mesh is not None and pose.valid:
            better = polish_pose(card.mesh, pose.cam_from_obj, image, camera, depth=depth)
            moved = better.cam_from_obj
            # the network's own doubt is about its own pose
            pose = replace(pose, R=moved[:3, :3], t=moved[:3, 3], score=better.check.score, covariance=None)
        poses.append(pose)
    return replace(found, poses=tuple(poses))


def _cards(folders: Sequence[Path], detector: RTDETRPoseDetector) -> dict[str, ObjectCard]:
    cards = {}
    for folder in folders:
        card = load_card(folder)
        if card.name not in detector.names:
            known = ", ".join(detector.names)
            raise ValueError(f"{folder}: the network does not know {card.name!r}; it knows {known}")
        cards[card.name] = card
    return cards


def _drawn(
    image: NDArray[np.uint8],
    camera: Camera,
    found: PosedDetections,
    cards: Mapping[str, ObjectCard],
    colors: Mapping[str, tuple[int, int, int]],
) -> NDArray[np.uint8]:
    bounds = [cards[pose.name].bounds if pose.name in cards else None for pose in found.poses]
    boxed = draw_detections(image, found.detections, colors=colors, labels=False)
    return draw_poses(boxed, camera, list(found.poses), bounds=bounds, colors=colors)


def _words(summary: Mapping[str, object]) -> str:
    return (
        f"adaptation: {summary['updated']} of {summary['steps']} steps changed the network, "
        f"{summary['skipped']} were skipped, {summary['rolled_back']} taken back"
    )
