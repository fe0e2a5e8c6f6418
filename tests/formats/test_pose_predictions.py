from __future__ import annotations

import json

import pytest
import torch

from sightline.formats.pose_predictions import (
    PicturePredictions,
    PosePrediction,
    join_by_image,
    read_pose_predictions,
    write_pose_predictions,
)

K = torch.tensor([[600.0, 0, 320], [0, 500, 240], [0, 0, 1]], dtype=torch.float64)
BOX = torch.tensor([0.5, 0.4, 0.2, 0.1], dtype=torch.float64)
VALUES = {
    "log_z": 0.25,
    "log_sigma_z": -1.0,
    "rot6d": torch.tensor([3.0, 0, 0, 1, 2, 0], dtype=torch.float64),
    "t_xyz": torch.tensor([0.1, -0.2, 1.3], dtype=torch.float64),
    "offsets": torch.tensor([3.5, -2.5], dtype=torch.float64),
    "k_delta": torch.tensor([0.05, -0.02, 4.0, -3.0], dtype=torch.float64),
}


def entry(image="a.png", **others):
    found = (PosePrediction(2, 0.75, BOX, VALUES, {"keypoints": [[0.1, 0.2]]}), PosePrediction(0, 0.5, BOX))
    return PicturePredictions(image, found, (640, 480), K, {"preprocess": {"pad": [0, 80]}, **others})


@pytest.mark.parametrize("form", ["wrapped", "list", "map"])
def test_three_forms_come_back_as_they_went(tmp_path, form):
    path = tmp_path / "predictions.json"
    write_pose_predictions(
        path, [entry(), PicturePredictions("b.png")], {"adapter": "rtdetr_pose"}, form=form
    )
    back = read_pose_predictions(path)
    assert [picture.image for picture in back.pictures] == ["a.png", "b.png"]
    picture = back.pictures[0]
    found, plain = picture.detections
    assert (found.class_id, found.score, plain.values) == (2, 0.75, {})
    assert found.others == {"keypoints": [[0.1, 0.2]]}
    assert torch.equal(found.bbox, BOX)
    assert set(found.values) == set(VALUES)
    for key, value in VALUES.items():
        assert torch.equal(torch.as_tensor(found.values[key]), torch.as_tensor(value)), key
    assert torch.equal(found.rotation(), torch.eye(3, dtype=torch.float64))
    if form != "map":
        assert picture.image_size == (640, 480)
        assert torch.equal(picture.K, K)
        assert picture.others == {"preprocess": {"pad": [0, 80]}}
    if form == "wrapped":
        assert set(back.meta) >= {"timestamp", "adapter", "config", "images", "tta", "ttt"}
        assert (back.meta["images"], back.meta["adapter"]) == (2, "rtdetr_pose")


@pytest.mark.parametrize(
    "intrinsics", [[600, 500, 320, 240], K.tolist(), {"fx": 600, "fy": 500, "cx": 320, "cy": 240}]
)
def test_forms_of_intrinsics(tmp_path, intrinsics):
    path = tmp_path / "predictions.json"
    path.write_text(json.dumps([{"image": "a.png", "intrinsics": intrinsics, "detections": []}]))
    assert torch.equal(read_pose_predictions(path).pictures[0].K, K)


def test_rotations_are_given_as_they_are_or_by_six_numbers():
    R = torch.tensor([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]], dtype=torch.float64)
    assert torch.equal(PosePrediction(0, 1.0, BOX, {**VALUES, "R": R}).rotation(), R)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("rot6d", [1, 0, 0], r"predictions\[0\], detections\[0\]: rot6d: expected 6 numbers, got 3"),
        ("R", [[1, 0], [0, 1]], "R: expected 3 x 3 numbers, got 4"),
        ("offsets", [1], "offsets: expected 2 numbers, got 1"),
        ("k_delta", [0, 0, 0], "k_delta: expected 4 numbers, got 3"),
        ("t_xyz", [0, 0, "far"], "t_xyz: expected 3 numbers"),
        ("log_z", "deep", "log_z: expected a number"),
        ("bbox", {"cx": 0.5}, "the key 'cy' is missing"),
        ("class_id", 1.5, "class_id: expected a whole number"),
    ],
)
def test_faults_name_file_place_and_key(tmp_path, key, value, message):
    path = tmp_path / "predictions.json"
    detection = {"class_id": 0, "score": 0.5, "bbox": {"cx": 0.5, "cy": 0.5, "w": 0.1, "h": 0.1}, key: value}
    path.write_text(json.dumps([{"image": "a.png", "detections": [detection]}]))
    with pytest.raises(ValueError, match=message) as fault:
        read_pose_predictions(path)
    assert str(path) in str(fault.value)


def test_files_that_cannot_be_read_or_written(tmp_path):
    path = tmp_path / "predictions.json"
    path.write_text('{"schema_version": 2, "predictions": []}')
    with pytest.raises(ValueError, match="made by a newer version, 2"):
        read_pose_predictions(path)
    with pytest.raises(ValueError, match="JSON holds no NaN"):
        write_pose_predictions(path, [entry().with_scores([float("nan"), 0.0])])


def test_fused_scores_keep_what_the_entry_says():
    fused = entry(camera="left").with_scores([0.1, 0.9])
    assert [found.score for found in fused.detections] == [0.1, 0.9]
    assert fused.image_size == (640, 480)
    assert torch.equal(fused.K, K)
    assert fused.others == {"preprocess": {"pad": [0, 80]}, "camera": "left"}
    assert fused.detections[0].values is VALUES
    with pytest.raises(ValueError, match="expected one a detection, 2, got 1"):
        entry().with_scores([0.1])


def test_pictures_are_joined_by_name_then_by_the_last_part():
    pictures = [entry("a/1.png"), entry("b/1.png"), entry(r"C:\shots\2.png"), entry("3.png")]
    names = ["b/1.png", "/mnt/2.png", r"D:\other\3.png", "4.png"]
    found = join_by_image(pictures, names)
    assert [each and each.image for each in found] == ["b/1.png", r"C:\shots\2.png", "3.png", None]
    with pytest.raises(ValueError, match=r"its last part fits a/1.png, b/1.png"):
        join_by_image(pictures, ["c/1.png"])
    with pytest.raises(ValueError, match=r"'3.png' twice"):
        join_by_image([entry("3.png"), entry("3.png")], [])
