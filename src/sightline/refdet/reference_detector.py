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
from torch import Tensor

from sightline.formats.refdet_templates import TemplatePicture
from sightline.geometry import pixel_affine
from sightline.geometry.boxes import clip
from sightline.nn.checkpoint import load_weights, read_config
from sightline.objects.card import ObjectCard
from sightline.objects.feature_cache import cached_features
from sightline.records import Detections
from sightline.refdet.bank import TemplateBank
from sightline.refdet.data import load_templates
from sightline.refdet.decode import decode_maps
from sightline.refdet.detector import ConvNeXtRefDet
from sightline.refdet.framing import prepare_search, transform_boxes

SEARCH_SIZE, TEMPLATE_SIZE = (1024, 576), (256, 256)


@dataclass(frozen=True)
class DetectorSettings:
    """How a picture is searched.

    Args:
        search_size: ``(width, height)`` pixels into which a picture is fitted, its aspect ratio kept.
        template_size: ``(width, height)`` pixels of a template.
        score_threshold: detections below it are not reported.
        max_detections: of one object in one picture.

    Raises:
        ValueError: a size or threshold that cannot be.

    Example:
        >>> DetectorSettings(search_size=(640, 360)).score_threshold
        0.3
    """

    search_size: tuple[int, int] = SEARCH_SIZE
    template_size: tuple[int, int] = TEMPLATE_SIZE
    score_threshold: float = 0.3
    max_detections: int = 100

    def __post_init__(self) -> None:
        for name in ("search_size", "template_size"):
            size = getattr(self, name)
            if len(size) != 2 or min(size) < 32:
                raise ValueError(f"{name}: expected (width, height) of at least 32 px, got {size}")
        if not 0 <= self.score_threshold <= 1:
            raise ValueError(f"score_threshold: expected a number in [0, 1], got {self.score_threshold}")


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

    @torch.inference_mode()
    def detect(
        self,
        image: np.ndarray,
        banks: Mapping[str, TemplateBank],
        *,
        score_threshold: float | None = None,
        max_instances: int | None = None,
    ) -> Detections:
        """Find every instance of every object in a picture; the picture is encoded once.

        Args:
            image: ``(h, w, 3)`` uint8 RGB, of any size.
            banks: the objects by name.
            score_threshold: least score; that of the settings unless given.
            max_instances: of one object, likewise.

        Returns:
            Boxes in pixels of the picture, within it, the surest first.
        """
        size = (image.shape[1], image.shape[0])
        threshold = self.settings.score_threshold if score_threshold is None else score_threshold
        prepared = prepare_search(image, self.settings.search_size)
        features = self.model.search_features(prepared.picture[None].to(self.device))
        image_from_search = pixel_affine.invert(prepared.search_from_image)
        boxes, scores, names = [], [], []
        for name, bank in banks.items():
            found = decode_maps(
                self.model.match(features, bank),
                score_threshold=threshold,
                max_detections=max_instances or self.settings.max_detections,
            )
            kept = found.valid[0].cpu()
            own = transform_boxes(found.boxes[0].cpu().double()[kept], image_from_search)
            boxes.append(clip(own, size))
            scores.append(found.scores[0].cpu().double()[kept])
            names += [name] * int(kept.sum())
        if not banks:
            return Detections(torch.zeros(0, 4), torch.zeros(0), (), size)
        order = torch.cat(scores).argsort(descending=True, stable=True)
        return Detections(
            torch.cat(boxes)[order].clone(),
            torch.cat(scores)[order].clone(),
            tuple(names[i] for i in order.tolist()),
            size,
        )


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
