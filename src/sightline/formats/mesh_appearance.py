"""Colours of mesh files brought to one source: vertex colours, or one texture for all parts.

A file may hold several parts, each with its own texture, plain colour, face or vertex colours; a
:class:`~sightline.records.TriangleMesh` holds one source. Several textures are stacked into one picture,
repeating ones are laid out, and plain parts get a swatch in it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Int, UInt8

if TYPE_CHECKING:
    import trimesh

_UV_SLACK = 1e-4  # exporters overshoot [0, 1] by rounding
_MAX_TEXELS = 100_000_000
_GUTTER_PX = 8  # repeated edges around a stacked texture, so that filtering does not bleed
_SWATCH_PX = 4
_PLAIN = np.full(3, 0.7, dtype=np.float32)


@dataclass(frozen=True, eq=False)
class Part:
    """One piece of a mesh file with at most one of vertex colours and texture.

    Args:
        vertices: ``(v, 3)`` float64, in the unit of the file.
        faces: ``(f, 3)`` int64.
        colors: ``(v, 3)`` float32 RGB in [0, 1].
        uv: ``(f, 3, 2)`` float64, v down; any range, repeating.
        texture: ``(h, w, 3)`` uint8 RGB.
    """

    vertices: Float[np.ndarray, "v 3"]
    faces: Int[np.ndarray, "f 3"]
    colors: Float[np.ndarray, "v 3"] | None = None
    uv: Float[np.ndarray, "f 3 2"] | None = None
    texture: UInt8[np.ndarray, "h w 3"] | None = None


def part_from_trimesh(geometry: trimesh.Trimesh, part_to_file: np.ndarray, *, colors: bool = True) -> Part:
    """Take a trimesh geometry apart, moved to the file's frame.

    Args:
        geometry: a mesh with at least one face.
        part_to_file: ``(4, 4)`` transform of the scene graph; a mirroring one turns the faces over.
        colors: whether to keep colours and texture.

    Returns:
        The part.
    """
    vertices = np.asarray(geometry.vertices, np.float64) @ part_to_file[:3, :3].T + part_to_file[:3, 3]
    faces = np.asarray(geometry.faces, np.int64)
    part = _colored(Part(vertices, faces), geometry.visual) if colors else Part(vertices, faces)
    if np.linalg.det(part_to_file[:3, :3]) < 0:
        uv = None if part.uv is None else part.uv[:, ::-1]
        part = replace(part, faces=part.faces[:, ::-1], uv=uv)
    return part


def _colored(part: Part, visual: Any) -> Part:  # noqa: ANN401  # one of trimesh's, told apart by kind
    if visual.kind == "vertex":
        return replace(part, colors=_unit_rgb(visual.vertex_colors))
    if visual.kind == "face":
        corners = part.vertices[part.faces].reshape(-1, 3)
        own = np.arange(len(corners)).reshape(-1, 3)
        return Part(corners, own, np.repeat(_unit_rgb(visual.face_colors), 3, axis=0))
    if visual.kind == "texture":
        return _textured(part, visual.uv, visual.material)
    return part


def _textured(part: Part, uv: np.ndarray | None, material: object) -> Part:
    picture = getattr(material, "baseColorTexture", None) or getattr(material, "image", None)
    factor = getattr(material, "baseColorFactor", None)
    # A picture that trimesh made up for want of one was never decoded from a format.
    if picture is not None and picture.format and uv is not None:
        texture = np.array(picture.convert("RGB"))
        if factor is not None:
            texture = _multiply_linear(texture, _unit_rgb(factor))
        corner_uv = np.asarray(uv, np.float64)[part.faces] * (1.0, -1.0) + (0.0, 1.0)
        return replace(part, uv=corner_uv, texture=texture)
    if factor is not None:
        plain = _srgb_from_linear(_unit_rgb(factor))
    elif picture is None and hasattr(material, "diffuse"):
        plain = _unit_rgb(material.diffuse)
    else:
        return part
    return replace(part, colors=np.tile(plain, (len(part.vertices), 1)))


def _unit_rgb(rgba: object) -> Float[np.ndarray, "... 3"]:
    values = np.asarray(rgba)
    scale = 255.0 if np.issubdtype(values.dtype, np.integer) else 1.0
    return (values[..., :3] / scale).astype(np.float32)


def _srgb_from_linear(linear: np.ndarray) -> np.ndarray:
    # IEC 61966-2-1; glTF keeps factors linear and pictures in sRGB.
    curved = 1.055 * np.maximum(linear, 0.0031308) ** (1 / 2.4) - 0.055
    return np.where(linear <= 0.0031308, 12.92 * linear, curved).astype(np.float32)


def _linear_from_srgb(srgb: np.ndarray) -> np.ndarray:
    return np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)


def _multiply_linear(texture: UInt8[np.ndarray, "h w 3"], factor: np.ndarray) -> UInt8[np.ndarray, "h w 3"]:
    if (factor >= 1.0).all():
        return texture
    steps = _linear_from_srgb(np.arange(256) / 255.0)
    table = np.rint(255.0 * _srgb_from_linear(steps[:, None] * factor)).astype(np.uint8)
    return np.stack([table[texture[..., c], c] for c in range(3)], axis=-1)


def merge_parts(parts: list[Part]) -> Part:
    """Join parts into one with a single colour source.

    Args:
        parts: at least one.

    Returns:
        One part: textured when any part is, else with vertex colours when any part has them. Its uv lie in
        [0, 1].

    Raises:
        ValueError: the textures, laid out as often as they repeat, are too large.
    """
    firsts = np.cumsum([0, *(len(part.vertices) for part in parts)])
    vertices = np.concatenate([part.vertices for part in parts])
    faces = np.concatenate([part.faces + first for part, first in zip(parts, firsts, strict=False)])
    if any(part.texture is not None for part in parts):
        uv, texture = _stack_textures([_laid_out(part) for part in parts])
        return Part(vertices, faces, uv=uv, texture=texture)
    if any(part.colors is not None for part in parts):
        colors = [np.tile(_PLAIN, (len(p.vertices), 1)) if p.colors is None else p.colors for p in parts]
        return Part(vertices, faces, np.concatenate(colors))
    return Part(vertices, faces)


def _laid_out(part: Part) -> Part:
    """The part with uv in [0, 1]: a texture that repeats within a face is tiled as often as it must."""
    if part.texture is None or part.uv is None:
        return _swatched(part)
    uv = part.uv - np.floor(part.uv.min(axis=1, keepdims=True) + _UV_SLACK)
    across, down = (int(count) for count in np.maximum(np.ceil(uv.max(axis=(0, 1)) - _UV_SLACK), 1))
    if across * down * part.texture.size > 3 * _MAX_TEXELS:
        raise ValueError(f"the texture repeats {across} x {down} times, too often to be laid out")
    texture = np.tile(part.texture, (down, across, 1))
    return replace(part, uv=np.clip(uv / (across, down), 0.0, 1.0), texture=texture)


def _swatched(part: Part) -> Part:
    """The part with a texture that holds the mean colour of each face as a small square."""
    corners = _PLAIN[None, None] if part.colors is None else part.colors[part.faces]
    rgb = np.rint(255.0 * corners.mean(axis=1)).astype(np.uint8)
    palette, which = np.unique(rgb, axis=0, return_inverse=True)
    side = int(np.ceil(np.sqrt(len(palette))))
    cells = np.zeros((side * side, 3), np.uint8)
    cells[: len(palette)] = palette
    texture = cells.reshape(side, side, 3).repeat(_SWATCH_PX, axis=0).repeat(_SWATCH_PX, axis=1)
    centres = (np.stack([which.reshape(-1) % side, which.reshape(-1) // side], axis=-1) + 0.5) / side
    uv = np.broadcast_to(centres[:, None], (len(part.faces), 3, 2))
    return replace(part, colors=None, uv=uv, texture=texture)


def _stack_textures(parts: list[Part]) -> tuple[Float[np.ndarray, "f 3 2"], UInt8[np.ndarray, "h w 3"]]:
    pictures: list[np.ndarray] = []
    slots: list[int] = []
    for part in parts:
        assert part.texture is not None
        same = (i for i, seen in enumerate(pictures) if np.array_equal(seen, part.texture))
        slots.append(next(same, len(pictures)))
        if slots[-1] == len(pictures):
            pictures.append(part.texture)
    if len(pictures) == 1:
        return np.concatenate([part.uv for part in parts if part.uv is not None]), pictures[0]
    heights = [picture.shape[0] + 2 * _GUTTER_PX for picture in pictures]
    tops = np.cumsum([0, *heights])
    width = max(picture.shape[1] for picture in pictures) + 2 * _GUTTER_PX
    if int(tops[-1]) * width > _MAX_TEXELS:
        raise ValueError(f"the {len(pictures)} textures are too large for one of {width} x {tops[-1]}")
    atlas = np.zeros((int(tops[-1]), width, 3), np.uint8)
    for picture, top, height in zip(pictures, tops, heights, strict=False):
        gutter = ((_GUTTER_PX, _GUTTER_PX), (_GUTTER_PX, _GUTTER_PX), (0, 0))
        atlas[top : top + height, : picture.shape[1] + 2 * _GUTTER_PX] = np.pad(picture, gutter, mode="edge")
    moved = []
    for part, slot in zip(parts, slots, strict=True):
        assert part.uv is not None
        size = np.array(pictures[slot].shape[1::-1])
        corner = np.array([_GUTTER_PX, tops[slot] + _GUTTER_PX])
        moved.append((part.uv * size + corner) / (width, int(tops[-1])))
    return np.concatenate(moved), atlas
