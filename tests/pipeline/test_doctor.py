"""The doctor on files and on arrays: what it reads, what it makes of it, and real pictures."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sightline.formats.images import read_image, write_depth, write_image, write_mask
from sightline.formats.meshes import write_mesh
from sightline.formats.result_records import ImageResult
from sightline.formats.results import write_results
from sightline.geometry.cameras import Camera
from sightline.geometry.pnp import solve_pnp
from sightline.geometry.quaternions import quaternion_wxyz_from_matrix
from sightline.objects.inspection.diagnosis import diagnose_inputs
from sightline.objects.inspection.inputs import Inputs
from sightline.pipeline.doctor import Diagnosis, diagnose, draw_diagnosis
from sightline.records import PoseEstimate
from sightline.synthetic.mistakes import MISTAKES, Case, complete_case, make_case
from tests.real_data import real_path


@pytest.fixture(scope="module")
def inputs() -> Inputs:
    return make_case(1).inputs


@pytest.fixture(scope="module")
def files(inputs: Inputs, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Every input as a file, all sound."""
    root = tmp_path_factory.mktemp("given")
    assert inputs.mesh is not None and inputs.depth is not None and inputs.mask is not None
    assert inputs.K is not None and inputs.box is not None and inputs.cam_from_obj is not None
    write_mesh(root / "mesh.ply", inputs.mesh, unit="mm")
    write_image(root / "image.png", np.full((480, 640, 3), 90, np.uint8))
    write_depth(root / "depth.png", inputs.depth.numpy().astype(np.float64))
    write_mask(root / "mask.png", inputs.mask.numpy())
    (root / "camera.json").write_text(json.dumps({"K": inputs.K.tolist(), "width": 640, "height": 480}))
    (root / "pose.json").write_text(json.dumps({"cam_from_obj": inputs.cam_from_obj.tolist()}))
    given: dict[str, Any] = {name: root / f"{name}.png" for name in ("image", "depth", "mask")}
    given |= {"camera": root / "camera.json", "pose": root / "pose.json", "mesh": root / "mesh.ply"}
    return given | {"box": inputs.box.tolist()}


def _diagnose(files: dict[str, Any], **changed: Any) -> Diagnosis:
    given: dict[str, Any] = {**files, **changed}
    return diagnose(**given)


def _kinds(found: Diagnosis) -> list[str]:
    return [fault.kind for fault in found.faults]


def test_sound_files_are_left_alone(files: dict[str, Any]):
    found = _diagnose(files)
    assert found.is_sound, found.faults
    assert [name for name, _ in found.understood] == [
        "mesh",
        "image",
        "camera",
        "depth",
        "mask",
        "pose",
        "box",
    ]
    assert "mask IoU 0.9" in found.comparisons[0]
    assert any("stated" in note for note in found.notes)


def test_arrays_do_as_well_as_files(inputs: Inputs):
    assert inputs.K is not None and inputs.depth is not None and inputs.mask is not None
    assert inputs.cam_from_obj is not None and inputs.box is not None
    found = diagnose(
        mesh=inputs.mesh,
        camera=Camera(inputs.K, 640, 480),
        image=np.zeros((480, 640, 3), np.uint8),
        depth=inputs.depth.numpy() * 1000,
        mask=inputs.mask.numpy(),
        box=inputs.box.numpy(),
        pose=inputs.cam_from_obj.numpy(),
    )
    assert _kinds(found) == ["depth_unit"]


@pytest.mark.parametrize(
    ("changed", "kind"),
    [
        ({"unit": "m"}, "mesh_unit"),
        ({"depth_unit_mm": 10.0}, "depth_unit"),
        ({"depth_missing": "none"}, "depth_zeros"),
        ({"box": (10.0, 20.0, 30.0, 40.0)}, "box_other"),
    ],
)
def test_wrong_statements_about_files(files: dict[str, Any], changed: dict[str, Any], kind: str):
    assert _kinds(_diagnose(files, **changed)) == [kind]


def _pose_entries(inputs: Inputs) -> dict[str, Any]:
    assert inputs.cam_from_obj is not None
    R, t = inputs.cam_from_obj[:3, :3], inputs.cam_from_obj[:3, 3]
    wxyz = quaternion_wxyz_from_matrix(R)
    bop = {"obj_id": 5, "cam_R_m2c": R.flatten().tolist(), "cam_t_m2c": (1000 * t).tolist()}
    return {
        "list": inputs.cam_from_obj.flatten().tolist(),
        "R and t": {"R": R.tolist(), "t": (1000 * t).tolist(), "unit": "mm"},
        "quaternion": {"quaternion_wxyz": wxyz.tolist(), "t": t.tolist()},
        "other quaternion": {"quaternion_xyzw": wxyz.roll(-1).tolist(), "translation": t.tolist()},
        "scene_gt": {"3": [bop | {"obj_id": 1, "cam_t_m2c": [0, 0, 400]}, bop]},
    }


