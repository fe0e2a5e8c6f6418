from __future__ import annotations

import errno
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from sightline.formats.camera_json import read_camera
from sightline.formats.json_files import write_json
from sightline.formats.pixel_boxes import box_of_mask
from sightline.formats.result_records import ImageResult
from sightline.formats.results import camera_entry, read_results, write_results
from sightline.geometry.cameras import Camera
from sightline.geometry.rotations import exp
from sightline.records import Detections, PoseEstimate

SIZE = (12, 8)
DISTORTION = torch.tensor([0.1, -0.2, 0.01, 0.02, 0.3], dtype=torch.float64)
CAMERA = Camera(torch.tensor([[20.0, 0, 6], [0, 21, 4], [0, 0, 1]], dtype=torch.float64), *SIZE, DISTORTION)


def found_pose(name="mug"):
    w, t = torch.randn(2, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return PoseEstimate(
        exp(w),
        t,
        0.75,
        valid=True,
        covariance=torch.eye(6, dtype=torch.float64) * 1e-6,
        inliers=torch.tensor([True, False, True, True]),
        residual_px=0.5,
        focal_px=625.0,
        reason="few inliers",
        name=name,
    )


def records():
    masks = torch.zeros(2, SIZE[1], SIZE[0], dtype=torch.bool)
    masks[0, 2:5, 3:9] = True
    masks[1, 1:3, 1:3] = True
    boxes = torch.stack([box_of_mask(mask.numpy()) for mask in masks])
    return Detections(boxes, torch.tensor([0.9, 0.4], dtype=torch.float64), ("mug", "cup"), SIZE, masks)


def written(tmp_path, **changes):
    values = {"detections": records(), "poses": [found_pose(), PoseEstimate.failure("lost", name="cup")]}
    image = ImageResult.of_records("a/b.png", **(values | {"camera": CAMERA, "time": 0.125} | changes))
    write_results(tmp_path / "poses.json", [image], {"command": "pose", "loss": math.nan})
    return json.loads((tmp_path / "poses.json").read_text())


def same(a, b):
    assert (a is None) == (b is None)
    if a is not None:
        torch.testing.assert_close(a, b, rtol=0, atol=0, equal_nan=True)


def test_write_then_read_is_identity(tmp_path):
    written(tmp_path)
    results = read_results(tmp_path / "poses.json")
    assert results.meta == {"command": "pose", "loss": None}
    (image,) = results.images
    assert (image.image, image.image_size, image.time) == ("a/b.png", SIZE, 0.125)
    same(image.camera.K, CAMERA.K)
    same(image.camera.distortion, DISTORTION)
    back, original = image.detections(), records()
    assert back.names == original.names and back.image_size == original.image_size
    same(back.boxes, original.boxes)
    same(back.scores, original.scores)
    assert np.array_equal(back.masks.numpy(), original.masks.numpy())
    for pose, expected in zip(
        image.poses, (found_pose(), PoseEstimate.failure("lost", name="cup")), strict=True
    ):
        for key in ("R", "t", "covariance", "inliers"):
            same(getattr(pose, key), getattr(expected, key))
        for key in ("score", "valid", "focal_px", "reason", "name"):
            assert getattr(pose, key) == getattr(expected, key)
        assert pose.residual_px == pytest.approx(expected.residual_px, nan_ok=True)


def test_the_file_says_what_other_programs_read(tmp_path):
    content = written(tmp_path)
    assert content["schema_version"] == 1 and content["classes"] == ["cup", "mug"]
    mug, cup = content["predictions"][0]["detections"]
    assert mug["class_id"] == 1 and mug["score"] == 0.9
    # Columns 3 to 8 and rows 2 to 4 of 12 x 8 pixels.
    assert mug["bbox"] == {"cx": 6 / 12, "cy": 3.5 / 8, "w": 6 / 12, "h": 3 / 8}
    assert mug["t_xyz"] == found_pose().t.tolist() and mug["R"] == found_pose().R.tolist()
    assert cup["valid"] is False and cup["R"] is None and cup["t_xyz"] is None and cup["reason"] == "lost"


def test_no_nan_gets_into_the_file(tmp_path):
    written(tmp_path)
    assert "NaN" not in (tmp_path / "poses.json").read_text()
    with pytest.raises(ValueError, match=r"a\.json: JSON holds no NaN"):
        write_json(tmp_path / "a.json", {"x": math.inf})
    assert not (tmp_path / "a.json").exists()


def test_detections_or_poses_alone(tmp_path):
    written(tmp_path, poses=None)
    assert read_results(tmp_path / "poses.json").images[0].poses == ()
    written(tmp_path, detections=None)
    image = read_results(tmp_path / "poses.json").images[0]
    assert len(image.poses) == 2 and len(image.detections()) == 0


def test_records_that_do_not_belong_together_are_refused():
    with pytest.raises(ValueError, match="expected one a detection, 2, got 1"):
        ImageResult.of_records("a.png", detections=records(), poses=[found_pose()])
    with pytest.raises(ValueError, match=r"poses\[0\]: expected one of 'mug' as detected, got 'cup'"):
        ImageResult.of_records("a.png", detections=records(), poses=[found_pose("cup"), found_pose()])
    with pytest.raises(ValueError, match="image_size"):
        ImageResult("a.png").detections()


FOREIGN = {
    "class_id": 1,
    "score": 0.5,
    "bbox": {"cx": 0.5, "cy": 0.4375, "w": 0.5, "h": 0.375},
    "R": [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
    "t_xyz": [0.1, 0.2, 0.9],
}


@pytest.mark.parametrize("wrap", ["list", "wrapped"])
def test_predictions_of_the_same_form_are_read(tmp_path, wrap):
    entries = [{"image": "a.png", "image_size": list(SIZE), "detections": [FOREIGN]}]
    content = (
        entries if wrap == "list" else {"schema_version": 1, "predictions": entries, "meta": {"adapter": "x"}}
    )
    (tmp_path / "p.json").write_text(json.dumps(content))
    (image,) = read_results(tmp_path / "p.json", names=["cup", "mug"]).images
    (found,) = image.objects
    assert found.name == "mug" and found.pose.valid and found.pose.score == 0.5
    assert found.box.tolist() == [2.5, 1.5, 8.5, 4.5]
    assert found.pose.t.tolist() == [0.1, 0.2, 0.9]


def test_a_map_of_pictures_is_read(tmp_path):
    (tmp_path / "p.json").write_text(json.dumps({"a.png": [{"class_id": 3, "score": 0.5}], "b.png": []}))
    first, second = read_results(tmp_path / "p.json").images
    assert (first.image, second.image) == ("a.png", "b.png") and first.objects[0].name == "class_3"


def detection(content):
    return content["predictions"][0]["detections"][0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.update(schema_version=2), "schema_version: made by a newer version, 2"),
        (lambda c: c["predictions"][0].pop("image"), r"predictions\[0\]: the key 'image' is missing"),
        (
            lambda c: c["predictions"][0]["camera"].update(K=[1]),
            r"predictions\[0\], camera: K: expected 3 x 3",
        ),
        (
            lambda c: c["predictions"][0]["camera"].update(K=[[20, 0, 0], [0, 21, 0], [6, 4, 1]]),
            "camera: K: .*transposed",
        ),
        (lambda c: detection(c).pop("t_xyz"), r"detections\[0\]: the key 't_xyz' is missing"),
        (lambda c: detection(c).update(R=[[0] * 3] * 3), "R: expected a rotation"),
        (lambda c: detection(c).update(box=[1, 2]), "box: expected 4 numbers"),
        (lambda c: detection(c).update(score="high"), "score: expected a number"),
        (lambda c: (detection(c).pop("name"), detection(c).pop("class_id")), "the key 'class_id' is missing"),
        (lambda c: detection(c)["segmentation"].update(counts="x"), "segmentation: counts"),
        (lambda c: c.update(predictions=3), "predictions: expected a list, got 3"),
    ],
)
def test_faults_name_their_place(tmp_path, change, message):
    content = written(tmp_path)
    change(content)
    (tmp_path / "p.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=message):
        read_results(tmp_path / "p.json")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bbox": {"cx": 300, "cy": 2, "w": 3, "h": 4}}, "bbox: expected shares of the picture"),
        ({"class_id": 7}, "class_id: expected one of 2 classes, got 7"),
    ],
)
def test_faults_of_foreign_files(tmp_path, change, message):
    entries = [{"image": "a.png", "image_size": list(SIZE), "detections": [FOREIGN | change]}]
    (tmp_path / "p.json").write_text(json.dumps(entries))
    with pytest.raises(ValueError, match=message):
        read_results(tmp_path / "p.json", names=["cup", "mug"])


def test_shares_without_a_size_are_refused(tmp_path):
    (tmp_path / "p.json").write_text(json.dumps([{"image": "a.png", "detections": [FOREIGN]}]))
    with pytest.raises(ValueError, match="whose image_size is missing"):
        read_results(tmp_path / "p.json")


def test_cameras_are_those_that_other_commands_read(tmp_path):
    write_json(tmp_path / "camera.json", camera_entry(CAMERA))
    back = read_camera(tmp_path / "camera.json", SIZE)
    same(back.K, CAMERA.K)
    same(back.distortion, DISTORTION)


def test_a_full_disk_leaves_the_old_file(tmp_path, monkeypatch):
    before = written(tmp_path)

    def fill_up(self, *_args, **_options):
        self.touch()
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", fill_up)
    with pytest.raises(OSError, match="No space"):
        write_results(tmp_path / "poses.json", [])
    monkeypatch.undo()
    assert json.loads((tmp_path / "poses.json").read_text()) == before
    assert [path.name for path in tmp_path.iterdir()] == ["poses.json"]
