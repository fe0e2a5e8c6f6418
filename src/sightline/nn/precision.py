"""Numbers wide enough to add up."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def at_least_float32(x: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
    """Half precision becomes float32; what is wider stays as it is.

    Args:
        x: numbers of any precision.

    Example:
        >>> at_least_float32(torch.ones(2, dtype=torch.bfloat16)).dtype
        torch.float32
        >>> at_least_float32(torch.ones(2, dtype=torch.float64)).dtype
        torch.float64
    """
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
