"""Several poses for one picture, refined together on all correspondences, and the choice between them."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from sightline.geometry.cameras import Camera
from sightline.geometry.pnp.focal import find_pose_and_focal
from sightline.geometry.pnp.levenberg import PosePrior
from sightline.geometry.pnp.refine import RefinedPoses, refine_poses
from sightline.geometry.pnp.robust import RansacOptions, find_pose, sample_by_weight
from sightline.geometry.pnp.solvers import mirrored_pose, spread_of_points
from sightline.geometry.rotations import geodesic_distance

_TUKEY_SCALE = 2.0  # times max_error_px: an inlier at its bound still has half its weight, at twice that none
_LEAST_SIGMA_PX = 0.1  # no real pixel is better than this
_RAYLEIGH_MEDIAN = math.sqrt(2 * math.log(2))  # median length of a 2-D Gaussian vector of unit deviation
_GRADUATION = 1  # a mirrored pose or a prior starts farther away than RANSAC's
_FLAT_ENOUGH = 0.2  # thickness in units of the width, up to which a mirrored pose may look the same
_SAME_POSE = math.radians(3.0)  # refined poses nearer than this are one
_LIKELIHOOD_RATIO = 100.0  # a second pose that is less likely than this is no rival


class WeightedPoints(NamedTuple):
    """Correspondences in float64; weights have the median one."""

    points_2d: Float[Tensor, "m 2"]
    points_3d: Float[Tensor, "m 3"]
    weights: Float[Tensor, " m"]

    def select(self, keep: Tensor) -> WeightedPoints:
        """Those that a mask or an index selects."""
        return WeightedPoints(self.points_2d[keep], self.points_3d[keep], self.weights[keep])


class Candidates(NamedTuple):
    """Poses to descend from, the camera they belong to, and how many poses were tried to find them."""

    camera: Camera
    R: Float[Tensor, "k 3 3"]
    t: Float[Tensor, "k 3"]
    trials: int


def find_candidates(
    points: WeightedPoints,
    camera: Camera,
    prior: tuple[Tensor, Tensor] | None,
    options: RansacOptions,
    *,
    estimate_focal: bool,
) -> Candidates | None:
    """The prior, RANSAC's pose and, of flat points, its mirror image; None where there is no pose at all."""
    x, X, _ = points.select(sample_by_weight(points.weights, seed=options.seed))
    if estimate_focal:
        camera, hypothesis = find_pose_and_focal(x, X, camera, options) or (camera, None)
    else:
        hypothesis = find_pose(x, X, camera.K, camera.distortion, options, prior=prior)
    poses = [] if prior is None else [prior]
    trials = 1
    if hypothesis is not None:
        R, t, trials = hypothesis
        error = torch.linalg.vector_norm(camera.project(X @ R.mT + t) - x, dim=-1)
        near = X[error <= _TUKEY_SCALE * options.max_error_px]
        poses += [(R, t), *_mirrored_if_flat(near, R, t)]
    if not poses:
        return None
    return Candidates(camera, torch.stack([R for R, _ in poses]), torch.stack([t for _, t in poses]), trials)


def refine_candidates(
    points: WeightedPoints,
    candidates: Candidates,
    prior: PosePrior | None,
    *,
    max_error_px: float,
    refine_focal: bool,
) -> tuple[RefinedPoses, float]:
    """Descend from each candidate on all points with Tukey's loss.

    Args:
        points: the m correspondences.
        candidates: k poses.
        prior: of one pose, or None.
        max_error_px: the reprojection error of an inlier, pixels.
        refine_focal: also free the focal length.

    Returns:
        k refined poses whose ``focal_scale`` counts from the candidates' camera, and the standard deviation
        of the best one's inliers in pixels.
    """
    count = len(candidates.t)
    camera = candidates.camera
    if prior is not None:
        prior = PosePrior(*(field.double().expand(count, *field.shape) for field in prior))
    refined = refine_poses(
        points.points_2d.expand(count, -1, -1),
        points.points_3d.expand(count, -1, -1),
        camera.K,
        candidates.R,
        candidates.t,
        weights=points.weights.expand(count, -1),
        distortion=camera.distortion,
        loss="tukey",
        scale_px=_TUKEY_SCALE * max_error_px,
        prior=prior,
        refine_focal=refine_focal,
        graduation=0 if count == 1 else _GRADUATION,
    )
    best = int(refined.cost.nan_to_num(torch.inf).argmin())
    return refined, _noise(refined.residuals_px[best], max_error_px)


def choose_candidate(
    refined: RefinedPoses, sigma_px: float, expected_R: Float[Tensor, "3 3"] | None
) -> tuple[int, int | None]:
    """The most likely pose, and a rival that the pixels cannot tell from it.

    Two poses with costs ``c`` have the likelihood ratio ``exp((c_1 - c_2) / (2 sigma^2))``. Between rivals
    the expected rotation decides.

    Args:
        refined: k poses.
        sigma_px: standard deviation of the pixels.
        expected_R: ``(3, 3)`` rotation of the prior, or None.

    Returns:
        The number of the answer, and that of its rival or None.
    """
    cost = refined.cost.nan_to_num(torch.inf)
    best = int(cost.argmin())
    away = geodesic_distance(refined.R, refined.R[best])
    near = cost - cost[best] < 2 * math.log(_LIKELIHOOD_RATIO) * sigma_px**2
    rivals = ((away > _SAME_POSE) & near).nonzero()[:, 0]
    if len(rivals) == 0:
        return best, None
    rival = int(rivals[cost[rivals].argmin()])
    if expected_R is not None:
        to_best, to_rival = (float(geodesic_distance(refined.R[i], expected_R)) for i in (best, rival))
        if to_rival < to_best:
            return rival, best
    return best, rival


def _mirrored_if_flat(points_3d: Tensor, R: Tensor, t: Tensor) -> list[tuple[Tensor, Tensor]]:
    if len(points_3d) < 3:
        return []
    centre, axes, extents = spread_of_points(points_3d)
    flat = bool(extents[2] <= _FLAT_ENOUGH * extents[1])
    return [mirrored_pose(R, t, centre, axes[:, 2])] if flat else []


def _noise(residuals_px: Float[Tensor, " m"], max_error_px: float) -> float:
    """The standard deviation of the inliers' pixels, from their median length, for six fitted parameters."""
    near = residuals_px[residuals_px <= max_error_px]
    if len(near) < 4:
        return max_error_px
    freedom = 2 * len(near) / (2 * len(near) - 6)
    return max(float(near.median()) / _RAYLEIGH_MEDIAN * freedom**0.5, _LEAST_SIGMA_PX)
