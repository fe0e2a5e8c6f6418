"""Cards and folders of photographs become the banks of a reference detector."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from sightline.objects.card_files import load_card
from sightline.refdet.bank import TemplateBank
from sightline.refdet.reference_detector import ReferenceDetector

_CARD = "card.json"


def make_banks(detector: ReferenceDetector, references: Iterable[Path]) -> dict[str, TemplateBank]:
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
    banks: dict[str, TemplateBank] = {}
    for folder in references:
        name, bank = _bank(detector, folder)
        if name in banks:
            raise ValueError(f"{folder}: expected objects of different names, {name!r} is there twice")
        banks[name] = bank
    return banks


def _bank(detector: ReferenceDetector, folder: Path) -> tuple[str, TemplateBank]:
    if (folder / _CARD).is_file():
        card = load_card(folder)
        return card.name, detector.onboard_card(card)
    return folder.name, detector.onboard(folder)
