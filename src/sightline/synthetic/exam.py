"""The frozen exam: its objects and pictures, made on demand from the seeds of `exam_settings`.

Nobody tunes on the split ``"exam"``: train on ``"train"`` and choose on ``"development"``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from sightline.records import Detections, PoseEstimate
from sightline.synthetic.exam_settings import EXAM, RESERVED_TASKS, TaskSettings
from sightline.synthetic.objects import SyntheticObject, make_lookalike, make_object
from sightline.synthetic.scenes import Scene, make_scene


@dataclass(frozen=True, eq=False)
class ExamPicture:
    """One picture, what it asks for, and the answers.

    Args:
        index: its number in the task.
        scene: the picture with its truth.
        wanted: the objects that are to be found; the picture may lack them.
        rows: the scene's instances of wanted objects, in the order of ``wanted``.
    """

    index: int
    scene: Scene
    wanted: tuple[str, ...]
    rows: tuple[int, ...]

    @property
    def boxes(self) -> Float[Tensor, "n 4"]:
        """The true boxes of the wanted instances, ``xyxy`` pixels around the whole silhouette (amodal)."""
        return self.scene.boxes[list(self.rows)]

    @property
    def truth(self) -> Detections:
        """The wanted instances as detections with score 1 and the masks of what is seen."""
        rows = list(self.rows)
        return Detections(
            self.scene.boxes[rows],
            torch.ones(len(rows), dtype=torch.float64),
            tuple(self.scene.names[row] for row in rows),
            self.scene.camera.image_size,
            self.scene.masks[rows],
        )

    @property
    def poses(self) -> tuple[PoseEstimate, ...]:
        """The true poses of the wanted instances."""
        matrices = [(self.scene.names[row], self.scene.cam_from_obj[row]) for row in self.rows]
        return tuple(PoseEstimate(T[:3, :3], T[:3, 3], 1.0, True, name=name) for name, T in matrices)


@lru_cache(maxsize=128)
def exam_object(index: int, split: str = "exam") -> SyntheticObject:
    """The object of a number: rich in texture for even numbers, low for odd ones.

    Raises:
        ValueError: an unknown split, or a number beyond the split's seeds.

    Example:
        >>> exam_object(1).texture
        'low'
    """
    first, stop = EXAM.object_seeds[_known_split(split)]
    if not 0 <= index < stop - first:
        raise ValueError(f"index: expected a number in [0, {stop - first}), got {index}")
    kinds = EXAM.low_kinds if index % 2 else EXAM.rich_kinds
    return make_object(kinds[index // 2 % len(kinds)], first + index, texture="low" if index % 2 else "rich")


def exam_objects(task: str, split: str = "exam", limit: int | None = None) -> list[SyntheticObject]:
    """The objects of a task, half of them with little texture.

    Args:
        task: ``"detection"``, ``"pose"`` or ``"pose-end-to-end"``.
        split: ``"train"``, ``"development"`` or ``"exam"``.
        limit: how many; as many as the task has unless given. Training and development may ask for more.

    Raises:
        ValueError: an unknown task or split.

    Example:
        >>> [thing.kind for thing in exam_objects("detection", limit=2)]
        ['box', 'bracket']
    """
    settings = _settings(task)
    return [exam_object(index, split) for index in range(_count(settings.num_objects, split, limit))]


def exam_pictures(
    task: str,
    split: str = "exam",
    limit: int | None = None,
    *,
    objects: Sequence[SyntheticObject] | None = None,
) -> ExamPictures:
    """The pictures of a task, made when they are looked at.

    Args:
        task: ``"detection"``, ``"pose"`` or ``"pose-end-to-end"``.
        split: ``"train"``, ``"development"`` or ``"exam"``.
        limit: how many; as many as the task has unless given. Training and development may ask for more.
        objects: what they show, for training on more objects than the task has; the task's unless given.

    Raises:
        ValueError: an unknown task or split, or other objects for the exam itself.

    Example:
        >>> len(exam_pictures("detection"))
        400
    """
    if objects is not None and split == "exam":
        raise ValueError("objects: the exam's own are fixed; give others for training or development only")
    settings = _settings(task)
    count = _count(settings.num_pictures, split, limit)
    pool = exam_objects(task, split) if objects is None else list(objects)
    if len(pool) <= settings.num_wanted:
        raise ValueError(f"objects: expected more than {settings.num_wanted}, got {len(pool)}")
    return ExamPictures(settings, split, pool, count)


class ExamPictures:
    """A sequence of pictures made on access: ``pictures[7]`` is the same whatever was looked at before.

    Args:
        settings: the task's.
        split: whose seeds to use.
        objects: what the pictures show.
        num_pictures: how many there are.
    """

    def __init__(
        self, settings: TaskSettings, split: str, objects: Sequence[SyntheticObject], num_pictures: int
    ) -> None:
        self.settings, self.split, self.objects = settings, split, tuple(objects)
        self._num_pictures = num_pictures
        self._lookalikes: dict[int, SyntheticObject] = {}

    def __len__(self) -> int:
        return self._num_pictures

    def __iter__(self) -> Iterator[ExamPicture]:
        return (self[index] for index in range(len(self)))

    def __getitem__(self, index: int) -> ExamPicture:
        """Make one picture."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"index: expected a number below {len(self)}, got {index}")
        index %= len(self)
        settings, seed = self.settings, self.seed_of(index)
        rng = np.random.default_rng([seed, 0])
        wanted, absent = self._wanted(index)
        shown = [] if absent else list(wanted)
        if not absent and rng.uniform() < settings.second_share:
            shown.append(wanted[0])
        things = [self.objects[number] for number in shown]
        if rng.uniform() < settings.lookalike_share:
            things.append(self._lookalike(wanted[0]))
        num_clear = len(things) + 1  # one distractor at least finds its place
        others = [number for number in range(len(self.objects)) if number not in wanted]
        count = int(rng.integers(settings.distractors[0], settings.distractors[1] + 1))
        things += [self.objects[others[k]] for k in rng.permutation(len(others))[:count]]
        scene = make_scene(things, [seed, 1], settings.scene, num_targets=num_clear)
        rows = [row for row, thing in enumerate(scene.object_indices) if thing < len(shown)]
        return ExamPicture(index, scene, self.wanted(index), tuple(rows))

    def wanted(self, index: int) -> tuple[str, ...]:
        """The names of the objects that a picture asks for, without making it."""
        return tuple(self.objects[number].name for number in self._wanted(range(len(self))[index])[0])

    def seed_of(self, index: int) -> int:
        """The seed of a picture.

        Raises:
            ValueError: more pictures than the split has seeds.
        """
        first, stop = EXAM.picture_seeds[self.split]
        seed = first + self.settings.seed_offset + index
        if seed >= stop:
            raise ValueError(f"index: split {self.split!r} has no seed left for picture {index}")
        return seed

    def _wanted(self, index: int) -> tuple[list[int], bool]:
        """The objects asked for, each equally often, and whether the picture lacks them.

        The turns that lack their object move on with each round, so that each is absent equally often.
        """
        settings, count = self.settings, len(self.objects)
        each, every = settings.num_wanted, settings.absent_every
        lap, step = divmod(index, count // each)
        absent = every > 0 and (lap + step) % every == every - 1
        if each == 1:
            return [step], absent
        order = np.random.default_rng([settings.seed_offset, lap]).permutation(count)
        return [int(number) for number in order[step * each : (step + 1) * each]], absent

    def _lookalike(self, number: int) -> SyntheticObject:
        if number not in self._lookalikes:
            seed = EXAM.print_seeds[self.split][0] + 100 * number
            self._lookalikes[number] = make_lookalike(self.objects[number], seed)
        return self._lookalikes[number]


def _settings(task: str) -> TaskSettings:
    if task in RESERVED_TASKS:
        raise ValueError(f"task: {task!r} is not part of version {EXAM.version} of the exam")
    if task == "closed-set-pose":
        raise ValueError(f"task: {task!r} has objects of its own; see closed_set_pictures")
    if task not in EXAM.tasks:
        raise ValueError(f"task: expected one of {', '.join(EXAM.tasks)}; got {task!r}")
    return EXAM.tasks[task]


def _known_split(split: str) -> str:
    if split not in EXAM.picture_seeds:
        raise ValueError(f"split: expected one of {', '.join(EXAM.picture_seeds)}; got {split!r}")
    return split


def _count(most: int, split: str, limit: int | None) -> int:
    _known_split(split)
    if limit is None:
        return most
    if limit < 0:
        raise ValueError(f"limit: expected a number of at least 0, got {limit}")
    return min(limit, most) if split == "exam" else limit
