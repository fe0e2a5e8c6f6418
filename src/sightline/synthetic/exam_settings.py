"""The values of the frozen exam, version 1: seeds, kinds, sizes, lights, noise.

A change of any value here, or of anything that changes the pictures, is a new version of the exam, with the
figures of both given.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from sightline.synthetic.lighting import LightSettings
from sightline.synthetic.scenes import SceneSettings
from sightline.synthetic.sensor import SensorSettings

RESERVED_TASKS = ("multi-view",)


@dataclass(frozen=True)
class TaskSettings:
    """One task's objects and pictures.

    Args:
        num_objects: how many unseen objects there are.
        num_pictures: how many pictures.
        num_wanted: how many different objects each picture asks for.
        absent_every: one picture in this many lacks what it asks for; 0 for none.
        second_share: share of the other pictures that show a wanted object twice.
        distractors: (least, largest) number of other objects.
        lookalike_share: share of pictures with a look-alike of the first wanted object.
        seed_offset: where the task's pictures begin in each split's range of seeds; tasks with the same
            offset and settings share their pictures.
        scene: what the pictures are like.
    """

    num_objects: int
    num_pictures: int
    num_wanted: int
    absent_every: int
    second_share: float
    distractors: tuple[int, int]
    lookalike_share: float
    seed_offset: int
    scene: SceneSettings


@dataclass(frozen=True)
class ExamSettings:
    """One version of the exam.

    Args:
        version: its number.
        rich_kinds: kinds of the objects with even numbers, in turn.
        low_kinds: kinds of the objects with odd numbers, in turn: half of all have little texture.
        object_seeds: split -> (first, one past the last) seed of shapes.
        print_seeds: split -> the same for the prints of look-alikes.
        picture_seeds: split -> the same for pictures.
        tasks: task -> its settings.
    """

    version: int
    rich_kinds: tuple[str, ...]
    low_kinds: tuple[str, ...]
    object_seeds: Mapping[str, tuple[int, int]]
    print_seeds: Mapping[str, tuple[int, int]]
    picture_seeds: Mapping[str, tuple[int, int]]
    tasks: Mapping[str, TaskSettings]


def _scene(size_px: tuple[float, float]) -> SceneSettings:
    """Every value literal, so that no change of a default reaches the exam."""
    return SceneSettings(
        image_size=(640, 480),
        focal=(0.9, 1.25),
        size_px=size_px,
        min_visible=0.5,
        cover=0.5,
        table_share=0.5,
        backgrounds=("cloud", "gradient", "wood", "cloth", "tiles", "clutter", "page", "room"),
        lights=LightSettings(
            lamps=(1, 3), ambient=(0.3, 0.6), specular=(0.0, 0.3), tint=0.1, shadow=(0.3, 0.55)
        ),
        sensor=SensorSettings(
            exposure=(0.75, 1.2),
            cast=0.12,
            blur_px=(0.3, 1.0),
            noise=(1.0, 5.0),
            jpeg_quality=(70, 95),
            depth_noise=0.0015,
        ),
    )


_POSE = TaskSettings(
    num_objects=60,
    num_pictures=250,
    num_wanted=4,
    absent_every=0,
    second_share=0.0,
    distractors=(2, 5),
    lookalike_share=0.3,
    seed_offset=1_000_000,
    scene=_scene((70.0, 220.0)),
)

EXAM = ExamSettings(
    version=1,
    rich_kinds=("box", "can", "mug", "bottle", "bent", "bumpy", "toy", "knob", "bracket"),
    low_kinds=("bracket", "mug", "toy", "bottle", "bumpy", "box", "knob", "can", "bent"),
    object_seeds=MappingProxyType(
        {
            "train": (0, 10_000_000),
            "development": (10_000_000, 11_000_000),
            "exam": (11_000_000, 12_000_000),
        }
    ),
    print_seeds=MappingProxyType(
        {
            "train": (20_000_000, 30_000_000),
            "development": (30_000_000, 31_000_000),
            "exam": (31_000_000, 32_000_000),
        }
    ),
    picture_seeds=MappingProxyType(
        {
            "train": (1_000_000_000, 2_000_000_000),
            "development": (2_000_000_000, 2_010_000_000),
            "exam": (2_010_000_000, 2_020_000_000),
        }
    ),
    tasks=MappingProxyType(
        {
            "detection": TaskSettings(
                num_objects=40,
                num_pictures=400,
                num_wanted=1,
                absent_every=3,
                second_share=0.2,
                distractors=(3, 6),
                lookalike_share=0.3,
                seed_offset=0,
                scene=_scene((56.0, 220.0)),
            ),
            "pose": _POSE,
            "pose-end-to-end": _POSE,
        }
    ),
)


@dataclass(frozen=True)
class ClosedSetSettings:
    """The task ``closed-set-pose``: known objects among others.

    Args:
        objects: (kind, texture, seed) of each, in the order of their labels; seeds that no split has.
        num_pictures: how many there are.
        shown: (least, largest) number of the objects in a picture, each once.
        empty_every: one picture in this many shows none of them.
        distractors: (least, largest) number of other objects.
        num_others: how many other objects of the split there are to choose from.
        seed_offset: where the task's pictures begin in each split's range of seeds.
        scene: what the pictures are like.
    """

    objects: tuple[tuple[str, str, int], ...]
    num_pictures: int
    shown: tuple[int, int]
    empty_every: int
    distractors: tuple[int, int]
    num_others: int
    seed_offset: int
    scene: SceneSettings


CLOSED_SET = ClosedSetSettings(
    objects=(
        ("box", "rich", 40_000_000),
        ("mug", "rich", 40_000_007),
        ("toy", "rich", 40_000_002),
        ("bottle", "low", 40_000_003),
        ("knob", "low", 40_000_005),
    ),
    num_pictures=200,
    shown=(1, 4),
    empty_every=10,
    distractors=(2, 5),
    num_others=40,
    seed_offset=2_000_000,
    scene=_scene((70.0, 220.0)),
)
