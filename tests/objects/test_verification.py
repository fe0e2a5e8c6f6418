import cv2
import numpy as np
import pytest
import torch

from sightline.geometry.cameras import Camera
from sightline.objects.verification import verify_pose
from sightline.rendering import render_views
from tests.printed_box import CAMERA, box_pose, picture_of, printed_box


def _turned(cam_from_obj: torch.Tensor, degrees: float) -> torch.Tensor:
    angle = np.radians(degrees)
    turn = torch.eye(4, dtype=torch.float64)
    turn[:2, :2] = torch.tensor([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return cam_from_obj @ turn


def test_the_true_pose_is_borne_out():
    pose = box_pose()
    check = verify_pose(printed_box(), pose, picture_of(printed_box(), pose), CAMERA)
    assert check.score > 0.85
    assert check.support > 0.95
    assert check.inside == 1.0


@pytest.mark.parametrize("degrees", [180.0, 90.0, 15.0])
def test_a_wrong_pose_is_not(degrees: float):
    pose = box_pose()
    picture = picture_of(printed_box(), pose)
    assert verify_pose(printed_box(), _turned(pose, degrees), picture, CAMERA).score < 0.3


def test_another_print_on_the_same_shape_is_not():
    pose = box_pose()
    check = verify_pose(printed_box(0), pose, picture_of(printed_box(1), pose), CAMERA)
    assert check.score < 0.3
    assert check.contour > 0.4  # the outline alone would have been content


def test_score_falls_with_the_error():
    pose = box_pose()
    picture = picture_of(printed_box(), pose)
    scores = [verify_pose(printed_box(), _turned(pose, d), picture, CAMERA).score for d in (0, 2, 5, 10)]
    assert scores == sorted(scores, reverse=True)


def test_light_and_contrast_do_not_matter():
    pose = box_pose()
    picture = picture_of(printed_box(), pose)
    dim = (picture * 0.5 + 20).astype(np.uint8)
    bright = verify_pose(printed_box(), pose, picture, CAMERA)
    dark = verify_pose(printed_box(), pose, dim, CAMERA)
    assert abs(bright.score - dark.score) < 0.06


def test_an_occluder_lowers_the_support_by_its_share():
    pose = box_pose()
    picture = picture_of(printed_box(), pose)
    picture[:, :160] = 128
    check = verify_pose(printed_box(), pose, picture, CAMERA)
    assert 0.3 < check.support < 0.7
    assert check.score > 0.3


def test_depth_agrees_or_contradicts():
    pose = box_pose()
    picture = picture_of(printed_box(), pose)
    depth = render_views(printed_box(), pose[None], CAMERA.K, CAMERA.image_size, outputs=("depth",)).depth[0]
    right = verify_pose(printed_box(), pose, picture, CAMERA, depth=depth)
    assert right.depth > 0.99
    behind = verify_pose(printed_box(), pose, picture, CAMERA, depth=depth + 0.05)
    assert behind.depth < 0.05
    holes = torch.where(
        torch.rand(depth.shape, generator=torch.Generator().manual_seed(0)) < 0.5, depth, torch.nan
    )
    assert verify_pose(printed_box(), pose, picture, CAMERA, depth=holes).depth > 0.99
    # an object in front hides, it does not contradict
    assert np.isnan(verify_pose(printed_box(), pose, picture, CAMERA, depth=torch.zeros_like(depth)).depth)


def test_a_pose_that_is_hidden_but_for_a_corner_is_not_borne_out():
    pose = box_pose()
    picture = picture_of(printed_box(), pose)
    depth = render_views(printed_box(), pose[None], CAMERA.K, CAMERA.image_size, outputs=("depth",)).depth[0]
    table = torch.where(torch.arange(320) < 120, depth, 0.3)
    few = verify_pose(printed_box(), pose, picture, CAMERA, depth=table)
    assert 0.05 < few.depth < 0.5
    half = verify_pose(
        printed_box(), pose, picture, CAMERA, depth=torch.where(torch.arange(320) < 165, depth, 0.3)
    )
    assert half.depth > few.depth + 0.2


def test_lens_distortion_is_taken_into_account():
    wide = Camera.from_focal(200.0, 320, 240)
    lens = torch.tensor([-0.3, 0.05, 0.0, 0.0, 0.0], dtype=torch.float64)
    bent = Camera(wide.K, wide.width, wide.height, lens)
    pose = box_pose(distance=0.25)
    pose[0, 3] = 0.11
    straight = picture_of(printed_box(), pose, wide)
    v, u = torch.meshgrid(torch.arange(240.0).double(), torch.arange(320.0).double(), indexing="ij")
    rays = bent.unproject(torch.stack([u, v], dim=-1), torch.ones_like(u))
    source = wide.project(rays).float().numpy()
    seen = cv2.remap(straight, source[..., 0], source[..., 1], cv2.INTER_LINEAR)
    assert verify_pose(printed_box(), pose, seen, bent).score > 0.75
    assert verify_pose(printed_box(), pose, seen, wide).score < 0.5


@pytest.mark.parametrize("shift", [(2.0, 0.0, 0.45), (0.0, 0.0, -0.45)])
def test_outside_the_picture_or_behind_the_camera(shift: tuple[float, float, float]):
    pose = box_pose()
    picture = picture_of(printed_box(), pose)
    away = pose.clone()
    away[:3, 3] = torch.tensor(shift)
    assert verify_pose(printed_box(), away, picture, CAMERA).score == 0.0


def test_picture_of_another_size_is_refused():
    with pytest.raises(ValueError, match="expected 320x240 pixels as its camera says, got 100x50"):
        verify_pose(printed_box(), box_pose(), np.zeros((50, 100, 3), np.uint8), CAMERA)
