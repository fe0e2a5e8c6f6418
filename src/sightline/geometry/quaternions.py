"""Unit quaternions, for files and other people's interfaces; every name states the order of the components.

``wxyz`` is the house order (COLMAP, Blender); ``xyzw`` is that of ROS, SciPy and MegaPose. The quaternion and
its negative are one rotation; what is returned has ``w >= 0``.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def quaternion_wxyz_from_xyzw(xyzw: Float[Tensor, "*batch 4"]) -> Float[Tensor, "*batch 4"]:
    """Reorder ``(x, y, z, w)`` to ``(w, x, y, z)``.

    Args:
        xyzw: ``(*batch, 4)`` quaternions, scalar last.

    Returns:
        ``(*batch, 4)`` the same quaternions, scalar first.

    Example:
        >>> quaternion_wxyz_from_xyzw(torch.tensor([1.0, 2.0, 3.0, 4.0]))
        tensor([4., 1., 2., 3.])
    """
    return xyzw.roll(1, dims=-1)


def quaternion_xyzw_from_wxyz(wxyz: Float[Tensor, "*batch 4"]) -> Float[Tensor, "*batch 4"]:
    """Reorder ``(w, x, y, z)`` to ``(x, y, z, w)``.

    Args:
        wxyz: ``(*batch, 4)`` quaternions, scalar first.

    Returns:
        ``(*batch, 4)`` the same quaternions, scalar last.

    Example:
        >>> quaternion_xyzw_from_wxyz(torch.tensor([4.0, 1.0, 2.0, 3.0]))
        tensor([1., 2., 3., 4.])
    """
    return wxyz.roll(-1, dims=-1)


def matrix_from_quaternion_wxyz(wxyz: Float[Tensor, "*batch 4"]) -> Float[Tensor, "*batch 3 3"]:
    """The rotation of a quaternion, whose length does not matter.

    Args:
        wxyz: ``(*batch, 4)`` quaternions, scalar first, of any length but zero.

    Returns:
        ``(*batch, 3, 3)`` rotations, NaN for a zero quaternion.

    Example:
        >>> matrix_from_quaternion_wxyz(torch.tensor([0.0, 0.0, 0.0, 2.0])).diag()
        tensor([-1., -1.,  1.])
    """
    w, x, y, z = (wxyz / torch.linalg.vector_norm(wxyz, dim=-1, keepdim=True)).unbind(-1)
    entries = (
        *(1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)),
        *(2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)),
        *(2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)),
    )
    return torch.stack(entries, dim=-1).unflatten(-1, (3, 3))


def matrix_from_quaternion_xyzw(xyzw: Float[Tensor, "*batch 4"]) -> Float[Tensor, "*batch 3 3"]:
    """The rotation of a quaternion with the scalar last; see :func:`matrix_from_quaternion_wxyz`.

    Args:
        xyzw: ``(*batch, 4)`` quaternions, scalar last, of any length but zero.

    Returns:
        ``(*batch, 3, 3)`` rotations, NaN for a zero quaternion.

    Example:
        >>> matrix_from_quaternion_xyzw(torch.tensor([1.0, 0.0, 0.0, 0.0])).diag()
        tensor([ 1., -1., -1.])
    """
    return matrix_from_quaternion_wxyz(quaternion_wxyz_from_xyzw(xyzw))


def quaternion_wxyz_from_matrix(R: Float[Tensor, "*batch 3 3"]) -> Float[Tensor, "*batch 4"]:
    """The unit quaternion of a rotation, accurate and differentiable at every angle, pi included.

    The symmetric matrix ``4 q q^T`` is linear in ``R``; its column with the largest diagonal entry is a
    multiple of q that is never short (Shepperd 1978; Bar-Itzhack 2000).

    Args:
        R: ``(*batch, 3, 3)`` rotations.

    Returns:
        ``(*batch, 4)`` unit quaternions, scalar first and ``>= 0``.

    Example:
        >>> quaternion_wxyz_from_matrix(torch.eye(3))
        tensor([1., 0., 0., 0.])
    """
    (xx, xy, xz), (yx, yy, yz), (zx, zy, zz) = (row.unbind(-1) for row in R.unbind(-2))
    outer = (
        *(1 + xx + yy + zz, zy - yz, xz - zx, yx - xy),
        *(zy - yz, 1 + xx - yy - zz, xy + yx, xz + zx),
        *(xz - zx, xy + yx, 1 - xx + yy - zz, yz + zy),
        *(yx - xy, xz + zx, yz + zy, 1 - xx - yy + zz),
    )
    columns = torch.stack(outer, dim=-1).unflatten(-1, (4, 4))
    longest = columns.diagonal(dim1=-2, dim2=-1).argmax(dim=-1)
    column = columns.take_along_dim(longest[..., None, None], dim=-1)[..., 0]
    column = torch.where(column[..., :1] < 0, -column, column)
    return column / torch.linalg.vector_norm(column, dim=-1, keepdim=True)


def quaternion_xyzw_from_matrix(R: Float[Tensor, "*batch 3 3"]) -> Float[Tensor, "*batch 4"]:
    """The unit quaternion of a rotation with the scalar last; see :func:`quaternion_wxyz_from_matrix`.

    Args:
        R: ``(*batch, 3, 3)`` rotations.

    Returns:
        ``(*batch, 4)`` unit quaternions, scalar last and ``>= 0``.

    Example:
        >>> quaternion_xyzw_from_matrix(torch.eye(3))
        tensor([0., 0., 0., 1.])
    """
    return quaternion_xyzw_from_wxyz(quaternion_wxyz_from_matrix(R))
