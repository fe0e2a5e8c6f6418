"""One pose from a file, unjudged: 4x4, R and t, quaternion and t, BOP's ``scene_gt.json``, or our results.

The keys state the conventions: ``cam_from_obj`` (16 numbers, row by row), ``R`` with ``t``, and
``quaternion_wxyz`` or ``quaternion_xyzw`` with ``t``; ``unit`` is that of the translation, metres where
absent. ``cam_R_m2c`` and ``cam_t_m2c`` are BOP's, in millimetres.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from sightline.formats.bop_models import object_name
from sightline.formats.foundationpose import read_matrix
from sightline.formats.json_files import Fields, read_json
from sightline.formats.mesh_units import UNIT_IN_METRES, normalise_unit
from sightline.geometry.quaternions import matrix_from_quaternion_wxyz, matrix_from_quaternion_xyzw

_MATRIX_KEYS = ("cam_from_obj", "pose", "matrix", "transform")
_TRANSLATION_KEYS = ("t", "t_xyz", "translation")


@dataclass(frozen=True, eq=False)
class PoseNumbers:
    """A pose as a file states it, be it a pose or not.

    Args:
        matrix: ``(4, 4)`` float64; its translation in metres if the file's unit is what it says.
        layout: which form it had, and in which unit, for the user.
        name: of the object, where the file tells.
    """

    matrix: Float[Tensor, "4 4"]
    layout: str
    name: str = ""


def read_pose_numbers(path: str | Path, *, index: int | None = None, name: str | None = None) -> PoseNumbers:
    """Read one pose without judging whether it is one.

    Args:
        path: JSON, or a text file of 4x4 numbers as FoundationPose writes it.
        index: of several pictures: the image number of a ``scene_gt.json``, the position in our results.
        name: of several objects: its name, or its number in the data set.

    Returns:
        The numbers.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no pose in it, a failed one, or several and no choice.

    Example:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp()) / "pose.json"
        >>> _ = file.write_text('{"quaternion_wxyz": [1, 0, 0, 0], "t": [0, 0, 800], "unit": "mm"}')
        >>> pose = read_pose_numbers(file)
        >>> pose.layout, pose.matrix[2].tolist()
        ('quaternion w x y z and translation in mm', [0.0, 0.0, 1.0, 0.8])
    """
    path = Path(path)
    if path.suffix.lower() == ".txt":
        return PoseNumbers(read_matrix(path, 4), "4x4 in m")
    content = read_json(path)
    if isinstance(content, list):
        return _of_entry(Fields({"matrix": content}, path, "top level"))
    top = Fields.of(content, path, "top level")
    if "predictions" in top:
        return _of_entry(_chosen_result(top, index, name))
    if top.values and all(key.isdigit() for key in top.values):
        return _of_entry(_chosen_truth(top, index, name))
    return _of_entry(top)


def _chosen_result(top: Fields, index: int | None, name: str | None) -> Fields:
    pictures = top.entries("predictions")
    if index is None and len(pictures) > 1:
        raise top.fault("predictions", f"expected --index, the position of one of {len(pictures)} pictures")
    if not 0 <= (index or 0) < len(pictures):
        raise top.fault("predictions", f"expected one of {len(pictures)} pictures, got {index}")
    posed = [
        entry for entry in pictures[index or 0].entries("detections") if "valid" in entry or "R" in entry
    ]
    return _choose(posed, name, [str(entry.values.get("name", "")) for entry in posed], top)


def _chosen_truth(top: Fields, index: int | None, name: str | None) -> Fields:
    key = next(iter(top.values)) if index is None else str(index)
    if index is None and len(top.values) > 1:
        raise top.fault(key, f"expected --index, the number of one of {len(top.values)} images")
    entries = top.entries(key)
    return _choose(entries, name, [object_name(entry.integer("obj_id")) for entry in entries], top)


def _choose(entries: Sequence[Fields], name: str | None, names: Sequence[str], top: Fields) -> Fields:
    wanted = object_name(int(name)) if name is not None and name.isdigit() else name
    fitting = [e for e, its in zip(entries, names, strict=True) if wanted is None or its in (wanted, name)]
    if len(fitting) == 1:
        return fitting[0]
    found = ", ".join(names) or "none"
    raise ValueError(
        f"{top.path}: expected --object, the name of one object, got {name} (there are: {found})"
    )


def _of_entry(entry: Fields) -> PoseNumbers:
    name = str(entry.values.get("name", ""))
    if entry.values.get("valid") is False:
        raise entry.fault(
            "valid", f"the pose is a failure: {entry.values.get('reason') or 'no reason given'}"
        )
    if "cam_R_m2c" in entry:
        R, t = entry.tensor("cam_R_m2c", 3, 3), entry.tensor("cam_t_m2c", 3) * UNIT_IN_METRES["mm"]
        name = object_name(entry.integer("obj_id")) if "obj_id" in entry else name
        return PoseNumbers(_matrix(R, t), "BOP's R and t in mm", name)
    unit = _unit(entry)
    for key in _MATRIX_KEYS:
        if key in entry:
            matrix = entry.tensor(key, 4, 4)
            matrix[:3, 3] *= UNIT_IN_METRES[unit]
            return PoseNumbers(matrix, f"4x4 in {unit}", name)
    layout, R = _rotation(entry)
    key = next((key for key in _TRANSLATION_KEYS if key in entry), "t")
    t = entry.tensor(key, 3) * UNIT_IN_METRES[unit]
    return PoseNumbers(_matrix(R, t), f"{layout} and translation in {unit}", name)


def _rotation(entry: Fields) -> tuple[str, Tensor]:
    for order, convert in (("wxyz", matrix_from_quaternion_wxyz), ("xyzw", matrix_from_quaternion_xyzw)):
        key = f"quaternion_{order}"
        if key in entry:
            return f"quaternion {' '.join(order)}", convert(entry.tensor(key, 4))
    if "R" not in entry:
        keys = ", ".join(entry.values) or "none"
        expected = "cam_from_obj, R and t, or quaternion_wxyz (or _xyzw) and t"
        raise ValueError(f"{entry.path}: {entry.where}: expected a pose as {expected}; the keys are {keys}")
    return "R", entry.tensor("R", 3, 3)


def _unit(entry: Fields) -> str:
    if "unit" not in entry:
        return "m"
    try:
        return normalise_unit(entry.text("unit"))
    except ValueError as error:
        raise entry.fault("unit", str(error).removeprefix("unit: ")) from error


def _matrix(R: Tensor, t: Tensor) -> Tensor:
    bottom: list[Any] = [[0.0, 0.0, 0.0, 1.0]]
    return torch.cat([torch.cat([R, t[:, None]], 1), torch.tensor(bottom, dtype=torch.float64)])
