"""One depth for an object: weighted quantiles against counting, means, the contact band."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sightline.depth_scale import depth_statistic, weighted_quantile
from sightline.depth_scale.statistics import contact_weights


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])  # sorted, and selected
@settings(deadline=None)  # the first run compiles
@given(
    pairs=st.lists(st.tuples(st.floats(-5, 5), st.integers(0, 4)), min_size=1, max_size=20),
    quantile=st.sampled_from([0.2, 0.5, 0.9]),
)
def test_a_weighted_quantile_is_that_of_repeated_values(
    dtype: torch.dtype, pairs: list[tuple[float, int]], quantile: float
) -> None:
    values = torch.tensor([[value for value, _ in pairs]], dtype=dtype)
    counts = torch.tensor([[count for _, count in pairs]], dtype=dtype)
    repeated = values[0].repeat_interleave(counts[0].long())
    found = weighted_quantile(values, counts, quantile)
    if len(repeated) == 0:
        assert found.isnan().all()
        return
    needed = max(1, math.ceil(quantile * len(repeated) - 1e-9))
    assert found.item() == repeated.sort().values[needed - 1].item()


@settings(deadline=None)  # the first run compiles
@given(st.integers(1, 30), st.integers(0, 10_000))
def test_binary_weights_give_torchs_median(count: int, seed: int) -> None:
    values = torch.rand(1, count, generator=torch.Generator().manual_seed(seed))
    assert weighted_quantile(values, torch.ones(1, count)).item() == values.median().item()
    middle = weighted_quantile(values, torch.ones(1, count), midpoint=True)
    torch.testing.assert_close(middle[0], values.quantile(0.5))


def test_values_without_weight_never_count() -> None:
    values = torch.tensor([[math.nan, -7.0, 1.0, 2.0, math.inf]])
    weights = torch.tensor([[0.0, 0.0, 1.0, 1.0, 0.0]])
    assert weighted_quantile(values, weights).item() == 1.0
    assert weighted_quantile(values, weights, midpoint=True).item() == 1.5
    assert weighted_quantile(values, weights, 0.999).item() == 2.0


def test_the_gradient_goes_to_the_chosen_value() -> None:
    values = torch.tensor([[3.0, 1.0, 2.0]], requires_grad=True)
    weighted_quantile(values, torch.ones(1, 3)).sum().backward()
    assert values.grad.tolist() == [[0.0, 0.0, 1.0]]


def test_trimmed_mean_leaves_the_ends_out() -> None:
    values = torch.tensor([1.0, 2, 3, 4, 5, 6, 7, 8, 9, 1000]).view(1, 1, 1, 10)
    ones = torch.ones_like(values)
    assert depth_statistic(values, ones, "trimmed_mean", trim=0.1).item() == pytest.approx(5.5)
    assert depth_statistic(values, ones, "mean").item() == pytest.approx(104.5)
    half = depth_statistic(values, ones, "trimmed_mean", trim=0.15)  # half of 2 and of 9 remain
    assert half.item() == pytest.approx((1 + 3 + 4 + 5 + 6 + 7 + 8 + 4.5) / 7)


def test_the_contact_band_takes_the_lowest_rows() -> None:
    weights = torch.zeros(1, 1, 12, 4)
    weights[0, 0, 1:11, 1:3] = 1.0  # ten rows
    band = contact_weights(weights, 0.25)[0, 0, :, 1]
    torch.testing.assert_close(band, torch.tensor([0, 0, 0, 0, 0, 0, 0, 0, 0.5, 1, 1, 0]))
    one_row = contact_weights(weights, 0.01)[0, 0, :, 1]
    assert one_row.nonzero().flatten().tolist() == [10]
    assert contact_weights(weights, 1.0).equal(weights)
    assert contact_weights(torch.zeros(1, 1, 4, 4), 0.5).sum() == 0


def test_bad_options() -> None:
    depth = torch.ones(1, 1, 2, 2)
    with pytest.raises(ValueError, match=r"trim: expected a share in \[0, 0.5\), got 0.5"):
        depth_statistic(depth, depth, "trimmed_mean", trim=0.5)
    with pytest.raises(ValueError, match="depth_stat: expected one of median"):
        depth_statistic(depth, depth, "mode")
