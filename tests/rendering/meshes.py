"""Meshes, cameras and exact answers for the rendering tests."""

from __future__ import annotations

import numpy as np
import torch
import trimesh
from torch import Tensor

from sightline.geometry.rotations import exp
from sightline.records import TriangleMesh

ALL_OUTPUTS = ("color", "depth", "mask", "xyz", "normals", "instance")


def camera_matrix(focal: float, width: int, height: int) -> Tensor:
    return torch.tensor([[focal, 0, (width - 1) / 2], [0, focal, (height - 1) / 2], [0, 0, 1]]).double()


def pose(rotation_vector: tuple[float, float, float], translation: tuple[float, float, float]) -> Tensor:
    matrix = torch.eye(4, dtype=torch.float64)
    matrix[:3, :3] = exp(torch.tensor(rotation_vector, dtype=torch.float64))
    matrix[:3, 3] = torch.tensor(translation, dtype=torch.float64)
    return matrix


def random_poses(count: int, distance: float, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    turns = torch.randn(count, 3, generator=generator, dtype=torch.float64) * 2
    poses = torch.eye(4, dtype=torch.float64).repeat(count, 1, 1)
    poses[:, :3, :3] = exp(turns)
    poses[:, 2, 3] = distance
    return poses


def from_trimesh(mesh: trimesh.Trimesh, scale: float = 1.0) -> TriangleMesh:
    vertices = torch.from_numpy(np.array(mesh.vertices, np.float64) * scale)
    return TriangleMesh(vertices, torch.from_numpy(np.array(mesh.faces, np.int64)))


def sphere(radius: float, subdivisions: int = 4) -> TriangleMesh:
    return from_trimesh(trimesh.creation.icosphere(subdivisions=subdivisions), radius)


def cube(side: float) -> TriangleMesh:
    return from_trimesh(trimesh.creation.box(extents=(side, side, side)))


def bumpy(
    num_faces: int = 10_000, radius: float = 0.05, texels: int = 256, dents: float = 0.25
) -> TriangleMesh:
    """A textured, dented ball with folds, so that it hides parts of itself."""
    rows = int(np.sqrt(num_faces / 4)) + 1
    columns = num_faces // (2 * (rows - 1))
    polar, around = np.meshgrid(
        np.linspace(0, np.pi, rows), np.linspace(0, 2 * np.pi, columns + 1), indexing="ij"
    )
    bump = radius * (1 + dents * np.sin(5 * around) * np.sin(4 * polar) * np.sin(polar))
    directions = np.stack([np.sin(polar) * np.cos(around), np.sin(polar) * np.sin(around), np.cos(polar)], -1)
    index = np.arange(rows * (columns + 1)).reshape(rows, columns + 1)
    a, b, c, d = (x.ravel() for x in (index[:-1, :-1], index[1:, :-1], index[1:, 1:], index[:-1, 1:]))
    faces = torch.from_numpy(np.concatenate([np.stack([a, b, c], 1), np.stack([a, c, d], 1)]))
    uv = torch.from_numpy(np.stack([around / (2 * np.pi), polar / np.pi], -1)).reshape(-1, 2).float()
    vertices = torch.from_numpy((bump[..., None] * directions).reshape(-1, 3))
    texture = torch.randint(
        0, 256, (texels // 2, texels, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1)
    )
    return TriangleMesh(vertices, faces, uv=uv[faces], texture=texture)


def rectangle(
    left: float, top: float, right: float, bottom: float, texture: Tensor | None = None, z: float = 1.0
) -> TriangleMesh:
    """A rectangle in the camera's own frame at depth z, seen from its front, with the whole texture on it."""
    corners = torch.tensor([[left, top, z], [right, top, z], [right, bottom, z], [left, bottom, z]]).double()
    uv = torch.tensor([[0.0, 0], [1, 0], [1, 1], [0, 1]])
    faces = torch.tensor([[0, 2, 1], [0, 3, 2]])
    return TriangleMesh(corners, faces, uv=uv[faces] if texture is not None else None, texture=texture)


def pixel_rectangle(left: float, top: float, right: float, bottom: float, texture: Tensor | None = None):
    """A rectangle given in pixels, for the camera K = identity at depth 1."""
    return rectangle(left, top, right, bottom, texture)


UNIT_K = torch.eye(3, dtype=torch.float64)
AT_ORIGIN = torch.eye(4, dtype=torch.float64)[None]


def pixel_rays(K: Tensor, width: int, height: int) -> Tensor:
    """The directions ``(h, w, 3)`` with z = 1 of all pixel centres."""
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack([x, y, torch.ones_like(x)], -1).double() @ torch.linalg.inv(K).mT
