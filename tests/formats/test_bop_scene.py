from __future__ import annotations

import errno
import json

import numpy as np
import pytest
import torch

from sightline.formats.bop_dataset import BopDataset, Target, read_targets, write_targets
from sightline.formats.bop_models import ModelInfo, read_models_info, write_models_info
from sightline.formats.bop_scene import BopScene
from sightline.formats.bop_writing import BopSceneWriter
from sightline.formats.frames import Frame, FrameObject, load_mask
from sightline.formats.images import write_depth, write_image
from sightline.formats.meshes import write_mesh
from sightline.formats.pixel_boxes import box_of_mask
from sightline.geometry.cameras import Camera
from sightline.geometry.poses import make_pose
from sightline.geometry.rotations import exp
from sightline.geometry.symmetry import SymmetryGroup
from sightline.records import TriangleMesh
from tests.real_data import real_path

WIDTH, HEIGHT = 24, 16
K = torch.tensor([[30.0, 0, 11.5], [0, 31.0, 7.25], [0, 0, 1]], dtype=torch.float64)


def pose(seed):
    random = torch.Generator().manual_seed(seed)
    w, t = torch.randn(2, 3, generator=random, dtype=torch.float64)
    return make_pose(exp(w), t + torch.tensor([0, 0, 3.0], dtype=torch.float64))


def mask_of(columns, rows):
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[slice(*rows), slice(*columns)] = True
    return mask


def frame(frame_id=3, **changes):
    random = np.random.default_rng(frame_id)
    depth = random.uniform(0.5, 2.0, (HEIGHT, WIDTH))
    depth[:, :6] = 0.0
    whole, seen, nothing = mask_of((5, 15), (2, 6)), mask_of((5, 12), (2, 5)), mask_of((0, 0), (0, 0))
    objects = (
        FrameObject("obj_000005", 5, pose(1), mask=seen, mask_amodal=whole, silhouette_px=50),
        FrameObject("obj_000012", 12, pose(2), mask=nothing, mask_amodal=mask_of((1, 3), (1, 9))),
    )
    values = {
        "frame_id": frame_id,
        "name": "",
        "objects": objects,
        "camera": Camera(K, WIDTH, HEIGHT),
        "image": random.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8),
        "depth": depth,
        "cam_from_world": pose(7),
    }
    return Frame(**(values | changes))


@pytest.fixture
def scene(tmp_path):
    folder = tmp_path / "test" / "000002"
    with BopSceneWriter(folder, depth_scale_mm=0.1) as writer:
        writer.add(frame(3))
        writer.add(frame(12, cam_from_world=None, depth=None))
    return folder


def close(a, b):
    torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


def test_write_then_read_is_identity(scene):
    read = BopScene(scene)
    assert read.scene_id == 2 and read.image_ids == [3, 12] and len(read) == 2
    back, original = read[0], frame(3)
    assert (back.frame_id, back.scene_id, back.name) == (3, 2, "rgb/000003.png")
    assert np.array_equal(back.read_image(), original.image)
    assert np.abs(back.read_depth() - original.depth).max() <= 0.5e-4 + 1e-7
    close(back.camera.K, K)
    assert back.camera.image_size == (WIDTH, HEIGHT)
    close(back.cam_from_world, original.cam_from_world)
    for found, expected in zip(back.objects, original.objects, strict=True):
        assert (found.name, found.obj_id) == (expected.name, expected.obj_id)
        close(found.cam_from_obj, expected.cam_from_obj)
        assert np.array_equal(load_mask(found.mask), expected.mask)
        assert np.array_equal(load_mask(found.mask_amodal), expected.mask_amodal)
    assert read[1].depth is None and read[1].cam_from_world is None


def test_boxes_and_counts_are_those_of_the_masks(scene):
    found, hidden = BopScene(scene)[0].objects
    assert found.box.tolist() == [4.5, 1.5, 11.5, 4.5] == box_of_mask(mask_of((5, 12), (2, 5))).tolist()
    assert found.box_amodal.tolist() == [4.5, 1.5, 14.5, 5.5]
    assert found.silhouette_px == 50 and found.visibility == pytest.approx(21 / 50)
    assert hidden.box is None and hidden.box_amodal is None and hidden.visibility == 0


