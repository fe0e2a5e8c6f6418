"""What EPro-PnP minimises: reprojection residuals with a weight for each axis, under an adaptive Huber loss.

``f_i = w_i o (pi(R X_i + t) - x_i)`` and ``cost = 1/2 sum rho(|f_i|)``, with ``rho(f) = f^2`` up to delta and
``2 delta f - delta^2`` beyond. Points are taken from their weighted centre, so that the rotation and the
translation of a pose are nearly independent of one another wherever the object's origin lies.

Axes: b problems, n points (padded with weight zero), k poses of each problem. Coordinates are kept apart.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.utils.checkpoint import checkpoint

CHUNK = 1 << 22  # residuals evaluated at once; more are done in turns, and once more for their gradient


class Pose(NamedTuple):
    """Poses of the centred points, ``R (X - centre) + t``."""

    R: Float[Tensor, "*batch 3 3"]
    t: Float[Tensor, "*batch 3"]


class WeightedProblems(NamedTuple):
    """A padded batch of weighted PnP problems.

    Args:
        points_3d: ``(b, 3, n)`` metres from ``centre``.
        points_2d: ``(b, 2, n)`` pixels from the principal point.
        weights: ``(b, 2, n)`` inverse standard deviations, 1/px, of x and of y.
        slopes: ``(b, 2, 2)`` focal lengths and skew, pixels.
        delta: ``(b,)`` where the Huber loss turns, in weighted pixels.
        centre: ``(b, 3)`` metres, object frame; a constant.
        min_depth: metres; a point nearer is projected as if it were there, and has no derivative.
    """

    points_3d: Float[Tensor, "b 3 n"]
    points_2d: Float[Tensor, "b 2 n"]
    weights: Float[Tensor, "b 2 n"]
    slopes: Float[Tensor, "b 2 2"]
    delta: Float[Tensor, " b"]
    centre: Float[Tensor, "b 3"]
    min_depth: float

    @property
    def used(self) -> Bool[Tensor, "b n"]:
        """Which points carry weight."""
        return (self.weights > 0).any(1)

    def detach(self) -> WeightedProblems:
        """The same numbers as constants."""
        *fields, min_depth = self
        return WeightedProblems(*(field.detach() for field in fields), min_depth)

    def select(self, index: Int[Tensor, " k"]) -> WeightedProblems:
        """The problems with these numbers, of which some may occur several times."""
        *fields, min_depth = self
        return WeightedProblems(*(field[index] for field in fields), min_depth)

    def with_noise(self, scale: Float[Tensor, " b"]) -> WeightedProblems:
        """The same problems with every standard deviation multiplied by ``scale``."""
        return self._replace(weights=self.weights / scale[:, None, None], delta=self.delta / scale)

    def to_centred(self, R: Float[Tensor, "b *k 3 3"], t: Float[Tensor, "b *k 3"]) -> Pose:
        """Poses of the object as poses of the centred points."""
        return Pose(R, t + self._centre_in_camera(R))

    def to_object(self, pose: Pose) -> Pose:
        """Poses of the centred points as poses of the object."""
        return Pose(pose.R, pose.t - self._centre_in_camera(pose.R))

    def _centre_in_camera(self, R: Float[Tensor, "b *k 3 3"]) -> Float[Tensor, "b *k 3"]:
        return torch.einsum("b...ij,bj->b...i", R, self.centre)


def pack_problems(
    points_3d: Float[Tensor, "b n 3"],
    points_2d: Float[Tensor, "b n 2"],
    weights_2d: Float[Tensor, "b n 2"],
    K: Float[Tensor, "b 3 3"],
    *,
    relative_delta: float,
    min_depth: float,
) -> WeightedProblems:
    """Centre the points, make those without weight harmless, and adapt the Huber loss.

    ``delta = relative_delta mean(w) sqrt(var x + var y)`` over the points that carry weight (Chen et al.,
    EPro-PnP, CVPR 2022), so that the loss turns at the same share of the object's size in the picture
    whatever the scale of the weights.

    Args:
        points_3d: ``(b, n, 3)`` metres; anything, NaN included, where both weights are zero.
        points_2d: ``(b, n, 2)`` pixels; likewise.
        weights_2d: ``(b, n, 2)`` 1/px, non-negative.
        K: ``(b, 3, 3)`` pixels.
        relative_delta: infinity for least squares.
        min_depth: metres.
    """
    used = (weights_2d > 0).any(-1, keepdim=True)
    points_3d, points_2d = torch.where(used, points_3d, 0.0), torch.where(used, points_2d, 0.0)
    mass = weights_2d.detach().sum(-1, keepdim=True)
    total = mass.sum(1)
    share = mass / torch.where(total > 0, total, 1.0)[:, None]
    centre = (share * points_3d.detach()).sum(1)
    offsets = torch.where(used, points_2d - K[:, None, :2, 2], 0.0)
    return WeightedProblems(
        torch.where(used, points_3d - centre[:, None], 0.0).mT.contiguous(),
        offsets.mT.contiguous(),
        weights_2d.mT.contiguous(),
        K[:, :2, :2],
        _adaptive_delta(offsets, weights_2d, used, relative_delta),
        centre,
        min_depth,
    )


def pose_costs(problems: WeightedProblems, pose: Pose) -> Float[Tensor, "b k"]:
    """The cost ``1/2 sum rho(|f_i|)`` of k poses of each problem, in turns where they are many.

    Args:
        problems: b problems of n points.
        pose: ``(b, k, 3, 3)`` and ``(b, k, 3)`` poses of the centred points.

    Returns:
        ``(b, k)`` the negative logarithm of the likelihood, up to a constant.
    """
    b, _, n = problems.points_3d.shape
    turn = max(1, CHUNK // max(1, b * n))
    if pose.R.shape[1] <= turn:
        return _costs(problems, *pose)
    parts = zip(pose.R.split(turn, 1), pose.t.split(turn, 1), strict=True)
    return torch.cat([checkpoint(_costs, problems, R, t, use_reentrant=False) for R, t in parts], 1)


def _costs(
    problems: WeightedProblems, R: Float[Tensor, "b k 3 3"], t: Float[Tensor, "b k 3"]
) -> Float[Tensor, "b k"]:
    b, k = t.shape[:2]
    # One product projects all points by all poses; z keeps metres, x and y are in pixels already.
    intrinsic = torch.zeros_like(problems.slopes[:, :1, :1]).repeat(1, 3, 3)
    intrinsic[:, :2, :2], intrinsic[:, 2, 2] = problems.slopes, 1.0
    camera = intrinsic[:, None] @ torch.cat([R, t[..., None]], -1)
    homogeneous = torch.cat([problems.points_3d, torch.ones_like(problems.points_3d[:, :1])], 1)
    projected = camera.transpose(1, 2).reshape(b, 3 * k, 4) @ homogeneous
    x, y, z = projected.reshape(b, 3, k, -1).unbind(1)
    inverse = z.clamp_min(problems.min_depth).reciprocal()
    u, v = problems.points_2d[:, :, None].unbind(1)
    weight_u, weight_v = problems.weights[:, :, None].unbind(1)
    residual_u, residual_v = (x * inverse - u) * weight_u, (y * inverse - v) * weight_v
    # The clamp gives a residual of zero a gradient of zero.
    length = (residual_u.square() + residual_v.square()).clamp_min(1e-30).sqrt()
    near = torch.minimum(length, problems.delta[:, None, None])
    return (near * (length - near / 2)).sum(-1)


def _adaptive_delta(
    offsets: Float[Tensor, "b n 2"],
    weights: Float[Tensor, "b n 2"],
    used: Bool[Tensor, "b n 1"],
    relative_delta: float,
) -> Float[Tensor, " b"]:
    if math.isinf(relative_delta):  # a constant: infinity times a gradient of zero would be NaN
        return weights.new_full((len(weights),), math.inf)
    count = used.sum(1).clamp_min(1)
    mean = offsets.sum(1) / count
    variance = (torch.where(used, offsets - mean[:, None], 0.0).square().sum(1) / count).sum(-1)
    # No spread or no weight would make it zero, and the loss with it.
    spread = variance.clamp_min(1.0).sqrt()
    return relative_delta * (weights.mean(-1).sum(1) / count[:, 0] * spread).clamp_min(1e-12)


def adapt_to_pose(problems: WeightedProblems, pose: Pose, relative_delta: float) -> WeightedProblems:
    """Let the loss turn at a share of the object's size as a pose projects it, if that is less.

    Pixels of wrong correspondences lie anywhere and widen their spread, and with it the loss, which then
    follows them; the projections of the points do not know of them.

    Args:
        problems: b problems.
        pose: ``(b, 3, 3)`` and ``(b, 3)``, near the right one.
        relative_delta: as for :func:`pack_problems`.
    """
    x, y, z = (pose.R @ problems.points_3d + pose.t[..., None]).unbind(1)
    depth = z.clamp_min(problems.min_depth)
    projected = (problems.slopes @ torch.stack([x / depth, y / depth], 1)).mT
    used = problems.used[..., None]
    delta = _adaptive_delta(torch.where(used, projected, 0.0), problems.weights.mT, used, relative_delta)
    return problems._replace(delta=torch.minimum(delta, problems.delta))
