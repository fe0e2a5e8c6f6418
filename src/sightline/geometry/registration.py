"""Registration of point sets: with known pairs (Kabsch, Umeyama) and without (point-to-plane ICP).

Both find ``b_from_a``, ``X_b = s R X_a + t``, metres, with s = 1 unless a scale is asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sightline.geometry.poses import make_pose, transform
from sightline.geometry.rotations import exp, project_to_so3

Nearest = Callable[[Tensor], tuple[Tensor, Tensor]]
_MIN_PAIRS = 6  # as many as a rigid motion has degrees of freedom
_CHUNK = 1 << 24  # distances held at once where there is no tree


class Alignment(NamedTuple):
    """How point sets were brought together.

    Args:
        b_from_a: ``(*batch, 4, 4)``, its upper left 3x3 ``scale R``; NaN where not valid.
        scale: ``(*batch,)``, 1 unless asked for.
        rmse: ``(*batch,)`` weighted root mean square distance after it, metres; no gradient.
        valid: ``(*batch,)`` False where the points do not fix a rotation.
    """

    b_from_a: Float[Tensor, "*batch 4 4"]
    scale: Float[Tensor, "*batch"]
    rmse: Float[Tensor, "*batch"]
    valid: Bool[Tensor, "*batch"]


class Registration(NamedTuple):
    """Where iterated closest points ended, one entry a start.

    Args:
        b_from_a: ``(*batch, 4, 4)``, NaN where not valid.
        valid: ``(*batch,)`` False where fewer than six pairs were left.
        rmse: ``(*batch,)`` root mean square distance to the planes over the pairs kept, metres.
        overlap: ``(*batch,)`` share of the points that were kept.
        iterations: ``(*batch,)`` steps taken; the maximum where it did not converge.
        rank: ``(*batch,)`` how many of the six motions the planes fix: 5 for a can, 3 for a plane. The others
            stay as they were.
    """

    b_from_a: Float[Tensor, "*batch 4 4"]
    valid: Bool[Tensor, "*batch"]
    rmse: Float[Tensor, "*batch"]
    overlap: Float[Tensor, "*batch"]
    iterations: Int[Tensor, "*batch"]
    rank: Int[Tensor, "*batch"]


def align_points(
    points_a: Float[Tensor, "*batch n 3"],
    points_b: Float[Tensor, "*batch n 3"],
    weights: Float[Tensor, "*batch n"] | None = None,
    *,
    with_scale: bool = False,
) -> Alignment:
    """Find the motion that brings points onto their partners, in closed form (Kabsch 1976, Umeyama 1991).

    It minimises ``sum_i w_i |s R a_i + t - b_i|^2`` over rotations, never reflections.

    Args:
        points_a: ``(*batch, n, 3)`` metres, frame a; a pair with a NaN is left out.
        points_b: ``(*batch, n, 3)`` metres, frame b.
        weights: ``(*batch, n)`` non-negative; equal if not given.
        with_scale: estimate s as well.

    Returns:
        The alignment, differentiable. It is not valid (NaN) where the pairs do not fix a rotation: fewer than
        three, all on a line, or as good mirrored as turned.

    Example:
        >>> a = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 2, 0]])
        >>> align_points(a, 3 * a + 1, with_scale=True).scale
        tensor(3.0000)
    """
    paired = (points_a.isfinite() & points_b.isfinite()).all(-1)
    weight = paired.to(points_a) if weights is None else torch.where(paired, weights, 0.0)
    total = weight.sum(-1)
    share = (weight / torch.where(total > 0, total, 1.0)[..., None])[..., None]
    a, b = (torch.where(paired[..., None], points, 0.0) for points in (points_a, points_b))
    middle_a, middle_b = ((share * points).sum(-2) for points in (a, b))
    a, b = a - middle_a[..., None, :], b - middle_b[..., None, :]
    covariance = (share * b).mT @ a
    sizes = torch.linalg.svdvals(covariance.detach())
    mirrored = torch.linalg.det(covariance.detach()) < 0
    stiffness = sizes[..., 1] + torch.where(mirrored, -sizes[..., 2], sizes[..., 2])
    valid = (total > 0) & (stiffness > 64 * torch.finfo(a.dtype).eps * sizes[..., 0])
    covariance = torch.where(valid[..., None, None], covariance, torch.eye(3).to(a))
    R = project_to_so3(covariance)
    scale = torch.ones_like(total)
    if with_scale:
        spread = (share * a * a).sum((-1, -2))
        scale = torch.where(valid, (R * covariance).sum((-1, -2)) / torch.where(valid, spread, 1.0), 1.0)
    linear = scale[..., None, None] * R
    b_from_a = make_pose(linear, middle_b - (linear @ middle_a[..., None])[..., 0])
    misses = (a @ linear.mT - b).detach().square().sum(-1, keepdim=True)
    rmse = (share.detach() * misses).sum((-1, -2)).sqrt()
    nan = torch.where(valid, 0.0, torch.nan).to(a)
    return Alignment(torch.where(valid[..., None, None], b_from_a, torch.nan), scale + nan, rmse + nan, valid)


def register_to_planes(
    points_a: Float[Tensor, "n 3"],
    points_b: Float[Tensor, "m 3"],
    normals_b: Float[Tensor, "..."],
    b_from_a: Float[Tensor, "*batch 4 4"],
    *,
    keep: float = 1.0,
    max_distance: float = float("inf"),
    max_iterations: int = 50,
    tolerance: float = 1e-7,
) -> Registration:
    """Bring a point cloud onto a surface by point-to-plane ICP, from many starts at once (Chen 1992).

    Each step pairs every point with its nearest one of b, keeps the nearest share (trimmed ICP, Chetverikov
    2002), and moves by the least-squares solution of ``n . (exp(w) X + v - b) = 0`` to first order. A motion
    that the planes do not fix is left alone.

    Args:
        points_a: ``(n, 3)`` metres, frame a; points with a NaN are left out.
        points_b: ``(m, 3)`` metres, frame b.
        normals_b: ``(m, 3)`` unit normals of b's surface, either side.
        b_from_a: ``(*batch, 4, 4)`` where to start; a NaN stays one, not valid.
        keep: share of the points, nearest first, that are used: what of a is on b at all.
        max_distance: metres beyond which a pair is not used.
        max_iterations: steps at most.
        tolerance: a start is done when a step moves no point by more than this share of the cloud's size.

    Returns:
        One result a start; see :class:`Registration`. No gradients.

    Raises:
        ValueError: as many normals as points are expected, ``keep`` in (0, 1], and a finite b.

    Example:
        >>> generator = torch.Generator().manual_seed(0)
        >>> normals = torch.nn.functional.normalize(torch.randn(500, 3, generator=generator).double(), dim=-1)
        >>> surface = normals * torch.tensor([0.10, 0.15, 0.25])  # about an ellipsoid
        >>> start = torch.eye(4, dtype=torch.float64)
        >>> register_to_planes(surface + 0.005, surface, normals, start).valid
        tensor(True)
    """
    if normals_b.shape != points_b.shape:
        raise ValueError(f"normals_b: expected {tuple(points_b.shape)}, got {tuple(normals_b.shape)}")
    if not 0 < keep <= 1:
        raise ValueError(f"keep: expected a share in (0, 1], got {keep}")
    if not bool(points_b.isfinite().all() and normals_b.isfinite().all()):
        raise ValueError("points_b, normals_b: expected finite numbers, got NaN or infinity")
    with torch.no_grad():
        cloud = points_a[points_a.isfinite().all(-1)]
        size = (cloud - cloud.mean(0)).norm(dim=-1).square().mean().sqrt().clamp_min(1e-12)
        pairing = _Pairing(_nearest_in(points_b), points_b, normals_b, keep, max_distance)
        pose = b_from_a.reshape(-1, 4, 4).clone()
        started = pose.isfinite().all(-1).all(-1)
        pose[~started] = torch.eye(4).to(pose)
        iterations = torch.zeros(len(pose), dtype=torch.long, device=pose.device)
        active = started.nonzero()[:, 0]
        for _ in range(max_iterations):
            if len(active) == 0:
                break
            pairs = pairing(transform(pose[active], cloud))
            step, moved, _ = _step(pairs, size)
            pose[active] = step @ pose[active]
            iterations[active] += 1
            active = active[(moved > tolerance * size) & (pairs.used.sum(-1) >= _MIN_PAIRS)]
        pairs = pairing(transform(pose, cloud))
        rank = _step(pairs, size)[2]
    used = pairs.used.sum(-1)
    valid = started & (used >= _MIN_PAIRS)
    rmse = (torch.where(pairs.used, pairs.offset, 0.0).square().sum(-1) / used).sqrt()
    result = Registration(
        torch.where(valid[:, None, None], pose, torch.nan),
        valid,
        torch.where(valid, rmse, torch.nan),
        used / max(len(points_a), 1),
        iterations,
        torch.where(valid, rank, 0),
    )
    return Registration(*(field.view(b_from_a.shape[:-2] + field.shape[1:]) for field in result))


class _Pairs(NamedTuple):
    partners: Tensor  # (h, n, 3) points of b
    normals: Tensor  # (h, n, 3) of b there
    offset: Tensor  # (h, n) signed distance of a's point from the partner's plane
    used: Tensor  # (h, n)


class _Pairing(NamedTuple):
    """Pairs points with their nearest neighbours of b and says which pairs count."""

    nearest: Nearest
    points_b: Tensor
    normals_b: Tensor
    keep: float
    max_distance: float

    def __call__(self, points: Tensor) -> _Pairs:
        index, distance = self.nearest(points)
        count = max(1, round(self.keep * distance.shape[-1])) if distance.shape[-1] else 0
        used = distance <= self.max_distance
        if 0 < count < distance.shape[-1]:
            used = used & (distance <= distance.kthvalue(count, -1, keepdim=True).values)
        partners, normals = self.points_b[index], self.normals_b[index]
        return _Pairs(partners, normals, (normals * (points - partners)).sum(-1), used)


def _step(pairs: _Pairs, size: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """One Gauss-Newton step: a ``(h, 4, 4)`` motion, by how much it moves points, and its rank."""
    weight = pairs.used.to(pairs.normals)[..., None]
    count = weight.sum(-2).clamp_min(1)
    center = (weight * pairs.partners).sum(-2) / count
    # Arms to the surface, not to a's points: what the surface does not fix then shows as an exact zero.
    arm = (pairs.partners - center[..., None, :]) / size
    jacobian = torch.cat([torch.linalg.cross(arm, pairs.normals), pairs.normals], -1) * weight
    values, axes = torch.linalg.eigh(jacobian.mT @ jacobian)
    # A motion of a metre that leaves the planes where they are to a millimetre is not fixed by them.
    fixed = values > 1e-6 * count
    gradient = axes.mT @ (jacobian.mT @ pairs.offset[..., None])
    motion = -(axes @ (torch.where(fixed, 1 / torch.where(fixed, values, 1.0), 0.0)[..., None] * gradient))
    turn, shift = motion[..., :3, 0] / size, motion[..., 3:, 0]
    R = exp(turn)
    step = make_pose(R, center + shift - (R @ center[..., None])[..., 0])
    moved = turn.norm(dim=-1) * size + shift.norm(dim=-1)
    return step, moved, fixed.sum(-1)


def _nearest_in(target: Tensor) -> Nearest:
    """A search for the nearest of ``(m, 3)`` points: a k-d tree on the CPU, all distances elsewhere."""
    if target.device.type != "cpu":
        return lambda queries: nearest_by_distance(queries, target)
    from scipy.spatial import KDTree

    tree = KDTree(target.double().numpy())

    def search(queries: Tensor) -> tuple[Tensor, Tensor]:
        distance, index = tree.query(queries.double().numpy())
        return torch.from_numpy(index).long(), torch.from_numpy(distance).to(queries.dtype)

    return search


def nearest_by_distance(
    queries: Float[Tensor, "*batch n 3"], target: Float[Tensor, "m 3"]
) -> tuple[Int[Tensor, "*batch n"], Float[Tensor, "*batch n"]]:
    """The nearest point of a target to each query, by all distances in chunks; for devices without a tree.

    Args:
        queries: ``(*batch, n, 3)``.
        target: ``(m, 3)``.

    Returns:
        Indices into the target and distances, ``(*batch, n)``.

    Example:
        >>> nearest_by_distance(torch.zeros(1, 3), torch.tensor([[2.0, 0, 0], [0, 1, 0]]))
        (tensor([1]), tensor([1.]))
    """
    chunks = queries.reshape(-1, 3).split(max(1, _CHUNK // len(target)))
    exact = "donot_use_mm_for_euclid_dist"
    found = [torch.cdist(chunk, target, compute_mode=exact).min(-1) for chunk in chunks]
    distance, index = (torch.cat(parts).view(queries.shape[:-1]) for parts in zip(*found, strict=True))
    return index, distance
