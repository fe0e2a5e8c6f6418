"""Copies of tensors, taken and put back at once and bit for bit."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

LiveTensors = Callable[[], Mapping[str, Tensor]]


class Snapshot:
    """What named tensors were when it was taken.

    Args:
        live: gives the tensors by name; asked again each time, because modules may replace their buffers.

    Example:
        >>> weight = torch.zeros(2)
        >>> kept = Snapshot(lambda: {"weight": weight})
        >>> _ = weight.fill_(7.0)
        >>> kept.restore()
        >>> weight
        tensor([0., 0.])
    """

    def __init__(self, live: LiveTensors) -> None:
        self._live = live
        self.tensors: dict[str, Tensor] = {}
        self.take()

    @torch.no_grad()
    def take(self) -> None:
        """Copy the tensors as they are now; into the former copies where these fit."""
        live = self._live()
        if {name: each.shape for name, each in live.items()} == self._shapes():
            copy_all(list(self.tensors.values()), [live[name] for name in self.tensors])
        else:
            self.tensors = {name: each.detach().clone() for name, each in live.items()}

    @torch.no_grad()
    def restore(self) -> None:
        """Put the copies back.

        Raises:
            RuntimeError: the tensors are other ones than those that were copied.
        """
        live = self._live()
        shapes = {name: each.shape for name, each in live.items()}
        if shapes != self._shapes():
            changed = sorted(name for name, _ in shapes.items() ^ self._shapes().items())
            raise RuntimeError(f"the model's tensors are not those that were kept: {', '.join(changed[:5])}")
        copy_all([live[name] for name in self.tensors], list(self.tensors.values()))

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take up copies that were saved, and put them back."""
        self.tensors = {name: each.detach().clone() for name, each in tensors.items()}
        self.restore()

    def _shapes(self) -> dict[str, torch.Size]:
        return {name: each.shape for name, each in self.tensors.items()}


@torch.no_grad()
def copy_all(targets: Sequence[Tensor], sources: Sequence[Tensor]) -> None:
    """Copy tensors into others."""
    if targets:
        torch._foreach_copy_(list(targets), list(sources))


def model_tensors(model: nn.Module, parameters: Mapping[str, nn.Parameter]) -> LiveTensors:
    """Those of a model that an adaptation can change: the parameters of its scope, and all buffers."""

    def live() -> dict[str, Tensor]:
        buffers = {f"buffer {name}": each for name, each in model.named_buffers()}
        return {**parameters, **buffers}

    return live


def optimiser_tensors(optimiser: torch.optim.Optimizer) -> LiveTensors:
    """An optimiser's state."""

    def live() -> dict[str, Tensor]:
        parameters = [each for group in optimiser.param_groups for each in group["params"]]
        return {
            f"{i} {name}": value
            for i, parameter in enumerate(parameters)
            for name, value in optimiser.state[parameter].items()
            if isinstance(value, Tensor)
        }

    return live


@torch.no_grad()
def prime(optimiser: torch.optim.Optimizer) -> None:
    """Make an optimiser's state exist before its first step, at its first values, so that it can be copied.

    A step of length 0 without gradient makes it; zeros are what SGD's momentum, Adam and AdamW begin with.
    """
    rates = [group["lr"] for group in optimiser.param_groups]
    for group in optimiser.param_groups:
        group["lr"] = 0.0
        for parameter in group["params"]:
            parameter.grad = torch.zeros_like(parameter)
    optimiser.step()
    for group, rate in zip(optimiser.param_groups, rates, strict=True):
        group["lr"] = rate
        for parameter in group["params"]:
            parameter.grad = None
    for each in optimiser_tensors(optimiser)().values():
        each.zero_()
