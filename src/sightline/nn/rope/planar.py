"""Rotary encoding of places on a grid: scores of relative places on two axes, as CroCo v2 defines RoPE2D.

A head's channels are pairs, and each pair turns by an angle that its token's place gives. Two tokens' score
then depends on the difference of their places alone (Su et al., RoFormer, 2021; Weinzaepfel et al., CroCo v2,
2023). Nothing here works in place, and angles are never narrower than float32.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn


def angle_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype in which angles of tokens of a dtype are computed: float64 for float64, else float32.

    Args:
        dtype: of the tokens.

    Returns:
        A dtype of at least 32 bits.

    Example:
        >>> angle_dtype(torch.bfloat16)
        torch.float32
    """
    return torch.float64 if dtype == torch.float64 else torch.float32


def planar_phases(
    positions: Int[Tensor, "*batch n 2"] | Float[Tensor, "*batch n 2"],
    head_dim: int,
    *,
    base: float = 100.0,
    f0: float = 1.0,
    dtype: torch.dtype = torch.float32,
) -> Float[Tensor, "*batch n phases"]:
    """Angles of RoPE2D: ``position * f0 / base^(2 i / (d/2))``, those of y first.

    Args:
        positions: ``(*batch, n, 2)`` places (y, x) in patches.
        head_dim: d, channels of a head, a multiple of 4.
        base: ratio of the shortest to the longest wave, nearly.
        f0: radians a patch of the shortest wave.
        dtype: of the angles.

    Returns:
        ``(*batch, n, d/2)`` radians: d/4 of y, then d/4 of x.

    Raises:
        ValueError: if ``head_dim`` is no multiple of 4.

    Example:
        >>> planar_phases(torch.tensor([[2, 3]]), 8)
        tensor([[2.0000, 0.2000, 3.0000, 0.3000]])
    """
    if head_dim % 4:
        raise ValueError(f"RoPE2D turns pairs on two axes: head_dim must be a multiple of 4, got {head_dim}")
    count = head_dim // 4
    steps = torch.arange(count, device=positions.device, dtype=dtype) / count
    return (positions.to(dtype)[..., None] * (f0 * base**-steps)).flatten(-2)


def rotate_halves(
    x: Float[Tensor, "*batch n d"],
    phases: Float[Tensor, "..."],
    rope_mask: Bool[Tensor, "..."] | None = None,
) -> Float[Tensor, "*batch n d"]:
    """Turns channel pairs ``(i, i + d/4)`` of either half of the channels, CroCo's layout.

    Args:
        x: ``(*batch, n, d)`` queries or keys, with or without an axis of heads before n.
        phases: ``(*batch, n, d/2)`` radians of ``planar_phases``; one axis fewer than ``x``: all heads alike.
        rope_mask: ``(*batch, n)``, as ``phases`` without its last axis; False leaves a token as it is.

    Returns:
        A new tensor like ``x``.

    Example:
        >>> rotate_halves(torch.ones(1, 4), torch.tensor([[torch.pi / 2, 0.0]]))
        tensor([[-1.0000,  1.0000,  1.0000,  1.0000]])
    """
    angles = for_heads(masked_phases(phases, rope_mask), x).unflatten(-1, (2, -1))
    halves = x.to(torch.promote_types(x.dtype, angles.dtype)).unflatten(-1, (2, 2, -1))
    return torch.stack(turned(halves[..., 0, :], halves[..., 1, :], angles), dim=-2).flatten(-3).to(x.dtype)


def rope_2d(
    x: Float[Tensor, "*batch n d"],
    positions: Int[Tensor, "..."] | Float[Tensor, "..."],
    *,
    base: float = 100.0,
    f0: float = 1.0,
) -> Float[Tensor, "*batch n d"]:
    """Encodes places on a grid into queries or keys (never values): RoPE2D of CroCo v2.

    The first half of the channels is driven by y, the second by x; within a half channel i is paired with
    i + d/4.

    Args:
        x: ``(*batch, n, d)`` or ``(*batch, heads, n, d)``.
        positions: ``(*batch, n, 2)`` places (y, x) in patches, whole or not.
        base: base of the geometric series of frequencies.
        f0: radians a patch of the first.

    Returns:
        A new tensor like ``x``.

    Raises:
        ValueError: if d is no multiple of 4.

    Example:
        >>> q, k = torch.rand(2, 1, 5, 8)
        >>> places = torch.tensor([[0, 0], [0, 1], [1, 0], [1, 1], [2, 5]])
        >>> score = rope_2d(q, places) @ rope_2d(k, places).mT
        >>> moved = rope_2d(q, places + 3) @ rope_2d(k, places + 3).mT
        >>> torch.allclose(score, moved, atol=1e-5)
        True
    """
    return rope_encode(x, positions, base=base, f0=f0)


