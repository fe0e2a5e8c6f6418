"""Our pictures against Embree's rays and against a depth camera."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
import torch
import trimesh

from sightline.records import TriangleMesh
from sightline.rendering import render_views
from tests.real_data import real_path
from tests.rendering.embree import embree_depth
from tests.rendering.meshes import bumpy, camera_matrix, from_trimesh, random_poses


@pytest.mark.parametrize("backend", ["numba", "torch"])
def test_depth_and_mask_are_embree_s(backend):
    mesh, K, size = bumpy(10_000), camera_matrix(450, 224, 224), (224, 224)
    poses = random_poses(4 if backend == "numba" else 2, 0.25, seed=2)
    ours = render_views(mesh, poses, K, size, outputs=("depth", "mask"), backend=backend)
    for view, cam_from_obj in enumerate(poses):
        depth = embree_depth(mesh, cam_from_obj, K, size)
        seen, mask = depth > 0, ours.mask[view].numpy()
        assert seen.mean() > 0.3
        assert (seen & mask).sum() / (seen | mask).sum() > 0.999
        error = np.abs(ours.depth[view].numpy() - depth)[seen & mask]
        assert np.median(error) < 1e-6
        assert np.quantile(error, 0.999) < 1e-5


def test_depth_and_mask_are_embree_s_inside_a_room():
    room = from_trimesh(trimesh.creation.annulus(r_min=0.5, r_max=1.0, height=2.0, sections=64))
    K, size = camera_matrix(60, 96, 80), (96, 80)
    poses = random_poses(3, 0.1, seed=3)
    ours = render_views(room, poses, K, size, outputs=("depth", "mask"))
    for view, cam_from_obj in enumerate(poses):
        depth = embree_depth(room, cam_from_obj, K, size)
        seen, mask = depth > 0, ours.mask[view].numpy()
        assert (seen & mask).sum() / (seen | mask).sum() > 0.999
        assert np.median(np.abs(ours.depth[view].numpy() - depth)[seen & mask]) < 1e-6


@pytest.mark.real
def test_the_true_pose_of_a_real_object_gives_the_depth_camera_s_depth():
    folder = real_path("lmo_scene")
    camera = json.loads((folder / "camera.json").read_text())
    truth = json.loads((folder / "scene_gt.json").read_text())["3"][0]
    in_mm = trimesh.load(folder / "obj_000005.ply", process=False)
    mesh = TriangleMesh(
        torch.tensor(np.array(in_mm.vertices)) / 1000, torch.from_numpy(np.array(in_mm.faces, np.int64))
    )
    pose = torch.eye(4, dtype=torch.float64)
    pose[:3, :3] = torch.tensor(truth["cam_R_m2c"]).double().view(3, 3)
    pose[:3, 3] = torch.tensor(truth["cam_t_m2c"]).double() / 1000
    K = torch.tensor(camera["cam_K"], dtype=torch.float64).view(3, 3)
    seen = cv2.imread(str(folder / "depth.png"), cv2.IMREAD_UNCHANGED) * camera["depth_scale"] / 1000
    ours = render_views(mesh, pose[None], K, (640, 480), outputs=("depth", "mask"))
    there = ours.mask[0].numpy() & (seen > 0)
    difference = np.abs(ours.depth[0].numpy() - seen)[there]
    visible = difference < 0.05  # what stands before the object, or is seen past its edge, is farther off
    assert there.sum() > 4000 and visible.mean() > 0.8
    assert np.median(difference) < 0.010
