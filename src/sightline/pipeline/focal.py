"""The camera of a source: from a file, a number, the picture's EXIF, or found from the objects themselves."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from sightline.formats.camera_json import read_camera
from sightline.formats.exif import camera_from_exif
from sightline.geometry.cameras import Camera
from sightline.geometry.pnp import refine_shared_focal, solve_pnp
from sightline.pipeline.estimate import PoseEstimator
from sightline.pipeline.sources import Source
from sightline.records import Correspondences

_SAMPLED_FRAMES = 16
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
    estimator: PoseEstimator,
    *,
    camera_file: Path | None = None,
    focal: float | str | None = None,
) -> ChosenCamera:
    """Find out with which camera a source was taken.

    Args:
        source: pictures of one size.
        estimator: whose objects the focal length may be estimated from.
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
        return ChosenCamera(read_camera(camera_file, (width, height)), f"read from {camera_file}")
    if focal == "auto":
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
    """Solve some frames with a free focal length, then one focal length for all of them together."""
    guess = Camera.from_focal(1.2 * max(width, height), width, height)
    solved: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = []
    focals: list[float] = []
    for frame in source.sample(_SAMPLED_FRAMES):
        features = estimator.matcher.describe(frame.image)
        for card in estimator.cards:
            groups = estimator.matcher.match(features, card, max_groups=1)
            if groups and len(groups[0]) >= 12:
                _collect(groups[0], guess, solved, focals)
    if not solved:
        raise ValueError(
            f"{source.path}: the focal length cannot be estimated, no object was found in "
            f"{_SAMPLED_FRAMES} frames; give --focal PIXELS"
        )
    start = Camera.from_focal(float(np.median(focals)), width, height)
    shared = refine_shared_focal(solved, start)
    if not shared.std_px < _UNSURE * shared.focal_px:
        raise ValueError(
            f"{source.path}: the focal length cannot be estimated, {len(solved)} views of known objects "
            f"leave {shared.focal_px:.0f} +- {shared.std_px:.0f} px; give --focal PIXELS"
        )
    reason = (
        f"focal length {shared.focal_px:.0f} +- {shared.std_px:.0f} px, "
        f"estimated from {len(solved)} views of known objects"
    )
    return ChosenCamera(shared.camera, reason, shared.std_px)


def _collect(
    group: Correspondences,
    guess: Camera,
    solved: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]],
    focals: list[float],
) -> None:
    tolerance = max(2.0, float(np.hypot(*guess.image_size)) / 200)
    result = solve_pnp(
        group.points_2d,
        group.points_3d,
        guess,
        weights=group.weights,
        max_error_px=tolerance,
        estimate_focal=True,
    )
    if result.valid and result.focal_px is not None and int(result.inliers.sum()) >= 12:
        kept = group.select(result.inliers)
        solved.append((kept.points_2d, kept.points_3d, result.cam_from_obj))
        focals.append(result.focal_px)
