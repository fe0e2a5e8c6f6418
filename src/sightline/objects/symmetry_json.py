"""Symmetries as JSON: the layout of BOP's ``models_info.json``, in metres."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch

from sightline.geometry.symmetry import SymmetryGroup


def symmetries_to_json(group: SymmetryGroup) -> dict[str, Any]:
    """The two lists that BOP writes for an object, in metres.

    Args:
        group: the symmetries.

    Example:
        >>> written = symmetries_to_json(SymmetryGroup.cyclic(2, (0, 0, 1)))
        >>> len(written["symmetries_discrete"]), written["symmetries_continuous"]
        (1, [])
    """
    result: dict[str, Any] = {
        # BOP leaves the identity out
        "symmetries_discrete": [matrix.flatten().tolist() for matrix in group.discrete[1:]],
        "symmetries_continuous": [],
    }
    if group.axis is not None:
        offset = torch.zeros(3) if group.offset is None else group.offset
        result["symmetries_continuous"].append({"axis": group.axis.tolist(), "offset": offset.tolist()})
    return result


def symmetries_from_json(entry: Mapping[str, Any]) -> SymmetryGroup:
    """The inverse of :func:`symmetries_to_json`.

    Args:
        entry: with ``symmetries_discrete`` (4x4, row by row, metres) and ``symmetries_continuous``.

    Raises:
        KeyError: a list is missing.
        ValueError: numbers that are no motion.

    Example:
        >>> symmetries_from_json(symmetries_to_json(SymmetryGroup.cyclic(3, (0, 0, 1)))).discrete.shape
        torch.Size([3, 4, 4])
    """
    identity = torch.eye(4, dtype=torch.float64)
    rows = [torch.tensor(row, dtype=torch.float64).reshape(4, 4) for row in entry["symmetries_discrete"]]
    continuous = entry["symmetries_continuous"]
    axis = torch.tensor(continuous[0]["axis"], dtype=torch.float64) if continuous else None
    offset = torch.tensor(continuous[0]["offset"], dtype=torch.float64) if continuous else None
    if not math.isfinite(float(torch.stack([identity, *rows]).sum())):
        raise ValueError("symmetries_discrete: expected finite numbers")
    return SymmetryGroup(discrete=torch.stack([identity, *rows]), axis=axis, offset=offset)
