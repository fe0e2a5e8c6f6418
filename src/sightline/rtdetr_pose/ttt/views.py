"""Views of pictures under other light and mirrored, all drawn where the pictures are."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def augment(
    pictures: Float[Tensor, "..."], index: int, generator: torch.Generator
) -> tuple[Float[Tensor, "b c h w"], bool]:
    """Draw a view: exposure, contrast, gamma, noise and blur; every second one is mirrored left to right.

    Args:
        pictures: ``(b, c, h, w)`` in [0, 1].
        index: which view; it says whether it is mirrored, so that nothing has to be read back.
        generator: of the random numbers, on the pictures' device.

    Returns:
        The view, and whether it is mirrored.

    Raises:
        ValueError: no ``(b, c, h, w)`` tensor.

    Example:
        >>> view, mirrored = augment(torch.rand(2, 3, 8, 8), 0, torch.Generator().manual_seed(0))
        >>> view.shape, mirrored
        (torch.Size([2, 3, 8, 8]), True)
    """
    if pictures.ndim != 4:
        raise ValueError(f"views: expected pictures (b, c, h, w), got {tuple(pictures.shape)}")
    draw = torch.rand(5, len(pictures), 1, 1, 1, generator=generator, device=pictures.device)
    exposure, contrast, gamma, noise, blur = draw.to(pictures)
    view = pictures.clamp(1e-4, 1) ** torch.exp(0.6 * (gamma - 0.5)) * (0.8 + 0.4 * exposure)
    mean = view.mean((1, 2, 3), keepdim=True)
    view = mean + (0.8 + 0.4 * contrast) * (view - mean)
    soft = F.avg_pool2d(view, 3, 1, 1, count_include_pad=False)
    view = view.lerp(soft, blur)
    grain = torch.randn(pictures.shape, generator=generator, device=pictures.device).to(pictures)
    view = (view + 0.02 * noise * grain).clamp(0, 1)
    mirrored = index % 2 == 0
    return (view.flip(-1) if mirrored else view), mirrored
