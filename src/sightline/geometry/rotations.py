"""Rotations as 3x3 matrices: exponential and logarithm, distances, the 6-D code of networks, means.

Everything is batched, keeps the dtype of its input, and has finite values *and* gradients at the angles where
the textbook formulas have none (0 and pi). Vectors and matrices act from the left: ``X_b = R X_a``.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from sightline.geometry.quaternions import matrix_from_quaternion_wxyz, quaternion_wxyz_from_matrix


def hat(w: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3 3"]:
    """The skew-symmetric matrix of the cross product: ``hat(w) @ v == cross(w, v)``.

    Args:
        w: ``(*batch, 3)`` vectors.

    Returns:
        ``(*batch, 3, 3)`` skew-symmetric matrices.

    Example:
        >>> hat(torch.tensor([0.0, 0.0, 1.0])) @ torch.tensor([1.0, 0.0, 0.0])
        tensor([0., 1., 0.])
    """
    x, y, z = w.unbind(-1)
    zero = torch.zeros_like(x)
    return torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], dim=-1).unflatten(-1, (3, 3))


def vee(W: Float[Tensor, "*batch 3 3"]) -> Float[Tensor, "*batch 3"]:
    """The vector of the skew-symmetric part of a matrix: ``vee(hat(w)) == w``.

    Args:
        W: ``(*batch, 3, 3)`` matrices; a symmetric part is ignored.

    Returns:
        ``(*batch, 3)`` vectors.

    Example:
        >>> vee(hat(torch.tensor([1.0, 2.0, 3.0])))
        tensor([1., 2., 3.])
    """
    skew = (W - W.mT) / 2
    return torch.stack([skew[..., 2, 1], skew[..., 0, 2], skew[..., 1, 0]], dim=-1)


def exp(w: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3 3"]:
    """Turn rotation vectors into rotations (Rodrigues).

    ``exp(w) = I + (sin a / a) hat(w) + ((1 - cos a) / a^2) hat(w)^2`` with ``a = |w|``.

    Args:
        w: ``(*batch, 3)`` rotation axes times angles, radians.

    Returns:
        ``(*batch, 3, 3)`` rotations.

    Example:
        >>> exp(torch.tensor([0.0, 0.0, torch.pi / 2])).round().abs()
        tensor([[0., 1., 0.],
                [1., 0., 0.],
                [0., 0., 1.]])
    """
    W = hat(w)
    squared_angle = w.square().sum(-1)[..., None, None]
    first = _sinc_of_square(squared_angle)
    second = _sinc_of_square(squared_angle / 4).square() / 2
    identity = torch.eye(3, dtype=w.dtype, device=w.device)
    return identity + first * W + second * (W @ W)


def log(R: Float[Tensor, "*batch 3 3"]) -> Float[Tensor, "*batch 3"]:
    """Turn rotations into rotation vectors, the inverse of :func:`exp` on angles up to pi.

    At pi, where the axis is known up to its sign, one of the two is chosen; values and gradients stay finite.

    Args:
        R: ``(*batch, 3, 3)`` rotations.

    Returns:
        ``(*batch, 3)`` axes times angles in [0, pi], radians.

    Example:
        >>> log(exp(torch.tensor([0.1, 0.2, 0.3], dtype=torch.float64)))
        tensor([0.1000, 0.2000, 0.3000], dtype=torch.float64)
    """
    cosine, axis = quaternion_wxyz_from_matrix(R).split([1, 3], dim=-1)
    squared_sine = axis.square().sum(-1, keepdim=True)
    small = squared_sine < 1e-2
    sine = torch.where(small, torch.ones_like(squared_sine), squared_sine).sqrt()
    # asin(s) / s as a series of s^2, where atan2 of a square root has no gradient
    series = sum(coefficient * squared_sine**power for power, coefficient in enumerate(_ASIN_SERIES))
    return 2 * axis * torch.where(small, series, torch.atan2(sine, cosine) / sine)


def angle_between(u: Float[Tensor, "*#batch 3"], v: Float[Tensor, "*#batch 3"]) -> Float[Tensor, "*#batch"]:
    """The angle between two unit vectors, exact and with finite gradient at 0 and at pi.

    Args:
        u: ``(*batch, 3)`` unit vectors.
        v: ``(*batch, 3)`` unit vectors.

    Returns:
        ``(*batch)`` angles in [0, pi], radians.

    Example:
        >>> angle_between(torch.tensor([1.0, 0.0, 0.0]), torch.tensor([0.0, 1.0, 0.0]))
        tensor(1.5708)
    """
    # u x (v - u) instead of u x v: exactly zero where they agree
    u, v = torch.broadcast_tensors(u, v)
    sine = torch.linalg.vector_norm(torch.linalg.cross(u, v - u), dim=-1)
    return torch.atan2(sine, (u * v).sum(-1))


def geodesic_distance(
    R_a: Float[Tensor, "*#batch 3 3"], R_b: Float[Tensor, "*#batch 3 3"]
) -> Float[Tensor, "*#batch"]:
    """The angle of the rotation between two rotations.

    ``d = atan2(|v|, 1 - |R_b - R_a|_F^2 / 4)`` where ``v``, the axial vector of ``R_b R_a^T``, is summed over
    columns as ``a_k x (b_k - a_k) / 2``. Unlike ``acos`` of the trace it resolves angles far below the square
    root of the dtype's precision, and its gradient is finite at 0 (zero there) and at pi.

    Args:
        R_a: ``(*batch, 3, 3)`` rotations.
        R_b: ``(*batch, 3, 3)`` rotations; the batch axes broadcast.

    Returns:
        ``(*batch)`` angles in [0, pi], radians.

    Example:
        >>> geodesic_distance(torch.eye(3), exp(torch.tensor([1e-4, 0.0, 0.0])))
        tensor(1.0000e-04)
    """
    R_a, R_b = torch.broadcast_tensors(R_a, R_b)
    difference = R_b - R_a
    sine = torch.linalg.vector_norm(torch.linalg.cross(R_a, difference, dim=-2).sum(-1), dim=-1) / 2
    return torch.atan2(sine, 1 - difference.square().sum((-2, -1)) / 4)


def twist_about_z(R: Float[Tensor, "*batch 3 3"]) -> Float[Tensor, "*batch"]:
    """The angle of the turn about z that a rotation is, apart from a tilt of z.

    ``R = tilt @ turn``, where the tilt's axis is perpendicular to z; with the quaternion (w, x, y, z) of R
    the angle is ``2 atan2(z, w)``. Of the rotation between two cameras it says how far their pictures are
    turned.

    Args:
        R: ``(*batch, 3, 3)`` rotations; one that turns z over has no such angle.

    Returns:
        ``(*batch)`` radians in [-pi, pi], from the x axis towards the y axis.

    Example:
        >>> twist_about_z(exp(torch.tensor([0.0, 0, 0.3])))
        tensor(0.3000)
    """
    return torch.atan2(R[..., 1, 0] - R[..., 0, 1], R[..., 0, 0] + R[..., 1, 1])


def rot6d_to_matrix(
    rot6d: Float[Tensor, "*batch 6"], convention: str = "rows"
) -> Float[Tensor, "*batch 3 3"]:
    """Turn the 6-D code of a network into a rotation by Gram-Schmidt (Zhou et al., CVPR 2019).

    The six numbers are two vectors. With ``convention="rows"``, the default (as in PyTorch3D and YOLOZU),
    they become the first two rows of the matrix; with ``"columns"`` (as in the paper), its first two columns.

    The result of finite input is always a rotation: a zero first vector is replaced by x, and a second vector
    that is zero or collinear with the first by y (z where the first is near y); what is replaced has no
    gradient. NaN or infinite input is a failure and gives NaN, with a zero gradient.

    Args:
        rot6d: ``(*batch, 6)`` codes of any finite scale.
        convention: whether the two vectors are rows or columns.

    Returns:
        ``(*batch, 3, 3)`` rotations.

    Raises:
        ValueError: an unknown convention.

    Example:
        >>> rot6d_to_matrix(torch.tensor([3.0, 0.0, 0.0, 1.0, 2.0, 0.0]))
        tensor([[1., 0., 0.],
                [0., 1., 0.],
                [0., 0., 1.]])
    """
    finite = rot6d.isfinite().all(dim=-1, keepdim=True)
    raw_1, raw_2 = torch.where(finite, rot6d, torch.ones_like(rot6d)).split(3, dim=-1)
    x, y, z = torch.eye(3, dtype=rot6d.dtype, device=rot6d.device)
    first = _unit_or(raw_1, x)
    spare = torch.where(first[..., 1:2].abs() < 0.9, y, z)
    second = _reject(_unit_or(raw_2, spare), first)
    collinear = torch.linalg.vector_norm(second, dim=-1, keepdim=True) < 16 * torch.finfo(rot6d.dtype).eps
    second = _unit_or(torch.where(collinear, _reject(spare, first), second), spare)
    second = _unit_or(_reject(second, first), spare)  # the second pass removes what rounding left of `first`
    third = torch.linalg.cross(first, second)
    rows = torch.stack([first, second, third], dim=-2)
    R = rows if _is_rows(convention) else rows.mT
    return torch.where(finite[..., None], R, torch.nan)


def matrix_to_rot6d(R: Float[Tensor, "*batch 3 3"], convention: str = "rows") -> Float[Tensor, "*batch 6"]:
    """The 6-D code of a rotation: its first two rows, or columns, one after the other.

    Args:
        R: ``(*batch, 3, 3)`` rotations.
        convention: whether the two vectors are rows or columns, as in :func:`rot6d_to_matrix`.

    Returns:
        ``(*batch, 6)`` codes.

    Raises:
        ValueError: an unknown convention.

    Example:
        >>> matrix_to_rot6d(torch.eye(3))
        tensor([1., 0., 0., 0., 1., 0.])
    """
    rows = R if _is_rows(convention) else R.mT
    return rows[..., :2, :].flatten(-2)


def random_rotations(
    shape: int | Sequence[int],
    *,
    generator: torch.Generator | None = None,
    dtype: torch.dtype = torch.float64,
    device: torch.device | str = "cpu",
) -> Float[Tensor, "*batch 3 3"]:
    """Draw rotations uniformly over SO(3), as normalised Gaussian quaternions (Shoemake 1992).

    Args:
        shape: the number of rotations, or the batch shape.
        generator: the source of random numbers; torch's own if not given.
        dtype: of the result.
        device: of the result, which must be that of the generator.

    Returns:
        ``(*batch, 3, 3)`` rotations.

    Example:
        >>> random_rotations(5, generator=torch.Generator().manual_seed(0)).shape
        torch.Size([5, 3, 3])
    """
    batch = (shape,) if isinstance(shape, int) else tuple(shape)
    quaternions = torch.randn((*batch, 4), generator=generator, dtype=dtype, device=device)
    return matrix_from_quaternion_wxyz(quaternions)


def project_to_so3(M: Float[Tensor, "*batch 3 3"]) -> Float[Tensor, "*batch 3 3"]:
    """The rotation nearest to a matrix in the Frobenius norm (Arun 1987, Umeyama 1991).

    ``R = U diag(1, 1, det(U V^T)) V^T`` of the singular value decomposition. The gradient is that of the
    projection itself, finite also where singular values coincide, as they do on every rotation.

    Args:
        M: ``(*batch, 3, 3)`` matrices. Where the nearest rotation is not unique (rank below 2, or a
            reflection with equal least singular values) one of the nearest is returned.

    Returns:
        ``(*batch, 3, 3)`` rotations, NaN where ``M`` is not finite.

    Example:
        >>> project_to_so3(2.0 * torch.eye(3))
        tensor([[1., 0., 0.],
                [0., 1., 0.],
                [0., 0., 1.]])
    """
    return _nearest_rotation(M)[0]


def mean_rotation(
    R: Float[Tensor, "*#batch n 3 3"],
    weights: Float[Tensor, "*#batch n"] | None = None,
    *,
    metric: str = "chordal",
) -> Float[Tensor, "*#batch 3 3"]:
    """The weighted mean of rotations (Hartley et al., Rotation Averaging, IJCV 2013).

    The chordal mean minimises the sum of squared Frobenius distances and has a closed form; the geodesic
    (Karcher) mean minimises that of squared angles and is iterated from the chordal one.

    Args:
        R: ``(*batch, n, 3, 3)`` rotations.
        weights: ``(*batch, n)`` non-negative weights of any sum; equal if not given.
        metric: ``"chordal"`` or ``"geodesic"``.

    Returns:
        ``(*batch, 3, 3)`` rotations, NaN where there is no mean: no weight at all, or rotations so far apart
        that several means are equally good.

    Raises:
        ValueError: an unknown metric.

    Example:
        >>> turns = exp(torch.tensor([[0.0, 0.0, 0.1], [0.0, 0.0, 0.5]], dtype=torch.float64))
        >>> log(mean_rotation(turns))
        tensor([0.0000, 0.0000, 0.3000], dtype=torch.float64)
    """
    if metric not in ("chordal", "geodesic"):
        raise ValueError(f"metric: expected 'chordal' or 'geodesic', got {metric!r}")
    weights = R.new_ones(R.shape[:-2]) if weights is None else weights
    share = (weights / weights.sum(-1, keepdim=True))[..., None]
    mean, uniqueness = _nearest_rotation((share[..., None] * R).sum(-3))
    for _ in range(_KARCHER_STEPS if metric == "geodesic" else 0):
        step = (share * log(mean.mT[..., None, :, :] @ R)).sum(-2)
        mean = mean @ exp(step)
        if not (step.detach().abs() > 4 * torch.finfo(R.dtype).eps).any():
            break
    defined = uniqueness > 16 * torch.finfo(R.dtype).eps
    return torch.where(defined[..., None, None], mean, torch.nan)


def _is_rows(convention: str) -> bool:
    if convention not in ("rows", "columns"):
        raise ValueError(f"convention: expected 'rows' or 'columns', got {convention!r}")
    return convention == "rows"


def _unit_or(vectors: Float[Tensor, "*#batch 3"], spare: Float[Tensor, "*#batch 3"]) -> Tensor:
    """Normalise vectors of any scale; one too short to have a finite gradient becomes ``spare``."""
    scale = vectors.detach().abs().amax(dim=-1, keepdim=True)
    info = torch.finfo(vectors.dtype)
    usable = scale > info.tiny / info.eps
    scaled = torch.where(usable, vectors, spare) / torch.where(usable, scale, 1.0)
    return scaled / torch.linalg.vector_norm(scaled, dim=-1, keepdim=True)


def _reject(vectors: Float[Tensor, "*#batch 3"], unit: Float[Tensor, "*#batch 3"]) -> Tensor:
    """The part of vectors that is perpendicular to a unit vector."""
    return vectors - (vectors * unit).sum(-1, keepdim=True) * unit


# asin(s) / s = sum_k (2k)! / (4^k (k!)^2 (2k + 1)) s^2k; ten terms are exact in float64 for s^2 < 1e-2
_ASIN_SERIES = (
    *(1.0, 1 / 6, 3 / 40, 5 / 112, 35 / 1152),
    *(63 / 2816, 231 / 13312, 143 / 10240, 6435 / 557056, 12155 / 1245184),
)


def _sinc_of_square(x: Tensor) -> Tensor:
    """``sin(sqrt(x)) / sqrt(x)``, smooth at zero."""
    small = x < 1e-2
    root = torch.where(small, torch.ones_like(x), x).sqrt()
    series = 1 + x * (-1 / 6 + x * (1 / 120 + x * (-1 / 5040 + x / 362880)))
    return torch.where(small, series, root.sin() / root)


_KARCHER_STEPS = 50


def _nearest_rotation(M: Float[Tensor, "*batch 3 3"]) -> tuple[Tensor, Tensor]:
    """The nearest rotation, and a number that is zero where another one is as near."""
    finite = M.detach().isfinite().all(-1).all(-1)[..., None, None]
    identity = torch.eye(3, dtype=M.dtype, device=M.device)
    M = torch.where(finite, M, identity)
    U, sizes, Vh = torch.linalg.svd(M.detach())
    sign = torch.linalg.det(U @ Vh).sign()
    flip = torch.stack([torch.ones_like(sign), torch.ones_like(sign), sign], dim=-1)
    R, V, sizes = (U * flip[..., None, :]) @ Vh, Vh.mT, sizes * flip
    # M = R P with P symmetric: the differential of R, as a term whose value is zero
    turn = V.mT @ R.mT @ (M - M.detach()) @ V
    sums = sizes[..., :, None] + sizes[..., None, :]
    stiff = sums.abs() > torch.finfo(M.dtype).eps * sizes[..., :1, None]
    turn = torch.where(stiff, (turn - turn.mT) / torch.where(stiff, sums, 1.0), 0.0)
    R = R + R @ V @ turn @ V.mT
    uniqueness = torch.where(finite[..., 0, 0], sizes[..., 1] + sizes[..., 2], torch.nan)
    return torch.where(finite, R, torch.nan), uniqueness
