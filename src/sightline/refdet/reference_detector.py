"""Finds objects in pictures by their banks: pictures of any size in, records out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
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
from sightline.nn.fingerprint import weights_fingerprint
from sightline.objects.card import ObjectCard
from sightline.objects.feature_cache import cached_features
from sightline.refdet.bank import TemplateBank
from sightline.refdet.bank_detector import BankDetector, DetectorSettings, Templates
from sightline.refdet.card_views import choose_views
from sightline.refdet.data import load_templates
from sightline.refdet.decode import decode_maps
from sightline.refdet.detector import ConvNeXtRefDet
from sightline.refdet.framing import grown_to_frame, prepare_search, transform_boxes
from sightline.refdet.second_look import Looked, look_twice, own_likeness, rescored
from sightline.refdet.selection import Proposals, without_repeats
from sightline.refdet.tiling import find_cut, merge_regions, plan_regions
from sightline.training.processes import require_device

_WITHOUT_BANKS = ("rescoring", "refiner.")  # what is fitted when banks are made already


class ReferenceDetector(BankDetector[TemplateBank]):
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
        super().__init__(settings or DetectorSettings(), name)
        self.model = model.to(device).eval()
        self.device = torch.device(device)

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
            ValueError: it holds another model, or foreign keys, which are listed; or the device is not here.
        """
        try:
            require_device(str(device))
        except RuntimeError as error:  # a word that PyTorch does not know
            raise ValueError(f"device: expected cpu or cuda, got {device!r}") from error
        stored = read_config(path)
        if stored.kind != ConvNeXtRefDet.__name__:
            raise ValueError(f"{path}: expected weights of a {ConvNeXtRefDet.__name__}, got a {stored.kind}")
        model = ConvNeXtRefDet(**stored.config)
        load_weights(model, path)
        return cls(model, settings or _settings_of(stored.extra), device=device, name=Path(path).stem)

    @cached_property
    def fingerprint(self) -> str:
        """What tells the weights that make banks from all others: a card keeps banks of one fingerprint."""
        config = {name: value for name, value in self.model.config.items() if name != "refine_boxes"}
        return weights_fingerprint(self.model, config, without=_WITHOUT_BANKS)

    @torch.inference_mode()
    def onboard(
        self, templates: Templates, *, require_mask: bool = False, mirrored: bool = False
    ) -> TemplateBank:
        """Encode the pictures of one object, once.

        Args:
            templates: a folder, files, or pictures with mask or box.
            require_mask: whether a picture without mask and box is refused.
            mirrored: whether the object is encoded as in a mirror: what a mirrored picture is compared with.

        Raises:
            FileNotFoundError: a file is not there.
            ValueError: no templates, a damaged or black one, an empty mask.
        """
        pictures, masks = load_templates(templates, self.settings.template_size, require_mask=require_mask)
        if mirrored:
            pictures, masks = pictures.flip(-1), masks.flip(-1)
        return self._with_likeness(
            self.model.encode_templates(pictures.to(self.device), masks.to(self.device))
        )

    def onboard_card(
        self, card: ObjectCard, *, max_templates: int = 42, mirrored: bool = False
    ) -> TemplateBank:
        """The bank of a card, computed once and kept with it.

        Args:
            card: the object.
            max_templates: so many views, as :func:`~sightline.refdet.card_views.choose_views` chooses them.
            mirrored: whether the object is encoded as in a mirror.
        """
        chosen = choose_views(card, max_templates)
        width, height = self.settings.template_size
        key = f"refdet-{self.fingerprint}-{width}x{height}-{len(chosen)}{'-mirrored' * mirrored}"

        def compute() -> dict[str, Tensor]:
            views = [card.templates[i] for i in chosen]
            pictures = [TemplatePicture(v.color.numpy(), v.mask.numpy()) for v in views]
            return self.onboard(pictures, mirrored=mirrored).to("cpu").to_tensors()

        tensors = cached_features(card, key, compute)
        return self._with_likeness(TemplateBank.from_tensors(tensors).to(self.device))

    @torch.inference_mode()
    def _with_likeness(self, bank: TemplateBank) -> TemplateBank:
        """The bank with its own likeness, which those of earlier versions do not keep."""
        if bank.likeness is not None:
            return bank
        return replace(bank, likeness=own_likeness(self.model, bank))

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
            region: ``(4,)`` xyxy pixels, the only part that is searched, grown to the form of the network's
                picture and without tiles; what its borders cut off is left out.

        Returns:
            The proposals of each bank.
        """
        threshold = self.settings.score_threshold if score_threshold is None else score_threshold
        if self.settings.second_looks == 0 or bool(self.model.rescoring[3] == 0):
            once = self.look_once(image, banks, score_threshold=threshold, scale=scale, region=region)
            several = len(self.settings.search_scales) > 1
            return [without_repeats(found) for found in once] if several else once
        looked = self.look(image, banks, scale=scale, region=region)
        twice = [rescored(self.model, places) for places in looked]
        return [found.select(found.scores >= threshold) for found in twice]

    def look(
        self,
        image: np.ndarray,
        banks: Sequence[TemplateBank],
        *,
        scale: float = 1.0,
        region: Float[Tensor, "4"] | None = None,
    ) -> list[Looked]:
        """What both looks say of the best places of each object, before it becomes a score."""
        once = self.look_once(image, banks, score_threshold=0.0, scale=scale, region=region)
        return [self.look_twice(image, found, bank) for found, bank in zip(once, banks, strict=True)]

    def learn(self, rescoring: Float[Tensor, "5"]) -> None:
        """Take in how both looks are joined, of :func:`~sightline.refdet.second_look.fit_rescoring`."""
        self.model.rescoring.copy_(rescoring)

    @torch.inference_mode()
    def look_once(
        self,
        image: np.ndarray,
        banks: Sequence[TemplateBank],
        *,
        score_threshold: float,
        scale: float = 1.0,
        region: Float[Tensor, "4"] | None = None,
    ) -> list[Proposals]:
        """What the first look alone proposes for each object, once for each size of the picture."""
        settings, size = self.settings, (image.shape[1], image.shape[0])
        regions = plan_regions(size, settings.search_size, settings.tiles, overlap=settings.tile_overlap)
        if region is not None:
            regions = grown_to_frame(region, settings.search_size)[None]
        by_bank = self._search(image, regions, banks, score_threshold, scale)
        for other in settings.search_scales[1:]:
            again = self._search(image, regions[:1], banks, score_threshold, scale * other)
            by_bank = [
                (Proposals.concatenate([a, b]), torch.cat([where, in_first]))
                for (a, where), (b, in_first) in zip(by_bank, again, strict=True)
            ]
        if region is not None:
            own = [regions.expand(len(found.scores), 4) for found, _ in by_bank]
            return [
                found.select(~find_cut(found.boxes, where, size, settings.search_size))
                for (found, _), where in zip(by_bank, own, strict=True)
            ]
        if len(regions) == 1:
            return [found for found, _ in by_bank]
        return [merge_regions(found, where, regions, size, settings.search_size) for found, where in by_bank]

    @torch.inference_mode()
    def look_twice(self, image: np.ndarray, found: Proposals, bank: TemplateBank) -> Looked:
        """What both looks say of the best proposals of an object.

        Args:
            image: ``(h, w, 3)`` uint8 RGB.
            found: of the first look.
            bank: of the object.
        """
        settings = self.settings
        return look_twice(self.model, image, found, bank, settings.template_size, most=settings.second_looks)

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


def _settings_of(extra: Mapping[str, Any]) -> DetectorSettings:
    """The settings that a file of weights was trained for, as far as it says."""
    default = DetectorSettings()
    return DetectorSettings(
        search_size=tuple(extra.get("search_size", default.search_size)),
        template_size=tuple(extra.get("template_size", default.template_size)),
        score_threshold=float(extra.get("score_threshold", default.score_threshold)),
        search_scales=tuple(extra.get("search_scales", default.search_scales)),
    )
