from __future__ import annotations

import functools
from dataclasses import replace

import numpy as np
import pytest
import torch

from sightline.geometry.cameras import Camera
from sightline.geometry.poses import invert, transform
from sightline.rendering import render_scene
from sightline.synthetic import LightSettings, Scene, SceneSettings, SensorSettings, make_object, make_scene
from sightline.synthetic.layout import arrange
from sightline.synthetic.silhouettes import Silhouette, draw_silhouette, visible_masks

make = functools.cache(make_object)
SMALL = SceneSettings(image_size=(240, 180), size_px=(45.0, 100.0), cover=0.9)
OBJECTS = [
    make("box", 0),
    make("mug", 1),
    make("can", 2, texture="low"),
    make("bottle", 0),
    make("toy", 1, texture="low"),
    make("bracket", 0, texture="low"),
]


@functools.cache
def scene(seed: int, table: bool) -> Scene:
    settings = replace(SMALL, table_share=float(table), sensor=replace(SMALL.sensor, depth_noise=0.0))
    return make_scene(OBJECTS, seed, settings, num_targets=2)


SCENES = [(seed, table) for seed in range(3) for table in (False, True)]


@pytest.mark.parametrize(("seed", "table"), SCENES)
def test_targets_are_inside_large_enough_and_seen(seed: int, table: bool):
    made = scene(seed, table)
    assert made.object_indices[:2] == (0, 1)
    assert made.names[:2] == (OBJECTS[0].name, OBJECTS[1].name)
    low, high = made.boxes[:2, :2], made.boxes[:2, 2:]
    assert (low >= 0).all()
    assert (high <= torch.tensor([239, 179])).all()
    longest = (high - low).amax(1)
    assert (longest > SMALL.size_px[0] - 2).all()
    assert (longest < SMALL.size_px[1] + 2).all()
    assert (made.visib_fract[:2] >= 0.5).all()


@pytest.mark.parametrize(("seed", "table"), SCENES)
def test_the_truth_is_consistent(seed: int, table: bool):
    made = scene(seed, table)
    assert len(made) >= 4
    assert not (made.masks.sum(0) > 1).any()
    assert not (made.masks & ~made.masks_full).any()
    assert (made.visib_fract <= 1).all()
    for row, index in enumerate(made.object_indices):
        mesh = OBJECTS[index].mesh
        points = transform(made.cam_from_obj[row], mesh.vertices)
        pixels = made.camera.project(points)
        box = torch.cat([pixels.amin(0), pixels.amax(0)])
        assert (made.boxes[row] - box).abs().max() < 1.6
        inside = made.masks_full[row].sum()
        assert inside <= made.silhouette_px[row]
        seen = made.masks[row].sum()
        assert float(made.visib_fract[row]) == pytest.approx(float(seen / made.silhouette_px[row]))
        if seen > 50:
            depth = made.depth[made.masks[row]]
            assert depth.min() >= points[:, 2].min() - 1e-4
            assert depth.max() <= points[:, 2].max() + 1e-4


@pytest.mark.parametrize(("seed", "table"), SCENES)
def test_masks_and_depth_are_what_the_renderer_draws(seed: int, table: bool):
    made = scene(seed, table)
    meshes = [OBJECTS[index].mesh for index in made.object_indices]
    drawn = render_scene(
        meshes, made.cam_from_obj, made.camera.K, made.camera.image_size, outputs=("depth", "instance")
    )
    instance = torch.where(made.masks.any(0), made.masks.long().argmax(0), -1)
    assert (instance == drawn.instance[0]).float().mean() > 0.9995
    both = made.masks.any(0) & (drawn.depth[0] > 0)
    assert (made.depth - drawn.depth[0])[both].abs().median() < 1e-6


def test_a_seed_gives_the_same_bytes():
    again = make_scene(
        OBJECTS,
        1,
        replace(SMALL, table_share=1.0, sensor=replace(SMALL.sensor, depth_noise=0.0)),
        num_targets=2,
    )
    first = scene(1, True)
    assert (again.image == first.image).all()
    assert torch.equal(again.depth, first.depth)
    assert torch.equal(again.cam_from_obj, first.cam_from_obj)
    assert (scene(2, True).image != first.image).any()


@pytest.mark.parametrize("seed", range(3))
def test_on_a_table_things_stand(seed: int):
    made = scene(seed, True)
    assert made.cam_from_table is not None
    table_from_cam = invert(made.cam_from_table)
    assert float(table_from_cam[2, 3]) > 0.1  # the camera is above
    assert (made.depth > 0).float().mean() > 0.4  # the table fills much of the picture
    for pose, index in zip(made.cam_from_obj, made.object_indices, strict=True):
        heights = transform(table_from_cam @ pose, OBJECTS[index].mesh.vertices)[:, 2]
        assert abs(float(heights.min())) < 1e-9