def rope_encode(
    x: Float[Tensor, "*batch n d"],
    pos: Int[Tensor, "..."] | Float[Tensor, "..."],
    rope_mask: Bool[Tensor, "..."] | None = None,
    *,
    base: float = 100.0,
    f0: float = 1.0,
) -> Float[Tensor, "*batch n d"]:
    """RoPE2D that leaves chosen tokens as they are, such as learned ones that lie nowhere.

    Args:
        x: ``(*batch, n, d)`` or ``(*batch, heads, n, d)``.
        pos: ``(*batch, n, 2)`` places (y, x) in patches.
        rope_mask: ``(*batch, n)`` True where a token is turned; all unless given.
        base: base of the geometric series of frequencies.
        f0: radians a patch of the first.

    Returns:
        A new tensor like ``x``; its masked tokens are bit for bit those of ``x``.

    Raises:
        ValueError: if d is no multiple of 4.

    Example:
        >>> x, places = torch.rand(3, 8), torch.tensor([[4, 1], [2, 2], [7, 0]])
        >>> rope_mask = torch.tensor([True, True, False])
        >>> torch.equal(rope_encode(x, places, rope_mask)[2], x[2])
        True
    """
    phases = planar_phases(pos, x.shape[-1], base=base, f0=f0, dtype=angle_dtype(x.dtype))
    return rotate_halves(x, phases, rope_mask)


class RoPE2D(nn.Module):
    """``rope_2d`` as a module without parameters.

    Args:
        base: base of the geometric series of frequencies.
        f0: radians a patch of the first.

    Example:
        >>> RoPE2D()(torch.rand(2, 3, 4, 16), torch.zeros(2, 4, 2, dtype=torch.int64)).shape
        torch.Size([2, 3, 4, 16])
    """

    def __init__(self, base: float = 100.0, f0: float = 1.0) -> None:
        super().__init__()
        self.base = base
        self.f0 = f0

    def forward(
        self,
        x: Float[Tensor, "*batch n d"],
        positions: Int[Tensor, "..."] | Float[Tensor, "..."],
        rope_mask: Bool[Tensor, "..."] | None = None,
    ) -> Float[Tensor, "*batch n d"]:
        """``rope_encode`` with the module's frequencies.

        Args:
            x: ``(*batch, n, d)`` or ``(*batch, heads, n, d)``.
            positions: ``(*batch, n, 2)`` places (y, x) in patches.
            rope_mask: ``(*batch, n)`` True where a token is turned; all unless given.

        Returns:
            A new tensor like ``x``.
        """
        return rope_encode(x, positions, rope_mask, base=self.base, f0=self.f0)

    def extra_repr(self) -> str:
        """The frequencies, for printing."""
        return f"base={self.base}, f0={self.f0}"


def turned(first: Tensor, second: Tensor, angles: Tensor) -> tuple[Tensor, Tensor]:
    """Turns the plane of two channels: ``(u cos a - v sin a, v cos a + u sin a)``.

    Args:
        first: u.
        second: v.
        angles: a, radians.

    Returns:
        Both, turned.

    Example:
        >>> turned(torch.tensor(1.0), torch.tensor(0.0), torch.tensor(0.0))
        (tensor(1.), tensor(0.))
    """
    cos, sin = angles.cos(), angles.sin()
    return first * cos - second * sin, second * cos + first * sin


def masked_phases(phases: Tensor, rope_mask: Tensor | None) -> Tensor:
    """Angles that are zero where ``rope_mask`` is False: there the rotation is the identity, exactly.

    Args:
        phases: ``(*batch, n, p)`` radians.
        rope_mask: ``(*batch, n)``, or None for no change.

    Returns:
        ``(*batch, n, p)``.

    Example:
        >>> masked_phases(torch.ones(2, 1), torch.tensor([True, False])).flatten()
        tensor([1., 0.])
    """
    return phases if rope_mask is None else phases.masked_fill(~rope_mask[..., None], 0.0)


def for_heads(per_token: Tensor, x: Tensor) -> Tensor:
    """Gives what has one axis fewer than ``x`` an axis of heads before the tokens."""
    return per_token.unsqueeze(-3) if per_token.ndim == x.ndim - 1 else per_token
