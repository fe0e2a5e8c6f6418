"""Poses from a few templates: those that are most like the crop, or the neighbours of an expected side."""

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


class ClusterModeInference:
    """Attends to the templates with the best cached scores, or to the nearest of a direction.

    Args:
        model: the network, of mode ``asymmetric``.
        num_templates: how many.
        turn: how far training turned a query against its templates, radians.
        pooled: whether neighbouring templates are solved together, or each for itself.
        max_error_px: of an inlier.
        device: where it runs.

    Example:
        >>> model = VPOGModel({"name": "tiny", "dim": 32, "depth": 1, "num_heads": 2}, image_size=64, depth=1,
        ...                   num_heads=2, flow_hidden_dim=32, flow_layers=1)
        >>> ClusterModeInference(model).matcher.settings.num_templates
        4
    """

    def __init__(
        self,
        model: VPOGModel,
        num_templates: int = 4,
        *,
        turn: float = math.pi,
        pooled: bool = True,
        max_error_px: float = 3.0,
        device: str | torch.device = "cpu",
    ) -> None:
        settings = MatchSettings(mode="cluster", num_templates=num_templates)
        self.matcher = VPOGMatcher(model, settings, turn=turn, device=device)
        self.pooled, self.max_error_px = pooled, max_error_px

    def __call__(
        self,
        images: Sequence[np.ndarray],
        card: ObjectCard,
        cameras: Sequence[Camera],
        boxes: Sequence[Float[Tensor, "4"] | None] | None = None,
        directions: Sequence[Float[Tensor, "3"] | None] | None = None,
    ) -> ModePoses:
        """The pose of an object in each picture.

        Args:
            images: ``(h, w, 3)`` uint8 RGB each.
            card: the object.
            cameras: of the pictures.
            boxes: ``xyxy`` pixels around the object; whole pictures where not given.
            directions: ``(3,)`` unit, from the object to where the camera is expected, object frame.

        Raises:
            ValueError: unequal numbers of pictures, cameras, boxes or directions.
        """
        return find_poses(
            self.matcher,
            images,
            card,
            cameras,
            boxes,
            directions,
            pooled=self.pooled,
            max_error_px=self.max_error_px,
        )
