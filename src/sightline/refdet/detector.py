"""The reference detector: templates of an object in, every place of a picture where it may be out.

    templates -> backbone, FPN at several sizes of the picture -> TemplateBank          (once for an object)
    picture   -> backbone, FPN -> LevelMatcher with the bank -> DetectionHead -> maps   (for every frame)

    places that it gives -> crops of the picture, and the bank -> second_look -> rescored      (for the best)

A detection level of stride s is matched at its own stride and at 2 s, where larger objects fit the kernels.
The second look is at crops of the templates' size, part by part: at one scale and at the picture's full
resolution, objects that look alike from afar are told apart.
Pictures come as RGB in [0, 1]; the model normalises them, sets template pixels outside the mask to the mean
colour, and pads to multiples of 32. Shapes: b pictures or objects, n templates, c pyramid channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from sightline.nn.backbones import BackboneName, ChannelNorm, build_backbone
from sightline.nn.fpn import FPN, STRIDES
from sightline.nn.pictures import IMAGENET_MEAN, IMAGENET_STD
from sightline.nn.pooling import area_pool
from sightline.refdet.bank import TemplateBank
from sightline.refdet.box_refinement import BoxRefiner
from sightline.refdet.decode import RefDetMaps, decode_predictions
from sightline.refdet.fusion import FusionType
from sightline.refdet.head import DetectionHead
from sightline.refdet.matching import LevelMatcher
from sightline.refdet.prototypes import part_validity

_MULTIPLE = 32


class RefDetOutput(NamedTuple):
    """Logits ``(b, 1, h, w)`` and raw boxes ``(b, 4, h, w)``; tuples of maps if there are several levels."""

    objectness: Tensor | tuple[Tensor, ...]
    bbox: Tensor | tuple[Tensor, ...]


class SearchFeatures(NamedTuple):
    """A picture's pyramid by stride, and its ``(width, height)``; serves any number of banks."""

    levels: dict[int, Tensor]
    image_size: tuple[int, int]


