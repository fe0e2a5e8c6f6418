"""A pose in plain words: how far, how turned, how sure, in millimetres and degrees, which people read."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from sightline.geometry.quaternions import quaternion_wxyz_from_matrix
from sightline.geometry.rotations import log
from sightline.records import PoseEstimate
from sightline.vis.canvas import as_array


class PoseUncertainty(NamedTuple):
    """Standard deviations of a pose, each in its least certain direction.

    Args:
        along: of the position along the line of sight, metres.
        across: of the position across it, metres.
        rotation: of the rotation, radians.
    """

    along: float
    across: float
    rotation: float


def pose_uncertainty(pose: PoseEstimate) -> PoseUncertainty | None:
    """What the covariance of a pose says, one standard deviation.

    Args:
        pose: an estimate, with a covariance or without.

    Returns:
        The three numbers, or None where the pose is invalid or carries no finite covariance.

    Example:
        >>> import torch
        >>> covariance = torch.diag(torch.tensor([1e-4, 1e-4, 1e-4, 1e-6, 1e-6, 1e-4])).double()
        >>> R, t = torch.eye(3, dtype=torch.float64), torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)
        >>> [round(x, 4) for x in pose_uncertainty(PoseEstimate(R, t, 1.0, True, covariance))]
        [0.01, 0.001, 0.01]
    """
    if not pose.valid or pose.covariance is None:
        return None
    covariance = as_array(pose.covariance).astype(np.float64)
    if not np.isfinite(covariance).all():
        return None
    sight = as_array(pose.t).astype(np.float64)
    sight = sight / max(float(np.linalg.norm(sight)), 1e-12)
    beside = np.eye(3) - np.outer(sight, sight)
    rotation, position = covariance[:3, :3], covariance[3:, 3:]
    variances = (sight @ position @ sight, _largest(beside @ position @ beside), _largest(rotation))
    return PoseUncertainty(*(math.sqrt(max(float(variance), 0.0)) for variance in variances))


def format_length(metres: float, *, digits: int = 3) -> str:
    """A length as people write it: millimetres below one metre, else metres.

    Args:
        metres: any number; NaN is said to be unknown.
        digits: how many significant digits to keep, at least those before the point.

    Returns:
        For example "642 mm" or "1.24 m".

    Example:
        >>> format_length(0.6418), format_length(1.2351), format_length(0.00042), format_length(float("nan"))
        ('642 mm', '1.24 m', '0.420 mm', 'unknown')
    """
    if not math.isfinite(metres):
        return "unknown"
    value, unit = (metres * 1e3, "mm") if abs(metres) < 1 else (metres, "m")
    return f"{_significant(value, digits)} {unit}"


def format_angle(radians: float) -> str:
    """An angle in degrees with two significant digits below 10, one decimal above.

    Args:
        radians: any number; NaN is said to be unknown.

    Returns:
        For example "0.42°".

    Example:
        >>> format_angle(0.0073), format_angle(0.61), format_angle(float("nan"))
        ('0.42°', '35.0°', 'unknown')
    """
    if not math.isfinite(radians):
        return "unknown"
    degrees = math.degrees(radians)
    return f"{degrees:.1f}°" if abs(degrees) >= 10 else f"{_significant(degrees, 2)}°"


def describe_uncertainty(pose: PoseEstimate) -> str:
    """The covariance of a pose in one sentence, or that it is not known.

    Args:
        pose: an estimate.

    Returns:
        One standard deviation along the line of sight, across it, and of the rotation.

    Example:
        >>> describe_uncertainty(PoseEstimate.failure("hidden"))
        'not known'
    """
    sigma = pose_uncertainty(pose)
    if sigma is None:
        return "not known"
    along, across = (format_length(metres, digits=2) for metres in (sigma.along, sigma.across))
    return f"±{along} along the line of sight, ±{across} across it, ±{format_angle(sigma.rotation)}"


def label_pose(pose: PoseEstimate) -> str:
    """The short text that stands beside an object in a picture.

    Args:
        pose: an estimate.

    Returns:
        Name, score, distance and, where known, how sure both are, and whether another pose is borne out as
        well; for an invalid pose why there is none.

    Example:
        >>> import torch
        >>> R, t = torch.eye(3, dtype=torch.float64), torch.tensor([0.0, 0.0, 0.642], dtype=torch.float64)
        >>> label_pose(PoseEstimate(R, t, 0.931, True, name="mug"))
        'mug 0.93  642 mm'
        >>> label_pose(PoseEstimate.failure("3 matches, 4 are needed", name="box"))
        'box not found: 3 matches, 4 are needed'
    """
    name = pose.name or "object"
    if not pose.valid:
        return f"{name} not found: {pose.reason or 'no reason given'}"
    distance = float(np.linalg.norm(as_array(pose.t)))
    text = f"{name} {pose.score:.2f}{' or another side' * bool(pose.alternatives)}  {format_length(distance)}"
    sigma = pose_uncertainty(pose)
    if sigma is None:
        return text
    return (
        f"{text} ±{format_length(max(sigma.along, sigma.across), digits=2)} ±{format_angle(sigma.rotation)}"
    )


def describe_pose(pose: PoseEstimate) -> dict[str, str]:
    """All that a pose says of itself, as names and values for a reader.

    Args:
        pose: an estimate.

    Returns:
        For a valid pose its position, rotation (about which axis, and as a quaternion in the order w x y z),
        score, support and certainty; for an invalid one the reason alone.

    Example:
        >>> describe_pose(PoseEstimate.failure("hidden"))
        {'Found': 'no', 'Reason': 'hidden'}
    """
    if not pose.valid:
        return {"Found": "no", "Reason": pose.reason or "no reason given"}
    x, y, z = (float(value) for value in pose.t)
    turn = log(pose.R.double())
    angle = float(turn.norm())
    axis = (turn / max(angle, 1e-12)).tolist()
    quaternion = quaternion_wxyz_from_matrix(pose.R.double()).tolist()
    facts = {
        "Found": "yes",
        "Score": f"{pose.score:.3f}",
        "Position": f"{_numbers((1e3 * x, 1e3 * y, 1e3 * z), 1)} mm",
        "Position in metres": f"{_numbers((x, y, z), 4)} m",
        "Distance": format_length(math.sqrt(x * x + y * y + z * z), digits=4),
        "Rotation": f"{math.degrees(angle):.2f}° about ({_numbers(axis, 3)})",
        "Quaternion w x y z": _numbers(quaternion, 4),
        "Certainty (one sigma)": describe_uncertainty(pose),
    }
    if pose.inliers is not None:
        facts["Inliers"] = f"{pose.num_inliers} of {len(pose.inliers)} matches"
    if math.isfinite(pose.residual_px):
        facts["Median reprojection error"] = f"{pose.residual_px:.2f} px"
    if pose.focal_px is not None:
        facts["Focal length found"] = f"{pose.focal_px:.1f} px"
    if pose.reason:
        facts["Remark"] = pose.reason
    return facts


def _significant(value: float, digits: int) -> str:
    if value == 0:
        return "0"
    magnitude = math.floor(math.log10(abs(value)))
    return f"{value:.{max(0, digits - 1 - magnitude)}f}"


def _numbers(values: Iterable[float], decimals: int) -> str:
    # The sum with 0.0 turns a rounded -0.0 into 0.0.
    return ", ".join(f"{round(value, decimals) + 0.0:.{decimals}f}" for value in values)


def _largest(covariance: np.ndarray) -> float:
    return float(np.linalg.eigvalsh(covariance)[-1])
