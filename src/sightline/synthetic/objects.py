"""Procedural objects: a body, a skin and the symmetry that both leave, all from a seed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np
import torch
from torch import Tensor

from sightline.geometry.symmetry import SymmetryGroup
from sightline.records import TriangleMesh
from sightline.rendering import PreparedMesh
from sightline.synthetic import labels
from sightline.synthetic.bodies import BODIES, Body
from sightline.synthetic.labels import Palette
from sightline.synthetic.shapes import Panel
from sightline.synthetic.textures import (
    Painter,
    bands,
    brushed,
    large_shapes,
    paint_atlas,
    patches,
    plain,
    tones,
)

OBJECT_KINDS: tuple[str, ...] = tuple(BODIES)
_STEEL = (176, 178, 182)
_TEXELS = {"rich": 400, "low": 240}


@dataclass(frozen=True, eq=False)
class SyntheticObject:
    """An object made from seeds, with what is known about it by construction.

    Args:
        name: unique for its making: kind, texture, seed and, for a look-alike, the label's seed.
        mesh: metres, origin in the middle of the bounding box, z up, with one texture; faces look outwards.
        symmetries: rotations about the object's frame under which shape *and* colours stay the same.
        kind: one of ``OBJECT_KINDS``.
        texture: ``"rich"`` in corners, or ``"low"``: a few plain colours.
        seed: of shape and palette.
        label_seed: of what is printed on it.

    Example:
        >>> make_object("mug", 3).name
        'mug-rich-3'
    """

    name: str
    mesh: TriangleMesh
    symmetries: SymmetryGroup
    kind: str
    texture: str
    seed: int
    label_seed: int

    @cached_property
    def prepared(self) -> PreparedMesh:
        """The mesh with what drawing it again and again needs."""
        return PreparedMesh(self.mesh)


def make_object(
    kind: str, seed: int, *, texture: str = "rich", label_seed: int | None = None
) -> SyntheticObject:
    """Make one object; the same arguments give the same bytes.

    Args:
        kind: one of ``OBJECT_KINDS``.
        seed: of shape and palette, at least 0.
        texture: ``"rich"`` prints labels or mosaics, ``"low"`` paints one or two plain colours with few large
            shapes at most.
        label_seed: of the print; another one than ``seed`` (the default) gives a look-alike.

    Returns:
        The object, 5 to 30 cm large.

    Raises:
        ValueError: an unknown kind or texture.

    Example:
        >>> can = make_object("can", 0)
        >>> round(can.mesh.diameter, 2), can.symmetries.axis is None
        (0.1, True)
    """
    if kind not in BODIES:
        raise ValueError(f"kind: expected one of {', '.join(OBJECT_KINDS)}; got {kind!r}")
    if texture not in ("rich", "low"):
        raise ValueError(f"texture: expected 'rich' or 'low', got {texture!r}")
    print_seed = seed if label_seed is None else label_seed
    place = OBJECT_KINDS.index(kind)
    shape_rng = np.random.default_rng([seed, place, 0])
    print_rng = np.random.default_rng([print_seed, place, 1, texture == "rich"])
    palette = labels.make_palette(shape_rng)
    body = BODIES[kind](shape_rng)
    if texture == "rich":
        painters, symmetric = _rich_skin(body, palette, print_rng), False
    else:
        painters, symmetric = _low_skin(body, palette, print_rng)
    uv, picture = paint_atlas(body.surface, painters, texels=_TEXELS[texture])
    mesh = TriangleMesh(
        torch.from_numpy(np.ascontiguousarray(body.surface.centred().vertices)),
        torch.from_numpy(np.ascontiguousarray(body.surface.faces)),
        uv=torch.from_numpy(uv),
        texture=torch.from_numpy(picture),
    )
    name = f"{kind}-{texture}-{seed}" + (f"-as-{print_seed}" if print_seed != seed else "")
    symmetries = body.symmetry if symmetric else SymmetryGroup.none()
    return SyntheticObject(name, mesh, symmetries, kind, texture, seed, print_seed)


def make_lookalike(original: SyntheticObject, label_seed: int) -> SyntheticObject:
    """The same shape and palette with another print: what must not be taken for the original.

    Args:
        original: what it looks like.
        label_seed: of the print; the next one that prints something else is taken.

    Returns:
        An object whose texture differs from the original's.

    Example:
        >>> make_lookalike(make_object("box", 1), 8).name
        'box-rich-1-as-8'
    """
    while True:
        other = make_object(original.kind, original.seed, texture=original.texture, label_seed=label_seed)
        if not _same_print(original.mesh.texture, other.mesh.texture):
            return other
        label_seed += 1


def _same_print(first: Tensor | None, second: Tensor | None) -> bool:
    if first is None or second is None:
        raise ValueError("texture: expected objects of this module, which all have one")
    return float((first.float() - second.float()).abs().mean()) < 4.0


def _rich_skin(body: Body, palette: Palette, rng: np.random.Generator) -> list[Painter]:
    if body.solid:
        mosaic = patches(palette, body.surface.vertices, rng)
        return [mosaic] * len(body.surface.panels)
    size = float(np.ptp(body.surface.vertices, axis=0).max())
    word = labels.make_word(rng, int(rng.integers(2, 4)))
    printed: dict[str, Callable] = {
        "front": labels.paint_front,
        "back": labels.paint_front,
        "left": labels.paint_back,
        "right": labels.paint_back,
        "top": labels.paint_lid,
        "bottom": labels.paint_lid,
        "label": labels.paint_wrap,
        "flange": labels.paint_lid,
        "lid": partial(_paint_tin, rng=rng, palette=palette),
        "base": partial(_paint_tin, rng=rng, palette=palette),
    }
    tint = {"cap": palette.accent, "rim": palette.light, "handle": palette.second, "hole": palette.dark}
    painters: list[Painter] = []
    for panel in body.surface.panels:
        if panel.name in ("lid", "base"):
            painters.append(printed[panel.name])
        elif panel.name in printed and min(panel.width, panel.height) > 0.12 * size:
            painters.append(_printing(printed[panel.name], rng, palette, word))
        elif panel.name == "metal":
            painters.append(brushed(_STEEL, rng))
        elif panel.name == "side":
            painters.append(patches(palette, body.surface.vertices, rng))
        else:
            painters.append(plain(tint.get(panel.name, palette.ground)))
    return painters


def _printing(painter: Callable, rng: np.random.Generator, palette: Palette, word: str) -> Painter:
    def paint(image: np.ndarray, panel: Panel) -> None:
        painter(image, rng, palette, word)

    return paint


def _paint_tin(image: np.ndarray, panel: Panel, *, rng: np.random.Generator, palette: Palette) -> None:
    """A lid of sheet metal with a printed disc and a stamped date."""
    brushed(_STEEL, rng, amount=5.0)(image, panel)
    height, width = image.shape[:2]
    middle = image[height // 5 : height - height // 5, width // 5 : width - width // 5]
    labels.paint_logo(middle, rng, palette)
    labels.paint_text(image[int(0.82 * height) :, width // 4 : 3 * width // 4], rng, palette.dark, 2)


def _low_skin(body: Body, palette: Palette, rng: np.random.Generator) -> tuple[list[Painter], bool]:
    """Painters, and whether the body's own symmetry survives them."""
    panels = body.surface.panels
    size = float(np.ptp(body.surface.vertices, axis=0).max())
    order = rng.permutation(3)
    main, other, third = tuple(palette.shades()[index] for index in order)
    if body.solid:
        skin = plain(main) if rng.uniform() < 0.4 else tones((main, other), size, rng)
        return [skin] * len(panels), False
    parts = {"top", "bottom", "lid", "base", "cap", "rim", "inside", "handle", "metal", "boss", "flange"}
    colors = dict.fromkeys(parts, other) | {"hole": palette.dark}
    if rng.uniform() < 0.4:
        return [plain(colors.get(panel.name, main)) for panel in panels], True
    marked: dict[str, Painter] = {
        name: large_shapes((main, third), rng, count=1) for name in ("front", "left")
    }
    marked["right"] = large_shapes((main, third, palette.light), rng, count=2)
    marked["label"] = (bands if rng.uniform() < 0.5 else large_shapes)((main, third, palette.light), rng)
    marked["top"] = large_shapes((other, third), rng, count=1)
    return [marked.get(panel.name) or plain(colors.get(panel.name, main)) for panel in panels], False
