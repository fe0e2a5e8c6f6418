from __future__ import annotations

import math

import pytest
import torch

from sightline.geometry.rotations import exp, geodesic_distance
from sightline.geometry.symmetry import SymmetryGroup
from sightline.objects.silhouette import score_silhouette
from sightline.records import PoseEstimate
from sightline.rendering import render_views
from sightline.rtdetr_pose.verification import KnownShape, verify_best
from tests.printed_box import CAMERA, box_pose, picture_of, printed_box


def estimate(cam_from_obj, name="box"):
    return PoseEstimate(cam_from_obj[:3, :3], cam_from_obj[:3, 3], 1.0, True, name=name)


def turned(cam_from_obj, angle):
    pose = cam_from_obj.clone()
    pose[:3, :3] = pose[:3, :3] @ exp(torch.tensor([0.0, 0.0, angle], dtype=torch.float64))
    return pose


def test_the_best_valid_and_known_are_looked_at():
    pose = box_pose()
    poses = [estimate(pose), PoseEstimate.failure("lost", name="box"), estimate(pose, "cup"), estimate(pose)]
    shapes = {"box": KnownShape(printed_box(), SymmetryGroup.none())}
    picture = picture_of(printed_box(), pose)
    checks = verify_best(poses, [0.5, 0.9, 0.9, 0.7], shapes, picture, CAMERA, top_k=1)
    assert [math.isnan(check.score) for check in checks] == [True, True, True, False]
    assert [check.cam_from_obj is None for check in checks] == [True, True, True, False]
    assert verify_best([], [], shapes, picture, CAMERA) == []


@pytest.mark.parametrize("group", [SymmetryGroup.cyclic(4, (0, 0, 1)), SymmetryGroup.continuous((0, 0, 1))])
def test_the_score_is_the_largest_over_the_symmetries(group):
    mesh, pose = printed_box(), box_pose()
    picture = picture_of(mesh, pose)
    mask = render_views(mesh, pose[None], CAMERA.K, CAMERA.image_size).mask[0].numpy()
    wrong = turned(pose, math.pi / 2)
    plain = score_silhouette(mesh, wrong, picture, CAMERA, mask=mask).score
    shapes = {"box": KnownShape(mesh, group)}
    check = verify_best([estimate(wrong)], [1.0], shapes, picture, CAMERA, masks=[mask])[0]
    true = score_silhouette(mesh, pose, picture, CAMERA, mask=mask).score
    assert plain < check.score - 0.1
    assert check.score == pytest.approx(true, abs=1e-6)
    half = turned(pose, math.pi)  # of a box: the same outline from above, not from the side
    R = check.cam_from_obj[:3, :3]
    assert min(geodesic_distance(R, each[:3, :3]) for each in (pose, half)) < 1e-6
