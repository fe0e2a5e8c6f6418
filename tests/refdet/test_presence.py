"""Thresholds of presence: what they promise, on scores whose law is known, and what they refuse."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sightline.refdet.presence import NUM_RANKS, PresenceCurve, calibrate_presence

SCORES = st.lists(st.floats(0, 0.875, width=32), min_size=19, max_size=300)


@given(SCORES, st.floats(0.05, 0.9))
def test_no_more_alarms_than_asked_for_among_the_pictures_themselves(scores, rate):
    found = calibrate_presence(scores, rate)
    assert found.num_alarms <= rate * found.num_empty
    assert found.interval.low <= found.num_alarms / found.num_empty <= found.interval.high


@given(SCORES, st.floats(0.05, 0.9))
def test_the_threshold_is_just_above_a_score(scores, rate):
    """That of the rank where all scores are kept; never below it where some are not."""
    count = len(scores)
    exact = sorted(scores)[int(np.ceil((1 - rate) * (count + 1) - 1e-9)) - 1]
    threshold = calibrate_presence(scores, rate).threshold
    assert threshold > exact
    if count <= NUM_RANKS:
        assert threshold == np.nextafter(np.float32(exact), np.float32(2))


def test_new_pictures_alarm_as_rarely_as_promised():
    """Over many draws the mean rate is below the promise and close to it."""
    rng = np.random.default_rng(0)
    rates = []
    for _ in range(400):
        threshold = calibrate_presence(rng.beta(1, 4, 59).astype(np.float32), 0.1).threshold
        rates.append((1 - threshold) ** 4)  # the share of Beta(1, 4) above
    mean, error = np.mean(rates), np.std(rates) / 20
    assert 0.085 < mean < 0.1 + 3 * error


def test_pictures_count_and_not_pairs():
    """Five objects in ten pictures are fifty scores, but ten pictures promise 1 in 11 at best."""
    scores = np.linspace(0, 0.9, 50)
    curve = PresenceCurve.of_scores(scores, num_pictures=10)
    assert curve.least_rate == pytest.approx(1 / 11)
    assert curve.threshold_for(0.1) > 0.89
    with pytest.raises(ValueError, match="at least 19 pictures without the object, got 10"):
        curve.threshold_for(0.05)
    assert PresenceCurve.of_scores(scores).threshold_for(0.05) < 0.89


def test_as_few_pictures_as_a_rate_takes():
    calibrate_presence([0.1] * 19, 0.05)
    with pytest.raises(ValueError, match=r"0\.05 takes at least 19 .* got 18"):
        calibrate_presence([0.1] * 18, 0.05)


def test_a_score_of_the_threshold_counts_in_single_precision():
    scores = torch.rand(40, generator=torch.Generator().manual_seed(1))
    threshold = calibrate_presence(scores.tolist(), 0.1).threshold
    assert int((scores >= threshold).sum()) == 3  # rank 37 of 41 is exceeded by 3


def test_kept_curve_is_small_dense_above_and_gives_other_rates():
    scores = np.random.default_rng(2).uniform(size=20_000)
    curve = PresenceCurve.of_scores(scores)
    assert len(curve.ranks) <= NUM_RANKS
    again = PresenceCurve.from_extra(json.loads(json.dumps(curve.to_extra(0.05))))
    assert again == curve
    for rate in (0.001, 0.01, 0.05, 0.2):
        assert 0.85 * rate <= float((scores >= again.threshold_for(rate)).mean()) <= rate
    thresholds = [curve.threshold_for(rate) for rate in (0.01, 0.02, 0.05, 0.3)]
    assert thresholds == sorted(thresholds, reverse=True)


@pytest.mark.parametrize("rate", [0.0, 1.0, -0.1, 5.0, float("nan")])
def test_rates_that_are_none(rate):
    with pytest.raises(ValueError, match="expected a rate between 0 and 1"):
        calibrate_presence([0.1] * 100, rate)


def test_what_cannot_be_calibrated():
    with pytest.raises(ValueError, match=r"all in \[0, 1\], got 2"):
        calibrate_presence([0.1, float("nan")], 0.5)
    with pytest.raises(ValueError, match="got 0"):
        calibrate_presence([], 0.5)
    with pytest.raises(ValueError, match="too many have the score 1"):
        calibrate_presence([1.0] * 40, 0.05)
    with pytest.raises(ValueError, match="not calibrated"):
        PresenceCurve.from_extra({"score_threshold": 0.3})
    with pytest.raises(ValueError, match="damaged curve"):
        PresenceCurve.from_extra({"presence": {"ranks": [1]}})
    with pytest.raises(ValueError, match="do not fall"):
        PresenceCurve((1, 2), (0.5, 0.4), 2, 2)
