"""Symmetries of an object: the rigid motions of its own frame after which it looks the same.

A pose ``cam_from_obj`` and ``cam_from_obj @ S`` show the same picture for every ``S`` of the group:
symmetries multiply from the *right*. An axis of revolution (a bottle) is handled in closed form; it is
sampled only where a metric is defined by samples.
"""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from sightline.geometry.poses import turn_about
from sightline.geometry.rotations import angle_between, geodesic_distance, vee

Vector = Tensor | np.ndarray | Sequence[float]

# BOP lets a point move by at most 1 % of the diameter between samples: 0.01 over a radius of 1/2
BOP_STEP_RAD = 0.02


@dataclass(frozen=True, eq=False)
class SymmetryGroup:
    """The symmetries of one object: ``{turn(axis, angle) @ S for S in discrete, any angle}``.

    Args:
        discrete: ``(k, 4, 4)`` rigid motions of the object frame, metres; the first one is the identity.
        axis: ``(3,)`` direction of an axis of revolution, of any length but zero, or None.
        offset: ``(3,)`` metres, a point on that axis; the origin if not given.

    Raises:
        ValueError: motions that are not rigid (a mirror), no identity in the first place, a zero axis.

    Example:
        >>> SymmetryGroup.cyclic(4, (0, 0, 1)).discrete.shape
        torch.Size([4, 4, 4])
    """

    discrete: Tensor
    axis: Tensor | None = None
    offset: Tensor | None = None

    def __post_init__(self) -> None:
        """Bring everything to float64 and unit length, and check it."""
        discrete = self.discrete.to(torch.float64)
        _check_motions(discrete)
        axis, offset = self.axis, self.offset
        if axis is not None:
            axis = _unit_axis(axis)
            offset = _vector("offset", (0.0, 0.0, 0.0) if offset is None else offset)
        elif offset is not None:
            raise ValueError("offset: expected an axis to go through it, got none")
        for name, value in (("discrete", discrete), ("axis", axis), ("offset", offset)):
            object.__setattr__(self, name, value)

    @classmethod
    def none(cls) -> SymmetryGroup:
        """The group of an object without symmetries: the identity alone."""
        return cls(torch.eye(4, dtype=torch.float64)[None])

    @classmethod
    def cyclic(cls, n: int, axis: Vector, *, offset: Vector = (0.0, 0.0, 0.0)) -> SymmetryGroup:
        """C_n: the ``n`` turns by multiples of ``2 pi / n`` about an axis through ``offset`` (metres)."""
        if n < 1:
            raise ValueError(f"n: expected a whole number of at least 1, got {n}")
        angles = torch.arange(n, dtype=torch.float64) * (2 * math.pi / n)
        return cls(turn_about(_unit_axis(axis), _vector("offset", offset), angles))

    @classmethod
    def dihedral(
        cls,
        n: int,
        axis: Vector,
        *,
        flip_axis: Vector | None = None,
        offset: Vector = (0.0, 0.0, 0.0),
    ) -> SymmetryGroup:
        """D_n: C_n and the half turns about ``flip_axis``, perpendicular to ``axis``, and its images.

        Where ``flip_axis`` is not given it is x without its part along ``axis``, or y where ``axis`` is x.
        """
        turns = cls.cyclic(n, axis, offset=offset).discrete
        return cls(torch.cat([turns, turns @ _half_turn(axis, flip_axis, offset)]))

    @classmethod
    def continuous(
        cls, axis: Vector, offset: Vector = (0.0, 0.0, 0.0), *, flip: bool = False
    ) -> SymmetryGroup:
        """C_inf: every turn about an axis through ``offset``, metres; with ``flip`` D_inf, ends alike."""
        motions = torch.eye(4, dtype=torch.float64)[None]
        if flip:
            motions = torch.cat([motions, _half_turn(axis, None, offset)[None]])
        return cls(motions, _unit_axis(axis), _vector("offset", offset))

    @classmethod
    def from_name(cls, name: str, axis: Vector = (0.0, 0.0, 1.0), n: int | None = None) -> SymmetryGroup:
        """The group of a name: ``none``, ``C4``, ``D2``, ``Cn`` and ``Dn`` with ``n``, ``Cinf``, ``Dinf``.

        ``mirror`` is no motion that an object could make: it is none, with a warning.

        Raises:
            ValueError: an unknown name, ``Cn`` without ``n``, or a zero axis.
        """
        _unit_axis(axis)
        if name == "mirror":
            warnings.warn("mirror: not a proper rotation, treated as no symmetry", stacklevel=2)
        if name in ("none", "mirror"):
            return cls.none()
        form = re.fullmatch(r"([CD])(\d+|n|inf)", name)
        if form is None:
            raise ValueError(f"symmetry: expected none, mirror, C<n>, D<n>, Cinf or Dinf, got {name!r}")
        kind, count = form.groups()
        if count == "inf":
            return cls.continuous(axis, flip=kind == "D")
        if (count == "n") == (n is None):
            raise ValueError(f"symmetry {name}: expected n with Cn and Dn, and with nothing else, got n={n}")
        build = cls.cyclic if kind == "C" else cls.dihedral
        return build(int(count) if n is None else n, axis)

    def transforms(self, step_rad: float = BOP_STEP_RAD) -> Float[Tensor, "n 4 4"]:
        """All motions, those of a continuous axis sampled evenly; the first one is the identity.

        Args:
            step_rad: the largest angle between neighbouring samples. The default is that of the BOP metrics
                (``max_sym_disc_step = 0.01``): 315 turns of each discrete motion.

        Returns:
            ``(n, 4, 4)`` float64 motions ``turn @ S``, the turns of the first discrete one first.

        Example:
            >>> len(SymmetryGroup.continuous((0, 0, 1), flip=True).transforms())
            630
        """
        if self.axis is None or self.offset is None:
            return self.discrete.clone()
        count = math.ceil(2 * math.pi / step_rad)
        angles = torch.arange(count, dtype=torch.float64) * (2 * math.pi / count)
        return (turn_about(self.axis, self.offset, angles) @ self.discrete[:, None]).flatten(0, 1)


