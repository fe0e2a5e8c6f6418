"""The exam's task ``closed-set-pose``: pictures of the five objects among others, and its scorer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from sightline.metrics import (
    SUCCESS_LIMITS,
    DetectedPoses,
    DetectedPoseScore,
    KnownShape,
    ObjectErrors,
    coco_scores,
    detected_pose_errors,
    score_detected_poses,
)
from sightline.records import Detections, PoseEstimate
from sightline.synthetic.closed_set import closed_set_objects
from sightline.synthetic.exam import ExamPicture, exam_object
from sightline.synthetic.exam_report import HALVES, ExamReport, make_report
from sightline.synthetic.exam_settings import CLOSED_SET, EXAM
from sightline.synthetic.objects import SyntheticObject
from sightline.synthetic.scenes import Scene, make_scene

CLOSED_SET_TASK = "closed-set-pose"


class ClosedSetPictures:
    """The pictures of a split, made when they are looked at; each is the same whatever was made before.

    Every picture asks for all five objects and shows one to four of them, or none.

    Args:
        split: ``"train"``, ``"development"`` or ``"exam"``.
        num_pictures: how many.
    """

    def __init__(self, split: str, num_pictures: int) -> None:
        self.split, self._num_pictures = split, num_pictures
        self.objects = closed_set_objects()

    def __len__(self) -> int:
        return self._num_pictures

    def __iter__(self) -> Iterator[ExamPicture]:
        return (self[index] for index in range(len(self)))

    def __getitem__(self, index: int) -> ExamPicture:
        """Make one picture."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"index: expected a number below {len(self)}, got {index}")
        index %= len(self)
        shown, seed = self.shown(index), self.seed_of(index)
        rng = np.random.default_rng([seed, 0])
        count = int(rng.integers(CLOSED_SET.distractors[0], CLOSED_SET.distractors[1] + 1))
        others = rng.permutation(CLOSED_SET.num_others)[:count]
        things = [self.objects[number] for number in shown]
        things += [exam_object(int(number), self.split) for number in others]
        # one distractor at least finds its place
        scene = make_scene(things, [seed, 1], CLOSED_SET.scene, num_targets=len(shown) + 1)
        rows = tuple(row for row, thing in enumerate(scene.object_indices) if thing < len(shown))
        return ExamPicture(index, scene, tuple(thing.name for thing in self.objects), rows)

    def shown(self, index: int) -> tuple[int, ...]:
        """The labels of the objects that a picture shows, without making it."""
        if index % CLOSED_SET.empty_every == CLOSED_SET.empty_every - 1:
            return ()
        rng = np.random.default_rng([self.seed_of(index), 2])
        least, most = CLOSED_SET.shown
        count = least + (index - index // CLOSED_SET.empty_every) % (most - least + 1)
        return tuple(int(label) for label in rng.permutation(len(self.objects))[:count])

    def seed_of(self, index: int) -> int:
        """The seed of a picture.

        Raises:
            ValueError: more pictures than the split has seeds.
        """
        first, stop = EXAM.picture_seeds[self.split]
        seed = first + CLOSED_SET.seed_offset + index
        if seed >= stop:
            raise ValueError(f"index: split {self.split!r} has no seed left for picture {index}")
        return seed


class ClosedSetScenes:
    """The scenes of pictures alone, for what takes scenes.

    Args:
        pictures: of any split.
    """

    def __init__(self, pictures: ClosedSetPictures) -> None:
        self.pictures = pictures

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> Scene:
        """The scene of a picture, made now."""
        return self.pictures[index].scene


def closed_set_pictures(split: str = "exam", limit: int | None = None) -> ClosedSetPictures:
    """The pictures of the task ``closed-set-pose``, made when they are looked at.

    Args:
        split: ``"train"``, ``"development"`` or ``"exam"``; of the exam there are no more than 200.
        limit: how many; 200 unless given.

    Raises:
        ValueError: an unknown split, or a limit below 0.

    Example:
        >>> pictures = closed_set_pictures("development", 20)
        >>> len(pictures), [len(pictures.shown(index)) for index in (0, 1, 2, 3, 9)]
        (20, [1, 2, 3, 4, 0])
    """
    if split not in EXAM.picture_seeds:
        raise ValueError(f"split: expected one of {', '.join(EXAM.picture_seeds)}; got {split!r}")
    count = CLOSED_SET.num_pictures if limit is None else limit
    if count < 0:
        raise ValueError(f"limit: expected a number of at least 0, got {limit}")
    return ClosedSetPictures(split, min(count, CLOSED_SET.num_pictures) if split == "exam" else count)


class FoundPose(NamedTuple):
    """One detection as the scorer takes it.

    Args:
        name: of the object.
        score: higher is surer.
        box: ``(4,)`` ``xyxy`` pixels, around the whole silhouette.
        pose: None, or one that is not valid, where there is no pose.
    """

    name: str
    score: float
    box: Float[Tensor, "4"]
    pose: PoseEstimate | None = None


class ClosedSetScorer:
    """Scores detections with poses: COCO's AP of the boxes, and the poses of the objects that were found.

    Args:
        objects: the task's; the five unless given.
        min_iou: that makes a detection right where its pose is judged.
        min_score: of detections whose poses are judged; AP takes all.

    Raises:
        ValueError: an intersection over union that none or all boxes have.

    Example:
        >>> ClosedSetScorer().report().columns[:4]
        ('texture', 'pictures', 'objects', 'ap')
    """

    def __init__(
        self,
        objects: Sequence[SyntheticObject] | None = None,
        *,
        min_iou: float = 0.5,
        min_score: float = 0.0,
    ) -> None:
        if not 0 < min_iou <= 1:
            raise ValueError(f"min_iou: expected a number in (0, 1], got {min_iou}")
        self.objects = closed_set_objects() if objects is None else tuple(objects)
        self.min_iou, self.min_score = min_iou, min_score
        self._shapes = {thing.name: _shape(thing) for thing in self.objects}
        self._found: list[Detections] = []
        self._truths: list[Detections] = []
        self._errors: list[ObjectErrors] = []

    def add(self, picture: ExamPicture, found: Sequence[FoundPose]) -> None:
        """Take in what was found in one picture; other names than the objects' do not count.

        Raises:
            ValueError: a box or a score that is not finite.
        """
        size = picture.scene.camera.image_size
        known = [each for each in found if each.name in self._shapes]
        boxes = torch.stack([each.box.double() for each in known]) if known else torch.zeros(0, 4).double()
        scores = torch.tensor([each.score for each in known], dtype=torch.float64)
        record = Detections(boxes, scores, tuple(each.name for each in known), size)
        truth = picture.truth
        truth = Detections(truth.boxes, truth.scores, truth.names, truth.image_size)
        poses = _stack([None if each.pose is None else each.pose for each in known])
        self._found.append(record)
        self._truths.append(truth)
        self._errors += detected_pose_errors(
            DetectedPoses(record, poses),
            DetectedPoses(truth, _stack(picture.poses)),
            self._shapes,
            min_iou=self.min_iou,
            min_score=self.min_score,
        )

    def report(self) -> ExamReport:
        """The figures of all pictures so far: of all objects, of rich and of low texture, and of each."""
        inside = {
            half: {thing.name for thing in self.objects if half in ("all", thing.texture)} for half in HALVES
        }
        figures = {half: self._figures(names) for half, names in inside.items()}
        by_object = {thing.name: self._figures({thing.name}) for thing in self.objects}
        return make_report(CLOSED_SET_TASK, figures, by_object)

    def _figures(self, names: set[str]) -> dict[str, float]:
        found, truths = (
            [_only(record, names) for record in records] for records in (self._found, self._truths)
        )
        errors = [each for each in self._errors if each.name in names]
        coco = coco_scores(found, truths) if errors else None
        return {
            "pictures": float(len(truths)),
            "objects": float(len(errors)),
            "ap": coco.ap if coco else float("nan"),
            "ap50": coco.ap50 if coco else float("nan"),
            **_pose_figures(score_detected_poses(errors)),
        }


def _pose_figures(score: DetectedPoseScore) -> dict[str, float]:
    rates = {
        f"within_{degrees:g}deg_{100 * metres:g}cm": share
        for (degrees, metres), share in zip(SUCCESS_LIMITS, score.success, strict=True)
    }
    return {
        "found": score.found,
        "mean_iou": score.mean_iou,
        "median_deg": score.turn_median_deg,
        "mean_deg": score.turn_mean_deg,
        "median_depth_pct": 100 * score.depth_median,
        "depth_abs_rel": score.depth_abs_rel,
        "depth_rmse_m": score.depth_rmse,
        "median_shift_m": score.shift_median,
        "mean_shift_m": score.shift_mean,
        "add_01d": score.add_recall,
        **rates,
    }


@cache
def _shape(thing: SyntheticObject) -> KnownShape:
    return KnownShape(thing.mesh.vertices.double(), float(thing.mesh.diameter), thing.symmetries)


def _stack(poses: Sequence[PoseEstimate | None]) -> Float[Tensor, "n 4 4"]:
    unknown = torch.full((4, 4), torch.nan, dtype=torch.float64)
    rows = [unknown if p is None or not p.valid else p.cam_from_obj.double() for p in poses]
    return torch.stack(rows) if rows else torch.zeros(0, 4, 4, dtype=torch.float64)


def _only(record: Detections, names: set[str]) -> Detections:
    rows = [row for row, name in enumerate(record.names) if name in names]
    kept = tuple(record.names[row] for row in rows)
    return Detections(record.boxes[rows], record.scores[rows], kept, record.image_size)
