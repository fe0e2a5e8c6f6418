"""How the reference detector learns: from composites, judged by average precision on unseen objects."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from sightline.metrics.coco import coco_scores
from sightline.records import Detections
from sightline.refdet.bank import TemplateBank
from sightline.refdet.composites import CompositeDataset, CompositeSettings
from sightline.refdet.contrast import contrast_loss
from sightline.refdet.data import RefDetBatch, RefDetItem, collate
from sightline.refdet.decode import RefDetMaps, decode_maps
from sightline.refdet.detector import ConvNeXtRefDet
from sightline.refdet.losses import RefDetLoss
from sightline.refdet.second_look import look_again
from sightline.synthetic.backdrops import BackdropBank
from sightline.synthetic.sprites import SpriteBank, SpriteSettings
from sightline.training import TrainingTask
from sightline.training.descriptor import contrast

_SCORE_FLOOR = 0.01


@dataclass(frozen=True, kw_only=True)
class CompositeData:
    """What a run learns from and is judged on, made by pasting.

    Args:
        folder: where sprites and backdrops are kept between runs; in memory unless given.
        num_objects: how many training objects.
        num_backdrops: how many training backdrops.
        epoch_length: pictures of an epoch.
        num_validation_objects: how many unseen objects the model is judged on.
        num_validation: how many pictures it is judged on.
        image_size: ``(width, height)`` of the search pictures, pixels.
        template_size: ``(width, height)`` of the templates, pixels.
        max_templates: a sample has one to so many.
        validation_templates: how many templates in validation.
        sprites: how each object is drawn.
        composites: what the pictures are like; its sizes give way to the ones above.
        search_scales: sizes of the picture that the trained detector will search, 1 the first.
    """

    folder: str | Path | None = None
    num_objects: int = 1000
    num_backdrops: int = 400
    epoch_length: int = 4000
    num_validation_objects: int = 40
    num_validation: int = 200
    image_size: tuple[int, int] = (320, 240)
    template_size: tuple[int, int] = (96, 96)
    max_templates: int = 4
    validation_templates: int = 6
    sprites: SpriteSettings = field(default_factory=SpriteSettings)
    composites: CompositeSettings = field(default_factory=CompositeSettings)
    search_scales: tuple[float, ...] = (1.0, 0.5, 0.35)

    def notes(self) -> dict[str, Any]:
        """The sizes that the weights know."""
        names = {
            "search_size": "image_size",
            "template_size": "template_size",
            "search_scales": "search_scales",
        }
        return {name: list(getattr(self, source)) for name, source in names.items()}

    def training(self) -> CompositeDataset:
        """Pictures of training objects."""
        return self._dataset(
            "train", self.num_objects, self.num_backdrops, self.epoch_length, (1, self.max_templates)
        )

    def validation(self) -> CompositeDataset:
        """Pictures of objects that training never shows."""
        counts = self.num_validation_objects, max(self.num_backdrops // 8, 4), self.num_validation
        always = self.validation_templates, self.validation_templates
        return self._dataset("development", *counts, always)

    def _dataset(
        self, split: str, num_objects: int, num_backdrops: int, length: int, number: tuple[int, int]
    ) -> CompositeDataset:
        templates = replace(self.composites.templates, size=tuple(self.template_size), number=number)
        size = (int(self.image_size[0]), int(self.image_size[1]))
        return CompositeDataset(
            SpriteBank(num_objects, self.folder, split=split, settings=self.sprites),
            BackdropBank(num_backdrops, self.folder, split=split, image_size=size),
            replace(self.composites, image_size=size, templates=templates),
            length=length,
        )


class CompositeSamples:
    """Composites as the trainer wants them: numbered, and new in every epoch.

    Args:
        dataset: the composites.
        fixed: whether every epoch has the same, as validation needs it.
    """

    def __init__(self, dataset: CompositeDataset, *, fixed: bool = False) -> None:
        self.dataset, self.fixed = dataset, fixed

    def __len__(self) -> int:
        return len(self.dataset)

    def sample(self, index: int, rng: np.random.Generator) -> RefDetItem:
        """The picture of a number, and of the epoch that ``rng`` stands for."""
        return self.dataset.sample(0 if self.fixed else int(rng.integers(1, 2**31)), index)


class RefDetTask(TrainingTask):
    """The reference detector on composites.

    Args:
        model: the detector.
        data: what it learns from.
        loss: what it is judged by.
        lambda_contrast: weight of telling the batch's objects apart by their descriptors; without it a
            detector that starts from nothing learns to find objects but not which.
        lambda_look: weight of telling them, and their look-alikes, apart in the second look.
    """

    best_figure: ClassVar[str] = "val_ap50"
    best_is_high: ClassVar[bool] = True
    exports_best: ClassVar[bool] = False  # the figure is the first look's; the second learns to the end

    def __init__(
        self,
        model: ConvNeXtRefDet,
        data: CompositeData | None = None,
        loss: RefDetLoss | None = None,
        *,
        lambda_contrast: float = 1.0,
        lambda_look: float = 1.0,
    ) -> None:
        super().__init__(model, model.config)
        self.detector = model
        self.data, self.loss = data or CompositeData(), loss or RefDetLoss()
        self.lambda_contrast, self.lambda_look = lambda_contrast, lambda_look

    def notes(self) -> dict[str, Any]:
        """The sizes that the weights know."""
        return self.data.notes()

    def training_samples(self) -> CompositeSamples:
        """New composites in every epoch."""
        return CompositeSamples(self.data.training())

    def validation_samples(self) -> CompositeSamples:
        """The same composites of unseen objects in every epoch."""
        return CompositeSamples(self.data.validation(), fixed=True)

    def collate(self, samples: Sequence[RefDetItem]) -> RefDetBatch:
        """A batch, with as many templates as the sample with the most."""
        return collate(samples)

    def losses(self, batch: RefDetBatch) -> Mapping[str, Tensor]:
        """The detector's loss and its parts."""
        features = self.detector.search_features(batch["search"])
        bank = encode_batch(self.detector, batch)
        losses = self.loss(self.detector.match(features, bank), batch["boxes"])
        told_apart = contrast_loss(self.detector, features, bank, batch["boxes"])
        looked = self._look_loss(batch, bank)
        total = losses["loss"] + self.lambda_contrast * told_apart + self.lambda_look * looked
        return losses | {
            "loss": total,
            "loss_contrast": told_apart.detach(),
            "loss_look": looked.detach(),
        }

    def _look_loss(self, batch: RefDetBatch, bank: TemplateBank) -> Tensor:
        looks = batch["looks"]
        if looks is None:
            return torch.zeros((), device=batch["search"].device)
        crops = looks.transpose(0, 1).flatten(0, 1)
        _, numbers = np.unique(batch["object_ids"], return_inverse=True)
        return contrast(
            look_again(self.detector, crops, bank).evidence, torch.from_numpy(numbers).to(looks.device)
        )

    def validate(self, batches: Iterable[RefDetBatch]) -> dict[str, float]:
        """AP50 with the right templates and, as a control, with those of the batch's next sample."""
        right: list[Detections] = []
        swapped: list[Detections] = []
        truths: list[Detections] = []
        for batch in batches:
            size = (batch["search"].shape[-1], batch["search"].shape[-2])
            right += as_records(detect_batch(self.detector, batch), size)
            swapped += as_records(detect_batch(self.detector, swap_templates(batch)), size)
            truths += [
                Detections(b.cpu(), torch.ones(len(b)), ("object",) * len(b), size) for b in batch["boxes"]
            ]
        return {"val_ap50": _ap50(right, truths), "val_ap50_swapped": _ap50(swapped, truths)}