@dataclass(frozen=True, eq=False)
class SymmetryBatch:
    """The groups of a batch of objects side by side, made by :func:`stack_symmetries`.

    Smaller groups are filled up with the identity, which is a member of each: it cannot win where the group's
    own would not.

    Args:
        discrete: ``(*batch, k, 4, 4)`` motions, metres.
        axis: ``(*batch, 3)`` unit axes of revolution, +z where there is none.
        offset: ``(*batch, 3)`` metres, a point on each axis.
        continuous: ``(*batch)`` whether there is an axis.
    """

    discrete: Float[Tensor, "*batch k 4 4"]
    axis: Float[Tensor, "*batch 3"]
    offset: Float[Tensor, "*batch 3"]
    continuous: Bool[Tensor, "*batch"]

    def __getitem__(self, index: Tensor | int | slice) -> SymmetryBatch:
        """The groups at an index, slice, mask or index tensor into the batch axes, such as class labels."""
        fields = (self.discrete, self.axis, self.offset, self.continuous)
        return SymmetryBatch(*(field[index] for field in fields))

    def to(self, like: Tensor) -> SymmetryBatch:
        """The same batch in the floating dtype and on the device of a tensor."""
        moved = (self.discrete.to(like), self.axis.to(like), self.offset.to(like))
        return SymmetryBatch(*moved, self.continuous.to(like.device))


def stack_symmetries(groups: Sequence[SymmetryGroup]) -> SymmetryBatch:
    """Put groups of different objects side by side, one a row.

    Args:
        groups: at least one group, for example one a class.

    Returns:
        A batch of ``len(groups)`` groups in float64, to be indexed with class labels.

    Raises:
        ValueError: no group.

    Example:
        >>> groups = [SymmetryGroup.none(), SymmetryGroup.cyclic(4, (0, 0, 1))]
        >>> stack_symmetries(groups)[torch.tensor([1, 1, 0])].discrete.shape
        torch.Size([3, 4, 4, 4])
    """
    if not groups:
        raise ValueError("groups: expected at least one symmetry group, got none")
    size = max(len(group.discrete) for group in groups)
    identity = torch.eye(4, dtype=torch.float64)
    any_axis, any_offset = identity[2, :3], identity[3, :3]
    discrete = [
        torch.cat([group.discrete, identity.expand(size - len(group.discrete), 4, 4)]) for group in groups
    ]
    return SymmetryBatch(
        torch.stack(discrete),
        torch.stack([any_axis if group.axis is None else group.axis for group in groups]),
        torch.stack([any_offset if group.offset is None else group.offset for group in groups]),
        torch.tensor([group.axis is not None for group in groups]),
    )


