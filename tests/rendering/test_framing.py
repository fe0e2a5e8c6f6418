from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sightline.geometry.poses import make_pose
from sightline.geometry.viewpoints import view_poses
from sightline.rendering import fit_camera, fit_distance, fit_poses, render_views
from tests.rendering.meshes import bumpy, camera_matrix, cube, random_poses, sphere

BUMPY = bumpy(500)


def _extents(mesh, poses, K):
    points = mesh.vertices @ poses[:, :3, :3].mT + poses[:, None, :3, 3]
    pixels = (points / points[..., 2:]) @ K.mT
    return pixels[..., :2].amin(1), pixels[..., :2].amax(1)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 999), fill=st.floats(0.2, 1.0), width=st.integers(40, 300))
def test_moved_cameras_see_the_object_fill_the_frame(seed, fill, width):
    mesh, size = BUMPY, (width, 120)
    K = camera_matrix(140, *size)
    K[0, 0], K[0, 2], K[1, 2] = 170.0, K[0, 2] + 7, K[1, 2] - 4
    poses = fit_poses(mesh, random_poses(4, 9.0, seed), K, size, fill)
    assert torch.equal(poses[:, :3, :3], random_poses(4, 9.0, seed)[:, :3, :3])
    low, high = _extents(mesh, poses, K)
    shares = (high - low) / torch.tensor(size)
    torch.testing.assert_close(shares.amax(1), torch.full((4,), fill, dtype=torch.float64), rtol=0, atol=1e-9)
    frame = torch.tensor(size).double()
    tight = shares.argmax(1, keepdim=True)
    middle = ((low + high) / 2).gather(1, tight)[:, 0]
    torch.testing.assert_close(middle, ((frame - 1) / 2)[tight[:, 0]], rtol=0, atol=1e-7)
    assert ((low + 0.5 >= -1e-6) & (high + 0.5 <= frame + 1e-6)).all()


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 999), fill=st.floats(0.2, 1.0))
def test_zoomed_cameras_see_the_object_fill_the_frame_and_centred(seed, fill):
    mesh, size, poses = BUMPY, (100, 120), random_poses(4, 0.4, seed)
    K = fit_camera(mesh, poses, size, fill)
    low, high = _extents(mesh, poses, K)
    shares = (high - low) / torch.tensor(size)
    torch.testing.assert_close(shares.amax(1), torch.full((4,), fill, dtype=torch.float64), rtol=0, atol=1e-9)
    torch.testing.assert_close((low + high) / 2, torch.tensor([[49.5, 59.5]] * 4).double(), rtol=0, atol=1e-7)


def test_a_ball_fills_the_frame_from_the_distance_found():
    ball, K, size = sphere(0.05, 5), camera_matrix(300, 224, 200), (224, 200)
    distance = fit_distance(ball, K, size, fill=0.87)
    assert distance == pytest.approx(fit_distance(0.05, K, size, 0.87), rel=1e-6)
    mask = render_views(ball, view_poses(42, distance), K, size, outputs=("mask",)).mask
    heights = mask.any(2).sum(1)
    assert ((heights - 0.87 * 200).abs() <= 2).all()


def test_templates_fill_what_was_asked_for():
    mesh, size = cube(0.1), (224, 224)
    K = camera_matrix(400, *size)
    poses = fit_poses(mesh, view_poses(42, 1.0), K, size, 0.87)
    mask = render_views(mesh, poses, K, size, outputs=("mask",)).mask
    share = torch.maximum(mask.any(1).sum(1), mask.any(2).sum(1)) / 224
    assert ((share > 0.85) & (share < 0.89)).all()


def test_what_cannot_be_framed_is_refused():
    mesh, K = cube(0.1), camera_matrix(100, 64, 64)
    with pytest.raises(ValueError, match="fill"):
        fit_distance(mesh, K, (64, 64), fill=1.5)
    with pytest.raises(ValueError, match="radius"):
        fit_distance(0.0, K, (64, 64))
    with pytest.raises(ValueError, match="principal point"):
        fit_distance(0.1, K, (20, 20))
    with pytest.raises(ValueError, match="in front"):
        fit_camera(mesh, make_pose(torch.eye(3)[None], torch.zeros(1, 3)), (64, 64))
