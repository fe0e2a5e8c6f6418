"""One stride of the pyramid: its templates become a bank, and a search map evidence for them.

What goes on to the head depends on the template in every channel: similarities, the depthwise correlation,
the product of search features with the template's mean, and search features that are let through only where
something similar is. A head that saw the search features by themselves would learn to ignore the templates.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from sightline.nn.late_interaction import Parts, parts_of_map
from sightline.nn.pooling import area_pool, masked_pool
from sightline.refdet.bank import LevelBank
from sightline.refdet.correlation import DepthwiseCorrelation, Kernel
from sightline.refdet.fusion import FusionType, TemplateFusion
from sightline.refdet.prototypes import PrototypeMatcher


class Evidence(NamedTuple):
    """What a level says about its templates.

    ``similarity`` ``(b, e, h, w)``: of prototypes and layout; where the level is one of detection also
    ``relevance`` ``(b, 1, h, w)``: logits that the object is here, by similarity alone, and ``features``
    ``(b, 2 c, h, w)``: search features seen through the template.
    """

    similarity: Tensor
    relevance: Tensor | None = None
    features: Tensor | None = None


class LevelMatcher(nn.Module):
    """Encodes templates and compares them with search features, at one stride.

    Args:
        stride: of the level, in pixels.
        channels: channels of the pyramid.
        corr_channels: channels of the correlation.
        fusion: ``attention`` or ``average``.
        kernel_size: cells of the correlation's kernel on a side.
        descriptor_channels: length of the prototypes.
        grid: cells of a template on a side.
        num_scales: sizes of the template picture.
        detects: whether the head reads this level's features, or its similarities alone.

    Example:
        >>> matcher = LevelMatcher(8, 16, 8, num_scales=1)
        >>> bank = matcher.encode([torch.rand(1, 2, 16, 8, 8)], [torch.ones(1, 2, 1, 8, 8)],
        ...                       torch.ones(1, 2, dtype=torch.bool))
        >>> evidence = matcher(torch.rand(1, 16, 6, 9), bank, torch.ones(1, 2, 10, dtype=torch.bool))
        >>> evidence.similarity.shape[1] == matcher.similarity_channels, evidence.features.shape[1]
        (True, 32)
    """

    def __init__(
        self,
        stride: int,
        channels: int,
        corr_channels: int = 64,
        *,
        fusion: FusionType | str = "attention",
        kernel_size: int = 7,
        descriptor_channels: int = 64,
        grid: int = 3,
        num_scales: int = 3,
        detects: bool = True,
    ) -> None:
        super().__init__()
        self.stride = stride
        self.fusion = TemplateFusion(channels, fusion_type=fusion)
        self.prototypes = PrototypeMatcher(channels, descriptor_channels, grid=grid, num_scales=num_scales)
        layout_channels = max(corr_channels // 4, 1)
        self.correlation = DepthwiseCorrelation(
            channels, corr_channels, kernel_size=kernel_size, out_channels=layout_channels
        )
        self.similarity_channels = self.prototypes.out_channels + layout_channels
        self.relevance = nn.Conv2d(self.similarity_channels, 1, 1) if detects else None

    def encode(
        self, features: Sequence[Tensor], masks: Sequence[Tensor], valid: Bool[Tensor, "b n"]
    ) -> LevelBank:
        """The level's part of a bank.

        Args:
            features: for each size of the template picture ``(b, n, c, h, w)``.
            masks: for each size ``(b, n, 1, h, w)`` shares of the object.
            valid: ``(b, n)`` which templates are real.

        Returns:
            The level's bank.
        """
        descriptors = torch.stack(
            [self.prototypes.encode(f, m) for f, m in zip(features, masks, strict=True)], dim=2
        )
        size = self.correlation.kernel_size
        # the size whose map has about as many cells as the kernel: there one's cell is the other's
        nearest = min(
            range(len(features)),
            key=lambda i: abs(features[i].shape[-1] * features[i].shape[-2] - size * size),
        )
        views = masked_pool(features[nearest], masks[nearest], (size, size))
        shares = area_pool(masks[nearest], (size, size))
        real = valid[:, :, None, None, None].to(views.dtype)
        mask = (shares * real).sum(1) / real.sum(1).clamp_min(1)
        fused = self.fusion(views, valid)
        kernel = self.correlation.encode(fused, mask)
        context = masked_pool(fused, mask, (1, 1)).flatten(1)
        cells, shares = self.describe_parts(features[0].flatten(0, 1), masks[0].flatten(0, 2))
        cells, shares = (each.unflatten(0, tuple(valid.shape)) for each in (cells, shares))
        return LevelBank(descriptors, kernel.values, kernel.mask, context, cells, shares)

    def describe_parts(
        self, features: Float[Tensor, "m c h w"], masks: Float[Tensor, "m h w"] | None = None
    ) -> Parts:
        """The unit descriptors of the cells of pictures that show one thing each.

        Args:
            features: ``(m, c, h, w)``.
            masks: ``(m, h, w)`` share of the object at each position; all of it if not given.

        Returns:
            Descriptors ``(m, cells, d)`` and shares ``(m, cells)``.
        """
        return parts_of_map(self.prototypes.projection(features), masks)

    def forward(
        self, search: Float[Tensor, "b c h w"], bank: LevelBank, part_valid: Bool[Tensor, "k n parts"]
    ) -> Evidence:
        """Evidence for the templates at every position.

        Args:
            search: ``(b, c, h, w)`` features.
            bank: of one object for all pictures, of one for each, or of several for one picture.
            part_valid: ``(k, n, parts)`` which descriptors count.

        Returns:
            The evidence, of the larger batch of the two.
        """
        layout = self.correlation.respond(Kernel(bank.kernel, bank.kernel_mask), search)
        similarity = torch.cat([self.prototypes(search, bank.descriptors, part_valid), layout], dim=1)
        if self.relevance is None:
            return Evidence(similarity)
        scale = search.shape[1] ** 0.5
        unit = F.normalize(search, dim=1) * scale
        product = unit * (F.normalize(bank.context, dim=1) * scale)[:, :, None, None]
        relevance = self.relevance(similarity)
        return Evidence(similarity, relevance, torch.cat([product, unit * relevance.sigmoid()], dim=1))
