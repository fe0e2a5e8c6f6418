"""When a pose may be used: enough different inliers, that do not lie on a line, and that fix it."""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from sightline.geometry.pnp.robust import count_support, least_support
from sightline.geometry.pnp.solvers import spread_of_points

_LEAST_POINTS = 4  # three have up to four poses
_FLAT = 1e-2  # thickness of a planar set, in units of its longest extent
_THIN = 1e-3  # width of a collinear set, likewise
_LOOSE_ROTATION = math.radians(20.0)  # standard deviation of a rotation that its inliers do not fix
_LOOSE_DEPTH = 0.3  # likewise of a distance, in units of itself


def find_degeneracy(points_3d: Float[Tensor, "m 3"], noun: str = "correspondences") -> str:
    """Say why these points cannot fix a pose, whatever the noise.

    Args:
        points_3d: ``(m, 3)`` metres.
        noun: what to call them.

    Returns:
        The reason in words; empty where there is none.

    Example:
        >>> find_degeneracy(torch.arange(12.0).reshape(4, 3))
        'the correspondences lie on one line of the object'
    """
    if len(points_3d) < _LEAST_POINTS:
        return f"{len(points_3d)} {noun}, at least {_LEAST_POINTS} are needed"
    spread = spread_of_points(points_3d)
    longest, width, _ = spread.extents.tolist()
    if longest <= 1e-6 * float(spread.centre.abs().max()) or longest == 0:
        return f"the {noun} are all at the same point of the object"
    if width < _THIN * longest:
        return f"the {noun} lie on one line of the object"
    return ""


def is_planar(points_3d: Float[Tensor, "m 3"]) -> bool:
    """Whether points lie in a plane, to 1 % of their longest extent.

    Args:
        points_3d: ``(m, 3)`` metres, m >= 1.
    """
    longest, _, thickness = spread_of_points(points_3d).extents.tolist()
    return thickness < _FLAT * longest


def find_lack_of_support(
    points_2d: Float[Tensor, "m 2"],
    inliers: Bool[Tensor, " m"],
    *,
    max_error_px: float,
    trials: int,
    min_inliers: int | None,
) -> str:
    """Say whether a pose has fewer inliers than it needs.

    Args:
        points_2d: ``(m, 2)`` pixels of all correspondences.
        inliers: ``(m,)`` those that agree with the pose.
        max_error_px: the reprojection error of an inlier, pixels.
        trials: how many poses were tried.
        min_inliers: how many are needed; None for as many different ones as rule out chance.

    Returns:
        The reason in words; empty where there is none.
    """
    count = int(inliers.sum())
    if min_inliers is not None:
        needed = max(min_inliers, _LEAST_POINTS)
        return "" if count >= needed else f"{count} inliers of {len(inliers)}, {needed} are needed"
    witness, needed = least_support(points_2d, max_error_px, trials)
    support = count_support(witness, inliers)
    if support >= max(needed, _LEAST_POINTS):
        return ""
    return (
        f"{support} different inliers of {len(inliers)} correspondences, chance explains up to {needed - 1}"
    )


def find_looseness(
    covariance: Float[Tensor, "6 6"], t: Float[Tensor, "3"], *, with_depth: bool = True
) -> str:
    """Say whether the inliers leave a pose open.

    Args:
        covariance: ``(6, 6)`` of ``(w, v)``, rad and m.
        t: ``(3,)`` the object's origin in the camera frame, metres.
        with_depth: judge the distance too (not where the focal length is unknown, which it goes with).

    Returns:
        The reason in words; empty where there is none.
    """
    if not bool(covariance.isfinite().all()):
        return "the inliers do not fix the pose"
    rotation = math.sqrt(float(torch.linalg.eigvalsh(covariance[:3, :3])[-1]))
    depth = math.sqrt(float(covariance[5, 5])) / max(float(torch.linalg.vector_norm(t)), 1e-9)
    if rotation > _LOOSE_ROTATION:
        return f"the inliers leave the rotation open by {math.degrees(rotation):.0f} degrees"
    if with_depth and depth > _LOOSE_DEPTH:
        return f"the inliers leave the distance open by {100 * depth:.0f} %"
    return ""
