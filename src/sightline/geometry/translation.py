"""An object's translation from where its centre is seen and how deep it lies; corrected intrinsics."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from sightline.geometry.cameras import unproject


class Translation(NamedTuple):
    """``t`` in metres, camera frame; NaN with zero gradient where ``valid`` is False."""

    t: Float[Tensor, "*batch 3"]
    valid: Bool[Tensor, "*batch"]


def correct_intrinsics(
    K: Float[Tensor, "... 3 3"], k_delta: Float[Tensor, "... 4"]
) -> Float[Tensor, "... 3 3"]:
    """Apply a predicted correction: ``fx (1 + d_fx), fy (1 + d_fy), cx + d_cx, cy + d_cy``.

    Args:
        K: ``(*batch, 3, 3)`` pixels.
        k_delta: ``(*batch, 4)`` d_fx and d_fy relative, d_cx and d_cy in pixels.

    Returns:
        ``(*batch, 3, 3)`` pixels; the skew stays.

    Example:
        >>> K = torch.tensor([[600.0, 0, 320], [0, 500, 240], [0, 0, 1]])
        >>> correct_intrinsics(K, torch.tensor([0.05, -0.02, 4.0, -3.0]))
        tensor([[630.,   0., 324.],
                [  0., 490., 237.],
                [  0.,   0.,   1.]])
    """
    d_fx, d_fy, d_cx, d_cy = k_delta.to(K).unbind(-1)
    zero = torch.zeros_like(d_fx)
    factors = torch.stack([1 + d_fx, zero + 1, zero + 1, zero + 1, 1 + d_fy, zero + 1], -1)
    shifts = torch.stack([zero, zero, d_cx, zero, zero, d_cy], -1)
    upper = K[..., :2, :] * factors.unflatten(-1, (2, 3)) + shifts.unflatten(-1, (2, 3))
    return torch.cat([upper, K[..., 2:, :].expand(*upper.shape[:-2], 1, 3)], -2)


def recover_translation(
    center_px: Float[Tensor, "*batch 2"],
    offset_px: Float[Tensor, "*batch 2"],
    depth: Float[Tensor, "*batch"],
    K: Float[Tensor, "... 3 3"],
) -> Translation:
    """Lift an object's centre, seen at ``center + offset`` and ``depth`` deep, into the camera frame.

    Args:
        center_px: ``(*batch, 2)`` pixels, say the centre of its box.
        offset_px: ``(*batch, 2)`` pixels from there to the projection of the object's origin.
        depth: ``(*batch,)`` z in metres.
        K: ``(3, 3)`` or ``(*batch, 3, 3)`` pixels, one an object.

    Returns:
        ``t`` ``(*batch, 3)`` metres. An object with a focal length or depth that is not positive and finite,
        or a position that is not finite, is not valid; the others do not notice.

    Example:
        >>> K = torch.tensor([[600.0, 0, 320], [0, 500, 240], [0, 0, 1]])
        >>> center, offset = torch.tensor([[300.0, 240.0], [20.0, 50.0]])
        >>> recover_translation(center, offset, torch.tensor(2.0), K).t
        tensor([0.0000, 0.2000, 2.0000])
    """
    px = center_px + offset_px
    focal = torch.stack([K[..., 0, 0], K[..., 1, 1]], -1)
    valid = px.isfinite().all(-1) & depth.isfinite() & (depth > 0)
    valid = valid & ((focal > 0) & focal.isfinite()).all(-1) & K.isfinite().all(-1).all(-1)
    # The failing objects get harmless numbers, so that no NaN reaches a gradient.
    K = torch.where(valid[..., None, None], K, torch.eye(3).to(K))
    px = torch.where(valid[..., None], px, 0.0)[..., None, :]
    t = unproject(px, torch.where(valid, depth, 1.0)[..., None], K)[..., 0, :]
    finite = t.isfinite().all(-1)
    return Translation(torch.where((valid & finite)[..., None], t, torch.nan), valid & finite)
