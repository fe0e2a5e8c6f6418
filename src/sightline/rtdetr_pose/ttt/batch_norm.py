"""Which statistics batch norms use while a model adapts; those that they keep never change."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class BatchNormMode:
    """Lets batch norms, also those frozen into buffers, mix the batch's statistics with the source's.

    ``mean = (1 - alpha) source + alpha batch``, and the variance likewise (Schneider et al., NeurIPS 2020).
    With ``alpha = 1`` gradients flow through the statistics, as in training and as Tent has it; a mixture
    takes them as constants.

    Args:
        model: whose batch norms.
        alpha: the batch's share; 0 leaves them as they are.

    Example:
        >>> norm = nn.BatchNorm2d(1).eval()
        >>> mode = BatchNormMode(norm, alpha=0.5)
        >>> norm(torch.full((1, 1, 2, 2), 4.0))[0, 0, 0, 0].item()  # (4 - 2) / sqrt(0.5)
        2.828...
        >>> mode.remove()
        >>> round(norm(torch.full((1, 1, 2, 2), 4.0))[0, 0, 0, 0].item(), 3)
        4.0
    """

    def __init__(self, model: nn.Module, alpha: float) -> None:
        self.alpha = alpha
        self._modules = [each for each in model.modules() if _keeps_statistics(each)] if alpha > 0 else []
        self._install()

    def remove(self) -> None:
        """Let them be as they were."""
        for module in self._modules:
            module.__dict__.pop("forward", None)

    @contextmanager
    def paused(self) -> Generator[None]:
        """Let them use the source's statistics during the block."""
        self.remove()
        try:
            yield
        finally:
            self._install()

    def _install(self) -> None:
        for module in self._modules:
            # An attribute of the object stands before the class's method.
            module.forward = _mixed_forward(module, self.alpha)


def _keeps_statistics(module: nn.Module) -> bool:
    return all(isinstance(getattr(module, name, None), Tensor) for name in ("running_mean", "running_var"))


def _mixed_forward(module: Any, alpha: float) -> Callable[[Tensor], Tensor]:  # noqa: ANN401
    eps = getattr(module, "eps", 1e-5)

    def forward(x: Tensor) -> Tensor:
        if alpha == 1:
            return F.batch_norm(x, None, None, module.weight, module.bias, True, 0.0, eps)
        axes = [0, *range(2, x.ndim)]
        var, mean = torch.var_mean(x.detach(), axes, correction=0)
        mean = torch.lerp(module.running_mean, mean, alpha)
        var = torch.lerp(module.running_var, var, alpha)
        return F.batch_norm(x, mean, var, module.weight, module.bias, False, 0.0, eps)

    return forward
