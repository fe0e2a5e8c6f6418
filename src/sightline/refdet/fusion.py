"""Several template maps of one object become one: an average, or a learned weighting of the views."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

FusionType = Literal["attention", "average"]


class TemplateFusion(nn.Module):
    """Weighs the views of an object at each position, whatever their number and order.

    A view's weight comes from its own features beside the mean of all; ``softmax`` over the views makes them
    sum to one. Nothing in it depends on how many views there are or on which comes first, and giving all of
    them twice changes nothing.

    Args:
        channels: channels of the maps.
        num_templates: how many views are usual; any number is fused.
        fusion_type: ``attention`` or ``average``.

    Example:
        >>> fusion = TemplateFusion(8)
        >>> views = torch.rand(2, 5, 8, 4, 4)
        >>> torch.allclose(fusion(views), fusion(views.flip(1)), atol=1e-6)
        True
    """

    def __init__(
        self, channels: int, num_templates: int = 3, fusion_type: FusionType | str = "attention"
    ) -> None:
        super().__init__()
        if fusion_type not in ("attention", "average"):
            raise ValueError(f"template_fusion must be attention or average, got {fusion_type!r}")
        if num_templates < 1:
            raise ValueError(f"num_templates must be at least 1, got {num_templates}")
        self.fusion_type = fusion_type
        if fusion_type == "attention":
            hidden = max(channels // 2, 8)
            self.own = nn.Conv2d(channels, hidden, 1)
            self.mean = nn.Conv2d(channels, hidden, 1, bias=False)
            # no bias: one that is common to all views cancels in the softmax
            self.weight = nn.Conv2d(hidden, 1, 1, bias=False)

    def forward(
        self,
        features: Float[Tensor, "b n c h w"] | Sequence[Tensor],
        valid: Bool[Tensor, "b n"] | None = None,
    ) -> Float[Tensor, "b c h w"]:
        """The fused map.

        Args:
            features: ``(b, n, c, h, w)``, or a list of n maps ``(b, c, h, w)``.
            valid: ``(b, n)`` which views are real; the others are padding. Each object needs at least one.

        Returns:
            ``(b, c, h, w)``.
        """
        views = features if isinstance(features, Tensor) else torch.stack(list(features), dim=1)
        batch, count = views.shape[:2]
        if valid is None:
            valid = torch.ones(batch, count, dtype=torch.bool, device=views.device)
        real = valid[:, :, None, None, None].to(views.dtype)
        mean = (views * real).sum(1) / real.sum(1).clamp_min(1)
        if self.fusion_type == "average":
            return mean
        own = self.own(views.flatten(0, 1)).unflatten(0, (batch, count))
        logits = self.weight(torch.relu(own + self.mean(mean)[:, None]).flatten(0, 1))
        logits = logits.unflatten(0, (batch, count)).masked_fill(real == 0, torch.finfo(views.dtype).min)
        return (logits.softmax(1) * views).sum(1)
