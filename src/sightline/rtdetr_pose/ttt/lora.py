"""Low-rank adapters: a few weights beside those of a layer, the only ones that change (LoRA, ICLR 2022).

They are parametrisations of ``weight``: a layer stays what it is, also for code that reads its weight.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils import parametrize


class LowRank(nn.Module):
    """Adds ``alpha / rank * up @ down`` to a weight; nothing at first, because ``up`` is 0.

    Args:
        weight: ``(out, in, ...)`` that is adapted.
        rank: of what is added.
        alpha: its scale.
        generator: of the first values, on the CPU.
    """

    def __init__(self, weight: Tensor, rank: int, alpha: float, generator: torch.Generator) -> None:
        super().__init__()
        inputs = weight[0].numel()
        down = torch.randn(rank, inputs, generator=generator) / math.sqrt(inputs)
        self.down = nn.Parameter(down.to(weight))
        self.up = nn.Parameter(torch.zeros(weight.shape[0], rank).to(weight))
        self.scale = alpha / rank

    def forward(self, weight: Float[Tensor, "out *rest"]) -> Float[Tensor, "out *rest"]:
        """The adapted weight."""
        return weight + self.scale * (self.up @ self.down).view_as(weight)


def apply_adapters(
    model: nn.Module,
    rank: int = 4,
    *,
    alpha: float | None = None,
    layers: Sequence[str] = ("linear", "conv"),
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    seed: int = 0,
) -> list[str]:
    """Give layers low-rank adapters; the model computes the same as before.

    Args:
        model: changed in place.
        rank: of each adapter, at most the smaller side of its weight.
        alpha: scale; ``rank`` unless given.
        layers: kinds: ``linear``, ``conv`` (2-D), ``conv1x1``.
        include: only layers with one of these texts in their names; all unless given.
        exclude: and with none of these.
        seed: of the first values.

    Returns:
        The names of the adapted layers.

    Raises:
        ValueError: an unknown kind, or no such layer.

    Example:
        >>> model = nn.Sequential(nn.Linear(8, 4), nn.ReLU(), nn.Linear(4, 2))
        >>> apply_adapters(model, rank=2, exclude=("2",))
        ['0']
        >>> sum(p.numel() for n, p in model.named_parameters() if ".0." in n and "original" not in n)
        24
        >>> remove_adapters(model)
        ['0']
    """
    unknown = [each for each in layers if each not in ("linear", "conv", "conv1x1")]
    if unknown:
        raise ValueError(f"layers: expected linear, conv or conv1x1, got {', '.join(unknown)}")
    if rank < 1:
        raise ValueError(f"rank: expected at least 1, got {rank}")
    names = [
        name
        for name, module in model.named_modules()
        if _is_layer(module, layers)
        and (not include or any(text in name for text in include))
        and not any(text in name for text in exclude)
    ]
    if not names:
        raise ValueError(
            f"adapters: no layer of kind {' or '.join(layers)} with {list(include) or 'any name'} "
            f"without {list(exclude)}"
        )
    generator = torch.Generator().manual_seed(seed)
    for name in names:
        layer: Any = model.get_submodule(name)
        weight = layer.weight.detach()
        fitting = min(rank, weight.shape[0], weight[0].numel())
        adapter = LowRank(weight, fitting, fitting if alpha is None else alpha, generator)
        parametrize.register_parametrization(layer, "weight", adapter.train(layer.training))
    return names


def remove_adapters(model: nn.Module, *, merge: bool = False) -> list[str]:
    """Take the adapters off again.

    Args:
        model: changed in place.
        merge: keep what they learnt in the weights; otherwise the weights are what they were, bit for bit.

    Returns:
        The names of the layers that had one.
    """
    names = [
        name
        for name, module in model.named_modules()
        if parametrize.is_parametrized(module, "weight")
        and any(isinstance(each, LowRank) for each in module.parametrizations["weight"])
    ]
    for name in names:
        parametrize.remove_parametrizations(model.get_submodule(name), "weight", leave_parametrized=merge)
    return names


def _is_layer(module: nn.Module, layers: Sequence[str]) -> bool:
    if parametrize.is_parametrized(module):
        return False
    if isinstance(module, nn.Linear):
        return "linear" in layers
    if isinstance(module, nn.Conv2d):
        return "conv" in layers or ("conv1x1" in layers and module.kernel_size == (1, 1))
    return False
