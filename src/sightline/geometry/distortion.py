"""Lens distortion with OpenCV's five coefficients k1, k2, p1, p2, k3, and its exact, differentiable inverse.

The model (Brown 1971) maps ideal normalised coordinates ``(x, y)`` with ``r^2 = x^2 + y^2`` to

    x_d = x (1 + k1 r^2 + k2 r^4 + k3 r^6) + 2 p1 x y + p2 (r^2 + 2 x^2)
    y_d = y (1 + k1 r^2 + k2 r^4 + k3 r^6) + p1 (r^2 + 2 y^2) + 2 p2 x y

It is one to one only up to the radius where ``r (1 + k1 r^2 + ...)`` stops growing; a pixel beyond that has
no ideal position, and it is flagged rather than guessed. A wide lens can have a third of its picture there.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from sightline.geometry.intrinsics import per_point, to_normalised, to_pixels

_RADIAL_STEPS = 40  # at most; bisection alone would need some 50, Newton needs 4 to 8
_PLANAR_STEPS = 12


class Undistorted(NamedTuple):
    """Ideal positions and whether each exists: ``xy`` is NaN where ``valid`` is False."""

    xy: Float[Tensor, "*points 2"]
    valid: Bool[Tensor, "*points"]


def distort(xy: Float[Tensor, "*points 2"], distortion: Float[Tensor, "... 5"]) -> Float[Tensor, "... 2"]:
    """Move ideal normalised points to where the lens images them (Brown 1971, as in OpenCV).

    Args:
        xy: ``(*points, 2)`` ideal coordinates ``(X/Z, Y/Z)``.
        distortion: ``(5,)`` k1 k2 p1 p2 k3 for all points, or ``(*batch, 5)`` with points ``(*batch, n, 2)``.

    Returns:
        ``(*points, 2)`` distorted normalised coordinates. Beyond :func:`invertible_radius` the formula folds
        back, as OpenCV's does.

    Example:
        >>> distort(torch.tensor([0.5, 0.0]), torch.tensor([-0.2, 0.0, 0.0, 0.0, 0.0]))
        tensor([0.4750, 0.0000])
    """
    return _lens(xy, per_point(distortion, 1).to(xy))


def distortion_jacobian(
    xy: Float[Tensor, "*points 2"], distortion: Float[Tensor, "... 5"]
) -> Float[Tensor, "... 2 2"]:
    """The derivative of :func:`distort` by the ideal coordinates.

    Args:
        xy: ``(*points, 2)`` ideal coordinates ``(X/Z, Y/Z)``.
        distortion: ``(5,)`` k1 k2 p1 p2 k3 for all points, or ``(*batch, 5)`` with points ``(*batch, n, 2)``.

    Returns:
        ``(*points, 2, 2)``, row i the gradient of distorted coordinate i; symmetric.

    Example:
        >>> distortion_jacobian(torch.tensor([1.0, 0.0]), torch.tensor([-0.1, 0.0, 0.0, 0.0, 0.0]))
        tensor([[0.7000, 0.0000],
                [0.0000, 0.9000]])
    """
    return _lens_jacobian(xy, per_point(distortion, 1).to(xy))


def invertible_radius(distortion: Float[Tensor, "*batch 5"]) -> Float[Tensor, "*batch"]:
    """Up to which ideal radius the radial model is one to one.

    Its square is the least positive root u of ``1 + 3 k1 u + 5 k2 u^2 + 7 k3 u^3 = 0``, the derivative of
    ``r (1 + k1 r^2 + k2 r^4 + k3 r^6)``; solving for ``1 / u`` keeps the cubic monic when k3 is 0.

    Args:
        distortion: ``(*batch, 5)`` k1 k2 p1 p2 k3.

    Returns:
        ``(*batch,)`` normalised radius, infinite where the model never folds; carries no gradient.

    Example:
        >>> invertible_radius(torch.tensor([-0.3, 0.0, 0.0, 0.0, 0.0], dtype=torch.float64)) ** 2
        tensor(1.1111, dtype=torch.float64)
    """
    k1, k2, _, _, k3 = distortion.detach().double().unbind(-1)
    companion = torch.zeros(*k1.shape, 3, 3, dtype=torch.float64, device=k1.device)
    companion[..., 0, :] = -torch.stack([3 * k1, 5 * k2, 7 * k3], -1)
    companion[..., 1, 0] = companion[..., 2, 1] = 1
    roots = torch.linalg.eigvals(companion)
    scale = companion[..., 0, :].abs().amax(-1, keepdim=True)
    real = (roots.imag.abs() <= 1e-9 * (1 + scale)) & (roots.real > 1e-12 * scale)
    largest = torch.where(real, roots.real, 0.0).amax(-1)
    return largest.reciprocal().sqrt().to(distortion.dtype)  # 1 / 0 is the wanted infinity


def undistort(xy: Float[Tensor, "*points 2"], distortion: Float[Tensor, "... 5"]) -> Undistorted:
    """Find the ideal points that the lens images at the given ones: the exact inverse of :func:`distort`.

    Safeguarded Newton on the radius gives the start, Newton on both coordinates the answer. The gradient is
    the implicit function's, ``dx = J^-1 (dx_d - d distort/dk dk)``, whatever the number of iterations (first
    derivatives only).

    Args:
        xy: ``(*points, 2)`` distorted normalised coordinates.
        distortion: ``(5,)`` k1 k2 p1 p2 k3 for all points, or ``(*batch, 5)`` with points ``(*batch, n, 2)``.

    Returns:
        ``xy`` ``(*points, 2)``, NaN where ``valid`` ``(*points,)`` is False: a NaN came in, or the point lies
        beyond what the lens model can image.

    Example:
        >>> barrel = torch.tensor([-0.2, 0.0, 0.0, 0.0, 0.0])
        >>> undistort(torch.tensor([[0.475, 0.0], [2.0, 0.0]]), barrel)
        Undistorted(xy=tensor([[0.5000, 0.0000],
                [   nan,    nan]]), valid=tensor([ True, False]))
    """
    coefficients = per_point(distortion, 1).to(xy)
    with torch.no_grad():
        ideal, valid = _solve(xy, coefficients)
        ideal = torch.where(valid[..., None], ideal, 0.0)
        slope = _lens_jacobian(ideal, coefficients)
    # One more Newton step, from a constant start with a constant slope: its derivative is the implicit one.
    step = _solve_2x2(slope, xy - _lens(ideal, coefficients))
    return Undistorted(torch.where(valid[..., None], ideal + step, torch.nan), valid)


def undistort_pixels(
    px: Float[Tensor, "*points 2"], K: Float[Tensor, "... 3 3"], distortion: Float[Tensor, "... 5"]
) -> Undistorted:
    """Move pixels to where a camera with the same K and no distortion would see them.

    Args:
        px: ``(*points, 2)`` pixels of the picture as the camera delivers it.
        K: ``(3, 3)`` or ``(*batch, 3, 3)`` pixels.
        distortion: ``(5,)`` or ``(*batch, 5)`` k1 k2 p1 p2 k3.

    Returns:
        Pixels ``(*points, 2)``, NaN where ``valid`` is False (see :func:`undistort`).

    Example:
        >>> K = torch.tensor([[100.0, 0, 50], [0, 100, 50], [0, 0, 1]])
        >>> undistort_pixels(torch.tensor([97.5, 50.0]), K, torch.tensor([-0.2, 0.0, 0.0, 0.0, 0.0])).xy
        tensor([100.,  50.])
    """
    # Zeros stand in for what is not valid, lest NaN times zero come into the gradient of K.
    known = px.isfinite().all(-1)
    xy, valid = undistort(to_normalised(torch.where(known[..., None], px, 0.0), K), distortion)
    valid = valid & known
    ideal = to_pixels(torch.where(valid[..., None], xy, 0.0), K)
    return Undistorted(torch.where(valid[..., None], ideal, torch.nan), valid)


def distort_pixels(
    px: Float[Tensor, "*points 2"], K: Float[Tensor, "... 3 3"], distortion: Float[Tensor, "... 5"]
) -> Float[Tensor, "... 2"]:
    """Move pixels of an ideal camera to where the real lens images them, the inverse of undistort_pixels.

    Args:
        px: ``(*points, 2)`` pixels of the camera without distortion.
        K: ``(3, 3)`` or ``(*batch, 3, 3)`` pixels.
        distortion: ``(5,)`` or ``(*batch, 5)`` k1 k2 p1 p2 k3.

    Returns:
        ``(*points, 2)`` pixels of the picture as the camera delivers it.

    Example:
        >>> K = torch.tensor([[100.0, 0, 50], [0, 100, 50], [0, 0, 1]])
        >>> distort_pixels(torch.tensor([100.0, 50.0]), K, torch.tensor([-0.2, 0.0, 0.0, 0.0, 0.0]))
        tensor([97.5000, 50.0000])
    """
    return to_pixels(distort(to_normalised(px, K), distortion), K)


def _lens(xy: Tensor, coefficients: Tensor) -> Tensor:
    k1, k2, p1, p2, k3 = coefficients.unbind(-1)
    x, y = xy.unbind(-1)
    xx, yy, xy2 = x * x, y * y, 2 * x * y
    r2 = xx + yy
    radial = 1 + r2 * (k1 + r2 * (k2 + r2 * k3))
    return torch.stack(
        [x * radial + p1 * xy2 + p2 * (r2 + 2 * xx), y * radial + p1 * (r2 + 2 * yy) + p2 * xy2], -1
    )


def _solve(target: Tensor, coefficients: Tensor) -> tuple[Tensor, Tensor]:
    limit = invertible_radius(coefficients)
    radius = torch.linalg.vector_norm(target, dim=-1)
    ideal = target * (_solve_radius(radius, coefficients, limit) / radius.clamp_min(1e-30))[..., None]
    eps = torch.finfo(target.dtype).eps
    for _ in range(_PLANAR_STEPS):
        step = _solve_2x2(_lens_jacobian(ideal, coefficients), target - _lens(ideal, coefficients))
        # Tangential terms move the solution by little; a longer step is a singular Jacobian at the fold.
        length = torch.linalg.vector_norm(step, dim=-1, keepdim=True)
        ideal = ideal + step * (0.1 / length.clamp_min(0.1))
        if not (length > 4 * eps).any():
            break
    error = torch.linalg.vector_norm(target - _lens(ideal, coefficients), dim=-1)
    found = torch.linalg.vector_norm(ideal, dim=-1)
    valid = (error <= 64 * eps * (1 + radius)) & (found <= limit * (1 + 1e-6))
    return ideal, valid & (_determinant(_lens_jacobian(ideal, coefficients)) > 0)


def _solve_radius(target: Tensor, coefficients: Tensor, limit: Tensor) -> Tensor:
    """The r in [0, limit] with ``r (1 + k1 r^2 + ...) = target``, or ``limit`` where there is none."""
    k1, k2, _, _, k3 = coefficients.unbind(-1)
    low, high = torch.zeros_like(target), limit.expand(target.shape).clone()
    radius = torch.minimum(target, high)
    change = torch.full_like(target, torch.inf)
    for _ in range(_RADIAL_STEPS):
        u = radius * radius
        excess = radius * (1 + u * (k1 + u * (k2 + u * k3))) - target
        low, high = torch.where(excess < 0, radius, low), torch.where(excess > 0, radius, high)
        newton = radius - excess / (1 + u * (3 * k1 + u * (5 * k2 + u * 7 * k3)))
        halved = torch.where(high.isfinite(), (low + high) / 2, 2 * low + target)
        # A step that is not half as long as the last may be one of a cycle; halving the bracket ends it.
        trusted = (newton >= low) & (newton <= high) & ((newton - radius).abs() <= change / 2)
        moved = torch.where(trusted, newton, halved)
        change, radius = (moved - radius).abs(), moved
        if not (change > 1e-3 * radius).any():  # a start for the planar Newton, not the answer
            break
    return radius


def _lens_jacobian(xy: Tensor, coefficients: Tensor) -> Tensor:
    k1, k2, p1, p2, k3 = coefficients.unbind(-1)
    x, y = xy.unbind(-1)
    r2 = x * x + y * y
    radial = 1 + r2 * (k1 + r2 * (k2 + r2 * k3))
    slope = 2 * (k1 + r2 * (2 * k2 + r2 * 3 * k3))  # d radial / dx = slope x
    cross = slope * x * y + 2 * p1 * x + 2 * p2 * y
    across = radial + slope * x * x + 2 * p1 * y + 6 * p2 * x
    down = radial + slope * y * y + 6 * p1 * y + 2 * p2 * x
    return torch.stack([torch.stack([across, cross], -1), torch.stack([cross, down], -1)], -2)


def _determinant(matrix: Tensor) -> Tensor:
    return matrix[..., 0, 0] * matrix[..., 1, 1] - matrix[..., 0, 1] * matrix[..., 1, 0]


def _solve_2x2(matrix: Tensor, right: Tensor) -> Tensor:
    (a, b), (c, d) = (row.unbind(-1) for row in matrix.unbind(-2))
    x, y = right.unbind(-1)
    return torch.stack([d * x - b * y, a * y - c * x], -1) / _determinant(matrix)[..., None]