Symmetries = SymmetryGroup | SymmetryBatch


def symmetric_distance(
    R_pred: Float[Tensor, "*#batch 3 3"], R_gt: Float[Tensor, "*#batch 3 3"], symmetries: Symmetries
) -> Float[Tensor, "*#batch"]:
    """The smallest angle between a rotation and one that looks the same: ``min over S of d(R_pred, R_gt S)``.

    For an axis of revolution a the minimum over its turns is the angle between the images of the axis,
    ``arccos(a^T S R_pred^T R_gt a)``, evaluated as :func:`angle_between` with finite gradients.

    Args:
        R_pred: ``(*batch, 3, 3)`` rotations ``cam_from_obj``.
        R_gt: ``(*batch, 3, 3)`` rotations ``cam_from_obj``; the batch axes broadcast.
        symmetries: one group for all, or a batch of groups whose axes broadcast with the rotations'.

    Returns:
        ``(*batch)`` angles in [0, pi], radians.

    Example:
        >>> half_turn = torch.diag(torch.tensor([-1.0, -1.0, 1.0]))
        >>> symmetric_distance(half_turn, torch.eye(3), SymmetryGroup.continuous((0, 0, 1))).item()
        0.0
    """
    groups = _as_batch(symmetries, R_pred)
    S = groups.discrete[..., :3, :3]
    R_pred, R_gt = R_pred[..., None, :, :], R_gt[..., None, :, :]
    distances = geodesic_distance(R_pred, R_gt @ S)
    axis = groups.axis[..., None, :, None]
    swings = angle_between((R_pred @ S.mT @ axis)[..., 0], (R_gt @ axis)[..., 0])
    return torch.where(groups.continuous[..., None], swings, distances).min(dim=-1).values


def symmetric_align(
    cam_from_obj: Float[Tensor, "*#batch 4 4"],
    reference: Float[Tensor, "*#batch 4 4"],
    symmetries: Symmetries,
) -> Float[Tensor, "*#batch 4 4"]:
    """Of all poses that look the same, the one whose rotation is nearest to that of a reference.

    Keeps the pose of a symmetric object from jumping between frames, and lets estimates be averaged. The
    motion chosen counts as a constant in the gradient.

    Args:
        cam_from_obj: ``(*batch, 4, 4)`` poses, metres.
        reference: ``(*batch, 4, 4)`` poses to come near to.
        symmetries: one group for all, or a batch of groups.

    Returns:
        ``(*batch, 4, 4)`` poses ``cam_from_obj @ S``: ``R' = R R_S``, ``t' = R t_S + t``.

    Example:
        >>> half_turn = torch.diag(torch.tensor([-1.0, -1.0, 1.0, 1.0]))
        >>> symmetric_align(half_turn, torch.eye(4), SymmetryGroup.continuous((0, 0, 1))).diag()
        tensor([1., 1., 1., 1.])
    """
    R, R_reference = cam_from_obj[..., :3, :3], reference[..., :3, :3]
    return cam_from_obj @ _nearest_motion(R, R_reference, _as_batch(symmetries, cam_from_obj))


