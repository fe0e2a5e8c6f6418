"""What is known of a scene before looking: an object's size, the table that it stands on, how it stands."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def depth_prior(
    box_size: Float[Tensor, "*#batch 2"],
    object_size: Float[Tensor, "*#batch 2"],
    focal: Float[Tensor, "*#batch 2"],
) -> Float[Tensor, "*#batch"]:
    """How deep an object of a known size lies that is seen in a box: the mean of ``fx W / w, fy H / h``.

    Args:
        box_size: ``(*batch, 2)`` width and height of the box, pixels; below one pixel counts as one.
        object_size: ``(*batch, 2)`` width and height of the object, metres.
        focal: ``(*batch, 2)`` fx and fy, pixels.

    Returns:
        ``(*batch)`` metres.

    Example:
        >>> depth_prior(torch.tensor([20.0, 40.0]), torch.tensor([0.2, 0.2]), torch.tensor([500.0, 500.0]))
        tensor(3.7500)
    """
    return (focal * object_size / box_size.clamp_min(1.0)).mean(-1)


def height_above_plane(
    points: Float[Tensor, "*#batch 3"], plane: Float[Tensor, "*#batch 4"]
) -> Float[Tensor, "*#batch"]:
    """The signed distance ``n . x + d`` of points from a plane, positive on the side that n points to.

    Args:
        points: ``(*batch, 3)`` metres.
        plane: ``(*batch, 4)`` n of unit length and d, metres, in the frame of the points.

    Returns:
        ``(*batch)`` metres.

    Example:
        >>> height_above_plane(torch.tensor([0.0, 0.2, 1.0]), torch.tensor([0.0, -1.0, 0.0, 0.5]))
        tensor(0.3000)
    """
    return (plane[..., :3] * points).sum(-1) + plane[..., 3]


def roll_pitch_yaw(R: Float[Tensor, "*batch 3 3"]) -> Float[Tensor, "*batch 3"]:
    """The angles of turns about x, then y, then z: ``R = R_z(yaw) R_y(pitch) R_x(roll)``.

    Values and gradients are finite also where the pitch is a right angle; there roll is 0.

    Args:
        R: ``(*batch, 3, 3)`` rotations.

    Returns:
        ``(*batch, 3)`` roll and yaw in [-pi, pi], pitch in [-pi/2, pi/2], radians.

    Example:
        >>> from sightline.geometry.rotations import exp
        >>> roll_pitch_yaw(exp(torch.tensor([0.0, 0.3, 0.0])))
        tensor([0.0000, 0.3000, 0.0000])
    """
    level = R[..., 2, 1].square() + R[..., 2, 2].square()
    upright = level > torch.finfo(R.dtype).eps
    pitch = torch.atan2(-R[..., 2, 0], torch.where(upright, level, torch.finfo(R.dtype).eps).sqrt())
    roll = torch.atan2(torch.where(upright, R[..., 2, 1], 0.0), torch.where(upright, R[..., 2, 2], 1.0))
    sine = torch.where(upright, R[..., 1, 0], -R[..., 0, 1])
    yaw = torch.atan2(sine, torch.where(upright, R[..., 0, 0], R[..., 1, 1]))
    return torch.stack([roll, pitch, yaw], -1)


def upright_violation(
    R: Float[Tensor, "*#batch 3 3"], ranges: Float[Tensor, "*#batch 2 2"]
) -> Float[Tensor, "*#batch 2"]:
    """By how much roll and pitch leave the ranges that are allowed.

    Args:
        R: ``(*batch, 3, 3)`` rotations, of the object in a frame in which roll and pitch say how it stands.
        ranges: ``(*batch, 2, 2)`` least and greatest roll; least and greatest pitch, radians.

    Returns:
        ``(*batch, 2)`` radians, 0 within the range.

    Example:
        >>> from sightline.geometry.rotations import exp
        >>> ranges = torch.tensor([[-0.1, 0.1], [-0.1, 0.1]])
        >>> upright_violation(exp(torch.tensor([0.3, 0.0, 0.0])), ranges)
        tensor([0.2000, 0.0000])
    """
    angles = roll_pitch_yaw(R)[..., :2]
    return (ranges[..., 0] - angles).clamp_min(0) + (angles - ranges[..., 1]).clamp_min(0)
