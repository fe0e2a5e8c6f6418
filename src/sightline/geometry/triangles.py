"""Points on surfaces of triangles: evenly spread, nearest to others, and the moments of the whole surface."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

# The plastic number's powers: with them two coordinates fill the unit square evenly (Roberts, 2018).
_PLASTIC = (0.7548776662466927, 0.5698402909980532)


class SurfaceSamples(NamedTuple):
    """Points on a surface.

    Args:
        points: ``(k, 3)`` metres.
        face: ``(k,)`` int64, the triangle of each.
        barycentric: ``(k, 3)`` weights of that triangle's corners.
    """

    points: Float[Tensor, "k 3"]
    face: Int[Tensor, " k"]
    barycentric: Float[Tensor, "k 3"]


def sample_surface(triangles: Float[Tensor, "f 3 3"], count: int) -> SurfaceSamples:
    """Spread points over a surface, evenly by area and the same at every call.

    The points divide the cumulative area of the triangles in equal steps; within the triangles they follow an
    additive recurrence of low discrepancy. Nothing is random.

    Args:
        triangles: ``(f, 3, 3)`` corners, metres.
        count: how many points.

    Returns:
        The points, ordered by triangle.

    Raises:
        ValueError: a surface without area.

    Example:
        >>> triangle = torch.tensor([[[0.0, 0, 0], [1, 0, 0], [0, 1, 0]]])
        >>> sample_surface(triangle, 1000).points.mean(0)
        tensor([0.3325, 0.3326, 0.0000])
    """
    cumulative = areas(triangles).double().cumsum(0)
    if not bool(cumulative[-1] > 0):
        raise ValueError("triangles: expected a surface with an area above zero")
    step = torch.arange(count, dtype=torch.float64, device=triangles.device)
    face = torch.searchsorted(cumulative, (step + 0.5) / count * cumulative[-1]).clamp_max(len(triangles) - 1)
    root, share = ((step * _PLASTIC[0]) % 1).sqrt(), (step * _PLASTIC[1]) % 1
    barycentric = torch.stack([1 - root, root * (1 - share), root * share], -1).to(triangles.dtype)
    return SurfaceSamples((barycentric[..., None] * triangles[face]).sum(1), face, barycentric)


def areas(triangles: Float[Tensor, "*batch 3 3"]) -> Float[Tensor, "*batch"]:
    """Areas, square metres."""
    a, b, c = triangles.unbind(-2)
    return torch.linalg.cross(b - a, c - a).norm(dim=-1) / 2


def surface_moments(triangles: Float[Tensor, "f 3 3"]) -> tuple[Float[Tensor, "3"], Float[Tensor, "3 3"]]:
    """The centroid of a surface and the covariance of its points, exactly.

    With s the sum of a triangle's corners ``v_i``, the mean of ``x x^T`` over it is
    ``(sum_i v_i v_i^T + s s^T) / 12``.

    Args:
        triangles: ``(f, 3, 3)`` corners, metres.

    Returns:
        The centroid, metres, and the covariance, square metres.

    Example:
        >>> square = torch.tensor([[[0.0, 0, 0], [1, 0, 0], [1, 1, 0]], [[0, 0, 0], [1, 1, 0], [0, 1, 0]]])
        >>> surface_moments(square)[1].diagonal()
        tensor([0.0833, 0.0833, 0.0000])
    """
    weight = areas(triangles)
    weight = weight / weight.sum()
    centroid = (weight[:, None] * triangles.mean(1)).sum(0)
    corners = triangles - centroid
    total = corners.sum(1)
    second = torch.einsum("fki,fkj->fij", corners, corners) + total[:, :, None] * total[:, None, :]
    return centroid, (weight[:, None, None] * second).sum(0) / 12


def closest_on_triangles(
    points: Float[Tensor, "*batch 3"], triangles: Float[Tensor, "*batch 3 3"]
) -> Float[Tensor, "*batch 3"]:
    """Barycentric coordinates of the point of each triangle that is nearest to a point.

    That is the foot of the perpendicular, where it falls into the triangle, and else the nearest of the
    nearest points of the three sides.

    Args:
        points: ``(*batch, 3)`` metres.
        triangles: ``(*batch, 3, 3)`` corners, metres; they may be degenerate.

    Returns:
        ``(*batch, 3)`` weights of the corners, none negative, their sum 1.

    Example:
        >>> triangle = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0]])
        >>> closest_on_triangles(torch.tensor([0.25, -1.0, 3.0]), triangle)
        tensor([0.7500, 0.2500, 0.0000])
    """
    side = triangles.roll(-1, -2) - triangles
    reach = points[..., None, :] - triangles
    along = (_dot(reach, side) / _dot(side, side).clamp_min(1e-300)).clamp(0, 1)
    gap = reach - along[..., None] * side
    best = _dot(gap, gap).argmin(-1)
    along = along.take_along_dim(best[..., None], -1)
    start = torch.nn.functional.one_hot(best, 3).to(triangles.dtype)
    on_side = start + along * (start.roll(1, -1) - start)
    foot = _perpendicular_foot(points, triangles)
    return torch.where((foot >= 0).all(-1, keepdim=True), foot, on_side)


def _dot(u: Tensor, v: Tensor) -> Tensor:
    # five times as fast as the sum over an axis of three
    return u[..., 0] * v[..., 0] + u[..., 1] * v[..., 1] + u[..., 2] * v[..., 2]


def _perpendicular_foot(points: Tensor, triangles: Tensor) -> Tensor:
    # Barycentric; not inside (first weight -1) for a triangle without area.
    a, b, c = triangles.unbind(-2)
    u, v, w = b - a, c - a, points - a
    uu, uv, vv, wu, wv = _dot(u, u), _dot(u, v), _dot(v, v), _dot(w, u), _dot(w, v)
    det = uu * vv - uv * uv
    flat = det <= 1e-14 * uu * vv
    scale = 1 / torch.where(flat, 1.0, det)
    beta, gamma = (vv * wu - uv * wv) * scale, (uu * wv - uv * wu) * scale
    alpha = torch.where(flat, -1.0, 1 - beta - gamma)
    return torch.stack([alpha, beta, gamma], -1)
