"""Weighted quantiles by selection against a sort in float64."""

import numpy as np
import pytest

from sightline.depth_scale.quantile_numba import find_quantile_places


def _places(values, weights, quantile):
    places = np.empty((len(values), 2), np.int64)
    find_quantile_places(
        values.astype(np.float32).view(np.uint32), weights.astype(np.float32), quantile, places
    )
    return places


def _by_sorting(values, weights, quantile):
    order = np.argsort(values, kind="stable")
    reached = np.cumsum(weights[order].astype(np.float64))
    kept = np.flatnonzero(weights[order] > 0)
    goal = quantile * reached[-1]
    lower = kept[np.searchsorted(reached[kept], goal, side="left")]
    upper = kept[min(np.searchsorted(reached[kept], goal, side="right"), len(kept) - 1)]
    return values[order][[lower, upper]]


@pytest.mark.parametrize("quantile", [0.01, 0.3, 0.5, 0.75, 0.999])
@pytest.mark.parametrize("scale", [1.0, 1e-30, 1e30])
def test_is_that_of_a_sort(quantile, scale):
    rng = np.random.default_rng(0)
    for values in (
        rng.normal(size=(4, 300)),
        rng.uniform(1, 1.5, (4, 257)),
        rng.integers(-3, 3, (4, 64)),
        -rng.uniform(1, 2, (4, 5)),
    ):
        values = (values * scale).astype(np.float32)
        shape = values.shape
        binary = (rng.random(shape) < 0.5).astype(np.float32)
        binary[:, 0] = 1
        # Multiples of a power of two are added without rounding, whatever the order.
        for weights in (binary, np.ones(shape, np.float32), np.ceil(rng.random(shape) * 64) / 64):
            weights = weights.astype(np.float32)
            places = _places(values, weights, quantile)
            got = np.take_along_axis(values, places, 1)
            expected = [_by_sorting(v, w, quantile) for v, w in zip(values, weights, strict=True)]
            np.testing.assert_array_equal(got, np.array(expected))
            assert (np.take_along_axis(weights, places, 1) > 0).all()


def test_even_count_has_two_middles():
    values = np.array([[4.0, 1.0, 3.0, 2.0, 9.0]])
    assert values[0, _places(values, np.array([[1.0, 1, 1, 1, 0]]), 0.5)[0]].tolist() == [2.0, 3.0]
    assert values[0, _places(values, np.array([[1.0, 1, 1, 1, 1]]), 0.5)[0]].tolist() == [3.0, 3.0]


def test_nothing_to_choose_from():
    assert (_places(np.ones((1, 3)), np.zeros((1, 3)), 0.5) == -1).all()
    assert (_places(np.ones((1, 3)), np.full((1, 3), np.nan), 0.5) == -1).all()


def test_infinite_values_are_the_last():
    values = np.array([[np.inf, 1.0, -np.inf]])
    for quantile, place in ((0.1, 2), (0.5, 1), (0.9, 0)):
        assert _places(values, np.ones((1, 3)), quantile)[0, 0] == place