def detect_batch(model: ConvNeXtRefDet, batch: RefDetBatch) -> RefDetMaps:
    """The maps of a batch, each picture with its own templates.

    Args:
        model: the detector.
        batch: search pictures and templates.
    """
    return model.detect_maps(batch["search"], encode_batch(model, batch))


def encode_batch(model: ConvNeXtRefDet, batch: RefDetBatch) -> TemplateBank:
    """The templates of each sample.

    Args:
        model: the detector.
        batch: with b samples.
    """
    return model.encode_templates(batch["templates"], batch["template_masks"], batch["template_valid"])


def swap_templates(batch: RefDetBatch) -> RefDetBatch:
    """The same pictures, each with the templates of the next sample.

    Args:
        batch: of at least two samples.
    """
    swapped: Any = dict(batch)
    for key in ("templates", "template_masks", "template_valid"):
        swapped[key] = swapped[key].roll(1, 0)
    return swapped


def as_records(maps: RefDetMaps, image_size: tuple[int, int]) -> list[Detections]:
    """What was found in each picture, as records of one object.

    Args:
        maps: the detector's output.
        image_size: ``(width, height)`` pixels.
    """
    found = decode_maps(maps, score_threshold=_SCORE_FLOOR)
    records = []
    for boxes, scores, valid in zip(found.boxes, found.scores, found.valid, strict=True):
        kept = boxes[valid].float().cpu()
        records.append(Detections(kept, scores[valid].float().cpu(), ("object",) * len(kept), image_size))
    return records


def _ap50(found: Sequence[Detections], truths: Sequence[Detections]) -> float:
    return float(coco_scores(found, truths).ap50)
