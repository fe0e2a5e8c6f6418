"""Rotary encoding of whole orientations: channel triplets turned by a picture's rotation.

Triplets of queries and keys are multiplied by ``R^T`` of their picture, so that a score holds
``q^T R_i R_j^T k``: the relative rotation alone, whatever frame the object has, and smooth everywhere.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from sightline.nn.rope.planar import angle_dtype


def so3_channels(head_dim: int) -> int:
    """Channels for rotations so that both they and the rest for places divide up: near three eighths.

    Args:
        head_dim: channels of a head, a multiple of 4 and at least 16.

    Returns:
        A multiple of 12, at most half of ``head_dim`` but at least 12.

    Raises:
        ValueError: if no such split exists.

    Example:
        >>> so3_channels(64), so3_channels(32)
        (24, 12)
    """
    if head_dim % 4 or head_dim < 16:
        raise ValueError(f"SO(3) encoding needs a head_dim, a multiple of 4 and at least 16, got {head_dim}")
    return max(12, head_dim // 2 // 12 * 12)


def so3_rope(
    x: Float[Tensor, "*batch n d"],
    rotations: Float[Tensor, "..."],
    channels: int,
    rope_mask: Bool[Tensor, "..."] | None = None,
) -> Float[Tensor, "*batch n d"]:
    """Multiplies the first channels, three at a time, by ``R^T``; the others stay as they are.

    Args:
        x: ``(*batch, n, d)`` or ``(*batch, heads, n, d)`` queries or keys.
        rotations: ``(*batch, n, 3, 3)`` of tokens, or ``(*batch, 1, 3, 3)`` of their pictures.
        channels: how many channels are turned, a multiple of 3.
        rope_mask: ``(*batch, n)``; False leaves a token bit for bit as it is.

    Returns:
        A new tensor like ``x``.

    Raises:
        ValueError: if ``channels`` is no multiple of 3 or more than d.

    Example:
        >>> turn = torch.tensor([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
        >>> so3_rope(torch.tensor([[1.0, 0.0, 0.0, 5.0]]), turn[None], 3)
        tensor([[ 0., -1.,  0.,  5.]])
    """
    if channels % 3 or not 0 <= channels <= x.shape[-1]:
        raise ValueError(f"channels: expected a multiple of 3 up to {x.shape[-1]}, got {channels}")
    if rotations.ndim == x.ndim:
        rotations = rotations.unsqueeze(-4)
    turns = rotations.to(angle_dtype(x.dtype))
    triplets = x[..., :channels].to(turns.dtype).unflatten(-1, (-1, 3))
    # written out, as autocast would round a product of matrices
    first, second, third = triplets[..., None].unbind(-2)
    along, across, up = turns[..., None, :, :].unbind(-2)
    turned = (first * along + second * across + third * up).flatten(-2).to(x.dtype)
    out = torch.cat([turned, x[..., channels:].expand(*turned.shape[:-1], -1)], dim=-1)
    if rope_mask is None:
        return out
    keep = rope_mask[..., None, :, None] if rope_mask.ndim == x.ndim - 2 else rope_mask[..., None]
    return torch.where(keep, out, x)