def test_the_file_is_in_millimetres_row_wise_and_in_bop_s_boxes(scene):
    truth = json.loads((scene / "scene_gt.json").read_text())["3"][0]
    original = frame(3).objects[0].cam_from_obj
    assert truth["cam_t_m2c"] == pytest.approx((original[:3, 3] * 1000).tolist())
    assert truth["cam_R_m2c"] == pytest.approx(original[:3, :3].flatten().tolist())
    assert truth["obj_id"] == 5
    camera = json.loads((scene / "scene_camera.json").read_text())["3"]
    assert camera["cam_K"] == [30, 0, 11.5, 0, 31, 7.25, 0, 0, 1] and camera["depth_scale"] == 0.1
    assert camera["cam_t_w2c"] == pytest.approx((pose(7)[:3, 3] * 1000).tolist())
    info = json.loads((scene / "scene_gt_info.json").read_text())["3"]
    # Columns 5 to 11 and rows 2 to 4 are seen; BOP's tool writes last minus first.
    assert info[0]["bbox_visib"] == [5, 2, 6, 2] and info[0]["bbox_obj"] == [5, 2, 9, 3]
    assert info[0]["px_count_all"] == 50 and info[0]["px_count_visib"] == 21
    assert info[0]["px_count_valid"] == 9 * 4  # the depth of columns 0 to 5 is missing
    assert info[1]["bbox_visib"] == [-1, -1, -1, -1] == info[1]["bbox_obj"]
    assert (scene / "mask_visib" / "000003_000001.png").is_file()


def test_a_scene_read_and_written_again_is_the_same_scene(scene, tmp_path):
    again = tmp_path / "again" / "000002"
    with BopSceneWriter(again) as writer:
        for read in BopScene(scene):
            writer.add(read)
    for name in ("scene_gt_info.json", "rgb/000003.png", "depth/000003.png", "mask/000012_000000.png"):
        assert (again / name).read_bytes() == (scene / name).read_bytes()
    assert json.loads((again / "scene_camera.json").read_text())["3"]["depth_scale"] == 0.1
    for one, other in zip(BopScene(scene), BopScene(again), strict=True):
        for a, b in zip(one.objects, other.objects, strict=True):
            close(a.cam_from_obj, b.cam_from_obj)


def test_visibility_alone_gives_the_silhouette_s_size(tmp_path):
    found = FrameObject("obj_000005", 5, pose(1), mask=mask_of((5, 12), (2, 5)), visibility=0.5)
    with BopSceneWriter(tmp_path / "000001") as writer:
        writer.add(frame(objects=(found,)))
    info = json.loads((tmp_path / "000001" / "scene_gt_info.json").read_text())["3"][0]
    assert info["px_count_all"] == 42 and info["visib_fract"] == 0.5


def test_a_full_disk_leaves_no_scene(tmp_path, monkeypatch):
    def fill_up(*_args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("sightline.formats.bop_writing.write_json", fill_up)
    with pytest.raises(OSError, match="No space"), BopSceneWriter(tmp_path / "000001") as writer:
        writer.add(frame())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"camera": None}, "BOP needs a camera"),
        ({"camera": Camera(K, 20, 16)}, r"expected a picture of \(20, 16\) pixels, got \(24, 16\)"),
        ({"camera": Camera(K, WIDTH, HEIGHT, torch.ones(5, dtype=torch.float64))}, "no lens distortion"),
        ({"objects": (FrameObject("mug"),)}, r"object 0 \(mug\): expected a pose and an object number"),
        (
            {"objects": (FrameObject("a", 1, pose(1), mask=np.ones((2, 2), bool)),)},
            r"expected a mask of \(24, 16\) pixels, got \(2, 2\)",
        ),
    ],
)
def test_what_bop_cannot_hold_is_refused(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message), BopSceneWriter(tmp_path / "000001") as writer:
        writer.add(frame(**changes))
    assert list(tmp_path.iterdir()) == []


def test_a_number_twice_is_refused(tmp_path):
    with (
        pytest.raises(ValueError, match="image 3: there is"),
        BopSceneWriter(tmp_path / "1") as writer,
    ):
        writer.add(frame(3))
        writer.add(frame(3))


