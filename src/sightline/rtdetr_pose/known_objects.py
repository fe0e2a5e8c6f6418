"""What a closed-set model knows of its objects: all that is needed to read its outputs and to judge them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sightline.geometry.symmetry import SymmetryGroup
from sightline.objects.symmetry_json import symmetries_from_json, symmetries_to_json


@dataclass(frozen=True)
class KnownObject:
    """One class of a closed-set model.

    Args:
        name: of the object.
        diameter: metres.
        symmetries: of it.

    Raises:
        ValueError: a diameter that is not positive.

    Example:
        >>> KnownObject.from_json(KnownObject("mug", 0.12).to_json()).diameter
        0.12
    """

    name: str
    diameter: float
    symmetries: SymmetryGroup = field(default_factory=SymmetryGroup.none)

    def __post_init__(self) -> None:
        if not (math.isfinite(self.diameter) and self.diameter > 0):
            raise ValueError(f"{self.name}: expected a diameter above 0 metres, got {self.diameter}")

    def to_json(self) -> dict[str, Any]:
        """As plain values, metres."""
        return {"name": self.name, "diameter": self.diameter, **symmetries_to_json(self.symmetries)}

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> KnownObject:
        """From what :meth:`to_json` gave.

        Raises:
            KeyError: a key is missing.
            ValueError: values that cannot be.
        """
        return cls(str(entry["name"]), float(entry["diameter"]), symmetries_from_json(entry))
