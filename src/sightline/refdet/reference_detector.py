"""Finds objects in pictures by their banks: pictures of any size in, records out."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from sightline.formats.refdet_templates import TemplatePicture
from sightline.geometry import pixel_affine
from sightline.nn.checkpoint import load_weights, read_config
from sightline.objects.card import ObjectCard
from sightline.objects.feature_cache import cached_features
from sightline.records import Detections
from sightline.refdet.bank import TemplateBank
from sightline.refdet.data import load_templates
from sightline.refdet.decode import decode_maps
from sightline.refdet.detector import ConvNeXtRefDet
from sightline.refdet.framing import prepare_search, transform_boxes
from sightline.refdet.selection import Proposals, select
from sightline.refdet.tiling import Tiles, check_tiles, find_cut, merge_regions, plan_regions

SEARCH_SIZE, TEMPLATE_SIZE = (1024, 576), (256, 256)


@dataclass(frozen=True)
class DetectorSettings:
    """How a picture is searched.

    Args:
        search_size: ``(width, height)`` pixels into which a picture is fitted, its aspect ratio kept.
        template_size: ``(width, height)`` pixels of a template.
        score_threshold: detections below it are not reported.
        max_detections: of one object in one picture.
        tiles: whether large pictures are searched in parts too (:mod:`sightline.refdet.tiling`): ``off``,
            ``auto`` for the picture's own resolution, or how many lie along its limiting side.
        tile_overlap: of neighbouring tiles, at least, in shares of a tile.
        batch_size: how many tiles are searched at once.
        rival_iou: above which overlap different objects compete for one place; None lets them share it.
        negative_iou: from which overlap a look-alike explains an object.

    Raises:
        ValueError: a size, threshold or number that cannot be.

    Example:
        >>> DetectorSettings(search_size=(640, 360)).score_threshold
        0.3
    """

    search_size: tuple[int, int] = SEARCH_SIZE
    template_size: tuple[int, int] = TEMPLATE_SIZE
    score_threshold: float = 0.3
    max_detections: int = 100
    tiles: Tiles | str = "off"
    tile_overlap: float = 0.2
    batch_size: int = 4
    rival_iou: float | None = 0.7
    negative_iou: float = 0.5

    def __post_init__(self) -> None:
        for name in ("search_size", "template_size"):
            size = getattr(self, name)
            if len(size) != 2 or min(size) < 32:
                raise ValueError(f"{name}: expected (width, height) of at least 32 px, got {size}")
        if not 0 <= self.score_threshold <= 1:
            raise ValueError(f"score_threshold: expected a number in [0, 1], got {self.score_threshold}")
        if self.batch_size < 1:
            raise ValueError(f"batch_size: expected at least 1, got {self.batch_size}")
        for name in ("rival_iou", "negative_iou"):
            share = getattr(self, name)
            if share is not None and not 0 < share <= 1:
                raise ValueError(f"{name}: expected a share in (0, 1], got {share}")
        check_tiles(self.tiles, self.tile_overlap)


class ReferenceDetector:
    """A detector with its model and settings; banks are made once for an object and given with each picture.

    Args:
        model: the network.
        settings: how pictures are searched.
        device: where it runs.
        name: of the weights, for people.

    Example:
        >>> model = ConvNeXtRefDet(16, 8, 16, backbone="nano", detection_stride=8)
        >>> detector = ReferenceDetector(model, DetectorSettings((96, 64), (64, 64)))
        >>> picture = np.full((60, 80, 3), 90, np.uint8)
        >>> banks = {"mug": detector.onboard([TemplatePicture(picture)])}
        >>> detector.detect(picture, banks).image_size
        (80, 60)
    """

    def __init__(
        self,
        model: ConvNeXtRefDet,
        settings: DetectorSettings | None = None,
        *,
        device: str | torch.device = "cpu",
        name: str = "untrained",
    ) -> None:
        self.model = model.to(device).eval()
        self.settings = settings or DetectorSettings()
        self.device, self.name = torch.device(device), name

    @classmethod
    def from_checkpoint(
        cls,
        path: str | Path,
        settings: DetectorSettings | None = None,
        *,
        device: str | torch.device = "cpu",
    ) -> ReferenceDetector:
        """A detector of a file of weights, whose own sizes are taken unless settings are given.

        Args:
            path: a ``.safetensors`` file of a :class:`ConvNeXtRefDet`.
            settings: how pictures are searched.
            device: where it runs.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it holds another model, or foreign keys, which are listed.
        """
        stored = read_config(path)
        if stored.kind != ConvNeXtRefDet.__name__:
            raise ValueError(f"{path}: expected weights of a {ConvNeXtRefDet.__name__}, got a {stored.kind}")
        model = ConvNeXtRefDet(**stored.config)
        load_weights(model, path)
        return cls(model, settings or _settings_of(stored.extra), device=device, name=Path(path).stem)

    @cached_property
    def fingerprint(self) -> str:
        """What tells these weights from all others: features that a card keeps are of one fingerprint."""
        digest = hashlib.sha256(json.dumps(self.model.config, sort_keys=True).encode())
        for name, tensor in sorted(self.model.state_dict().items()):
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()[:16]

    @torch.inference_mode()
    def onboard(
        self,
        templates: str | Path | Sequence[str | Path | TemplatePicture],
        *,
        require_mask: bool = False,
    ) -> TemplateBank:
        """Encode the pictures of one object, once.

        Args:
            templates: a folder, files, or pictures with mask or box.
            require_mask: whether a picture without mask and box is refused.

        Raises:
            FileNotFoundError: a file is not there.
            ValueError: no templates, a damaged or black one, an empty mask.
        """
        pictures, masks = load_templates(templates, self.settings.template_size, require_mask=require_mask)
        return self.model.encode_templates(pictures.to(self.device), masks.to(self.device))

    def onboard_card(self, card: ObjectCard, *, max_templates: int = 42) -> TemplateBank:
        """The bank of a card, computed once and kept with it.

        Args:
            card: the object.
            max_templates: so many views, spread evenly over the card's.
        """
        chosen = _spread(len(card.templates), max_templates)
        width, height = self.settings.template_size
        key = f"refdet-{self.fingerprint}-{width}x{height}-{len(chosen)}"

        def compute() -> dict[str, Tensor]:
            views = [card.templates[i] for i in chosen]
            pictures = [TemplatePicture(v.color.numpy(), v.mask.numpy()) for v in views]
            return self.onboard(pictures).to("cpu").to_tensors()

        tensors = cached_features(card, key, compute)
        return TemplateBank.from_tensors(tensors).to(self.device)

    def detect(
        self,
        image: np.ndarray,
        banks: Mapping[str, TemplateBank],
        *,
        negatives: Sequence[TemplateBank] = (),
        score_threshold: float | None = None,
        max_instances: int | None = None,
        region: Float[Tensor, "4"] | None = None,
    ) -> Detections:
        """Find every instance of every object in a picture; the picture is encoded once.

        Args:
            image: ``(h, w, 3)`` uint8 RGB, of any size.
            banks: the objects by name.
            negatives: look-alikes of any of them: what a look-alike explains better is not reported.
            score_threshold: least score; that of the settings unless given.
            max_instances: of one object, likewise.
            region: ``(4,)`` xyxy pixels, the only part that is searched; see :meth:`propose`.

        Returns:
            Boxes in pixels of the picture, within it, the surest first.
        """
        proposals = self.propose(
            image, [*banks.values(), *negatives], score_threshold=score_threshold, region=region
        )
        return select(
            dict(zip(banks, proposals, strict=False)),
            (image.shape[1], image.shape[0]),
            negatives=proposals[len(banks) :],
            negative_iou=self.settings.negative_iou,
            rival_iou=self.settings.rival_iou,
            max_instances=max_instances or self.settings.max_detections,
        )

    @torch.inference_mode()
    def propose(
        self,
        image: np.ndarray,
        banks: Sequence[TemplateBank],
        *,
        score_threshold: float | None = None,
        scale: float = 1.0,
        region: Float[Tensor, "4"] | None = None,
    ) -> list[Proposals]:
        """Where each of some objects may be, whatever the others are.

        Args:
            image: ``(h, w, 3)`` uint8 RGB, of any size.
            banks: the objects.
            score_threshold: least score; that of the settings unless given.
            scale: of the network's picture, 2 for one of twice the width and height.
            region: ``(4,)`` xyxy pixels, the only part that is searched, without tiles; what its borders cut
                off is left out.

        Returns:
            The proposals of each bank.
        """
        settings, size = self.settings, (image.shape[1], image.shape[0])
        threshold = settings.score_threshold if score_threshold is None else score_threshold
        regions = plan_regions(size, settings.search_size, settings.tiles, overlap=settings.tile_overlap)
        if region is not None:
            regions = region[None].double()
        by_bank = self._search(image, regions, banks, threshold, scale)
        if region is not None:
            own = [regions.expand(len(found.scores), 4) for found, _ in by_bank]
            return [
                found.select(~find_cut(found.boxes, where, size, settings.search_size))
                for (found, _), where in zip(by_bank, own, strict=True)
            ]
        if len(regions) == 1:
            return [found for found, _ in by_bank]
        return [merge_regions(found, where, regions, size, settings.search_size) for found, where in by_bank]

    def _search(
        self,
        image: np.ndarray,
        regions: Float[Tensor, "regions 4"],
        banks: Sequence[TemplateBank],
        threshold: float,
        scale: float,
    ) -> list[tuple[Proposals, Tensor]]:
        """Each bank's proposals in all regions, in batches of these, and in which region each was found."""
        width, height = (max(round(side * scale), 32) for side in self.settings.search_size)
        found: list[list[Proposals]] = [[] for _ in banks]
        for chunk in regions.split(self.settings.batch_size):
            prepared = [prepare_search(image, (width, height), region=each) for each in chunk]
            pictures = torch.stack([each.picture for each in prepared])
            features = self.model.search_features(pictures.to(self.device))
            for index, bank in enumerate(banks):
                decoded = decode_maps(
                    self.model.match(features, bank),
                    score_threshold=threshold,
                    max_detections=self.settings.max_detections,
                )
                for i, each in enumerate(prepared):
                    kept = decoded.valid[i].cpu()
                    boxes = decoded.boxes[i].cpu().double()[kept]
                    boxes = transform_boxes(boxes, pixel_affine.invert(each.search_from_image))
                    found[index].append(Proposals(boxes, decoded.scores[i].cpu().double()[kept]))
        return [
            (
                Proposals.concatenate(parts),
                torch.repeat_interleave(
                    torch.arange(len(parts)), torch.tensor([len(p.scores) for p in parts])
                ),
            )
            for parts in found
        ]


def _spread(count: int, most: int) -> list[int]:
    if count <= most:
        return list(range(count))
    return [round(i * (count - 1) / (most - 1)) for i in range(most)]


def _settings_of(extra: Mapping[str, Any]) -> DetectorSettings:
    """The settings that a file of weights was trained for, as far as it says."""
    default = DetectorSettings()
    return DetectorSettings(
        search_size=tuple(extra.get("search_size", default.search_size)),
        template_size=tuple(extra.get("template_size", default.template_size)),
        score_threshold=float(extra.get("score_threshold", default.score_threshold)),
    )
