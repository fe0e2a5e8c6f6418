"""A small printed box, and pictures of it, for the tests of the upper floors."""

from __future__ import annotations

from functools import cache

import cv2
import numpy as np
import torch

from sightline.geometry.cameras import Camera
from sightline.records import TriangleMesh
from sightline.rendering import render_views

CAMERA = Camera.from_focal(600.0, 320, 240)


@cache
def printed_box(seed: int = 0) -> TriangleMesh:
    """A box of 12 x 8 x 5 cm whose six faces carry random blots: rich in key points, not symmetric."""
    rng = np.random.default_rng(seed)
    blots = [
        cv2.resize(rng.integers(0, 255, (16, 16, 3), np.uint8), (128, 128), interpolation=cv2.INTER_CUBIC)
        for _ in range(6)
    ]
    texture = np.hstack(blots)
    half = torch.tensor([0.06, 0.04, 0.025], dtype=torch.float64)
    signs = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0], dtype=torch.float64)] * 3)
    vertices = signs * half
    sides = []
    for axis in range(3):
        for sign in (-1.0, 1.0):
            corners = [i for i in range(8) if signs[i, axis] == sign]
            a, b, c, d = corners[0], corners[1], corners[3], corners[2]
            outward = (
                torch.linalg.cross(vertices[b] - vertices[a], vertices[c] - vertices[a])[axis] * sign > 0
            )
            sides.append((a, b, c, d) if outward else (a, d, c, b))
    faces, uv = [], []
    for index, (a, b, c, d) in enumerate(sides):
        left, right = index / 6, (index + 1) / 6
        faces += [(a, b, c), (a, c, d)]
        uv += [[(left, 0), (right, 0), (right, 1)], [(left, 0), (right, 1), (left, 1)]]
    return TriangleMesh(
        vertices, torch.tensor(faces), uv=torch.tensor(uv), texture=torch.from_numpy(texture.copy())
    )


def box_pose(tilt: float = 0.6, turn: float = 0.5, distance: float = 0.45) -> torch.Tensor:
    """``cam_from_obj`` of a box that shows three faces, metres."""
    matrix = np.eye(4)
    matrix[:3, :3] = cv2.Rodrigues(np.array([2.2 + tilt, 0.3, turn]))[0]
    matrix[:3, 3] = (0.01, -0.005, distance)
    return torch.from_numpy(matrix)


def picture_of(mesh: TriangleMesh, cam_from_obj: torch.Tensor, camera: Camera = CAMERA) -> np.ndarray:
    """The mesh in front of a soft grey background."""
    drawn = render_views(
        mesh, cam_from_obj[None], camera.K, camera.image_size, background=(120, 125, 130), samples=2
    )
    return drawn.color[0].numpy()
