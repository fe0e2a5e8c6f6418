"""Cosine similarity of a search map with a set of template descriptors, and its summary over the templates.

A template gives one descriptor of the whole object and one of each cell of a small grid, at several sizes of
its picture (an object that is small in the search picture looks like the template made small). All are unit
vectors, so that comparing them with a map of unit vectors is one product of matrices, a 1x1 convolution whose
weights are the descriptors, and gives calibrated numbers in [-1, 1].
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from sightline.nn.pooling import area_pool, masked_pool

_MIN_SHARE = 0.1


def part_validity(masks: Float[Tensor, "b n 1 h w"], valid: Bool[Tensor, "b n"], grid: int) -> Tensor:
    """Which descriptors of a template mean anything: the whole, and the cells that hold enough of the object.

    Args:
        masks: ``(b, n, 1, h, w)`` shares of the object in the templates.
        valid: ``(b, n)`` which templates are real.
        grid: cells on a side.

    Returns:
        ``(b, n, 1 + grid^2)`` bool, the whole object first.

    Example:
        >>> mask = torch.zeros(1, 1, 1, 4, 4)
        >>> mask[..., :2, :2] = 1
        >>> part_validity(mask, torch.tensor([[True]]), 2)
        tensor([[[ True,  True, False, False, False]]])
    """
    cells = area_pool(masks, (grid, grid)).flatten(2) > _MIN_SHARE
    return torch.cat([torch.ones_like(cells[..., :1]), cells], dim=-1) & valid[..., None]


class PrototypeMatcher(nn.Module):
    """Projects template and search features into one space and compares them there.

    Args:
        channels: channels of the features.
        descriptor_channels: length of the descriptors.
        grid: cells of a template on a side, beside the descriptor of the whole.
        num_scales: sizes of the template picture.

    Example:
        >>> matcher = PrototypeMatcher(16, 8, grid=2, num_scales=1)
        >>> descriptors = matcher.encode(torch.rand(1, 3, 16, 4, 4), torch.ones(1, 3, 1, 4, 4))[:, :, None]
        >>> evidence = matcher(torch.rand(1, 16, 5, 6), descriptors, torch.ones(1, 3, 5, dtype=torch.bool))
        >>> evidence.shape, matcher.out_channels
        (torch.Size([1, 7, 5, 6]), 7)
    """

    def __init__(
        self, channels: int, descriptor_channels: int = 64, *, grid: int = 3, num_scales: int = 3
    ) -> None:
        super().__init__()
        self.grid = grid
        self.out_channels = num_scales * (3 + grid * grid)
        self.projection = nn.Conv2d(channels, descriptor_channels, 1, bias=False)
        self.log_sharpness = nn.Parameter(torch.tensor(2.0))

    def encode(
        self, features: Float[Tensor, "b n c h w"], masks: Float[Tensor, "b n 1 h w"]
    ) -> Float[Tensor, "b n parts d"]:
        """Unit descriptors of the templates at one size.

        Args:
            features: ``(b, n, c, h, w)``.
            masks: ``(b, n, 1, h, w)`` shares of the object at each position.

        Returns:
            ``(b, n, 1 + grid^2, d)``: the whole object, then the cells row by row.
        """
        projected = F.conv2d(features.flatten(0, 1), self.projection.weight).unflatten(0, features.shape[:2])
        whole = masked_pool(projected, masks, (1, 1)).flatten(-2)
        cells = masked_pool(projected, masks, (self.grid, self.grid)).flatten(-2)
        return F.normalize(torch.cat([whole, cells], dim=-1).transpose(-1, -2), dim=-1)

    def describe(self, search: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h w"]:
        """The unit descriptor of every position."""
        return F.normalize(self.projection(search), dim=1)

    def similarities(
        self, search: Float[Tensor, "b c h w"], descriptors: Float[Tensor, "k n s parts d"]
    ) -> Float[Tensor, "out n s parts h w"]:
        """The cosine of every descriptor with every position.

        Args:
            search: ``(b, c, h, w)`` features.
            descriptors: ``(k, n, s, parts, d)`` of k objects; k and b are the same, or one of them is 1.

        Returns:
            ``(max(b, k), n, s, parts, h, w)`` in [-1, 1].
        """
        unit = self.describe(search)
        flat = descriptors.flatten(1, 3) @ unit.flatten(2)
        return flat.unflatten(1, descriptors.shape[1:4]).unflatten(-1, unit.shape[-2:])

    def forward(
        self,
        search: Float[Tensor, "b c h w"],
        descriptors: Float[Tensor, "k n s parts d"],
        part_valid: Bool[Tensor, "k n parts"],
    ) -> Float[Tensor, "out channels h w"]:
        """What the templates say together, whatever their number and order.

        Args:
            search: ``(b, c, h, w)`` features.
            descriptors: ``(k, n, s, parts, d)``.
            part_valid: ``(k, n, parts)`` which descriptors count.

        Returns:
            ``(max(b, k), s * (3 + grid^2), h, w)``: for each size of the template the best similarity of the
            whole, its mean weighted by a softmax over the templates, the best of all cells, and the best over
            the templates of each cell; -1 where nothing counts.
        """
        cosines = self.similarities(search, descriptors)
        counts = part_valid[:, :, None, :, None, None]
        masked = cosines.masked_fill(~counts, -1.0)
        best = masked.amax(dim=1)
        whole = cosines[:, :, :, 0]
        logits = (whole * self.log_sharpness.exp()).masked_fill(
            ~counts[:, :, :, 0], torch.finfo(whole.dtype).min
        )
        mean = (logits.softmax(dim=1) * whole).sum(dim=1)
        cells = best[:, :, 1:]
        return torch.cat(
            [best[:, :, :1], mean[:, :, None], cells.amax(2, keepdim=True), cells], dim=2
        ).flatten(1, 2)
