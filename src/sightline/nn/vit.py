"""A vision transformer whose tokens know their places by rotation alone (RoPE2D), with no class token.

Modules are named as in CroCo v2's encoder (``patch_embed.proj``, ``enc_blocks.0.attn.qkv``, ``enc_norm``), so
that its checkpoints load key by key; see :mod:`sightline.nn.croco_weights`. Blocks are pre-norm (Dosovitskiy
et al., ICLR 2021; Weinzaepfel et al., CroCo v2, ICCV 2023).
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from sightline.nn.rope import planar_phases, rotate_halves
from sightline.nn.rope.planar import angle_dtype

NORM_EPS = 1e-6


def grid_positions(
    rows: int, columns: int, *, device: torch.device | str | None = None
) -> Int[Tensor, "{rows*columns} 2"]:
    """The places of a grid's cells, row by row.

    Args:
        rows: of the grid.
        columns: of the grid.
        device: of the result.

    Returns:
        ``(rows * columns, 2)`` int64 ``(y, x)``.

    Example:
        >>> grid_positions(1, 3).tolist()
        [[0, 0], [0, 1], [0, 2]]
    """
    return torch.cartesian_prod(torch.arange(rows, device=device), torch.arange(columns, device=device))


def grid_phases(
    rows: int, columns: int, head_dim: int, *, like: Tensor, base: float = 100.0
) -> Float[Tensor, "{rows*columns} _"]:
    """RoPE2D's angles of a grid's cells, once for all blocks.

    Args:
        rows: of the grid.
        columns: of the grid.
        head_dim: channels of a head.
        like: tokens, for whose device and precision the angles are.
        base: of the frequencies.

    Returns:
        ``(rows * columns, head_dim / 2)`` radians.

    Example:
        >>> grid_phases(2, 3, 8, like=torch.zeros(1)).shape
        torch.Size([6, 4])
    """
    places = grid_positions(rows, columns, device=like.device)
    return planar_phases(places, head_dim, base=base, dtype=angle_dtype(like.dtype))


class _Attention(nn.Module):
    """Self-attention; queries and keys are turned by the angles of their places."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        if dim % (4 * num_heads):
            raise ValueError(f"dim: expected a multiple of 4 * num_heads = {4 * num_heads}, got {dim}")
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor, phases: Tensor) -> Tensor:
        qkv = self.qkv(x).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        q, k = rotate_halves(qkv[:2], phases)
        return self.proj(F.scaled_dot_product_attention(q, k, qkv[2]).transpose(1, 2).flatten(2))


class _MLP(nn.Module):
    """Two layers with a GELU between."""

    def __init__(self, dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden_dim)
        self.fc2 = nn.Linear(hidden_dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class Block(nn.Module):
    """Attention and an MLP, each with a norm before it and a residual around it.

    Args:
        dim: channels of a token.
        num_heads: of the attention.
        mlp_ratio: widening inside the MLP.

    Example:
        >>> phases = grid_phases(2, 3, head_dim=8, like=torch.zeros(1))
        >>> Block(16, num_heads=2)(torch.rand(4, 6, 16), phases).shape
        torch.Size([4, 6, 16])
    """

    def __init__(self, dim: int, num_heads: int, mlp_ratio: float = 4.0) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=NORM_EPS)
        self.attn = _Attention(dim, num_heads)
        self.norm2 = nn.LayerNorm(dim, eps=NORM_EPS)
        self.mlp = _MLP(dim, int(dim * mlp_ratio))

    def forward(self, x: Float[Tensor, "b n c"], phases: Float[Tensor, "n p"]) -> Float[Tensor, "b n c"]:
        """Tokens one block further.

        Args:
            x: ``(b, n, c)`` tokens.
            phases: ``(n, c / num_heads / 2)`` radians of :func:`grid_phases`.
        """
        x = x + self.attn(self.norm1(x), phases)
        return x + self.mlp(self.norm2(x))


class _PatchEmbedding(nn.Module):
    """A patch of the picture becomes a token."""

    def __init__(self, patch_size: int, dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, dim, patch_size, stride=patch_size)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(x).flatten(2).mT


class ViT(nn.Module):
    """Patches, blocks and a last norm.

    Args:
        dim: channels of a token.
        depth: blocks.
        num_heads: of each.
        patch_size: pixels.
        mlp_ratio: widening inside a block.
        rope_base: of RoPE2D's frequencies.

    Example:
        >>> ViT(32, depth=1, num_heads=2)(torch.rand(2, 3, 32, 64)).shape
        torch.Size([2, 8, 32])
    """

    def __init__(
        self,
        dim: int = 768,
        depth: int = 12,
        num_heads: int = 12,
        *,
        patch_size: int = 16,
        mlp_ratio: float = 4.0,
        rope_base: float = 100.0,
    ) -> None:
        super().__init__()
        self.config: dict[str, Any] = {
            "dim": dim,
            "depth": depth,
            "num_heads": num_heads,
            "patch_size": patch_size,
            "mlp_ratio": mlp_ratio,
            "rope_base": rope_base,
        }
        self.dim, self.patch_size, self.rope_base = dim, patch_size, rope_base
        self.head_dim = dim // num_heads
        self.patch_embed = _PatchEmbedding(patch_size, dim)
        self.enc_blocks = nn.ModuleList(Block(dim, num_heads, mlp_ratio) for _ in range(depth))
        self.enc_norm = nn.LayerNorm(dim, eps=NORM_EPS)
        self.apply(_begin)
        nn.init.xavier_uniform_(self.patch_embed.proj.weight.view(dim, -1))

    def forward(self, pictures: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b n c"]:
        """Tokens of normalised pictures, row by row.

        Args:
            pictures: ``(b, 3, h, w)``, sides multiples of ``patch_size``.

        Returns:
            ``(b, h w / patch_size^2, dim)``.

        Raises:
            ValueError: for other sides.
        """
        height, width = pictures.shape[-2:]
        if height % self.patch_size or width % self.patch_size:
            raise ValueError(f"expected sides that are multiples of {self.patch_size}, got {height}x{width}")
        rows, columns = height // self.patch_size, width // self.patch_size
        tokens = self.patch_embed(pictures)
        phases = grid_phases(rows, columns, self.head_dim, like=tokens, base=self.rope_base)
        for block in self.enc_blocks:
            tokens = block(tokens, phases)
        return self.enc_norm(tokens)


def _begin(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        nn.init.zeros_(module.bias)
