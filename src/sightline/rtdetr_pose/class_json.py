"""What a file of weights says about its classes: all that is needed to read the model's outputs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from sightline.objects.symmetry_json import symmetries_from_json, symmetries_to_json
from sightline.rtdetr_pose.pictures import ObjectClass


def classes_to_json(classes: Iterable[ObjectClass]) -> list[dict[str, Any]]:
    """Classes as plain values, metres; the points of their meshes are left out.

    Args:
        classes: in the order of their labels.

    Example:
        >>> classes_to_json([ObjectClass("mug", 1, 0.12)])[0]["diameter"]
        0.12
    """
    return [
        {
            "name": each.name,
            "number": each.number,
            "diameter": each.diameter if math.isfinite(each.diameter) else None,
            **symmetries_to_json(each.symmetries),
        }
        for each in classes
    ]


def classes_from_json(entries: Iterable[Mapping[str, Any]]) -> tuple[ObjectClass, ...]:
    """The inverse of :func:`classes_to_json`.

    Args:
        entries: one a class.

    Raises:
        KeyError: a key is missing.
        ValueError: values that cannot be.

    Example:
        >>> classes_from_json(classes_to_json([ObjectClass("mug", 1, 0.12)]))[0].name
        'mug'
    """
    return tuple(
        ObjectClass(
            str(each["name"]),
            int(each["number"]),
            math.nan if each["diameter"] is None else float(each["diameter"]),
            symmetries_from_json(each),
        )
        for each in entries
    )
