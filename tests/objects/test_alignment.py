import numpy as np
import pytest
import torch

from sightline.geometry.rotations import exp, geodesic_distance
from sightline.objects.alignment import align_pose
from tests.printed_box import CAMERA, box_pose, picture_of, printed_box


def _disturbed(pose: torch.Tensor, seed: int) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    moved = pose.clone()
    moved[:3, :3] = exp(torch.from_numpy(rng.normal(0, 0.02, 3))) @ pose[:3, :3]
    moved[:3, 3] += torch.from_numpy(rng.normal(0, [0.001, 0.001, 0.006]))
    return moved


def _errors(pose: torch.Tensor, truth: torch.Tensor) -> tuple[float, float]:
    turn = float(geodesic_distance(pose[:3, :3], truth[:3, :3]))
    return np.degrees(turn), float((pose[:3, 3] - truth[:3, 3]).norm())


@pytest.mark.parametrize("seed", range(4))
def test_a_pose_some_pixels_off_is_brought_home(seed: int):
    truth = box_pose()
    dim = (0.7 * picture_of(printed_box(), truth) + 20).astype(np.uint8)
    noisy = np.clip(dim + np.random.default_rng(seed).normal(0, 4, dim.shape), 0, 255).astype(np.uint8)
    start = _disturbed(truth, seed)
    turn, shift = _errors(align_pose(printed_box(), start, noisy, CAMERA), truth)
    assert turn < 0.15
    assert shift < 0.0006
    assert turn < 0.3 * _errors(start, truth)[0]


def test_half_covered_object():
    truth = box_pose()
    picture = picture_of(printed_box(), truth)
    picture[:, :150] = 128
    turn, shift = _errors(align_pose(printed_box(), _disturbed(truth, 1), picture, CAMERA), truth)
    assert turn < 0.4
    assert shift < 0.002


def test_a_sure_pose_stays_where_the_picture_says_nothing():
    truth = box_pose()
    blank = np.full((240, 320, 3), 128, np.uint8)
    sure = torch.eye(6, dtype=torch.float64) * 1e-8
    moved = align_pose(printed_box(), truth, blank, CAMERA, covariance=sure)
    turn, shift = _errors(moved, truth)
    assert turn < 0.05
    assert shift < 0.001


def test_a_pose_outside_the_picture_is_returned_as_it_is():
    away = box_pose()
    away[0, 3] = 3.0
    assert torch.equal(align_pose(printed_box(), away, np.zeros((240, 320, 3), np.uint8), CAMERA), away)
