"""Mip chains: a texture and its halvings, so that a far surface shows means of texels, not a few of them."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from sightline.rendering.prepared import MipChain
from sightline.rendering.raster_numba import rasterise

_ROWS_AT_A_TIME = 512


def mip_chain(texture: NDArray[np.uint8]) -> MipChain:
    """Halve a texture again and again; each texel is the mean of the area below it.

    Args:
        texture: ``(h, w, 3)`` uint8 RGB.

    Returns:
        The chain of ``floor(log2(max(h, w))) + 1`` levels.

    Example:
        >>> import numpy as np
        >>> mip_chain(np.zeros((4, 6, 3), np.uint8)).levels[:, 1:].tolist()
        [[4, 6], [2, 3], [1, 1]]
    """
    height, width = texture.shape[:2]
    num_levels = max(height, width).bit_length()
    sizes = [(max(height >> level, 1), max(width >> level, 1)) for level in range(num_levels)]
    ends = np.cumsum([3 * h * w for h, w in sizes])
    texels = np.empty(ends[-1], np.uint8)
    pictures = [
        part.reshape(h, w, 3) for part, (h, w) in zip(np.split(texels, ends[:-1]), sizes, strict=True)
    ]
    pictures[0][:] = texture
    for finer, (h, w), coarser in zip(pictures[:-1], sizes[1:], pictures[1:], strict=True):
        cv2.resize(finer, (w, h), dst=coarser, interpolation=cv2.INTER_AREA)
    return MipChain(np.column_stack([[0, *ends[:-1]], sizes]).astype(np.int64), texels)


def fill_unused(texture: NDArray[np.uint8], uv: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Give the texels that no face shows the colour of the nearest that one does.

    An atlas is mostly islands on black; halved often enough, the black would seep into the islands.

    Args:
        texture: ``(h, w, 3)`` uint8 RGB.
        uv: ``(f, 3, 2)`` texture coordinates of the faces, v down. If any lies outside [0, 1] the texture
            tiles, and all of it counts as used.

    Returns:
        ``(h, w, 3)`` uint8 RGB; the texture itself where nothing is unused.

    Example:
        >>> import numpy as np
        >>> texture = np.zeros((4, 4, 3), np.uint8)
        >>> texture[:, :2] = 200
        >>> left_half = np.array([[[0, 0], [0, 1], [0.5, 1]], [[0, 0], [0.5, 1], [0.5, 0]]], np.float32)
        >>> fill_unused(texture, left_half)[0, :, 0].tolist()
        [200, 200, 200, 200]
    """
    if uv.min() < 0.0 or uv.max() > 1.0:
        return texture
    used = _used_texels(uv, texture.shape[0], texture.shape[1])
    if used.all():
        return texture
    source = np.where(used, 0, 1).astype(np.uint8)
    _, label = cv2.distanceTransformWithLabels(
        source, cv2.DIST_L2, cv2.DIST_MASK_5, labelType=cv2.DIST_LABEL_PIXEL
    )
    color_of_label = np.zeros((label.max() + 1, 3), np.uint8)
    color_of_label[label[used]] = texture[used]
    return color_of_label[label]


def _used_texels(uv: NDArray[np.float32], height: int, width: int) -> NDArray[np.bool_]:
    # The renderer draws the atlas flat, one metre before itself: what a triangle covers is used.
    xy = uv.reshape(-1, 2).astype(np.float64) * (width, height) - 0.5
    ones = np.ones(len(xy))
    p = np.column_stack([xy[:, 0], xy[:, 1], ones, xy[:, 0], xy[:, 1]])
    faces = np.arange(len(p), dtype=np.int32).reshape(-1, 3)
    used, shown = np.zeros((height, width), bool), np.zeros(len(faces), bool)
    for first in range(0, height, _ROWS_AT_A_TIME):
        band = used[first : first + _ROWS_AT_A_TIME]
        depth, triangle = np.empty(band.shape), np.empty(band.shape, np.int32)
        rasterise(p, faces, 0.5, first, depth, triangle)
        band[:] = triangle >= 0
        shown[triangle[band]] = True
    # A face may be smaller than a texel, even a point: a swatch of a palette.
    x, y = np.rint(xy.reshape(-1, 3, 2)[~shown].mean(1)).astype(np.int64).T
    used[y.clip(0, height - 1), x.clip(0, width - 1)] = True
    return used
