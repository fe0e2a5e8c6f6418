from __future__ import annotations

import torch

from sightline.geometry import flow
from tests.tolerances import tolerance


def test_every_pixel_of_a_patch_has_its_index_and_its_offset():
    grid = (3, 2)
    rows, columns = torch.arange(32.0), torch.arange(48.0)
    px = torch.stack(torch.meshgrid(columns, rows, indexing="xy"), -1)
    index = flow.patch_index(px, grid)
    assert torch.equal(index.flatten().bincount(), torch.full((6,), 256))
    assert index[16, 0] == 3 and index[0, 16] == 1  # row by row
    centers = flow.patch_centers(grid)
    offsets = flow.pixels_to_flow(px, centers[index])
    expected = flow.offsets_in_patch().repeat(2, 3, 1)
    torch.testing.assert_close(offsets, expected, **tolerance(torch.float32))
    torch.testing.assert_close(offsets.view(2, 16, 3, 16, 2).mean((1, 3)), torch.zeros(2, 3, 2))


def test_flow_and_pixels_are_inverse():
    generator = torch.Generator().manual_seed(0)
    px = 224 * torch.rand(5, 9, 2, generator=generator, dtype=torch.float64)
    centers = flow.patch_centers((14, 14), dtype=torch.float64)[:9]
    back = flow.flow_to_pixels(flow.pixels_to_flow(px, centers, 14), centers, 14)
    torch.testing.assert_close(back, px, **tolerance(torch.float64))


def test_a_centre_lies_in_its_own_patch_and_outside_is_minus_one():
    centers = flow.patch_centers((14, 14))
    assert torch.equal(flow.patch_index(centers, (14, 14)), torch.arange(196))
    outside = torch.tensor([[-0.6, 0], [0, 223.6], [torch.nan, 3]])
    assert flow.patch_index(outside, (14, 14)).tolist() == [-1, -1, -1]


def test_gradients():
    px = torch.tensor([[3.0, 4.0], [20.0, 9.0]], dtype=torch.float64, requires_grad=True)
    centers = flow.patch_centers((2, 1), dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(flow.pixels_to_flow, (px, centers))
    assert torch.autograd.gradcheck(flow.flow_to_pixels, (px, centers))
