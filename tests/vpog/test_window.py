from __future__ import annotations

import pytest
import torch

from sightline.vpog.window import merge_windows, partition_windows, real_tokens, window_extent

GRIDS = [((14, 14), 7), ((16, 16), 7), ((8, 8), 7), ((5, 9), 4), ((3, 2), 7), ((1, 1), 1), ((7, 3), 1)]


@pytest.mark.parametrize(("grid", "window"), GRIDS)
def test_there_and_back(grid, window):
    x = torch.randn(2, 3, grid[0] * grid[1], 4, generator=torch.Generator().manual_seed(0))
    windows = partition_windows(x, grid, window)
    assert torch.equal(merge_windows(windows, grid, window), x)
    rows, columns = window_extent(grid, window)
    assert windows.shape[-2] == rows * columns <= window**2


@pytest.mark.parametrize(("grid", "window"), GRIDS)
def test_windows_are_neighbourhoods_and_the_rest_is_padding(grid, window):
    places = torch.cartesian_prod(torch.arange(grid[0]), torch.arange(grid[1])).float()
    windows = partition_windows(places + 1, grid, window) - 1
    real = real_tokens(grid, window)
    if real is None:
        real = torch.ones(windows.shape[:2], dtype=torch.bool)
    assert torch.equal((windows >= 0).all(-1), real)
    assert int(real.sum()) == len(places)
    assert real.any(-1).all()
    extent = torch.tensor(window_extent(grid, window))
    for tokens, mine in zip(windows, real, strict=True):
        corner = tokens[mine] // extent
        assert (corner == corner[0]).all()


def test_seven_divides_fourteen():
    assert window_extent((14, 14), 7) == (7, 7)
    assert real_tokens((14, 14), 7) is None
