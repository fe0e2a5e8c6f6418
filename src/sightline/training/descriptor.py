"""Stage 0: the shared descriptor learns to tell objects apart, before any room learns its own task.

Of every object in a batch there are a few templates, a picture in which it is partly hidden, and a picture of
its look-alike. Templates and pictures are compared part by part (:mod:`sightline.nn.late_interaction`); each
picture must name its object among those of the batch, and each object its picture among all of them, with
the look-alikes' as the hard ones (InfoNCE, van den Oord et al., 2018).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar, TypedDict

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from sightline.nn.descriptor import DescriptorNet
from sightline.nn.late_interaction import any_template, late_interaction, parts_of_map
from sightline.synthetic.backdrops import BackdropBank
from sightline.synthetic.crops import Crops, CropSet, CropSettings
from sightline.synthetic.sprites import SpriteBank, SpriteSettings
from sightline.training.task import TrainingTask


class CropBatch(TypedDict):
    """Crops of b objects, and the objects' numbers; see :class:`~sightline.synthetic.crops.CropSet`."""

    templates: Float[Tensor, "b t 3 s s"]
    template_masks: Float[Tensor, "b t s s"]
    pictures: Float[Tensor, "b 2 3 s s"]
    numbers: Int[Tensor, "b"]


@dataclass(frozen=True, kw_only=True)
class DescriptorData:
    """What the descriptor learns from and is judged on.

    Args:
        folder: where sprites and backdrops are kept between runs; in memory unless given.
        num_objects: training objects.
        num_backdrops: training backdrops.
        epoch_length: crop sets of an epoch.
        num_validation_objects: unseen objects that must be told apart.
        validation_rounds: crop sets of each of them.
        validation_templates: of each set.
        sprites: how each object is drawn.
        crops: what the crops are like.
    """

    folder: str | Path | None = None
    num_objects: int = 1000
    num_backdrops: int = 200
    epoch_length: int = 20_000
    num_validation_objects: int = 40
    validation_rounds: int = 4
    validation_templates: int = 8
    sprites: SpriteSettings = field(default_factory=SpriteSettings)
    crops: CropSettings = field(default_factory=CropSettings)

    def training(self) -> Crops:
        """Crops of training objects."""
        return self._crops("train", self.num_objects, self.num_backdrops, self.crops)

    def validation(self) -> Crops:
        """Crops of objects that training never shows, in their own colours."""
        plain = replace(
            self.crops, num_templates=self.validation_templates, recolor_share=0.0, mirror_share=0.0
        )
        return self._crops("development", self.num_validation_objects, max(self.num_backdrops // 8, 2), plain)

    def _crops(self, split: str, num_objects: int, num_backdrops: int, settings: CropSettings) -> Crops:
        return Crops(
            SpriteBank(num_objects, self.folder, split=split, settings=self.sprites),
            BackdropBank(num_backdrops, self.folder, split=split, image_size=(320, 240)),
            settings,
        )


class _CropSamples:
    """Crop sets as the trainer wants them: each epoch goes through the objects again and again."""

    def __init__(self, crops: Crops, length: int, *, fixed: bool = False) -> None:
        self.crops, self.length, self.fixed = crops, length, fixed

    def __len__(self) -> int:
        return self.length

    def sample(self, index: int, rng: np.random.Generator) -> CropSet:
        rng = np.random.default_rng([7, index]) if self.fixed else rng
        return self.crops.draw(index % len(self.crops), rng)


class DescriptorTask(TrainingTask):
    """Pre-training of a descriptor.

    Args:
        net: what learns.
        data: what from.
    """

    best_figure: ClassVar[str] = "val_retrieval"
    best_is_high: ClassVar[bool] = True

    def __init__(self, net: DescriptorNet, data: DescriptorData | None = None) -> None:
        super().__init__(net, net.config)
        self.net, self.data = net, data or DescriptorData()

    def training_samples(self) -> _CropSamples:
        """New crops in every epoch."""
        return _CropSamples(self.data.training(), self.data.epoch_length)

    def validation_samples(self) -> _CropSamples:
        """The same crops of unseen objects each time."""
        crops = self.data.validation()
        return _CropSamples(crops, len(crops) * self.data.validation_rounds, fixed=True)

    def collate(self, samples: Sequence[CropSet]) -> CropBatch:
        """A batch of crop sets."""
        return CropBatch(
            templates=torch.stack([each.templates for each in samples]),
            template_masks=torch.stack([each.template_masks for each in samples]),
            pictures=torch.stack([each.pictures for each in samples]),
            numbers=torch.tensor([each.number for each in samples]),
        )

    def losses(self, batch: CropBatch) -> Mapping[str, Tensor]:
        """The mean over the levels, and of their sum."""
        evidence = self.compare(batch)
        terms = [contrast(each, batch["numbers"]) for each in (*evidence, torch.stack(evidence).sum(0))]
        named = {f"loss_{s}": term for s, term in zip(self.net.late_strides, terms, strict=False)}
        return {"loss": torch.stack(terms).mean(), **named}

    def compare(self, batch: CropBatch) -> list[Float[Tensor, "b b2"]]:
        """For each level the evidence of every object's templates for every picture.

        Args:
            batch: of b objects.

        Returns:
            ``(b, 2 b)`` logits each, of the objects' pictures, then of the look-alikes'.
        """
        count, number = batch["templates"].shape[:2]
        pictures = batch["pictures"].transpose(0, 1).flatten(0, 1)
        levels = self.net(torch.cat([batch["templates"].flatten(0, 1), pictures]))
        masks = batch["template_masks"].flatten(0, 1)
        evidence = []
        for stride, level in zip(self.net.fpn.strides, levels, strict=True):
            if stride not in self.net.late_strides:
                continue
            level = level.float()
            templates = parts_of_map(level[: count * number], masks)
            cosines = late_interaction(*templates, parts_of_map(level[count * number :]).descriptors)
            evidence.append(any_template(cosines.unflatten(0, (count, number)), self.net.log_sharpness))
        return evidence

    def validate(self, batches: Iterable[CropBatch]) -> dict[str, float]:
        """How well unseen objects are told apart: from others, and from their look-alikes.

        ``val_retrieval`` is the share of pictures whose object has the most evidence of a batch's objects,
        ``val_over_lookalike`` the share that have more than their look-alike's picture.
        """
        right, preferred = [], []
        for batch in batches:
            evidence = torch.stack(self.compare(batch)).sum(0)
            own, fake = evidence.split(len(evidence), dim=1)
            right.append(batch["numbers"][own.argmax(0)] == batch["numbers"])
            preferred.append(own.diagonal() > fake.diagonal())
        shares = {"val_retrieval": right, "val_over_lookalike": preferred}
        return {name: float(torch.cat(hits).double().mean()) for name, hits in shares.items()}


def contrast(evidence: Float[Tensor, "b b2"], numbers: Int[Tensor, "b"]) -> Float[Tensor, ""]:
    """The cross-entropy of naming each picture's object, and of naming each object's picture.

    Args:
        evidence: ``(b, 2 b)`` of every object for every picture, and then for every look-alike's.
        numbers: ``(b,)`` which objects they are; those of the same number are neither right nor wrong.

    Example:
        >>> contrast(torch.cat([9.0 * torch.eye(2), torch.zeros(2, 2)], 1), torch.tensor([0, 1])) < 0.01
        tensor(True)
    """
    same = (numbers[:, None] == numbers) & ~torch.eye(len(numbers), dtype=torch.bool, device=numbers.device)
    own, fakes = evidence.split(len(evidence), dim=1)
    own = own.masked_fill(same, -torch.inf)
    right = torch.arange(len(own), device=own.device)
    rivals = torch.cat([own, fakes], dim=1)
    return (F.cross_entropy(own.T, right) + F.cross_entropy(rivals, right)) / 2