def test_the_table_is_seen_where_it_is():
    made = scene(0, True)
    rows, columns = torch.nonzero((made.depth > 0) & ~made.masks.any(0), as_tuple=True)
    points = made.camera.unproject(
        torch.stack([columns, rows], -1).double(), made.depth[rows, columns].double()
    )
    assert transform(invert(made.cam_from_table), points)[:, 2].abs().max() < 1e-4


def test_objects_do_not_touch():
    for seed, table in SCENES:
        made = scene(seed, table)
        clouds = [
            transform(p, OBJECTS[i].mesh.vertices)
            for p, i in zip(made.cam_from_obj, made.object_indices, strict=True)
        ]
        for first in range(len(clouds)):
            for second in range(first):
                assert torch.cdist(clouds[first], clouds[second]).min() > 1e-3


def test_an_object_given_twice_stands_there_twice():
    made = make_scene([OBJECTS[0], OBJECTS[0]], 3, SMALL)
    assert made.names == (OBJECTS[0].name,) * 2
    assert made.object_indices == (0, 1)


def test_an_empty_scene_is_its_background():
    made = make_scene([], 5, replace(SMALL, table_share=0.0))
    assert len(made) == 0
    assert made.boxes.shape == made.boxes_visible.shape == (0, 4)
    assert made.masks.shape == (0, 180, 240)
    assert float(made.depth.max()) == 0


def test_shadows_and_lamps_change_the_picture_and_nothing_else():
    dark = replace(SMALL, table_share=1.0, lights=replace(LightSettings(), shadow=(0.6, 0.6)))
    bright = replace(dark, lights=replace(dark.lights, shadow=(0.0, 0.0)))
    with_shadow, without = (make_scene(OBJECTS[:2], 4, s) for s in (dark, bright))
    assert torch.equal(with_shadow.cam_from_obj, without.cam_from_obj)
    assert torch.equal(with_shadow.depth, without.depth)
    assert with_shadow.image.mean() < without.image.mean()


def test_a_sensor_without_faults_keeps_the_background_untouched():
    clean = replace(SMALL, table_share=0.0, backgrounds=("gradient",), sensor=SensorSettings.clean())
    made = make_scene(OBJECTS[:1], 6, replace(clean, lights=replace(clean.lights, shadow=(0.0, 0.0))))
    border = made.image[0].astype(float)
    assert np.abs(np.diff(border, axis=0)).max() <= 2


def test_what_does_not_fit_is_an_error():
    with pytest.raises(ValueError, match=r"num_targets: 3 objects of 150 to 160 px.*240x180"):
        make_scene(OBJECTS[:3], 0, replace(SMALL, size_px=(150.0, 160.0)))


def test_silhouettes_count_pixels_outside_the_picture():
    camera = Camera.from_focal(200.0, 100, 80)
    pose = np.eye(4)
    pose[:3, 3] = (0.0, 0.0, 0.5)
    whole = draw_silhouette(OBJECTS[0].prepared, pose, camera)
    pose[0, 3] = -0.125  # half of it leaves to the left
    cut = draw_silhouette(OBJECTS[0].prepared, pose, camera)
    inside = (cut.depth_in(camera.image_size) > 0).sum()
    assert 0.3 * whole.num_pixels < inside < 0.7 * whole.num_pixels
    assert cut.num_pixels == pytest.approx(whole.num_pixels, rel=0.15)
    assert float(cut.box[0]) < -5
    assert (whole.depth_in(camera.image_size) > 0).sum() == whole.num_pixels


def test_the_nearer_object_hides_the_farther_one():
    near = Silhouette(2, 1, np.full((3, 4), 0.5, np.float32))
    far = Silhouette(0, 0, np.full((6, 8), 0.9, np.float32))
    masks, owner = visible_masks([far, near], (8, 6))
    assert masks[1].sum() == 12
    assert masks[0].sum() == 48 - 12
    assert owner[2, 3] == 1
    assert owner[0, 0] == 0


def test_covering_objects_are_moved_until_targets_are_seen():
    rng = np.random.default_rng(0)
    camera = Camera.from_focal(240.0, 240, 180)
    meshes = [thing.prepared for thing in OBJECTS]
    placed = arrange(meshes, 2, camera, rng, size_px=(45.0, 100.0), min_visible=0.95, table=False, cover=1.0)
    masks, _ = visible_masks(placed.silhouettes, camera.image_size)
    for row in (0, 1):
        assert masks[row].sum() >= 0.95 * placed.silhouettes[row].num_pixels
