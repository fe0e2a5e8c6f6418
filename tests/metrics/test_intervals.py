"""Intervals: SciPy's Wilson interval as the reference, and the bootstrap's bookkeeping."""

from __future__ import annotations

import pytest
import torch
from scipy.stats import binomtest

from sightline.metrics.intervals import bootstrap_weights, percentile_interval, wilson_interval


@pytest.mark.parametrize("confidence", [0.8, 0.95])
@pytest.mark.parametrize(("successes", "trials"), [(0, 5), (5, 5), (8, 10), (1, 300)])
def test_wilson_equals_scipy(successes, trials, confidence):
    wanted = binomtest(successes, trials).proportion_ci(confidence, method="wilson")
    assert wilson_interval(successes, trials, confidence) == pytest.approx(tuple(wanted), abs=1e-12)


def test_no_trials_say_nothing():
    assert wilson_interval(0, 0) == (0, 1)


@pytest.mark.parametrize(("successes", "trials"), [(3, 2), (-1, 2)])
def test_impossible_counts_are_refused(successes, trials):
    with pytest.raises(ValueError, match="successes"):
        wilson_interval(successes, trials)


def test_bootstrap_weights_resample_with_replacement():
    weights = bootstrap_weights(20, 2000, seed=3)
    assert (weights.sum(-1) == 20).all()
    assert weights.max() > 1
    assert weights.mean(0).sub(1).abs().max() < 0.1
    assert torch.equal(weights, bootstrap_weights(20, 2000, seed=3))
    assert not torch.equal(weights, bootstrap_weights(20, 2000, seed=4))
    assert bootstrap_weights(0, 3).shape == (3, 0)


def test_percentile_interval_leaves_out_nan():
    samples = torch.arange(101, dtype=torch.float64)
    assert percentile_interval(torch.cat([samples, samples.new_tensor([torch.nan])]), 0.8) == pytest.approx(
        (10, 90)
    )