@pytest.mark.parametrize("form", ["list", "R and t", "quaternion", "other quaternion", "scene_gt"])
def test_poses_in_every_form(inputs: Inputs, files: dict[str, Any], form: str, tmp_path: Path):
    path = tmp_path / "pose.json"
    path.write_text(json.dumps(_pose_entries(inputs)[form]))
    found = _diagnose(files, pose=path, object_name="5" if form == "scene_gt" else None)
    assert found.is_sound, found.faults


def test_poses_of_results_and_text_files(inputs: Inputs, files: dict[str, Any], tmp_path: Path):
    assert inputs.cam_from_obj is not None
    pose = PoseEstimate(inputs.cam_from_obj[:3, :3], inputs.cam_from_obj[:3, 3], 0.9, True, name="toy")
    lost = PoseEstimate.failure("3 matches", name="cup")
    images = [
        ImageResult.of_records(name, poses=poses) for name, poses in (("a", [lost]), ("b", [pose, lost]))
    ]
    write_results(tmp_path / "poses.json", images)
    given: dict[str, Any] = files | {"pose": tmp_path / "poses.json"}
    assert _diagnose(given, index=1, object_name="toy").is_sound
    with pytest.raises(ValueError, match=r"poses\.json: .*the pose is a failure: 3 matches"):
        _diagnose(given, index=0)
    with pytest.raises(ValueError, match=r"--index, the position of one of 2 pictures"):
        _diagnose(given)
    with pytest.raises(
        ValueError, match=r"--object, the name of one object, got None \(there are: toy, cup\)"
    ):
        _diagnose(given, index=1)
    np.savetxt(tmp_path / "pose.txt", inputs.cam_from_obj.numpy())
    assert _diagnose(files, pose=tmp_path / "pose.txt").is_sound


def test_a_mesh_of_unknown_unit_is_settled_by_the_others(
    inputs: Inputs, files: dict[str, Any], tmp_path: Path
):
    assert inputs.mesh is not None
    text = ["o thing"]
    text += [f"v {x} {y} {z}" for x, y, z in (inputs.mesh.vertices * 100).tolist()]
    text += [f"f {a + 1} {b + 1} {c + 1}" for a, b, c in inputs.mesh.faces.tolist()]
    (tmp_path / "thing.obj").write_text("\n".join(text))
    found = _diagnose(files, mesh=tmp_path / "thing.obj")
    assert found.is_sound, found.faults
    assert any(note.startswith("mesh: unit cm, with which it agrees best") for note in found.notes)
    alone = diagnose(mesh=tmp_path / "thing.obj")
    assert alone.is_sound
    assert any("no other input tells its unit" in note for note in alone.notes)


def test_bop_cameras_state_the_depth_scale(inputs: Inputs, files: dict[str, Any], tmp_path: Path):
    assert inputs.K is not None and inputs.depth is not None
    entry = {"cam_K": inputs.K.flatten().tolist(), "depth_scale": 0.1}
    (tmp_path / "scene_camera.json").write_text(json.dumps({"7": entry, "8": entry}))
    write_depth(tmp_path / "depth.png", inputs.depth.numpy().astype(np.float64), 0.1)
    given: dict[str, Any] = files | {"camera": tmp_path / "scene_camera.json"}
    given["depth"] = tmp_path / "depth.png"
    assert _diagnose(given, index=7).is_sound
    with pytest.raises(ValueError, match=r"the number of one of 2 images, got None"):
        _diagnose(given)


