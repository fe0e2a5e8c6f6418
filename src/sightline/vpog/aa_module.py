"""Alternating attention: the query and the templates look at one another, then each at its neighbourhoods.

``joint`` lets every token see all tokens of all pictures. In ``asymmetric`` a template sees itself alone,
and the query sees itself and all templates: what the templates are is then known before any query comes, and
their keys and values can be kept with the object. Both have the same parameters but must be trained apart.
"""

from __future__ import annotations

import math
from typing import Literal, cast

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from sightline.nn.rope import angle_dtype, planar_phases
from sightline.vpog.aa_block import AABlock, Chunk, Places
from sightline.vpog.template_cache import TemplateCache
from sightline.vpog.view_encoding import EncodingName, as_rotations, build_encoding, reference_view

AAMode = Literal["joint", "asymmetric"]


class AAModule(nn.Module):
    """Layers of global attention with views and places, local attention in windows, and MLPs; then an LN.

    Permuted templates give permuted outputs; templates that are not ``valid`` change nothing in the others.
    Added tokens come last in a picture and have ``rope_mask`` False: nothing ever turns them.

    Args:
        dim: channels of a token.
        depth: layers.
        num_heads: heads; each needs a multiple of 4 channels and at least 16.
        mlp_ratio: hidden channels of the MLPs, as multiples of ``dim``.
        window_size: the most patches on a side of a window; need not divide the grid.
        encoding: ``s2rope-fixed``, ``s2rope-compat`` or ``so3``.
        mode: ``joint`` or ``asymmetric``.
        drop_path: share of branches left out in the last layer in training; rises linearly from 0.

    Raises:
        ValueError: if a name is unknown or the numbers do not divide.

    Example:
        >>> attention = AAModule(32, depth=2, num_heads=2)
        >>> places = torch.cartesian_prod(torch.arange(4), torch.arange(4))
        >>> query, templates = torch.rand(1, 16, 32), torch.rand(1, 3, 16, 32)
        >>> views = torch.eye(3).expand(1, 3, 3, 3)
        >>> query, templates = attention(query, templates, places, places, views, views[:, 0])
        >>> query.shape, templates.shape
        (torch.Size([1, 16, 32]), torch.Size([1, 3, 16, 32]))
    """

    def __init__(
        self,
        dim: int,
        depth: int = 4,
        num_heads: int = 12,
        *,
        mlp_ratio: float = 4.0,
        window_size: int = 7,
        encoding: EncodingName | str = "s2rope-fixed",
        mode: AAMode | str = "joint",
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        if mode not in ("joint", "asymmetric"):
            raise ValueError(f"mode: expected joint or asymmetric, got {mode!r}")
        if depth < 1 or window_size < 1:
            raise ValueError(f"depth and window_size must be positive, got {depth} and {window_size}")
        if dim % num_heads:
            raise ValueError(f"num_heads must divide dim = {dim}, got {num_heads}")
        self.mode = mode
        self.encoding_name = encoding
        self.head_dim = dim // num_heads
        self.encoding = build_encoding(encoding, self.head_dim)
        self.blocks = nn.ModuleList(
            AABlock(
                dim,
                num_heads,
                self.encoding,
                mlp_ratio=mlp_ratio,
                window=window_size,
                drop_path=drop_path * layer / max(depth - 1, 1),
            )
            for layer in range(depth)
        )
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.apply(_start)

    def forward(
        self,
        query: Float[Tensor, "b n c"],
        templates: Float[Tensor, "b s m c"],
        query_pos: Int[Tensor, "..."],
        template_pos: Int[Tensor, "..."],
        views: Float[Tensor, "b s *view"],
        reference: Float[Tensor, "b *given"],
        *,
        query_rope_mask: Bool[Tensor, "b n"] | None = None,
        template_rope_mask: Bool[Tensor, "b s m"] | None = None,
        template_valid: Bool[Tensor, "b s"] | None = None,
        query_grid: tuple[int, int] | None = None,
        template_grid: tuple[int, int] | None = None,
    ) -> tuple[Float[Tensor, "b n c"], Float[Tensor, "b s m c"]]:
        """Lets the pictures look at one another.

        Args:
            query: ``(b, n, c)`` tokens of the query, added ones last.
            templates: ``(b, s, m, c)`` tokens of the templates, added ones last.
            query_pos: ``(b, n, 2)`` or ``(n, 2)`` places (y, x) in patches.
            template_pos: ``(b, s, m, 2)`` or ``(m, 2)``.
            views: ``(b, s, 3, 3)`` rotations ``cam_from_obj`` of the templates; or ``(b, s, 3)`` unit view
                directions, where the encoding needs no more.
            reference: ``(b, 3, 3)`` rotation of the reference view, which stands for the query's; or its
                direction ``(b, 3)``, and the template that is nearest to it says what is up.
            query_rope_mask: ``(b, n)`` False for added tokens.
            template_rope_mask: ``(b, s, m)`` False for added tokens.
            template_valid: ``(b, s)`` False for padding; all are real unless given.
            query_grid: ``(rows, columns)`` of patches; the largest square of the tokens unless given.
            template_grid: likewise.

        Returns:
            Both, after the last norm. What stands at padded templates is of no meaning.

        Raises:
            ValueError: if directions alone do not suffice, or there are fewer tokens than patches.
        """
        rotations = self._rotations(views, reference)
        template_pos = template_pos.expand(*templates.shape[:-1], 2)
        if self.mode == "asymmetric":
            cache = self.template_cache(
                templates,
                template_pos,
                rotations,
                template_rope_mask=template_rope_mask,
                template_valid=template_valid,
                template_grid=template_grid,
            )
            return self.forward_cached(
                query, cache, query_pos, reference, query_rope_mask=query_rope_mask, query_grid=query_grid
            )
        whole = reference_view(reference, rotations, template_valid)
        query = query[:, None]
        query_places = self._query_places(query, query_pos, whole, query_rope_mask, query_grid)
        template_places = self._places(
            templates, template_pos, rotations, whole, template_rope_mask, template_grid
        )
        seen = _of_tokens(template_valid, templates.shape[-2], slice(None))
        if seen is not None:
            seen = F.pad(seen, (query.shape[-2], 0), value=True)
        for block in self._layers():
            query, templates = block.attend_jointly(query, templates, query_places, template_places, seen)
        return self.norm(query)[:, 0], self.norm(templates)

    def template_cache(
        self,
        templates: Float[Tensor, "b s m c"],
        template_pos: Int[Tensor, "..."],
        views: Float[Tensor, "b s *view"],
        *,
        template_rope_mask: Bool[Tensor, "b s m"] | None = None,
        template_valid: Bool[Tensor, "b s"] | None = None,
        template_grid: tuple[int, int] | None = None,
    ) -> TemplateCache:
        """All that queries will need of templates.

        Args:
            templates: ``(b, s, m, c)`` tokens, added ones last; b is 1 for the templates of one object.
            template_pos: ``(b, s, m, 2)`` or ``(m, 2)`` places (y, x).
            views: ``(b, s, 3, 3)`` rotations ``cam_from_obj``, or ``(b, s, 3)`` view directions.
            template_rope_mask: ``(b, s, m)`` False for added tokens.
            template_valid: ``(b, s)`` False for padding.
            template_grid: ``(rows, columns)`` of patches.

        Returns:
            Keys and values of every layer, and the tokens after the last.

        Raises:
            ValueError: if the mode is ``joint``, where nothing can be known without the query.
        """
        if self.mode != "asymmetric":
            raise ValueError("template_cache: in mode joint templates depend on the query; use asymmetric")
        rotations = as_rotations(views)
        positions = template_pos.expand(*templates.shape[:-1], 2)
        if template_rope_mask is None:
            template_rope_mask = positions.new_ones(positions.shape[:-1], dtype=torch.bool)
        places = self._places(templates, positions, rotations, rotations, template_rope_mask, template_grid)
        keys, values, x = [], [], templates
        for block in self._layers():
            x, k, v = block.attend_alone(x, places)
            keys.append(k)
            values.append(v)
        return TemplateCache(
            torch.stack(keys),
            torch.stack(values),
            self.norm(x),
            positions,
            rotations,
            template_rope_mask,
            template_valid,
        )

    def forward_cached(
        self,
        query: Float[Tensor, "b n c"],
        cache: TemplateCache,
        query_pos: Int[Tensor, "..."],
        reference: Float[Tensor, "b *given"],
        *,
        query_rope_mask: Bool[Tensor, "b n"] | None = None,
        query_grid: tuple[int, int] | None = None,
        chunk: int | None = None,
    ) -> tuple[Float[Tensor, "b n c"], Float[Tensor, "b s m c"]]:
        """``forward`` of the asymmetric mode with templates from a cache.

        Args:
            query: ``(b, n, c)`` tokens of the query, added ones last.
            cache: of ``template_cache``, for b objects, or for one that all queries show.
            query_pos: ``(b, n, 2)`` or ``(n, 2)`` places (y, x).
            reference: ``(b, 3, 3)`` rotations or ``(b, 3)`` directions of the reference views.
            query_rope_mask: ``(b, n)`` False for added tokens.
            query_grid: ``(rows, columns)`` of patches.
            chunk: how many templates are attended to at a time, so that memory does not grow with their
                number; the result is the same. All at once unless given.

        Returns:
            The query's and the templates' tokens, as ``forward`` gives them.
        """
        batch, count = len(query), cache.rotations.shape[1]
        rotations = cache.rotations.expand(batch, *cache.rotations.shape[1:])
        positions = cache.positions.expand(batch, *cache.positions.shape[1:])
        rope_mask = cache.rope_mask.expand(batch, *cache.rope_mask.shape[1:])
        valid = None if cache.valid is None else cache.valid.expand(batch, count)
        whole = reference_view(reference, rotations, valid)
        chunks = []
        for start in range(0, count, chunk or count):
            part = slice(start, start + (chunk or count))
            view = self.encoding.prepare(positions[:, part], rotations[:, part], whole, rope_mask[:, part])
            chunks.append(Chunk(part, view, _of_tokens(valid, positions.shape[-2], part)))
        x = query[:, None]
        places = self._query_places(x, query_pos, whole, query_rope_mask, query_grid)
        for block, keys, values in zip(self._layers(), cache.keys, cache.values, strict=True):
            x = block.attend_to_templates(x, places, keys, values, chunks)
        return self.norm(x)[:, 0], cache.tokens.expand(batch, *cache.tokens.shape[1:])

    def _layers(self) -> list[AABlock]:
        return cast("list[AABlock]", list(self.blocks))

    def _query_places(
        self,
        query: Tensor,
        positions: Tensor,
        reference: Tensor,
        rope_mask: Tensor | None,
        grid: tuple[int, int] | None,
    ) -> Places:
        positions = positions.expand(len(query), *query.shape[2:3], 2)[:, None]
        rope_mask = None if rope_mask is None else rope_mask[:, None]
        return self._places(query, positions, reference[:, None], reference, rope_mask, grid)

    def _places(
        self,
        x: Tensor,
        positions: Tensor,
        rotations: Tensor,
        reference: Tensor,
        rope_mask: Tensor | None,
        grid: tuple[int, int] | None,
    ) -> Places:
        tokens = x.shape[-2]
        rows, columns = grid or (math.isqrt(tokens), math.isqrt(tokens))
        if rows * columns > tokens:
            raise ValueError(f"grid {rows} x {columns} has more patches than the {tokens} tokens given")
        phases = planar_phases(positions, self.head_dim, dtype=angle_dtype(x.dtype))
        if rope_mask is not None:
            phases = phases.masked_fill(~rope_mask[..., None], 0.0)
        return Places(
            self.encoding.prepare(positions, rotations, reference, rope_mask), phases, (rows, columns)
        )

    def _rotations(self, views: Tensor, reference: Tensor) -> Tensor:
        if views.ndim == 3 and (
            self.encoding_name == "so3" or (self.encoding_name == "s2rope-fixed" and reference.ndim == 2)
        ):
            raise ValueError(
                f"views: encoding {self.encoding_name} needs rotations (b, s, 3, 3) of the templates, "
                f"got directions of shape {tuple(views.shape)}"
            )
        return as_rotations(views)


def _of_tokens(valid: Tensor | None, tokens: int, part: slice) -> Tensor | None:
    """Which tokens may be seen, of templates that are real."""
    return None if valid is None else valid[:, part].repeat_interleave(tokens, dim=1)


def _start(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)
