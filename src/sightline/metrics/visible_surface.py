"""VSD: how far apart the visible surfaces of an object in two poses are, judged from three depth maps.

The caller renders; here are given the observed depth map of the scene and those of the object alone in the
true and in the estimated pose. All are z-depth in metres, 0 where there is nothing (or no measurement).
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

BOP_DELTA = 0.015
"""BOP's tolerance of the visibility test, metres (0.005 for ITODD)."""

BOP_SHARES = tuple(0.05 + 0.05 * index for index in range(10))
"""BOP's ten shares, 0.05 to 0.5: of the diameter for tau and MSSD, of the pixels for VSD itself."""


def distance_from_depth(
    depth: Float[Tensor, "*#batch h w"], K: Float[Tensor, "*#batch 3 3"]
) -> Float[Tensor, "*#batch h w"]:
    """Turn z-depth into distance from the camera's centre: ``d = z |((x - cx) / fx, (y - cy) / fy, 1)|``.

    Args:
        depth: ``(*batch, h, w)`` metres, 0 where there is nothing.
        K: ``(*batch, 3, 3)`` intrinsics, pixels; the pixel at the top left has its centre at (0, 0).

    Returns:
        ``(*batch, h, w)`` metres, 0 where there is nothing.

    Example:
        >>> K = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1]])
        >>> distance_from_depth(torch.tensor([[2.0, 2.0]]), K)
        tensor([[2.0000, 2.8284]])
    """
    height, width = depth.shape[-2:]
    columns = torch.arange(width, dtype=depth.dtype, device=depth.device)
    rows = torch.arange(height, dtype=depth.dtype, device=depth.device)[:, None]
    fx, fy, cx, cy = (K[..., i, j, None, None].to(depth) for i, j in ((0, 0), (1, 1), (0, 2), (1, 2)))
    x, y = (columns - cx) / fx, (rows - cy) / fy
    return torch.sqrt((x * depth).square() + (y * depth).square() + depth.square())


def visible_mask(
    observed: Float[Tensor, "*#batch h w"], surface: Float[Tensor, "*#batch h w"], delta: float = BOP_DELTA
) -> Bool[Tensor, "*#batch h w"]:
    """Where a surface is seen: it is not more than ``delta`` behind what was observed there.

    As BOP since 2019: where the sensor measured nothing, the surface counts as seen.

    Args:
        observed: ``(*batch, h, w)`` distances of the scene, metres, 0 or NaN where not measured.
        surface: ``(*batch, h, w)`` distances of the object, metres, 0 where it is not.
        delta: the tolerance, metres.

    Returns:
        ``(*batch, h, w)`` mask.

    Example:
        >>> observed, surface = torch.tensor([[1.0, 1.0, 0.0, 1.0]]), torch.tensor([[1.01, 1.02, 1.0, 0.0]])
        >>> visible_mask(observed, surface)
        tensor([[ True, False,  True, False]])
    """
    return (surface > 0) & ((surface - observed <= delta) | ~(observed > 0))


def vsd(
    observed: Float[Tensor, "*#batch h w"],
    truth: Float[Tensor, "*#batch h w"],
    estimate: Float[Tensor, "*#batch h w"],
    K: Float[Tensor, "*#batch 3 3"],
    diameter: float | Tensor,
    *,
    delta: float = BOP_DELTA,
    taus: tuple[float, ...] = BOP_SHARES,
) -> Float[Tensor, "*batch t"]:
    """VSD, the visible surface discrepancy, for each of several tolerances.

    The share of the pixels where the object is seen in either pose in which it is not seen in both, or the
    two surfaces are ``tau`` or more apart. Hodan et al., "BOP: Benchmark for 6D object pose estimation", ECCV
    2018, with the visibility of 2019 and distances as shares of the diameter.

    Args:
        observed: ``(*batch, h, w)`` z-depth of the scene, metres, 0 or NaN where not measured.
        truth: ``(*batch, h, w)`` z-depth of the object in the true pose, metres, 0 where it is not.
        estimate: ``(*batch, h, w)`` the same in the estimated pose.
        K: ``(*batch, 3, 3)`` intrinsics, pixels.
        diameter: of the object, metres; a number or ``(*batch,)``.
        delta: tolerance of the visibility test, metres.
        taus: the tolerances, as shares of the diameter.

    Returns:
        ``(*batch, t)`` in [0, 1], float64; 1 where the object is seen in neither pose.

    Example:
        >>> K = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1]])
        >>> truth, estimate = torch.tensor([[1.0, 1.0, 0.0, 0.0]]), torch.tensor([[1.0, 1.0, 1.0, 0.0]])
        >>> vsd(torch.zeros(1, 4), truth, estimate, K, 0.2, taus=(0.1,))
        tensor([0.3333], dtype=torch.float64)
    """
    observed, truth, estimate = (
        distance_from_depth(depth.double(), K) for depth in (observed, truth, estimate)
    )
    seen_true = visible_mask(observed, truth, delta)
    # what hides an estimate there is the object itself: where the true surface is seen, so is the estimated
    # one
    seen_estimate = visible_mask(observed, estimate, delta) | (seen_true & (estimate > 0))
    both, either = seen_true & seen_estimate, seen_true | seen_estimate
    diameter = torch.as_tensor(diameter, dtype=torch.float64, device=truth.device)[..., None, None]
    apart = (truth - estimate).abs() / diameter
    cost = torch.stack([(both & (apart >= tau)).sum((-2, -1)) for tau in taus], -1)
    num_either = either.sum((-2, -1))
    error = (cost + (num_either - both.sum((-2, -1)))[..., None]) / num_either.clamp(min=1)[
        ..., None
    ].double()
    return torch.where(num_either[..., None] > 0, error, 1.0)
