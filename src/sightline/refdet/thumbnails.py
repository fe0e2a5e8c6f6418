"""A few of an object's templates as small pictures for people, as the network sees them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from sightline.formats.refdet_templates import TemplatePicture, pictures_without_masks
from sightline.objects.card import ObjectCard
from sightline.refdet.card_views import choose_views, spread
from sightline.refdet.data import load_templates

_DIMMED = 0.3  # the share of what is not the object that is shown


def template_thumbnails(
    source: str | Path | Sequence[str | Path | TemplatePicture] | ObjectCard,
    *,
    count: int = 6,
    size: int = 96,
) -> list[UInt8[np.ndarray, "size size 3"]]:
    """Templates spread over all of an object's, cut out around it, with what is not the object dimmed.

    Args:
        source: a folder, files, pictures, or a card.
        count: how many, at most.
        size: of each, pixels on a side.

    Returns:
        ``(size, size, 3)`` uint8 RGB each.

    Raises:
        FileNotFoundError: a file is not there.
        ValueError: no templates, or a damaged one.

    Example:
        >>> picture = TemplatePicture(np.full((60, 80, 3), 200, np.uint8))
        >>> [small.shape for small in template_thumbnails([picture] * 9, count=2, size=32)]
        [(32, 32, 3), (32, 32, 3)]
    """
    if isinstance(source, ObjectCard):
        views = [source.templates[i] for i in choose_views(source, count)]
        source = [TemplatePicture(view.color.numpy(), view.mask.numpy()) for view in views]
    elif isinstance(source, str | Path) and Path(source).is_dir():
        source = pictures_without_masks(Path(source))
    if not isinstance(source, str | Path):
        source = [source[i] for i in spread(len(source), count)]
    pictures, masks = load_templates(source, (size, size))
    shown = pictures * (_DIMMED + (1 - _DIMMED) * masks[:, None])
    return [each.permute(1, 2, 0).mul(255).round().byte().numpy() for each in shown]
