"""All meshes of a scene as one list of triangles in flat arrays, the form that both backends draw."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sightline.records import TriangleMesh
from sightline.rendering.prepared import PreparedMesh

PLAIN_GREY = 180.0


class Soup(NamedTuple):
    """The triangles of ``m`` meshes, with what shading needs (a tuple, because Numba can read those).

    Args:
        vertices: ``(v, 3)`` float64, each in its own mesh's frame, metres.
        vertex_mesh: ``(v,)`` int32, which mesh a vertex belongs to.
        faces: ``(f, 3)`` int32 indices into ``vertices``.
        face_mesh: ``(f,)`` int32.
        colors: ``(v, 3)`` float32 RGB in [0, 255]; grey for a mesh without colours.
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


def build_soup(prepared: Sequence[PreparedMesh], *, with_color: bool, with_normals: bool) -> Soup:
    """Lay meshes out in flat arrays.

    Args:
        prepared: at least one mesh.
        with_color: whether colours and textures are needed.
        with_normals: whether corner normals are needed.

    Returns:
        The soup; what is not needed is zero.
    """
    meshes = [each.mesh for each in prepared]
    numbers = np.arange(len(meshes), dtype=np.int32)
    num_vertices = [len(mesh.vertices) for mesh in meshes]
    firsts = np.cumsum([0, *num_vertices[:-1]])
    chains = [each.mips for each in prepared if with_color]
    num_levels = [len(chain.levels) for chain in chains] if with_color else [0] * len(meshes)
    return Soup(
        vertices=_join([mesh.vertices.double().cpu().numpy() for mesh in meshes]),
        vertex_mesh=np.repeat(numbers, num_vertices),
        faces=_join(
            [
                (mesh.faces.cpu().numpy() + first).astype(np.int32)
                for mesh, first in zip(meshes, firsts, strict=True)
            ]
        ),
        face_mesh=np.repeat(numbers, [len(mesh.faces) for mesh in meshes]),
        colors=_join([_vertex_colors(mesh) for mesh in meshes]),
        uv=_join([_corner_uv(mesh) for mesh in meshes]),
        normals=_join([each.normals if with_normals else _no_normals(each.mesh) for each in prepared]),
        mesh_levels=np.column_stack([np.cumsum([0, *num_levels[:-1]]), num_levels]).astype(np.int32),
        levels=_join_levels([chain.levels for chain in chains]),
        texels=_join([chain.texels for chain in chains]) if chains else np.zeros(0, np.uint8),
    )


def _join(arrays: list[NDArray]) -> NDArray:
    # One mesh is the common case; its texture need not be copied.
    return np.ascontiguousarray(arrays[0]) if len(arrays) == 1 else np.concatenate(arrays)


def _join_levels(tables: list[NDArray[np.int64]]) -> NDArray[np.int64]:
    size, joined = 0, [np.zeros((0, 3), np.int64)]
    for table in tables:
        joined.append(table + np.array([size, 0, 0]))
        size += 3 * int((table[:, 1] * table[:, 2]).sum())
    return np.concatenate(joined)


def _vertex_colors(mesh: TriangleMesh) -> NDArray[np.float32]:
    if mesh.vertex_colors is None:
        return np.full((len(mesh.vertices), 3), PLAIN_GREY, np.float32)
    return mesh.vertex_colors.float().cpu().numpy() * np.float32(255)


def _corner_uv(mesh: TriangleMesh) -> NDArray[np.float32]:
    if mesh.uv is None:
        return np.zeros((len(mesh.faces), 3, 2), np.float32)
    return mesh.uv.float().cpu().numpy()


def _no_normals(mesh: TriangleMesh) -> NDArray[np.float32]:
    return np.zeros((len(mesh.faces), 3, 3), np.float32)
