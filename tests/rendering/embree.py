"""Embree as the reference: one ray through each pixel's centre."""

from __future__ import annotations

import numpy as np
from embreex import rtcore_scene
from embreex.mesh_construction import TriangleMesh as EmbreeMesh
from torch import Tensor

from sightline.records import TriangleMesh
from tests.rendering.meshes import pixel_rays


def embree_depth(
    mesh: TriangleMesh, cam_from_obj: Tensor, K: Tensor, image_size: tuple[int, int]
) -> np.ndarray:
    """Depth ``(h, w)`` in metres, 0 where nothing is."""
    scene = rtcore_scene.EmbreeScene(robust=True)
    in_camera = mesh.vertices @ cam_from_obj[:3, :3].mT + cam_from_obj[:3, 3]
    EmbreeMesh(scene, in_camera[mesh.faces].numpy().astype(np.float32))
    rays = pixel_rays(K, *image_size).reshape(-1, 3).numpy().astype(np.float32)
    # the rays have z = 1, so the distance along them is the depth
    hit = scene.run(np.zeros_like(rays), rays, query="INTERSECT", output=True)
    depth = np.where(hit["primID"] >= 0, hit["tfar"], 0.0)
    return depth.reshape(image_size[1], image_size[0])
