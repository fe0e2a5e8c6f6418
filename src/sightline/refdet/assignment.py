"""Which cells answer for which box: those around its centre that lie inside it.

Each box belongs to the level whose stride is nearest to an eighth of its size (the geometric mean of its
sides), in the logarithm. There its centre cell is positive, and every cell within ``pos_radius`` of that one
whose own centre lies in the box. Where two boxes want a cell, a centre cell goes before a neighbour, and the
smaller box before the larger. All boxes of all pictures are assigned at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from sightline.geometry.boxes import area

_CELLS_OF_AN_OBJECT = 8


class Assignment(NamedTuple):
    """Pairs of a box and a cell.

    ``cells`` ``(b, p)`` int64 places in the list of all levels' cells; ``positive`` ``(b, p)`` which pairs
    hold; ``numbers`` ``(b, p)`` each box's place in its list; ``objects`` ``(b, n, 4)`` px the lists,
    filled up with zeros.
    """

    cells: Tensor
    positive: Tensor
    numbers: Tensor
    objects: Tensor

    @property
    def boxes(self) -> Tensor:
        """``(b, p, 4)`` the box of each pair."""
        return self.objects.take_along_dim(self.numbers[..., None], dim=1)


def assign_boxes(
    boxes: Sequence[Float[Tensor, "_ 4"]],
    sizes: Sequence[tuple[int, int]],
    strides: Sequence[int],
    *,
    pos_radius: int = 1,
) -> Assignment:
    """Assign each picture's boxes to cells.

    Args:
        boxes: for each picture ``(n_i, 4)`` ``xyxy`` pixels; boxes without area are left out.
        sizes: ``(h, w)`` of each level's map.
        strides: of each level, in pixels.
        pos_radius: how far from the centre cell cells may be positive.

    Returns:
        The pairs; cells are counted row by row, level after level. A cell occurs in one pair that holds at
        most.

    Example:
        >>> pairs = assign_boxes([torch.tensor([[3.5, 3.5, 11.5, 11.5]])], [(4, 4)], [4], pos_radius=0)
        >>> pairs.cells[pairs.positive]
        tensor([10])
    """
    padded = pad_sequence(list(boxes), batch_first=True, padding_value=torch.nan).float()
    device = padded.device
    real = padded.isfinite().all(-1) & (area(padded) > 0)
    padded = torch.where(real[..., None], padded, 0.0)
    extent = area(padded)

    heights, widths = torch.tensor(list(sizes), device=device).unbind(1)
    counts = heights * widths
    starts = counts.cumsum(0) - counts
    steps = torch.tensor(list(strides), device=device, dtype=torch.float32)
    wanted = extent.clamp_min(1e-6).log() / 2 - torch.tensor(float(_CELLS_OF_AN_OBJECT)).log()
    level = (wanted[..., None] - steps.log()).abs().argmin(-1)
    step = steps[level][..., None]
    limits = torch.stack([widths, heights], dim=-1)[level] - 1

    center = (padded[..., :2] + padded[..., 2:]) / 2
    home = torch.minimum(((center + 0.5) / step).floor().long().clamp_min(0), limits)
    reach = torch.arange(-pos_radius, pos_radius + 1, device=device)
    offsets = torch.cartesian_prod(reach, reach)
    cell = home[..., None, :] + offsets
    middle = (cell + 0.5) * step[..., None, :] - 0.5
    at_home = (offsets == 0).all(-1)
    inside = (middle >= padded[..., None, :2]).all(-1) & (middle <= padded[..., None, 2:]).all(-1)
    in_map = (cell >= 0).all(-1) & (cell <= limits[..., None, :]).all(-1)
    positive = real[..., None] & in_map & (inside | at_home)

    index = starts[level][..., None] + cell[..., 1] * widths[level][..., None] + cell[..., 0]
    index = torch.where(positive, index, 0).flatten(1)
    # the order of precedence: a number that no other pair of the picture has at the same cell
    number = padded.shape[1]
    rank = extent.argsort(dim=1, stable=True).argsort(dim=1)
    precedence = rank[..., None] + number * (~at_home).long()
    precedence = torch.where(positive, precedence, 2 * number).flatten(1)
    first = torch.full((len(boxes), int(sum(h * w for h, w in sizes))), 2 * number, device=device)
    first = first.scatter_reduce(1, index, precedence, "amin")
    wins = positive.flatten(1) & (first.gather(1, index) == precedence)

    pairs = len(offsets)
    numbers = torch.arange(number, device=device).repeat_interleave(pairs).expand(len(boxes), -1)
    return Assignment(index, wins, numbers, padded)
