"""Several opinions on one picture: mirrored, larger and smaller, and of several weights.

Each opinion is a search of its own whose boxes are brought back to the picture; :func:`fuse` makes one list
of them. A mirrored picture shows mirrored objects, and an object is in general not its own mirror image: it
is compared with a bank of mirrored templates, so that flipping costs a second bank.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from sightline.geometry import pixel_affine
from sightline.geometry.boxes import area, iou_matrix
from sightline.geometry.nms import matrix_nms, nms_mask
from sightline.objects.card import ObjectCard
from sightline.refdet.bank import TemplateBank
from sightline.refdet.bank_detector import BankDetector, Templates
from sightline.refdet.framing import transform_boxes
from sightline.refdet.reference_detector import ReferenceDetector
from sightline.refdet.selection import Proposals

Fusion = Literal["weighted", "matrix"]

_TINY = 1e-12  # the weight of a box without score


class Opinion(NamedTuple):
    """One search: by which detector, of the picture or its mirror image, and at which scale."""

    detector: int
    mirrored: bool
    scale: float


class EnsembleBank(NamedTuple):
    """An object's banks: of each detector, as it is, and as in a mirror where that is needed."""

    plain: tuple[TemplateBank, ...]
    mirrored: tuple[TemplateBank, ...]


def fuse(
    opinions: Sequence[Proposals],
    *,
    fusion: Fusion | str = "weighted",
    iou_threshold: float = 0.55,
) -> Proposals:
    """One list of proposals from several opinions on the same picture.

    ``weighted`` is weighted box fusion (Solovyev, Wang and Gabruseva, Image and Vision Computing 2021) with
    the surest boxes as the clusters' centres: a box is the mean of the opinions' best boxes at its place,
    weighted by their scores; its score is the mean over *all* opinions, those that saw nothing counting as 0.
    ``matrix`` keeps the boxes as they are and lowers the scores of those that overlap a better one
    (:func:`~sightline.geometry.nms.matrix_nms`).

    Args:
        opinions: proposals of one object.
        fusion: ``weighted`` or ``matrix``.
        iou_threshold: from which overlap ``weighted`` takes two boxes for one object.

    Returns:
        The proposals, the surest first.

    Raises:
        ValueError: for another ``fusion``.

    Example:
        >>> one = Proposals(torch.tensor([[0.0, 0.0, 10.0, 10.0]]).double(), torch.tensor([0.75]).double())
        >>> other = Proposals(torch.tensor([[0.0, 0.0, 10.0, 8.0]]).double(), torch.tensor([0.25]).double())
        >>> fused = fuse([one, other])
        >>> fused.boxes.tolist(), fused.scores.tolist()
        ([[0.0, 0.0, 10.0, 9.5]], [0.5])
    """
    if fusion not in ("weighted", "matrix"):
        raise ValueError(f"fusion must be weighted or matrix, got {fusion!r}")
    opinions = [opinion.select(area(opinion.boxes) > 0) for opinion in opinions]
    every = Proposals.concatenate(opinions)
    if len(opinions) < 2 or not len(every.scores):
        fused = every
    elif fusion == "matrix":
        fused = Proposals(every.boxes, matrix_nms(every.boxes, every.scores))
    else:
        fused = _fuse_weighted(opinions, every, iou_threshold)
    return fused.select(fused.scores.argsort(descending=True, stable=True))


def _fuse_weighted(opinions: Sequence[Proposals], every: Proposals, iou_threshold: float) -> Proposals:
    centres = nms_mask(every.boxes, every.scores, iou_threshold).nonzero().flatten()
    overlap = iou_matrix(every.boxes, every.boxes[centres])
    nearest = overlap.argmax(dim=1)
    belongs = torch.zeros_like(overlap).scatter(1, nearest[:, None], 1.0) * (overlap > iou_threshold)
    scores, boxes = [], []
    for own_share, opinion in zip(belongs.split([len(o.scores) for o in opinions]), opinions, strict=True):
        if not len(opinion.scores):
            continue
        best, index = (own_share * opinion.scores[:, None].clamp_min(_TINY)).max(dim=0)  # (centres,)
        scores.append(best)
        boxes.append(best[:, None] * opinion.boxes[index])
    total = torch.stack(scores).sum(0)
    return Proposals(torch.stack(boxes).sum(0) / total[:, None], total / len(opinions))


