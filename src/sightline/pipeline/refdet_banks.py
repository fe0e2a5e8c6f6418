"""Cards and folders of photographs become the banks of a reference detector."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TypeVar

import numpy as np

from sightline.objects.card import ObjectCard
from sightline.objects.card_files import load_card
from sightline.refdet.bank_detector import BankDetector
from sightline.refdet.thumbnails import template_thumbnails

Bank = TypeVar("Bank")
_CARD = "card.json"


def make_banks(detector: BankDetector[Bank], references: Iterable[Path]) -> dict[str, Bank]:
    """The bank of each object, by its name.

    Args:
        detector: whose banks they are.
        references: for each object its card, or a folder of photographs, whose name is the object's.

    Returns:
        The banks, in the order of the references.

    Raises:
        FileNotFoundError: a reference is missing.
        ValueError: one that cannot be used, or two objects of one name.
    """
    banks: dict[str, Bank] = {}
    for folder in references:
        name, source = _open(folder)
        if name in banks:
            raise ValueError(f"{folder}: expected objects of different names, {name!r} is there twice")
        banks[name] = (
            detector.onboard_card(source) if isinstance(source, ObjectCard) else detector.onboard(source)
        )
    return banks


def make_thumbnails(references: Iterable[Path]) -> dict[str, list[np.ndarray]]:
    """A few small pictures of each object, by its name.

    Args:
        references: as :func:`make_banks` takes them.

    Returns:
        ``(h, w, 3)`` uint8 RGB.
    """
    opened = (_open(folder) for folder in references)
    return {name: template_thumbnails(source) for name, source in opened}


def _open(folder: Path) -> tuple[str, Path | ObjectCard]:
    if (folder / _CARD).is_file():
        card = load_card(folder)
        return card.name, card
    return folder.name, folder
