"""A rough pose climbs to the true one."""

from __future__ import annotations

import math

import pytest
import torch

from sightline.geometry.rotations import exp, geodesic_distance
from sightline.objects.pose_polish import polish_pose
from sightline.objects.verification import verify_pose
from tests.printed_box import CAMERA, box_pose, picture_of, printed_box


def _rough(pose: torch.Tensor, degrees: float, stretch: float, seed: int) -> torch.Tensor:
    axis = torch.randn(3, generator=torch.Generator().manual_seed(seed)).double()
    turned = pose.clone()
    turned[:3, :3] = exp(math.radians(degrees) * axis / axis.norm()) @ pose[:3, :3]
    turned[:3, 3] = pose[:3, 3] * (1 + stretch)
    return turned


@pytest.mark.parametrize("seed", range(3))
def test_what_a_network_says_becomes_a_pose(seed):
    true = box_pose(turn=0.6)
    image = picture_of(printed_box(), true)
    found = polish_pose(printed_box(), _rough(true, 14.0, 0.03, seed), image, CAMERA)
    turn = torch.rad2deg(geodesic_distance(found.cam_from_obj[:3, :3], true[:3, :3]))
    assert float(turn) < 1.0
    assert float((found.cam_from_obj[:3, 3] - true[:3, 3]).norm() / true[2, 3]) < 0.01


def test_the_end_is_never_borne_out_worse_than_the_start():
    true = box_pose(turn=0.6)
    image = picture_of(printed_box(), true)
    for start in (true, _rough(true, 80.0, 0.2, 5)):
        before = verify_pose(printed_box(), start, image, CAMERA).score
        assert polish_pose(printed_box(), start, image, CAMERA).check.score >= before
