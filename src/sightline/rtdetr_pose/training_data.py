"""What a run of the room learns from, by name: the closed set, BOP's scenes, COCO's pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from sightline.formats.bop_dataset import BopDataset
from sightline.formats.coco import CocoDataset
from sightline.rtdetr_pose.augmentation import PoseAugmentation, PoseAugmentationSettings
from sightline.rtdetr_pose.data import PoseScenes
from sightline.rtdetr_pose.pictures import (
    BopPictures,
    CocoPictures,
    GeneratedPictures,
    LabelledPicture,
    ObjectClass,
    PictureSource,
    classes_of_objects,
)
from sightline.synthetic.closed_set import WANTED_VIEWS, closed_set_composites, closed_set_objects
from sightline.synthetic.pose_composites import CompositeSettings, PoseComposites

_REPEATED = 7  # keeps repeated pictures apart from all other random numbers

DataKind = Literal["closed-set", "bop", "coco"]


@dataclass(frozen=True, kw_only=True)
class PoseSceneData:
    """What a run learns from and is judged on.

    Args:
        kind: ``closed-set`` for generated pictures of the exam's five objects, ``bop`` for a data set in
            BOP's layout, ``coco`` for boxes alone.
        folder: where drawn views are kept between runs; in memory unless given.
        root: of ``bop`` the data set's folder; of ``coco`` the pictures' folder, that of ``labels`` unless
            given.
        split: of ``bop``.
        validation_split: of ``bop``; the model is judged on some pictures of ``split`` unless given.
        labels: of ``coco``, the JSON file of the training pictures.
        validation_labels: of ``coco``; of the training pictures unless given.
        obj_ids: of ``bop``, the objects that are classes; all unless given.
        image_size: ``(width, height)`` of the network's pictures, multiples of 32.
        epoch_length: pictures of an epoch, of generated ones.
        num_validation: pictures that the model is judged on.
        share: of the training pictures that is used, for studies; of generated ones so many different ones.
        num_views: drawn views of each of the closed set's objects.
        num_others: objects of the closed set's pictures that are not wanted.
        num_backdrops: likewise, pictures of walls and tables.
        composites: what generated pictures are like; their size is ``image_size``.
        augmentation: of look and place; that of generated pictures leaves the place.

    Raises:
        ValueError: an unknown kind, or one without its folder.
    """

    kind: DataKind | str = "closed-set"
    folder: str | Path | None = None
    root: str | Path | None = None
    split: str = "train_pbr"
    validation_split: str | None = None
    labels: str | Path | None = None
    validation_labels: str | Path | None = None
    obj_ids: tuple[int, ...] | None = None
    image_size: tuple[int, int] = (256, 192)
    epoch_length: int = 20_000
    num_validation: int = 160
    share: float = 1.0
    num_views: int = WANTED_VIEWS.num_queries
    num_others: int = 40
    num_backdrops: int = 200
    composites: CompositeSettings = field(default_factory=CompositeSettings)
    augmentation: PoseAugmentationSettings | None = None

    def __post_init__(self) -> None:
        """Check what belongs together."""
        if self.kind not in get_args(DataKind):
            raise ValueError(f"kind: expected one of {', '.join(get_args(DataKind))}, got {self.kind!r}")
        if self.kind == "bop" and self.root is None:
            raise ValueError("root: expected the folder of the bop data, got none")
        if self.kind == "coco" and self.labels is None:
            raise ValueError("labels: expected the JSON file of the coco data, got none")
        if not 0 < self.share <= 1:
            raise ValueError(f"share: expected a share in (0, 1], got {self.share}")

    @cached_property
    def classes(self) -> Sequence[ObjectClass]:
        """What the model shall know, in the order of its labels."""
        if self.kind == "closed-set":
            return classes_of_objects(closed_set_objects())
        return self.source.classes

    def training(self) -> PoseScenes:
        """New pictures in every epoch, or those of the data set in another look."""
        settings = self.augmentation
        if settings is None:
            generated = self.kind == "closed-set"
            settings = PoseAugmentationSettings.of_generated() if generated else PoseAugmentationSettings()
        source: PictureSource = self.source
        return PoseScenes(source, self.image_size, augmentation=PoseAugmentation(settings))

    def validation(self) -> PoseScenes:
        """The same pictures in every epoch."""
        if self.kind == "closed-set":
            source: PictureSource = GeneratedPictures(self._composites("development"), self.num_validation)
        elif self.kind == "bop":
            source = self._bop(self.validation_split or self.split)
        else:
            source = self._coco(self.validation_labels or self.labels)
        return PoseScenes(_Some(source, self.num_validation), self.image_size, fixed=True, seed=1)

    @cached_property
    def source(self) -> PictureSource:
        """The training pictures, before augmentation."""
        if self.kind == "closed-set":
            source: PictureSource = GeneratedPictures(self._composites("train"), self.epoch_length)
            return source if self.share == 1 else _Repeated(source, round(self.share * self.epoch_length))
        source = self._bop(self.split) if self.kind == "bop" else self._coco(self.labels)
        return source if self.share == 1 else _Some(source, max(round(self.share * len(source)), 1))

    def _composites(self, split: str) -> PoseComposites:
        return closed_set_composites(
            self.folder,
            split=split,
            settings=replace(self.composites, image_size=tuple(self.image_size)),
            views=replace(WANTED_VIEWS, num_queries=self.num_views),
            num_others=self.num_others,
            num_backdrops=self.num_backdrops,
        )

    def _bop(self, split: str) -> BopPictures:
        return BopPictures(BopDataset(Path(str(self.root)), split), obj_ids=self.obj_ids)

    def _coco(self, labels: str | Path | None) -> CocoPictures:
        return CocoPictures(CocoDataset(Path(str(labels)), self.root))


class _Some:
    """So many pictures of a source, spread over it."""

    def __init__(self, source: PictureSource, count: int) -> None:
        self.source, self.classes = source, source.classes
        self._numbers = np.linspace(0, len(source) - 1, min(count, len(source))).round().astype(int)

    def __len__(self) -> int:
        return len(self._numbers)

    def draw(self, number: int, rng: np.random.Generator) -> LabelledPicture:
        return self.source.draw(int(self._numbers[number]), rng)


class _Repeated:
    """So many generated pictures, each always the same."""

    def __init__(self, source: PictureSource, count: int) -> None:
        self.source, self.classes, self._count = source, source.classes, max(count, 1)

    def __len__(self) -> int:
        return len(self.source)

    def draw(self, number: int, rng: np.random.Generator) -> LabelledPicture:
        which = number % self._count
        return self.source.draw(which, np.random.default_rng([_REPEATED, which]))
