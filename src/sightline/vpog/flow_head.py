"""Where every pixel of a query patch lies in its template patch, and how sure that is."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from sightline.nn.precision import at_least_float32

_FIRST_SCALE = 0.25
"""Half the mean of |x| + |y| for pixels that lie anywhere in the patch: the best scale of a flow of 0."""


class FlowPrediction(NamedTuple):
    """The flow of pairs of patches.

    Args:
        flow: ``(*pairs, r, r, 2)`` for each pixel of the query patch, row by row, its place ``(x, y)``
            relative to the centre of the template patch, in patches.
        scale: ``(*pairs, r, r)`` b > 0 of a Laplace distribution of both components, patches.
        confidence: ``(*pairs, r, r)`` exp(-b), in (0, 1).
    """

    flow: Float[Tensor, "*pairs r r 2"]
    scale: Float[Tensor, "*pairs r r"]
    confidence: Float[Tensor, "*pairs r r"]


class FlowHead(nn.Module):
    """Layers over a query token and a template token side by side.

    Only pairs that match are worth asking, at most one for each query patch of each template:
    :meth:`forward` takes them as two lists. :meth:`all_pairs` asks for all, as a reference.

    Args:
        dim: channels of a token.
        hidden_dim: channels of the layers.
        num_layers: how many before the output.
        flow_resolution: r, pixels of a patch's side.
        min_scale: the least b, patches; keeps the likelihood of a perfect flow finite.

    Example:
        >>> head = FlowHead(32, flow_resolution=8)
        >>> prediction = head(torch.rand(5, 32), torch.rand(5, 32))
        >>> prediction.flow.shape, prediction.scale.shape
        (torch.Size([5, 8, 8, 2]), torch.Size([5, 8, 8]))
    """

    def __init__(
        self,
        dim: int,
        hidden_dim: int = 256,
        num_layers: int = 3,
        flow_resolution: int = 16,
        *,
        min_scale: float = 0.01,
    ) -> None:
        super().__init__()
        if num_layers < 1:
            raise ValueError(f"num_layers: expected 1 or more, got {num_layers}")
        self.dim, self.flow_resolution, self.min_scale = dim, flow_resolution, min_scale
        widths = [2 * dim] + [hidden_dim] * num_layers
        self.layers = nn.Sequential(
            *(nn.Sequential(nn.Linear(a, b), nn.LayerNorm(b), nn.GELU()) for a, b in pairwise(widths))
        )
        # one layer for flow and scale: none of its weights is without gradient when the loss reads one alone
        self.output = nn.Linear(hidden_dim, 3 * flow_resolution**2)
        nn.init.normal_(self.output.weight, std=1e-3)
        nn.init.zeros_(self.output.bias)
        with torch.no_grad():
            self.output.bias.view(-1, 3)[:, 2] = math.log(math.expm1(_FIRST_SCALE - min_scale))

    def forward(
        self, query_tokens: Float[Tensor, "*pairs c"], template_tokens: Float[Tensor, "*pairs c"]
    ) -> FlowPrediction:
        """The flow of pairs.

        Args:
            query_tokens: ``(*pairs, c)``, one of each pair.
            template_tokens: ``(*pairs, c)``, the other.
        """
        r = self.flow_resolution
        hidden = self.layers(torch.cat([query_tokens, template_tokens], dim=-1))
        raw = at_least_float32(self.output(hidden)).unflatten(-1, (r, r, 3))
        scale = F.softplus(raw[..., 2]) + self.min_scale
        return FlowPrediction(raw[..., :2], scale, (-scale).exp())

    def all_pairs(
        self, query: Float[Tensor, "b nq c"], templates: Float[Tensor, "b s nt c"]
    ) -> tuple[Float[Tensor, "b s nq nt r r 2"], Float[Tensor, "b s nq nt r r"]]:
        """The flow of every query patch in every template patch: the reference, of ``nt`` times the cost.

        Args:
            query: ``(b, nq, c)`` tokens.
            templates: ``(b, s, nt, c)`` tokens of patches, none added.

        Returns:
            Flow ``(b, s, nq, nt, r, r, 2)`` and confidence ``(b, s, nq, nt, r, r)``.
        """
        num_templates, num_patches = templates.shape[1:3]
        left = query[:, None, :, None].expand(-1, num_templates, -1, num_patches, -1)
        right = templates[:, :, None].expand(-1, -1, query.shape[1], -1, -1)
        prediction = self(left, right)
        return prediction.flow, prediction.confidence
