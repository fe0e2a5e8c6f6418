from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from sightline.geometry.poses import make_pose
from sightline.geometry.rotations import exp
from sightline.objects.silhouette import score_silhouette
from sightline.rendering import render_views
from tests.printed_box import CAMERA, box_pose, picture_of, printed_box


def moved(pose, *, turn=(0.0, 0.0, 0.0), shift=(0.0, 0.0, 0.0)):
    turned = make_pose(exp(torch.tensor(turn, dtype=torch.float64)), torch.zeros(3, dtype=torch.float64))
    pose = pose @ turned
    pose[:3, 3] += torch.tensor(shift, dtype=torch.float64)
    return pose


@pytest.fixture(scope="module")
def scene():
    mesh, pose = printed_box(), box_pose()
    drawn = render_views(mesh, pose[None], CAMERA.K, CAMERA.image_size)
    return mesh, pose, picture_of(mesh, pose), drawn.mask[0].numpy(), drawn.depth[0]


def test_the_true_pose_has_the_true_outline(scene):
    mesh, pose, picture, mask, depth = scene
    by_mask = score_silhouette(mesh, pose, picture, CAMERA, mask=mask, depth=depth)
    assert by_mask.score > 0.95
    assert by_mask.chamfer < 0.01
    assert by_mask.depth > 0.95
    by_edges = score_silhouette(mesh, pose, picture, CAMERA)
    assert by_edges.score > 0.9
    assert math.isnan(by_edges.depth)


@pytest.mark.parametrize("with_mask", [True, False])
def test_the_score_falls_with_the_error(scene, with_mask):
    mesh, pose, picture, mask, _ = scene
    wrong = [moved(pose, turn=(0.0, 0.0, angle)) for angle in (0.0, 0.05, 0.15, 0.4)]
    given = mask if with_mask else None
    scores = [score_silhouette(mesh, each, picture, CAMERA, mask=given).score for each in wrong]
    assert scores == sorted(scores, reverse=True)
    assert scores[0] - scores[-1] > 0.2


def test_depth_tells_what_the_outline_cannot(scene):
    mesh, pose, picture, mask, depth = scene
    nearer = torch.where(depth > 0, depth * 1.3, 0.0)
    check = score_silhouette(mesh, pose, picture, CAMERA, mask=mask, depth=nearer)
    assert check.depth < 0.05
    assert check.score == pytest.approx((1 - check.chamfer / 0.1 + check.depth) / 2)


def test_nothing_to_compare_with_is_no_agreement(scene):
    mesh, pose, picture, mask, _ = scene
    assert score_silhouette(mesh, moved(pose, shift=(9.0, 0.0, 0.0)), picture, CAMERA).score == 0.0
    assert score_silhouette(mesh, pose, picture, CAMERA, mask=np.zeros_like(mask)).score == 0.0
    assert score_silhouette(mesh, pose, np.full_like(picture, 90), CAMERA).score == 0.0
    with pytest.raises(ValueError, match="mask: expected"):
        score_silhouette(mesh, pose, picture, CAMERA, mask=mask[:-1])
