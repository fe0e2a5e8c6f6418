"""The learned reference detector with key points beside it: print is read, and shape and colour are seen.

The learned detector's two looks and what key points say of each place (:mod:`.keypoint_evidence`) become one
probability by the same logistic regression; where key points agree they also say the box, and places that
they alone find are looked at too. An object without print is found as the learned detector finds it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from sightline.geometry.boxes import iou_matrix
from sightline.geometry.nms import matrix_nms
from sightline.nn.checkpoint import read_config
from sightline.objects.card import ObjectCard
from sightline.pipeline.keypoint_evidence import (
    SAME_PLACE_IOU,
    ObjectPrint,
    Sightings,
    agreement,
    find_sightings,
    print_of_card,
    print_of_photo,
)
from sightline.refdet.bank import TemplateBank
from sightline.refdet.bank_detector import BankDetector, Templates
from sightline.refdet.data import open_templates
from sightline.refdet.reference_detector import ReferenceDetector
from sightline.refdet.second_look import joined_logits
from sightline.refdet.selection import Proposals
from sightline.sift import Features, extract_features

EXTRA = "hybrid"
"""Where a file of weights keeps what :class:`HybridDetector` has learned."""
_NUM_WEIGHTS = 7  # the constant, the usual likeness, and five columns


class HybridBank(NamedTuple):
    """An object's templates as the network encodes them, and their key points."""

    learned: TemplateBank
    prints: tuple[ObjectPrint, ...]


class Places(NamedTuple):
    """Places of one object: ``boxes`` ``(n, 4)`` and, ``(n, 5)``, what both looks and key points say."""

    boxes: Float[Tensor, "n 4"]
    columns: Float[Tensor, "n 5"]


