from __future__ import annotations

import errno
import json

import numpy as np
import pytest
import torch

from sightline.formats import convert as module
from sightline.formats.bop_dataset import BopDataset, Target
from sightline.formats.bop_models import ModelInfo, write_models_info
from sightline.formats.bop_writing import BopSceneWriter
from sightline.formats.convert import convert, read_frames
from sightline.formats.frames import Frame, FrameObject, load_mask
from sightline.formats.images import write_image
from sightline.formats.meshes import read_mesh, write_mesh
from sightline.formats.refdet_folder import read_refdet_folder
from sightline.formats.result_records import ImageResult
from sightline.formats.results import write_results
from sightline.formats.yolo import write_yolo
from sightline.geometry.symmetry import SymmetryGroup
from sightline.records import PoseEstimate
from tests.formats.dataset_factory import MESH, K, make_frame, make_pose_at

HOLD_MORE_THAN_BOXES = ("bop", "coco", "foundationpose", "megapose", "json")
POSED = ("bop", "foundationpose", "megapose", "json")


@pytest.fixture
def bop(tmp_path):
    """A BOP data set of one object, two frames, a mesh with a symmetry."""
    from dataclasses import replace

    root = tmp_path / "bop"
    (tmp_path / "pictures").mkdir()
    with BopSceneWriter(root / "test" / "000004") as writer:
        for i in range(2):
            frame = make_frame(tmp_path / "pictures", i, ("obj_000007",))
            found = replace(frame.objects[0], obj_id=7, mask_amodal=frame.objects[0].mask)
            writer.add(replace(frame, objects=(found,)))
    write_mesh(root / "models" / "obj_000007.ply", MESH, "mm")
    turning = ModelInfo.of_mesh(MESH, SymmetryGroup.cyclic(2, (0, 0, 1)))
    write_models_info(root / "models" / "models_info.json", {7: turning})
    return root


def path_of(tmp_path, name):
    return tmp_path / f"to_{name}" / "poses.json" if name == "json" else tmp_path / f"to_{name}"


def same(a, b, atol=1e-12):
    torch.testing.assert_close(a, b, rtol=0, atol=atol)


@pytest.mark.parametrize("middle", HOLD_MORE_THAN_BOXES)
@pytest.mark.parametrize("last", HOLD_MORE_THAN_BOXES)
def test_any_format_becomes_any_other_that_can_hold_it(bop, tmp_path, middle, last):
    convert(bop, "bop", path_of(tmp_path, middle), middle)
    target = tmp_path / "last" / ("poses.json" if last == "json" else "set")
    if middle == "coco" and last in ("bop", "foundationpose", "megapose"):
        with pytest.raises(ValueError, match="needs a camera, there is none"):
            convert(path_of(tmp_path, middle), middle, target, last)
        assert not target.exists()
        return
    report = convert(path_of(tmp_path, middle), middle, target, last)
    assert (report.frames, report.objects) == (2, 2)
    frames = read_frames(target, last)
    assert len(frames.frames) == 2
    for i, frame in enumerate(frames.frames):
        (found,) = frame.objects
        if last != "foundationpose" or middle != "json":  # JSON holds no mesh to name it
            assert found.name == "obj_000007"
        if middle != "coco" and last != "coco":
            same(frame.camera.K, K)
            same(found.cam_from_obj, make_pose_at(i))
        if middle != "megapose" and last != "megapose":
            assert np.array_equal(
                load_mask(found.mask), load_mask(read_frames(bop, "bop").frames[i].objects[0].mask)
            )
        if last != "foundationpose":
            same(found.visible_box(), torch.tensor([2.5, 1.5, 11.5, 6.5], dtype=torch.float64))
        assert np.array_equal(frame.read_image(), read_frames(bop, "bop").frames[i].read_image())
        if {middle, last} <= {"bop", "foundationpose", "megapose"}:
            assert np.array_equal(frame.read_depth(), read_frames(bop, "bop").frames[i].read_depth())
            (file,) = frames.meshes.values()
            assert read_mesh(*file).mesh.diameter == pytest.approx(MESH.diameter)


