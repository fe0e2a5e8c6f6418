"""What pose networks learn from: crops of an object with templates of it, generated or taken, as batches.

Each query comes with templates that show much of what it shows (positives: near in view direction) and with
such that show next to nothing of it (negatives: from at least 90 degrees away), for which every patch's right
answer is that it is not to be seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from typing import Protocol, TypedDict, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.utils.data import Dataset

from sightline.geometry.rotations import angle_between
from sightline.geometry.viewpoints import view_direction
from sightline.synthetic.pose_crops import ChooseTemplates, PoseCrop
from sightline.vpog.template_selector import TemplateSelector


@runtime_checkable
class CropSource(Protocol):
    """What draws numbered crops, generated or taken from a data set.

    See :class:`~sightline.synthetic.pose_crops.PoseCrops`, :class:`~sightline.vpog.scene_crops.SceneCrops`
    and :class:`MixedCrops`.
    """

    def __len__(self) -> int:
        """How many numbers there are."""
        ...

    def draw(self, number: int, rng: np.random.Generator, choose: ChooseTemplates) -> PoseCrop:
        """The crop of a number, drawn by a generator, with the templates that are chosen."""
        ...


class MixedCrops:
    """Crops of several sources, each as often as its share says.

    Args:
        sources: with crops of one size and as many templates.
        shares: of each source; they need not add up to 1.

    Raises:
        ValueError: no source, or shares of another number, below 0, or all 0.
    """

    def __init__(self, sources: Sequence[CropSource], shares: Sequence[float]) -> None:
        weights = np.asarray(shares, np.float64)
        if not len(sources) or len(weights) != len(sources) or (weights < 0).any() or not weights.sum() > 0:
            raise ValueError(
                f"shares: expected one of at least 0 for each of {len(sources)} sources, got {shares}"
            )
        self.sources, self.shares = list(sources), weights / weights.sum()

    def __len__(self) -> int:
        return sum(len(source) for source in self.sources)

    def draw(self, number: int, rng: np.random.Generator, choose: ChooseTemplates) -> PoseCrop:
        """A crop of one of the sources, which the generator chooses; the number goes round in it."""
        source = self.sources[int(rng.choice(len(self.sources), p=self.shares))]
        return source.draw(number % len(source), rng, choose)


class PoseCropBatch(TypedDict):
    """Crops of B objects with S templates each; see :class:`~sightline.synthetic.pose_crops.PoseCrop`.

    Keys:
        query: ``(B, 3, s, s)`` float32 RGB in [0, 1].
        query_depth: ``(B, s, s)`` float32 metres of what is seen of the object, 0 elsewhere.
        query_mask: ``(B, s, s)`` bool, what is seen of the object.
        query_K: ``(B, 3, 3)`` float32 of the crop, pixels.
        query_pose: ``(B, 4, 4)`` float32 ``cam_from_obj``, metres.
        templates: ``(B, S, 3, s, s)`` float32 RGB in [0, 1] on black.
        template_depth: ``(B, S, s, s)`` float32 metres.
        template_mask: ``(B, S, s, s)`` bool.
        template_K: ``(B, S, 3, 3)`` float32 pixels.
        template_pose: ``(B, S, 4, 4)`` float32 ``cam_from_obj``, metres.
        template_types: ``(B, S)`` int64, 0 for positives and 1 for negatives.
        diameter: ``(B,)`` float32 metres.
        object_index: ``(B,)`` int64.
        crop_from_image: ``(B, 2, 3)`` float32.
    """

    query: Float[Tensor, "B 3 s s"]
    query_depth: Float[Tensor, "B s s"]
    query_mask: Bool[Tensor, "B s s"]
    query_K: Float[Tensor, "B 3 3"]
    query_pose: Float[Tensor, "B 4 4"]
    templates: Float[Tensor, "B S 3 s s"]
    template_depth: Float[Tensor, "B S s s"]
    template_mask: Bool[Tensor, "B S s s"]
    template_K: Float[Tensor, "B S 3 3"]
    template_pose: Float[Tensor, "B S 4 4"]
    template_types: Int[Tensor, "B S"]
    diameter: Float[Tensor, " B"]
    object_index: Int[Tensor, " B"]
    crop_from_image: Float[Tensor, "B 2 3"]


def collate(crops: Sequence[PoseCrop]) -> PoseCropBatch:
    """A batch of crops, geometry in float32.

    Args:
        crops: at least one, all with as many templates and of one size.
    """

    def stack(name: str) -> Tensor:
        stacked = torch.stack([torch.as_tensor(getattr(crop, name)) for crop in crops])
        return stacked.float() if stacked.is_floating_point() else stacked

    return PoseCropBatch(
        query=stack("query"),
        query_depth=stack("query_depth"),
        query_mask=stack("query_mask"),
        query_K=stack("query_K"),
        query_pose=stack("query_pose"),
        templates=stack("templates"),
        template_depth=stack("template_depth"),
        template_mask=stack("template_mask"),
        template_K=stack("template_K"),
        template_pose=stack("template_pose"),
        template_types=stack("template_types"),
        diameter=stack("diameter"),
        object_index=stack("object_index"),
        crop_from_image=stack("crop_from_image"),
    )


class VPOGTrainDataset(Dataset):
    """Crops as a data set and as samples of the trainer; the numbers of their source take turns.

    Args:
        crops: what draws them.
        selector: chooses the templates; one near and one far unless given. Where an object's symmetries
            leave too few that are far, near ones take their places.
        length: of an epoch.
        seed: of ``dataset[index]``; ``sample`` gets its own generator.
        fixed: whether ``sample`` ignores that generator and gives what ``dataset[index]`` gives in epoch 0,
            as validation wants it.

    Raises:
        ValueError: an empty epoch.

    Example:
        >>> from sightline.synthetic.backdrops import BackdropBank
        >>> from sightline.synthetic.pose_bank import PoseBank
        >>> from sightline.synthetic.pose_crops import PoseCrops
        >>> from sightline.synthetic.pose_views import PoseViewSettings
        >>> tiny = PoseViewSettings(num_templates=42, template_px=32, num_queries=2, query_px=32)
        >>> crops = PoseCrops(PoseBank(2, settings=tiny), BackdropBank(1, image_size=(64, 48)))
        >>> data = VPOGTrainDataset(crops, length=4)
        >>> data.collate([data[0], data[1]])["templates"].shape
        torch.Size([2, 2, 3, 32, 32])
    """

    def __init__(
        self,
        crops: CropSource,
        selector: TemplateSelector | None = None,
        *,
        length: int = 20_000,
        seed: int = 0,
        fixed: bool = False,
    ) -> None:
        if length < 1:
            raise ValueError(f"length: expected at least 1, got {length}")
        self.crops = crops
        self.selector = selector or TemplateSelector(1, 1, mode="random_within_range", range_deg=25.0)
        self.length, self.seed, self.fixed, self.epoch = length, seed, fixed, 0

    def __len__(self) -> int:
        return self.length

    def set_epoch(self, epoch: int) -> None:
        """Choose which crops ``dataset[index]`` gives."""
        self.epoch = epoch

    def __getitem__(self, index: int) -> PoseCrop:
        """A crop of the present epoch."""
        index = range(self.length)[index]
        return self._draw(index, np.random.default_rng([self.seed, self.epoch, index]))

    def sample(self, index: int, rng: np.random.Generator) -> PoseCrop:
        """The crop of a number, drawn by a generator."""
        return self._draw(index, np.random.default_rng([self.seed, 0, index]) if self.fixed else rng)

    def collate(self, crops: Sequence[PoseCrop]) -> PoseCropBatch:
        """A batch; see :func:`collate`."""
        return collate(crops)

    def _draw(self, index: int, rng: np.random.Generator) -> PoseCrop:
        return self.crops.draw(index % len(self.crops), rng, self._choose)

    def _choose(
        self, rng: np.random.Generator, query_pose: Float[Tensor, "4 4"], poses: Float[Tensor, "n 4 4"]
    ) -> tuple[Int[Tensor, " t"], Int[Tensor, " t"]]:
        selector = self.selector
        query, views = view_direction(query_pose[:3, :3]), view_direction(poses[:, :3, :3])
        far = int((angle_between(query, views) >= selector.min_negative_angle).sum())
        if far < selector.num_negatives:
            selector = copy(selector)
            selector.num_positives += selector.num_negatives - far
            selector.num_negatives = far
        generator = torch.Generator().manual_seed(int(rng.integers(2**63)))
        chosen = selector(query_pose, poses, generator=generator)
        return chosen.indices, chosen.types
