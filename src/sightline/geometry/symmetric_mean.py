"""The mean rotation of an object that looks the same from several sides."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from sightline.geometry.poses import make_pose
from sightline.geometry.rotations import mean_rotation
from sightline.geometry.symmetry import SymmetryGroup, symmetric_align, symmetric_distance

_MAX_ROUNDS = 50


def symmetric_mean_rotation(
    R: Float[Tensor, "*batch n 3 3"], group: SymmetryGroup, weights: Float[Tensor, "*#batch n"] | None = None
) -> Float[Tensor, "*batch 3 3"]:
    """The mean of rotations of a symmetric object, each first brought to its equivalent nearest to the mean.

    Starts from the rotation with the least weighted sum of squared symmetric distances and alternates
    alignment and chordal mean until nothing moves.

    Args:
        R: ``(*batch, n, 3, 3)`` rotations ``cam_from_obj``.
        group: the symmetries of the object.
        weights: ``(*batch, n)`` non-negative weights; equal if not given.

    Returns:
        ``(*batch, 3, 3)`` rotations, NaN where there is no mean.

    Example:
        >>> half_turn = torch.diag(torch.tensor([-1.0, -1.0, 1.0]))
        >>> same = torch.stack([torch.eye(3), half_turn, half_turn])
        >>> symmetric_mean_rotation(same, SymmetryGroup.cyclic(2, (0, 0, 1))).diag()
        tensor([-1., -1.,  1.])
    """
    weights = R.new_ones(R.shape[:-2]) if weights is None else weights.expand(R.shape[:-2])
    with torch.no_grad():
        squared = symmetric_distance(R[..., :, None, :, :], R[..., None, :, :, :], group).square()
        medoid = (squared * weights[..., None, :]).sum(-1).argmin(dim=-1)
        mean = R.take_along_dim(medoid[..., None, None, None], dim=-3)[..., 0, :, :]
        for _ in range(_MAX_ROUNDS):
            previous, mean = mean, mean_rotation(_align(R, mean, group), weights)
            if not ((mean - previous).abs() > 16 * torch.finfo(R.dtype).eps).any():
                break
    return mean_rotation(_align(R, mean, group), weights)


def _align(R: Tensor, reference: Tensor, group: SymmetryGroup) -> Tensor:
    origin = R.new_zeros(3)
    reference_pose = make_pose(reference[..., None, :, :], origin)
    return symmetric_align(make_pose(R, origin), reference_pose, group)[..., :3, :3]
