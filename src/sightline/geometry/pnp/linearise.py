"""Reprojection residuals, their analytic Jacobian and the normal equations of many PnP problems at once.

The model is ``x = pi(R X + t)`` with OpenCV's distortion, and a pose is perturbed on the left,
``R' = exp(w) R``, ``t' = t + v``. For a row ``a`` of the 2x3 derivative of the pixel by the point in the
camera frame, the derivative by ``v`` is ``a`` and the derivative by ``w`` is ``(R X) x a``; the derivative by
the logarithm of the focal length is the pixel's offset from the principal point. Residuals are taken in the
pixels that the camera delivers, distortion included, because that is where the noise is the same everywhere:
undistorting a pixel first would magnify its noise towards the corners of a wide lens.

Axes: b problems, n points (padded with weight zero), p parameters (6, or 7 with the focal length).
Coordinates are kept apart, ``(b, 3, n)``, so that every elementary operation runs over contiguous points.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sightline.geometry.pnp.losses import LossName, LossTerms, robust_loss

MIN_DEPTH = 1e-6  # metres; a point nearer than this, or behind, has no picture
BEHIND_PX = (
    1e4  # the residual such a point is given, so that no accepted step pushes points behind the camera
)


class Problems(NamedTuple):
    """A padded batch of PnP problems, coordinates apart: what the linearisation reads."""

    points_2d: Float[Tensor, "b 2 n"]
    points_3d: Float[Tensor, "b 3 n"]
    weights: Float[Tensor, "b n"]
    K: Float[Tensor, "b 3 3"]
    distortion: Float[Tensor, "b 5"] | None

    def select(self, index: Int[Tensor, " k"]) -> Problems:
        """The problems with these numbers."""
        points_2d, points_3d, weights, K, distortion = self
        distortion = None if distortion is None else distortion[index]
        return Problems(points_2d[index], points_3d[index], weights[index], K[index], distortion)

    def with_focal(self, log_scale: Float[Tensor, " b"]) -> Problems:
        """The same problems with both focal lengths (and the skew) multiplied by ``exp(log_scale)``."""
        factor = torch.ones_like(self.K)
        factor[:, :2, :2] = log_scale.exp()[:, None, None]
        return self._replace(K=self.K * factor)


class Linearised(NamedTuple):
    """Residuals and Jacobian, weighted by the points' weights and the square root of the loss's weight."""

    terms: LossTerms
    squared: Float[Tensor, "b n"]
    residual: Float[Tensor, "b 2*n"]
    jacobian: Float[Tensor, "b p 2*n"]


class NormalEquations(NamedTuple):
    """``H = J^T W J``, ``g = J^T W r`` and the robust cost, in squared pixels, where they hold."""

    cost: Float[Tensor, " b"]
    hessian: Float[Tensor, "b p p"]
    gradient: Float[Tensor, "b p"]


def pack_problems(
    points_2d: Float[Tensor, "*batch n 2"],
    points_3d: Float[Tensor, "*batch n 3"],
    K: Float[Tensor, "..."],
    weights: Float[Tensor, "*batch n"] | None,
    distortion: Float[Tensor, "..."] | None,
) -> Problems:
    """Flatten the batch axes, split the coordinates, and make points of weight zero harmless.

    Args:
        points_2d: ``(*batch, n, 2)`` pixels; anything, NaN included, where the weight is zero.
        points_3d: ``(*batch, n, 3)`` metres, object frame.
        K: ``(3, 3)`` or ``(*batch, 3, 3)`` pixels.
        weights: ``(*batch, n)``, non-negative; None for ones.
        distortion: ``(5,)`` or ``(*batch, 5)`` k1 k2 p1 p2 k3, or None.

    Returns:
        The problems in float64.
    """
    batch, n = points_2d.shape[:-2], points_2d.shape[-2]
    flat_2d = points_2d.double().reshape(-1, n, 2).mT
    flat_3d = points_3d.double().reshape(-1, n, 3).mT
    count = len(flat_2d)
    if weights is None:
        weights = points_2d.new_ones(*batch, n)
    flat_weights = weights.double().reshape(count, n)
    used = (flat_weights > 0)[:, None]
    return Problems(
        torch.where(used, flat_2d, 0.0).contiguous(),
        torch.where(used, flat_3d, 0.0).contiguous(),
        flat_weights,
        K.double().expand(*batch, 3, 3).reshape(count, 3, 3),
        None if distortion is None else distortion.double().expand(*batch, 5).reshape(count, 5),
    )


def linearise(
    problems: Problems,
    R: Float[Tensor, "b 3 3"],
    t: Float[Tensor, "b 3"],
    loss: LossName,
    scale_px: Float[Tensor, " b"],
    *,
    with_focal: bool = False,
) -> Linearised:
    """Residuals ``pi(R X + t) - x`` and their derivative by ``(w, v)``, or by ``(w, v, log f)``.

    Args:
        problems: b problems of n points.
        R: ``(b, 3, 3)`` object to camera.
        t: ``(b, 3)`` metres.
        loss: the robust loss.
        scale_px: ``(b,)`` the loss's scale, pixels times weight.
        with_focal: add the derivative by the logarithm of the focal length as the last parameter.

    Returns:
        Loss terms and squared weighted residuals ``(b, n)`` (squared pixels), and the reweighted residuals
        ``(b, 2n)`` and Jacobian ``(b, p, 2n)``, all u before all v.
    """
    rotated = R @ problems.points_3d
    x, y, z = (rotated + t[..., None]).unbind(1)
    in_front = z > MIN_DEPTH
    inverse = in_front / torch.where(in_front, z, 1.0)  # zero behind the camera, and so is the Jacobian
    x, y = x * inverse, y * inverse
    offset_u, offset_v, slopes = _to_offsets(x, y, problems)
    u, v = problems.points_2d.unbind(1)
    centre = problems.K[:, :2, 2:]
    residual_u = torch.where(in_front, offset_u + centre[:, 0] - u, BEHIND_PX)
    residual_v = torch.where(in_front, offset_v + centre[:, 1] - v, BEHIND_PX)
    squared = problems.weights.square() * (residual_u.square() + residual_v.square())
    terms = robust_loss(squared / scale_px.square()[:, None], loss)
    # The clamp keeps the square root's derivative finite where a loss gives the weight zero.
    weight = problems.weights * terms.weight.clamp_min(1e-30).sqrt()
    inverse = inverse * weight
    point = rotated.unbind(1)
    rows_u = pose_columns(slopes[0], slopes[1], x, y, inverse, point)
    rows_v = pose_columns(slopes[2], slopes[3], x, y, inverse, point)
    if with_focal:
        rows_u.append(offset_u * weight * in_front)
        rows_v.append(offset_v * weight * in_front)
    columns = [column for pair in zip(rows_u, rows_v, strict=True) for column in pair]
    jacobian = torch.stack(columns, 1).reshape(len(t), len(rows_u), -1)
    residual = torch.cat([residual_u * weight, residual_v * weight], 1)
    return Linearised(terms, squared, residual, jacobian)


def normal_equations(
    problems: Problems,
    R: Float[Tensor, "b 3 3"],
    t: Float[Tensor, "b 3"],
    loss: LossName,
    scale_px: Float[Tensor, " b"],
    *,
    with_focal: bool = False,
) -> NormalEquations:
    """Linearise and sum over the points; arguments as for :func:`linearise`."""
    at = linearise(problems, R, t, loss, scale_px, with_focal=with_focal)
    return NormalEquations(
        scale_px.square() * at.terms.value.sum(1),
        at.jacobian @ at.jacobian.mT,
        (at.jacobian @ at.residual[..., None])[..., 0],
    )


def reprojection_errors(
    problems: Problems, R: Float[Tensor, "b 3 3"], t: Float[Tensor, "b 3"]
) -> Float[Tensor, "b n"]:
    """The distances in pixels between observed and projected points, infinite behind the camera."""
    x, y, z = (R @ problems.points_3d + t[..., None]).unbind(1)
    in_front = z > MIN_DEPTH
    depth = torch.where(in_front, z, 1.0)
    offset_u, offset_v, _ = _to_offsets(x / depth, y / depth, problems)
    u, v = (problems.points_2d - problems.K[:, :2, 2:]).unbind(1)
    return torch.where(in_front, torch.hypot(offset_u - u, offset_v - v), torch.inf)


def pose_columns(
    across: Tensor, down: Tensor, x: Tensor, y: Tensor, inverse: Tensor, point: tuple[Tensor, ...]
) -> list[Tensor]:
    """The derivative by ``(w, v)`` of one pixel coordinate.

    Args:
        across: its slope by the normalised x, pixels.
        down: its slope by the normalised y, pixels.
        x: normalised x of the point.
        y: normalised y.
        inverse: one over the depth, times the weight; zero for a point without a picture.
        point: the coordinates of ``R X``, metres.

    Returns:
        Six columns of the points' shape.
    """
    ax, ay = across * inverse, down * inverse
    az = -(ax * x + ay * y)
    px, py, pz = point
    return [py * az - pz * ay, pz * ax - px * az, px * ay - py * ax, ax, ay, az]


def _to_offsets(x: Tensor, y: Tensor, problems: Problems) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
    """Pixels from the principal point, and ``(du/dx, du/dy, dv/dx, dv/dy)``, of normalised points."""
    fx, skew, fy = (problems.K[:, row, column, None] for row, column in ((0, 0), (0, 1), (1, 1)))
    if problems.distortion is None:
        return fx * x + skew * y, fy * y, (fx, skew, torch.zeros_like(fy), fy)
    k1, k2, p1, p2, k3 = problems.distortion[..., None].unbind(1)
    xx, yy, xy = x * x, y * y, x * y
    r2 = xx + yy
    radial = 1 + r2 * (k1 + r2 * (k2 + r2 * k3))
    slope = 2 * (k1 + r2 * (2 * k2 + 3 * r2 * k3))  # d radial / dx = slope x
    xd = x * radial + 2 * p1 * xy + p2 * (r2 + 2 * xx)
    yd = y * radial + p1 * (r2 + 2 * yy) + 2 * p2 * xy
    dxx = radial + slope * xx + 2 * p1 * y + 6 * p2 * x
    dxy = slope * xy + 2 * p1 * x + 2 * p2 * y
    dyy = radial + slope * yy + 6 * p1 * y + 2 * p2 * x
    slopes = (fx * dxx + skew * dxy, fx * dxy + skew * dyy, fy * dxy, fy * dyy)
    return fx * xd + skew * yd, fy * yd, slopes
