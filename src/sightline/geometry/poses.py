"""Rigid transforms as 4x4 matrices named ``b_from_a``: they map column vectors of frame a into frame b.

The names cancel along a chain: ``cam_from_obj = cam_from_world @ world_from_obj``. Lengths are metres and
cameras are OpenCV's (x right, y down, z forward).
"""

from __future__ import annotations

import functools

import torch
from jaxtyping import Float
from torch import Tensor

from sightline.geometry.rotations import exp


def make_pose(R: Float[Tensor, "*#batch 3 3"], t: Float[Tensor, "*#batch 3"]) -> Float[Tensor, "*#batch 4 4"]:
    """Put a rotation and a translation into one matrix ``[[R, t], [0, 1]]``.

    Args:
        R: ``(*batch, 3, 3)`` rotations from frame a to frame b.
        t: ``(*batch, 3)`` metres, the origin of frame a in frame b; broadcasts against ``R``.

    Returns:
        ``(*batch, 4, 4)`` transforms ``b_from_a``.

    Example:
        >>> make_pose(torch.eye(3), torch.tensor([1.0, 2.0, 3.0]))[:, 3]
        tensor([1., 2., 3., 1.])
    """
    batch = torch.broadcast_shapes(R.shape[:-2], t.shape[:-1])
    upper = torch.cat([R.expand(*batch, 3, 3), t.expand(*batch, 3)[..., None]], dim=-1)
    lower = upper.new_tensor([0.0, 0.0, 0.0, 1.0]).expand(*batch, 1, 4)
    return torch.cat([upper, lower], dim=-2)


def split_pose(
    b_from_a: Float[Tensor, "*batch 4 4"],
) -> tuple[Float[Tensor, "*batch 3 3"], Float[Tensor, "*batch 3"]]:
    """Take a transform apart into its rotation and its translation.

    Args:
        b_from_a: ``(*batch, 4, 4)`` transforms.

    Returns:
        ``R`` ``(*batch, 3, 3)`` and ``t`` ``(*batch, 3)`` in metres, views of the input.

    Example:
        >>> R, t = split_pose(torch.eye(4))
        >>> t
        tensor([0., 0., 0.])
    """
    return b_from_a[..., :3, :3], b_from_a[..., :3, 3]


def invert(b_from_a: Float[Tensor, "*batch 4 4"]) -> Float[Tensor, "*batch 4 4"]:
    """Invert rigid transforms: ``R' = R^T``, ``t' = -R^T t``.

    Args:
        b_from_a: ``(*batch, 4, 4)`` transforms whose rotation is orthonormal.

    Returns:
        ``(*batch, 4, 4)`` transforms ``a_from_b``.

    Example:
        >>> invert(make_pose(torch.eye(3), torch.tensor([1.0, 2.0, 3.0])))[:3, 3]
        tensor([-1., -2., -3.])
    """
    R, t = split_pose(b_from_a)
    return make_pose(R.mT, -(R.mT @ t[..., None])[..., 0])


def compose(*chain: Float[Tensor, "*#batch 4 4"]) -> Float[Tensor, "*#batch 4 4"]:
    """Multiply a chain of transforms, left to right as written: ``d_from_c, c_from_b, b_from_a``.

    Args:
        chain: one or more ``(*batch, 4, 4)`` transforms, whose batch axes broadcast.

    Returns:
        ``(*batch, 4, 4)`` the transform ``d_from_a``.

    Raises:
        ValueError: nothing to compose.

    Example:
        >>> step = make_pose(torch.eye(3), torch.tensor([1.0, 0.0, 0.0]))
        >>> compose(step, step, step)[0, 3].item()
        3.0
    """
    if not chain:
        raise ValueError("compose: expected at least one transform, got none")
    return functools.reduce(torch.matmul, chain)


def relative(
    a_from_w: Float[Tensor, "*#batch 4 4"], b_from_w: Float[Tensor, "*#batch 4 4"]
) -> Float[Tensor, "*#batch 4 4"]:
    """The transform from frame a to frame b, where both are known from a third frame w.

    Args:
        a_from_w: ``(*batch, 4, 4)`` transforms into a.
        b_from_w: ``(*batch, 4, 4)`` transforms into b.

    Returns:
        ``(*batch, 4, 4)`` transforms ``b_from_a = b_from_w @ w_from_a``.

    Example:
        >>> at_1 = make_pose(torch.eye(3), torch.tensor([1.0, 0.0, 0.0]))
        >>> at_3 = make_pose(torch.eye(3), torch.tensor([3.0, 0.0, 0.0]))
        >>> relative(at_1, at_3)[0, 3].item()
        2.0
    """
    return b_from_w @ invert(a_from_w)