def edit(scene, name, change):
    content = json.loads((scene / name).read_text())
    change(content)
    (scene / name).write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        (
            "scene_camera.json",
            lambda c: c["3"].pop("cam_K"),
            r"scene_camera\.json: image 3: the key 'cam_K'",
        ),
        ("scene_camera.json", lambda c: c["3"].update(cam_K=[1, 2]), "cam_K: expected 3 x 3 numbers, got 2"),
        (
            "scene_camera.json",
            lambda c: c["3"].update(cam_K=[30, 0, 0, 0, 31, 0, 11.5, 7.25, 1]),
            "image 3: cam_K: .*transposed",
        ),
        (
            "scene_camera.json",
            lambda c: c["3"].update(depth_scale="mm"),
            "depth_scale: expected a number",
        ),
        (
            "scene_camera.json",
            lambda c: c.update(first=c.pop("3")),
            "expected image numbers as keys",
        ),
        (
            "scene_gt.json",
            lambda c: c["3"][1].pop("cam_t_m2c"),
            r"scene_gt\.json: image 3, object 1: the key 'cam_t_m2c' is missing",
        ),
        ("scene_gt.json", lambda c: c["3"][0].update(cam_R_m2c=[2.0] * 9), "cam_R_m2c: expected a rotation"),
        ("scene_gt.json", lambda c: c["3"][0].update(cam_R_m2c=[-1, 0, 0, 0, 1, 0, 0, 0, 1]), "got a mirror"),
        ("scene_gt.json", lambda c: c["3"][0].update(cam_t_m2c=[0, 0, float("nan")]), "finite numbers"),
        ("scene_gt.json", lambda c: c.pop("3"), r"scene_gt\.json: the key '3' is missing"),
        (
            "scene_gt.json",
            lambda c: c["3"][0].update(obj_id="mug"),
            "obj_id: expected a whole number",
        ),
        ("scene_gt_info.json", lambda c: c["3"].pop(), "expected 2 objects as in scene_gt.json, got 1"),
        ("scene_gt_info.json", lambda c: c["3"][0].pop("bbox_obj"), "image 3, object 0: the key 'bbox_obj'"),
    ],
)
def test_faults_name_file_place_and_key(scene, name, change, message):
    edit(scene, name, change)
    with pytest.raises(ValueError, match=message):
        BopScene(scene).frame(3)


def test_missing_and_truncated_files_are_named(scene):
    whole = (scene / "scene_gt.json").read_text()
    (scene / "scene_gt.json").write_text(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"scene_gt\.json: expected JSON, damaged or truncated at line"):
        BopScene(scene)
    (scene / "scene_gt.json").unlink()
    assert BopScene(scene)[0].objects == ()
    (scene / "rgb" / "000003.png").unlink()
    with pytest.raises(FileNotFoundError, match="no picture of image 3"):
        BopScene(scene)[0]
    with pytest.raises(KeyError, match="no image 4"):
        BopScene(scene).frame(4)
    (scene / "scene_camera.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"scene_camera\.json: no such file"):
        BopScene(scene)


def test_rounded_rotations_are_cleaned(scene):
    original = frame(3).objects[0].cam_from_obj[:3, :3]
    rounded = [round(value, 4) for value in original.flatten().tolist()]
    edit(scene, "scene_gt.json", lambda c: c["3"][0].update(cam_R_m2c=rounded))
    R = BopScene(scene)[0].objects[0].cam_from_obj[:3, :3]
    close(R @ R.T, torch.eye(3, dtype=torch.float64))
    assert float((R - original).abs().max()) < 1e-4


def test_jpeg_and_grey_pictures_are_found(scene):
    write_image(scene / "gray" / "000003.jpg", np.zeros((HEIGHT, WIDTH), np.uint8))
    (scene / "rgb" / "000003.png").unlink()
    assert BopScene(scene)[0].name == "gray/000003.jpg"


def test_frames_are_lazy(scene):
    for path in (scene / "depth").iterdir():
        path.write_bytes(b"damaged")
    damaged = BopScene(scene)[0]
    with pytest.raises(ValueError, match=r"000003\.png: expected a whole picture"):
        damaged.read_depth()


INFO = ModelInfo(
    0.25,
    torch.tensor([[-0.1, -0.05, -0.02], [0.1, 0.05, 0.03]], dtype=torch.float64),
    SymmetryGroup.cyclic(2, (0, 0, 1), offset=(0.01, 0, 0)),
)


def test_models_info_round_trips_in_millimetres(tmp_path):
    turning = ModelInfo(0.1, INFO.bounds, SymmetryGroup.continuous((0, 1, 0), (0, 0, 0.02), flip=True))
    write_models_info(tmp_path / "models_info.json", {12: turning, 5: INFO, 7: ModelInfo(0.1, INFO.bounds)})
    raw = json.loads((tmp_path / "models_info.json").read_text())
    assert list(raw) == ["5", "7", "12"]
    assert (
        raw["5"]["diameter"] == 250 and raw["5"]["min_y"] == -50 and raw["5"]["size_z"] == pytest.approx(50)
    )
    # Half a turn about the axis x = 10 mm carries the origin to 20 mm.
    assert raw["5"]["symmetries_discrete"][0][3] == pytest.approx(20)
    assert "symmetries_discrete" not in raw["7"] and raw["12"]["symmetries_continuous"][0]["offset"] == [
        0,
        0,
        20,
    ]
    back = read_models_info(tmp_path / "models_info.json")
    close(back[5].bounds, INFO.bounds)
    for obj_id, symmetry in ((5, INFO.symmetry), (12, turning.symmetry)):
        close(back[obj_id].symmetry.discrete, symmetry.discrete)
    close(back[12].symmetry.axis, turning.symmetry.axis)
    close(back[12].symmetry.offset, turning.symmetry.offset)
    assert len(back[7].symmetry.discrete) == 1 and back[7].symmetry.axis is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["5"].pop("diameter"), r"models_info\.json: object 5: the key 'diameter' is missing"),
        (lambda c: c["5"].update(min_x=None), "min_x: expected a number"),
        (
            lambda c: c["5"].update(symmetries_discrete=[[1, 2]]),
            r"discrete\[0\]: motion: expected 4 x 4",
        ),
        (
            lambda c: c["5"].update(symmetries_continuous=[{"axis": [0, 0, 1], "offset": [0, 0, 0]}] * 2),
            "expected at most one axis, got 2",
        ),
        (lambda c: c["5"].update(symmetries_continuous=[{"axis": [0, 0, 1]}]), "the key 'offset' is missing"),
    ],
)
def test_faults_of_models_info_are_named(tmp_path, change, message):
    write_models_info(tmp_path / "models_info.json", {5: INFO})
    edit(tmp_path, "models_info.json", change)
    with pytest.raises(ValueError, match=message):
        read_models_info(tmp_path / "models_info.json")


