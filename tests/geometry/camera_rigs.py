"""Problems for triangulation: a rig of cameras around the origin, points between them, what they see."""

from __future__ import annotations

import torch

from sightline.geometry.cameras import project
from sightline.geometry.poses import look_at, transform

LENS = torch.tensor([-0.2, 0.05, 1e-3, -1e-3, 0.01], dtype=torch.float64)


def rig(num_views: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """K, cam_from_world and lenses of cameras around the origin, of unequal focal lengths and distances."""
    generator = torch.Generator().manual_seed(seed)
    angle = torch.arange(num_views, dtype=torch.float64) * 1.1 + torch.rand(1, generator=generator).double()
    distance = 1.5 + torch.rand(num_views, generator=generator, dtype=torch.float64)
    height = torch.rand(num_views, generator=generator, dtype=torch.float64) - 0.3
    eye = torch.stack([angle.cos() * distance, angle.sin() * distance, height], -1)
    up = torch.tensor([0.0, 0, 1], dtype=torch.float64).expand(num_views, 3)
    K = torch.tensor([[1.0, 0, 320], [0, 1, 240], [0, 0, 1]], dtype=torch.float64).repeat(num_views, 1, 1)
    K[:, 0, 0] = K[:, 1, 1] = 500 + 400 * torch.rand(num_views, generator=generator, dtype=torch.float64)
    return (
        K,
        look_at(eye, torch.zeros_like(eye), up),
        LENS * torch.linspace(0.2, 1, num_views)[:, None].double(),
    )


def cloud(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 0.6 * torch.rand(*shape, 3, generator=generator, dtype=torch.float64) - 0.3


def see(points, K, cam_from_world, lens=None, noise_px=0.0, seed=0):
    px = project(transform(cam_from_world, points.unsqueeze(-3)), K, lens)
    generator = torch.Generator().manual_seed(seed)
    return px + noise_px * torch.randn(px.shape, generator=generator, dtype=px.dtype)
