"""RootSIFT features of one picture (Arandjelovic and Zisserman, 2012)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Features:
    """Key points with descriptors.

    Args:
        points: ``(n, 2)`` float64 pixels, the centre of the top-left pixel at (0, 0).
        scales: ``(n,)`` float64 diameter of the described region's core, pixels.
        angles: ``(n,)`` float64 radians, x towards y.
        descriptors: ``(n, 128)`` float32 of unit length; their dot product is the Hellinger similarity.
    """

    points: Float[Tensor, "n 2"]
    scales: Float[Tensor, " n"]
    angles: Float[Tensor, " n"]
    descriptors: Float[Tensor, "n 128"]

    def __len__(self) -> int:
        return len(self.points)

    def select(self, keep: Tensor) -> Features:
        """The features that a bool mask or an index tensor selects."""
        return Features(self.points[keep], self.scales[keep], self.angles[keep], self.descriptors[keep])


def extract_features(
    image: NDArray[np.uint8], *, max_features: int = 4000, contrast: float = 0.015
) -> Features:
    """Find and describe key points.

    Args:
        image: ``(h, w, 3)`` uint8 RGB.
        max_features: keep the strongest this many.
        contrast: the lowest difference-of-Gaussians response kept, as in Lowe's paper (there 0.03).

    Returns:
        The features; none for a picture without texture.

    Example:
        >>> import numpy as np
        >>> len(extract_features(np.zeros((64, 64, 3), np.uint8)))
        0
    """
    import cv2

    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    # precise upscale: without it the first octave is a quarter pixel off
    detector = cv2.SIFT_create(
        nfeatures=max_features, contrastThreshold=contrast, enable_precise_upscale=True
    )
    keypoints, raw = detector.detectAndCompute(grey, None)
    if raw is None or len(keypoints) == 0:
        return _empty()
    values = np.array([(*k.pt, k.size, k.angle) for k in keypoints], dtype=np.float64)
    root = np.sqrt(raw / np.maximum(raw.sum(1, keepdims=True), 1e-12))
    table = torch.from_numpy(values)
    return Features(table[:, :2], table[:, 2], table[:, 3].deg2rad(), torch.from_numpy(root).float())


def _empty() -> Features:
    none = torch.zeros(0, dtype=torch.float64)
    return Features(none.reshape(0, 2), none, none, torch.zeros(0, 128))