def test_a_data_set_with_scenes_models_and_targets(scene, tmp_path):
    mesh = TriangleMesh(torch.eye(3, dtype=torch.float64) * 0.1, torch.tensor([[0, 1, 2]]))
    write_mesh(tmp_path / "models" / "obj_000005.ply", mesh, "mm")
    write_models_info(tmp_path / "models" / "models_info.json", {5: INFO})
    write_targets(tmp_path / "test_targets_bop19.json", [Target(2, 3, 5, 1)])
    dataset = BopDataset(tmp_path)
    assert list(dataset.scenes) == [2] and len(dataset.frames) == 2
    assert [read.frame_id for read in dataset.frames] == [3, 12] == [r.frame_id for r in dataset.frames[0:2]]
    assert dataset.mesh(5).mesh.diameter == pytest.approx(mesh.diameter)
    assert dataset.models_info[5].diameter == 0.25
    assert dataset.targets() == [Target(2, 3, 5, 1)]
    assert list(dataset.frame_set().meshes) == ["obj_000005"]


def test_faults_of_a_data_set_are_named(tmp_path):
    (tmp_path / "train").mkdir()
    with pytest.raises(FileNotFoundError, match=r"test: no such folder of scenes \(there is: train\)"):
        BopDataset(tmp_path)
    with pytest.raises(FileNotFoundError, match="expected scene folders such as 000001"):
        BopDataset(tmp_path, "train")


def test_detection_targets_have_no_objects(tmp_path):
    write_targets(tmp_path / "test_targets_bop24.json", [Target(1, 2)])
    assert json.loads((tmp_path / "test_targets_bop24.json").read_text()) == [{"scene_id": 1, "im_id": 2}]
    assert read_targets(tmp_path / "test_targets_bop24.json") == [Target(1, 2)]
    (tmp_path / "bad.json").write_text('[{"scene_id": 1}]')
    with pytest.raises(ValueError, match=r"bad\.json: .*targets\[0\]: the key 'im_id' is missing"):
        read_targets(tmp_path / "bad.json")


def test_depth_files_keep_their_scale_when_copied(tmp_path):
    write_depth(tmp_path / "depth.png", np.full((HEIGHT, WIDTH), 1.5), 0.25)
    with BopSceneWriter(tmp_path / "000001") as writer:
        writer.add(frame(depth=tmp_path / "depth.png", depth_scale_mm=0.25))
    assert np.allclose(BopScene(tmp_path / "000001")[0].read_depth(), 1.5)


@pytest.mark.real
def test_real_truth_is_read_in_metres(tmp_path):
    source = real_path("lmo_scene")
    folder = tmp_path / "000002"
    (folder / "rgb").mkdir(parents=True)
    (folder / "depth").mkdir()
    (folder / "rgb" / "000003.png").write_bytes((source / "rgb.png").read_bytes())
    (folder / "depth" / "000003.png").write_bytes((source / "depth.png").read_bytes())
    (folder / "scene_gt.json").write_bytes((source / "scene_gt.json").read_bytes())
    (folder / "scene_camera.json").write_text('{"3": ' + (source / "camera.json").read_text() + "}")
    read = BopScene(folder).frame(3)
    centre = read.objects[0].cam_from_obj[:3, 3]
    assert centre.tolist() == pytest.approx([0.13436598, 0.04577287, 0.96478389])
    u, v = read.camera.project(centre).round().long().tolist()
    # The can's origin lies some centimetres behind its surface.
    assert 0 < float(centre[2]) - float(read.read_depth()[v, u]) < 0.1
