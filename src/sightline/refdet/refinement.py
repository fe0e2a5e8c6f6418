"""How the second look learns to say boxes: crops around boxes that err as the first look's do.

Everything but the refiner stays as it is, so that this stage comes last and takes minutes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, TypedDict

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from sightline.geometry.boxes import iou_matrix
from sightline.refdet.composites import CompositeDataset
from sightline.refdet.detector import ConvNeXtRefDet
from sightline.refdet.second_look import crop_regions, cut_crops, look_again
from sightline.refdet.training import CompositeData
from sightline.training import TrainingTask

_NEARLY = 0.03  # shares of a crop; errors below it count by their square
_NUM_DRAWS = 20


@dataclass(frozen=True, kw_only=True)
class RefinementData:
    """What boxes are refined on.

    Args:
        picture_scale: sides of the pictures, as multiples of those that the first look sees: crops are cut
            out of the picture of the camera.
        num_templates: of each object.
        num_crops: around each object.
        center_jitter: standard deviation of a box's centre from the true one, in shares of its sides.
        size_jitter: of the logarithm of its sides, half of the variance common to both.
        min_iou: boxes with less overlap are drawn anew.
        epoch_length: objects of an epoch.
        num_validation: objects it is judged on.
    """

    picture_scale: float = 2.0
    num_templates: int = 6
    num_crops: int = 6
    center_jitter: float = 0.165
    size_jitter: float = 0.31
    min_iou: float = 0.3
    epoch_length: int = 4000
    num_validation: int = 60


class RefinementBatch(TypedDict):
    """Crops of b objects.

    Keys:
        templates: ``(b, n, 3, h, w)`` RGB in [0, 1].
        masks: ``(b, n, h, w)`` where the object is in them.
        crops: ``(b, c, 3, h, w)`` RGB in [0, 1].
        edges: ``(b, c, 4)`` x1 y1 x2 y2 of the object in shares of the crop.
        given: ``(b, c, 4)`` likewise of the box that the crop was cut out for.
    """

    templates: Float[Tensor, "b n 3 h w"]
    masks: Float[Tensor, "b n h w"]
    crops: Float[Tensor, "b c 3 h w"]
    edges: Float[Tensor, "b c 4"]
    given: Float[Tensor, "b c 4"]


class RefinementSamples:
    """Objects of composites with crops around them.

    Args:
        composites: pictures and templates; each has the object, and as many templates as another.
        data: what the crops are like.
        length: of an epoch.
        fixed: whether every epoch has the same, as validation needs it.
    """

    def __init__(
        self, composites: CompositeDataset, data: RefinementData, length: int, *, fixed: bool = False
    ) -> None:
        self.composites, self.data, self.length, self.fixed = composites, data, length, fixed

    def __len__(self) -> int:
        return self.length

    def sample(self, index: int, rng: np.random.Generator) -> dict[str, Tensor]:
        """The object of a number, and of the epoch that ``rng`` stands for.

        Raises:
            ValueError: the composites do not show their objects.
        """
        if self.fixed:
            rng = np.random.default_rng([0, index])
        for _ in range(_NUM_DRAWS):
            item = self.composites.sample(int(rng.integers(1, 2**31)), index)
            if len(item.boxes):
                break
        else:
            raise ValueError("composites: expected pictures with their objects, got none of them")
        true = item.boxes[int(rng.integers(len(item.boxes)))].double()
        boxes = jitter_boxes(rng, true, self.data)
        size = self.composites.settings.templates.size
        regions = crop_regions(boxes, size)
        image = item.search.mul(255).round().byte().permute(1, 2, 0).numpy()
        return {
            "templates": item.templates,
            "masks": item.template_masks,
            "crops": cut_crops(image, regions, size),
            "edges": _in_shares(true[None], regions),
            "given": _in_shares(boxes, regions),
        }


def jitter_boxes(
    rng: np.random.Generator, box: Float[Tensor, "4"], data: RefinementData
) -> Float[Tensor, "c 4"]:
    """Boxes that err as those of the first look do.

    Args:
        rng: draws them.
        box: ``(4,)`` float64 xyxy pixels, the true one.
        data: how many, and how far they are off.

    Example:
        >>> true = torch.tensor([0.0, 0, 40, 20]).double()
        >>> boxes = jitter_boxes(np.random.default_rng(0), true, RefinementData(num_crops=50))
        >>> bool((iou_matrix(boxes, true[None]) >= 0.3).all())
        True
    """
    center, side = ((box[:2] + box[2:]) / 2).numpy(), (box[2:] - box[:2]).numpy()
    boxes = torch.zeros(0, 4, dtype=torch.float64)
    while len(boxes) < data.num_crops:
        count = 2 * data.num_crops
        centers = center + side * rng.normal(0, data.center_jitter, (count, 2))
        common = rng.normal(0, data.size_jitter, (count, 1))
        own = rng.normal(0, data.size_jitter, (count, 2))
        sides = side * np.exp((common + own) / np.sqrt(2))
        drawn = torch.from_numpy(np.concatenate([centers - sides / 2, centers + sides / 2], 1))
        near = iou_matrix(drawn, box[None])[:, 0] >= data.min_iou
        boxes = torch.cat([boxes, drawn[near]])
    return boxes[: data.num_crops]


class RefinementTask(TrainingTask):
    """The refiner of a detector that has learned everything else.

    Args:
        model: the detector, with ``refine_boxes``; the rest of it is frozen.
        data: what it learns from: objects, backdrops, sizes.
        refinement: what the crops are like.

    Raises:
        ValueError: a detector without a refiner.
    """

    best_figure: ClassVar[str] = "val_iou"
    best_is_high: ClassVar[bool] = True

    def __init__(
        self, model: ConvNeXtRefDet, data: CompositeData, refinement: RefinementData | None = None
    ) -> None:
        if model.refiner is None:
            raise ValueError("model: expected a detector with refine_boxes")
        super().__init__(model, model.config)
        self.detector, self.data = model, data
        self.refinement = refinement or RefinementData()
        model.requires_grad_(False)
        model.refiner.requires_grad_(True)

    def notes(self) -> dict[str, Any]:
        """The sizes that the weights know."""
        return self.data.notes()

    def training_samples(self) -> RefinementSamples:
        """New crops in every epoch."""
        return RefinementSamples(
            self._composites(self.data.training()), self.refinement, self.refinement.epoch_length
        )

    def validation_samples(self) -> RefinementSamples:
        """The same crops of unseen objects in every epoch."""
        composites = self._composites(self.data.validation())
        return RefinementSamples(composites, self.refinement, self.refinement.num_validation, fixed=True)

    def losses(self, batch: RefinementBatch) -> Mapping[str, Tensor]:
        """The error of the edges in shares of the crops."""
        found = self._edges(batch)
        return {"loss": F.smooth_l1_loss(found, batch["edges"], beta=_NEARLY)}

    def validate(self, batches: Iterable[RefinementBatch]) -> dict[str, float]:
        """The mean overlap with the true boxes, and that of the boxes that the crops were cut out for."""
        overlaps: dict[str, list[Tensor]] = {"val_iou": [], "val_iou_before": []}
        for batch in batches:
            for name, edges in (("val_iou", self._edges(batch)), ("val_iou_before", batch["given"])):
                pairs = iou_matrix(
                    edges.flatten(0, 1).float()[:, None], batch["edges"].flatten(0, 1)[:, None]
                )
                overlaps[name].append(pairs.flatten())
        return {name: float(torch.cat(values).mean()) for name, values in overlaps.items()}

    def _edges(self, batch: RefinementBatch) -> Float[Tensor, "b c 4"]:
        """What the refiner says of each crop, by the templates of its own object."""
        with torch.no_grad():
            bank = self.detector.encode_templates(batch["templates"], batch["masks"])
        edges = [
            look_again(self.detector, crops, bank.select([i])).edges for i, crops in enumerate(batch["crops"])
        ]
        return torch.cat([each for each in edges if each is not None]).float()

    def _composites(self, composites: CompositeDataset) -> CompositeDataset:
        """The same, as a camera takes them, and always with the object."""
        settings, refinement = composites.settings, self.refinement
        width, height = (round(side * refinement.picture_scale) for side in settings.image_size)
        count = (refinement.num_templates, refinement.num_templates)
        return CompositeDataset(
            composites.bank,
            composites.backdrops,
            replace(
                settings,
                image_size=(width, height),
                absent_share=0.0,
                templates=replace(settings.templates, number=count),
            ),
            seed=composites.seed,
        )


def _in_shares(boxes: Tensor, regions: Tensor) -> Tensor:
    corner, size = regions[:, :2].repeat(1, 2), (regions[:, 2:] - regions[:, :2]).repeat(1, 2)
    return ((boxes - corner) / size).float()
