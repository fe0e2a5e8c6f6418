"""Which views of a card a bank is made of: spread over all, and none of sides that nobody has seen."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import UInt8

from sightline.objects.card import ObjectCard, Template

_EVERY = 4  # pixels
_LARGEST_SHARE = 0.5


def choose_views(card: ObjectCard, most: int) -> list[int]:
    """The numbers of the templates that a bank is made of.

    Where photographs were baked onto a mesh, sides that none of them shows have one filling colour; views
    that are mostly such sides would match whatever has this colour, and are left out.

    Args:
        card: the object.
        most: how many views at most.

    Returns:
        Rising numbers, spread evenly over the card's templates that count.
    """
    numbers = list(range(len(card.templates)))
    if any(template.source != "render" for template in card.templates):
        shown = [i for i in numbers if filled_share(card.templates[i]) <= _LARGEST_SHARE]
        numbers = shown or numbers
    return [numbers[i] for i in spread(len(numbers), most)]


def filled_share(template: Template) -> float:
    """The share of an object's pixels that have the most frequent of its colours.

    Args:
        template: the view.
    """
    colors = template.color[::_EVERY, ::_EVERY][template.mask[::_EVERY, ::_EVERY]]
    return _largest_share(colors.numpy()) if len(colors) else 0.0


def _largest_share(colors: UInt8[np.ndarray, "n 3"]) -> float:
    packed = torch.from_numpy(colors.astype(np.int64)) @ torch.tensor([65536, 256, 1])
    return float(packed.unique(return_counts=True)[1].max()) / len(colors)


def spread(total: int, most: int) -> list[int]:
    """At most so many of the numbers from 0, evenly from the first to the last.

    Example:
        >>> spread(9, 3), spread(2, 3)
        ([0, 4, 8], [0, 1])
    """
    if total <= most:
        return list(range(total))
    return [round(i * (total - 1) / max(most - 1, 1)) for i in range(most)]