def symmetric_poses(
    cam_from_obj: Float[Tensor, "*batch 4 4"], group: SymmetryGroup, step_rad: float = BOP_STEP_RAD
) -> Float[Tensor, "*batch n 4 4"]:
    """All poses that look the same, those of a continuous axis sampled: ``R' = R R_S``, ``t' = R t_S + t``.

    Args:
        cam_from_obj: ``(*batch, 4, 4)`` poses, metres.
        group: the symmetries of the object.
        step_rad: the largest angle between samples, as in :meth:`SymmetryGroup.transforms`.

    Returns:
        ``(*batch, n, 4, 4)`` poses, the given one first.

    Example:
        >>> symmetric_poses(torch.eye(4), SymmetryGroup.dihedral(3, (0, 0, 1))).shape
        torch.Size([6, 4, 4])
    """
    return cam_from_obj[..., None, :, :] @ group.transforms(step_rad).to(cam_from_obj)


@torch.no_grad()
def _nearest_motion(R: Tensor, R_reference: Tensor, groups: SymmetryBatch) -> Tensor:
    """The ``S`` of each group that minimises the angle between ``R S`` and the reference."""
    R, R_reference = R[..., None, :, :], R_reference[..., None, :, :]
    motions = groups.discrete
    axis = groups.axis[..., None, :]
    # the turn about the axis that brings S R_ref^T R nearest to the identity undoes its twist
    Q = motions[..., :3, :3] @ R_reference.mT @ R
    along = (axis[..., None, :] @ Q @ axis[..., :, None])[..., 0, 0]
    trace = Q.diagonal(dim1=-2, dim2=-1).sum(-1)
    twist = torch.atan2(2 * (vee(Q) * axis).sum(-1), trace - along)
    angle = torch.where(groups.continuous[..., None], -twist, 0.0)
    motions = turn_about(axis, groups.offset[..., None, :], angle) @ motions
    best = geodesic_distance(R @ motions[..., :3, :3], R_reference).argmin(dim=-1)
    return motions.take_along_dim(best[..., None, None, None], dim=-3)[..., 0, :, :]


def _half_turn(axis: Vector, flip_axis: Vector | None, offset: Vector) -> Tensor:
    main, point = _unit_axis(axis), _vector("offset", offset)
    if flip_axis is None:
        x, y, _ = torch.eye(3, dtype=torch.float64)
        start = x if main[0].abs() < 0.9 else y
        flip = torch.nn.functional.normalize(start - (start @ main) * main, dim=0)
    else:
        flip = _unit_axis(flip_axis)
    if (flip @ main).abs() > 1e-6:
        raise ValueError(f"flip_axis: expected one perpendicular to the axis, got {flip.tolist()}")
    return turn_about(flip, point, torch.tensor(math.pi, dtype=torch.float64))


def _unit_axis(axis: Vector) -> Tensor:
    vector = _vector("axis", axis)
    length = vector.norm()
    if length == 0:
        raise ValueError("axis: expected a direction, got the zero vector")
    return vector / length


def _vector(name: str, values: Vector) -> Tensor:
    vector = torch.as_tensor(values, dtype=torch.float64).clone()
    if vector.shape != (3,) or not vector.isfinite().all():
        raise ValueError(f"{name}: expected three finite numbers, got {vector.tolist()}")
    return vector


def _check_motions(motions: Tensor) -> None:
    if motions.shape[1:] != (4, 4) or len(motions) == 0:
        raise ValueError(f"discrete: expected shape (k, 4, 4), got {tuple(motions.shape)}")
    identity = torch.eye(4, dtype=motions.dtype, device=motions.device)
    if (motions[0] - identity).abs().max() > 1e-9:
        raise ValueError("discrete: expected the identity in the first place")
    R, last_row = motions[:, :3, :3], motions[:, 3]
    orthonormal = (R @ R.mT - identity[:3, :3]).abs() < 1e-3  # files give a few digits
    if not orthonormal.all() or (last_row != identity[3]).any() or not motions.isfinite().all():
        raise ValueError("discrete: expected rigid motions [[R, t], [0, 1]] with orthonormal R")
    if (torch.linalg.det(R) < 0).any():
        raise ValueError("discrete: expected rotations, got a mirror (determinant -1)")


def _as_batch(symmetries: Symmetries, like: Tensor) -> SymmetryBatch:
    if isinstance(symmetries, SymmetryGroup):
        symmetries = stack_symmetries([symmetries])[0]
    return symmetries.to(like)
