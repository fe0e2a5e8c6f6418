from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sightline.geometry.cameras import project
from sightline.geometry.depth import (
    center_depth,
    create_geom_from_predictions,
    create_geom_input,
    depth_to_points,
    downsample_depth,
    is_measured,
    masked_median,
    normalise_depth,
    pixel_grid,
    sample_depth,
)
from tests.tolerances import tolerance

EXACT = tolerance(torch.float64)
LN2 = math.log(2)


def double(values) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def holed_maps(seed: int, *shape: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    depth = 0.5 + torch.rand(*shape, generator=generator, dtype=torch.float64)
    kind = torch.randint(0, 8, shape, generator=generator)
    for code, missing in enumerate((0.0, torch.nan, torch.inf)):
        depth = torch.where(kind == code, missing, depth)
    return depth


def test_background_nan_does_not_leak():
    depth = double([[2, 4, torch.nan], [8, 0, 0]])
    geom = create_geom_input(double([[1, 1, 0], [1, 0, 0]]), depth, with_validity=True)
    torch.testing.assert_close(geom[1], double([[-LN2, 0, 0], [LN2, 0, 0]]), **EXACT)
    assert torch.equal(geom[0], double([[1, 1, 0], [1, 0, 0]]))
    assert torch.equal(geom[2], geom[0])
    assert float(normalise_depth(geom[0], depth).z_ref) == 4


def test_a_hole_in_the_mask_is_not_a_depth():
    mask, depth = double([[1, 1], [0, 0]]), double([[2, 0], [0, 0]])
    geom = create_geom_input(mask, depth, with_validity=True)
    assert float(normalise_depth(mask, depth).z_ref) == 2
    assert torch.equal(geom, torch.stack([mask, torch.zeros(2, 2).double(), double([[1, 0], [0, 0]])]))


@pytest.mark.parametrize("missing", [0.0, torch.nan, torch.inf])
@pytest.mark.parametrize("covered", [0.0, 1.0])
def test_nothing_known_is_zeros_with_zero_gradients(missing, covered):
    depth = torch.full((3, 4), missing if covered else 2.0, dtype=torch.float64, requires_grad=True)
    geom = create_geom_input(torch.full((3, 4), covered), depth, with_validity=True)
    assert torch.equal(geom[1:], torch.zeros(2, 3, 4).double())
    geom[1].square().sum().backward()
    assert torch.equal(depth.grad, torch.zeros(3, 4).double())


@given(seed=st.integers(0, 2**20), scale=st.floats(1e-3, 1e3))
@settings(max_examples=25, deadline=None)
def test_the_unit_of_depth_does_not_matter(seed, scale):
    depth = holed_maps(seed, 6, 7)
    mask = (torch.arange(42).view(6, 7) % 3 > 0).double()
    torch.testing.assert_close(
        create_geom_input(mask, depth * scale), create_geom_input(mask, depth), **tolerance(torch.float64)
    )


def test_the_median_of_an_even_count_is_the_lower_one():
    values = double([[1, 2], [4, 8]])
    assert float(masked_median(values, torch.ones(2, 2, dtype=torch.bool))) == 2
    assert float(masked_median(values, values > 1)) == 4
    assert masked_median(values, values > 9).isnan()
    assert masked_median(values.expand(3, 5, 2, 2), (values > 1).expand(3, 5, 2, 2)).shape == (3, 5)


def test_two_objects_keep_their_distance_under_a_common_reference():
    depth = double([[[2, 2]], [[4, 4]]])
    mask = torch.ones_like(depth)
    assert torch.equal(create_geom_input(mask, depth)[:, 1], torch.zeros_like(depth))
    common = create_geom_input(mask, depth, z_ref=2.0)[:, 1]
    torch.testing.assert_close(common[1] - common[0], double([[LN2, LN2]]), **EXACT)
    far = create_geom_input(mask, depth * 0.1, z_ref=0.2)[:, 1]  # below a metre as well
    torch.testing.assert_close(far, common, **EXACT)


def test_batches_equal_the_loop():
    depth = holed_maps(0, 2, 3, 6, 7)
    mask = torch.arange(252).view(2, 3, 6, 7) % 4 > 0
    looped = torch.stack(
        [torch.stack([create_geom_input(mask[i, j], depth[i, j]) for j in range(3)]) for i in range(2)]
    )
    assert torch.equal(create_geom_input(mask, depth), looped)


def test_geometry_from_predictions():
    bbox, K = torch.rand(2, 4).double(), torch.rand(2, 4).double()
    mask = double([[[0.9, 0.51, 0.2]], [[0.1, 0.8, 0.6]]])
    depth = double([[[1, 2, 3]], [[torch.nan, 2, 8]]])
    binary = (mask > 0.5).double()
    expected = create_geom_input(binary, depth)
    assert torch.equal(create_geom_from_predictions(bbox, mask, depth, K), expected)
    for scalar in (1.5, 2, torch.tensor(1.5), double([1.5, 0.4])):
        geom = create_geom_from_predictions(bbox, mask, scalar, K)
        assert torch.equal(geom, torch.stack([binary, torch.zeros_like(binary)], 1))
    assert create_geom_from_predictions(bbox[0], mask[0], 0.0, K[0], with_validity=True)[2].sum() == 0
    with pytest.raises(ValueError, match="same shape"):
        create_geom_from_predictions(bbox, mask, depth[..., :2], K)


def test_gradients_of_the_geometry_input():
    depth = holed_maps(3, 3, 4)
    depth = torch.where(is_measured(depth), depth, -1.0).requires_grad_()  # a step cannot make these valid
    mask = torch.ones(3, 4).double()
    assert torch.autograd.gradcheck(lambda d: create_geom_input(mask, d), (depth,))


def test_downsampling_averages_what_is_there():
    depth = holed_maps(1, 2, 8, 12)
    known = torch.where(is_measured(depth), depth, torch.nan)
    cells = known.view(2, 4, 2, 4, 3).permute(0, 1, 3, 2, 4).flatten(-2)
    torch.testing.assert_close(downsample_depth(depth, (4, 4)), cells.nanmean(-1).nan_to_num(0), **EXACT)
    assert downsample_depth(torch.zeros(4, 4), (2, 2)).tolist() == [[0, 0], [0, 0]]


@pytest.mark.parametrize("value", [0.0, torch.nan, torch.inf, -1.0])
def test_no_depth_at_the_centre_is_none(value):
    depth = double([[1, 1, 1], [1, value, 1]])
    assert center_depth(depth, double([0.5, 0.5, 1.5, 1.5])) is None
    assert center_depth(depth, double([1.5, 0.5, 2.5, 1.5])) == 1
    assert center_depth(depth, double([1.5, 0.5, 2.5, 1.5]), torch.zeros(2, 3)) is None
    assert center_depth(depth, double([5, 5, 6, 6])) is None


def test_sampling_a_plane_is_exact_and_holes_are_left_out():
    px = pixel_grid(9, 7)
    plane = 2 + 0.1 * px[..., 0] + 0.05 * px[..., 1]
    where = double([[0.3, 0.7], [7.9, 5.2], [4.0, 3.0], [-0.5, 0]])
    expected = double(
        [2 + 0.03 + 0.035, 2 + 0.79 + 0.26, 2.55, 2.0]
    )  # beyond the last centre: the last one's
    torch.testing.assert_close(sample_depth(plane, where), expected, **EXACT)
    flat = torch.where(torch.arange(63).view(7, 9) % 3 == 0, torch.nan, 2.0).double()
    found = sample_depth(flat, where[:2])
    torch.testing.assert_close(found, double([2.0, 2.0]), **EXACT)
    assert sample_depth(flat, double([[0, 0], [9, 0], [torch.nan, 0]])).isnan().all()


def test_sampling_in_a_batch_equals_the_loop():
    depth, px = holed_maps(5, 2, 3, 6, 8), 8 * torch.rand(2, 3, 11, 2, dtype=torch.float64) - 1
    found = sample_depth(depth, px)
    looped = torch.stack(
        [torch.stack([sample_depth(depth[i, j], px[i, j]) for j in range(3)]) for i in range(2)]
    )
    torch.testing.assert_close(found, looped, equal_nan=True, **EXACT)


def test_gradients_of_sampling_and_lifting():
    depth = holed_maps(6, 5, 6)
    depth = torch.where(is_measured(depth), depth, -1.0).requires_grad_()
    px = double([[1.3, 2.4], [3.6, 0.2], [4.5, 3.1]]).requires_grad_()
    assert torch.autograd.gradcheck(sample_depth, (depth, px))
    K = double([[50, 0, 3], [0, 51, 2], [0, 0, 1]]).requires_grad_()
    points = depth_to_points(depth, K)
    assert torch.equal(points.isnan().all(-1), ~is_measured(depth))
    points.nansum().backward()
    assert depth.grad.isfinite().all() and K.grad.isfinite().all()


def test_lifted_points_project_to_their_pixels():
    depth = holed_maps(7, 2, 5, 6)
    K = double([[50, 0, 3], [0, 51, 2], [0, 0, 1]])
    Ks = torch.stack([K, K * double([[1.5, 1, 1], [1, 1.5, 1], [1, 1, 1]])])
    lens = double([-0.1, 0.02, 1e-3, 1e-3, 0])
    points = depth_to_points(depth, Ks, lens)
    px = project(points.flatten(1, 2), Ks, lens).view(2, 5, 6, 2)
    measured = is_measured(depth)
    torch.testing.assert_close(px[measured], pixel_grid(6, 5).expand(2, 5, 6, 2)[measured], rtol=0, atol=1e-9)
    torch.testing.assert_close(points[measured][:, 2], depth[measured], **EXACT)
