"""Curves as pictures: precision and recall, reliability, errors, and the timeline of a tracked video.

Each figure is drawn by its own canvas, without pyplot and so without any state that outlives the call.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from sightline.vis.canvas import Picture
from sightline.vis.figures import INK, add_legend, as_vector, curve_color, curve_dashes, draw_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def plot_precision_recall(
    curves: Mapping[str, tuple[np.ndarray | Tensor, np.ndarray | Tensor]],
    *,
    title: str = "Precision and recall",
    size_px: tuple[int, int] = (640, 480),
) -> Picture:
    """Plot precision over recall, one stepped curve a name.

    Args:
        curves: recall ``(n,)`` and precision ``(n,)`` in [0, 1] of each name, recall ascending.
        title: above the plot.
        size_px: ``(width, height)`` of the picture.

    Returns:
        The plot.

    Raises:
        ValueError: unequal lengths, numbers outside [0, 1], or recall that falls.

    Example:
        >>> plot_precision_recall({"mug": (np.array([0.0, 1.0]), np.array([1.0, 0.5]))}).shape
        (480, 640, 3)
    """
    checked = {}
    for name, pair in curves.items():
        recall, precision = (as_vector(values, name) for values in pair)
        if len(recall) != len(precision):
            raise ValueError(
                f"{name}: expected as many precisions as recalls, got {len(precision)}, {len(recall)}"
            )
        both = np.concatenate([recall, precision])
        if not ((both >= 0) & (both <= 1)).all() or (np.diff(recall) < 0).any():
            raise ValueError(f"{name}: expected ascending recall and precision, both in [0, 1]")
        checked[name] = (recall, precision)

    def draw(axes: Axes) -> None:
        for index, (name, (recall, precision)) in enumerate(checked.items()):
            color, dashes = curve_color(index), curve_dashes(index)
            axes.step(recall, precision, color, linestyle=dashes, where="post", label=name, linewidth=1.8)
        axes.set(xlim=(0, 1.01), ylim=(0, 1.01), xlabel="recall", ylabel="precision")
        add_legend(axes, "lower left")

    return draw_figure(draw, title, size_px)


def plot_reliability(
    confidence: np.ndarray | Tensor,
    correct: np.ndarray | Tensor,
    *,
    num_bins: int = 10,
    title: str = "Reliability",
    size_px: tuple[int, int] = (520, 480),
) -> Picture:
    """Plot how often claims of each confidence are true, with the expected calibration error.

    ``ECE = sum_b n_b / n |accuracy_b - confidence_b|`` over equal bins (Guo et al. 2017).

    Args:
        confidence: ``(n,)`` in [0, 1].
        correct: ``(n,)`` bool.
        num_bins: number of equal bins.
        title: above the plot.
        size_px: ``(width, height)`` of the picture.

    Returns:
        The plot: bars of accuracy, the diagonal of perfect calibration, and how many claims each bin holds.

    Raises:
        ValueError: unequal lengths, or a confidence outside [0, 1].

    Example:
        >>> plot_reliability(np.array([0.2, 0.9]), np.array([False, True])).shape
        (480, 520, 3)
    """
    claims, truth = as_vector(confidence, "confidence"), as_vector(correct, "correct")
    if len(claims) != len(truth) or not ((claims >= 0) & (claims <= 1)).all():
        raise ValueError("confidence: expected numbers in [0, 1], as many as there are answers in correct")
    counts, accuracy, mean = reliability_bins(claims, truth, num_bins)
    filled = counts > 0
    ece = float((counts[filled] * np.abs(accuracy - mean)[filled]).sum() / max(len(claims), 1))
    middles = (np.arange(num_bins) + 0.5) / num_bins

    def draw(axes: Axes) -> None:
        axes.bar(middles[filled], accuracy[filled], 0.92 / num_bins, color=curve_color(0), alpha=0.75)
        axes.plot([0, 1], [0, 1], color=INK, linestyle="--", linewidth=1.2)
        axes.plot(mean[filled], accuracy[filled], "o", color=curve_color(1), markersize=5)
        for x, top, count in zip(middles[filled], accuracy[filled], counts[filled], strict=True):
            axes.text(x, min(top + 0.02, 0.96), f"{count}", ha="center", fontsize=8, color=INK)
        axes.set(xlim=(0, 1), ylim=(0, 1.01), xlabel="confidence", ylabel="share that is correct")

    return draw_figure(draw, f"{title}: calibration error {ece:.3f}, {len(claims)} claims", size_px)


def plot_coverage(
    levels: Mapping[str, np.ndarray | Tensor],
    *,
    title: str = "Coverage of claimed covariances",
    size_px: tuple[int, int] = (520, 480),
) -> Picture:
    """Plot in how many cases the truth lies within the ellipsoid of each level, one stepped curve a name.

    Right claims lie on the dashed line; a curve below it claims too much, one above it too little.

    Args:
        levels: of each name ``(n,)`` levels of the smallest ellipsoids that hold the truth, in [0, 1], as
            :func:`sightline.metrics.ellipsoid_levels` gives them; NaN is left out.
        title: above the plot.
        size_px: ``(width, height)`` of the picture.

    Returns:
        The plot.

    Raises:
        ValueError: numbers outside [0, 1].

    Example:
        >>> plot_coverage({"rotation": np.array([0.1, 0.4, 0.9])}).shape
        (480, 520, 3)
    """
    checked = {}
    for name, values in levels.items():
        vector = as_vector(values, name)
        vector = np.sort(vector[~np.isnan(vector)])
        if ((vector < 0) | (vector > 1)).any():
            raise ValueError(f"{name}: expected levels in [0, 1]")
        checked[name] = vector

    def draw(axes: Axes) -> None:
        axes.plot([0, 1], [0, 1], color=INK, linestyle="--", linewidth=1.2, label="right claims")
        for index, (name, vector) in enumerate(checked.items()):
            if len(vector) == 0:
                continue
            share = np.arange(len(vector) + 2).clip(max=len(vector)) / len(vector)
            axes.step(
                np.concatenate([[0.0], vector, [1.0]]),
                share,
                curve_color(index),
                linestyle=curve_dashes(index),
                where="post",
                label=f"{name} ({len(vector)})",
                linewidth=1.8,
            )
        axes.set(
            xlim=(0, 1), ylim=(0, 1.01), xlabel="level of the ellipsoid", ylabel="share of the truths in it"
        )
        add_legend(axes, "upper left")

    return draw_figure(draw, title, size_px)


def plot_errors(
    errors: Mapping[str, np.ndarray | Tensor],
    *,
    unit: str,
    largest: float,
    title: str = "Errors",
    size_px: tuple[int, int] = (640, 480),
) -> Picture:
    """Plot a histogram of errors, and above it the share of cases below each error.

    Args:
        errors: ``(n,)`` of each name, none negative; NaN or infinity is a failure, which no bound covers.
        unit: of the errors, for the axis.
        largest: where the axis ends; larger errors count as cases but are not shown.
        title: above the plot.
        size_px: ``(width, height)`` of the picture.

    Returns:
        The plot, with the median of each name (infinite where most cases failed).

    Raises:
        ValueError: a negative error, no cases, or an axis that ends at 0.

    Example:
        >>> plot_errors({"rotation": np.array([0.5, 1.0, np.nan])}, unit="°", largest=2.0).shape
        (480, 640, 3)
    """
    if not largest > 0:
        raise ValueError(f"largest: expected a positive number, got {largest}")
    checked = {}
    for name, values in errors.items():
        vector = as_vector(values, name)
        vector = np.sort(np.where(np.isfinite(vector), vector, np.inf))
        if len(vector) == 0 or vector[0] < 0:
            raise ValueError(f"{name}: expected at least one error, none of them negative")
        checked[name] = vector

    def draw(axes: Axes) -> None:
        bars = axes.twinx()
        for index, (name, vector) in enumerate(checked.items()):
            color, dashes = curve_color(index), curve_dashes(index)
            median = float(np.quantile(vector, 0.5, method="inverted_cdf"))
            seen = vector[vector <= largest]
            share = np.append(np.arange(len(seen) + 1), len(seen)) / len(vector)
            steps = np.concatenate([[0.0], seen, [largest]])
            label = f"{name}: median {median:.3g} {unit}" if np.isfinite(median) else f"{name}: most failed"
            axes.step(steps, share, color, linestyle=dashes, where="post", label=label, linewidth=1.8)
            bars.hist(seen, bins=40, range=(0, largest), color=color, alpha=0.3)
        bars.set_ylabel("cases (bars)", color=INK)
        axes.set_zorder(bars.get_zorder() + 1)
        axes.patch.set_visible(False)
        axes.set(
            xlim=(0, largest), ylim=(0, 1.01), xlabel=f"error ({unit})", ylabel="share of all cases below"
        )
        add_legend(axes, "lower right")

    return draw_figure(draw, title, size_px)


def plot_sizes(
    expected: np.ndarray | Tensor,
    measured: np.ndarray | Tensor,
    *,
    tolerance: float | None = None,
    unit: str = "px",
    title: str = "Sizes",
    size_px: tuple[int, int] = (640, 520),
) -> Picture:
    """Plot measured over expected sizes, on logarithmic axes: the same factor is the same distance anywhere.

    Args:
        expected: ``(n,)`` positive.
        measured: ``(n,)`` positive.
        tolerance: a share; sizes beyond ``1 + tolerance`` or its inverse are marked and counted.
        unit: of both, for the axes.
        title: above the plot.
        size_px: ``(width, height)`` of the picture.

    Returns:
        The plot, with the line on which both are equal.

    Raises:
        ValueError: no sizes, unequal lengths, or a size that is not positive and finite.

    Example:
        >>> plot_sizes(np.array([20.0, 80.0]), np.array([21.0, 120.0]), tolerance=0.1).shape
        (520, 640, 3)
    """
    x, y = as_vector(expected, "expected"), as_vector(measured, "measured")
    both = np.concatenate([x, y])
    if len(x) == 0 or len(x) != len(y) or not ((both > 0) & np.isfinite(both)).all():
        raise ValueError("sizes: expected as many positive measured as expected sizes, at least one")
    ends = np.array([both.min() / 1.15, both.max() * 1.15])
    outside = np.abs(np.log(y / x)) > np.log1p(np.inf if tolerance is None else tolerance)

    def draw(axes: Axes) -> None:
        axes.set(xscale="log", yscale="log", xlim=ends, ylim=ends, aspect="equal")
        axes.set(xlabel=f"expected size ({unit})", ylabel=f"measured size ({unit})")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter("{x:g}")
            axis.set_minor_formatter("{x:g}" if ends[1] / ends[0] < 5 else "")
        axes.plot(ends, ends, color=INK, linewidth=1.2, linestyle="--", label="equal")
        if tolerance is not None:
            low, high = ends / (1 + tolerance), ends * (1 + tolerance)
            axes.fill_between(ends, low, high, color=curve_color(2), alpha=0.2, linewidth=0)
        axes.plot(x[~outside], y[~outside], "o", color=curve_color(0), markersize=5, label="fits")
        if outside.any():
            label = f"{int(outside.sum())} beyond {100 * (tolerance or 0):.3g} %"
            axes.plot(x[outside], y[outside], "X", color=curve_color(1), markersize=8, label=label)
        axes.legend(loc="best", framealpha=0.85)

    return draw_figure(draw, title, size_px)


def plot_timeline(
    scores: np.ndarray | Tensor,
    found: np.ndarray | Tensor,
    *,
    frames_per_second: float | None = None,
    threshold: float | None = None,
    title: str = "Tracking",
    what: str = "a pose",
    size_px: tuple[int, int] = (900, 300),
) -> Picture:
    """Plot the score of a tracked object over a video; where it was lost is shaded.

    Args:
        scores: ``(n,)`` one a frame, in [0, 1]; NaN is a gap.
        found: ``(n,)`` bool, whether the frame has a valid pose.
        frames_per_second: makes the axis seconds; by default it counts frames.
        threshold: the score from which a pose is accepted, drawn as a line.
        title: above the plot; the share of frames with a pose is added.
        what: is called found in the title.
        size_px: ``(width, height)`` of the picture.

    Returns:
        The plot, with a mark where the object was found again.

    Raises:
        ValueError: no frames, unequal lengths, or a frame rate that is not positive.

    Example:
        >>> plot_timeline(np.array([0.9, 0.1, 0.8]), np.array([True, False, True])).shape
        (300, 900, 3)
    """
    values, valid = as_vector(scores, "scores"), as_vector(found, "found") > 0
    if len(values) == 0 or len(values) != len(valid):
        raise ValueError(
            f"timeline: expected a score and an answer a frame, got {len(values)} and {len(valid)}"
        )
    if frames_per_second is not None and not frames_per_second > 0:
        raise ValueError(f"frames_per_second: expected a positive number, got {frames_per_second}")
    scale = 1.0 / (frames_per_second or 1.0)
    spans = lost_spans(valid)
    time = np.arange(len(values)) * scale

    def draw(axes: Axes) -> None:
        for first, last in spans:
            axes.axvspan((first - 0.5) * scale, (last - 0.5) * scale, color=curve_color(1), alpha=0.22, lw=0)
        axes.plot(time, np.where(valid, values, np.nan), color=curve_color(0), linewidth=1.6)
        axes.plot(time[~valid], values[~valid], ".", color=curve_color(1), markersize=3)
        again = [last for _, last in spans if last < len(values)]
        axes.plot(time[again], values[again], "^", color=curve_color(2), markersize=8)
        if threshold is not None:
            axes.axhline(threshold, color=INK, linestyle="--", linewidth=1)
        axes.set(xlim=(-0.5 * scale, (len(values) - 0.5) * scale), ylim=(0, 1.03), ylabel="score")
        axes.set_xlabel("frame" if frames_per_second is None else "time (s)")

    share = f"{what} in {int(valid.sum())} of {len(valid)} frames, lost {len(spans)} times"
    return draw_figure(draw, f"{title}: {share}", size_px)


def reliability_bins(
    confidence: np.ndarray, correct: np.ndarray, num_bins: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Claims in equal bins of confidence.

    Args:
        confidence: ``(n,)`` in [0, 1].
        correct: ``(n,)`` bool or 0 and 1.
        num_bins: number of equal bins; the last includes 1.

    Returns:
        Of each bin ``(num_bins,)`` the count, the share that is correct, the mean confidence; NaN if empty.

    Example:
        >>> reliability_bins(np.array([0.1, 0.2, 1.0]), np.array([1.0, 0.0, 1.0]), 2)[1].tolist()
        [0.5, 1.0]
    """
    place = np.minimum((confidence * num_bins).astype(int), num_bins - 1)
    counts = np.bincount(place, minlength=num_bins)
    with np.errstate(invalid="ignore"):
        accuracy = np.bincount(place, weights=correct.astype(np.float64), minlength=num_bins) / counts
        mean = np.bincount(place, weights=confidence, minlength=num_bins) / counts
    return counts, accuracy, mean


def lost_spans(found: np.ndarray) -> list[tuple[int, int]]:
    """The runs of frames without a pose.

    Args:
        found: ``(n,)`` bool.

    Returns:
        First frame and the frame after the last, of each run.

    Example:
        >>> lost_spans(np.array([True, False, False, True, False]))
        [(1, 3), (4, 5)]
    """
    edges = np.flatnonzero(np.diff(~found, prepend=False, append=False))
    return [(int(first), int(last)) for first, last in edges.reshape(-1, 2)]
