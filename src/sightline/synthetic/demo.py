"""The embedded example: three printed objects and cluttered pictures of them, for `sightline demo`."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

from sightline.synthetic.backgrounds import BACKGROUND_KINDS
from sightline.synthetic.lighting import LightSettings
from sightline.synthetic.objects import SyntheticObject, make_object
from sightline.synthetic.scenes import Scene, SceneSettings, make_scene
from sightline.synthetic.sensor import SensorSettings

# apart from all seeds of the exam
_FIRST_SEED = 900_000_000

DEMO_SETTINGS = SceneSettings(
    image_size=(640, 480),
    size_px=(120.0, 260.0),
    min_visible=0.6,
    cover=0.7,
    table_share=0.7,
    backgrounds=BACKGROUND_KINDS,
    lights=LightSettings(ambient=(0.4, 0.6), specular=(0.0, 0.2)),
    sensor=SensorSettings(noise=(1.0, 3.0), blur_px=(0.3, 0.7), jpeg_quality=(85, 95)),
)


@cache
def demo_objects() -> tuple[SyntheticObject, ...]:
    """The three objects of the demo: a box, a can and a mug, each with a printed label.

    Example:
        >>> [thing.kind for thing in demo_objects()]
        ['box', 'can', 'mug']
    """
    return tuple(replace(make_object(kind, _FIRST_SEED), name=kind) for kind in ("box", "can", "mug"))


@cache
def demo_distractors() -> tuple[SyntheticObject, ...]:
    """Objects that fill the demo's pictures and are not looked for."""
    kinds = ("bottle", "toy", "bumpy", "box", "knob")
    textures = ("rich", "low", "low", "low", "rich")
    return tuple(
        make_object(kind, _FIRST_SEED + 1, texture=texture)
        for kind, texture in zip(kinds, textures, strict=True)
    )


def demo_scene(seed: int = 0) -> Scene:
    """A cluttered picture with the three objects of the demo in front, each to at least 60 % visible.

    Args:
        seed: which picture, at least 0.

    Returns:
        A scene of 640 x 480 pixels; its first three instances are ``demo_objects()`` in their order.

    Example:
        >>> demo_scene(0).names[:3]
        ('box', 'can', 'mug')
    """
    objects = (*demo_objects(), *demo_distractors())
    return make_scene(objects, [_FIRST_SEED, seed], DEMO_SETTINGS, num_targets=3)
