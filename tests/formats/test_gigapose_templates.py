"""Template folders of GigaPose: millimetres, alpha as mask, one camera, objects drawn larger."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sightline.formats.gigapose_templates import (
    GIGAPOSE_CAMERA,
    DrawnView,
    GigaPoseViews,
    write_gigapose_views,
)
from sightline.formats.images import read_depth, write_image
from sightline.geometry.poses import make_pose
from sightline.geometry.rotations import exp


def view(seed, distance=0.4):
    rng = np.random.default_rng(seed)
    mask = np.zeros((480, 640), bool)
    mask[200:260, 300 : 360 + seed] = True
    color = rng.integers(1, 256, (480, 640, 3), dtype=np.uint8) * mask[..., None]
    depth = np.where(mask, distance + rng.uniform(-0.05, 0.05, mask.shape), 0).astype(np.float32)
    w = torch.from_numpy(rng.normal(size=3))
    pose = make_pose(exp(w), torch.tensor([0.01, -0.02, distance], dtype=torch.float64))
    return DrawnView(color, mask, depth, GIGAPOSE_CAMERA.K, pose)


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "templates" / "lmo"
    write_gigapose_views(root, 5, [view(0), view(1)])
    return root


@pytest.mark.parametrize("scale", [1, 10])
def test_views_come_back(tmp_path, scale):
    write_gigapose_views(tmp_path, 7, [view(0), view(1)], scale=scale)
    views = GigaPoseViews(tmp_path, 7, scale=scale)
    assert len(views) == len(views[:]) == 2
    for seed, found in enumerate(views):
        made = view(seed)
        assert np.array_equal(found.color, made.color)
        assert np.array_equal(found.mask, made.mask)
        assert np.abs(found.depth - made.depth).max() <= 0.51e-3 / scale
        assert torch.allclose(found.cam_from_obj, made.cam_from_obj, atol=1e-12)
        assert found.cam_from_obj.dtype == torch.float64


def test_files_hold_millimetres_under_gigapose_names(folder):
    poses = np.load(folder / "object_poses" / "000005.npy", allow_pickle=False)
    assert poses.shape == (2, 4, 4)
    assert poses[0, :3, 3].tolist() == pytest.approx([10, -20, 400])
    depth = read_depth(folder / "000005" / "000001_depth.png")
    assert 0.34 < depth[depth > 0].min() < depth.max() < 0.46
    assert (folder / "000005" / "000000.png").is_file()


def test_an_object_ten_times_as_large_is_seen_from_ten_times_as_far(folder):
    near, plain = GigaPoseViews(folder, 5, scale=10)[0], GigaPoseViews(folder, 5)[0]
    assert torch.allclose(near.cam_from_obj[:3, 3] * 10, plain.cam_from_obj[:3, 3])
    assert torch.equal(near.cam_from_obj[:3, :3], plain.cam_from_obj[:3, :3])
    assert np.allclose(near.depth * 10, plain.depth, rtol=1e-6)


def test_views_without_the_object_are_empty(folder):
    empty = view(0)._replace(mask=np.zeros((480, 640), bool))
    write_gigapose_views(folder, 6, [empty])
    assert not GigaPoseViews(folder, 6)[0].mask.any()


def test_faults_are_named(folder):
    with pytest.raises(FileNotFoundError, match=r"000009\.npy: no such poses"):
        GigaPoseViews(folder, 9)
    with pytest.raises(ValueError, match="scale: expected a number above 0"):
        GigaPoseViews(folder, 5, scale=0)
    write_image(folder / "000005" / "000001.png", np.zeros((480, 640, 3), np.uint8))
    with pytest.raises(ValueError, match=r"000001.png: expected RGBA of 640 x 480 pixels, got RGB"):
        GigaPoseViews(folder, 5)[1]
    (folder / "000005" / "000000_depth.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"000000_depth\.png"):
        GigaPoseViews(folder, 5)[0]
    other = view(0)._replace(K=GIGAPOSE_CAMERA.K * 1.5)
    with pytest.raises(ValueError, match="GigaPose's templates have one camera"):
        write_gigapose_views(folder, 8, [other])
    with pytest.raises(ValueError, match="expected at least one view"):
        write_gigapose_views(folder, 8, [])


@pytest.mark.parametrize(
    ("stored", "message"),
    [
        (np.eye(4), r"expected poses of shape \(n, 4, 4\), got \(4, 4\)"),
        (np.eye(4)[None], "expected the object before the camera"),
        (np.full((1, 4, 4), np.nan), "expected finite numbers"),
        (np.diag([-1.0, 1, 1, 1])[None], "got a mirror"),
        (np.array([{"a": 1}], dtype=object), "expected an array of numbers"),
    ],
)
def test_poses_that_are_none_are_refused(folder, stored, message):
    np.save(folder / "object_poses" / "000005.npy", stored, allow_pickle=True)
    with pytest.raises(ValueError, match=message):
        GigaPoseViews(folder, 5)
