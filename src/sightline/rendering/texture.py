"""Mip chains: a texture and its halvings, so that a far surface shows means of texels and not a few of them."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray


def mip_chain(texture: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
    """The texture, its half, its quarter, down to one texel; each texel is the mean of the area below it.

    Args:
        texture: ``(h, w, 3)`` uint8 RGB.

    Returns:
        ``floor(log2(max(h, w))) + 1`` pictures, each half as wide and high as the one before (at least 1).

    Example:
        >>> import numpy as np
        >>> [level.shape[:2] for level in mip_chain(np.zeros((4, 6, 3), np.uint8))]
        [(4, 6), (2, 3), (1, 1)]
    """
    levels = [np.ascontiguousarray(texture)]
    while max(levels[-1].shape[:2]) > 1:
        height, width = levels[-1].shape[:2]
        half = (max(width // 2, 1), max(height // 2, 1))
        levels.append(cv2.resize(levels[-1], half, interpolation=cv2.INTER_AREA))
    return levels
