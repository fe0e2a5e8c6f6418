"""Pooling, fusion, correlation and prototypes against plain loops and the laws that they keep."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from sightline.nn.pooling import area_pool, masked_pool
from sightline.refdet.correlation import DepthwiseCorrelation, Kernel, cross_correlate
from sightline.refdet.fusion import TemplateFusion
from sightline.refdet.prototypes import PrototypeMatcher, part_validity
from tests.tolerances import tolerance

NEAR = tolerance(torch.float32)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


# pooling


@pytest.mark.parametrize("size", [(3, 4), (1, 1), (6, 8)])
def test_area_pool_is_adaptive_pooling_where_cells_are_whole(size):
    x = torch.rand(2, 3, 12, 8)
    torch.testing.assert_close(area_pool(x, size), F.adaptive_avg_pool2d(x, size), **NEAR)


@pytest.mark.parametrize("size", [(5, 3), (7, 11), (16, 16)])
def test_area_pool_keeps_the_mean(size):
    x = torch.rand(2, 9, 13, dtype=torch.float64)
    pooled = area_pool(x, size)
    torch.testing.assert_close(pooled.mean((-2, -1)), x.mean((-2, -1)), **tolerance(torch.float64))
    assert torch.equal(area_pool(torch.ones(1, 9, 13), (4, 4)).round(decimals=5), torch.ones(1, 4, 4))


def test_masked_pool_counts_the_mask_alone():
    x, mask = torch.rand(3, 4, 6, 6), torch.zeros(3, 1, 6, 6)
    mask[..., 1:3, 2:5] = 1
    spoilt = torch.where(mask > 0, x, torch.full_like(x, 1e3))
    pooled = masked_pool(spoilt, mask, (2, 2))
    torch.testing.assert_close(pooled[:, :, 0, 0], x[:, :, 1:3, 2:3].mean((-2, -1)), **NEAR)
    assert not pooled[:, :, 1].any()


# fusion


@pytest.mark.parametrize("kind", ["attention", "average"])
@pytest.mark.parametrize("count", [1, 2, 7, 16])
def test_fusion_knows_neither_order_nor_number(kind, count):
    fusion = TemplateFusion(8, fusion_type=kind)
    views = torch.randn(2, count, 8, 5, 5)
    fused = fusion(views)
    torch.testing.assert_close(fusion(views[:, torch.randperm(count)]), fused, **NEAR)
    torch.testing.assert_close(fusion(views.repeat(1, 2, 1, 1, 1)), fused, **NEAR)
    torch.testing.assert_close(fusion(list(views.unbind(1))), fused, **NEAR)
    padded = torch.cat([views, 1e3 * torch.randn(2, 3, 8, 5, 5)], dim=1)
    valid = torch.arange(count + 3).expand(2, -1) < count
    torch.testing.assert_close(fusion(padded, valid), fused, **NEAR)


def test_fusion_of_one_view_is_the_view_and_attention_is_no_average():
    views = torch.randn(2, 3, 8, 5, 5)
    attention, average = TemplateFusion(8), TemplateFusion(8, fusion_type="average")
    torch.testing.assert_close(attention(views[:, :1]), views[:, 0], **NEAR)
    torch.testing.assert_close(average(views), views.mean(1), **NEAR)
    assert (attention(views) - average(views)).abs().max() > 1e-2


def test_fusion_refuses_other_kinds():
    with pytest.raises(ValueError, match="attention or average"):
        TemplateFusion(8, fusion_type="max")


# correlation


def naive_cosine(values, mask, search):
    """The module docstring's formula, a loop over positions and cells."""
    (channels, height, width), size = search.shape, values.shape[-1]
    result, reach = torch.zeros(channels, height, width), size // 2
    length = (values.square().sum()).sqrt()
    for y in range(height):
        for x in range(width):
            energy, products = 0.0, torch.zeros(channels)
            for i in range(size):
                for j in range(size):
                    v, u = y + i - reach, x + j - reach
                    if 0 <= v < height and 0 <= u < width:
                        products += values[:, i, j] * mask[i, j].sqrt() * search[:, v, u]
                        energy += mask[i, j] * search[:, v, u].square().sum()
            result[:, y, x] = products / (length * max(float(energy), 1e-12) ** 0.5)
    return result


def test_correlation_equals_a_loop_for_a_batch_at_once():
    masks = (torch.rand(3, 1, 3, 3) > 0.3).float() * torch.rand(3, 1, 3, 3)
    values, search = torch.randn(3, 4, 3, 3) * masks.sqrt(), torch.randn(3, 4, 6, 7)
    together = cross_correlate(Kernel(values, masks), search)
    for i in range(3):
        torch.testing.assert_close(together[i], naive_cosine(values[i], masks[i, 0], search[i]), **NEAR)
        one = Kernel(values[i : i + 1], masks[i : i + 1])
        torch.testing.assert_close(cross_correlate(one, search)[i], together[i], **NEAR)
        torch.testing.assert_close(
            cross_correlate(Kernel(values, masks), search[i : i + 1])[i], together[i], **NEAR
        )


def test_cosine_is_one_at_a_match_bounded_and_free_of_gain():
    search, mask = torch.randn(1, 8, 12, 15), (torch.rand(1, 1, 5, 5) > 0.3).float()
    patch = search[:, :, 3:8, 6:11]
    kernel = Kernel(3.0 * patch * mask, mask)
    cosine = cross_correlate(kernel, search).sum(1)[0]
    assert divmod(int(cosine.argmax()), 15) == (5, 8)
    assert cosine.max().item() == pytest.approx(1, abs=1e-5)
    assert cosine.abs().max() <= 1 + 1e-5
    spoilt = torch.where(F.pad(mask, (6, 4, 3, 4), value=1.0) > 0, search, 50.0)
    assert cross_correlate(kernel, spoilt).sum(1)[0, 5, 8].item() == pytest.approx(1, abs=1e-5)
    torch.testing.assert_close(cross_correlate(kernel, 7 * search), cross_correlate(kernel, search), **NEAR)


