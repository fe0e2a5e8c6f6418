"""The closed-set network sits its exam: as it is, refined by rendering, or adapting itself."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sightline.geometry.cameras import Camera
from sightline.objects.pose_polish import polish_pose
from sightline.pipeline.exam_run import ExamRun, Progress
from sightline.records import PoseEstimate
from sightline.rtdetr_pose.adapted import AdaptedDetector
from sightline.rtdetr_pose.inference import PosedDetections, RTDETRPoseDetector
from sightline.rtdetr_pose.ttt import AdaptSpec, summarise
from sightline.synthetic import ExamPicture
from sightline.synthetic.closed_set_exam import ClosedSetScorer, FoundPose, closed_set_pictures
from sightline.synthetic.corruptions import corrupt

_REFINED_SCORE = 0.3  # fainter detections are not worth a rendering
_MOST = 100  # detections of a picture, as COCO counts them
_SOURCE_PICTURES = 16  # clean development pictures, from which EATA learns what matters


@dataclass(frozen=True)
class Spoiled:
    """What is done to the exam's pictures.

    Args:
        corruption: a name of :data:`~sightline.synthetic.corruptions.CORRUPTIONS`.
        severity: 1 to 5.
    """

    corruption: str
    severity: int = 3

    def apply(self, picture: ExamPicture) -> NDArray[np.uint8]:
        """The picture, spoiled, the same each time."""
        scene = picture.scene
        return corrupt(
            scene.image, self.corruption, self.severity, seed=picture.index, depth=scene.depth.numpy()
        )


def run_rtdetr_pose_exam(
    weights: str | Path,
    *,
    split: str = "exam",
    limit: int | None = None,
    refined: bool = False,
    with_depth: bool = False,
    adapt: AdaptSpec | None = None,
    spoiled: Spoiled | None = None,
    min_iou: float = 0.5,
    device: str = "cpu",
    progress: Progress = lambda items, *_: items,
) -> ExamRun:
    """Let a closed-set network sit the exam of its five objects.

    Args:
        weights: of the network.
        split: ``exam``, or ``development`` for everything that is tuned.
        limit: how many pictures; all unless given.
        refined: whether poses are moved onto the picture by rendering the objects' meshes.
        with_depth: whether the depth pictures are given too, to the refinement and to the adaptation.
        adapt: how the network adapts itself; None for not at all.
        spoiled: what is done to the pictures; None for nothing.
        min_iou: that makes a detection right where its pose is judged.
        device: of the network.
        progress: wraps what takes long, with a text and a total.

    Returns:
        The figures.

    Raises:
        FileNotFoundError: there is no such file of weights.
        ValueError: weights of another model, or of other objects, or an unknown split.
    """
    detector = RTDETRPoseDetector.from_checkpoint(weights, device=device)
    pictures = closed_set_pictures(split, limit)
    _require_objects(weights, detector, [thing.name for thing in pictures.objects])
    meshes = {thing.name: thing.mesh for thing in pictures.objects}
    scorer = ClosedSetScorer(min_iou=min_iou)
    times = []
    with ExitStack() as stack:
        network: RTDETRPoseDetector | AdaptedDetector = detector
        if adapt is not None:
            network = stack.enter_context(AdaptedDetector(detector, adapt, source=_source_pictures()))
        for picture in progress(pictures, "pictures", len(pictures)):
            scene = picture.scene
            image = scene.image if spoiled is None else spoiled.apply(picture)
            depth = scene.depth if with_depth else None
            started = time.perf_counter()
            found = _look(network, image, scene.camera, depth)
            poses = list(found.poses)
            if refined:
                poses = [
                    _refined(pose, meshes, image, scene.camera, depth) if score >= _REFINED_SCORE else pose
                    for pose, score in zip(poses, found.detections.scores.tolist(), strict=True)
                ]
            times.append(time.perf_counter() - started)
            scorer.add(picture, _rows(found, poses))
    middle = float(torch.tensor(times, dtype=torch.float64).median()) if times else float("nan")
    return ExamRun(scorer.report(), len(pictures.objects), len(pictures), 0.0, middle)


@dataclass(frozen=True)
class AdaptationRow:
    """How one method did on one stream of spoiled pictures.

    Args:
        stream: the corruption.
        method: a preset, or ``source`` for the network as it is.
        ap: COCO's AP.
        ap50: COCO's AP at an overlap of 0.5.
        gain: AP points over the source.
        updated: steps that changed the network.
        rolled_back: steps that were taken back.
        seconds: a picture, median.
    """

    stream: str
    method: str
    ap: float
    ap50: float
    gain: float
    updated: int
    rolled_back: int
    seconds: float


def compare_adaptations(
    weights: str | Path,
    specs: dict[str, AdaptSpec],
    streams: Sequence[Spoiled],
    *,
    split: str = "exam",
    limit: int | None = None,
    with_depth: bool = True,
    progress: Progress = lambda items, *_: items,
) -> list[AdaptationRow]:
    """Methods of adaptation beside the network as it is, on streams of spoiled pictures.

    Args:
        weights: of the network.
        specs: the methods by name.
        streams: what is done to the pictures.
        split: ``exam``, or ``development`` for everything that is tuned.
        limit: how many pictures of each stream.
        with_depth: whether masked reconstruction is given the depth pictures.
        progress: wraps what takes long, with a text and a total.

    Returns:
        A row a stream and method, the source's first.
    """
    detector = RTDETRPoseDetector.from_checkpoint(weights)
    pictures = closed_set_pictures(split, limit)
    _require_objects(weights, detector, [thing.name for thing in pictures.objects])
    source = _source_pictures()
    scorers: dict[tuple[str, str], ClosedSetScorer] = {}
    notes: dict[tuple[str, str], tuple[int, int, float]] = {}
    kept = [(each.scene, each) for each in progress(pictures, "drawing", len(pictures))]
    methods: dict[str, AdaptSpec | None] = {"source": None, **specs}
    for spoiled in streams:
        images = [spoiled.apply(picture) for _, picture in kept]
        for method, spec in methods.items():
            key = (spoiled.corruption, method)
            scorer, times = scorers.setdefault(key, ClosedSetScorer()), []
            with ExitStack() as stack:
                network: RTDETRPoseDetector | AdaptedDetector = detector
                if spec is not None:
                    network = stack.enter_context(AdaptedDetector(detector, spec, source=source))
                for (scene, picture), image in progress(
                    list(zip(kept, images, strict=True)), f"{spoiled.corruption}, {method}", len(kept)
                ):
                    started = time.perf_counter()
                    found = _look(network, image, scene.camera, scene.depth if with_depth else None)
                    times.append(time.perf_counter() - started)
                    scorer.add(picture, _rows(found, found.poses))
                reports = network.reports if isinstance(network, AdaptedDetector) else []
            summary = summarise(reports)
            middle = float(torch.tensor(times, dtype=torch.float64).median())
            notes[key] = (summary["updated"], summary["rolled_back"], middle)
    return _table(scorers, notes)


def _table(
    scorers: dict[tuple[str, str], ClosedSetScorer], notes: dict[tuple[str, str], tuple[int, int, float]]
) -> list[AdaptationRow]:
    rows: list[AdaptationRow] = []
    plain: dict[str, float] = {}
    for (stream, method), scorer in scorers.items():
        report = scorer.report()
        figures = dict(zip(report.columns, report.rows[0], strict=True))
        ap, ap50 = 100 * float(figures["ap"]), 100 * float(figures["ap50"])
        plain.setdefault(stream, ap)
        rows.append(AdaptationRow(stream, method, ap, ap50, ap - plain[stream], *notes[stream, method]))
    return rows


def _look(
    network: RTDETRPoseDetector | AdaptedDetector,
    image: NDArray[np.uint8],
    camera: Camera,
    depth: Tensor | None,
) -> PosedDetections:
    """All that the network sees, however faint."""
    if isinstance(network, AdaptedDetector):
        return network.detect(image, camera, depth=depth, min_score=0.0, max_detections=_MOST)
    return network.detect(image, camera, min_score=0.0, max_detections=_MOST)


def _refined(
    pose: PoseEstimate, meshes: dict, image: NDArray[np.uint8], camera: Camera, depth: Tensor | None
) -> PoseEstimate:
    if not pose.valid:
        return pose
    better = polish_pose(meshes[pose.name], pose.cam_from_obj, image, camera, depth=depth).cam_from_obj
    return PoseEstimate(R=better[:3, :3], t=better[:3, 3], score=pose.score, valid=True, name=pose.name)


def _rows(found: PosedDetections, poses: Sequence[PoseEstimate]) -> list[FoundPose]:
    detections = found.detections
    return [
        FoundPose(name, float(score), box, pose)
        for name, score, box, pose in zip(
            detections.names, detections.scores, detections.boxes, poses, strict=True
        )
    ]


def _source_pictures() -> list[tuple[NDArray[np.uint8], Camera]]:
    """Clean pictures that are in no exam."""
    pictures = closed_set_pictures("train", _SOURCE_PICTURES)
    return [(each.scene.image, each.scene.camera) for each in pictures]


def _require_objects(weights: str | Path, detector: RTDETRPoseDetector, names: Sequence[str]) -> None:
    if set(detector.names) != set(names):
        raise ValueError(
            f"{weights}: expected weights for the exam's objects ({', '.join(names)}), these are for "
            f"{', '.join(detector.names)}"
        )
