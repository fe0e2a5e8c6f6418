"""Rooms without and with an object: the truth in them agrees with itself."""

from __future__ import annotations

import pytest
import torch

from sightline.depth_scale import ScaleCalibrator
from sightline.geometry.poses import transform
from sightline.synthetic import make_object
from sightline.synthetic.insertion import InsertionScene, make_insertion_scene


@pytest.fixture(scope="module")
def scenes() -> list[InsertionScene]:
    return [make_insertion_scene(make_object("can", 3), seed) for seed in range(10)]


def test_the_object_is_all_that_changes(scenes):
    for scene in scenes:
        outside = ~torch.nn.functional.max_pool2d(scene.mask[None].float(), 5, 1, 2)[0].bool()
        assert torch.equal(scene.context[outside], scene.target[outside])
        assert torch.equal(scene.context_depth[outside], scene.target_depth[outside])
        nearer = scene.target_depth < scene.context_depth - 1e-4
        assert (nearer & scene.mask).sum() > 0.95 * scene.mask.sum()


def test_it_stands_in_its_place_on_its_foot(scenes):
    for scene in scenes:
        assert scene.places.shape[0] == scene.feet.shape[0] == 4
        assert not (scene.mask & ~scene.places[0]).any()
        height = 0.3
        foot = transform(scene.cam_from_obj, torch.tensor([[0.0, 0, -height / 2]], dtype=torch.float64))
        x, y = scene.camera.project(foot)[0].round().long().tolist()
        assert scene.feet[0, y, x]
        assert scene.context_depth[y, x].item() == pytest.approx(foot[0, 2].item(), rel=0.03)


def test_size_follows_from_depth_and_focal_length(scenes):
    masks = torch.stack([scene.mask for scene in scenes])
    depth = torch.stack([scene.context_depth for scene in scenes])
    feet = torch.stack([scene.feet[0] for scene in scenes])
    focal = torch.tensor([scene.camera.K[0, 0].item() for scene in scenes])
    calibrator = ScaleCalibrator()
    calibrator.update(masks, depth, focal, depth_mask01=feet)
    found = calibrator.result()
    assert found.spread < 0.06
    assert 0.2 < found.value < 0.4  # metres: a can of 30 cm


def test_the_same_seed_gives_the_same_bytes(scenes):
    again = make_insertion_scene(make_object("can", 3), 4)
    for name in ("context", "target", "context_depth", "mask", "places"):
        assert torch.equal(getattr(again, name), getattr(scenes[4], name))


def test_the_place_says_nothing_about_the_size():
    thing = make_object("can", 3)
    near = [make_insertion_scene(thing, seed, stands_m=(0.7, 0.9)) for seed in range(12)]
    far = [make_insertion_scene(thing, seed, stands_m=(1.8, 2.2)) for seed in range(12)]
    area = {
        name: torch.stack([s.mask.sum() for s in some]).float().mean()
        for name, some in (("near", near), ("far", far))
    }
    width = {
        name: torch.stack([s.places[0].any(0).sum() for s in some]).float().mean()
        for name, some in (("near", near), ("far", far))
    }
    assert area["near"] > 2.5 * area["far"]
    assert width["near"] < 1.15 * width["far"]


def test_no_place_is_an_error():
    with pytest.raises(ValueError, match="finds no place"):
        make_insertion_scene(make_object("can", 3), 0, height_m=3.0)
