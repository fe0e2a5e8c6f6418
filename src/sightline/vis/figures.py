"""What all plots have in common: the figure, its legend, colours and dashes of curves."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

import numpy as np
from torch import Tensor

from sightline.vis.canvas import Picture, as_array
from sightline.vis.palette import palette_color

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INK, FAINT = "#24272c", "#d4d7dc"

_DPI = 100
_CURVE_ORDER = ("blue", "vermillion", "bluish green", "reddish purple", "orange", "sky blue", "yellow")
_DASHES = ("-", "--", "-.", ":")


def draw_figure(draw: Callable[[Axes], None], title: str, size_px: tuple[int, int]) -> Picture:
    """One pair of axes as a picture.

    Args:
        draw: what is drawn on them.
        title: above the plot, as it is.
        size_px: ``(width, height)`` of the picture.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(size_px[0] / _DPI, size_px[1] / _DPI), dpi=_DPI, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.grid(color=FAINT, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title(title, fontsize=11, color=INK, loc="left", parse_math=False)
    draw(axes)
    canvas.draw()
    return np.ascontiguousarray(np.asarray(canvas.buffer_rgba())[..., :3])


def add_legend(axes: Axes, place: Literal["lower left", "lower right", "upper left"]) -> None:
    """Name the lines that have been drawn.

    Args:
        axes: where.
        place: of the legend.
    """
    if axes.lines:
        legend = axes.legend(
            axes.lines, [str(line.get_label()) for line in axes.lines], loc=place, frameon=False
        )
        for text in legend.get_texts():
            text.set_parse_math(False)  # a name may hold dollar signs


def as_vector(values: np.ndarray | Tensor, name: str) -> np.ndarray:
    """Numbers as a float64 array.

    Args:
        values: ``(n,)``.
        name: for the message.

    Raises:
        ValueError: another shape.
    """
    vector = as_array(values).astype(np.float64)
    if vector.ndim != 1:
        raise ValueError(f"{name}: expected numbers of shape (n,), got {vector.shape}")
    return vector


def curve_color(index: int) -> str:
    """The colour of a curve by its number, as ``#rrggbb``.

    Args:
        index: from 0.
    """
    red, green, blue = palette_color(_CURVE_ORDER[index % len(_CURVE_ORDER)])
    return f"#{red:02x}{green:02x}{blue:02x}"


def curve_dashes(index: int) -> str:
    """The dashes of a curve by its number, which change when the colours come round.

    Args:
        index: from 0.
    """
    return _DASHES[index // len(_CURVE_ORDER) % len(_DASHES)]
