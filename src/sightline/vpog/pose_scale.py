"""How precise confidences are together: the one number that a pose loss learns beside them."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn


class PoseScale(nn.Module):
    """The global scale ``exp(s)`` of the weights of pixels, with a running mean for the size of the loss.

    It is a part of the model that it belongs to: the optimiser learns s, files of weights keep it.

    Args:
        log_scale: s at the start.
        momentum: of the running mean, which moves in training mode alone.

    Example:
        >>> scale = PoseScale(0.0)
        >>> scale().item(), [name for name, _ in scale.named_parameters()]
        (1.0, ['log_scale'])
    """

    norm_factor: Tensor

    def __init__(self, log_scale: float = 3.0, momentum: float = 0.01) -> None:
        super().__init__()
        self.momentum = momentum
        self.log_scale = nn.Parameter(torch.tensor(float(log_scale)))
        self.register_buffer("norm_factor", self.log_scale.detach().exp())

    def forward(self, log_scale: Float[Tensor, "*batch"] | None = None) -> Float[Tensor, "*batch"]:
        """The scale; the running mean follows it.

        Args:
            log_scale: s where a network predicts it; the learned one unless given.
        """
        scale = (self.log_scale if log_scale is None else log_scale).exp()
        if self.training:
            with torch.no_grad():
                self.norm_factor.lerp_(scale.detach().mean().to(self.norm_factor), self.momentum)
        return scale
