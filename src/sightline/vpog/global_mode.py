"""Poses from all templates: every one is attended to before any is chosen."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from sightline.geometry.cameras import Camera
from sightline.objects.card import ObjectCard
from sightline.vpog.inference import MatchSettings, VPOGMatcher
from sightline.vpog.mode_poses import ModePoses, find_poses
from sightline.vpog.model import VPOGModel


class GlobalModeInference:
    """Attends to all templates of a card, in chunks whose size changes nothing.

    Args:
        model: the network, of mode ``asymmetric``.
        total_templates: how many a card is expected to have at the most.
        chunk_size: templates at a time.
        turn: how far training turned a query against its templates, radians.
        pooled: whether neighbouring templates are solved together, or each for itself.
        max_error_px: of an inlier.
        device: where it runs.

    Example:
        >>> model = VPOGModel({"name": "tiny", "dim": 32, "depth": 1, "num_heads": 2}, image_size=64, depth=1,
        ...                   num_heads=2, flow_hidden_dim=32, flow_layers=1)
        >>> GlobalModeInference(model).matcher.settings.chunk_size
        40
    """

    def __init__(
        self,
        model: VPOGModel,
        total_templates: int = 162,
        chunk_size: int = 40,
        *,
        turn: float = math.pi,
        pooled: bool = True,
        max_error_px: float = 3.0,
        device: str | torch.device = "cpu",
    ) -> None:
        if total_templates < 1:
            raise ValueError(f"total_templates: expected at least 1, got {total_templates}")
        settings = MatchSettings(mode="global", chunk_size=chunk_size)
        self.matcher = VPOGMatcher(model, settings, turn=turn, device=device)
        self.total_templates = total_templates
        self.pooled, self.max_error_px = pooled, max_error_px

    def __call__(
        self,
        images: Sequence[np.ndarray],
        card: ObjectCard,
        cameras: Sequence[Camera],
        boxes: Sequence[Float[Tensor, "4"] | None] | None = None,
    ) -> ModePoses:
        """The pose of an object in each picture.

        Args:
            images: ``(h, w, 3)`` uint8 RGB each.
            card: the object.
            cameras: of the pictures.
            boxes: ``xyxy`` pixels around the object; whole pictures where not given.

        Raises:
            ValueError: a card of more templates than expected; unequal numbers of pictures, cameras or boxes.
        """
        if len(card.templates) > self.total_templates:
            raise ValueError(
                f"card {card.name}: expected at most {self.total_templates} templates, "
                f"got {len(card.templates)}"
            )
        return find_poses(
            self.matcher,
            images,
            card,
            cameras,
            boxes,
            pooled=self.pooled,
            max_error_px=self.max_error_px,
        )
