"""Pictures as networks take them, and the statistics of ImageNet by which they normalise them."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def float_picture(image: UInt8[np.ndarray, "h w 3"]) -> Float[Tensor, "3 h w"]:
    """A picture as networks take it, RGB in [0, 1].

    Example:
        >>> float_picture(np.full((2, 3, 3), 255, np.uint8)).shape
        torch.Size([3, 2, 3])
    """
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))).float().div_(255)
