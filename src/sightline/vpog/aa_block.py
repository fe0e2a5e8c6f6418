"""One layer: attention to all pictures, attention within windows of each picture, and an MLP."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sightline.nn.rope import rotate_halves
from sightline.vpog.attention import DropPath, Heads, PartialAttention, attend
from sightline.vpog.view_encoding import Prepared, RotationEncoding, SphereEncoding
from sightline.vpog.window import merge_windows, partition_windows, real_tokens


class Places(NamedTuple):
    """Where the tokens of some pictures lie; the same in every layer.

    Args:
        view: places and views as global attention turns them.
        phases: ``(b, p, n, d/2)`` angles of RoPE2D, zero for added tokens.
        grid: ``(rows, columns)`` of patches; what comes after them is added tokens.
    """

    view: Prepared
    phases: Tensor
    grid: tuple[int, int]


class Chunk(NamedTuple):
    """Some of the templates of a cache, which a query attends to at once.

    Args:
        part: which.
        view: of their tokens, as global attention turns them.
        valid: ``(b, p m)`` tokens that may be seen, or None for all.
    """

    part: slice
    view: Prepared
    valid: Tensor | None


class AABlock(nn.Module):
    """LN, global attention, LN, local attention, LN, MLP; each is added to its input.

    Pictures are ``(b, p, n, c)``: the query is one of them, the templates are p.

    Args:
        dim: channels of a token.
        num_heads: heads of both attentions.
        encoding: turns queries and keys of global attention.
        mlp_ratio: hidden channels of the MLP, as multiples of ``dim``.
        window: the most tokens on a side of a window.
        drop_path: share of branches left out in training.

    Example:
        >>> from sightline.vpog.view_encoding import build_encoding
        >>> block = AABlock(32, 2, build_encoding("so3", 16))
        >>> block.mlp(torch.rand(1, 2, 5, 32)).shape
        torch.Size([1, 2, 5, 32])
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        encoding: SphereEncoding | RotationEncoding,
        *,
        mlp_ratio: float = 4.0,
        window: int = 7,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        self.encoding = encoding
        self.window = window
        self.global_norm = nn.LayerNorm(dim, eps=1e-6)
        self.global_heads = Heads(dim, num_heads)
        self.local_norm = nn.LayerNorm(dim, eps=1e-6)
        self.local_heads = Heads(dim, num_heads)
        self.mlp_norm = nn.LayerNorm(dim, eps=1e-6)
        hidden = round(dim * mlp_ratio)
        self.mlp = nn.Sequential(nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, dim))
        self.drop_path = DropPath(drop_path)

    def global_split(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values of global attention, not turned yet.

        Args:
            x: ``(b, p, n, c)``.

        Returns:
            Three of ``(b, p, heads, n, d)``.
        """
        return self.global_heads.split(self.global_norm(x))

    def after_global(self, x: Tensor, attended: Tensor, places: Places) -> Tensor:
        """The rest of the layer, which pictures go through on their own.

        Args:
            x: ``(b, p, n, c)`` input of the layer.
            attended: ``(b, p, heads, n, d)`` what global attention found.
            places: of the tokens.

        Returns:
            ``(b, p, n, c)`` output of the layer.
        """
        x = x + self.drop_path(self.global_heads.join(attended))
        x = x + self.drop_path(self.attend_locally(self.local_norm(x), places))
        return x + self.drop_path(self.mlp(self.mlp_norm(x)))

    def attend_alone(self, x: Tensor, places: Places) -> tuple[Tensor, Tensor, Tensor]:
        """The layer for pictures that see nothing but themselves.

        Args:
            x: ``(b, p, n, c)``.
            places: of the tokens, each picture its own reference.

        Returns:
            ``(b, p, n, c)`` output, and the keys (not turned) and values ``(b, p, heads, n, d)`` for others.
        """
        q, k, v = self.global_split(x)
        rotate = self.encoding.rotate
        attended = attend(rotate(q, places.view), rotate(k, places.view), v)
        return self.after_global(x, attended, places), k, v

    def attend_jointly(
        self,
        query: Tensor,
        templates: Tensor,
        query_places: Places,
        template_places: Places,
        valid: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        """The layer for a query and templates that all see one another.

        Args:
            query: ``(b, 1, n, c)``.
            templates: ``(b, s, m, c)``.
            query_places: of the query's tokens.
            template_places: of the templates' tokens.
            valid: ``(b, n + s m)`` tokens that may be seen, or None for all.

        Returns:
            Both, after the layer.
        """
        sides = []
        for x, places in ((query, query_places), (templates, template_places)):
            q, k, v = self.global_split(x)
            turned = (self.encoding.rotate(q, places.view), self.encoding.rotate(k, places.view), v)
            sides.append([one_sequence(each) for each in turned])
        q, k, v = (torch.cat(pair, dim=-2) for pair in zip(*sides, strict=True))
        attended = attend(q, k, v, valid)
        count = query.shape[-2]
        to_query, to_templates = attended[..., :count, :], attended[..., count:, :]
        to_templates = to_templates.unflatten(-2, templates.shape[1:3]).transpose(1, 2)
        return (
            self.after_global(query, to_query[:, None], query_places),
            self.after_global(templates, to_templates, template_places),
        )

    def attend_to_templates(
        self, query: Tensor, places: Places, keys: Tensor, values: Tensor, chunks: Sequence[Chunk]
    ) -> Tensor:
        """The layer for a query that sees itself and templates that do not see it.

        Args:
            query: ``(b, 1, n, c)``.
            places: of the query's tokens.
            keys: ``(b, s, heads, m, d)`` of the templates, not turned yet; b may be 1.
            values: ``(b, s, heads, m, d)``.
            chunks: which templates are attended to at a time; several are summed exactly.

        Returns:
            ``(b, 1, n, c)`` output of the layer.
        """
        q, k, own_v = self.global_split(query)
        q = one_sequence(self.encoding.rotate(q, places.view))
        own_k = one_sequence(self.encoding.rotate(k, places.view))
        own_v = one_sequence(own_v)
        found = PartialAttention.over(q, own_k, own_v) if len(chunks) > 1 else None
        attended = q
        keys, values = (each.to(q.dtype).expand(len(q), *each.shape[1:]) for each in (keys, values))
        for part, view, valid in chunks:
            k = one_sequence(self.encoding.rotate(keys[:, part], view))
            v = one_sequence(values[:, part])
            if found is not None:
                found = found.with_other(PartialAttention.over(q, k, v, valid))
                attended = found.out
                continue
            seen = None if valid is None else F.pad(valid, (own_k.shape[-2], 0), value=True)
            attended = attend(q, torch.cat([own_k, k], dim=-2), torch.cat([own_v, v], dim=-2), seen)
        return self.after_global(query, attended[:, None], places)

    def attend_locally(self, x: Tensor, places: Places) -> Tensor:
        """Attention within windows; added tokens are in all, and the mean of what they find there is theirs.

        Args:
            x: ``(b, p, n, c)``.
            places: of the tokens.

        Returns:
            ``(b, p, n, c)``.
        """
        patches = places.grid[0] * places.grid[1]
        q, k, v = self.local_heads.split(x)
        tokens = torch.stack([rotate_halves(q, places.phases), rotate_halves(k, places.phases), v])
        windows = partition_windows(tokens[..., :patches, :], places.grid, self.window)
        added = tokens[..., None, patches:, :].expand(*windows.shape[:-2], -1, -1)
        # (3, b, p, windows, heads, m + added, d)
        windows = torch.cat([windows, added], dim=-2).transpose(-4, -3)
        found = attend(*windows.unbind(), self._seen(places, windows.shape[1:-3], added.shape[-2]))
        found = found.transpose(-4, -3)
        size = found.shape[-2] - added.shape[-2]
        merged = merge_windows(found[..., :size, :], places.grid, self.window)
        return self.local_heads.join(torch.cat([merged, found[..., size:, :].mean(-3)], dim=-2))

    def _seen(self, places: Places, batch: tuple[int, ...], added: int) -> Tensor | None:
        real = real_tokens(places.grid, self.window, places.phases.device)
        if real is None:
            return None
        return torch.cat([real, real.new_ones(len(real), added)], dim=-1).expand(*batch, -1)


def one_sequence(x: Tensor) -> Tensor:
    """The tokens of all pictures as one sequence: ``(b, p, heads, n, d)`` to ``(b, heads, p n, d)``."""
    return x.transpose(1, 2).flatten(2, 3)
