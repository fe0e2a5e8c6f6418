"""What attention needs of an object's templates, computed once and kept with the object."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


class TemplateCache(NamedTuple):
    """Keys and values of templates that attended to themselves alone; no query is in them.

    Keys are not turned yet: by how much depends on the reference view, which comes with the query.

    Args:
        keys: ``(layers, b, s, heads, n, d)``.
        values: ``(layers, b, s, heads, n, d)``.
        tokens: ``(b, s, n, c)`` the templates' tokens after the last layer.
        positions: ``(b, s, n, 2)`` places (y, x).
        rotations: ``(b, s, 3, 3)`` views ``cam_from_obj``.
        rope_mask: ``(b, s, n)`` False for added tokens.
        valid: ``(b, s)`` False for padding; None where there is none.
    """

    keys: Float[Tensor, "layers b s heads n d"]
    values: Float[Tensor, "layers b s heads n d"]
    tokens: Float[Tensor, "b s n c"]
    positions: Int[Tensor, "b s n 2"]
    rotations: Float[Tensor, "b s 3 3"]
    rope_mask: Bool[Tensor, "b s n"]
    valid: Bool[Tensor, "b s"] | None = None

    def select(self, index: Int[Tensor, "q k"]) -> TemplateCache:
        """Chosen templates for each query, such as those with the best scores.

        Args:
            index: ``(q, k)`` numbers of templates; a cache of one object serves any number of queries.

        Returns:
            A cache of ``(q, k)`` templates, a copy.
        """
        rows = torch.arange(len(index), device=index.device)[:, None] % len(self.tokens)
        return TemplateCache(
            keys=self.keys[:, rows, index],
            values=self.values[:, rows, index],
            tokens=self.tokens[rows, index],
            positions=self.positions[rows, index],
            rotations=self.rotations[rows, index],
            rope_mask=self.rope_mask[rows, index],
            valid=None if self.valid is None else self.valid[rows, index],
        )

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> TemplateCache:
        """The cache on another device, or its features in another precision.

        Args:
            device: where to.
            dtype: of keys, values and tokens; as it is unless given.

        Returns:
            A cache.
        """
        return TemplateCache(
            keys=self.keys.to(device, dtype),
            values=self.values.to(device, dtype),
            tokens=self.tokens.to(device, dtype),
            positions=self.positions.to(device),
            rotations=self.rotations.to(device),
            rope_mask=self.rope_mask.to(device),
            valid=None if self.valid is None else self.valid.to(device),
        )
