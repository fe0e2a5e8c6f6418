from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch

from sightline.vis.palette import PALETTE
from sightline.vis.plots import (
    lost_spans,
    plot_coverage,
    plot_errors,
    plot_precision_recall,
    plot_reliability,
    plot_timeline,
    reliability_bins,
)
from tests.vis.scenes import near_color


def color_share(picture: np.ndarray, name: str) -> float:
    return float(near_color(picture, PALETTE[name], 8).mean())


def test_a_curve_a_name_each_in_its_colour():
    recall = torch.linspace(0, 1, 20)
    one = plot_precision_recall({"mug": (recall, 1 - recall / 2)}, size_px=(400, 300))
    two = plot_precision_recall({"mug": (recall, 1 - recall / 2), "_$\\can{$": (recall, 1 - recall)})
    assert one.shape == (300, 400, 3) and one.dtype == np.uint8 and two.shape == (480, 640, 3)
    assert color_share(one, "blue") > 0.001 and color_share(one, "vermillion") == 0
    assert color_share(two, "vermillion") > 0.001
    assert (one[0] == 255).all()


def test_precision_is_plotted_upwards():
    high = plot_precision_recall({"mug": (np.array([0.0, 1.0]), np.array([0.9, 0.9]))})
    low = plot_precision_recall({"mug": (np.array([0.0, 1.0]), np.array([0.4, 0.4]))})
    line = [
        np.nonzero(near_color(p[:, 300:600], PALETTE["blue"], 8).sum(axis=1) > 250)[0].mean()
        for p in (high, low)
    ]
    assert line[0] < line[1] - 150


def test_reliability_bins_are_counted():
    confidence = np.array([0.05, 0.05, 0.31, 0.99, 1.0])
    correct = np.array([False, True, True, True, False])
    counts, accuracy, mean = reliability_bins(confidence, correct, 10)
    assert counts.tolist() == [2, 0, 0, 1, 0, 0, 0, 0, 0, 2]
    assert accuracy[[0, 3, 9]].tolist() == [0.5, 1.0, 0.5] and np.isnan(accuracy[1])
    np.testing.assert_allclose(mean[[0, 3, 9]], [0.05, 0.31, 0.995])


def test_overconfidence_is_told_in_the_title(monkeypatch):
    import sightline.vis.plots as plots

    titles, draw = [], plots.draw_figure
    monkeypatch.setattr(
        plots, "draw_figure", lambda d, title, size: titles.append(title) or draw(d, title, size)
    )
    plot_reliability(np.full(10, 0.9), np.arange(10) < 5)
    plot_reliability(np.zeros(0), np.zeros(0))
    assert titles == [
        "Reliability: calibration error 0.400, 10 claims",
        "Reliability: calibration error 0.000, 0 claims",
    ]


def test_failures_hold_the_share_of_cases_down(monkeypatch):
    import matplotlib.axes

    steps, original = [], matplotlib.axes.Axes.step

    def record(self, x, y, *args, **kwargs):
        steps.append((np.asarray(x), np.asarray(y), kwargs["label"]))
        return original(self, x, y, *args, **kwargs)

    monkeypatch.setattr(matplotlib.axes.Axes, "step", record)
    errors = {"found": np.array([3.0, 1.0, np.nan, 9.0]), "lost": np.array([np.nan, np.inf, 1.0])}
    picture = plot_errors(errors, unit="°", largest=5.0)
    assert picture.shape == (480, 640, 3)
    (x, y, label), (_, worst, lost) = steps
    assert x.tolist() == [0, 1, 3, 5] and y.tolist() == [0, 0.25, 0.5, 0.5]
    assert label == "found: median 3 °" and lost == "lost: most failed" and worst[-1] == pytest.approx(1 / 3)


def test_the_timeline_shades_what_was_lost():
    found = np.ones(100, dtype=bool)
    found[40:60] = False
    scores = np.where(found, 0.9, np.nan)
    assert (
        lost_spans(found) == [(40, 60)]
        and lost_spans(~found) == [(0, 40), (60, 100)]
        and lost_spans(found[:9]) == []
    )
    drawn = plot_timeline(scores, found, frames_per_second=25.0, threshold=0.5)
    whole = plot_timeline(np.full(100, 0.9), np.ones(100, dtype=bool))
    row = drawn[200].astype(int)
    columns = np.nonzero((row[:, 0] - row[:, 2] > 25) & (row[:, 0] > 200))[0]
    width = columns.max() - columns.min()
    assert 0.15 * 900 < width < 0.21 * 900 and abs((columns.min() + columns.max()) / 2 - 470) < 40
    assert color_share(drawn, "bluish green") > 0 and color_share(whole, "bluish green") == 0
    assert drawn.shape == (300, 900, 3)


def test_coverage_steps_where_the_levels_are():
    drawn = plot_coverage({"rotation": np.array([0.5, np.nan])}, size_px=(520, 480))
    blue = np.argwhere((drawn[..., 2].astype(int) - drawn[..., 0] > 100) & (drawn[..., 0] < 60))
    columns = np.unique(blue[:, 1])
    upright = [c for c in columns if np.count_nonzero(blue[:, 1] == c) > 300]  # the step from 0 to 1
    assert len(upright) >= 1
    middle = (columns.min() + columns.max()) / 2
    assert abs(np.mean(upright) - middle) < 8
    assert color_share(plot_coverage({"nothing": np.zeros(0)}), "blue") == 0


def test_bad_numbers_are_refused():
    good = np.array([0.0, 1.0])
    for recall, precision in (
        (good, good[:1]),
        (good[::-1], good),
        (good, 2 * good),
        (good, np.full(2, np.nan)),
    ):
        with pytest.raises(ValueError, match="mug: expected"):
            plot_precision_recall({"mug": (recall, precision)})
    with pytest.raises(ValueError, match=r"confidence: expected numbers in \[0, 1\]"):
        plot_reliability(np.array([1.2]), np.array([True]))
    with pytest.raises(ValueError, match=r"confidence: expected numbers of shape \(n,\)"):
        plot_reliability(np.zeros((2, 2)), np.array([True]))
    with pytest.raises(ValueError, match=r"rotation: expected levels in \[0, 1\]"):
        plot_coverage({"rotation": np.array([1.2])})
    with pytest.raises(ValueError, match="rotation: expected at least one error, none of them negative"):
        plot_errors({"rotation": np.array([-1.0])}, unit="°", largest=1.0)
    with pytest.raises(ValueError, match="largest: expected a positive"):
        plot_errors({"rotation": good}, unit="°", largest=0.0)
    with pytest.raises(ValueError, match="got 2 and 1"):
        plot_timeline(good, good[:1])
    with pytest.raises(ValueError, match="frames_per_second: expected a positive"):
        plot_timeline(good, good, frames_per_second=0.0)


def test_plots_leave_no_state_and_the_room_loads_nothing_heavy():
    code = (
        "import sys, numpy as np, sightline.vis as vis\n"
        "heavy = {'matplotlib', 'cv2', 'rich', 'scipy', 'lightning', 'transformers'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
        "vis.plot_timeline(np.ones(3), np.ones(3, dtype=bool))\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
