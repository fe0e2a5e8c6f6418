"""Points in space from several calibrated views: weighted, pair by pair, robust to a wrong view; how sure.

World and camera frames in metres, pixels as the cameras deliver them, NaN where a view has no point. What is
solved is in ``ray_quadrics``.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sightline.geometry.cameras import project
from sightline.geometry.distortion import distortion_jacobian, undistort_pixels
from sightline.geometry.poses import transform
from sightline.geometry.ray_quadrics import adjugate_of, are_parallel, minimise, ray_equations, square_rows

Method = Literal["linear", "dlt"]
MIN_PARALLAX = 1e-3  # radians


class Triangulated(NamedTuple):
    """Points in the world, metres; ``points`` is NaN where ``valid`` is False."""

    points: Float[Tensor, "*batch n 3"]
    valid: Bool[Tensor, "*batch n"]


class RobustlyTriangulated(NamedTuple):
    """Points in the world, metres, NaN where ``valid`` is False, and the views that agree on them."""

    points: Float[Tensor, "*batch n 3"]
    valid: Bool[Tensor, "*batch n"]
    inliers: Bool[Tensor, "*batch v n"]


def triangulate(
    px: Float[Tensor, "*batch v n 2"],
    K: Float[Tensor, "..."],
    cam_from_world: Float[Tensor, "..."],
    distortion: Float[Tensor, "..."] | None = None,
    *,
    weights: Float[Tensor, "*batch v n"] | None = None,
    method: Method = "linear",
    min_parallax: float = MIN_PARALLAX,
) -> Triangulated:
    """Find the points that v views see, from all views that have them.

    ``"linear"`` minimises the rays' equations over the world point, then once more with each view's equations
    scaled by focal length over depth, which turns them into pixels: the result differs from least-squares
    reprojection only to second order in the noise, and moves with the world's frame and unit. ``"dlt"``
    minimises the unscaled equations over homogeneous points of length one, as OpenCV's ``triangulatePoints``
    does (Hartley and Zisserman, 12.2); with noise its result depends on where the world's origin lies.

    Args:
        px: ``(*batch, v, n, 2)`` pixels as the cameras deliver them; NaN where a view has no point.
        K: ``(v, 3, 3)`` or ``(*batch, v, 3, 3)`` pixels.
        cam_from_world: ``(v, 4, 4)`` or ``(*batch, v, 4, 4)``, metres.
        distortion: ``(v, 5)`` or ``(*batch, v, 5)`` k1 k2 p1 p2 k3, or None.
        weights: ``(*batch, v, n)``, proportional to the inverse standard deviation of the pixels; a view of
            weight 0 is left out.
        method: ``"linear"`` or ``"dlt"``.
        min_parallax: radians between two rays below which they count as parallel.

    Returns:
        Points ``(*batch, n, 3)`` in the world frame, metres, in the dtype of ``px``; first derivatives in
        everything but the choice of views. A point is not valid (NaN) that fewer than two views see, whose
        rays are parallel, or that lies behind one of its views.

    Raises:
        ValueError: K or the poses are not those of v views.

    Example:
        >>> cam_from_world = torch.eye(4).repeat(2, 1, 1)
        >>> cam_from_world[1, 0, 3] = -1.0  # the second camera stands 1 m to the right
        >>> px = torch.tensor([[[0.5, 0.5], [0.0, 0.0]], [[0.25, 0.5], [torch.nan, 0.0]]])
        >>> triangulate(px, torch.eye(3).repeat(2, 1, 1), cam_from_world)
        Triangulated(points=tensor([[2., 2., 4.],
                [nan, nan, nan]]), valid=tensor([ True, False]))
    """
    views = ray_equations(px, K, cam_from_world, distortion)
    scale = views.seen.double()
    if weights is not None:
        scale = torch.where(views.seen & (weights > 0), weights.double(), 0.0)
    seen = scale.detach() > 0
    quadrics = square_rows(views.rows)
    parallel = are_parallel(adjugate_of((quadrics.detach() * seen).sum(-2)), min_parallax)
    determined = (seen.sum(-2) >= 2) & ~parallel
    quadric = (quadrics * scale.square()).sum(-2)
    points = minimise(quadric, determined, origin=views.origin if method == "dlt" else None)
    depth = _depths(views.projections, points)
    if method == "linear":
        pixels_a_metre = views.focal[:, None] / torch.where(depth > 0, depth, 1.0)
        points = minimise(square_rows(views.rows * (scale * pixels_a_metre)).sum(-2), determined)
        depth = _depths(views.projections, points)
    return _finish(points, determined & ((depth > 0) | ~seen).all(-2), views.origin, px.dtype)


def view_pairs(num_views: int) -> Int[Tensor, "pairs 2"]:
    """All unordered pairs of views, in the order (0, 1), (0, 2), ..., (1, 2), ...

    Args:
        num_views: how many views there are.

    Returns:
        ``(v (v - 1) / 2, 2)`` int64 indices of views.

    Example:
        >>> view_pairs(3).tolist()
        [[0, 1], [0, 2], [1, 2]]
    """
    return torch.combinations(torch.arange(num_views), 2)


def triangulate_pairs(
    px: Float[Tensor, "*batch v n 2"],
    K: Float[Tensor, "..."],
    cam_from_world: Float[Tensor, "..."],
    distortion: Float[Tensor, "..."] | None = None,
    *,
    method: Method = "linear",
    min_parallax: float = MIN_PARALLAX,
) -> Triangulated:
    """Triangulate every pair of views by itself, in the order of :func:`view_pairs`.

    Args:
        px: ``(*batch, v, n, 2)`` pixels as the cameras deliver them; NaN where a view has no point.
        K: ``(v, 3, 3)`` or ``(*batch, v, 3, 3)`` pixels.
        cam_from_world: ``(v, 4, 4)`` or ``(*batch, v, 4, 4)``, metres.
        distortion: ``(v, 5)`` or ``(*batch, v, 5)`` k1 k2 p1 p2 k3, or None.
        method: ``"linear"`` minimises the pair's equations over the world point, ``"dlt"`` over homogeneous
            points as OpenCV does (see :func:`triangulate`).
        min_parallax: radians between two rays below which they count as parallel.

    Returns:
        Points ``(*batch, pairs, n, 3)`` and validity, as :func:`triangulate` gives them.

    Raises:
        ValueError: K or the poses are not those of v views.

    Example:
        >>> cam_from_world = torch.eye(4).repeat(3, 1, 1)
        >>> cam_from_world[:, 0, 3] = torch.tensor([0.0, -1.0, 1.0])
        >>> px = torch.tensor([[[0.5, 0.5]], [[0.25, 0.5]], [[0.75, 0.5]]])
        >>> triangulate_pairs(px, torch.eye(3).repeat(3, 1, 1), cam_from_world).points[:, 0, 2]
        tensor([4., 4., 4.])
    """
    views = ray_equations(px, K, cam_from_world, distortion)
    pairs = view_pairs(px.shape[-3]).to(px.device)
    members = torch.zeros(len(pairs), px.shape[-3], dtype=torch.float64, device=px.device)
    members.scatter_(1, pairs, 1.0)
    quadrics = members @ square_rows(views.rows)
    adjugate = adjugate_of(quadrics.detach())
    first, second = (views.seen.index_select(-2, view) for view in pairs.unbind(-1))
    determined = first & second & ~are_parallel(adjugate, min_parallax)
    origin = views.origin[..., None]
    points = minimise(quadrics, determined, adjugate, origin=origin if method == "dlt" else None)
    valid = determined
    for view in pairs.unbind(-1):
        forward = views.projections[2].detach().index_select(-2, view)
        valid = valid & ((forward[:3] * points.detach()).sum(0) + forward[3] > 0)
    return _finish(points, valid, origin, px.dtype)


def triangulate_robust(
    px: Float[Tensor, "*batch v n 2"],
    K: Float[Tensor, "..."],
    cam_from_world: Float[Tensor, "..."],
    distortion: Float[Tensor, "..."] | None = None,
    *,
    weights: Float[Tensor, "*batch v n"] | None = None,
    max_error_px: float = 10.0,
    min_parallax: float = MIN_PARALLAX,
) -> RobustlyTriangulated:
    """Find the points that most views agree on, whatever the others say.

    Every pair of views proposes a point; the one with the least truncated sum of squared reprojection errors
    wins (MSAC over all pairs, so nothing is random), the views within ``max_error_px`` of it are triangulated
    together, and those within the bound of that point once more. The choice of views carries no gradient.

    Args:
        px: ``(*batch, v, n, 2)`` pixels as the cameras deliver them; NaN where a view has no point.
        K: ``(v, 3, 3)`` or ``(*batch, v, 3, 3)`` pixels.
        cam_from_world: ``(v, 4, 4)`` or ``(*batch, v, 4, 4)``, metres.
        distortion: ``(v, 5)`` or ``(*batch, v, 5)`` k1 k2 p1 p2 k3, or None.
        weights: ``(*batch, v, n)``, proportional to the inverse standard deviation of the pixels.
        max_error_px: reprojection error, in undistorted pixels, up to which a view agrees.
        min_parallax: radians between two rays below which they count as parallel.

    Returns:
        Points ``(*batch, n, 3)``, valid where at least two views agree, and which views do.

    Raises:
        ValueError: K or the poses are not those of v views.

    Example:
        >>> cam_from_world = torch.eye(4).repeat(4, 1, 1)
        >>> cam_from_world[:, 0, 3] = torch.tensor([0.0, -1.0, 1.0, 2.0])
        >>> K = torch.diag(torch.tensor([100.0, 100.0, 1.0])).repeat(4, 1, 1)
        >>> px = torch.tensor([[[50.0, 50.0]], [[25.0, 50.0]], [[75.0, 50.0]], [[100.0, 90.0]]])
        >>> triangulate_robust(px, K, cam_from_world).inliers[:, 0]
        tensor([ True,  True,  True, False])
    """
    if px.shape[-3] < 2:
        points, valid = triangulate(px, K, cam_from_world, distortion)
        return RobustlyTriangulated(points, valid, torch.zeros_like(px[..., 0], dtype=torch.bool))
    if distortion is not None:
        px = undistort_pixels(px, K, distortion).xy
    weight = torch.ones_like(px[..., 0]) if weights is None else weights
    usable = px.isfinite().all(-1) & (weight > 0)
    bound = max_error_px**2
    with torch.no_grad():
        proposals = triangulate_pairs(px, K, cam_from_world, min_parallax=min_parallax)
        seen_by_all = px.unsqueeze(-4)
        over_pairs = tuple(t.unsqueeze(-4) if t.ndim > 3 else t for t in (K, cam_from_world))
        squares = reprojection_errors(proposals.points, seen_by_all, *over_pairs).square().nan_to_num(bound)
        cost = (squares.clamp_max(bound) * (weight * usable).square().unsqueeze(-3)).sum(-2)
        best = torch.where(proposals.valid, cost, torch.inf).argmin(-2, keepdim=True)
        points = proposals.points.gather(-3, best[..., None].expand(*best.shape, 3)).squeeze(-3)
        inliers = usable & (reprojection_errors(points, px, K, cam_from_world) <= max_error_px)
        points = triangulate(
            px, K, cam_from_world, weights=weight * inliers, min_parallax=min_parallax
        ).points
        inliers = usable & (reprojection_errors(points, px, K, cam_from_world) <= max_error_px)
    points, valid = triangulate(px, K, cam_from_world, weights=weight * inliers, min_parallax=min_parallax)
    return RobustlyTriangulated(points, valid, inliers & valid.unsqueeze(-2))


def reprojection_errors(
    points: Float[Tensor, "*batch n 3"],
    px: Float[Tensor, "..."],
    K: Float[Tensor, "..."],
    cam_from_world: Float[Tensor, "..."],
    distortion: Float[Tensor, "..."] | None = None,
) -> Float[Tensor, "..."]:
    """How far each view's pixel lies from the projection of its point.

    Args:
        points: ``(*batch, n, 3)`` metres, world frame.
        px: ``(*batch, v, n, 2)`` pixels as the cameras deliver them.
        K: ``(v, 3, 3)`` or ``(*batch, v, 3, 3)`` pixels.
        cam_from_world: ``(v, 4, 4)`` or ``(*batch, v, 4, 4)``, metres.
        distortion: ``(v, 5)`` or ``(*batch, v, 5)`` k1 k2 p1 p2 k3, or None.

    Returns:
        ``(*batch, v, n)`` pixels; NaN where the pixel or the point is, or the point lies behind the view.

    Example:
        >>> one = torch.eye(3)[None], torch.eye(4)[None]
        >>> reprojection_errors(torch.tensor([[1.0, 1.0, 2.0]]), torch.tensor([[[3.5, 4.5]]]), *one)
        tensor([[5.]])
    """
    points_cam = transform(cam_from_world.to(points), points.unsqueeze(-3))
    return torch.linalg.vector_norm(project(points_cam, K, distortion) - px.to(points), dim=-1)


def point_covariance(
    points: Float[Tensor, "*batch n 3"],
    K: Float[Tensor, "..."],
    cam_from_world: Float[Tensor, "..."],
    distortion: Float[Tensor, "..."] | None = None,
    *,
    sigma_px: Float[Tensor, "..."] | float = 1.0,
    seen: Bool[Tensor, "*batch v n"] | None = None,
) -> Float[Tensor, "*batch n 3 3"]:
    """How uncertain points are: ``(sum_v J_v^T J_v / sigma_v^2)^-1``, J the Jacobian of the projection.

    Args:
        points: ``(*batch, n, 3)`` metres, world frame.
        K: ``(v, 3, 3)`` or ``(*batch, v, 3, 3)`` pixels.
        cam_from_world: ``(v, 4, 4)`` or ``(*batch, v, 4, 4)``, metres.
        distortion: ``(v, 5)`` or ``(*batch, v, 5)`` k1 k2 p1 p2 k3, or None.
        sigma_px: standard deviation of a pixel coordinate, a number or ``(*batch, v, n)``.
        seen: ``(*batch, v, n)`` which views each point rests on; None for all.

    Returns:
        ``(*batch, n, 3, 3)`` square metres, world axes; NaN for a NaN point or one with fewer than two views.

    Example:
        >>> cam_from_world = torch.eye(4).repeat(2, 1, 1)
        >>> cam_from_world[:, 0, 3] = torch.tensor([1.0, -1.0])
        >>> K = torch.diag(torch.tensor([100.0, 100.0, 1.0])).repeat(2, 1, 1)
        >>> point_covariance(torch.tensor([[0.0, 0.0, 2.0]]), K, cam_from_world).diagonal(dim1=1, dim2=2)
        tensor([[0.0002, 0.0002, 0.0008]])
    """
    world = cam_from_world.to(points)
    x, y, z = transform(world, points.unsqueeze(-3)).unbind(-1)
    xy, zero = torch.stack([x / z, y / z], -1), torch.zeros_like(z)
    across, down = torch.stack([1 / z, zero, -x / z**2], -1), torch.stack([zero, 1 / z, -y / z**2], -1)
    slope = torch.stack([across, down], -2)
    if distortion is not None:
        slope = distortion_jacobian(xy, distortion) @ slope
    focal = K.to(points)[..., None, :2, :2]
    jacobian = focal @ slope @ world[..., None, :3, :3]
    weight = 1 / torch.as_tensor(sigma_px, dtype=points.dtype, device=points.device).expand(z.shape)
    used = points.isfinite().all(-1).unsqueeze(-2) & (z > 0)
    if seen is not None:
        used = used & seen
    jacobian = torch.where(used[..., None, None], jacobian * weight[..., None, None], 0.0)
    information = (jacobian.mT @ jacobian).sum(-4)
    known = used.sum(-2) >= 2
    identity = torch.eye(3).to(points)
    covariance, failed = torch.linalg.inv_ex(torch.where(known[..., None, None], information, identity))
    return torch.where((known & (failed == 0))[..., None, None], covariance, torch.nan)


def _depths(projections: Tensor, points: Tensor) -> Tensor:
    """Z of points ``(3, *batch, n)`` in every view, ``(*batch, v, n)``."""
    return (projections[2, :3] * points[..., None, :]).sum(0) + projections[2, 3]


def _finish(points: Tensor, valid: Tensor, origin: Tensor, dtype: torch.dtype) -> Triangulated:
    world = (points + origin).movedim(0, -1)
    return Triangulated(torch.where(valid[..., None], world, torch.nan).to(dtype), valid)
