"""Depthwise cross-correlation of a template with a search picture, as a cosine.

Both are projected to a few channels and normalised at each position over the channels. (Group normalisation
over the picture, with as many groups as channels, makes the spatial mean of every template the same constant,
so that what is pooled from it tells nothing.) The template is averaged to a kernel of odd size; the response
of channel c at position x is its part of the cosine of kernel and window,

    r_c(x) = sum_d k_c(d) s_c(x + d) / (|k| |s m|_x)          sum_c r_c(x) in [-1, 1]

where m is the template's mask: what does not belong to the object counts neither in the kernel nor in the
window. ``|s m|_x`` is a convolution of ``|s|^2`` with m, and almost free.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from sightline.nn.backbones import ChannelNorm
from sightline.nn.pooling import area_pool, masked_pool

_FLOOR = 1e-6


class Kernel(NamedTuple):
    """A template as a kernel: ``(b, corr, k, k)`` values, and ``(b, 1, k, k)`` shares of the object."""

    values: Float[Tensor, "b corr k k"]
    mask: Float[Tensor, "b 1 k k"]


class DepthwiseCorrelation(nn.Module):
    """Where and how a template's layout appears in a search map.

    Args:
        channels: channels of both maps.
        corr_channels: channels of the correlation.
        kernel_size: cells of the kernel on a side; odd. A template of fewer cells is stretched to it.
        out_channels: maps that come out; 1 as a map of evidence.
        normalize: cosine; otherwise plain sums of products.

    Example:
        >>> correlation = DepthwiseCorrelation(16, 8, kernel_size=3)
        >>> correlation(torch.rand(2, 16, 6, 6), torch.rand(2, 16, 9, 14)).shape
        torch.Size([2, 1, 9, 14])
    """

    def __init__(
        self,
        channels: int = 256,
        corr_channels: int = 64,
        *,
        kernel_size: int = 7,
        out_channels: int = 1,
        normalize: bool = True,
    ) -> None:
        super().__init__()
        if kernel_size % 2 == 0 or kernel_size < 1:
            raise ValueError(f"kernel_size must be odd, got {kernel_size}")
        self.kernel_size = kernel_size
        self.normalize = normalize
        self.template_projection = nn.Sequential(
            nn.Conv2d(channels, corr_channels, 1, bias=False), ChannelNorm(corr_channels)
        )
        self.search_projection = nn.Sequential(
            nn.Conv2d(channels, corr_channels, 1, bias=False), ChannelNorm(corr_channels)
        )
        self.evidence = nn.Sequential(
            nn.Conv2d(2 * corr_channels, corr_channels, 1),
            nn.Hardswish(),
            nn.Conv2d(corr_channels, out_channels, 1),
        )

    def encode(
        self, template: Float[Tensor, "b c h w"], mask: Float[Tensor, "b 1 h w"] | None = None
    ) -> Kernel:
        """A template's kernel, computed once for an object.

        Args:
            template: ``(b, c, h, w)`` its features.
            mask: ``(b, 1, h, w)`` share of the object at each position; all of it if not given.

        Returns:
            The kernel.
        """
        size = (self.kernel_size, self.kernel_size)
        if mask is None:
            mask = torch.ones_like(template[:, :1])
        share = area_pool(mask, size)
        values = masked_pool(self.template_projection(template), mask, size) * share.sqrt()
        return Kernel(values, share)

    def respond(self, kernel: Kernel, search: Float[Tensor, "b c h w"]) -> Float[Tensor, "out maps h w"]:
        """Evidence from the layout (the correlation) and from the mean of the template (a product).

        Args:
            kernel: of one object for all pictures, of one for each, or of several for one picture.
            search: ``(b, c, h, w)`` features of the pictures.

        Returns:
            ``(out, out_channels, h, w)``, out the larger batch.
        """
        projected = self.search_projection(search)
        local = cross_correlate(kernel, projected, normalize=self.normalize)
        mean = kernel.values.mean(dim=(-2, -1), keepdim=True)
        whole = mean * projected
        if self.normalize:
            whole = whole / (_norm(mean) * _norm(projected))
        return self.evidence(torch.cat([local, whole], dim=1))

    def forward(
        self,
        template: Float[Tensor, "k c th tw"],
        search: Float[Tensor, "b c h w"],
        mask: Float[Tensor, "k 1 th tw"] | None = None,
    ) -> Float[Tensor, "out maps h w"]:
        """Evidence for the template at every position of the search map.

        Args:
            template: ``(k, c, th, tw)`` features; k is b or 1, or b is 1.
            search: ``(b, c, h, w)`` features.
            mask: ``(k, 1, th, tw)`` share of the object in the template.

        Returns:
            ``(out, out_channels, h, w)``, out the larger batch.
        """
        return self.respond(self.encode(template, mask), search)


def cross_correlate(
    kernel: Kernel, search: Float[Tensor, "b c h w"], *, normalize: bool = True
) -> Float[Tensor, "out c h w"]:
    """Depthwise correlation of maps with masked kernels, the whole batch in one grouped convolution.

    Args:
        kernel: ``(b, c, k, k)`` values that hold the root of the mask once, and the mask; b, or 1 for all.
        search: ``(b, c, h, w)`` maps; b, or 1 for all kernels.
        normalize: divide by the norms of kernel and window.

    Returns:
        ``(out, c, h, w)``, out the larger batch.

    Example:
        >>> patch = torch.rand(1, 4, 3, 3)
        >>> kernel = Kernel(patch, torch.ones(1, 1, 3, 3))
        >>> round(cross_correlate(kernel, patch).sum(1)[0, 1, 1].item(), 4)
        1.0
    """
    values = kernel.values * kernel.mask.sqrt()
    result = _grouped(search, values)
    if not normalize:
        return result
    energy = _grouped(search.square().sum(1, keepdim=True), kernel.mask)
    length = _norm(kernel.values.flatten(1))[..., None, None]
    return result / (energy.clamp_min(_FLOOR**2).sqrt() * length)


def _grouped(search: Tensor, weights: Tensor) -> Tensor:
    """``F.conv2d`` of each picture with its own depthwise kernels; either batch may be 1."""
    kernels, channels, size, _ = weights.shape
    if kernels == 1:
        return F.conv2d(search, weights.transpose(0, 1), padding=size // 2, groups=channels)
    batch = search.expand(kernels, -1, -1, -1)
    flat = batch.reshape(1, -1, *batch.shape[-2:])
    result = F.conv2d(flat, weights.reshape(-1, 1, size, size), padding=size // 2, groups=flat.shape[1])
    return result.reshape(kernels, channels, *batch.shape[-2:])


def _norm(x: Tensor) -> Tensor:
    """The Euclidean norm over axis 1, with a gradient at zero."""
    return (x.square().sum(1, keepdim=True) + _FLOOR**2).sqrt()
