"""Depth as a 16-bit PNG whose unit is chosen so that the farthest pixel uses the full range."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from sightline.formats.images import read_depth, write_depth

_FULL_RANGE = 65535


def write_scaled_depth(path: Path, depth: Float[Tensor, "h w"]) -> float:
    """Write metres and return the unit in metres that one grey level stands for (1e-5 m at 0.6 m)."""
    unit_m = max(float(depth.max()), 1e-6) / _FULL_RANGE
    write_depth(path, depth.numpy().astype(np.float32), depth_scale_mm=unit_m * 1000.0)
    return unit_m


def read_scaled_depth(path: Path, unit_m: float) -> Float[Tensor, "h w"]:
    """Read what ``write_scaled_depth`` wrote, metres as float32."""
    return torch.from_numpy(read_depth(path, depth_scale_mm=unit_m * 1000.0))
