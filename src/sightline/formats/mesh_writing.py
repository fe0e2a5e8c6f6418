"""Meshes to files: PLY, OBJ, GLB and STL, in any unit and saying which."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from sightline.formats.atomic import atomic_write
from sightline.formats.images import write_image
from sightline.formats.mesh_units import UNIT_IN_METRES, normalise_unit
from sightline.records import TriangleMesh

_FLIP_V = np.array([1, -1], np.float32)
_RAISE_V = np.array([0, 1], np.float32)


def write_mesh(path: str | Path, mesh: TriangleMesh, unit: str = "m") -> None:
    r"""Write a mesh; the suffix chooses the format, and the file states its unit.

    A texture goes into ``<stem>_texture.png`` beside a PLY (MeshLab's ``comment TextureFile`` and
    ``texcoord``) or an OBJ (with ``<stem>.mtl``), and into the GLB itself. STL holds the shape alone.

    Args:
        path: ``.ply`` (binary), ``.obj``, ``.glb`` or ``.stl`` (binary).
        mesh: in metres.
        unit: what the file shall be in; GLB is always in metres.

    Raises:
        ValueError: another suffix or unit.

    Example:
        >>> import tempfile, torch
        >>> corner = TriangleMesh(torch.eye(3, dtype=torch.float64), torch.tensor([[0, 1, 2]]))
        >>> path = Path(tempfile.mkdtemp()) / "corner.ply"
        >>> write_mesh(path, corner, unit="mm")
        >>> path.read_bytes().split(b"\n")[2].decode()
        'comment unit mm'
    """
    path = Path(path)
    unit = normalise_unit(unit)
    vertices = mesh.vertices.detach().cpu().double().numpy() / UNIT_IN_METRES[unit]
    match path.suffix.lower():
        case ".ply":
            content = _ply(path, mesh, vertices, unit)
        case ".obj":
            content = _obj(path, mesh, vertices, unit)
        case ".stl":
            content = _stl(mesh, vertices, unit)
        case ".glb":
            if unit != "m":
                raise ValueError(f"{path}: glTF is in metres by specification, got unit {unit!r}")
            content = _glb(mesh, vertices)
        case suffix:
            raise ValueError(f"{path}: expected .ply, .obj, .glb or .stl, got {suffix!r}")
    with atomic_write(path) as temporary:
        temporary.write_bytes(content)


def _faces(mesh: TriangleMesh) -> np.ndarray:
    return mesh.faces.cpu().numpy()


def _uv_up(mesh: TriangleMesh) -> np.ndarray | None:
    """``(f, 3, 2)`` texture coordinates with v upwards, as files keep them."""
    return None if mesh.uv is None else mesh.uv.cpu().numpy() * _FLIP_V + _RAISE_V


def _write_texture(path: Path, mesh: TriangleMesh) -> str:
    assert mesh.texture is not None
    target = path.with_name(f"{path.stem}_texture.png")  # <stem>.png may well be a photo of the object
    write_image(target, mesh.texture.cpu().numpy())
    return target.name


def _colors_u8(mesh: TriangleMesh) -> np.ndarray | None:
    if mesh.vertex_colors is None:
        return None
    return np.rint(255 * mesh.vertex_colors.cpu().numpy().clip(0, 1)).astype(np.uint8)


def _ply(path: Path, mesh: TriangleMesh, vertices: np.ndarray, unit: str) -> bytes:
    header = ["ply", "format binary_little_endian 1.0", f"comment unit {unit}"]
    uv = _uv_up(mesh)
    if uv is not None:
        header.append(f"comment TextureFile {_write_texture(path, mesh)}")
    header += [f"element vertex {len(vertices)}", *(f"property double {axis}" for axis in "xyz")]
    fields: list[tuple] = [("xyz", "<f8", 3)]
    colors = _colors_u8(mesh)
    if colors is not None:
        header += [f"property uchar {name}" for name in ("red", "green", "blue")]
        fields.append(("rgb", "u1", 3))
    points = np.empty(len(vertices), dtype=fields)
    points["xyz"] = vertices
    if colors is not None:
        points["rgb"] = colors
    header += [f"element face {len(mesh.faces)}", "property list uchar int vertex_indices"]
    face_fields: list[tuple] = [("count", "u1"), ("index", "<i4", 3)]
    if uv is not None:
        header.append("property list uchar float texcoord")
        face_fields += [("uv_count", "u1"), ("uv", "<f4", 6)]
    triangles = np.empty(len(mesh.faces), dtype=face_fields)
    triangles["count"], triangles["index"] = 3, _faces(mesh)
    if uv is not None:
        triangles["uv_count"], triangles["uv"] = 6, uv.reshape(-1, 6)
    header.append("end_header\n")
    return "\n".join(header).encode() + points.tobytes() + triangles.tobytes()


def _obj(path: Path, mesh: TriangleMesh, vertices: np.ndarray, unit: str) -> bytes:
    lines = [f"# unit {unit}"]
    uv = _uv_up(mesh)
    if uv is not None:
        material = f"newmtl texture\nKd 1 1 1\nmap_Kd {_write_texture(path, mesh)}\n"
        with atomic_write(path.with_suffix(".mtl")) as temporary:
            temporary.write_text(material, encoding="utf-8")
        lines.append(f"mtllib {path.with_suffix('.mtl').name}")
    rows = vertices
    if mesh.vertex_colors is not None:
        rows = np.hstack([vertices, mesh.vertex_colors.cpu().double().numpy()])
    lines += [f"v {' '.join(map(repr, row))}" for row in rows.tolist()]
    corners = _faces(mesh) + 1
    if uv is None:
        lines += [f"f {a} {b} {c}" for a, b, c in corners.tolist()]
    else:
        lines += [f"vt {u:.9g} {v:.9g}" for u, v in uv.reshape(-1, 2).tolist()]
        lines.append("usemtl texture")
        first = enumerate(corners.tolist())
        lines += [f"f {a}/{3 * i + 1} {b}/{3 * i + 2} {c}/{3 * i + 3}" for i, (a, b, c) in first]
    return ("\n".join(lines) + "\n").encode()


def _stl(mesh: TriangleMesh, vertices: np.ndarray, unit: str) -> bytes:
    corners = vertices[_faces(mesh)]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    lengths = np.linalg.norm(normals, axis=1, keepdims=True)
    record = [("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attribute", "<u2")]
    triangles = np.zeros(len(corners), dtype=record)
    triangles["normal"] = normals / np.where(lengths > 0, lengths, 1)
    triangles["corners"] = corners
    header = f"binary STL, unit {unit}".encode().ljust(80, b"\0")
    return header + np.uint32(len(corners)).tobytes() + triangles.tobytes()


def _glb(mesh: TriangleMesh, vertices: np.ndarray) -> bytes:
    import trimesh
    from PIL import Image
    from trimesh.visual import TextureVisuals
    from trimesh.visual.material import PBRMaterial

    faces, uv = _faces(mesh), _uv_up(mesh)
    if uv is None or mesh.texture is None:
        shape = trimesh.Trimesh(vertices, faces, vertex_colors=_colors_u8(mesh), process=False)
    else:
        # glTF keeps one uv a vertex, so that a vertex on a seam is repeated.
        rows = np.column_stack([faces.reshape(-1), uv.reshape(-1, 2)])
        unique, which = np.unique(rows, axis=0, return_inverse=True)
        picture = Image.fromarray(mesh.texture.cpu().numpy())
        material = PBRMaterial(baseColorTexture=picture, metallicFactor=0.0, roughnessFactor=1.0)
        shape = trimesh.Trimesh(
            vertices[unique[:, 0].astype(np.int64)],
            which.reshape(-1, 3),
            visual=TextureVisuals(uv=unique[:, 1:], material=material),
            process=False,
        )
    return bytes(trimesh.Scene(shape).export(file_type="glb"))
