"""The object card: what Sightline knows of one object, in memory."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from sightline.geometry.cameras import Camera
from sightline.geometry.symmetry import SymmetryGroup
from sightline.records import TriangleMesh

TemplateSource = Literal["render", "photo", "frame"]


@dataclass(frozen=True, eq=False)
class Template:
    """One picture of the object with all that is known about it.

    Args:
        color: ``(h, w, 3)`` uint8 RGB.
        mask: ``(h, w)`` bool, the object's visible pixels.
        depth: ``(h, w)`` float32 metres along the optical axis, 0 where unknown.
        K: ``(3, 3)`` float64 pinhole intrinsics of this picture, pixels.
        cam_from_obj: ``(4, 4)`` float64 pose, metres.
        source: ``render`` (of the mesh), ``photo`` (given when onboarding) or ``frame`` (grown later).

    Raises:
        ValueError: sizes that differ, an empty mask, or NaN in depth.
    """

    color: UInt8[Tensor, "h w 3"]
    mask: Bool[Tensor, "h w"]
    depth: Float[Tensor, "h w"]
    K: Float[Tensor, "3 3"]
    cam_from_obj: Float[Tensor, "4 4"]
    source: TemplateSource = "render"

    def __post_init__(self) -> None:
        """Check that the three pictures fit and that there is an object in them."""
        size = tuple(self.mask.shape)
        if tuple(self.color.shape[:2]) != size or tuple(self.depth.shape) != size:
            raise ValueError(
                f"template: colour {tuple(self.color.shape[:2])}, mask {size} and depth "
                f"{tuple(self.depth.shape)} differ in size"
            )
        if not bool(self.mask.any()):
            raise ValueError("template: empty mask, the object covers no pixel")
        if not bool(torch.isfinite(self.depth).all()):
            raise ValueError("template: depth holds NaN or infinity; 0 stands for unknown")

    @property
    def camera(self) -> Camera:
        """The camera of this picture."""
        height, width = self.mask.shape
        return Camera(self.K, width, height)


@dataclass(frozen=True)
class Provenance:
    """Where a card's knowledge comes from; written into ``card.json`` as it is.

    Args:
        kind: ``mesh``, ``photos``, ``mesh+photos`` or ``flat``.
        files: name and SHA-256 of each source file.
        unit: the unit that the source's lengths were read in.
        unit_reason: how that unit was known.
        licence: the licence of the object's data, as the user states it.
    """

    kind: str
    files: dict[str, str] = field(default_factory=dict)
    unit: str = "m"
    unit_reason: str = "given"
    licence: str = "unstated"


@dataclass(frozen=True, eq=False)
class ObjectCard:
    """Everything known of one object: templates, geometry, symmetries and where they come from.

    Args:
        name: the object's name; letters, digits, ``_`` and ``-``.
        templates: its pictures.
        bounds: ``(2, 3)`` float64 corners ``[min, max]`` of its axis-aligned box, metres.
        diameter: the largest distance between two of its points, metres.
        symmetries: rotations and translations that leave its look unchanged.
        mesh: its surface, where there is one.
        provenance: where all this comes from.
        folder: where the card was loaded from or saved to; features are cached there.

    Raises:
        ValueError: no template, a bad name, or a diameter that is not positive.
    """

    name: str
    templates: tuple[Template, ...]
    bounds: Float[Tensor, "2 3"]
    diameter: float
    symmetries: SymmetryGroup
    mesh: TriangleMesh | None = None
    provenance: Provenance = field(default_factory=lambda: Provenance("mesh"))
    folder: Path | None = None

    def __post_init__(self) -> None:
        """Check the name, the size and that there is something to match with."""
        if not self.name or not all(c.isalnum() or c in "_-" for c in self.name):
            raise ValueError(f"card name: expected letters, digits, '_' and '-', got {self.name!r}")
        if not self.templates:
            raise ValueError(f"card {self.name}: expected at least one template, got none")
        if not (math.isfinite(self.diameter) and self.diameter > 0):
            raise ValueError(f"card {self.name}: expected a positive diameter in metres, got {self.diameter}")

    @property
    def center(self) -> Float[Tensor, "3"]:
        """The centre of the object's box, object frame, metres."""
        return self.bounds.mean(0)

    def with_templates(self, *added: Template) -> ObjectCard:
        """The same object with more templates; unsaved, hence without a folder."""
        return replace(self, templates=(*self.templates, *added), folder=None)