class ConvNeXtRefDet(nn.Module):
    """Detects an object that it knows from templates alone.

    Args:
        fpn_channels: channels of the pyramid.
        corr_channels: channels of the depthwise correlation.
        det_channels: channels of the head.
        template_fusion: ``attention`` or ``average``.
        backbone: ``tiny``, ``small``, ``base`` of ConvNeXt, or ``nano``.
        detection_stride: 4 for small objects, 8 for a quarter of the cost, ``(8, 16)`` for two levels that
            share the work between small and large objects.
        template_scales: sizes at which the templates are encoded, as shares of the given one.
        descriptor_channels: length of the prototypes.
        grid: cells of a template on a side, each with its prototype.
        kernel_size: cells of the correlation's kernel on a side, odd.
        num_head_convs: convolutions that objectness and boxes share.
        head_dropout: share of channels dropped in the head in training.
        separable_head: depthwise and pointwise convolutions in the head; full 3x3 ones otherwise.
        drop_path_rate: of the backbone.
        late_strides: levels whose cells are compared in the second look: those of them that the pyramid has,
            or else its finest.
        refine_boxes: whether the second look also says boxes, which must have been learned.

    Example:
        >>> model = ConvNeXtRefDet(16, 8, 16, backbone="nano", detection_stride=8).eval()
        >>> bank = model.encode_templates(torch.rand(3, 3, 64, 64))
        >>> maps = model.detect_maps(torch.rand(2, 3, 96, 128), bank)
        >>> maps.objectness[0].shape, maps.boxes[0].shape
        (torch.Size([2, 1, 12, 16]), torch.Size([2, 4, 12, 16]))
    """

    mean: Tensor
    std: Tensor
    rescoring: Tensor

    def __init__(
        self,
        fpn_channels: int = 256,
        corr_channels: int = 64,
        det_channels: int = 256,
        template_fusion: FusionType | str = "attention",
        *,
        backbone: BackboneName | str = "tiny",
        detection_stride: int | Sequence[int] = 4,
        template_scales: Sequence[float] = (1.0, 0.5, 0.25),
        descriptor_channels: int = 64,
        grid: int = 3,
        kernel_size: int = 7,
        num_head_convs: int = 4,
        head_dropout: float = 0.0,
        separable_head: bool = True,
        drop_path_rate: float = 0.0,
        late_strides: Sequence[int] = (8, 16),
        refine_boxes: bool = False,
    ) -> None:
        super().__init__()
        detection = (detection_stride,) if isinstance(detection_stride, int) else tuple(detection_stride)
        if not detection or set(detection) - set(STRIDES) or list(detection) != sorted(set(detection)):
            raise ValueError(f"detection_stride must be of {STRIDES}, rising, got {detection_stride!r}")
        if not template_scales or min(template_scales) <= 0:
            raise ValueError(f"template_scales must be positive, got {tuple(template_scales)}")
        self.config: dict[str, Any] = {
            "fpn_channels": fpn_channels,
            "corr_channels": corr_channels,
            "det_channels": det_channels,
            "template_fusion": template_fusion,
            "backbone": backbone,
            "detection_stride": list(detection),
            "template_scales": list(template_scales),
            "descriptor_channels": descriptor_channels,
            "grid": grid,
            "kernel_size": kernel_size,
            "num_head_convs": num_head_convs,
            "head_dropout": head_dropout,
            "separable_head": separable_head,
            "drop_path_rate": drop_path_rate,
            "late_strides": list(late_strides),
            "refine_boxes": refine_boxes,
        }
        self.strides = detection
        self.template_scales = tuple(template_scales)
        self.grid = grid
        strides = sorted({s for d in detection for s in (d, 2 * d) if s in STRIDES})
        self.backbone = build_backbone(
            backbone, drop_path_rate=drop_path_rate, norm_strides=[s for s in STRIDES if s >= strides[0]]
        )
        self.fpn = FPN(self.backbone.channels, fpn_channels, strides=strides)
        self.late_strides = tuple(s for s in strides if s in late_strides) or (strides[0],)
        self.matchers = nn.ModuleDict(
            {
                str(s): LevelMatcher(
                    s,
                    fpn_channels,
                    corr_channels,
                    fusion=template_fusion,
                    kernel_size=kernel_size,
                    descriptor_channels=descriptor_channels,
                    grid=grid,
                    num_scales=len(self.template_scales),
                    detects=s in detection,
                )
                for s in strides
            }
        )
        similarity = self.matcher(strides[0]).similarity_channels
        self.fuse = nn.ModuleDict(
            {
                str(d): nn.Sequential(
                    nn.Conv2d(
                        2 * fpn_channels + similarity * (2 if 2 * d in STRIDES else 1), det_channels, 1
                    ),
                    ChannelNorm(det_channels),
                    nn.Hardswish(),
                )
                for d in detection
            }
        )
        self.head = DetectionHead(
            det_channels, num_convs=num_head_convs, dropout=head_dropout, separable=separable_head
        )
        self.refiner = BoxRefiner(self.late_strides, descriptor_channels) if refine_boxes else None
        self.log_sharpness = nn.Parameter(torch.tensor(2.5))  # of the cosines of the second look
        # log odds (second_look.fit_rescoring), which no training of the detector by gradients sees; by itself
        # the first look counts alone
        self.register_buffer("rescoring", torch.tensor([0.0, 0.0, 1.0, 0.0, 0.0]))
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(3, 1, 1), persistent=False)

    @property
    def stride(self) -> int:
        """The finest detection stride."""
        return self.strides[0]

    def extract_features(self, images: Float[Tensor, "b 3 h w"]) -> list[Tensor]:
        """The pyramid's levels of pictures, the finest first.

        Args:
            images: ``(b, 3, h, w)`` RGB in [0, 1].

        Returns:
            ``(b, c, ceil(h / s), ceil(w / s))`` for each stride that is matched, of the picture padded to
            multiples of 32.
        """
        return self.fpn(self.backbone(self._normalised(images)))

    def encode_templates(
        self,
        templates: Float[Tensor, "*b n 3 h w"],
        masks: Float[Tensor, "*b n h w"] | None = None,
        valid: Bool[Tensor, "*b n"] | None = None,
    ) -> TemplateBank:
        """The bank of one object or of several, each with any number of templates.

        Args:
            templates: ``(n, 3, h, w)`` of one object, or ``(b, n, 3, h, w)``: RGB in [0, 1], cut out around
                the object.
            masks: ``(n, h, w)`` or ``(b, n, h, w)`` in [0, 1], where the object is; everywhere if not given.
                What is outside has no influence.
            valid: ``(n,)`` or ``(b, n)`` which templates are real, the others being padding.

        Returns:
            The bank.

        Raises:
            ValueError: if there is no template, or one that is all zero or whose mask is empty.
        """
        if templates.ndim not in (4, 5) or templates.shape[-3] != 3 or templates.shape[-4] == 0:
            raise ValueError(
                "expected templates (n, 3, h, w) or (b, n, 3, h, w) with n >= 1, "
                f"got {tuple(templates.shape)}"
            )
        if templates.ndim == 4:
            templates = templates[None]
            masks, valid = (None if x is None else x[None] for x in (masks, valid))
        count = templates.shape[1]
        if masks is None:
            masks = torch.ones_like(templates[:, :, 0])
        if valid is None:
            valid = torch.ones(templates.shape[:2], dtype=torch.bool, device=templates.device)
        if not (torch.jit.is_tracing() or torch.compiler.is_compiling() or templates.is_meta):
            _refuse_empty(templates, masks, valid)
        images, shares = templates.flatten(0, 1), masks.flatten(0, 1)[:, None].to(templates.dtype)
        by_scale = [self._encode_at(images, shares, scale, count) for scale in self.template_scales]
        levels = {
            stride: self.matcher(stride).encode(
                [f[i] for f, _ in by_scale], [m[i] for _, m in by_scale], valid
            )
            for i, stride in enumerate(self.fpn.strides)
        }
        return TemplateBank(levels, part_validity(masks[:, :, None].to(templates.dtype), valid, self.grid))

    def search_features(self, search: Float[Tensor, "b 3 h w"]) -> SearchFeatures:
        """What of a picture does not depend on the object; worth keeping when several are looked for.

        Args:
            search: ``(b, 3, h, w)`` RGB in [0, 1].

        Returns:
            The features.
        """
        height, width = search.shape[-2:]
        levels = [
            level[..., : -(-height // s), : -(-width // s)]
            for s, level in zip(self.fpn.strides, self.extract_features(search), strict=True)
        ]
        return SearchFeatures(dict(zip(self.fpn.strides, levels, strict=True)), (width, height))

    def match(self, features: SearchFeatures, bank: TemplateBank) -> RefDetMaps:
        """Look for the objects of a bank in pictures.

        Args:
            features: of b pictures.
            bank: of b objects, one for each picture; of one object for all of them; or, with b = 1, of any
                number of objects.

        Returns:
            The maps, of the larger batch of the two.
        """
        pictures, objects = features.levels[self.stride].shape[0], bank.num_objects
        if pictures != objects and 1 not in (pictures, objects):
            raise ValueError(f"a bank of {objects} objects does not go with {pictures} pictures")
        evidence = {
            s: self.matcher(s)(features.levels[s], bank.levels[s], bank.part_valid) for s in self.fpn.strides
        }
        objectness, boxes, relevance = [], [], []
        for stride in self.strides:
            own, coarser = evidence[stride], evidence.get(2 * stride)
            parts = [own.features, own.similarity]
            if coarser is not None:
                size = own.similarity.shape[-2:]
                parts.append(
                    F.interpolate(coarser.similarity, size=size, mode="bilinear", align_corners=False)
                )
            logits, raw = self.head(self.fuse[str(stride)](torch.cat(parts, dim=1)))
            objectness.append(logits)
            boxes.append(raw)
            relevance.append(own.relevance)
        return RefDetMaps(
            tuple(objectness), tuple(boxes), self.strides, features.image_size, tuple(relevance)
        )

    def detect_maps(self, search: Float[Tensor, "b 3 h w"], bank: TemplateBank) -> RefDetMaps:
        """The maps of objectness and boxes; see :meth:`match` for what goes together.

        Args:
            search: ``(b, 3, h, w)`` RGB in [0, 1], of any size.
            bank: the objects.

        Returns:
            The maps.
        """
        return self.match(self.search_features(search), bank)

    def forward(
        self,
        templates: Float[Tensor, "*b n 3 th tw"] | Sequence[Tensor],
        search: Float[Tensor, "b 3 h w"],
        masks: Float[Tensor, "*b n th tw"] | None = None,
        valid: Bool[Tensor, "*b n"] | None = None,
    ) -> RefDetOutput:
        """Encode templates and look for them in one go, as training and tracing do.

        Args:
            templates: ``(b, n, 3, th, tw)``; a list of n tensors ``(b, 3, th, tw)``; or ``(n, 3, th, tw)`` of
                one object for all pictures. RGB in [0, 1].
            search: ``(b, 3, h, w)`` RGB in [0, 1].
            masks: where the object is in the templates.
            valid: which templates are real.

        Returns:
            Logits of objectness ``(b, 1, h / s, w / s)`` and raw boxes ``(b, 4, h / s, w / s)``, s the
            detection stride; tuples of maps if there are several levels.
        """
        if not isinstance(templates, Tensor):
            templates = torch.stack(list(templates), dim=1)
        maps = self.detect_maps(search, self.encode_templates(templates, masks, valid))
        if len(self.strides) == 1:
            return RefDetOutput(maps.objectness[0], maps.boxes[0])
        return RefDetOutput(maps.objectness, maps.boxes)

    def decode_predictions(
        self, objectness: Tensor, bbox: Tensor, score_threshold: float = 0.5, top_k: int = 1
    ) -> list[list[dict[str, Any]]]:
        """Dicts of detections from the two maps; see :func:`sightline.refdet.decode.decode_predictions`."""
        return decode_predictions(objectness, bbox, score_threshold, top_k, stride=self.stride)

    def freeze_backbone(self, frozen: bool = True) -> None:
        """Stop (or resume) the training of the backbone, the first stage of two.

        Args:
            frozen: whether to stop it.
        """
        self.backbone.requires_grad_(not frozen)

    def matcher(self, stride: int) -> LevelMatcher:
        """What compares templates and pictures at a stride."""
        matcher = self.matchers[str(stride)]
        assert isinstance(matcher, LevelMatcher)
        return matcher

    def _normalised(self, images: Tensor) -> Tensor:
        """Normalise and pad to multiples of 32, with the mean colour, at the right and below."""
        height, width = images.shape[-2:]
        normal = (images - self.mean) / self.std
        normal = F.pad(normal, (0, -width % _MULTIPLE, 0, -height % _MULTIPLE))
        return normal.contiguous(memory_format=torch.channels_last)

    def _encode_at(
        self, images: Tensor, masks: Tensor, scale: float, count: int
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Each level's features ``(b, n, c, h, w)`` and masks of the templates made smaller or larger."""
        # int: a traced graph is of one template size, and of any search size
        size = (max(round(int(images.shape[-2]) * scale), 1), max(round(int(images.shape[-1]) * scale), 1))
        images = area_pool(images * masks + self.mean * (1 - masks), size)
        masks = area_pool(masks, size)
        features = self.extract_features(images)
        masks = F.pad(masks, (0, -size[1] % _MULTIPLE, 0, -size[0] % _MULTIPLE))
        shares = [area_pool(masks, (int(f.shape[-2]), int(f.shape[-1]))) for f in features]
        return [f.unflatten(0, (-1, count)) for f in features], [m.unflatten(0, (-1, count)) for m in shares]


def _refuse_empty(templates: Tensor, masks: Tensor, valid: Tensor) -> None:
    """Raise for objects without templates, and templates in which there is nothing."""
    if not bool(valid.any(1).all()):
        raise ValueError("an object has no valid template")
    for name, tensor in (("is all zero", templates), ("has an empty mask", masks)):
        empty = (tensor.flatten(2).amax(-1) <= 0) & (tensor.flatten(2).amin(-1) >= 0) & valid
        if bool(empty.any()):
            where = empty.nonzero()[0].tolist()
            raise ValueError(f"template {where[1]} of object {where[0]} {name}")
