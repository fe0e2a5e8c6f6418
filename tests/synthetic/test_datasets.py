from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from sightline.formats.bop_models import read_models_info
from sightline.formats.bop_scene import BopScene
from sightline.formats.meshes import read_mesh
from sightline.synthetic import SceneSettings, make_object, make_scene, write_bop_dataset

SETTINGS = SceneSettings(image_size=(160, 120), size_px=(35.0, 70.0))


def test_a_data_set_reads_back_as_it_was(tmp_path):
    objects = [make_object("can", 0, texture="low"), make_object("box", 1)]
    stranger = make_object("mug", 0)
    scenes = [make_scene([*objects, stranger], seed, SETTINGS, num_targets=2) for seed in (0, 1)]
    obj_ids = write_bop_dataset(tmp_path / "set", objects, iter(scenes), scene_id=7)
    assert obj_ids == {objects[0].name: 1, objects[1].name: 2}
    frames = list(BopScene(tmp_path / "set" / "test" / "000007"))
    assert len(frames) == 2
    for frame, scene in zip(frames, scenes, strict=True):
        assert (frame.read_image() == scene.image).all()
        assert np.abs(frame.read_depth() - scene.depth.numpy()).max() <= 0.51e-4
        assert torch.allclose(frame.camera.K, scene.camera.K)
        rows = [row for row, name in enumerate(scene.names) if name in obj_ids]
        assert [found.obj_id for found in frame.objects] == [obj_ids[scene.names[row]] for row in rows]
        for found, row in zip(frame.objects, rows, strict=True):
            assert torch.allclose(found.cam_from_obj, scene.cam_from_obj[row], atol=1e-9)
            assert torch.allclose(found.box_amodal.double(), scene.boxes[row], atol=1e-6)
            assert found.visibility == pytest.approx(float(scene.visib_fract[row]))


def test_models_are_in_millimetres_with_their_symmetries(tmp_path):
    objects = [make_object("bottle", seed, texture="low") for seed in range(6)]
    plain = next(thing for thing in objects if thing.symmetries.axis is not None)
    write_bop_dataset(tmp_path, [plain], [])
    info = read_models_info(tmp_path / "models" / "models_info.json")[1]
    assert info.diameter == pytest.approx(plain.mesh.diameter)
    assert info.symmetry.axis.abs().tolist() == [0, 0, 1]
    raw = json.loads((tmp_path / "models" / "models_info.json").read_text())["1"]
    assert raw["diameter"] == pytest.approx(1000 * plain.mesh.diameter)
    mesh = read_mesh(tmp_path / "models" / "obj_000001.ply").mesh
    assert mesh.diameter == pytest.approx(plain.mesh.diameter, rel=1e-6)
    assert torch.equal(mesh.texture, plain.mesh.texture)


def test_targets_name_what_is_seen(tmp_path):
    thing = make_object("box", 1)
    scene = make_scene([thing, thing], 2, SETTINGS)
    write_bop_dataset(tmp_path, [thing], [scene], split="test")
    [target] = json.loads((tmp_path / "test_targets_bop19.json").read_text())
    assert target == {"im_id": 0, "inst_count": 2, "obj_id": 1, "scene_id": 1}


def test_an_existing_scene_stays(tmp_path):
    thing = make_object("box", 1)
    scene = make_scene([thing], 0, SETTINGS)
    write_bop_dataset(tmp_path, [thing], [scene], split="train")
    with pytest.raises(FileExistsError):
        write_bop_dataset(tmp_path, [thing], [scene], split="train")
    assert not (tmp_path / "train_targets_bop19.json").exists()
