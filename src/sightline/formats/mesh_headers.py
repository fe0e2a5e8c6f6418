"""What a mesh file says about itself beside its triangles: its unit, and how long it is."""

from __future__ import annotations

from pathlib import Path

from sightline.formats.mesh_units import find_stated_unit

_PLY_HEADER_LIMIT = 1 << 16
_OBJ_HEAD_LINES = 200


def read_statement(path: Path) -> tuple[str | None, str]:
    """The unit that a mesh file states.

    PLY and OBJ state it in a comment, STL in its header; glTF is in metres by specification.

    Args:
        path: the mesh file.

    Returns:
        ``(unit or None, where it says so)``.
    """
    suffix = path.suffix.lower()
    if suffix in (".glb", ".gltf"):
        return "m", "glTF is in metres by specification"
    comments = "\n".join(_comments(path, suffix))
    unit = find_stated_unit(comments)
    return unit, f'{path.name} says "unit {unit}"' if unit else ""


def require_whole(path: Path) -> None:
    """Refuse an ASCII PLY with fewer rows than its header promises; trimesh would read what is there.

    Args:
        path: any mesh file.

    Raises:
        ValueError: rows are missing.
    """
    if path.suffix.lower() != ".ply":
        return
    header = [line.split() for line in _ply_header(path)]
    if ["format", "ascii", "1.0"] not in header:
        return
    promised = sum(int(words[2]) for words in header if words[:1] == ["element"])
    body = path.read_bytes().partition(b"end_header")[2]
    rows = sum(1 for line in body.splitlines() if line.strip())
    if rows < promised:
        raise ValueError(f"{path}: the mesh is truncated, {rows} rows of {promised}")


def _comments(path: Path, suffix: str) -> list[str]:
    if suffix == ".ply":
        return [line for line in _ply_header(path) if line.startswith(("comment", "obj_info"))]
    if suffix == ".stl":
        with path.open("rb") as file:
            return [file.read(80).split(b"\0")[0].decode("latin-1")]
    if suffix in (".obj", ".off"):
        with path.open(encoding="utf-8", errors="replace") as file:
            head = (line for line, _ in zip(file, range(_OBJ_HEAD_LINES), strict=False))
            return [line for line in head if line.startswith("#")]
    return []


def _ply_header(path: Path) -> list[str]:
    with path.open("rb") as file:
        head = file.read(_PLY_HEADER_LIMIT)
    if not head.startswith(b"ply"):
        raise ValueError(f'{path}: expected a PLY file, which begins with "ply"')
    end = head.find(b"end_header")
    if end < 0:
        raise ValueError(f'{path}: the mesh is damaged or truncated (no "end_header")')
    return head[:end].decode("latin-1").splitlines()
