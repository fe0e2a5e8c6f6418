"""The parts attention is made of: heads, the product itself, and its exact sum over parts of the keys."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn


class Heads(nn.Module):
    """The linear layers before and after attention.

    Args:
        dim: channels of a token.
        num_heads: into how many heads they are split.

    Raises:
        ValueError: if the heads do not divide the channels.

    Example:
        >>> heads = Heads(16, 2)
        >>> q, k, v = heads.split(torch.rand(3, 5, 16))
        >>> q.shape, heads.join(attend(q, k, v)).shape
        (torch.Size([3, 2, 5, 8]), torch.Size([3, 5, 16]))
    """

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        if dim % num_heads:
            raise ValueError(f"num_heads must divide dim = {dim}, got {num_heads}")
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.out = nn.Linear(dim, dim)

    def split(self, x: Float[Tensor, "*batch n c"]) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values.

        Args:
            x: ``(*batch, n, c)``.

        Returns:
            Three of ``(*batch, heads, n, d)``.
        """
        q, k, v = self.qkv(x).unflatten(-1, (3, self.num_heads, -1)).unbind(-3)
        return q.transpose(-3, -2), k.transpose(-3, -2), v.transpose(-3, -2)

    def join(self, x: Float[Tensor, "*batch heads n d"]) -> Float[Tensor, "*batch n c"]:
        """The heads as one token again.

        Args:
            x: ``(*batch, heads, n, d)``.

        Returns:
            ``(*batch, n, c)``.
        """
        return self.out(x.transpose(-3, -2).flatten(-2))


class DropPath(nn.Module):
    """Leaves out a residual branch of some pictures in training, and scales the others up for it.

    Args:
        rate: share of pictures that go without.

    Example:
        >>> DropPath(0.5).eval()(torch.ones(1, 2, 3, 1)).sum()
        tensor(6.)
    """

    def __init__(self, rate: float = 0.0) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, branch: Float[Tensor, "b pictures n c"]) -> Float[Tensor, "b pictures n c"]:
        """The branch, zero for the pictures left out.

        Args:
            branch: ``(b, pictures, n, c)``.

        Returns:
            A tensor like it.
        """
        if not self.training or self.rate == 0.0:
            return branch
        kept = torch.rand(branch.shape[:2], device=branch.device) >= self.rate
        return branch * (kept[..., None, None].to(branch.dtype) / (1 - self.rate))


def attend(
    q: Float[Tensor, "*batch heads n d"],
    k: Float[Tensor, "*batch heads m d"],
    v: Float[Tensor, "*batch heads m d"],
    valid: Bool[Tensor, "*batch m"] | None = None,
) -> Float[Tensor, "*batch heads n d"]:
    """Softmax attention.

    Args:
        q: ``(*batch, heads, n, d)`` queries, turned already.
        k: ``(*batch, heads, m, d)`` keys, turned already.
        v: ``(*batch, heads, m, d)`` values.
        valid: ``(*batch, m)`` keys that may be attended to, at least one in each; all unless given.

    Returns:
        ``(*batch, heads, n, d)``.

    Example:
        >>> v = torch.rand(1, 1, 3, 4)
        >>> only = torch.tensor([[False, True, False]])
        >>> torch.allclose(attend(v, v, v, only), v[:, :, 1:2])
        True
    """
    mask = None if valid is None else valid.flatten(0, -2)[:, None, None]
    out = F.scaled_dot_product_attention(q.flatten(0, -4), k.flatten(0, -4), v.flatten(0, -4), attn_mask=mask)
    return out.unflatten(0, q.shape[:-3])


class PartialAttention(NamedTuple):
    """Attention over some of the keys, and how much weight those keys have.

    Args:
        out: ``(*batch, heads, n, d)`` as if there were no other keys.
        log_sum: ``(*batch, heads, n)`` logarithm of the sum of exponentials of their scores.
    """

    out: Tensor
    log_sum: Tensor

    @classmethod
    def over(cls, q: Tensor, k: Tensor, v: Tensor, valid: Tensor | None = None) -> PartialAttention:
        """Attention over these keys alone.

        Args:
            q: ``(*batch, heads, n, d)``.
            k: ``(*batch, heads, m, d)``.
            v: ``(*batch, heads, m, d)``.
            valid: ``(*batch, m)``; where none is True the weight is nothing.

        Returns:
            The part.
        """
        scores = (q @ k.mT).to(torch.promote_types(q.dtype, torch.float32)) / math.sqrt(q.shape[-1])
        if valid is not None:
            scores = scores.masked_fill(~valid[..., None, None, :], torch.finfo(scores.dtype).min)
        log_sum = scores.logsumexp(-1)
        return cls((scores - log_sum[..., None]).exp().to(v.dtype) @ v, log_sum)

    def with_other(self, other: PartialAttention) -> PartialAttention:
        """Attention over the keys of both parts, exactly.

        Args:
            other: attention of the same queries over other keys.

        Returns:
            The part that both make.
        """
        log_sum = torch.logaddexp(self.log_sum, other.log_sum)
        own, others = (self.log_sum - log_sum).exp(), (other.log_sum - log_sum).exp()
        out = own[..., None] * self.out + others[..., None] * other.out
        return PartialAttention(out.to(self.out.dtype), log_sum)
