"""The flow ground truth in its first form, pair of patches by pair of patches, as a yardstick.

For each of the ``Nq * Nt`` pairs the query patch is lifted, moved, projected and compared anew.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sightline.vpog.flow_computer import View


def flow_of_pair(
    query: View,
    template: View,
    query_patch: int,
    template_patch: int,
    patch_size: int,
    tolerance: float,
    *,
    max_flow: float = 2.0,
    min_visible_pixels: int = 4,
) -> tuple[Tensor, Tensor]:
    """Flow ``(p, p, 2)`` of one pair in patch units, and which pixels are seen ``(p, p)``."""
    height, width = template.depth.shape
    per_row, template_per_row = query.depth.shape[1] // patch_size, width // patch_size
    top, left = (patch_size * int(i) for i in divmod(query_patch, per_row))
    rows, columns = torch.meshgrid(
        torch.arange(top, top + patch_size), torch.arange(left, left + patch_size), indexing="ij"
    )
    z = query.depth[rows, columns]
    on_object = query.mask[rows, columns] & (z > 0)
    pixels = torch.stack([columns, rows, torch.ones_like(rows)], -1).to(z)
    points = (pixels @ torch.linalg.inv(query.K).mT) * z[..., None]
    between = template.cam_from_obj @ torch.linalg.inv(query.cam_from_obj)
    moved = points @ between[:3, :3].mT + between[:3, 3]
    projected = moved @ template.K.mT
    x, y = (projected[..., i] / projected[..., 2] for i in range(2))
    inside = (x >= -0.5) & (x < width - 0.5) & (y >= -0.5) & (y < height - 0.5) & (moved[..., 2] > 0)
    surface = torch.where(template.mask, template.depth, 0.0)
    shown = read_surface(surface, torch.where(inside, x, 0.0), torch.where(inside, y, 0.0), tolerance)
    agrees = (moved[..., 2] - shown).abs() <= tolerance
    center_y, center_x = (
        patch_size * int(i) + (patch_size - 1) / 2 for i in divmod(template_patch, template_per_row)
    )
    flow = torch.stack([x - center_x, y - center_y], -1) / patch_size
    seen = on_object & inside & agrees & (flow.abs().amax(-1) <= max_flow)
    if int(seen.sum()) < min_visible_pixels:
        seen = torch.zeros_like(seen)
    return torch.where(seen[..., None], flow, 0.0), seen


def read_surface(surface: Tensor, x: Tensor, y: Tensor, max_jump: float) -> Tensor:
    """Bilinear depth of those of four neighbours that lie on the surface of the nearest pixel."""
    height, width = surface.shape
    nearest = surface[(y + 0.5).floor().long(), (x + 0.5).floor().long()]
    total, weight = torch.zeros_like(x), torch.zeros_like(x)
    for dy in (0, 1):
        for dx in (0, 1):
            column, row = x.floor().long() + dx, y.floor().long() + dy
            within = (column >= 0) & (column < width) & (row >= 0) & (row < height)
            value = surface[row.clamp(0, height - 1), column.clamp(0, width - 1)]
            near = within & (value > 0) & ((value - nearest).abs() <= max_jump)
            share = torch.where(near, (1 - (x - column).abs()) * (1 - (y - row).abs()), 0.0)
            total, weight = total + share * value, weight + share
    return torch.where((weight > 0) & (nearest > 0), total / weight.clamp_min(1e-30), torch.nan)


def all_pairs(query: View, template: View, patch_size: int, tolerance: float) -> tuple[Tensor, Tensor]:
    """``(Nq, Nt, p, p, 2)`` flow and ``(Nq, Nt, p, p)`` seen, by loops over both."""
    num_query = query.depth.numel() // patch_size**2
    num_template = template.depth.numel() // patch_size**2
    pairs = [
        [flow_of_pair(query, template, q, t, patch_size, tolerance) for t in range(num_template)]
        for q in range(num_query)
    ]
    return tuple(torch.stack([torch.stack([pair[i] for pair in row]) for row in pairs]) for i in range(2))
