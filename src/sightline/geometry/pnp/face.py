"""One picture's correspondences in, one pose or the plain statement that there is none out."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from sightline.geometry.cameras import Camera
from sightline.geometry.pnp.candidates import (
    WeightedPoints,
    choose_candidate,
    find_candidates,
    refine_candidates,
)
from sightline.geometry.pnp.levenberg import PosePrior
from sightline.geometry.pnp.robust import RansacOptions
from sightline.geometry.pnp.validity import (
    find_degeneracy,
    find_lack_of_support,
    find_looseness,
    is_planar,
)
from sightline.geometry.poses import make_pose, split_pose


@dataclass(frozen=True, eq=False)
class PnPResult:
    """A pose ``X_cam = R X_obj + t`` with how far to trust it; or, if not valid, NaN and the reason.

    Args:
        R: ``(3, 3)`` float64 rotation, object to camera; NaN if not valid.
        t: ``(3,)`` float64 metres; NaN if not valid.
        valid: whether the pose may be used.
        inliers: ``(m,)`` bool, the correspondences within ``max_error_px`` of the pose.
        covariance: ``(6, 6)`` of ``(w, v)`` in ``R' = exp(w) R``, ``t' = t + v``, rad and m; infinite if not
            valid.
        residual_px: the inliers' median reprojection error, pixels; NaN without inliers.
        reason: why the pose is not valid, or what is doubtful about a valid one; else empty.
        planar: the inliers lie in a plane.
        degenerate: the points cannot fix a pose whatever the noise: too few, in one point or on one line.
        ambiguous: a second, different pose explains the inliers nearly as well.
        alternative: ``(4, 4)`` that second pose, cam_from_obj, or None.
        focal_px: fx, pixels, where it was asked for.
        focal_std_px: its standard deviation, pixels.
    """

    R: Float[Tensor, "3 3"]
    t: Float[Tensor, "3"]
    valid: bool
    inliers: Bool[Tensor, " m"]
    covariance: Float[Tensor, "6 6"]
    residual_px: float = math.nan
    reason: str = ""
    planar: bool = False
    degenerate: bool = False
    ambiguous: bool = False
    alternative: Float[Tensor, "4 4"] | None = None
    focal_px: float | None = None
    focal_std_px: float | None = None

    @property
    def cam_from_obj(self) -> Float[Tensor, "4 4"]:
        """The pose as a matrix, NaN in its first three rows if not valid."""
        return make_pose(self.R, self.t)

    @property
    def num_inliers(self) -> int:
        """How many correspondences agree with the pose."""
        return int(self.inliers.sum())

    @classmethod
    def failure(
        cls,
        reason: str,
        inliers: Bool[Tensor, " m"],
        *,
        residual_px: float = math.nan,
        degenerate: bool = False,
    ) -> PnPResult:
        """No pose: NaN, and why."""
        nan = torch.full((3, 3), math.nan, dtype=torch.float64)
        unknown = torch.full((6, 6), math.inf, dtype=torch.float64)
        return cls(nan, nan[0].clone(), False, inliers, unknown, residual_px, reason, degenerate=degenerate)


def solve_pnp(
    points_2d: Float[Tensor, "..."],
    points_3d: Float[Tensor, "..."],
    camera: Camera,
    *,
    weights: Float[Tensor, "..."] | None = None,
    max_error_px: float = 3.0,
    min_inliers: int | None = None,
    prior_cam_from_obj: Float[Tensor, "4 4"] | None = None,
    prior_information: Float[Tensor, "6 6"] | None = None,
    estimate_focal: bool = False,
    max_iterations: int = 20_000,
    seed: int = 0,
) -> PnPResult:
    """Find the pose of an object from correspondences many of which may be wrong: ``x = pi(R X + t)``.

    LO-RANSAC on at most 2,000 correspondences, drawn by weight, gives a first pose; it, its mirror image
    across the line of sight (the second pose of a flat object) and the prior are refined together on *all*
    correspondences with Tukey's loss; the most likely one is the answer. It is valid when its inliers are
    more than chance explains and fix it; else the pose is NaN and ``reason`` says why.

    Args:
        points_2d: ``(m, 2)`` pixels as the camera delivers them.
        points_3d: ``(m, 3)`` metres, object frame.
        camera: intrinsics and distortion. With ``estimate_focal`` its focal length is only a first guess.
        weights: ``(m,)`` non-negative, proportional to the inverse standard deviation of the pixel; zero
            leaves a correspondence out. None for ones.
        max_error_px: the reprojection error up to which a correspondence is an inlier, pixels.
        min_inliers: how many a valid pose needs; by default as many different ones as rule out chance (see
            :func:`sightline.geometry.pnp.robust.least_support`). Give 4 for a few points picked by hand.
        prior_cam_from_obj: ``(4, 4)`` where the object is expected, such as its last pose: one more start,
            and the judge between two poses that fit equally well.
        prior_information: ``(6, 6)`` inverse covariance of the prior by ``(w, v)``, 1/rad^2 and 1/m^2, where
            it is to weigh in like a measurement against pixels of one pixel standard deviation.
        estimate_focal: find the focal length too, between 0.4 and 4 times the picture's longer side.
        max_iterations: RANSAC samples at most.
        seed: of all random choices.

    Returns:
        The pose, or a failure; never a made-up pose.

    Raises:
        ValueError: unequal lengths, numbers that are not finite, negative weights, a prior of a lost object,
            or an error bound that is not positive.

    Example:
        >>> camera = Camera.from_focal(600.0, 640, 480)
        >>> X = 0.1 * torch.rand(50, 3, dtype=torch.float64)
        >>> x = camera.project(X + torch.tensor([0.0, 0.0, 0.5]))
        >>> found = solve_pnp(x, X, camera)
        >>> found.valid, found.num_inliers, round(float(found.t[2]), 6)
        (True, 50, 0.5)
        >>> solve_pnp(x[:3], X[:3], camera).reason
        '3 correspondences, at least 4 are needed'
    """
    if not max_error_px > 0:
        raise ValueError(f"max_error_px: expected a positive number of pixels, got {max_error_px}")
    if prior_cam_from_obj is not None and not bool(prior_cam_from_obj.isfinite().all()):
        raise ValueError("prior_cam_from_obj: expected finite numbers, or None where the object was lost")
    points, kept = _checked(points_2d, points_3d, weights)
    nobody = torch.zeros(len(points_2d), dtype=torch.bool)
    fault = find_degeneracy(points.points_3d)
    if fault:
        return PnPResult.failure(fault, nobody, degenerate=True)
    options = RansacOptions(max_error_px, max_iterations, seed)
    prior = None if prior_cam_from_obj is None else split_pose(prior_cam_from_obj.double().cpu())
    candidates = find_candidates(points, camera, prior, options, estimate_focal=estimate_focal)
    if candidates is None:
        agree = f"no 4 of {len(kept)} correspondences agree on a pose within {max_error_px:g} px"
        return PnPResult.failure(agree, nobody)
    gaussian = PosePrior(*prior, prior_information) if prior and prior_information is not None else None
    refined, sigma_px = refine_candidates(
        points, candidates, gaussian, max_error_px=max_error_px, refine_focal=estimate_focal
    )
    best, rival = choose_candidate(refined, sigma_px, prior[0] if prior else None)
    near = refined.residuals_px[best] <= max_error_px
    inliers = nobody.index_put((kept,), near)
    residual_px = float(refined.residuals_px[best][near].median()) if near.any() else math.nan
    fault = find_lack_of_support(
        points.points_2d,
        near,
        max_error_px=max_error_px,
        trials=candidates.trials,
        min_inliers=min_inliers,
    )
    thin = "" if fault else find_degeneracy(points.points_3d[near], "inliers")
    loose = find_looseness(refined.covariance[best], refined.t[best], with_depth=not estimate_focal)
    if fault or thin or loose:
        return PnPResult.failure(
            fault or thin or loose, inliers, residual_px=residual_px, degenerate=bool(thin)
        )
    focal_px = float(candidates.camera.K[0, 0] * refined.focal_scale[best])
    return PnPResult(
        refined.R[best],
        refined.t[best],
        True,
        inliers,
        refined.covariance[best],
        residual_px,
        reason="" if rival is None else "two poses explain the correspondences nearly equally well",
        planar=is_planar(points.points_3d[near]),
        ambiguous=rival is not None,
        alternative=None if rival is None else make_pose(refined.R[rival], refined.t[rival]),
        focal_px=focal_px if estimate_focal else None,
        focal_std_px=focal_px * float(refined.focal_scale_std[best]) if estimate_focal else None,
    )


def _checked(points_2d: Tensor, points_3d: Tensor, weights: Tensor | None) -> tuple[WeightedPoints, Tensor]:
    """The correspondences of positive weight in float64, and their numbers."""
    m = len(points_2d)
    if weights is None:
        weights = points_2d.new_ones(m)
    given = (("points_2d", points_2d, (m, 2)), ("points_3d", points_3d, (m, 3)), ("weights", weights, (m,)))
    for name, values, shape in given:
        if values.shape != shape:
            raise ValueError(f"{name}: expected shape {shape}, got {tuple(values.shape)}")
        if not bool(values.isfinite().all()):
            raise ValueError(f"{name}: expected finite numbers, got NaN or infinity")
    if bool((weights < 0).any()):
        raise ValueError(f"weights: expected non-negative numbers, got {float(weights.min())}")
    kept = weights.nonzero()[:, 0]
    points = WeightedPoints(*(values.detach().double().cpu()[kept] for _, values, _ in given))
    if len(kept):
        points = points._replace(weights=points.weights / points.weights.median())
    return points, kept
