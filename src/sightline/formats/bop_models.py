"""BOP's ``models_info.json``: size and symmetries of each object, millimetres in the file, metres here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from sightline.formats.json_files import Fields, clean_rotation, read_json, write_json
from sightline.geometry.symmetry import SymmetryGroup
from sightline.records import TriangleMesh

MM = 0.001


def object_name(obj_id: int) -> str:
    """The name that BOP gives an object and its mesh file.

    Args:
        obj_id: the object's number.

    Example:
        >>> object_name(5)
        'obj_000005'
    """
    return f"obj_{obj_id:06d}"


@dataclass(frozen=True, eq=False)
class ModelInfo:
    """What BOP says of an object beside its mesh.

    Args:
        diameter: the largest distance of two vertices, metres.
        bounds: ``(2, 3)`` float64 smallest and largest coordinates, metres.
        symmetry: the motions that leave its looks unchanged.

    Example:
        >>> mesh = TriangleMesh(torch.eye(3, dtype=torch.float64), torch.tensor([[0, 1, 2]]))
        >>> ModelInfo.of_mesh(mesh).bounds[1].tolist()
        [1.0, 1.0, 1.0]
    """

    diameter: float
    bounds: Float[Tensor, "2 3"]
    symmetry: SymmetryGroup = field(default_factory=SymmetryGroup.none)

    @classmethod
    def of_mesh(cls, mesh: TriangleMesh, symmetry: SymmetryGroup | None = None) -> ModelInfo:
        """Measure a mesh."""
        return cls(mesh.diameter, mesh.bounds.double(), symmetry or SymmetryGroup.none())


def read_models_info(path: str | Path) -> dict[int, ModelInfo]:
    """Read ``models_info.json``.

    Args:
        path: the file.

    Returns:
        The info of each object by its number.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: no JSON, or a key that is missing or malformed; file, object and key are named.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "models_info.json"
        >>> bounds = torch.tensor([[-0.1, -0.1, -0.1], [0.1, 0.1, 0.1]], dtype=torch.float64)
        >>> write_models_info(path, {5: ModelInfo(0.346, bounds, SymmetryGroup.cyclic(2, (0, 0, 1)))})
        >>> info = read_models_info(path)[5]
        >>> info.diameter, len(info.symmetry.discrete)
        (0.346, 2)
    """
    path = Path(path)
    content = Fields.of(read_json(path), path, "top level")
    models = {}
    for key, value in content.values.items():
        if not key.isdigit():
            raise ValueError(f"{path}: expected object numbers as keys, got {key!r}")
        models[int(key)] = _model_info(Fields.of(value, path, f"object {key}"))
    return models


def _model_info(entry: Fields) -> ModelInfo:
    low = torch.tensor([entry.number(f"min_{axis}") for axis in "xyz"], dtype=torch.float64)
    size = torch.tensor([entry.number(f"size_{axis}") for axis in "xyz"], dtype=torch.float64)
    bounds = torch.stack([low, low + size]) * MM
    return ModelInfo(entry.number("diameter") * MM, bounds, symmetry_from_bop(entry))


def symmetry_from_bop(entry: Fields) -> SymmetryGroup:
    """The symmetries of one object of ``models_info.json``.

    Args:
        entry: with ``symmetries_discrete`` (4x4, row-wise, mm) and ``symmetries_continuous`` (axis, offset
            mm), both optional.

    Returns:
        The group, metres, with the identity in the first place.

    Raises:
        ValueError: a motion that is not rigid, or more than one axis of revolution.

    Example:
        >>> turn = {"axis": [0, 0, 1], "offset": [0, 0, 50]}
        >>> entry = Fields({"symmetries_continuous": [turn]}, Path("models_info.json"), "object 1")
        >>> symmetry_from_bop(entry).offset.tolist()
        [0.0, 0.0, 0.05]
    """
    motions = [torch.eye(4, dtype=torch.float64)]
    if "symmetries_discrete" in entry:
        listed = entry.require("symmetries_discrete")
        for i in range(len(listed)):
            numbered = Fields({"motion": listed[i]}, entry.path, f"{entry.where}, symmetries_discrete[{i}]")
            motions.append(_motion(numbered))
    axes = entry.entries("symmetries_continuous") if "symmetries_continuous" in entry else []
    if len(axes) > 1:
        raise entry.fault("symmetries_continuous", f"expected at most one axis, got {len(axes)}")
    axis = axes[0].tensor("axis", 3) if axes else None
    offset = axes[0].tensor("offset", 3) * MM if axes else None
    try:
        return SymmetryGroup(torch.stack(motions), axis, offset)
    except ValueError as error:
        raise ValueError(f"{entry.path}: {entry.where}: {error}") from error


def _motion(entry: Fields) -> Float[Tensor, "4 4"]:
    motion = entry.tensor("motion", 4, 4)
    motion[:3, :3] = clean_rotation(motion[:3, :3], f"{entry.path}: {entry.where}")
    motion[:3, 3] *= MM
    return motion


def symmetry_to_bop(symmetry: SymmetryGroup) -> dict[str, Any]:
    """The keys of ``models_info.json`` that say a group; none for an object without symmetries.

    Args:
        symmetry: the group, metres.

    Returns:
        ``symmetries_discrete`` and ``symmetries_continuous`` in millimetres, each where it applies.

    Example:
        >>> symmetry_to_bop(SymmetryGroup.continuous((0, 0, 1)))
        {'symmetries_continuous': [{'axis': [0.0, 0.0, 1.0], 'offset': [0.0, 0.0, 0.0]}]}
    """
    keys: dict[str, Any] = {}
    motions = symmetry.discrete[1:].clone()  # BOP leaves the identity out
    motions[:, :3, 3] /= MM
    if len(motions):
        keys["symmetries_discrete"] = motions.flatten(1).tolist()
    if symmetry.axis is not None and symmetry.offset is not None:
        turn = {"axis": symmetry.axis.tolist(), "offset": (symmetry.offset / MM).tolist()}
        keys["symmetries_continuous"] = [turn]
    return keys


def write_models_info(path: str | Path, models: Mapping[int, ModelInfo]) -> None:
    """Write ``models_info.json``.

    Args:
        path: where to.
        models: the info of each object by its number.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "models_info.json"
        >>> write_models_info(path, {1: ModelInfo(0.1, torch.zeros(2, 3, dtype=torch.float64))})
        >>> read_json(path)["1"]["diameter"]
        100.0
    """
    write_json(path, {str(obj_id): _entry(models[obj_id]) for obj_id in sorted(models)})


def _entry(info: ModelInfo) -> dict[str, Any]:
    low, size = (info.bounds[0] / MM).tolist(), ((info.bounds[1] - info.bounds[0]) / MM).tolist()
    box = dict(zip(("min_x", "min_y", "min_z"), low, strict=True))
    box |= dict(zip(("size_x", "size_y", "size_z"), size, strict=True))
    return {"diameter": info.diameter / MM, **box, **symmetry_to_bop(info.symmetry)}
