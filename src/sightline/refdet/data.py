"""Samples of reference detection: from folders to batches.

A sample is one picture, the templates of one object, and the boxes of all that object's instances (none where
it is absent). What cannot be read is a `FileFault` in its sample's place; `collate` passes the rest on.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple, TypedDict

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.utils.data import Dataset

from sightline.formats.image_stream import FileFault
from sightline.formats.refdet_folder import RefDetFolder
from sightline.formats.refdet_templates import TemplatePicture, pictures_without_masks, read_template
from sightline.refdet.framing import PreparedTemplate, prepare_search, prepare_template, transform_boxes


class RefDetItem(NamedTuple):
    """One sample, ready for the network.

    Args:
        name: of the sample.
        object_id: what is asked for.
        search: ``(3, H, W)`` float32 RGB in [0, 1].
        templates: ``(n, 3, h, w)`` float32 RGB in [0, 1].
        template_masks: ``(n, h, w)`` float32 in [0, 1].
        boxes: ``(k, 4)`` float32 xyxy pixels of the search picture; none where the object is absent.
        search_from_image: ``(2, 3)`` float64, from the picture in its file.
        looks: ``(2, 3, s, s)`` crops as of a second look: at the object, and at its look-alike; None where
            there are none.
    """

    name: str
    object_id: str
    search: Float[Tensor, "3 H W"]
    templates: Float[Tensor, "n 3 h w"]
    template_masks: Float[Tensor, "n h w"]
    boxes: Float[Tensor, "k 4"]
    search_from_image: Float[Tensor, "2 3"]
    looks: Float[Tensor, "2 3 s s"] | None = None


class RefDetBatch(TypedDict):
    """A batch for training.

    Keys:
        search: ``(B, 3, H, W)`` float32 RGB in [0, 1].
        templates: ``(B, N, 3, h, w)`` float32 RGB in [0, 1], zeros where ``template_valid`` is False.
        template_masks: ``(B, N, h, w)`` float32 in [0, 1].
        template_valid: ``(B, N)`` bool.
        boxes: B tensors ``(n_i, 4)`` float32 xyxy pixels of ``search``.
        present: ``(B,)`` bool, whether there is a box.
        search_from_image: ``(B, 2, 3)`` float64.
        looks: ``(B, 2, 3, s, s)``; None unless all samples have them.
        names: of the samples.
        object_ids: what each asks for.
        faults: what was left out of the batch, in words.
    """

    search: Float[Tensor, "B 3 H W"]
    templates: Float[Tensor, "B N 3 h w"]
    template_masks: Float[Tensor, "B N h w"]
    template_valid: Bool[Tensor, "B N"]
    boxes: list[Tensor]
    present: Bool[Tensor, " B"]
    search_from_image: Float[Tensor, "B 2 3"]
    looks: Float[Tensor, "B 2 3 s s"] | None
    names: list[str]
    object_ids: list[str]
    faults: list[str]


class RefDetDataset(Dataset):
    """The samples of a folder.

    Args:
        folder: as read.
        search_size: ``(width, height)`` of the network's picture.
        template_size: ``(width, height)`` of its templates.
        num_templates: how many of the object's templates a sample gets at most; None for all.
        shuffle: whether templates are drawn anew for each epoch, instead of spread over all by name.
        margin: around the object in a template, in shares of its longer side.
        seed: of the draw.

    Raises:
        ValueError: a number of templates below 1.
    """

    def __init__(
        self,
        folder: RefDetFolder,
        *,
        search_size: tuple[int, int] = (1024, 576),
        template_size: tuple[int, int] = (256, 256),
        num_templates: int | None = 3,
        shuffle: bool = False,
        margin: float = 0.1,
        seed: int = 0,
    ) -> None:
        if num_templates is not None and num_templates < 1:
            raise ValueError(f"num_templates: expected at least 1, or None for all; got {num_templates}")
        self.folder, self.search_size, self.template_size = folder, search_size, template_size
        self.num_templates, self.shuffle, self.margin, self.seed = num_templates, shuffle, margin, seed
        self.epoch = 0
        self._prepared = lru_cache(maxsize=512)(self._prepare)

    def __len__(self) -> int:
        return len(self.folder.samples)

    def __getstate__(self) -> dict:
        """Workers get the data set without what it remembers, which cannot be pickled."""
        return {key: value for key, value in self.__dict__.items() if key != "_prepared"}

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state)
        self._prepared = lru_cache(maxsize=512)(self._prepare)

    def set_epoch(self, epoch: int) -> None:
        """Choose which draw of templates is next."""
        self.epoch = epoch

    def __getitem__(self, index: int) -> RefDetItem | FileFault:
        """One sample, or the file of it that cannot be read."""
        index = range(len(self))[index]
        sample = self.folder.samples[index]
        path = sample.image if isinstance(sample.image, Path) else Path(sample.name)
        try:
            search, affine = prepare_search(sample.read_image(), self.search_size)
            templates = []
            for path in self._choose(sample.object_id, index):
                templates.append(self._prepared(path))
        except (OSError, ValueError) as error:
            reason = str(error)
            return FileFault(path, reason if str(path) in reason else f"{path}: {reason}")
        return RefDetItem(
            sample.name,
            sample.object_id,
            search,
            torch.stack([template.picture for template in templates]),
            torch.stack([template.mask for template in templates]),
            transform_boxes(sample.boxes, affine).float(),
            affine,
        )

    def _prepare(self, path: Path) -> PreparedTemplate:
        return prepare_template(read_template(path), self.template_size, margin=self.margin)

    def _choose(self, object_id: str, index: int) -> list[Path]:
        paths = self.folder.templates[object_id]
        count = len(paths) if self.num_templates is None else min(self.num_templates, len(paths))
        if self.shuffle:
            rng = np.random.default_rng([self.seed, self.epoch, index])
            return [paths[place] for place in rng.permutation(len(paths))[:count]]
        return [paths[place] for place in np.linspace(0, len(paths) - 1, count).round().astype(int)]


def collate(items: Sequence[RefDetItem | FileFault]) -> RefDetBatch:
    """Stack samples to a batch, with as many templates as the sample with the most has.

    Args:
        items: samples of one size; faults among them are left out and named in the batch.

    Returns:
        The batch.

    Raises:
        ValueError: there is no sample among the items.

    Example:
        >>> item = RefDetItem("a", "mug", torch.zeros(3, 8, 8), torch.zeros(2, 3, 4, 4), torch.ones(2, 4, 4),
        ...                   torch.zeros(0, 4), torch.eye(3).double()[:2])
        >>> batch = collate([item, item._replace(templates=torch.zeros(1, 3, 4, 4))])
        >>> batch["template_valid"].tolist(), batch["present"].tolist()
        ([[True, True], [True, False]], [False, False])
    """
    faults = [item.reason for item in items if isinstance(item, FileFault)]
    good = [item for item in items if isinstance(item, RefDetItem)]
    if not good:
        raise ValueError(
            f"items: expected at least one sample that can be read; {'; '.join(faults) or 'none came'}"
        )
    counts = [len(item.templates) for item in good]
    most = max(counts)
    valid = torch.arange(most)[None] < torch.tensor(counts)[:, None]
    looks = [item.looks for item in good if item.looks is not None]
    return RefDetBatch(
        search=torch.stack([item.search for item in good]),
        templates=_padded([item.templates for item in good], most),
        template_masks=_padded([item.template_masks for item in good], most),
        template_valid=valid,
        boxes=[item.boxes for item in good],
        present=torch.tensor([len(item.boxes) > 0 for item in good]),
        search_from_image=torch.stack([item.search_from_image for item in good]),
        looks=torch.stack(looks) if len(looks) == len(good) else None,
        names=[item.name for item in good],
        object_ids=[item.object_id for item in good],
        faults=faults,
    )


def _padded(stacks: Sequence[Tensor], count: int) -> Tensor:
    out = stacks[0].new_zeros(len(stacks), count, *stacks[0].shape[1:])
    for row, stack in zip(out, stacks, strict=True):
        row[: len(stack)] = stack[:count]
    return out


def load_templates(
    source: str | Path | Sequence[str | Path | TemplatePicture],
    template_size: tuple[int, int],
    *,
    margin: float = 0.1,
    require_mask: bool = False,
) -> tuple[Float[Tensor, "n 3 h w"], Float[Tensor, "n h w"]]:
    """Templates of one object for the network, from a folder, files, or pictures.

    Args:
        source: a folder with the object's pictures, one file, or a sequence of files and pictures.
        template_size: ``(width, height)`` pixels.
        margin: around the object, in shares of its longer side.
        require_mask: whether a template without mask and box is refused.

    Returns:
        ``(n, 3, h, w)`` pictures and ``(n, h, w)`` masks, as :func:`prepare_template` makes them.

    Raises:
        FileNotFoundError: a file is not there.
        ValueError: no templates, a damaged or black one, or one without mask where masks are required.

    Example:
        >>> picture = TemplatePicture(np.full((60, 80, 3), 9, np.uint8))
        >>> load_templates([picture, picture], (32, 32))[0].shape
        torch.Size([2, 3, 32, 32])
    """
    prepared = []
    for where, template in _named_templates(source, require_mask):
        try:
            prepared.append(prepare_template(template, template_size, margin=margin))
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from error
    return torch.stack([each.picture for each in prepared]), torch.stack([each.mask for each in prepared])


def open_templates(
    source: str | Path | Sequence[str | Path | TemplatePicture], *, require_mask: bool = False
) -> list[TemplatePicture]:
    """The pictures of one object as they are, with what is known of where in them it is.

    Args:
        source: a folder with the object's pictures, one file, or a sequence of files and pictures.
        require_mask: whether a picture without mask and box is refused.

    Raises:
        FileNotFoundError: a file is not there.
        ValueError: no pictures, a damaged one, or one without mask where masks are required.

    Example:
        >>> picture = TemplatePicture(np.full((60, 80, 3), 9, np.uint8))
        >>> open_templates([picture])[0] is picture
        True
    """
    return [template for _, template in _named_templates(source, require_mask)]


def _named_templates(
    source: str | Path | Sequence[str | Path | TemplatePicture], require_mask: bool
) -> Iterator[tuple[str, TemplatePicture]]:
    """Each template, and what it is called in complaints."""
    if isinstance(source, str | Path):
        place = Path(source)
        source = pictures_without_masks(place) if place.is_dir() else [place]
        if not source:
            raise ValueError(f"{place}: expected pictures of the object, there are none")
    if not source:
        raise ValueError("templates: expected at least one picture of the object, got none")
    for index, each in enumerate(source):
        where = f"templates[{index}]" if isinstance(each, TemplatePicture) else str(each)
        template = each if isinstance(each, TemplatePicture) else read_template(each)
        if require_mask and template.mask is None and template.box is None:
            raise ValueError(
                f"{where}: expected a mask or box of the object beside the picture, there is none"
            )
        yield where, template
