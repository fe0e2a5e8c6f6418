"""The reference detector says where the pose estimator shall look."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Generic, TypeVar

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from sightline.objects.card import ObjectCard
from sightline.refdet.bank_detector import BankDetector

Bank = TypeVar("Bank")


class DetectedBoxes(Generic[Bank]):
    """Boxes that a detector finds; an object is made known to it when it is first looked for.

    Different objects may be proposed for one place: their poses are verified, and decide.

    Args:
        detector: finds them.
        most: boxes of one object at the most.
        min_score: of a box at least; low, since a pose that is not there is not borne out.
    """

    def __init__(self, detector: BankDetector[Bank], *, most: int = 3, min_score: float = 0.1) -> None:
        self.detector, self.most, self.min_score = detector, most, min_score
        self._banks: dict[str, Bank] = {}

    def find_boxes(
        self, image: NDArray[np.uint8], cards: Sequence[ObjectCard]
    ) -> dict[str, Float[Tensor, "n 4"]]:
        """Where each object may be, ``xyxy`` pixels by its name, the likeliest first.

        Args:
            image: ``(h, w, 3)`` uint8 RGB.
            cards: the objects.
        """
        banks = [self._bank(card) for card in cards]
        proposals = self.detector.propose(image, banks, score_threshold=self.min_score)
        return {
            card.name: found.boxes[found.scores.argsort(descending=True)[: self.most]].double().cpu()
            for card, found in zip(cards, proposals, strict=True)
        }

    def _bank(self, card: ObjectCard) -> Bank:
        if card.name not in self._banks:
            self._banks[card.name] = self.detector.onboard_card(card)
        return self._banks[card.name]
