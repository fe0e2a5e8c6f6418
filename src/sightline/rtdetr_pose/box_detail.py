"""What a box shows, place by place: the fine map sampled on a grid within each query's box.

A query's features are sums over the points that it attends to, in which the layout within the box is lost.
How an object is turned is in that layout, so the heads of the pose see it.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sightline.rtdetr_pose.deformable_sampling import Sampling, sample_levels


class BoxDetail(nn.Module):
    """Features of the layout within boxes.

    Args:
        channels: of the map.
        hidden_dim: of the result.
        cells: of the grid on each side of a box.
        depth: channels that the map is reduced to before it is sampled.

    Example:
        >>> detail = BoxDetail(16, 32, cells=4)
        >>> detail(torch.rand(2, 16, 24, 32), torch.full((2, 5, 4), 0.5)).shape
        torch.Size([2, 5, 32])
    """

    def __init__(self, channels: int, hidden_dim: int, *, cells: int = 8, depth: int = 32) -> None:
        super().__init__()
        self.cells = cells
        self.sampling: Sampling | str = "grid_sample"
        self.reduce = nn.Conv2d(channels, depth, 1)
        self.read = nn.Sequential(
            nn.Linear(cells * cells * depth, hidden_dim),
            nn.LayerNorm(hidden_dim),
            nn.ReLU(),
            nn.Linear(hidden_dim, hidden_dim),
        )

    def forward(
        self, fine: Float[Tensor, "b c h w"], boxes: Float[Tensor, "b q 4"]
    ) -> Float[Tensor, "b q d"]:
        """Read the map within each box; no gradient goes to the boxes.

        Args:
            fine: the finest map, over the whole picture.
            boxes: cxcywh in [0, 1]; outside of the picture the map is zero.
        """
        points = _grid(boxes.detach(), self.cells)
        return self.read(_sample(self.reduce(fine), points, self.sampling))


def _grid(boxes: Tensor, cells: int) -> Float[Tensor, "b q cells2 2"]:
    """The middles of the cells of each box, x and y in [0, 1] across the picture, row by row."""
    middles = (torch.arange(cells, device=boxes.device, dtype=boxes.dtype) + 0.5) / cells - 0.5
    y, x = (part.flatten() for part in torch.meshgrid(middles, middles, indexing="ij"))
    offsets = torch.stack([x, y], -1)
    return boxes[..., None, :2] + offsets * boxes[..., None, 2:]


def _sample(fine: Tensor, points: Tensor, sampling: Sampling | str) -> Float[Tensor, "b q features"]:
    batch, queries, count = points.shape[:3]
    if sampling == "gather":
        flat = points.flatten(1, 2)[:, :, None, None]
        cells = fine.flatten(2).transpose(1, 2)[:, :, None]
        values = sample_levels(cells, [(fine.shape[-2], fine.shape[-1])], flat, torch.ones_like(flat[..., 0]))
        return values.reshape(batch, queries, -1)
    values = nn.functional.grid_sample(fine, (2 * points - 1).to(fine), align_corners=False)
    return values.permute(0, 2, 3, 1).reshape(batch, queries, count * fine.shape[1])
