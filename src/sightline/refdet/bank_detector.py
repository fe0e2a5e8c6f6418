"""What every detector by banks has in common: its settings, and the way from proposals to detections."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np
from jaxtyping import Float
from torch import Tensor

from sightline.formats.refdet_templates import TemplatePicture
from sightline.objects.card import ObjectCard
from sightline.records import Detections
from sightline.refdet.selection import Proposals, select
from sightline.refdet.tiling import Tiles, check_tiles

SEARCH_SIZE, TEMPLATE_SIZE = (1024, 576), (256, 256)

Templates = str | Path | Sequence[str | Path | TemplatePicture]
Bank = TypeVar("Bank")


@dataclass(frozen=True)
class DetectorSettings:
    """How a picture is searched.

    Args:
        search_size: ``(width, height)`` pixels into which a picture is fitted, its aspect ratio kept.
        template_size: ``(width, height)`` pixels of a template.
        search_scales: sizes of the network's picture, 1 the given one first, that the first look searches: in
            a smaller one objects that fill the picture are as large as others are.
        score_threshold: detections below it are not reported.
        max_detections: of one object in one picture.
        second_looks: places of one object that are looked at twice (:mod:`sightline.refdet.second_look`), by
            detectors that have learned to; 0 for none.
        tiles: whether large pictures are searched in parts too (:mod:`sightline.refdet.tiling`): ``off``,
            ``auto`` for the picture's own resolution, or how many lie along its limiting side.
        tile_overlap: of neighbouring tiles, at least, in shares of a tile.
        batch_size: how many tiles are searched at once.
        rival_iou: above which overlap different objects compete for one place; None lets them share it.
        negative_iou: from which overlap a look-alike explains an object.

    Raises:
        ValueError: a size, threshold or number that cannot be.

    Example:
        >>> DetectorSettings(search_size=(640, 360)).score_threshold
        0.3
    """

    search_size: tuple[int, int] = SEARCH_SIZE
    template_size: tuple[int, int] = TEMPLATE_SIZE
    search_scales: tuple[float, ...] = (1.0,)
    score_threshold: float = 0.3
    max_detections: int = 100
    second_looks: int = 16
    tiles: Tiles | str = "off"
    tile_overlap: float = 0.2
    batch_size: int = 4
    rival_iou: float | None = 0.7
    negative_iou: float = 0.5

    def __post_init__(self) -> None:
        for name in ("search_size", "template_size"):
            size = getattr(self, name)
            if len(size) != 2 or min(size) < 32:
                raise ValueError(f"{name}: expected (width, height) of at least 32 px, got {size}")
        if not self.search_scales or self.search_scales[0] != 1 or min(self.search_scales) <= 0:
            raise ValueError(
                f"search_scales: expected positive numbers, 1 the first, got {self.search_scales}"
            )
        if not 0 <= self.score_threshold <= 1:
            raise ValueError(f"score_threshold: expected a number in [0, 1], got {self.score_threshold}")
        for name, least in (("batch_size", 1), ("second_looks", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name}: expected at least {least}, got {getattr(self, name)}")
        for name in ("rival_iou", "negative_iou"):
            share = getattr(self, name)
            if share is not None and not 0 < share <= 1:
                raise ValueError(f"{name}: expected a share in (0, 1], got {share}")
        check_tiles(self.tiles, self.tile_overlap)


class BankDetector(ABC, Generic[Bank]):
    """A detector to which objects are known by banks, made once for each.

    Args:
        settings: how pictures are searched.
        name: of the weights, for people.
    """

    def __init__(self, settings: DetectorSettings, name: str) -> None:
        self.settings, self.name = settings, name

    @property
    def title(self) -> str:
        """What finds, and with which weights, for results and people."""
        return f"refdet {self.name}"

    @abstractmethod
    def onboard(self, templates: Templates, *, require_mask: bool = False) -> Bank:
        """Encode the pictures of one object, once.

        Args:
            templates: a folder, files, or pictures with mask or box.
            require_mask: whether a picture without mask and box is refused.

        Raises:
            FileNotFoundError: a file is not there.
            ValueError: no templates, a damaged or black one, an empty mask.
        """

    @abstractmethod
    def onboard_card(self, card: ObjectCard, *, max_templates: int = 42) -> Bank:
        """The bank of a card, computed once and kept with it.

        Args:
            card: the object.
            max_templates: so many views, spread evenly over the card's.
        """

    @abstractmethod
    def propose(
        self,
        image: np.ndarray,
        banks: Sequence[Bank],
        *,
        score_threshold: float | None = None,
        region: Float[Tensor, "4"] | None = None,
    ) -> list[Proposals]:
        """Where each of some objects may be, whatever the others are.

        Args:
            image: ``(h, w, 3)`` uint8 RGB, of any size.
            banks: the objects.
            score_threshold: least score; that of the settings unless given.
            region: ``(4,)`` xyxy pixels, the only part that is searched, grown to the form of the network's
                picture and without tiles; what its borders cut off is left out.

        Returns:
            The proposals of each bank.
        """

    def detect(
        self,
        image: np.ndarray,
        banks: Mapping[str, Bank],
        *,
        negatives: Sequence[Bank] = (),
        score_threshold: float | None = None,
        max_instances: int | None = None,
        region: Float[Tensor, "4"] | None = None,
    ) -> Detections:
        """Find every instance of every object in a picture; the picture is encoded once.

        Args:
            image: ``(h, w, 3)`` uint8 RGB, of any size.
            banks: the objects by name.
            negatives: look-alikes of any of them: what a look-alike explains better is not reported.
            score_threshold: least score; that of the settings unless given.
            max_instances: of one object, likewise.
            region: ``(4,)`` xyxy pixels, the only part that is searched; see :meth:`propose`.

        Returns:
            Boxes in pixels of the picture, within it, the surest first.
        """
        proposals = self.propose(
            image, [*banks.values(), *negatives], score_threshold=score_threshold, region=region
        )
        return select(
            dict(zip(banks, proposals, strict=False)),
            (image.shape[1], image.shape[0]),
            negatives=proposals[len(banks) :],
            negative_iou=self.settings.negative_iou,
            rival_iou=self.settings.rival_iou,
            max_instances=max_instances or self.settings.max_detections,
        )
