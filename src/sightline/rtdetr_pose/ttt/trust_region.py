"""How far layers may move from what they were."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor


class Projection(NamedTuple):
    """The farthest layer's share before, and how many layers were put back."""

    farthest: Float[Tensor, ""]
    projected: Float[Tensor, ""]


class TrustRegion:
    """Keeps each layer within a sphere around the source: ``|theta - source| <= radius |source|``.

    A layer is what belongs to one module, so that a bias of zeros may move as far as its weight lets it.

    Args:
        names: of the parameters; what precedes the last dot is the layer.
        source: what they were.
        radius: share of a layer's norm.
        floor: a layer counts as if the root mean square of its source were at least this.

    Example:
        >>> region = TrustRegion(["a.weight", "a.bias"], [torch.tensor([3.0, 4.0]), torch.zeros(1)], 0.1)
        >>> moved = [torch.tensor([3.0, 4.0]), torch.ones(1)]
        >>> region.project(moved)
        Projection(farthest=tensor(0.2000), projected=tensor(1.))
        >>> moved[1]
        tensor([0.5000])
    """

    def __init__(
        self, names: Sequence[str], source: Sequence[Tensor], radius: float | None, floor: float = 1e-2
    ) -> None:
        layers = {name.rpartition(".")[0]: None for name in names}
        order = {layer: i for i, layer in enumerate(layers)}
        self.radius = radius
        self._source = list(source)
        device = self._source[0].device
        self._layer = torch.tensor([order[name.rpartition(".")[0]] for name in names], device=device)
        self._count = len(layers)
        sizes = torch.tensor([float(each.numel()) for each in source], device=device)
        least = floor * self._per_layer(sizes).sqrt()
        self._norm = torch.maximum(self._per_layer(self._norms(self._source).square()).sqrt(), least)

    @torch.no_grad()
    def project(self, parameters: Sequence[Tensor]) -> Projection:
        """Put layers that left their sphere back onto it, in place; others keep every bit.

        Args:
            parameters: in the order of the names.
        """
        moved = torch._foreach_sub(list(parameters), self._source)
        share = self._per_layer(self._norms(moved).square()).sqrt() / self._norm
        if self.radius is None:
            return Projection(share.max(), share.new_zeros(()))
        scale = (self.radius / share).clamp(max=1.0)
        torch._foreach_mul_(moved, list((scale - 1)[self._layer].unbind()))
        torch._foreach_add_(list(parameters), moved)
        return Projection(share.max(), (share > self.radius).sum().to(share))

    def _norms(self, tensors: Sequence[Tensor]) -> Tensor:
        return torch.stack([each.float() for each in torch._foreach_norm(list(tensors))])

    def _per_layer(self, values: Tensor) -> Tensor:
        return values.new_zeros(self._count).index_add_(0, self._layer, values)
