"""Sprites on a canvas: turned, scaled to a wanted box, blended, and what of them stays visible."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Bool, Float32, UInt8

_HALF = 128


@dataclass(frozen=True, eq=False)
class Patch:
    """A sprite as it will be pasted, cut to its silhouette.

    Args:
        layers: ``(h, w, 4)`` uint8 RGBA, colours multiplied by alpha.
        solid: ``(h, w)`` bool, the pixels of the silhouette.
    """

    layers: UInt8[np.ndarray, "h w 4"]
    solid: Bool[np.ndarray, "h w"]

    @property
    def size(self) -> tuple[int, int]:
        """``(width, height)`` of the silhouette, pixels."""
        return self.solid.shape[1], self.solid.shape[0]


def make_patch(
    sprite: UInt8[np.ndarray, "s s 4"], size_px: float, angle: float, *, mirrored: bool = False
) -> Patch | None:
    """Turn a sprite and scale it so that the longer side of its silhouette's box has a wanted length.

    Args:
        sprite: ``(s, s, 4)`` uint8 RGBA, colours multiplied by alpha.
        size_px: length of the longer side, pixels.
        angle: radians, from the x axis towards the y axis.
        mirrored: whether left and right are swapped before the turn.

    Returns:
        The patch; None where no pixel is left of the silhouette.

    Example:
        >>> sprite = np.zeros((32, 32, 4), np.uint8)
        >>> sprite[8:24, 4:28] = 255
        >>> make_patch(sprite, 12, 0.0).size, make_patch(sprite, 12, np.pi / 2).size
        ((12, 8), (8, 12))
    """
    outlines, _ = cv2.findContours(
        (sprite[..., 3] >= _HALF).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE
    )
    if not outlines:
        return None
    points = np.concatenate(outlines)[:, 0].astype(np.float64)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    if mirrored:
        turn[:, 0] *= -1
    spread = points @ turn.T
    low, high = spread.min(0), spread.max(0)
    scale = size_px / (high - low + 1).max()  # outlines run through the centres of their pixels
    width, height = np.maximum(np.ceil((high - low + 1) * scale).astype(int) + 2, 3)
    affine = np.column_stack([scale * turn, (np.array([width, height]) - 1) / 2 - scale * (low + high) / 2])
    layers = cv2.warpAffine(
        *_reduced(sprite, affine, scale), (int(width), int(height)), flags=cv2.INTER_LINEAR
    )
    return cut_patch(layers)


def _reduced(sprite: np.ndarray, affine: np.ndarray, scale: float) -> tuple[np.ndarray, np.ndarray]:
    """Average whole blocks of texels before interpolation shrinks the rest, by less than a factor of two."""
    block = int(1.0 / scale)
    if block < 2:
        return sprite, affine
    side = -(-sprite.shape[0] // block)
    padded = cv2.copyMakeBorder(
        sprite, 0, side * block - sprite.shape[0], 0, side * block - sprite.shape[1], cv2.BORDER_CONSTANT
    )
    smaller = cv2.resize(padded, (side, side), interpolation=cv2.INTER_AREA)
    linear = affine[:, :2] * block
    return smaller, np.column_stack([linear, affine[:, 2] + affine[:, :2].sum(1) * (block - 1) / 2])


def cut_patch(layers: UInt8[np.ndarray, "h w 4"]) -> Patch | None:
    """Cut empty borders off.

    Args:
        layers: ``(h, w, 4)`` uint8 RGBA, colours multiplied by alpha.

    Returns:
        The patch; None where alpha is nowhere half.

    Example:
        >>> layers = np.zeros((8, 8, 4), np.uint8)
        >>> layers[2:5, 3:4] = 255
        >>> cut_patch(layers).size
        (1, 3)
    """
    solid = layers[..., 3] >= _HALF
    rows, columns = np.flatnonzero(solid.any(1)), np.flatnonzero(solid.any(0))
    if not len(rows):
        return None
    where = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
    return Patch(layers[where], solid[where])


def overlap(
    corner: tuple[int, int], size: tuple[int, int], frame: tuple[int, int]
) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Where a rectangle lies in a frame, and which part of it does: (rows, columns) of both.

    Args:
        corner: ``(x, y)`` of the rectangle's first pixel in the frame.
        size: ``(width, height)`` of the rectangle.
        frame: ``(width, height)`` of the frame.

    Returns:
        Slices of the frame, and of the rectangle; empty where they do not meet.

    Example:
        >>> overlap((-2, 3), (5, 4), (10, 5))
        ((slice(3, 5, None), slice(0, 3, None)), (slice(0, 2, None), slice(2, 5, None)))
    """
    ends = [(max(0, c), max(0, c, min(f, c + s))) for c, s, f in zip(corner, size, frame, strict=True)]
    (x1, x2), (y1, y2) = ends
    inner = (slice(y1 - corner[1], y2 - corner[1]), slice(x1 - corner[0], x2 - corner[0]))
    return (slice(y1, y2), slice(x1, x2)), inner


def blend(
    canvas: Float32[np.ndarray, "h w 3"],
    patch: Patch,
    corner: tuple[int, int],
    *,
    gain: float = 1.0,
    channels: tuple[int, int, int] = (0, 1, 2),
) -> None:
    """Lay a patch over a canvas, in place.

    Args:
        canvas: ``(h, w, 3)`` float32 RGB, 0 to 255.
        patch: what is laid.
        corner: ``(x, y)`` of its first pixel; it may leave the canvas.
        gain: factor on its brightness.
        channels: which of its channels become red, green and blue.
    """
    where, part = overlap(corner, patch.size, (canvas.shape[1], canvas.shape[0]))
    layers = patch.layers[part].astype(np.float32)
    under = canvas[where]
    under *= 1.0 - layers[..., 3:] * np.float32(1 / 255)
    colors = layers[..., :3] if channels == (0, 1, 2) else layers[..., list(channels)]
    under += colors * np.float32(gain)


def darken(
    canvas: Float32[np.ndarray, "h w 3"],
    patch: Patch,
    corner: tuple[int, int],
    *,
    strength: float,
    softness: float,
) -> None:
    """Lay the soft shadow of a patch over a canvas, in place.

    Args:
        canvas: ``(h, w, 3)`` float32 RGB.
        patch: whose silhouette throws it.
        corner: ``(x, y)`` where the shadow of its first pixel falls.
        strength: share of light that the shadow takes away.
        softness: width of its edge, pixels.
    """
    spare = int(np.ceil(2 * softness))
    shade = cv2.copyMakeBorder(patch.layers[..., 3], spare, spare, spare, spare, cv2.BORDER_CONSTANT)
    shade = cv2.blur(shade, (spare + 1, spare + 1))
    place = (corner[0] - spare, corner[1] - spare)
    where, part = overlap(place, (shade.shape[1], shade.shape[0]), (canvas.shape[1], canvas.shape[0]))
    canvas[where] *= 1.0 - np.float32(strength / 255) * shade[part].astype(np.float32)[..., None]
