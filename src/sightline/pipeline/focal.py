"""The camera of a source: from a file, a number, the picture's EXIF, or found from the objects themselves."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sightline.formats.camera_json import read_camera
from sightline.formats.exif import camera_from_exif
from sightline.geometry.cameras import Camera
from sightline.geometry.pnp import PosedView, refine_shared_focal, solve_pnp
from sightline.objects.checks import check_camera, raise_faults
from sightline.pipeline.estimate import FoundObject, PoseEstimator
from sightline.pipeline.sources import Frame, Source

_SAMPLED_FRAMES = 16
_ROUNDS = 2  # of guided matching: the first finds more matches, the second settles
_ENOUGH_INLIERS = 12  # of a view whose focal length is free
_UNSURE = 0.5  # standard deviation over focal length above which an estimate is none


@dataclass(frozen=True, eq=False)
class ChosenCamera:
    """A camera and how it is known.

    Args:
        camera: the camera.
        reason: in words, for the user.
        focal_std_px: how sure an estimated focal length is, pixels; None for a given one.
    """

    camera: Camera
    reason: str
    focal_std_px: float | None = None


def choose_camera(
    source: Source,
    estimator: PoseEstimator | None,
    *,
    camera_file: Path | None = None,
    focal: float | str | None = None,
) -> ChosenCamera:
    """Find out with which camera a source was taken.

    Args:
        source: pictures of one size.
        estimator: whose objects the focal length may be estimated from; None where there is none.
        camera_file: a JSON file with the camera.
        focal: focal length in pixels, or ``auto`` to estimate it.

    Returns:
        The camera and where it comes from.

    Raises:
        ValueError: nothing is known, or the objects do not tell.
    """
    first = source.sample(1)[0]
    height, width = first.image.shape[:2]
    if camera_file is not None:
        camera = read_camera(camera_file, (width, height))
        raise_faults(check_camera(camera), source=str(camera_file))
        return ChosenCamera(camera, f"read from {camera_file}")
    if focal == "auto":
        if estimator is None:
            raise ValueError("--focal auto: expected a matcher of cards, which a closed-set network is not")
        return _estimate(source, estimator, width, height)
    if focal is not None:
        return ChosenCamera(
            Camera.from_focal(float(focal), width, height), f"focal length {focal} px as given"
        )
    if not source.is_video:
        known = camera_from_exif(source.files[0])
        if known is not None:
            return ChosenCamera(known.camera, f"focal length {known.camera.K[0, 0]:.0f} px, {known.source}")
    raise ValueError(
        f"{source.path}: the camera is not known; give --camera FILE, --focal PIXELS or --focal auto"
    )


def _estimate(source: Source, estimator: PoseEstimator, width: int, height: int) -> ChosenCamera:
    """Blind matches with a free focal length first, then one for the guided matches of all views."""
    frames = source.sample(_SAMPLED_FRAMES)
    guess = Camera.from_focal(1.2 * max(width, height), width, height)
    views = [view for frame in frames for view in _solve_freely(frame, estimator, guess)]
    if not views:
        raise ValueError(
            f"{source.path}: the focal length cannot be estimated, no object was found in "
            f"{len(frames)} pictures; give --focal PIXELS"
        )
    start = Camera.from_focal(float(np.median([view.focal_px for view in views])), width, height)
    camera = refine_shared_focal([view.posed for view in views], start).camera
    for _ in range(_ROUNDS):
        found = [one for frame in frames for one in estimator.find(frame.image, camera)]
        guided = [_supporting(one) for one in found if one.pose.valid]
        if not guided:
            break
        shared = refine_shared_focal(guided, camera)
        camera, std = shared.camera, shared.std_px
    else:
        if std < _UNSURE * float(camera.K[0, 0]):
            reason = (
                f"focal length {camera.K[0, 0]:.0f} +- {std:.0f} px, "
                f"estimated from {len(guided)} views of known objects"
            )
            return ChosenCamera(camera, reason, std)
    raise ValueError(
        f"{source.path}: the focal length cannot be estimated from {len(views)} uncertain views of known "
        "objects; give --focal PIXELS"
    )


@dataclass(frozen=True, eq=False)
class _FreeView:
    posed: PosedView
    focal_px: float


def _solve_freely(frame: Frame, estimator: PoseEstimator, guess: Camera) -> list[_FreeView]:
    """Pose and focal length of the best supported instance of each object in one picture."""
    features = estimator.matcher.describe(frame.image)
    tolerance = max(2.0, float(np.hypot(*guess.image_size)) / 200)
    views = []
    for card in estimator.cards:
        for group in estimator.matcher.match(features, card, max_groups=1):
            result = solve_pnp(
                group.points_2d,
                group.points_3d,
                guess,
                weights=group.weights,
                max_error_px=tolerance,
                estimate_focal=True,
            )
            if result.valid and result.focal_px is not None and result.num_inliers >= _ENOUGH_INLIERS:
                kept = group.select(result.inliers)
                posed = PosedView(kept.points_2d, kept.points_3d, result.cam_from_obj)
                views.append(_FreeView(posed, result.focal_px))
    return views


def _supporting(found: FoundObject) -> PosedView:
    assert found.correspondences is not None and found.pose.inliers is not None
    kept = found.correspondences.select(found.pose.inliers)
    return PosedView(kept.points_2d, kept.points_3d, found.pose.cam_from_obj)
