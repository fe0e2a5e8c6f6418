"""Mesh files to :class:`~sightline.records.TriangleMesh` in metres, with the unit and the reason for it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from sightline.formats.mesh_appearance import Part, merge_parts, part_from_trimesh
from sightline.formats.mesh_headers import read_statement, require_whole
from sightline.formats.mesh_units import UNIT_IN_METRES, decide_unit, normalise_unit
from sightline.formats.mesh_writing import write_mesh
from sightline.records import TriangleMesh

if TYPE_CHECKING:
    import trimesh

__all__ = ["UNIT_IN_METRES", "LoadedMesh", "read_mesh", "write_mesh"]

_SUFFIXES = (".ply", ".obj", ".glb", ".gltf", ".stl", ".off", ".3mf")


@dataclass(frozen=True, eq=False)
class LoadedMesh:
    """A mesh with its provenance.

    Args:
        mesh: in metres.
        unit: the file's unit: ``"m"``, ``"cm"``, ``"mm"`` or ``"in"``.
        unit_reason: why that unit was taken; to be shown to the user.
        sha256: of the mesh file, hexadecimal (its textures not included).
    """

    mesh: TriangleMesh
    unit: str
    unit_reason: str
    sha256: str


def read_mesh(path: str | Path, unit: str | None = None, *, colors: bool = True) -> LoadedMesh:
    """Read a mesh with its colours and convert it to metres.

    All parts of a scene are joined. Vertex, face and plain colours become vertex colours; a texture stays
    one, and several textures are stacked into one picture.

    Args:
        path: PLY, OBJ (with MTL), GLB or glTF, STL, OFF or 3MF.
        unit: ``"m"``, ``"cm"``, ``"mm"`` or ``"in"``; else the file's own word, or inferred, see
            :func:`~sightline.formats.mesh_units.decide_unit`.
        colors: whether to read colours, and so the material and texture files.

    Returns:
        The mesh in metres, the file's unit with the reason, and the file's hash.

    Raises:
        FileNotFoundError: the file, or a material or texture that it names, is not there.
        ValueError: damaged, no faces, an unknown suffix, or a unit that cannot be told.

    Example:
        >>> import tempfile
        >>> corner = TriangleMesh(torch.eye(3, dtype=torch.float64) * 0.1, torch.tensor([[0, 1, 2]]))
        >>> path = Path(tempfile.mkdtemp()) / "corner.ply"
        >>> write_mesh(path, corner, unit="mm")
        >>> loaded = read_mesh(path)
        >>> loaded.unit, loaded.unit_reason, round(loaded.mesh.diameter, 4)
        ('mm', 'stated: corner.ply says "unit mm"', 0.1414)
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such mesh")
    if path.suffix.lower() not in _SUFFIXES:
        raise ValueError(f"{path}: expected one of {', '.join(_SUFFIXES)}, got {path.suffix!r}")
    stated, statement = read_statement(path)
    require_whole(path)
    scene = _load_scene(path, colors)
    if stated is None and path.suffix.lower() == ".3mf" and scene.units:
        stated, statement = _scene_unit(scene.units), f"{path.name} says {scene.units}"
    try:
        part = merge_parts(_parts(scene, colors))
        mesh = _mesh_from_part(part if path.suffix.lower() != ".stl" else _welded(part))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    unit, reason = decide_unit(path, mesh.diameter, given=unit, stated=stated, statement=statement)
    return LoadedMesh(mesh.scaled(UNIT_IN_METRES[unit]), unit, reason, _sha256(path))


def _load_scene(path: Path, colors: bool) -> trimesh.Scene:
    import trimesh

    from sightline.formats.mesh_sidecars import SidecarResolver

    sidecars = SidecarResolver(path)
    try:
        scene = trimesh.load_scene(path, resolver=sidecars, process=False, skip_materials=not colors)
    except Exception as error:  # trimesh's readers raise whatever a broken file makes them stumble over
        raise ValueError(f"{path}: the mesh is damaged or truncated ({error})") from error
    if sidecars.problem is not None:
        raise sidecars.problem
    return scene


def _scene_unit(name: str) -> str | None:
    try:
        return normalise_unit(name)
    except ValueError:
        return None


def _parts(scene: trimesh.Scene, colors: bool) -> list[Part]:
    import trimesh

    parts = []
    for node in scene.graph.nodes_geometry:
        part_to_file, name = scene.graph[node]
        geometry = scene.geometry[name]
        if isinstance(geometry, trimesh.Trimesh) and len(geometry.faces):
            parts.append(part_from_trimesh(geometry, np.asarray(part_to_file, np.float64), colors=colors))
    if not parts:
        raise ValueError("expected a mesh with faces, got one without (a point cloud or an empty file)")
    return parts


def _welded(part: Part) -> Part:
    """The part with equal vertices made one: STL repeats each vertex in all of its faces."""
    rows = part.vertices if part.colors is None else np.hstack([part.vertices, part.colors])
    _, first, which = np.unique(rows, axis=0, return_index=True, return_inverse=True)
    colors = None if part.colors is None else part.colors[first]
    return Part(part.vertices[first], which.reshape(-1)[part.faces], colors)


def _mesh_from_part(part: Part) -> TriangleMesh:
    def tensor(values: np.ndarray | None, dtype: torch.dtype) -> torch.Tensor | None:
        return None if values is None else torch.from_numpy(np.ascontiguousarray(values)).to(dtype)

    return TriangleMesh(
        torch.from_numpy(np.ascontiguousarray(part.vertices)),
        torch.from_numpy(np.ascontiguousarray(part.faces)),
        vertex_colors=tensor(part.colors, torch.float32),
        uv=tensor(part.uv, torch.float32),
        texture=tensor(part.texture, torch.uint8),
    )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
