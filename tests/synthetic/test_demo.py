from __future__ import annotations

import pytest

from sightline.synthetic import EXAM, demo_distractors, demo_objects, demo_scene


def test_the_demo_shows_its_three_objects_clearly():
    objects = demo_objects()
    assert len({thing.name for thing in objects}) == 3
    assert all(thing.texture == "rich" for thing in objects)
    for seed in range(2):
        scene = demo_scene(seed)
        assert scene.image.shape == (480, 640, 3)
        assert scene.names[:3] == tuple(thing.name for thing in objects)
        assert (scene.visib_fract[:3] >= 0.6).all()
        assert len(scene) >= 5
        longest = (scene.boxes[:3, 2:] - scene.boxes[:3, :2]).amax(1)
        assert (longest >= 119).all()


def test_the_demo_is_no_part_of_the_exam():
    for thing in (*demo_objects(), *demo_distractors()):
        assert all(not first <= thing.seed < stop for first, stop in EXAM.object_seeds.values())


@pytest.mark.parametrize("seed", [0, 7])
def test_a_seed_gives_the_same_picture(seed: int):
    assert (demo_scene(seed).image == demo_scene(seed).image).all()
