"""Which template patch each query patch shows: cosines of projected tokens, sharpened by a temperature."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from sightline.nn.precision import at_least_float32

MAX_SCALE = 100.0
"""The most by which cosines are multiplied (Radford et al., CLIP, 2021)."""


class ClassificationHead(nn.Module):
    """Logits of every template token for every query token.

    Both are projected by layers of their own to unit vectors; a logit is their cosine by the temperature.
    Templates' projections depend on nothing of the query, so that a card can keep them.

    Args:
        dim: channels of a token.
        proj_dim: channels of a projection; ``dim`` unless given.
        use_mlp: whether a projection has a hidden layer.
        temperature: of the softmax, at first. With 1.0 a softmax over 197 classes cannot rise above 3.6 %,
            because cosines end at 1.
        learnable_temperature: whether it learns. It then stays above 1 / :data:`MAX_SCALE`, softly, so that
            it can always come back.

    Example:
        >>> head = ClassificationHead(32, proj_dim=16)
        >>> head(torch.rand(2, 4, 32), torch.rand(2, 3, 5, 32)).shape
        torch.Size([2, 3, 4, 5])
        >>> round(head.temperature.item(), 6)
        0.07
    """

    scale_logit: Tensor

    def __init__(
        self,
        dim: int,
        proj_dim: int | None = None,
        use_mlp: bool = False,
        temperature: float = 0.07,
        learnable_temperature: bool = True,
    ) -> None:
        super().__init__()
        if not temperature > 1 / MAX_SCALE:
            raise ValueError(f"temperature: expected above {1 / MAX_SCALE}, got {temperature}")
        share = 1 / temperature / MAX_SCALE
        scale_logit = torch.tensor(math.log(share / (1 - share)))
        if learnable_temperature:
            self.scale_logit = nn.Parameter(scale_logit)
        else:
            self.register_buffer("scale_logit", scale_logit)
        width = proj_dim or dim
        self.query_projection = _projection(dim, width, use_mlp)
        self.template_projection = _projection(dim, width, use_mlp)

    @property
    def scale(self) -> Float[Tensor, ""]:
        """What multiplies the cosines: between 0 and :data:`MAX_SCALE`."""
        return MAX_SCALE * self.scale_logit.sigmoid()

    @property
    def temperature(self) -> Float[Tensor, ""]:
        """What divides the cosines."""
        return 1 / self.scale

    def forward(
        self, query: Float[Tensor, "b nq c"], templates: Float[Tensor, "b s nt c"]
    ) -> Float[Tensor, "b s nq nt"]:
        """Logits, for a softmax over each template's tokens.

        Args:
            query: ``(b, nq, c)`` tokens.
            templates: ``(b, s, nt, c)`` tokens, the added ones last.

        Returns:
            ``(b, s, nq, nt)`` logits, float32 or wider.
        """
        return self.compare(self.project_query(query), self.project_templates(templates))

    def project_query(self, tokens: Float[Tensor, "*n c"]) -> Float[Tensor, "*n d"]:
        """Unit vectors of query tokens.

        Args:
            tokens: ``(*n, c)``.
        """
        return F.normalize(at_least_float32(self.query_projection(tokens)), dim=-1)

    def project_templates(self, tokens: Float[Tensor, "*n c"]) -> Float[Tensor, "*n d"]:
        """Unit vectors of templates' tokens, for :meth:`compare`.

        Args:
            tokens: ``(*n, c)``.
        """
        return F.normalize(at_least_float32(self.template_projection(tokens)), dim=-1)

    def compare(
        self, query: Float[Tensor, "b nq d"], templates: Float[Tensor, "b s nt d"]
    ) -> Float[Tensor, "b s nq nt"]:
        """Logits of projections that were made before, in any precision.

        Args:
            query: ``(b, nq, d)`` of :meth:`project_query`.
            templates: ``(b, s, nt, d)`` of :meth:`project_templates`.
        """
        # bfloat16 would round a logit of 14 to steps of 1/16
        with torch.autocast(query.device.type, enabled=False):
            return at_least_float32(query)[:, None] @ at_least_float32(templates).mT * self.scale


def _projection(dim: int, width: int, use_mlp: bool) -> nn.Sequential:
    hidden = [nn.Linear(dim, dim), nn.GELU()] if use_mlp else []
    return nn.Sequential(*hidden, nn.Linear(dim, width), nn.LayerNorm(width))