@pytest.mark.parametrize(
    ("target", "dropped"),
    [
        ("bop", set()),
        ("coco", {"cameras: 2", "depth maps: 2", "poses: 2", "silhouettes: 2", "meshes: 1", "symmetries: 1"}),
        ("foundationpose", {"silhouettes: 2", "symmetries: 1"}),
        ("megapose", {"masks: 2", "silhouettes: 2", "symmetries: 1"}),
        ("json", {"depth maps: 2", "silhouettes: 2", "meshes: 1", "symmetries: 1"}),
    ],
)
def test_the_report_says_what_was_left_out(bop, tmp_path, target, dropped):
    report = convert(bop, "bop", path_of(tmp_path, target), target)
    assert set(report.dropped) == dropped
    assert report.lines()[0] == "2 frames, 2 objects, 1 meshes"


def test_symmetries_and_targets_of_bop_survive(bop, tmp_path):
    convert(bop, "bop", tmp_path / "again", "bop")
    again = BopDataset(tmp_path / "again")
    assert len(again.models_info[7].symmetry.discrete) == 2
    assert again.targets() == [Target(4, 0, 7, 1), Target(4, 1, 7, 1)]


def test_names_without_numbers_are_numbered_and_said(bop, tmp_path):
    mug = PoseEstimate(torch.eye(3).double(), torch.tensor([0, 0, 1.0]).double(), 0.5, valid=True, name="mug")
    lost = PoseEstimate.failure("lost", name="can")
    frame = read_frames(bop, "bop").frames[0]
    camera = frame.camera
    image = ImageResult.of_records(frame.image.as_posix(), poses=[mug, lost], camera=camera)
    write_results(tmp_path / "poses.json", [image])
    report = convert(tmp_path / "poses.json", "json", tmp_path / "numbered", "bop")
    assert "numbered: mug is object 2" in report.notes and "not read: 1 poses that failed" in report.notes
    assert set(report.dropped) == {"objects without a pose: 1", "scores: 1"}
    found = BopDataset(tmp_path / "numbered").frames[0].objects
    assert [one.obj_id for one in found] == [2]


def test_an_existing_target_is_replaced_only_when_asked(bop, tmp_path):
    for name in ("coco", "json"):
        target = path_of(tmp_path, name)
        convert(bop, "bop", target, name)
        with pytest.raises(FileExistsError, match="overwrite"):
            convert(bop, "bop", target, name)
        convert(bop, "bop", target, name, overwrite=True)


def test_a_full_disk_leaves_nothing(bop, tmp_path, monkeypatch):
    def fill_up(*_args, **_options):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module, "write_models_info", fill_up)
    with pytest.raises(OSError, match="No space"):
        convert(bop, "bop", tmp_path / "out" / "set", "bop")
    assert list((tmp_path / "out").iterdir()) == []


def test_bad_requests_are_named(bop, tmp_path):
    with pytest.raises(ValueError, match=r"expected one of bop, bop-webdataset, coco, .* got 'voc'"):
        convert(bop, "voc", tmp_path / "x", "coco")
    with pytest.raises(FileNotFoundError, match="absent: no such file or folder"):
        convert(tmp_path / "absent", "bop", tmp_path / "x", "coco")
    with pytest.raises(ValueError, match="another place than the source's"):
        convert(bop, "bop", bop, "bop", overwrite=True)
    with pytest.raises(FileNotFoundError, match=r"train: no such folder of scenes"):
        convert(bop, "bop", tmp_path / "x", "coco", split="train")
    with pytest.raises(ValueError, match="expected one JSON file in this folder, found 0"):
        convert(bop, "coco", tmp_path / "x", "bop")


