"""Exact Euclidean distances of masks, where the tensor lies: compiled on the CPU, batched torch elsewhere."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from jaxtyping import Float, Shaped
from torch import Tensor
from torch.nn import functional

from sightline.depth_scale.batches import as_maps

DistanceConvention = Literal["symmetric", "kervadec"]
"""Where :func:`signed_distance` has its zero."""

_MOST_CANDIDATES = 1 << 24  # held at once by the torch form: 64 MB


def distance_transform(mask: Shaped[Tensor, "..."]) -> Float[Tensor, "b 1 h w"]:
    """The distance of each pixel of a mask to the nearest pixel that is not in it, centre to centre.

    Args:
        mask: ``(H, W)``, ``(B, H, W)`` or ``(B, 1, H, W)``; inside is True or above one half.

    Returns:
        ``(B, 1, H, W)`` float32 pixels, 0 outside; 0 everywhere for a mask that covers its whole map, which
        has nothing to be distant from. What lies beyond the map counts for nothing.

    Raises:
        ValueError: a shape that is no mask.

    Example:
        >>> distance_transform(torch.tensor([[0, 1, 1, 1]])).tolist()
        [[[[0.0, 1.0, 2.0, 3.0]]]]
    """
    phi = signed_distance(mask)
    return torch.where(phi < 0, 0.5 - phi, 0.0)


def signed_distance(
    mask: Shaped[Tensor, "..."], *, convention: DistanceConvention = "symmetric", normalise: bool = False
) -> Float[Tensor, "b 1 h w"]:
    r"""The distance to a mask's border, negative inside: the phi of a boundary loss.

    With EDT the distance to the nearest pixel of the other kind, ``symmetric`` is EDT - 1/2 outside and
    1/2 - EDT inside: the border runs between the pixels, and a mask and its complement differ in sign alone.
    ``kervadec`` is the published form, EDT outside and 1 - EDT inside (Kervadec et al., "Boundary loss for
    highly unbalanced segmentation", 2019): half a pixel more everywhere, 0 on the mask's outermost pixels.

    Args:
        mask: ``(H, W)``, ``(B, H, W)`` or ``(B, 1, H, W)``; inside is True or above one half.
        convention: where the zero lies.
        normalise: divide each map by its greatest absolute value.

    Returns:
        ``(B, 1, H, W)`` float32 pixels, without gradient. 0 everywhere for an empty or a full mask, which
        has no border; any other mask is positive somewhere.

    Raises:
        ValueError: an unknown convention, or a shape that is no mask.

    Example:
        >>> row = torch.tensor([[0, 0, 1, 1]])
        >>> signed_distance(row).tolist(), signed_distance(row, convention="kervadec").tolist()
        ([[[[1.5, 0.5, -0.5, -1.5]]]], [[[[2.0, 1.0, 0.0, -1.0]]]])
    """
    if convention not in get_args(DistanceConvention):
        known = ", ".join(get_args(DistanceConvention))
        raise ValueError(f"convention: expected one of {known}, got {convention!r}")
    maps = as_maps(mask, "mask").detach()[:, 0]
    phi = _compiled(maps) if maps.device.type == "cpu" else signed_distance_torch(maps)
    if convention == "kervadec":
        phi = torch.where(phi != 0, phi + 0.5, 0.0)
    if normalise:
        phi = phi / phi.abs().amax((1, 2), keepdim=True).clamp_min(torch.finfo(phi.dtype).tiny)
    return phi[:, None]


def _compiled(masks: Float[Tensor, "n h w"]) -> Float[Tensor, "n h w"]:
    from sightline.depth_scale.distance_numba import fill_signed_distance

    out = torch.empty(masks.shape, dtype=torch.float32)
    fill_signed_distance(masks.contiguous().numpy(), out.numpy())
    return out


@torch.no_grad()
def signed_distance_torch(masks: Float[Tensor, "n h w"]) -> Float[Tensor, "n h w"]:
    """The symmetric :func:`signed_distance` in operations that run on any device and read no value back.

    Columns by running maxima of the places where the mask changes; rows by the least of ``(x - q)^2 +
    steps(q)^2`` over all q, where a q of the other kind has no steps to go.

    Args:
        masks: ``(n, H, W)``, inside above one half.

    Returns:
        ``(n, H, W)`` float32 pixels, 0 in maps that hold one kind only.

    Example:
        >>> signed_distance_torch(torch.tensor([[[1.0, 1.0, 0.0]]])).tolist()
        [[[-1.5, -0.5, 0.5]]]
    """
    inside = masks > 0.5
    _, height, width = inside.shape
    row = torch.arange(height, dtype=torch.float32, device=inside.device)[:, None]
    changes = inside[:, 1:] != inside[:, :-1]
    # The first row of the run that a pixel is in, and the first one below that run.
    first = functional.pad(torch.where(changes, row[1:], -torch.inf), (0, 0, 1, 0), value=-torch.inf)
    below = functional.pad(torch.where(changes, row[1:], torch.inf), (0, 0, 0, 1), value=torch.inf)
    up = row - first.cummax(-2).values + 1
    down = below.flip(-2).cummin(-2).values.flip(-2) - row
    kind = 2.0 * inside.float() - 1.0
    steps = kind * torch.minimum(up, down).square()
    column = torch.arange(width, dtype=torch.float32, device=inside.device)
    across = (column[:, None] - column).square()
    size = max(1, _MOST_CANDIDATES // max(inside.numel(), 1))
    least = [
        (kind[:, :, x : x + size, None] * steps[:, :, None])
        .clamp_min_(0.0)
        .add_(across[x : x + size])
        .amin(-1)
        for x in range(0, width, size)
    ]
    # A map without a border is infinitely far from it, which becomes 0.
    return (kind * (0.5 - torch.cat(least, -1).sqrt_())).nan_to_num_(0.0, 0.0, 0.0)
