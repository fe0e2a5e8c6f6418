"""FoundationPose and MegaPose folders."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from sightline.formats.foundationpose import FoundationPoseFolder, read_pose_text, write_foundationpose
from sightline.formats.frames import FrameObject, FrameSet, Losses, MeshFile, load_mask
from sightline.formats.images import write_image
from sightline.formats.megapose import read_megapose, write_megapose
from sightline.formats.meshes import read_mesh, write_mesh
from sightline.geometry.cameras import Camera
from tests.formats.dataset_factory import HEIGHT, MESH, WIDTH, K, make_frame, make_frame_set, make_pose_at


def same(a, b, atol=1e-12):
    torch.testing.assert_close(a, b, rtol=0, atol=atol)


def check_frames(frames, originals, *, masks, boxes):
    for frame, original in zip(frames, originals, strict=True):
        same(frame.camera.K, K)
        assert frame.camera.image_size == (WIDTH, HEIGHT)
        assert np.array_equal(frame.read_image(), original.read_image())
        assert np.array_equal(frame.read_depth(), original.read_depth())
        for found, wanted in zip(frame.objects, original.objects, strict=True):
            assert found.name == wanted.name
            same(found.cam_from_obj, wanted.cam_from_obj)
            if masks:
                assert np.array_equal(load_mask(found.mask), wanted.mask)
            if boxes:
                same(found.box, wanted.box)


def test_foundationpose_write_then_read_is_identity(tmp_path):
    originals = make_frame_set(tmp_path / "source")
    write_foundationpose(tmp_path / "fp", originals, Losses())
    folder = FoundationPoseFolder(tmp_path / "fp")
    check_frames(folder, originals.frames, masks=True, boxes=False)
    assert folder.name == "mug" and len(folder[0:1]) == 1
    mesh = read_mesh(folder.mesh_path)
    assert mesh.unit == "m" and mesh.mesh.diameter == pytest.approx(MESH.diameter)


def test_foundationpose_files_are_in_metres(tmp_path):
    write_foundationpose(tmp_path / "fp", make_frame_set(tmp_path / "source"), Losses())
    matrix = np.loadtxt(tmp_path / "fp" / "ob_in_cam" / "000001.txt")
    assert np.array_equal(matrix, make_pose_at(1).numpy())
    assert np.array_equal(np.loadtxt(tmp_path / "fp" / "cam_K.txt"), K.numpy())
    first = (tmp_path / "fp" / "mesh" / "mug.obj").read_text().splitlines()
    assert first[0] == "# unit m" and "v 0.2 0.0 0.0" in first


def test_foundationpose_holds_one_kind_of_object_a_folder(tmp_path):
    originals = make_frame_set(tmp_path / "source", ("can", "mug"))
    write_foundationpose(tmp_path / "fp", originals, Losses())
    for i, name in enumerate(("can", "mug")):
        folder = FoundationPoseFolder(tmp_path / "fp" / name)
        assert folder.name == name
        same(folder[0].objects[0].cam_from_obj, originals.frames[0].objects[i].cam_from_obj)


def test_foundationpose_keeps_the_most_visible_instance_and_counts_the_rest(tmp_path):
    frame = make_frame(tmp_path, 0, ("mug", "mug"))
    hidden, seen = replace(frame.objects[0], visibility=0.2), replace(frame.objects[1], visibility=0.9)
    losses = Losses()
    write_foundationpose(tmp_path / "fp", FrameSet([replace(frame, objects=(hidden, seen))]), losses)
    found = FoundationPoseFolder(tmp_path / "fp", name="mug")[0].objects[0]
    same(found.cam_from_obj, seen.cam_from_obj)
    assert set(losses.lines()) == {"further instances of an object in a frame: 1", "object names: 1"}


def test_nameless_meshes_take_the_folder_s_name(tmp_path):
    write_foundationpose(tmp_path / "mustard0", make_frame_set(tmp_path / "source"), Losses())
    mesh = tmp_path / "mustard0" / "mesh" / "mug.obj"
    mesh.rename(mesh.with_stem("textured_simple"))
    assert FoundationPoseFolder(tmp_path / "mustard0").name == "mustard0"


def test_foundationpose_faults(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"cam_K\.txt: no such file"):
        FoundationPoseFolder(tmp_path)
    write_foundationpose(tmp_path / "fp", make_frame_set(tmp_path / "source"), Losses())
    for text, message in (
        ("1 2 3", r"cam_K\.txt: expected 3 x 3 numbers, got 3"),
        ("30 0 0 0 31 0 11.5 7.25 1", r"cam_K\.txt: .*transposed"),
        ("a b", r"cam_K\.txt: expected numbers between spaces"),
    ):
        (tmp_path / "fp" / "cam_K.txt").write_text(text)
        with pytest.raises(ValueError, match=message):
            FoundationPoseFolder(tmp_path / "fp")
    for text, message in (
        ("1 0 0 0 0 1 0 0 0 0 1 0 1 2 3 1", "the last row 0 0 0 1"),
        ("2 0 0 0 0 1 0 0 0 0 1 0 0 0 0 1", "expected a rotation"),
        ("1 0 0 0 0 1 0 0 0 0 1 0", "expected 4 x 4 numbers, got 12"),
    ):
        (tmp_path / "pose.txt").write_text(text)
        with pytest.raises(ValueError, match=message):
            read_pose_text(tmp_path / "pose.txt")


def test_one_camera_without_distortion_is_needed(tmp_path):
    first, second = make_frame_set(tmp_path / "source").frames
    other = replace(second, camera=Camera(K * torch.tensor([[2.0], [2], [1]]), WIDTH, HEIGHT))
    with pytest.raises(ValueError, match="one camera for all frames, this one differs"):
        write_foundationpose(tmp_path / "fp", FrameSet([first, other]), Losses())
    bent = replace(first, camera=Camera(K, WIDTH, HEIGHT, torch.ones(5, dtype=torch.float64)))
    for write in (write_foundationpose, write_megapose):
        with pytest.raises(ValueError, match="no lens distortion"):
            write(tmp_path / "x", FrameSet([bent]), Losses())
        with pytest.raises(ValueError, match="needs a camera, there is none"):
            write(tmp_path / "x", FrameSet([replace(first, camera=None)]), Losses())


@pytest.mark.parametrize("num_frames", [1, 2])
def test_megapose_write_then_read_is_identity(tmp_path, num_frames):
    originals = make_frame_set(tmp_path / "source", ("can", "mug"), num_frames)
    losses = Losses()
    write_megapose(tmp_path / "mp", originals, losses)
    read = read_megapose(tmp_path / "mp")
    check_frames(read.frames, originals.frames, masks=False, boxes=True)
    assert losses.lines() == [f"masks: {2 * num_frames}"] and sorted(read.meshes) == ["can", "mug"]
    assert read_mesh(*read.meshes["mug"]).mesh.diameter == pytest.approx(MESH.diameter)


def test_megapose_units_are_mixed_and_quaternions_xyzw(tmp_path):
    quarter = torch.eye(4, dtype=torch.float64)
    quarter[:2, :2] = torch.tensor([[0, -1], [1, 0]])
    quarter[:3, 3] = torch.tensor([0.1, 0.2, 0.9], dtype=torch.float64)
    frame = make_frame(tmp_path, 0)
    posed = replace(frame, objects=(FrameObject("mug", cam_from_obj=quarter, box=frame.objects[0].box),))
    write_mesh(tmp_path / "mug.ply", MESH, "mm")
    meshes = {"mug": MeshFile(tmp_path / "mug.ply", "mm")}
    write_megapose(tmp_path / "mp", FrameSet([posed], meshes), Losses())
    (entry,) = json.loads((tmp_path / "mp" / "outputs" / "object_data.json").read_text())
    half = 0.5**0.5
    assert entry["TWO"][0] == pytest.approx([0, 0, half, half]) and entry["TWO"][1] == [0.1, 0.2, 0.9]
    camera = json.loads((tmp_path / "mp" / "camera_data.json").read_text())
    assert camera["resolution"] == [HEIGHT, WIDTH] and camera["K"] == K.tolist() and "TWC" not in camera
    (box,) = json.loads((tmp_path / "mp" / "inputs" / "object_data.json").read_text())
    assert box == {"label": "mug", "bbox_modal": [3, 2, 12, 7]}
    assert read_mesh(tmp_path / "mp" / "meshes" / "mug" / "mug.ply").unit == "mm"


def test_megapose_keeps_the_world(tmp_path):
    frame = make_frame(tmp_path, 0, cam_from_world=make_pose_at(5))
    write_megapose(tmp_path / "mp", FrameSet([frame]), Losses())
    (back,) = read_megapose(tmp_path / "mp").frames
    same(back.cam_from_world, make_pose_at(5))
    same(back.objects[0].cam_from_obj, frame.objects[0].cam_from_obj)


def test_megapose_joins_each_box_with_its_own_pose(tmp_path):
    frame = make_frame(tmp_path, 0, ("mug", "mug"))
    first, second = frame.objects
    boxed = replace(first, cam_from_obj=None)
    write_megapose(tmp_path / "a", FrameSet([replace(frame, objects=(boxed, second))]), Losses())
    both, alone = read_megapose(tmp_path / "a").frames[0].objects
    same(both.box, second.box)
    same(both.cam_from_obj, second.cam_from_obj)
    same(alone.box, first.box)
    assert alone.cam_from_obj is None
    posed = replace(second, box=None, mask=None)
    losses = Losses()
    write_megapose(tmp_path / "b", FrameSet([replace(frame, objects=(boxed, posed))]), losses)
    (found,) = read_megapose(tmp_path / "b").frames[0].objects
    assert found.box is None and "boxes that would be taken for another instance's: 1" in losses.lines()


def edit(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("camera_data.json", lambda c: c.pop("K"), r"camera_data\.json: top level: the key 'K' is missing"),
        ("camera_data.json", lambda c: c.update(K=[[30, 0, 0], [0, 31, 0], [11, 7, 1]]), "K: .*transposed"),
        ("camera_data.json", lambda c: c.update(resolution=[WIDTH, HEIGHT]), r"expected \[height, width\]"),
        ("inputs/object_data.json", lambda c: c[0].pop("label"), r"inputs.*the key 'label' is missing"),
        ("inputs/object_data.json", lambda c: c[0].update(bbox_modal=[1]), "bbox_modal: expected 4 numbers"),
        (
            "outputs/object_data.json",
            lambda c: c[0].update(TWO=[[1, 1, 1, 1], [0, 0, 1]]),
            "a unit quaternion",
        ),
        ("outputs/object_data.json", lambda c: c[0].update(TWO=[0, 0, 1]), "TWO: expected 7 numbers"),
    ],
)
def test_megapose_faults_name_file_and_key(tmp_path, name, change, message):
    write_megapose(tmp_path / "mp", make_frame_set(tmp_path / "source", num_frames=1), Losses())
    edit(tmp_path / "mp" / name, change)
    with pytest.raises(ValueError, match=message):
        read_megapose(tmp_path / "mp")


def test_megapose_missing_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"camera_data\.json"):
        read_megapose(tmp_path)
    write_megapose(tmp_path / "mp", make_frame_set(tmp_path / "source", num_frames=1), Losses())
    (tmp_path / "mp" / "image_rgb.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"image_rgb\.png"):
        read_megapose(tmp_path / "mp")


def test_a_mesh_that_says_another_unit_than_its_folder_is_refused(tmp_path):
    write_mesh(tmp_path / "mug.ply", MESH, "m")
    frames = FrameSet([make_frame(tmp_path, 0)], {"mug": MeshFile(tmp_path / "mug.ply", "mm")})
    with pytest.raises(ValueError, match=r"mug\.ply: expected mm .*against the file's own m"):
        write_megapose(tmp_path / "mp", frames, Losses())


def test_pictures_that_exif_turns_are_written_upright(tmp_path):
    from PIL import Image

    frame = make_frame(tmp_path, 0)
    exif = Image.Exif()
    exif[274] = 6
    Image.fromarray(np.rot90(frame.read_image()).copy()).save(tmp_path / "turned.png", exif=exif)
    write_foundationpose(tmp_path / "fp", FrameSet([replace(frame, image=tmp_path / "turned.png")]), Losses())
    with Image.open(tmp_path / "fp" / "rgb" / "000000.png") as stored:
        assert np.array_equal(np.asarray(stored), frame.read_image())


def test_jpeg_pictures_stay_jpeg_where_they_may(tmp_path):
    frame = make_frame(tmp_path, 0)
    write_image(tmp_path / "a.jpg", frame.read_image())
    jpeg = replace(frame, image=tmp_path / "a.jpg")
    write_foundationpose(tmp_path / "fp", FrameSet([jpeg]), Losses())
    assert (tmp_path / "fp" / "rgb" / "000000.jpg").read_bytes() == (tmp_path / "a.jpg").read_bytes()
    write_megapose(tmp_path / "mp", FrameSet([jpeg]), Losses())
    assert np.array_equal(read_megapose(tmp_path / "mp").frames[0].read_image(), jpeg.read_image())
