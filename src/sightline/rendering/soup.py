"""All meshes of a scene as one list of triangles in flat arrays, the form that both backends draw."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sightline.records import TriangleMesh
from sightline.rendering.normals import corner_normals
from sightline.rendering.texture import mip_chain

PLAIN_GREY = 180.0


class Soup(NamedTuple):
    """The triangles of ``m`` meshes, with everything that shading needs (a tuple, because Numba can read those).

    Args:
        vertices: ``(v, 3)`` float64, each in its own mesh's frame, metres.
        vertex_mesh: ``(v,)`` int32, which mesh a vertex belongs to.
        faces: ``(f, 3)`` int32 indices into ``vertices``.
        face_mesh: ``(f,)`` int32.
        colors: ``(v, 3)`` float32 RGB in [0, 255].
        uv: ``(f, 3, 2)`` float32; zero for a mesh without texture.
        normals: ``(f, 3, 3)`` float32 unit corner normals in the mesh's frame.
        mesh_levels: ``(m, 2)`` int32, a mesh's first mip level and their number (0 without texture).
        levels: ``(k, 3)`` int64, each level's first byte in ``texels``, its height and its width.
        texels: ``(t,)`` uint8, all levels of all textures, RGB interleaved.
    """

    vertices: NDArray[np.float64]
    vertex_mesh: NDArray[np.int32]
    faces: NDArray[np.int32]
    face_mesh: NDArray[np.int32]
    colors: NDArray[np.float32]
    uv: NDArray[np.float32]
    normals: NDArray[np.float32]
    mesh_levels: NDArray[np.int32]
    levels: NDArray[np.int64]
    texels: NDArray[np.uint8]


def build_soup(meshes: Sequence[TriangleMesh], *, with_color: bool, with_normals: bool) -> Soup:
    """Lay the meshes out in flat arrays.

    Args:
        meshes: at least one mesh.
        with_color: whether colours and mip chains are needed.
        with_normals: whether corner normals are needed.

    Returns:
        The soup; what is not needed is zero.
    """
    counts = [len(mesh.vertices) for mesh in meshes]
    firsts = np.cumsum([0, *counts])
    faces = [mesh.faces.numpy() + first for mesh, first in zip(meshes, firsts, strict=False)]
    face_counts = [len(mesh.faces) for mesh in meshes]
    mesh_levels, levels, texels = _texture_tables(meshes if with_color else ())
    if not with_color:
        mesh_levels = np.zeros((len(meshes), 2), np.int32)
    return Soup(
        vertices=np.concatenate([mesh.vertices.double().numpy() for mesh in meshes]),
        vertex_mesh=np.repeat(np.arange(len(meshes), dtype=np.int32), counts),
        faces=np.concatenate(faces).astype(np.int32),
        face_mesh=np.repeat(np.arange(len(meshes), dtype=np.int32), face_counts),
        colors=np.concatenate([_vertex_colors(mesh) for mesh in meshes]),
        uv=np.concatenate([_corner_uv(mesh) for mesh in meshes]),
        normals=np.concatenate([_normals(mesh, with_normals) for mesh in meshes]),
        mesh_levels=mesh_levels,
        levels=levels,
        texels=texels,
    )


def _vertex_colors(mesh: TriangleMesh) -> NDArray[np.float32]:
    if mesh.vertex_colors is None:
        return np.full((len(mesh.vertices), 3), PLAIN_GREY, np.float32)
    return mesh.vertex_colors.float().numpy() * np.float32(255)


def _corner_uv(mesh: TriangleMesh) -> NDArray[np.float32]:
    return np.zeros((len(mesh.faces), 3, 2), np.float32) if mesh.uv is None else mesh.uv.float().numpy()


def _normals(mesh: TriangleMesh, needed: bool) -> NDArray[np.float32]:
    if not needed:
        return np.zeros((len(mesh.faces), 3, 3), np.float32)
    return corner_normals(mesh.vertices.double().numpy(), mesh.faces.numpy())


def _texture_tables(
    meshes: Sequence[TriangleMesh],
) -> tuple[NDArray[np.int32], NDArray[np.int64], NDArray[np.uint8]]:
    mesh_levels = np.zeros((len(meshes), 2), np.int32)
    table: list[tuple[int, int, int]] = []
    pictures: list[NDArray[np.uint8]] = []
    size = 0
    for index, mesh in enumerate(meshes):
        chain = [] if mesh.texture is None else mip_chain(mesh.texture.numpy())
        mesh_levels[index] = len(table), len(chain)
        for level in chain:
            table.append((size, level.shape[0], level.shape[1]))
            pictures.append(level.reshape(-1))
            size += level.size
    levels = np.asarray(table, np.int64).reshape(-1, 3)
    return mesh_levels, levels, np.concatenate(pictures) if pictures else np.zeros(0, np.uint8)
