"""Regions of masks against max pooling, and shrunk masks."""

import pytest
import torch
from torch.nn import functional

from sightline.depth_scale.regions import dilate, downsample_mask_area, regions_of, soft_mask


@pytest.mark.parametrize("radius", [0, 1, 2, 5])
@pytest.mark.parametrize("size", [(12, 17), (3, 4), (1, 1)])
def test_regions_are_those_of_max_pooling(radius, size):
    mask = torch.rand(3, 1, *size, generator=torch.Generator().manual_seed(radius)).pow(3)
    regions = regions_of(mask, radius)
    inside = (mask > 0.5).float()

    def pooled(m):
        return functional.max_pool2d(m, 2 * radius + 1, 1, radius)

    dilated, core = pooled(inside), 1 - pooled(1 - inside)
    assert torch.equal(regions.inside, inside)
    assert torch.equal(regions.dilated, dilated)
    assert torch.equal(regions.core, core)
    assert torch.equal(regions.band, (dilated - core).clamp(0, 1))
    assert torch.equal(regions.outside, 1 - dilated)
    assert torch.equal(dilate(mask, radius), pooled(mask))


def test_form_of_other_devices_reads_no_value_and_has_the_same_numbers():
    from sightline.depth_scale import regions

    mask = torch.rand(3, 1, 9, 14, generator=torch.Generator().manual_seed(0))
    inside = (mask > 0.5).float()
    assert torch.equal(regions._compiled_regions(mask, 2).core, 1 - dilate(1 - inside, 2))
    assert regions_of(mask.to("meta"), 2).band.shape == mask.shape


def test_soft_mask_is_a_clean_copy():
    mask = torch.tensor([[0.2, torch.nan, 7.0]], dtype=torch.float16)
    like = torch.zeros(2, 1, 1, 3, dtype=torch.float64)
    soft = soft_mask(mask, like, "mask")
    assert soft.shape == like.shape
    assert soft.dtype == torch.float64
    soft.add_(1.0)
    assert mask[0, 0].item() == pytest.approx(0.2, abs=1e-3)
    assert soft_mask(torch.ones(1, 3, dtype=torch.bool), like, "mask").sum() == 6
    with pytest.raises(ValueError, match=r"place: expected a mask for \(2, 1, 1, 3\), got \(3, 1, 3\)"):
        soft_mask(torch.zeros(3, 1, 3), like, "place")


@pytest.mark.parametrize("shape", [(8, 12), (3, 8, 12), (3, 1, 8, 12)])
def test_shrinking_keeps_the_covered_share(shape):
    mask = torch.rand(shape, generator=torch.Generator().manual_seed(0)) > 0.4
    small = downsample_mask_area(mask, (3, 2))
    batch = 1 if len(shape) == 2 else 3
    assert small.shape == (batch, 1, 2, 3)
    blocks = mask.reshape(batch, 1, 2, 4, 3, 4).double().mean((3, 5))
    torch.testing.assert_close(small.double(), blocks, rtol=0, atol=1e-6)


def test_bad_sizes_are_refused():
    with pytest.raises(ValueError, match=r"size: expected a positive \(width, height\), got \(0, 4\)"):
        downsample_mask_area(torch.zeros(8, 8), (0, 4))
    with pytest.raises(ValueError, match="radius: expected 0 or more cells, got -1"):
        dilate(torch.zeros(1, 1, 4, 4), -1)
