"""The equations of rays on world points, their squares, and what minimises sums of them.

A view that sees a point at the ideal normalised position ``(x, y)`` gives two equations on the world point,
``x P_3 X = P_1 X`` and ``y P_3 X = P_2 X`` with ``P = [R | t]``. Squared and added they are a quadric ``N``
(4x4, one a view and point); of all views or of a pair of them, the sum is minimised by 3x3 solves.

The world's origin is moved between the cameras first and all is done in float64, whatever the input, because
squaring costs half the digits. Components stand on the leading axes, so that each operation runs over all
points at once; that is what makes this some ten times faster than batched 4x4 decompositions.
"""

from __future__ import annotations

from itertools import combinations_with_replacement
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from sightline.geometry.distortion import undistort
from sightline.geometry.intrinsics import to_normalised

_INVERSE_ITERATIONS = 2


class RayEquations(NamedTuple):
    """What v views say about n points, in a world whose origin is the middle of the cameras; components lead.

    Args:
        rows: ``(2, 4, *batch, v, n)`` the two equations of each ray on ``(X, 1)``.
        seen: ``(*batch, v, n)``; elsewhere the rows are finite but mean nothing.
        projections: ``(3, 4, *batch, v, 1)``, ``[R | t]`` from the moved world.
        focal: ``(2, *batch, v, 1)`` fx and fy, pixels.
        origin: ``(3, *batch, 1)`` where the moved origin lies in the world, metres.
    """

    rows: Float[Tensor, "2 4 *points"]
    seen: Bool[Tensor, "*points"]
    projections: Float[Tensor, "3 4 *views"]
    focal: Float[Tensor, "2 *views"]
    origin: Float[Tensor, "3 *origins"]


def ray_equations(
    px: Float[Tensor, "*batch v n 2"],
    K: Float[Tensor, "..."],
    cam_from_world: Float[Tensor, "..."],
    distortion: Float[Tensor, "..."] | None = None,
) -> RayEquations:
    """Turn pixels of v views into linear equations on world points.

    Args:
        px: ``(*batch, v, n, 2)`` pixels; NaN where a view has no point.
        K: ``(v, 3, 3)`` or ``(*batch, v, 3, 3)`` pixels.
        cam_from_world: ``(v, 4, 4)`` or ``(*batch, v, 4, 4)``, metres.
        distortion: ``(v, 5)`` or ``(*batch, v, 5)`` k1 k2 p1 p2 k3, or None.

    Returns:
        The equations in float64; a missing pixel, or one beyond what its lens can image, is not ``seen``.

    Raises:
        ValueError: K or the poses are not those of v views.

    Example:
        >>> one = torch.eye(3, dtype=torch.float64)[None], torch.eye(4, dtype=torch.float64)[None]
        >>> ray_equations(torch.tensor([[[0.5, 0.25]]]), *one).rows.squeeze()
        tensor([[-1.0000,  0.0000,  0.5000,  0.0000],
                [ 0.0000, -1.0000,  0.2500,  0.0000]], dtype=torch.float64)
    """
    batch, num_views = px.shape[:-3], px.shape[-3]
    for name, given, wanted in (("K", K, (3, 3)), ("cam_from_world", cam_from_world, (4, 4))):
        if given.shape[-3:] != (num_views, *wanted):
            expected = f"(..., {num_views}, {wanted[0]}, {wanted[1]}) for {num_views} views"
            raise ValueError(f"{name}: expected {expected}, got {tuple(given.shape)}")
    seen = px.isfinite().all(-1)
    xy = to_normalised(torch.where(seen[..., None], px, 0.0).double(), K)
    if distortion is not None:
        xy, valid = undistort(xy, distortion)
        seen = seen & valid
        xy = torch.where(seen[..., None], xy, 0.0)
    pose = cam_from_world.double().expand(*batch, num_views, 4, 4)
    rotation, shift = pose[..., :3, :3], pose[..., :3, 3:]
    origin = -(rotation.mT @ shift).mean(-3, keepdim=True).detach()
    projections = _lead(torch.cat([rotation, shift + rotation @ origin], -1), 2)[..., None]
    rows = _lead(xy, 1)[:, None] * projections[2] - projections[:2]
    focal = K.double().expand(*batch, num_views, 3, 3).diagonal(dim1=-2, dim2=-1)[..., :2]
    return RayEquations(rows, seen, projections, _lead(focal, 1)[..., None], _lead(origin[..., 0], 1))


def square_rows(rows: Float[Tensor, "2 4 *points"]) -> Float[Tensor, "10 *points"]:
    """Square equations into quadrics, ``N = rows^T rows``.

    Args:
        rows: ``(2, 4, *points)``.

    Returns:
        ``(10, *points)``, the upper triangle of N row by row: xx xy xz xw yy yz yw zz zw ww.

    Example:
        >>> square_rows(torch.tensor([[1.0, 2, 0, 0], [0, 1, 0, 1]]))
        tensor([1., 2., 0., 0., 5., 0., 1., 0., 0., 1.])
    """
    first, second = (row.unbind(0) for row in rows.unbind(0))
    upper = combinations_with_replacement(range(4), 2)
    return torch.stack([torch.addcmul(first[i] * first[j], second[i], second[j]) for i, j in upper])


