"""Rotary encoding of places in a picture and of the direction from which the picture was taken (S2RoPE).

All patches of a picture share its unit view direction, object to camera in the object's frame. Six faces of a
cube around a reference direction r measure it: ``(r, -r, e1, -e1, e2, -e2)``, each by its angle gamma and by
the azimuth phi around it. Channels of a head are pairs ``(2p, 2p + 1)`` in the order x, y, then face by face;
a face's phases are those of gamma ("radial"), then those of phi.

``compat`` is the published definition: world axes span the cube, and phi itself is a phase. So scores change
when the object's frame does, and jump where phi or the choice of the world axis does. ``fixed`` has neither
fault: the cube is spanned by the reference camera's own upward axis, and a phase of order m is
``sin(gamma)^m cos(m phi)`` on one face of an axis and ``sin(gamma)^m sin(m phi)`` on the opposite one. These
are polynomials of the direction (sectoral harmonics), which vanish where phi has no value.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from sightline.nn.rope.planar import angle_dtype, for_heads, masked_phases, turned

FACES = 6
_STEEPEST = 4.0  # radians of phase a radian of direction, at most, in ``fixed``

SphereMode = Literal["fixed", "compat"]


def sphere_split(head_dim: int) -> tuple[int, int, int]:
    """How many channel pairs x, y and a face get: at most 9/16 of them for the faces, the rest halved.

    Args:
        head_dim: channels of a head, a multiple of 4 and at least 16.

    Returns:
        ``(px, py, ps)``, so that ``2 (px + py + 6 ps)`` is ``head_dim``.

    Raises:
        ValueError: if no such split exists.

    Example:
        >>> sphere_split(64), sphere_split(32)
        ((7, 7, 3), (5, 5, 1))
    """
    if head_dim % 4 or head_dim < 16:
        raise ValueError(f"S2RoPE needs a head_dim that is a multiple of 4 and at least 16, got {head_dim}")
    pairs = head_dim // 2
    ps = max(1, pairs * 9 // 16 // FACES)
    planar = (pairs - FACES * ps) // 2
    return planar, planar, ps


class S2RoPE(nn.Module):
    """Turns channel pairs of queries and keys by place and view direction; see the module's text.

    A query picture's direction is unknown: it takes the reference direction itself, the best guess there is.
    Planar phases hold for both sides, so scores between pictures are relative in x and y too.

    Args:
        head_dim: channels of a head, ``2 (px + py + 6 ps)``.
        px: pairs for x.
        py: pairs for y.
        ps: pairs for each of the six faces: ``ps // 2`` radial, the others azimuth.
        mode: ``fixed`` (equivariant, continuous) or ``compat`` (as published).
        f0: highest planar frequency, radians a patch; in ``compat`` also of the sphere, radians a radian.
        base_xy: base of the planar frequencies; 100 in ``fixed`` and 10,000 in ``compat`` unless given.
        base_s2: base of the frequencies on the sphere, ``compat`` only.

    Raises:
        ValueError: if the channels do not add up, or the mode is unknown.

    Example:
        >>> rope = S2RoPE(64)
        >>> places, up = torch.zeros(1, 5, 2), torch.tensor([[0.0, 1.0, 0.0]])
        >>> direction = torch.tensor([[0.0, 0.0, 1.0]])
        >>> phases = rope.phases(places, direction, direction, up)
        >>> q, k = torch.rand(2, 1, 12, 5, 64)
        >>> torch.allclose(rope.rotate(q, phases) @ rope.rotate(k, phases).mT, q @ k.mT, atol=1e-4)
        True
    """

    def __init__(
        self,
        head_dim: int = 64,
        px: int = 7,
        py: int = 7,
        ps: int = 3,
        mode: SphereMode | str = "fixed",
        *,
        f0: float = 1.0,
        base_xy: float | None = None,
        base_s2: float = 1e4,
    ) -> None:
        super().__init__()
        if mode not in ("fixed", "compat"):
            raise ValueError(f"mode: expected fixed or compat, got {mode!r}")
        if min(px, py, ps) < 1 or 2 * (px + py + FACES * ps) != head_dim:
            raise ValueError(
                f"px, py, ps: expected 2 (px + py + 6 ps) = head_dim = {head_dim}, "
                f"got 2 ({px} + {py} + 6 * {ps}) = {2 * (px + py + FACES * ps)}"
            )
        self.head_dim = head_dim
        self.px = px
        self.py = py
        self.ps = ps
        self.mode = mode
        self.f0 = f0
        self.base_xy = base_xy if base_xy is not None else (100.0 if mode == "fixed" else 1e4)
        self.base_s2 = base_s2

    def phases(
        self,
        positions: Int[Tensor, "*#batch n 2"] | Float[Tensor, "*#batch n 2"],
        directions: Float[Tensor, "..."],
        reference: Float[Tensor, "*some 3"],
        up: Float[Tensor, "*some 3"] | None = None,
    ) -> Float[Tensor, "*#batch n phases"]:
        """Angles of every token.

        Args:
            positions: ``(*batch, n, 2)`` places (y, x) in patches.
            directions: ``(*batch, 3)`` unit view directions of the pictures, or ``(*batch, n, 3)`` of tokens.
            reference: ``(*some, 3)`` unit reference directions; ``some`` are the first axes of ``batch``.
            up: ``(*some, 3)`` any direction across the reference, roughly, that turns with the object, such
                as ``-R[1]`` of the reference camera; needed in ``fixed``, not used in ``compat``.

        Returns:
            ``(*batch, n, head_dim / 2)`` radians.

        Raises:
            ValueError: in ``fixed`` without ``up``.
        """
        sphere = self.sphere_phases(directions, reference, up)
        if directions.ndim < positions.ndim:
            sphere = sphere[..., None, :]
        planar = self.planar_phases(positions, sphere.dtype)
        batch = torch.broadcast_shapes(sphere.shape[:-1], planar.shape[:-1])
        return torch.cat([planar.expand(*batch, -1), sphere.expand(*batch, -1)], dim=-1)

    def planar_phases(
        self,
        positions: Int[Tensor, "*batch n 2"] | Float[Tensor, "*batch n 2"],
        dtype: torch.dtype = torch.float32,
    ) -> Float[Tensor, "*batch n phases"]:
        """The part of the angles that places give.

        Args:
            positions: ``(*batch, n, 2)`` places (y, x) in patches.
            dtype: of the angles.

        Returns:
            ``(*batch, n, px + py)`` radians, those of x first.
        """
        y, x = positions.to(dtype)[..., None].unbind(-2)
        return torch.cat([x * self._planar_series(self.px, x), y * self._planar_series(self.py, y)], dim=-1)

    def sphere_phases(
        self,
        directions: Float[Tensor, "*batch 3"],
        reference: Float[Tensor, "*some 3"],
        up: Float[Tensor, "*some 3"] | None = None,
    ) -> Float[Tensor, "*batch phases"]:
        """The part of the angles that view directions give.

        Args:
            directions: ``(*batch, 3)`` unit view directions.
            reference: ``(*some, 3)`` unit reference directions; ``some`` are the first axes of ``batch``.
            up: ``(*some, 3)``, see ``phases``.

        Returns:
            ``(*batch, 6 ps)`` radians, face by face.

        Raises:
            ValueError: in ``fixed`` without ``up``.
        """
        if self.mode == "fixed" and up is None:
            raise ValueError("up: S2RoPE in mode fixed needs a direction of the reference camera, -R[1]")
        dtype = angle_dtype(directions.dtype)
        d = directions.to(dtype)
        r = _beside(reference, d)
        if self.mode == "compat" or up is None:
            faces = self._published_phases(d, r)
        else:
            faces = self._harmonic_phases(d, r, _beside(up, d))
        return faces.flatten(-2)

    def rotate(
        self,
        x: Float[Tensor, "*batch n d"],
        phases: Float[Tensor, "..."],
        rope_mask: Bool[Tensor, "..."] | None = None,
    ) -> Float[Tensor, "*batch n d"]:
        """Turns the pairs ``(2p, 2p + 1)`` of queries or keys, never of values.

        Args:
            x: ``(*batch, n, d)`` or ``(*batch, heads, n, d)``.
            phases: ``(*batch, n, d/2)`` radians.
            rope_mask: ``(*batch, n)``; False leaves a token bit for bit as it is.

        Returns:
            A new tensor like ``x``.
        """
        angles = for_heads(masked_phases(phases, rope_mask), x)
        first, second = x.to(torch.promote_types(x.dtype, angles.dtype)).unflatten(-1, (-1, 2)).unbind(-1)
        return torch.stack(turned(first, second, angles), dim=-1).flatten(-2).to(x.dtype)

    def forward(
        self,
        x: Float[Tensor, "*batch n d"],
        positions: Int[Tensor, "..."] | Float[Tensor, "..."],
        directions: Float[Tensor, "..."],
        reference: Float[Tensor, "..."],
        up: Float[Tensor, "..."] | None = None,
        rope_mask: Bool[Tensor, "..."] | None = None,
    ) -> Float[Tensor, "*batch n d"]:
        """``rotate`` by ``phases``, whose arguments these are.

        Args:
            x: ``(*batch, n, d)`` or ``(*batch, heads, n, d)``.
            positions: ``(*batch, n, 2)`` places (y, x).
            directions: ``(*batch, 3)`` or ``(*batch, n, 3)`` unit view directions.
            reference: ``(*some, 3)`` unit reference directions.
            up: ``(*some, 3)`` upward directions of the reference cameras.
            rope_mask: ``(*batch, n)`` True where a token is turned.

        Returns:
            A new tensor like ``x``.
        """
        return self.rotate(x, self.phases(positions, directions, reference, up), rope_mask)

    def extra_repr(self) -> str:
        """The split of the channels, for printing."""
        return f"{self.head_dim}, px={self.px}, py={self.py}, ps={self.ps}, mode={self.mode}"

    def _planar_series(self, count: int, like: Tensor) -> Tensor:
        return _series(count, self.f0, self.base_xy, like)

    def _published_phases(self, d: Tensor, r: Tensor) -> Tensor:
        e1, e2 = _world_frame(r)
        faces = torch.stack([r, -r, e1, -e1, e2, -e2], dim=-2)
        v, w = _world_frame(faces)
        d = d[..., None, :]
        cos = (d * faces).sum(-1)
        tangent = d - cos[..., None] * faces
        sin = torch.linalg.vector_norm(tangent, dim=-1)
        azimuth = torch.atan2((tangent * w).sum(-1), (tangent * v).sum(-1))
        # straight above a face what is left of the tangent is rounding
        azimuth = azimuth.masked_fill(sin < 8 * torch.finfo(d.dtype).eps, 0.0)
        radial = self.ps // 2
        return torch.cat(
            [
                torch.atan2(sin, cos)[..., None] * _series(radial, self.f0, self.base_s2, d),
                azimuth[..., None] * _series(self.ps - radial, self.f0, self.base_s2, d),
            ],
            dim=-1,
        )

    def _harmonic_phases(self, d: Tensor, r: Tensor, up: Tensor) -> Tensor:
        e1 = F.normalize(up - (up * r).sum(-1, keepdim=True) * r, dim=-1)
        axes = torch.stack([r, e1, torch.linalg.cross(r, e1)], dim=-2)
        along = (axes * d[..., None, :]).sum(-1)
        right, ahead = along.roll(-1, dims=-1), along.roll(-2, dims=-1)
        gamma = torch.atan2(torch.hypot(right, ahead), along)
        radial = self.ps // 2
        azimuth = self.ps - radial
        angles = torch.stack([gamma, math.pi - gamma], dim=-1)[..., None] * _steepness(radial, d)
        # (sin(gamma) e^(i phi))^m for m = 1, 2, ...; its slope is m, which the division takes back
        powers = torch.complex(right, ahead)[..., None].expand(*right.shape, azimuth).cumprod(dim=-1)
        orders = torch.arange(1, azimuth + 1, dtype=d.dtype, device=d.device)
        harmonics = torch.stack([powers.real, powers.imag], dim=-2) / orders * _steepness(azimuth, d)
        return torch.cat([angles, harmonics], dim=-1).flatten(-3, -2)


def _series(count: int, f0: float, base: float, like: Tensor) -> Tensor:
    """``f0 / base^(i / count)``."""
    steps = torch.arange(count, dtype=like.dtype, device=like.device) / max(count, 1)
    return f0 * base**-steps


def _steepness(count: int, like: Tensor) -> Tensor:
    """``(2, count)`` factors from 1 to the steepest, those of a face and its opposite in turn."""
    steps = torch.arange(2 * count, dtype=like.dtype, device=like.device) / max(2 * count - 1, 1)
    return (_STEEPEST**steps).unflatten(0, (count, 2)).mT if count else like.new_zeros(2, 0)


def _beside(vectors: Tensor, d: Tensor) -> Tensor:
    """Vectors for the first of the batch axes of ``d``, as directions for all of them."""
    gap = d.ndim - vectors.ndim
    return vectors.to(d.dtype).reshape(*vectors.shape[:-1], *[1] * gap, 3).expand_as(d)


def _world_frame(axis: Tensor) -> tuple[Tensor, Tensor]:
    """Two directions across ``axis``: that of world z (of world y where z is near), and the third."""
    world = torch.eye(3, dtype=axis.dtype, device=axis.device)
    start = torch.where(axis[..., 2:].abs() >= 0.9, world[1], world[2])
    first = F.normalize(start - (start * axis).sum(-1, keepdim=True) * axis, dim=-1)
    return first, torch.linalg.cross(axis, first)