def test_one_scene_is_a_source_too(bop, tmp_path):
    report = convert(bop / "test" / "000004", "bop", tmp_path / "poses.json", "json")
    assert (report.frames, report.meshes) == (2, 0)
    first = json.loads((tmp_path / "poses.json").read_text())["predictions"][0]
    assert first["image"] == "bop/test/000004/rgb/000000.png" and first["detections"][0]["obj_id"] == 7


BOXES = torch.tensor([[2.5, 1.5, 11.5, 6.5]], dtype=torch.float64)


@pytest.fixture
def templates(tmp_path):
    write_image(tmp_path / "templates" / "obj_000007" / "a.png", np.full((8, 8, 3), 90, np.uint8))
    return tmp_path / "templates"


@pytest.mark.parametrize("middle", ["yolo", "refdet", "coco"])
@pytest.mark.parametrize("last", ["yolo", "refdet", "coco", "json"])
def test_boxes_go_through_layouts_of_boxes(bop, templates, tmp_path, middle, last):
    first = tmp_path / "middle"
    convert(bop, "bop", first, middle, templates=templates)
    target = tmp_path / "last" / ("poses.json" if last == "json" else "set")
    given = None if middle == "refdet" else templates
    report = convert(first, middle, target, last, templates=given)
    assert (report.frames, report.objects) == (2, 2)
    frames = read_frames(target, last).frames
    for frame, source in zip(frames, read_frames(bop, "bop").frames, strict=True):
        assert [found.name for found in frame.objects] == ["obj_000007"]
        same(frame.objects[0].visible_box(), BOXES[0], atol=1e-5)
        assert np.array_equal(frame.read_image(), source.read_image())


def test_refdet_says_what_it_lacks_and_what_it_left_out(bop, templates, tmp_path):
    with pytest.raises(ValueError, match="needs templates of each object; there are none of obj_000007"):
        convert(bop, "bop", tmp_path / "x", "refdet")
    with pytest.raises(FileNotFoundError, match="nowhere"):
        convert(bop, "bop", tmp_path / "x", "refdet", templates=tmp_path / "nowhere")
    assert not (tmp_path / "x").exists()
    report = convert(bop, "bop", tmp_path / "x", "refdet", templates=templates)
    assert {"masks: 2", "poses: 2", "meshes: 1", "symmetries: 1", "cameras: 2"} <= set(report.dropped)
    report = convert(bop, "bop", tmp_path / "y", "yolo")
    assert {"masks: 2", "poses: 2", "meshes: 1", "symmetries: 1", "cameras: 2"} <= set(report.dropped)


def test_boxes_alone_are_no_poses(bop, tmp_path):
    convert(bop, "bop", tmp_path / "boxes", "yolo")
    for target in ("bop", "foundationpose", "megapose"):
        with pytest.raises(ValueError, match="needs a camera, there is none"):
            convert(tmp_path / "boxes", "yolo", tmp_path / "poses", target)
        assert not (tmp_path / "poses").exists()


def test_a_picture_of_two_objects_becomes_a_sample_for_each(tmp_path, templates):
    write_image(templates / "mug" / "a.png", np.full((8, 8, 3), 60, np.uint8))
    picture = np.random.default_rng(0).integers(0, 255, (30, 40, 3), dtype=np.uint8)
    boxes = torch.tensor([[4.5, 4.5, 14.5, 14.5], [20.5, 8.5, 30.5, 18.5]]).double()
    objects = tuple(
        FrameObject(name, box=box) for name, box in zip(("mug", "obj_000007"), boxes, strict=True)
    )
    frames = [Frame(0, "a.png", objects, image=picture), Frame(1, "b.png", image=picture)]
    write_yolo(tmp_path / "yolo", frames)
    report = convert(tmp_path / "yolo", "yolo", tmp_path / "refdet", "refdet", templates=templates)
    assert "pictures without objects: 1" in report.dropped
    samples = read_refdet_folder(tmp_path / "refdet", "test").samples
    assert [sample.object_id for sample in samples] == ["mug", "obj_000007"]
    for sample, box in zip(samples, boxes, strict=True):
        same(sample.boxes, box[None], atol=1e-5)