def minimise(
    quadric: Float[Tensor, "10 *points"],
    determined: Bool[Tensor, "*points"],
    adjugate: Adjugate | None = None,
    *,
    origin: Float[Tensor, "3 *origins"] | None = None,
) -> Float[Tensor, "3 *points"]:
    """Find the Y that minimises ``h^T N h``, ``h = (Y, 1)``, or with an origin for unit ``(Y + origin, 1)``.

    Without an origin that is ``Y = -B^-1 c`` for ``N = [B c; c^T d]``. With one it is the eigenvector of N's
    least eigenvalue in the world's own frame, which inverse iteration finds from there:
    ``X <- X_0 + s B^-1 X / (1 + X_0 . X)`` with ``X = Y + origin`` and the least sum of squares ``s``.
    A last Newton step on the optimality condition, with constant slope, sharpens Y and carries the gradient.

    Args:
        quadric: ``(10, *points)``, see :func:`square_rows`.
        determined: ``(*points,)``; Y is 0 with zero gradient elsewhere.
        adjugate: that of B, where it is at hand.
        origin: ``(3, *points)``, or what broadcasts to it.

    Returns:
        ``(3, *points)``.

    Example:
        >>> rows = torch.tensor([[1.0, 0, 0, -2], [0, 1, 0, -3]])
        >>> other = torch.tensor([[0, 0, 1.0, -4], [0, 0, 0, 0]])
        >>> minimise(square_rows(rows) + square_rows(other), torch.tensor(True))
        tensor([2., 3., 4.])
    """
    xx, xy, xz, xw, yy, yz, yw, zz, zw, ww = quadric.unbind(0)
    B, c = (xx, xy, xz, yy, yz, zz), torch.stack([xw, yw, zw])
    with torch.no_grad():
        inverse = _inverse(adjugate or adjugate_of(quadric), determined)
        X = Y = -_times(inverse, c)
        if origin is not None:
            X = first = Y + origin
            least = (c * Y).sum(0) + ww
            for _ in range(_INVERSE_ITERATIONS):
                X = first + _times(inverse, X) * (least / (1 + (first * X).sum(0)))
            Y = X - origin
    slope = _times(B, Y) + c
    if origin is None:
        return Y - _times(inverse, slope)
    eigenvalue = ((Y * (slope + c)).sum(0) + ww) / (1 + (X * X).sum(0))
    with torch.no_grad():
        inverse = _inverse(adjugate_of(quadric, eigenvalue), determined)
    return Y - _times(inverse, slope - eigenvalue * X)


class Adjugate(NamedTuple):
    """The adjugate of B, the upper left 3x3 of a quadric, as xx xy xz yy yz zz, and B's determinant."""

    components: tuple[Tensor, ...]
    determinant: Tensor


def adjugate_of(quadric: Float[Tensor, "10 *points"], shift: Tensor | float = 0.0) -> Adjugate:
    """The adjugate of ``B - shift I``, B the upper left 3x3 of a quadric.

    Args:
        quadric: ``(10, *points)``, see :func:`square_rows`.
        shift: ``(*points,)`` or a number.

    Example:
        >>> adjugate_of(torch.tensor([2.0, 0, 0, 0, 3, 0, 0, 4, 0, 1])).determinant
        tensor(24.)
    """
    a, b, c, _, d, e, _, f, _, _ = quadric.unbind(0)
    a, d, f = a - shift, d - shift, f - shift
    xx, xy, xz = d * f - e * e, c * e - b * f, b * e - c * d
    return Adjugate((xx, xy, xz, a * f - c * c, b * c - a * e, a * d - b * b), a * xx + b * xy + c * xz)


def are_parallel(adjugate: Adjugate, min_parallax: float) -> Bool[Tensor, "*points"]:
    """Whether rays are parallel: the least eigenvalue of B, for two rays half their squared angle, is small.

    Args:
        adjugate: of unweighted quadrics; ``determinant / trace`` is the eigenvalue when it is small.
        min_parallax: radians between two rays.

    Returns:
        ``(*points,)``; True as well where fewer than two rays are.

    Example:
        >>> are_parallel(adjugate_of(torch.tensor([2.0, 0, 0, 0, 2, 0, 0, 1e-9, 0, 0])), 1e-3)
        tensor(True)
    """
    (xx, _, _, yy, _, zz), determinant = adjugate
    return ~(2 * determinant >= min_parallax**2 * (xx + yy + zz).clamp_min(1e-30))


def _lead(tensor: Tensor, count: int) -> Tensor:
    """Move the last ``count`` axes to the front."""
    return tensor.movedim(tuple(range(-count, 0)), tuple(range(count)))


def _inverse(adjugate: Adjugate, determined: Tensor) -> tuple[Tensor, ...]:
    scale = torch.where(determined, 1 / adjugate.determinant, 0.0)
    return tuple(component * scale for component in adjugate.components)


def _times(symmetric: tuple[Tensor, ...], vector: Tensor) -> Tensor:
    xx, xy, xz, yy, yz, zz = symmetric
    x, y, z = vector
    rows = ((xx, xy, xz), (xy, yy, yz), (xz, yz, zz))
    return torch.stack([torch.addcmul(torch.addcmul(a * x, b, y), c, z) for a, b, c in rows])
