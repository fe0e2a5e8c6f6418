"""Outputs of the network read as records, in the pixels and metres of the whole picture."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from sightline.geometry.cameras import Camera
from sightline.geometry.poses import transform
from sightline.geometry.rotations import matrix_to_rot6d, random_rotations
from sightline.nn.checkpoint import save_model
from sightline.rtdetr_pose.inference import RTDETRPoseDetector
from sightline.rtdetr_pose.model import RTDETRPose
from sightline.rtdetr_pose.pictures import ObjectClass

CAMERA = Camera(torch.tensor([[620.0, 0, 330.0], [0, 610.0, 236.0], [0, 0, 1]]).double(), 640, 480)
CLASSES = (ObjectClass("mug", 0, 0.12), ObjectClass("can", 1, 0.15))


@pytest.fixture(scope="module")
def detector() -> RTDETRPoseDetector:
    torch.manual_seed(0)
    model = RTDETRPose(2, 64, 12, True, backbone="tiny", use_uncertainty=True)
    return RTDETRPoseDetector(model, CLASSES, input_size=(256, 192))


def _outputs(camera: Camera, R, t, *, size=(256, 192)) -> dict:
    """What a perfect network would say of one object in its second query."""
    small = camera.resize(*size)
    origin = small.project(t[None])[0]
    box = torch.tensor([0.4, 0.55, 0.2, 0.3])
    centre = box[:2] * torch.tensor(size) - 0.5
    logits = torch.full((1, 3, 2), -9.0)
    logits[0, 1, 1] = 3.0
    return {
        "logits": logits,
        "bbox": torch.stack([torch.zeros(4), box, torch.zeros(4)])[None],
        "log_z": torch.stack([torch.zeros(1), t[2:].log().float(), torch.zeros(1)])[None],
        "rot6d": matrix_to_rot6d(torch.stack([torch.eye(3), R.float(), torch.eye(3)]))[None],
        "offsets": torch.stack([torch.zeros(2), (origin - centre).float(), torch.zeros(2)])[None],
        "k_delta": torch.zeros(1, 4),
    }


@pytest.mark.parametrize("distortion", [None, torch.tensor([-0.1, 0.05, 0.001, -0.001, 0.0]).double()])
def test_a_perfect_network_gives_the_true_pose(detector, distortion):
    camera = Camera(CAMERA.K, 640, 480, distortion)
    R = random_rotations(1, generator=torch.Generator().manual_seed(1))[0].double()
    t = torch.tensor([-0.05, 0.04, 0.8]).double()
    found = detector.read(_outputs(camera, R, t), camera)
    assert found.detections.names == ("can",)
    pose = found.poses[0]
    assert torch.allclose(pose.t, t, atol=1e-6)
    assert torch.allclose(pose.R, R, atol=1e-5)
    assert found.detections.boxes[0].tolist() == pytest.approx([191.5, 191.5, 319.5, 335.5], abs=1e-3)


def test_corrected_intrinsics_are_those_of_the_whole_picture(detector):
    R, t = torch.eye(3).double(), torch.tensor([0.0, 0.0, 1.0]).double()
    outputs = _outputs(CAMERA, R, t)
    outputs["k_delta"] = torch.tensor([[0.1, -0.1, 2.0, 4.0]])
    K = detector.read(outputs, CAMERA).K
    assert K[0, 0] == pytest.approx(682.0)
    assert K[1, 1] == pytest.approx(549.0)
    assert K[0, 2] == pytest.approx(335.0)  # two pixels of the network's are five of the picture's
    assert K[1, 2] == pytest.approx(246.0)


def test_what_the_network_doubts_becomes_a_covariance(detector):
    R, t = torch.eye(3).double(), torch.tensor([0.0, 0.0, 2.0]).double()
    outputs = _outputs(CAMERA, R, t)
    outputs["log_sigma_z"] = torch.full((1, 3, 1), math.log(0.05))
    outputs["log_sigma_rot"] = torch.full((1, 3, 1), math.log(0.2))
    covariance = detector.read(outputs, CAMERA).poses[0].covariance
    assert covariance[0, 0].sqrt() == pytest.approx(0.2)
    assert covariance[5, 5].sqrt() == pytest.approx(0.1, rel=1e-2)
    assert covariance[3, 3] < covariance[5, 5]


def test_nan_is_a_failed_pose_and_not_a_crash(detector):
    R, t = torch.eye(3).double(), torch.tensor([0.0, 0.0, 1.0]).double()
    outputs = _outputs(CAMERA, R, t)
    outputs["log_z"][0, 1] = torch.nan
    pose = detector.read(outputs, CAMERA).poses[0]
    assert not pose.valid
    assert pose.name == "can"


def test_pictures_of_any_size_and_scores_in_order(detector):
    picture = np.random.default_rng(0).integers(0, 255, (480, 640, 3), dtype=np.uint8)
    found = detector.detect(picture, CAMERA, min_score=0.0, max_detections=7)
    assert len(found.detections) == len(found.poses) == 7
    scores = found.detections.scores
    assert bool((scores[:-1] >= scores[1:]).all())
    assert all(pose.valid for pose in found.poses)
    assert transform(found.poses[0].cam_from_obj, torch.zeros(1, 3).double())[0, 2] > 0


def test_a_picture_of_another_size_than_its_camera_is_refused(detector):
    with pytest.raises(ValueError, match="expected 640x480 pixels as its camera says, got 320x240"):
        detector.detect(np.zeros((240, 320, 3), np.uint8), CAMERA)


def test_files_say_what_they_are_for(detector, tmp_path):
    path = tmp_path / "net.safetensors"
    detector.save(path)
    again = RTDETRPoseDetector.from_checkpoint(path)
    picture = np.random.default_rng(1).integers(0, 255, (480, 640, 3), dtype=np.uint8)
    one = detector.detect(picture, CAMERA, min_score=0.0, max_detections=3)
    other = again.detect(picture, CAMERA, min_score=0.0, max_detections=3)
    assert again.names == ("mug", "can")
    assert torch.equal(one.poses[0].t, other.poses[0].t)
    bare = tmp_path / "bare.safetensors"
    save_model(bare, detector.model, detector.model.config)
    with pytest.raises(ValueError, match=r"bare\.safetensors: the file does not say which objects"):
        RTDETRPoseDetector.from_checkpoint(bare)
    linear = tmp_path / "linear.safetensors"
    save_model(linear, torch.nn.Linear(1, 1), {})
    with pytest.raises(ValueError, match="expected weights of an RTDETRPose, got a Linear"):
        RTDETRPoseDetector.from_checkpoint(linear)