def test_correlation_moves_with_the_picture():
    correlation = DepthwiseCorrelation(8, 4, kernel_size=5)
    template, search = torch.randn(1, 8, 9, 9), torch.randn(1, 8, 20, 24)
    response = correlation(template, search)
    moved = correlation(template, search.roll((3, 2), (-2, -1)))
    inner = (..., slice(6, 14), slice(6, 18))
    torch.testing.assert_close(moved.roll((-3, -2), (-2, -1))[inner], response[inner], **NEAR)


@pytest.mark.parametrize("template_size", [(4, 6), (1, 1), (2, 3), (64, 64)])
def test_templates_of_any_size_keep_the_map_size(template_size):
    response = DepthwiseCorrelation(8, 4)(torch.randn(2, 8, *template_size), torch.randn(2, 8, 9, 14))
    assert response.shape == (2, 1, 9, 14)


def test_background_of_a_template_has_no_influence():
    correlation = DepthwiseCorrelation(8, 4, kernel_size=3)
    template, mask = torch.randn(1, 8, 9, 9), torch.zeros(1, 1, 9, 9)
    mask[..., 2:7, 3:8] = 1
    spoilt = torch.where(mask > 0, template, 9.0)
    a, b = correlation.encode(template, mask), correlation.encode(spoilt, mask)
    torch.testing.assert_close(a.values, b.values, **NEAR)


@pytest.mark.parametrize("corr_channels", [32, 64])
def test_means_of_unrelated_templates_differ(corr_channels):
    # with one channel a group, group normalisation gives all of them the same mean: a cosine of 1.000
    correlation = DepthwiseCorrelation(64, corr_channels)
    base = torch.randn(2, 64, 1, 1)
    kernels = correlation.encode(base + 0.3 * torch.randn(2, 64, 32, 32)).values.mean((-2, -1))
    assert F.cosine_similarity(kernels[0], kernels[1], dim=0) < 0.6


def test_kernels_are_odd():
    with pytest.raises(ValueError, match="odd"):
        DepthwiseCorrelation(8, 4, kernel_size=4)


# prototypes


def encoded(matcher, features, masks):
    return matcher.encode(features, masks)[:, :, None]


def test_similarity_is_one_where_the_template_is():
    matcher = PrototypeMatcher(8, 6, grid=2, num_scales=1)
    search = torch.randn(1, 8, 5, 7)
    template = search[:, None, :, 2:3, 4:5].expand(1, 1, 8, 4, 4)
    descriptors = encoded(matcher, template, torch.ones(1, 1, 1, 4, 4))
    cosines = matcher.similarities(search, descriptors)
    assert cosines.shape == (1, 1, 1, 5, 5, 7)
    assert cosines[0, 0, 0, :, 2, 4].tolist() == pytest.approx([1] * 5, abs=1e-5)
    assert cosines.abs().max() <= 1 + 1e-5


@pytest.mark.parametrize("count", [1, 3, 16])
def test_prototypes_know_neither_order_nor_number_nor_padding(count):
    matcher = PrototypeMatcher(8, 6, grid=2, num_scales=1)
    features, masks = torch.randn(1, count, 8, 4, 4), torch.ones(1, count, 1, 4, 4)
    search, parts = torch.randn(2, 8, 5, 6), torch.ones(1, count, 5, dtype=torch.bool)
    descriptors = encoded(matcher, features, masks)
    evidence = matcher(search, descriptors, parts)
    order = torch.randperm(count)
    torch.testing.assert_close(matcher(search, descriptors[:, order], parts), evidence, **NEAR)
    torch.testing.assert_close(
        matcher(search, descriptors.repeat(1, 2, 1, 1, 1), parts.repeat(1, 2, 1)), evidence, **NEAR
    )
    padded = torch.cat([descriptors, F.normalize(torch.randn(1, 2, 1, 5, 6), dim=-1)], dim=1)
    padding = torch.cat([parts, torch.zeros(1, 2, 5, dtype=torch.bool)], dim=1)
    torch.testing.assert_close(matcher(search, padded, padding), evidence, **NEAR)


def test_what_the_channels_say():
    matcher = PrototypeMatcher(4, 4, grid=1, num_scales=2)
    descriptors = F.normalize(torch.randn(1, 3, 2, 2, 4), dim=-1)
    search = torch.randn(1, 4, 2, 2)
    cosines = matcher.similarities(search, descriptors)[0]
    evidence = matcher(search, descriptors, torch.ones(1, 3, 2, dtype=torch.bool))[0].unflatten(0, (2, 4))
    torch.testing.assert_close(evidence[:, 0], cosines[:, :, 0].amax(0), **NEAR)
    assert (evidence[:, 1] <= evidence[:, 0]).all()
    assert (evidence[:, 1] >= cosines[:, :, 0].mean(0) - 1e-6).all()  # nearer to the best than the plain mean
    torch.testing.assert_close(evidence[:, 2], cosines[:, :, 1].amax(0), **NEAR)
    torch.testing.assert_close(evidence[:, 3], cosines[:, :, 1].amax(0), **NEAR)


def test_cells_without_the_object_do_not_count():
    masks = torch.zeros(1, 2, 1, 6, 6)
    masks[0, 0, 0, :3] = 1
    masks[0, 1] = 1
    parts = part_validity(masks, torch.tensor([[True, False]]), 2)
    assert parts.tolist() == [[[True, True, True, False, False], [False] * 5]]