class DetectorEnsemble(BankDetector[EnsembleBank]):
    """Asks several detectors, or one in several ways, and reports what they agree on.

    It is used as a :class:`ReferenceDetector` is, with banks of its own. The time of a search is that of all
    its opinions.

    Args:
        detectors: each with its own weights; the first one's settings hold for the result.
        flip: whether mirrored pictures are searched too.
        scales: of the network's picture, each a search: 1 is the detectors' own.
        fusion: how opinions are joined, see :func:`fuse`.
        fusion_iou: from which overlap two opinions are on one object.

    Raises:
        ValueError: no detector, no scale, or one that is not positive.

    Example:
        >>> from sightline.refdet.detector import ConvNeXtRefDet
        >>> from sightline.formats.refdet_templates import TemplatePicture
        >>> from sightline.refdet.bank_detector import DetectorSettings
        >>> model = ConvNeXtRefDet(16, 8, 16, backbone="nano", detection_stride=8)
        >>> single = ReferenceDetector(model, DetectorSettings((96, 64), (64, 64)))
        >>> ensemble = DetectorEnsemble([single], flip=True)
        >>> picture = np.full((60, 80, 3), 90, np.uint8)
        >>> bank = ensemble.onboard([TemplatePicture(picture)])
        >>> ensemble.detect(picture, {"mug": bank}).image_size, len(ensemble.opinions)
        ((80, 60), 2)
    """

    def __init__(
        self,
        detectors: Sequence[ReferenceDetector],
        *,
        flip: bool = False,
        scales: Sequence[float] = (1.0,),
        fusion: Fusion | str = "weighted",
        fusion_iou: float = 0.55,
    ) -> None:
        if not detectors:
            raise ValueError("detectors: expected at least one, got none")
        if not scales or min(scales) <= 0:
            raise ValueError(f"scales: expected positive numbers, got {list(scales)}")
        super().__init__(detectors[0].settings, "+".join(each.name for each in detectors))
        self.detectors, self.fusion, self.fusion_iou = tuple(detectors), fusion, fusion_iou
        sides = (False, True) if flip else (False,)
        self.opinions = tuple(
            Opinion(i, mirrored, scale)
            for i in range(len(detectors))
            for mirrored in sides
            for scale in scales
        )
        self.flip = flip

    @classmethod
    def from_checkpoints(
        cls,
        paths: Sequence[str | Path],
        *,
        device: str | torch.device = "cpu",
        flip: bool = False,
        scales: Sequence[float] = (1.0,),
        **settings: object,
    ) -> DetectorEnsemble:
        """An ensemble of files of weights, each at the sizes that it was trained for.

        Args:
            paths: ``.safetensors`` files.
            device: where they run.
            flip: whether mirrored pictures are searched too.
            scales: of the network's picture.
            **settings: fields of :class:`DetectorSettings` that all of them get.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it holds another model, or foreign keys.
        """
        detectors = [ReferenceDetector.from_checkpoint(path, device=device) for path in paths]
        for each in detectors:
            each.settings = replace(each.settings, **settings)
        return cls(detectors, flip=flip, scales=scales)

    def onboard(self, templates: Templates, *, require_mask: bool = False) -> EnsembleBank:
        """Encode the pictures of one object for all opinions; see :meth:`ReferenceDetector.onboard`."""
        plain, mirrored = (
            tuple(
                each.onboard(templates, require_mask=require_mask, mirrored=side) for each in self.detectors
            )
            if self.flip or not side
            else ()
            for side in (False, True)
        )
        return EnsembleBank(plain, mirrored)

    def onboard_card(self, card: ObjectCard, *, max_templates: int = 42) -> EnsembleBank:
        """The banks of a card, computed once and kept with it."""
        plain, mirrored = (
            tuple(
                each.onboard_card(card, max_templates=max_templates, mirrored=side) for each in self.detectors
            )
            if self.flip or not side
            else ()
            for side in (False, True)
        )
        return EnsembleBank(plain, mirrored)

    def propose(
        self,
        image: np.ndarray,
        banks: Sequence[EnsembleBank],
        *,
        score_threshold: float | None = None,
        region: Float[Tensor, "4"] | None = None,
    ) -> list[Proposals]:
        """What the opinions together propose for each object; see :meth:`BankDetector.propose`."""
        threshold = self.settings.score_threshold if score_threshold is None else score_threshold
        # what is below this moves a mean by less than that share of the threshold
        least = threshold / len(self.opinions) if self.fusion == "weighted" else threshold
        asked = [self._ask(opinion, image, banks, least, region) for opinion in self.opinions]
        fused = [
            fuse(opinions, fusion=self.fusion, iou_threshold=self.fusion_iou)
            for opinions in zip(*asked, strict=True)
        ]
        return [each.select(each.scores >= threshold) for each in fused]

    def _ask(
        self,
        opinion: Opinion,
        image: np.ndarray,
        banks: Sequence[EnsembleBank],
        threshold: float,
        region: Float[Tensor, "4"] | None,
    ) -> list[Proposals]:
        detector = self.detectors[opinion.detector]
        if not opinion.mirrored:
            own = [bank.plain[opinion.detector] for bank in banks]
            return detector.propose(image, own, score_threshold=threshold, scale=opinion.scale, region=region)
        mirror = pixel_affine.flip_horizontal(image.shape[1])  # its own inverse
        found = detector.propose(
            np.ascontiguousarray(image[:, ::-1]),
            [bank.mirrored[opinion.detector] for bank in banks],
            score_threshold=threshold,
            scale=opinion.scale,
            region=None if region is None else transform_boxes(region[None], mirror)[0],
        )
        return [Proposals(transform_boxes(each.boxes, mirror), each.scores) for each in found]
