"""The one table of tolerances: what is near enough, by dtype and kind of operation."""

from __future__ import annotations

import torch

_TABLE = {
    # operation: (float64, float32)
    "exact": (0.0, 0.0),
    "closed_form": (1e-12, 1e-5),  # a handful of additions and multiplications
    "iterative": (1e-9, 1e-4),  # Newton, Levenberg-Marquardt, eigenvectors
    "pixel": (1e-6, 1e-3),  # a pixel position after projection
}


def tolerance(dtype: torch.dtype, operation: str = "closed_form") -> dict[str, float]:
    """Keyword arguments for ``torch.testing.assert_close`` or ``torch.allclose``."""
    double, single = _TABLE[operation]
    bound = double if dtype == torch.float64 else single
    return {"rtol": bound, "atol": bound}
