"""What the shape of a point set says about its pose, and the second pose of a flat one."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor


class PointSpread(NamedTuple):
    """The centre and the principal axes of a point set.

    Args:
        centre: ``(*batch, 3)`` metres.
        axes: ``(*batch, 3, 3)`` unit columns, by falling extent.
        extents: ``(*batch, 3)`` standard deviations along the axes, metres, falling.
    """

    centre: Float[Tensor, "*batch 3"]
    axes: Float[Tensor, "*batch 3 3"]
    extents: Float[Tensor, "*batch 3"]


def spread_of_points(points_3d: Float[Tensor, "*batch n 3"]) -> PointSpread:
    """Find the principal axes of point sets, from the singular values of the centred points.

    Args:
        points_3d: ``(*batch, n, 3)`` metres, n >= 1.

    Returns:
        Centre, axes and extents. The second extent vanishes for collinear points, the third for planar ones.

    Example:
        >>> points = torch.tensor([[1.0, 0, 0], [-1, 0, 0], [0, 2, 0], [0, -2, 0]])
        >>> spread_of_points(points).extents
        tensor([1.4142, 0.7071, 0.0000])
    """
    n = points_3d.shape[-2]
    centre = points_3d.mean(-2)
    centred = points_3d - centre[..., None, :]
    # Three zero rows give even a single point three singular values.
    padded = torch.cat([centred, torch.zeros_like(centred[..., :1, :]).expand(*centre.shape[:-1], 3, 3)], -2)
    _, singular, axes = torch.linalg.svd(padded, full_matrices=False)
    return PointSpread(centre, axes.mT, singular / n**0.5)


def mirrored_pose(
    R: Float[Tensor, "*batch 3 3"],
    t: Float[Tensor, "*batch 3"],
    centre: Float[Tensor, "*batch 3"],
    normal: Float[Tensor, "*batch 3"],
) -> tuple[Float[Tensor, "*batch 3 3"], Float[Tensor, "*batch 3"]]:
    """The other pose under which a flat object looks nearly the same: its plane tilted the other way.

    Under weak perspective a plane and its mirror image in a plane across the line of sight ``l`` have the
    same picture, so that ``R' = (I - 2 l l^T) R (I - 2 n n^T)`` about the object's centre is the start of the
    second minimum of the reprojection error (Schweighofer and Pinz, PAMI 2006; the two poses of IPPE, Collins
    and Bartoli, IJCV 2014). Mirroring twice gives the first pose back.

    Args:
        R: ``(*batch, 3, 3)`` object to camera.
        t: ``(*batch, 3)`` metres.
        centre: ``(*batch, 3)`` of the object's points, object frame, metres; it stays where it is.
        normal: ``(*batch, 3)`` unit normal of the object's plane, object frame.

    Returns:
        The mirrored rotation and translation.

    Example:
        >>> tilted = torch.tensor([[1.0, 0, 0], [0, 0.8, -0.6], [0, 0.6, 0.8]])
        >>> z = torch.tensor([0.0, 0.0, 1.0])
        >>> mirrored_pose(tilted, z, torch.zeros(3), z)[0] @ z
        tensor([0.0000, 0.6000, 0.8000])
    """
    seen = (R @ centre[..., None])[..., 0] + t
    sight = torch.nn.functional.normalize(seen, dim=-1)
    mirrored = _reflection(sight) @ R @ _reflection(normal)
    return mirrored, seen - (mirrored @ centre[..., None])[..., 0]


def _reflection(unit: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3 3"]:
    identity = torch.eye(3, dtype=unit.dtype, device=unit.device)
    return identity - 2 * unit[..., :, None] * unit[..., None, :]
