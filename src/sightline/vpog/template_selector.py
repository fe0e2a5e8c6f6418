"""Which templates a sample is trained or matched with, by where their cameras stood around the object.

Distance is the angle between view directions (``-R[2]``, see ``geometry.viewpoints.view_direction``); a turn
of the picture in its plane does not count. Positives look at the object from nearly the query's side,
negatives from at least a right angle away.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sightline.geometry.viewpoints import nearest_views, view_direction

POSITIVE, NEGATIVE = 0, 1

SelectionMode = Literal["nearest", "random_within_range"]


class TemplateChoice(NamedTuple):
    """The templates of a sample, positives first and each kind nearest first.

    Args:
        indices: ``(*batch, S)`` int64 into the object's templates.
        types: ``(*batch, S)`` int64, 0 for a positive and 1 for a negative.
        directions: ``(*batch, S, 3)`` their view directions, object frame.
        reference: ``(*batch, 3)`` the direction that the encoding of directions refers to (d_ref).
    """

    indices: Int[Tensor, "*batch s"]
    types: Int[Tensor, "*batch s"]
    directions: Float[Tensor, "*batch s 3"]
    reference: Float[Tensor, "*batch 3"]


class TemplateSelector:
    """Chooses positives and negatives among an object's templates.

    Args:
        num_positives: how many near the query (S_p).
        num_negatives: how many far from it (S_n).
        mode: ``"nearest"`` takes the nearest positives; ``"random_within_range"`` draws them among those
            within ``range_deg``, and adds the nearest beyond where these are too few.
        range_deg: degrees.
        min_negative_angle_deg: how far negatives are at least, degrees.
        d_ref_random_ratio: how often the reference is the direction of a template drawn from all, and not of
            the nearest.

    Raises:
        ValueError: an option out of its range.

    Example:
        >>> from sightline.geometry.viewpoints import view_poses
        >>> poses = view_poses(162, 0.5)
        >>> chosen = TemplateSelector()(poses[14], poses, generator=torch.Generator().manual_seed(0))
        >>> chosen.indices[0].item(), chosen.types.tolist()
        (14, [0, 0, 0, 0, 1, 1])
    """

    def __init__(
        self,
        num_positives: int = 4,
        num_negatives: int = 2,
        *,
        mode: SelectionMode = "nearest",
        range_deg: float = 30.0,
        min_negative_angle_deg: float = 90.0,
        d_ref_random_ratio: float = 0.0,
    ) -> None:
        if num_positives < 1 or num_negatives < 0:
            counts = f"{num_positives} and {num_negatives}"
            raise ValueError(
                f"num_positives, num_negatives: expected at least 1 and at least 0, got {counts}"
            )
        if mode not in ("nearest", "random_within_range"):
            raise ValueError(f"mode: expected nearest or random_within_range, got {mode!r}")
        for name, angle in (("range_deg", range_deg), ("min_negative_angle_deg", min_negative_angle_deg)):
            if not 0 <= angle <= 180:
                raise ValueError(f"{name}: expected degrees in [0, 180], got {angle}")
        if not 0 <= d_ref_random_ratio <= 1:
            raise ValueError(f"d_ref_random_ratio: expected a share in [0, 1], got {d_ref_random_ratio}")
        self.num_positives = num_positives
        self.num_negatives = num_negatives
        self.mode = mode
        self.range = math.radians(range_deg)
        self.min_negative_angle = math.radians(min_negative_angle_deg)
        self.d_ref_random_ratio = d_ref_random_ratio

    def __call__(
        self,
        query_pose: Float[Tensor, "*batch 4 4"],
        template_poses: Float[Tensor, "n 4 4"],
        *,
        generator: torch.Generator | None = None,
    ) -> TemplateChoice:
        """Choose the templates of training samples of one object.

        Args:
            query_pose: ``(*batch, 4, 4)`` cam_from_obj.
            template_poses: ``(n, 4, 4)`` cam_from_obj.
            generator: of all that is drawn; the same one gives the same choice. PyTorch's own if not given.

        Returns:
            The choice, of ``num_positives + num_negatives`` templates a sample.

        Raises:
            ValueError: the object has too few templates, or too few that are far enough from a query.
        """
        views = view_direction(template_poses[:, :3, :3])
        order, angles = self._ranked(view_direction(query_pose[..., :3, :3]), views)
        luck = torch.rand(*angles.shape, generator=generator, dtype=angles.dtype).to(angles.device)
        positive = torch.arange(self.num_positives, device=angles.device).expand(*angles.shape[:-1], -1)
        if self.mode == "random_within_range":  # the ranks beyond come after all draws, nearest first
            key = torch.where(angles <= self.range, luck, 1 + angles)
            positive = key.argsort(-1)[..., : self.num_positives].sort(-1).values
        far = angles >= self.min_negative_angle - 1e-6
        if int(far.sum(-1).min()) < self.num_negatives:
            found = int(far.sum(-1).min())
            least = f"{math.degrees(self.min_negative_angle):g} degrees or more from each query"
            raise ValueError(f"template_poses: expected {self.num_negatives} that are {least}, got {found}")
        key = torch.where(far, luck, torch.inf)
        negative = key.argsort(-1)[..., : self.num_negatives].sort(-1).values
        ranks = torch.cat([positive, negative], -1)
        kinds = torch.tensor([POSITIVE] * self.num_positives + [NEGATIVE] * self.num_negatives)
        draws = torch.rand(*angles.shape[:-1], 2, generator=generator, dtype=angles.dtype).to(angles.device)
        drawn = (draws[..., 1] * len(views)).long().clamp_max(len(views) - 1)
        reference = torch.where(draws[..., 0] < self.d_ref_random_ratio, drawn, order[..., 0])
        indices = order.gather(-1, ranks)
        types = kinds.to(indices.device).expand_as(indices)
        return TemplateChoice(indices, types, views[indices], views[reference])

    def nearest(
        self, direction: Float[Tensor, "*batch 3"], template_poses: Float[Tensor, "n 4 4"]
    ) -> TemplateChoice:
        """The neighbours of a direction that is known beforehand, for inference; no negatives.

        Args:
            direction: ``(*batch, 3)`` from the object to the camera, object frame, of a prior pose.
            template_poses: ``(n, 4, 4)`` cam_from_obj.

        Returns:
            The ``num_positives`` nearest templates; the reference is the direction of the nearest.

        Raises:
            ValueError: the object has too few templates.
        """
        views = view_direction(template_poses[:, :3, :3])
        order, _ = self._ranked(torch.nn.functional.normalize(direction, dim=-1), views)
        indices = order[..., : self.num_positives]
        chosen = views[indices]
        return TemplateChoice(indices, torch.full_like(indices, POSITIVE), chosen, chosen[..., 0, :])

    def _ranked(self, directions: Tensor, views: Tensor) -> tuple[Tensor, Tensor]:
        """All templates, nearest first, with their angles in radians."""
        if len(views) < self.num_positives:
            raise ValueError(f"template_poses: expected at least {self.num_positives}, got {len(views)}")
        return nearest_views(directions.to(views), views, k=len(views))