def test_depth_arrays_with_nan(inputs: Inputs, files: dict[str, Any], tmp_path: Path):
    assert inputs.depth is not None
    depth = inputs.depth.numpy().copy()
    depth[depth == 0] = np.nan
    np.save(tmp_path / "depth.npy", depth)
    assert _diagnose(files, depth=tmp_path / "depth.npy", depth_missing="nan").is_sound
    depth[np.isnan(depth)] = 0
    np.save(tmp_path / "depth.npy", depth)
    assert _kinds(_diagnose(files, depth=tmp_path / "depth.npy", depth_missing="nan")) == ["depth_zeros"]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, "expected at least one of mesh"),
        ({"camera": np.eye(4)}, r"camera: expected K of shape \(3, 3\), got \(4, 4\)"),
        ({"pose": np.eye(3)}, r"pose: expected cam_from_obj of shape \(4, 4\), got \(3, 3\)"),
        ({"box": (1.0, 2.0, 3.0)}, "box: expected four numbers x0 y0 x1 y1, got 3"),
        ({"mask": np.ones(4)}, r"mask: expected an array \(h, w\)"),
        ({"depth": np.ones((2, 2, 2))}, r"depth: expected an array \(h, w\)"),
        ({"image": np.ones(4)}, r"image: expected an array \(h, w, 3\)"),
    ],
)
def test_what_cannot_be_read_is_an_error(given: dict[str, Any], words: str):
    with pytest.raises(ValueError, match=words):
        _diagnose(given)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "expected JSON"),
        ('{"R": [1, 2]}', "R: expected 3 x 3 numbers, got 2"),
        ('{"score": 1}', "expected a pose as cam_from_obj, R and t"),
        ('{"R": [1, 0, 0, 0, 1, 0, 0, 0, 1], "t": [0, 0, 1], "unit": "foot"}', "unit: expected one of m, cm"),
    ],
)
def test_pose_files_that_are_none(text: str, words: str, tmp_path: Path):
    (tmp_path / "pose.json").write_text(text)
    with pytest.raises(ValueError, match=words) as raised:
        diagnose(pose=tmp_path / "pose.json")
    assert "pose.json" in str(raised.value)


def test_the_picture_shows_given_and_repaired(files: dict[str, Any], tmp_path: Path):
    draw_diagnosis(_diagnose(files), tmp_path / "sound.png")
    draw_diagnosis(_diagnose(files, box=None, unit="m"), tmp_path / "wrong.png")
    for name in ("sound.png", "wrong.png"):
        picture = read_image(tmp_path / name).astype(int)
        assert picture.shape == (480, 640, 3)
        greenish = (picture[..., 1] > 150) & (picture[..., 0] < 120) & (picture[..., 2] < 140)
        assert greenish.sum() > 100, name


def test_json_holds_the_evidence(files: dict[str, Any]):
    entry = json.loads(json.dumps(_diagnose(files, depth_unit_mm=10.0).to_json()))
    assert entry["sound"] is False
    assert entry["faults"][0]["evidence"]["given_depth_ratio"] == pytest.approx(10, rel=0.02)


@cache
def _lmo() -> Case:
    folder = real_path("lmo_scene")
    found = diagnose(
        mesh=folder / "obj_000005.ply",
        image=folder / "rgb.png",
        depth=folder / "depth.png",
        camera=folder / "camera.json",
        pose=folder / "scene_gt.json",
    )
    assert found.is_sound, found.faults
    assert "depth off by" in found.comparisons[0]
    return complete_case("lmo", found.given)


@pytest.mark.real
def test_a_real_picture_is_left_alone():
    case = _lmo()
    whole = diagnose_inputs(case.inputs)
    assert whole.is_sound, whole.faults
    for dropped in ("cam_from_obj", "mask", "depth"):
        assert diagnose_inputs(case.inputs.without(dropped)).is_sound, dropped


@pytest.mark.real
@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_in_a_real_picture_is_named(name: str):
    found = diagnose_inputs(_lmo().with_mistake(name))
    expected = (MISTAKES[name].what, MISTAKES[name].kind)
    assert [(fault.what, fault.kind) for fault in found.faults] == [expected]


@pytest.mark.real
def test_a_real_photo_with_a_mesh_in_centimetres_is_left_alone():
    mesh, photo = real_path("cookies_box/box.ply"), real_path("cookies_box/resized_IMG_3875.JPG")
    truth = json.loads(real_path("cookies_box/corners.json").read_text())
    assert diagnose(mesh=mesh, unit="cm", image=photo).is_sound
    camera, pose, box = _pose_of_corners(truth)
    for unit in ("cm", None):
        found = diagnose(mesh=mesh, unit=unit, image=photo, camera=camera, pose=pose, box=box)
        assert found.is_sound, found.faults
        assert any("unit cm" in note for note in found.notes)
    wrong = diagnose(mesh=mesh, unit="mm", image=photo, camera=camera, pose=pose, box=box)
    assert wrong.faults[0].kind in ("mesh_unit", "pose_unit")
    assert "mesh" in str(wrong.faults[0])


def _pose_of_corners(truth: dict[str, Any]) -> tuple[np.ndarray, np.ndarray, list[float]]:
    """K, pose and box of the box of cookies, from its seven marked corners."""
    K = torch.tensor(truth["K"], dtype=torch.float64).reshape(3, 3)
    pixels = torch.tensor(truth["image_points_px"], dtype=torch.float64)
    corners = torch.tensor(truth["object_points_cm"], dtype=torch.float64) / 100
    solved = solve_pnp(pixels, corners, Camera(K, 718, 480), max_error_px=4.0)
    assert solved.valid
    box = [*pixels.amin(0).tolist(), *pixels.amax(0).tolist()]
    return K.numpy(), solved.cam_from_obj.numpy(), box
