"""The moving average of the weights, kept beside them, validated and exported in their place."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class WeightAverage:
    """An exponential moving average of a model's weights and floating buffers; other buffers are copied.

    ``average <- average + (1 - d) (weight - average)`` with ``d = min(decay, (1 + n) / (10 + n))`` after n
    updates, so that the average of a short run is not one of its first weights.

    Args:
        model: on its final device; its tensors must stay where they are.
        decay: d, of many updates.

    Example:
        >>> model = nn.Linear(1, 1, bias=False)
        >>> _ = nn.init.zeros_(model.weight)
        >>> average = WeightAverage(model, decay=0.5)
        >>> _ = nn.init.ones_(model.weight)
        >>> average.update(updates=100)
        >>> average.tensors["weight"].item(), model.weight.item()
        (0.5, 1.0)
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self._live: dict[str, Tensor] = model.state_dict()
        self.tensors = {name: tensor.clone() for name, tensor in self._live.items()}
        moving = [name for name, tensor in self._live.items() if tensor.is_floating_point()]
        self._moving = [self.tensors[name] for name in moving], [self._live[name] for name in moving]
        self._copied = [name for name, tensor in self._live.items() if not tensor.is_floating_point()]

    @torch.no_grad()
    def update(self, updates: int) -> None:
        """Move towards the weights.

        Args:
            updates: how many updates were made before.
        """
        decay = min(self.decay, (1 + updates) / (10 + updates))
        torch._foreach_lerp_(*self._moving, weight=1 - decay)
        for name in self._copied:
            self.tensors[name].copy_(self._live[name])

    @contextmanager
    def applied(self) -> Generator[None]:
        """Put the average into the model, and the weights back at the end of the block."""
        kept = {name: tensor.clone() for name, tensor in self._live.items()}
        _copy(self._live, self.tensors)
        try:
            yield
        finally:
            _copy(self._live, kept)

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take up an average that was saved."""
        _copy(self.tensors, tensors)


@torch.no_grad()
def _copy(targets: Mapping[str, Tensor], sources: Mapping[str, Tensor]) -> None:
    for name, target in targets.items():
        target.copy_(sources[name])
