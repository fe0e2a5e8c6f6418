"""A first pose without any knowledge: random samples, descended a little, the best of them further (RSLM).

Points are sampled by their weight; the translation of a sample follows from how far its points and its pixels
are spread, its rotation is any. All samples of all problems descend together as one batch.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sightline.geometry.pnp.epropnp.problems import Pose, WeightedProblems, pose_costs
from sightline.geometry.pnp.epropnp.solver import find_minimum
from sightline.geometry.rotations import random_rotations


@torch.no_grad()
def find_start(
    problems: WeightedProblems,
    *,
    num_proposals: int = 64,
    num_points: int = 16,
    num_iterations: int = 3,
    num_finalists: int = 4,
    generator: torch.Generator | None = None,
) -> Pose:
    """Find the pose of least cost among samples that were descended.

    Args:
        problems: b problems.
        num_proposals: m samples of each problem.
        num_points: of a sample, at most.
        num_iterations: of Levenberg-Marquardt, on a sample's own points and, for the finalists, on all.
        num_finalists: how many of the samples, the best by all points, are descended on all points.
        generator: the source of random numbers.

    Returns:
        ``(b, 3, 3)`` and ``(b, 3)``, of the centred points; the costs of these may well be high.
    """
    m = num_proposals
    parts = _sample_points(problems, m, num_points, generator)
    start = Pose(
        random_rotations(m, generator=generator, dtype=parts.delta.dtype, device=parts.delta.device).repeat(
            len(problems.delta), 1, 1
        ),
        _rough_translation(parts),
    )
    proposals = find_minimum(parts, start, max_iterations=num_iterations).pose
    finalists = _best(problems, proposals, min(num_finalists, m))
    several = problems.select(_repeated(problems, finalists.R.shape[1]))
    ends = find_minimum(
        several, Pose(*(part.flatten(0, 1) for part in finalists)), max_iterations=num_iterations
    )
    return Pose(*(part[:, 0] for part in _best(problems, ends.pose, 1)))


def _sample_points(
    problems: WeightedProblems, m: int, num_points: int, generator: torch.Generator | None
) -> WeightedProblems:
    """M times every problem with some of its points, drawn by weight without replacement (Gumbel's top k)."""
    mass = problems.weights.sum(1)
    n = mass.shape[1]
    # The points are the first axis of the noise, so that padding a problem leaves its samples as they were.
    uniform = torch.rand(n, m, generator=generator, dtype=mass.dtype, device=mass.device)
    keys = mass.log()[:, None] - (-uniform.clamp_min(1e-12).log()).log().mT
    chosen = keys.topk(min(num_points, n), dim=-1).indices[:, :, None]
    points_3d, points_2d, weights = (
        field[:, None].take_along_dim(chosen, dim=-1).flatten(0, 1)
        for field in (problems.points_3d, problems.points_2d, problems.weights)
    )
    index = _repeated(problems, m)
    slopes, delta, centre = (field[index] for field in (problems.slopes, problems.delta, problems.centre))
    return WeightedProblems(points_3d, points_2d, weights, slopes, delta, centre, problems.min_depth)


def _rough_translation(parts: WeightedProblems) -> Float[Tensor, "c 3"]:
    """A distance ``sqrt(2/3) f spread of points / spread of pixels``, and the middle of the pixels there."""
    used = parts.used[:, None]
    count = used.sum(-1).clamp_min(1)
    means, spreads = [], []
    for points in (parts.points_3d, parts.points_2d):
        mean = (points * used).sum(-1) / count
        away = torch.where(used, points - mean[..., None], 0.0)
        means.append(mean)
        spreads.append((away.square().sum(-1) / count).sum(-1).sqrt())
    focal = parts.slopes.diagonal(dim1=-2, dim2=-1)
    depth = (2 / 3) ** 0.5 * focal.mean(-1) * spreads[0] / spreads[1].clamp_min(1.0)
    depth = depth.clamp_min(2 * parts.min_depth)
    return torch.cat([means[1] / focal * depth[:, None], depth[:, None]], -1)


def _best(problems: WeightedProblems, poses: Pose, count: int) -> Pose:
    """The poses of least cost of each problem, of ``(b * m, ...)`` that stand problem by problem."""
    poses = Pose(*(part.unflatten(0, (len(problems.delta), -1)) for part in poses))
    costs = pose_costs(problems, poses).nan_to_num(torch.inf)
    chosen = costs.topk(count, dim=1, largest=False).indices
    rows = torch.arange(len(chosen), device=chosen.device)[:, None]
    return Pose(poses.R[rows, chosen], poses.t[rows, chosen])


def _repeated(problems: WeightedProblems, times: int) -> Int[Tensor, " c"]:
    return torch.arange(len(problems.delta), device=problems.delta.device).repeat_interleave(times)
