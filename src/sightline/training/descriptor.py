"""Stage 0: the shared descriptor learns to tell objects apart, before any room learns its own task.

Of every object in a batch there are two crops in different views. The pooled descriptor of a template must be
nearer to its own object than to all others of the batch, in both directions (InfoNCE, van den Oord et al.,
2018); so must the dense descriptors on the object in the picture; and those beside it must be like none.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, TypedDict

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from sightline.nn.descriptor import DescriptorNet, pool_descriptor
from sightline.nn.pooling import area_pool
from sightline.synthetic.backdrops import BackdropBank
from sightline.synthetic.crops import CropPair, CropPairs, CropSettings
from sightline.synthetic.sprites import SpriteBank, SpriteSettings
from sightline.training.task import TrainingTask

_INSIDE, _OUTSIDE = 0.6, 0.02  # share of the object in a cell that is on it, and beside it
_LARGEST_SHARPNESS = 50.0


class CropBatch(TypedDict):
    """Crops of b objects: template and picture of each, their masks, and the objects' numbers."""

    images: Float[Tensor, "b 2 3 s s"]
    masks: Float[Tensor, "b 2 s s"]
    numbers: Int[Tensor, "b"]


@dataclass(frozen=True, kw_only=True)
class DescriptorData:
    """What the descriptor learns from and is judged on.

    Args:
        folder: where sprites and backdrops are kept between runs; in memory unless given.
        num_objects: training objects.
        num_backdrops: training backdrops.
        epoch_length: pairs of an epoch.
        num_validation_objects: unseen objects that must be told apart.
        validation_rounds: pairs of each of them.
        sprites: how each object is drawn.
        crops: what the crops are like.
    """

    folder: str | Path | None = None
    num_objects: int = 1000
    num_backdrops: int = 200
    epoch_length: int = 20_000
    num_validation_objects: int = 40
    validation_rounds: int = 8
    sprites: SpriteSettings = field(default_factory=SpriteSettings)
    crops: CropSettings = field(default_factory=CropSettings)

    def pairs(self, split: str) -> CropPairs:
        """The pairs of a split."""
        training = split == "train"
        num_objects = self.num_objects if training else self.num_validation_objects
        num_backdrops = self.num_backdrops if training else max(self.num_backdrops // 8, 2)
        return CropPairs(
            SpriteBank(num_objects, self.folder, split=split, settings=self.sprites),
            BackdropBank(num_backdrops, self.folder, split=split, image_size=(320, 240)),
            self.crops,
        )


class _PairSamples:
    """Pairs as the trainer wants them: each epoch goes through the objects again and again."""

    def __init__(self, pairs: CropPairs, length: int, *, fixed: bool = False) -> None:
        self.pairs, self.length, self.fixed = pairs, length, fixed

    def __len__(self) -> int:
        return self.length

    def sample(self, index: int, rng: np.random.Generator) -> CropPair:
        rng = np.random.default_rng([7, index]) if self.fixed else rng
        return self.pairs.draw(index % len(self.pairs), rng)


class DescriptorTask(TrainingTask):
    """Pre-training of a descriptor.

    Args:
        net: what learns.
        data: what from.
        weight_dense: weight of the dense descriptors on the object.
        weight_beside: weight of those beside it.
    """

    best_figure: ClassVar[str] = "val_retrieval"
    best_is_high: ClassVar[bool] = True

    def __init__(
        self,
        net: DescriptorNet,
        data: DescriptorData | None = None,
        *,
        weight_dense: float = 0.5,
        weight_beside: float = 0.3,
    ) -> None:
        super().__init__(net, net.config)
        self.net, self.data = net, data or DescriptorData()
        self.weight_dense, self.weight_beside = weight_dense, weight_beside

    def training_samples(self) -> _PairSamples:
        """New pairs in every epoch."""
        return _PairSamples(self.data.pairs("train"), self.data.epoch_length)

    def validation_samples(self) -> _PairSamples:
        """The same pairs of unseen objects each time."""
        pairs = self.data.pairs("development")
        return _PairSamples(pairs, len(pairs) * self.data.validation_rounds, fixed=True)

    def collate(self, samples: Sequence[CropPair]) -> CropBatch:
        """A batch of pairs."""
        return CropBatch(
            images=torch.stack([pair.images for pair in samples]),
            masks=torch.stack([pair.masks for pair in samples]),
            numbers=torch.tensor([pair.number for pair in samples]),
        )

    def losses(self, batch: CropBatch) -> Mapping[str, Tensor]:
        """The sum over the levels, and the mean of each part."""
        levels = self.net(batch["images"].flatten(0, 1))
        sharpness = self.net.log_sharpness.exp().clamp_max(_LARGEST_SHARPNESS)
        parts = [contrast(level.float(), batch, sharpness) for level in levels]
        pooled, dense, beside = (torch.stack(part).mean() for part in zip(*parts, strict=True))
        loss = pooled + self.weight_dense * dense + self.weight_beside * beside
        return {"loss": loss, "loss_pooled": pooled, "loss_dense": dense, "loss_beside": beside}

    def validate(self, batches: Iterable[CropBatch]) -> dict[str, float]:
        """How often the nearest template of all unseen objects is that of the right one."""
        templates, pictures, numbers = [], [], []
        for batch in batches:
            dense = self.net(batch["images"].flatten(0, 1))[0].float()
            pooled = pool_descriptor(dense, batch["masks"].flatten(0, 1)).unflatten(0, (-1, 2))
            templates.append(pooled[:, 0])
            pictures.append(pooled[:, 1])
            numbers.append(batch["numbers"])
        return {"val_retrieval": retrieval(torch.cat(templates), torch.cat(pictures), torch.cat(numbers))}


def contrast(
    dense: Float[Tensor, "pairs d h w"], batch: CropBatch, sharpness: Float[Tensor, ""]
) -> tuple[Float[Tensor, ""], Float[Tensor, ""], Float[Tensor, ""]]:
    """The three losses of one level.

    Args:
        dense: ``(2 b, d, h, w)`` unit descriptors, template and picture of each object in turn.
        batch: the crops; pairs of one object count as the same.
        sharpness: factor on the cosines.

    Returns:
        Of pooled descriptors, of dense ones on the object, and of those beside it.
    """
    pooled = pool_descriptor(dense, batch["masks"].flatten(0, 1)).unflatten(0, (-1, 2))
    seen = dense.unflatten(0, (-1, 2))[:, 1]
    numbers = batch["numbers"]
    # Another pair of the same object is neither right nor wrong.
    same = (numbers[:, None] == numbers) & ~torch.eye(len(numbers), dtype=torch.bool, device=numbers.device)
    cosines = (pooled[:, 0] @ pooled[:, 1].T * sharpness).masked_fill(same, -torch.inf)
    right = torch.arange(len(numbers), device=numbers.device)
    both_ways = (F.cross_entropy(cosines, right) + F.cross_entropy(cosines.T, right)) / 2

    share = area_pool(batch["masks"][:, 1].to(dense), (seen.shape[-2], seen.shape[-1]))
    field = torch.einsum("td,bdhw->bhwt", pooled[:, 0], seen)
    logits = (field * sharpness).masked_fill(same[:, None, None], -torch.inf)
    inside = (share > _INSIDE).to(dense)
    wrong = F.cross_entropy(
        logits.flatten(0, 2), right[:, None, None].expand_as(share).flatten(), reduction="none"
    )
    on_it = (wrong.view_as(share) * inside).sum() / inside.sum().clamp_min(1)
    outside = (share < _OUTSIDE).to(dense)
    own = field.diagonal(dim1=0, dim2=3).permute(2, 0, 1)
    beside = (F.softplus(10 * (own - 0.2)) * outside).sum() / outside.sum().clamp_min(1)
    return both_ways, on_it, beside


def retrieval(
    templates: Float[Tensor, "n d"], pictures: Float[Tensor, "n d"], numbers: Int[Tensor, "n"]
) -> float:
    """The share of pictures whose nearest template, of all objects, is one of the same object.

    Args:
        templates: ``(n, d)`` unit descriptors.
        pictures: ``(n, d)`` unit descriptors.
        numbers: ``(n,)`` the object of each.

    Example:
        >>> retrieval(torch.eye(2), torch.eye(2), torch.tensor([0, 1]))
        1.0
    """
    nearest = (pictures @ templates.T).argmax(1)
    return float((numbers[nearest] == numbers).double().mean())
