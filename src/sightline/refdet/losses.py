"""The detector's loss: objectness at every cell, boxes at the cells that answer for one.

Objectness is a focal loss (Lin et al., ICCV 2017) or its form for soft targets, the quality focal loss
(Li et al., NeurIPS 2020), where a positive cell's target is the IoU that its box reaches: the score then says
how good the box is. Both are written with ``logsigmoid``, so that a cell that is wrong with certainty has the
largest gradient and not none. Boxes are compared as 1 - IoU, or one of its three relatives. A third term
teaches the similarities alone, before the head, to tell the cells that the object covers from all others,
look-alikes among them: without it a detector may learn to find any object and to ignore its templates. Each
term is divided by the number of its positive cells, over all processes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from sightline.geometry.boxes import ciou, diou, giou, iou
from sightline.refdet.assignment import Assignment, assign_boxes
from sightline.refdet.decode import RefDetMaps

IoUType = Literal["iou", "giou", "diou", "ciou"]
ObjectnessLoss = Literal["quality", "focal"]
_MEASURES = {"iou": iou, "giou": giou, "diou": diou, "ciou": ciou}


def focal_loss(
    logits: Float[Tensor, "*batch"],
    targets: Float[Tensor, "*batch"],
    *,
    alpha: float = 0.25,
    gamma: float = 2.0,
) -> Float[Tensor, "*batch"]:
    """The focal loss of each cell, for hard and for soft targets.

    ``a |y - p|^gamma (-y log p - (1 - y) log(1 - p))`` with p the sigmoid of the logit, and a = alpha where
    y > 0, else 1 - alpha. For y in {0, 1} this is the focal loss, between them the quality focal loss.

    Args:
        logits: ``(*batch)``.
        targets: ``(*batch)`` y in [0, 1].
        alpha: weight of positive cells; the others have 1 - alpha.
        gamma: how much cells that are right already count less.

    Returns:
        ``(*batch)`` losses, not reduced.

    Example:
        >>> focal_loss(torch.tensor([0.0]), torch.tensor([1.0]), alpha=0.5, gamma=0.0)
        tensor([0.3466])
    """
    entropy = -targets * F.logsigmoid(logits) - (1 - targets) * F.logsigmoid(-logits)
    weight = torch.where(targets > 0, alpha, 1 - alpha)
    return weight * (targets - logits.sigmoid()).abs().pow(gamma) * entropy


class RefDetLoss(nn.Module):
    """Objectness and boxes of pictures with any number of instances, none included.

    Args:
        lambda_obj: weight of objectness.
        lambda_bbox: weight of boxes.
        focal_alpha: weight of positive cells in the objectness.
        focal_gamma: how much cells that are right already count less.
        iou_type: ``iou``, ``giou``, ``diou`` or ``ciou``.
        pos_radius: cells around a box's centre cell that answer for it too, if inside.
        objectness: ``quality`` (targets are IoUs) or ``focal`` (targets are 1).
        lambda_match: weight of what the similarities say, where the maps hold it.

    Example:
        >>> maps = RefDetMaps((torch.zeros(1, 1, 8, 8),), (torch.zeros(1, 4, 8, 8),), (4,), (32, 32))
        >>> losses = RefDetLoss()(maps, [torch.tensor([[3.5, 3.5, 15.5, 15.5]])])
        >>> sorted(losses), losses["num_pos"].item()
        (['loss', 'loss_bbox', 'loss_match', 'loss_obj', 'num_pos'], 9.0)
    """

    def __init__(
        self,
        lambda_obj: float = 1.0,
        lambda_bbox: float = 5.0,
        focal_alpha: float = 0.25,
        focal_gamma: float = 2.0,
        iou_type: IoUType | str = "giou",
        pos_radius: int = 1,
        *,
        objectness: ObjectnessLoss | str = "quality",
        lambda_match: float = 1.0,
    ) -> None:
        super().__init__()
        if iou_type not in _MEASURES:
            raise ValueError(f"iou_type must be one of {', '.join(_MEASURES)}, got {iou_type!r}")
        if objectness not in ("quality", "focal"):
            raise ValueError(f"objectness must be quality or focal, got {objectness!r}")
        if pos_radius < 0:
            raise ValueError(f"pos_radius must be 0 or more, got {pos_radius}")
        self.lambda_obj, self.lambda_bbox, self.lambda_match = lambda_obj, lambda_bbox, lambda_match
        self.focal_alpha, self.focal_gamma = focal_alpha, focal_gamma
        self.measure = _MEASURES[iou_type]
        self.pos_radius = pos_radius
        self.objectness = objectness

    def forward(self, outputs: RefDetMaps, boxes: Sequence[Float[Tensor, "_ 4"]]) -> dict[str, Tensor]:
        """The loss and its parts.

        Args:
            outputs: the detector's maps for b pictures.
            boxes: for each picture ``(n_i, 4)`` ``xyxy`` pixels, n_i = 0 where the object is absent.

        Returns:
            ``loss`` (with gradient), ``loss_obj``, ``loss_bbox``, ``loss_match`` before their
            weights, and ``num_pos``.

        Raises:
            ValueError: if there are not as many lists of boxes as pictures.
        """
        cells = outputs.cells()
        logits = cells.logits.float()
        if len(boxes) != len(logits):
            raise ValueError(f"expected boxes for {len(logits)} pictures, got {len(boxes)} lists")
        sizes = [(o.shape[-2], o.shape[-1]) for o in outputs.objectness]
        pairs = assign_boxes(
            [b.to(logits.device) for b in boxes], sizes, outputs.strides, pos_radius=self.pos_radius
        )
        positive = pairs.positive.to(logits.dtype)
        predicted, wanted = cells.boxes.take_along_dim(pairs.cells[..., None], dim=1), pairs.boxes
        loss_bbox = ((1 - self.measure(predicted, wanted)) * positive).sum()

        with torch.no_grad():
            reached = iou(predicted, wanted) if self.objectness == "quality" else 1.0
            targets = torch.zeros_like(logits).scatter_reduce(1, pairs.cells, positive * reached, "amax")
        loss_obj = self._focal(logits, targets).sum()

        number = positive.sum()
        norm = _mean_over_processes(number).clamp_min(1)
        loss_obj, loss_bbox = loss_obj / norm, loss_bbox / norm
        loss_match = self._match_loss(outputs.relevance, _covered(cells.centers, pairs))
        loss = self.lambda_obj * loss_obj + self.lambda_bbox * loss_bbox + self.lambda_match * loss_match
        return {
            "loss": loss,
            "loss_obj": loss_obj.detach(),
            "loss_bbox": loss_bbox.detach(),
            "loss_match": loss_match.detach(),
            "num_pos": number,
        }

    def _focal(self, logits: Tensor, targets: Tensor) -> Tensor:
        return focal_loss(logits, targets, alpha=self.focal_alpha, gamma=self.focal_gamma)

    def _match_loss(self, relevance: Sequence[Tensor], covered: Tensor) -> Tensor:
        if not relevance:
            return covered.new_zeros(())
        logits = torch.cat([r.flatten(1) for r in relevance], dim=1).float()
        norm = _mean_over_processes(covered.sum()).clamp_min(1)
        return self._focal(logits, covered).sum() / norm


def _covered(centers: Tensor, pairs: Assignment) -> Tensor:
    """``(b, cells)`` 1 where a cell's centre lies in a box, or the cell answers for one; else 0."""
    boxes = pairs.objects[:, :, None]
    inside = ((centers >= boxes[..., :2]) & (centers <= boxes[..., 2:])).all(-1)
    covered = inside.any(1).float()
    return covered.scatter_reduce(1, pairs.cells, pairs.positive.float(), "amax")


def _mean_over_processes(number: Tensor) -> Tensor:
    """Each process's gradients are averaged, so the common divisor is the mean of their counts."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return number
    total = number.detach().clone()
    torch.distributed.all_reduce(total)
    return total / torch.distributed.get_world_size()