def transform(
    b_from_a: Float[Tensor, "*#batch 4 4"], points_a: Float[Tensor, "*#batch n 3"]
) -> Float[Tensor, "*#batch n 3"]:
    """Move points from frame a to frame b: ``X_b = R X_a + t``.

    Args:
        b_from_a: ``(*batch, 4, 4)`` transforms.
        points_a: ``(*batch, n, 3)`` points in frame a, metres; the batch axes broadcast.

    Returns:
        ``(*batch, n, 3)`` points in frame b, metres.

    Example:
        >>> shift = make_pose(torch.eye(3), torch.tensor([0.0, 0.0, 2.0]))
        >>> transform(shift, torch.zeros(1, 3))
        tensor([[0., 0., 2.]])
    """
    R, t = split_pose(b_from_a)
    return points_a @ R.mT + t[..., None, :]


def turn_about(
    axis: Float[Tensor, "*#batch 3"], point: Float[Tensor, "*#batch 3"], angle: Float[Tensor, "*#batch"]
) -> Float[Tensor, "*#batch 4 4"]:
    """Turn by an angle about an axis that need not pass through the origin: ``t = point - R point``.

    Args:
        axis: ``(*batch, 3)`` unit vectors.
        point: ``(*batch, 3)`` metres, a point on each axis.
        angle: ``(*batch)`` radians.

    Returns:
        ``(*batch, 4, 4)`` motions within one frame.

    Example:
        >>> x, y, z = torch.eye(3)
        >>> half = turn_about(z, x, torch.tensor(torch.pi))
        >>> transform(half, torch.zeros(1, 3))[0, 0].item()
        2.0
    """
    R = exp(axis * angle[..., None])
    return make_pose(R, point - (R @ point[..., None])[..., 0])


def look_at(
    eye: Float[Tensor, "*#batch 3"],
    target: Float[Tensor, "*#batch 3"] | None = None,
    up: Float[Tensor, "*#batch 3"] | None = None,
) -> Float[Tensor, "*#batch 4 4"]:
    """Place an OpenCV camera at ``eye`` that sees ``target`` in its centre and ``up`` upwards in its picture.

    Where the camera looks along ``up`` itself, the world's +y takes its place, and +x where that fails too.

    Args:
        eye: ``(*batch, 3)`` the camera centre in the world, metres.
        target: ``(*batch, 3)`` the point looked at, metres; the world's origin if not given.
        up: ``(*batch, 3)`` the direction that points upwards in the picture, any length; +z if not given.

    Returns:
        ``(*batch, 4, 4)`` transforms ``cam_from_world``, NaN where ``eye`` and ``target`` coincide.

    Example:
        >>> cam_from_world = look_at(torch.tensor([0.0, -2.0, 0.0]))
        >>> transform(cam_from_world, torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.0, 1.0]]))
        tensor([[ 0.,  0.,  2.],
                [ 0., -1.,  2.]])
    """
    target = torch.zeros_like(eye) if target is None else target
    forward = _normalize(target - eye)
    right = _normalize(torch.linalg.cross(forward, _usable_up(forward, up)))
    down = torch.linalg.cross(forward, right)
    eye, right, down, forward = torch.broadcast_tensors(eye, right, down, forward)
    R = torch.stack([right, down, forward], dim=-2)
    return make_pose(R, -(R @ eye[..., None])[..., 0])


def _usable_up(
    forward: Float[Tensor, "*#batch 3"], up: Float[Tensor, "*#batch 3"] | None
) -> Float[Tensor, "*#batch 3"]:
    x, y, z = torch.eye(3, dtype=forward.dtype, device=forward.device)
    up = z if up is None else _normalize(up)
    # below this sine the right-hand axis is mostly rounding error
    least_sine = 10 * torch.finfo(forward.dtype).eps ** 0.5
    for spare in (y, x):
        sine = torch.linalg.cross(forward, up.expand_as(forward)).norm(dim=-1, keepdim=True)
        up = torch.where(sine > least_sine, up, spare)
    return up


def _normalize(vectors: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3"]:
    return vectors / torch.linalg.vector_norm(vectors, dim=-1, keepdim=True)