class HybridDetector(BankDetector[HybridBank]):
    """A learned detector that also reads print.

    Args:
        learned: the detector; its settings hold, but for the threshold.
        rescoring: ``(7,)`` of :func:`~sightline.refdet.second_look.fit_rescoring`.
        score_threshold: that of the learned detector unless given.
    """

    def __init__(
        self,
        learned: ReferenceDetector,
        rescoring: Float[Tensor, " weights"],
        *,
        score_threshold: float | None = None,
    ) -> None:
        if len(rescoring) != _NUM_WEIGHTS:
            raise ValueError(f"rescoring: expected {_NUM_WEIGHTS} numbers, got {len(rescoring)}")
        settings = learned.settings
        if score_threshold is not None:
            settings = replace(settings, score_threshold=score_threshold)
        super().__init__(settings, learned.name)
        self.learned, self.rescoring = learned, rescoring.double()

    @classmethod
    def from_checkpoint(
        cls, path: str | Path, *, device: str | torch.device = "cpu", **settings: object
    ) -> HybridDetector:
        """A detector of a file of weights that was calibrated with key points.

        Args:
            path: a ``.safetensors`` file of the reference detector.
            device: where it runs.
            **settings: fields of :class:`~sightline.refdet.bank_detector.DetectorSettings`.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: another model, or weights that were not calibrated so.
        """
        learned = ReferenceDetector.from_checkpoint(path, device=device)
        learned.settings = replace(learned.settings, **settings)
        stored = read_config(path).extra.get(EXTRA)
        if stored is None:
            raise ValueError(
                f"{path}: these weights were not calibrated with key points; "
                "sightline calibrate-detector --detector hybrid does that"
            )
        try:
            weights, threshold = torch.tensor(stored["rescoring"]), float(stored["score_threshold"])
        except (KeyError, TypeError) as error:
            raise ValueError(f"{path}: damaged numbers of the hybrid detector: {error!r}") from error
        return cls(learned, weights, score_threshold=threshold)

    @classmethod
    def to_calibrate(cls, path: str | Path, *, device: str | torch.device = "cpu") -> HybridDetector:
        """A detector whose scores mean nothing until :meth:`learn` is called.

        Args:
            path: a ``.safetensors`` file of the reference detector.
            device: where it runs.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: another model.
        """
        return cls(ReferenceDetector.from_checkpoint(path, device=device), torch.zeros(_NUM_WEIGHTS))

    @property
    def title(self) -> str:
        """What finds, and with which weights."""
        return f"hybrid {self.name}"

    def learn(self, rescoring: Float[Tensor, " weights"]) -> None:
        """Take in what :func:`~sightline.refdet.second_look.fit_rescoring` found."""
        self.rescoring = rescoring.double()

    def onboard(self, templates: Templates, *, require_mask: bool = False) -> HybridBank:
        """Encode the pictures of one object; each photograph's key points are of a flat thing.

        Args:
            templates: a folder, files, or pictures with mask or box.
            require_mask: whether a picture without mask and box is refused.

        Raises:
            FileNotFoundError: a file is not there.
            ValueError: no templates, a damaged or black one, an empty mask.
        """
        pictures = open_templates(templates, require_mask=require_mask)
        return HybridBank(self.learned.onboard(pictures), tuple(print_of_photo(each) for each in pictures))

    def onboard_card(self, card: ObjectCard, *, max_templates: int = 42) -> HybridBank:
        """The bank of a card, computed once and kept with it; its key points are those that poses need too.

        Args:
            card: the object.
            max_templates: so many views for the network.
        """
        return HybridBank(
            self.learned.onboard_card(card, max_templates=max_templates), (print_of_card(card),)
        )

    def propose(
        self,
        image: np.ndarray,
        banks: Sequence[HybridBank],
        *,
        score_threshold: float | None = None,
        region: Float[Tensor, "4"] | None = None,
    ) -> list[Proposals]:
        """Where each of some objects may be; see :meth:`BankDetector.propose`."""
        threshold = self.settings.score_threshold if score_threshold is None else score_threshold
        proposals = []
        for places in self.look(image, banks, region=region):
            scores = joined_logits(places.columns, self.rescoring).sigmoid()
            found = Proposals(places.boxes, matrix_nms(places.boxes, scores) if len(scores) else scores)
            proposals.append(found.select(found.scores >= threshold))
        return proposals

    def look(
        self,
        image: np.ndarray,
        banks: Sequence[HybridBank],
        *,
        region: Float[Tensor, "4"] | None = None,
    ) -> list[Places]:
        """The places of each of some objects with all that is said of them, before it becomes a score.

        Args:
            image: ``(h, w, 3)`` uint8 RGB.
            banks: the objects.
            region: ``(4,)`` xyxy pixels, the only part that is searched.
        """
        learned = [bank.learned for bank in banks]
        once = self.learned.look_once(image, learned, score_threshold=0.0, region=region)
        features = extract_features(image)
        if region is not None:
            features = _within(features, region)
        size = (image.shape[1], image.shape[0])
        return [
            self._places(image, found, bank, find_sightings(features, bank.prints, size))
            for found, bank in zip(once, banks, strict=True)
        ]

    def _places(self, image: np.ndarray, once: Proposals, bank: HybridBank, seen: Sightings) -> Places:
        """What the first look proposes and key points see, looked at for the second time."""
        looked = self.learned.look_twice(image, once, bank.learned)
        columns = torch.cat([looked.columns, agreement(looked.boxes, seen)], 1)
        if not len(seen.counts):
            return Places(looked.boxes, columns)
        overlap = iou_matrix(looked.boxes, seen.boxes)
        known = overlap >= SAME_PLACE_IOU
        missed = seen.select(~known.any(0))
        scores = _first_scores(missed.boxes, once)
        order = scores.argsort(descending=True, stable=True)[: self.settings.second_looks]
        missed, scores = missed.select(order), scores[order]
        # they do not overlap, so that each is looked at, in this order
        own = self.learned.look_twice(image, Proposals(missed.boxes, scores), bank.learned)
        # key points say a box more exactly than the network
        boxes = torch.where(known.any(1)[:, None], seen.boxes[overlap.argmax(1)], looked.boxes)
        added = torch.cat([own.columns, agreement(missed.boxes, missed)], 1)
        return Places(torch.cat([boxes, missed.boxes]), torch.cat([columns, added]))


def _first_scores(boxes: Float[Tensor, "n 4"], once: Proposals) -> Float[Tensor, " n"]:
    """What the first look says of places: its best score there, its least one where it sees nothing."""
    if not len(once.scores):
        return torch.zeros(len(boxes)).double()
    here = iou_matrix(boxes, once.boxes.double()) >= SAME_PLACE_IOU
    return torch.where(here, once.scores.double(), once.scores.min().double()).amax(1)


def _within(features: Features, region: Float[Tensor, "4"]) -> Features:
    x, y = features.points.unbind(1)
    return features.select((x >= region[0]) & (x <= region[2]) & (y >= region[1]) & (y <= region[3]))
