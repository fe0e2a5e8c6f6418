"""Learned tokens beside those of the patches: they lie nowhere, so no rotary encoding turns them.

A template's added token stands for "none of my patches": after attention it is the column of the class
*unseen* in the template's logits.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn


class TokenManager(nn.Module):
    """Appends learned tokens to the query's and to each template's, and takes them off again.

    All templates get the same ones. Added tokens come last, at the dummy place (0, 0), and ``rope_mask`` is
    False for them alone.

    Args:
        dim: channels of a token.
        num_query_added: how many the query gets.
        num_template_added: how many each template gets.
        init_std: standard deviation of their first values.

    Raises:
        ValueError: if a number is negative.

    Example:
        >>> tokens = TokenManager(8)
        >>> places = torch.zeros(2, 3, 4, 2, dtype=torch.int64)
        >>> x, pos, rope_mask = tokens.add_template_tokens(torch.rand(2, 3, 4, 8), places)
        >>> x.shape, rope_mask[0, 0]
        (torch.Size([2, 3, 5, 8]), tensor([ True,  True,  True,  True, False]))
    """

    def __init__(
        self, dim: int, num_query_added: int = 0, num_template_added: int = 1, init_std: float = 0.02
    ) -> None:
        super().__init__()
        if num_query_added < 0 or num_template_added < 0:
            raise ValueError(
                "num_query_added and num_template_added must not be negative, "
                f"got {num_query_added} and {num_template_added}"
            )
        self.num_query_added = num_query_added
        self.num_template_added = num_template_added
        self.query_added = nn.Parameter(torch.empty(1, num_query_added, dim))
        self.template_added = nn.Parameter(torch.empty(1, num_template_added, dim))
        for tokens in (self.query_added, self.template_added):
            nn.init.trunc_normal_(tokens, std=init_std, a=-2 * init_std, b=2 * init_std)

    def add_query_tokens(
        self, x: Float[Tensor, "b n c"], pos: Int[Tensor, "*#b n 2"]
    ) -> tuple[Float[Tensor, "b m c"], Int[Tensor, "b m 2"], Bool[Tensor, "b m"]]:
        """Appends the query's tokens.

        Args:
            x: ``(b, n, c)`` tokens of the patches.
            pos: ``(b, n, 2)`` or ``(n, 2)`` their places (y, x).

        Returns:
            Tokens, places and ``rope_mask`` with ``m = n + num_query_added``.
        """
        return _append(x, pos, self.query_added)

    def add_template_tokens(
        self, x: Float[Tensor, "b s n c"], pos: Int[Tensor, "*#bs n 2"]
    ) -> tuple[Float[Tensor, "b s m c"], Int[Tensor, "b s m 2"], Bool[Tensor, "b s m"]]:
        """Appends the tokens of every template.

        Args:
            x: ``(b, s, n, c)`` tokens of the patches.
            pos: ``(b, s, n, 2)`` or ``(n, 2)`` their places (y, x).

        Returns:
            Tokens, places and ``rope_mask`` with ``m = n + num_template_added``.
        """
        return _append(x, pos, self.template_added)

    def remove_added_tokens(
        self, query: Float[Tensor, "b m c"], templates: Float[Tensor, "b s k c"]
    ) -> tuple[Float[Tensor, "b n c"], Float[Tensor, "b s t c"]]:
        """The tokens of the patches alone: the inverse of both additions.

        Args:
            query: ``(b, nq + num_query_added, c)``.
            templates: ``(b, s, nt + num_template_added, c)``.

        Returns:
            ``(b, nq, c)`` and ``(b, s, nt, c)``, views of the inputs.
        """
        return (
            query[..., : query.shape[-2] - self.num_query_added, :],
            templates[..., : templates.shape[-2] - self.num_template_added, :],
        )


def _append(x: Tensor, pos: Tensor, added: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    *batch, patches, _ = x.shape
    count = added.shape[1]
    tokens = torch.cat([x, added[0].to(x.dtype).expand(*batch, count, -1)], dim=-2)
    nowhere = pos.new_zeros(*batch, count, 2)
    places = torch.cat([pos.expand(*batch, patches, 2), nowhere], dim=-2)
    rope_mask = torch.arange(patches + count, device=x.device) < patches
    return tokens, places, rope_mask.expand(*batch, patches + count)
