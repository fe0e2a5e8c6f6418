"""The detector's loss: objectness at every cell, boxes at the cells that answer for one.

Objectness is a focal loss (Lin et al., ICCV 2017) or its form for soft targets, the quality focal loss
(Li et al., NeurIPS 2020), where a positive cell's target is the IoU that its box reaches: the score then says
how good the box is. Both are written with ``logsigmoid``, so that a cell that is wrong with certainty has the
largest gradient and not none. Boxes are compared as 1 - IoU, or one of its three relatives. Both terms are
divided by the number of positive cells, over all processes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from sightline.geometry.boxes import ciou, diou, giou, iou
from sightline.refdet.assignment import assign_boxes
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

    Example:
        >>> maps = RefDetMaps((torch.zeros(1, 1, 8, 8),), (torch.zeros(1, 4, 8, 8),), (4,), (32, 32))
        >>> losses = RefDetLoss()(maps, [torch.tensor([[3.5, 3.5, 15.5, 15.5]])])
        >>> sorted(losses), losses["num_pos"].item()
        (['loss', 'loss_bbox', 'loss_obj', 'num_pos'], 9.0)
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
    ) -> None:
        super().__init__()
        if iou_type not in _MEASURES:
            raise ValueError(f"iou_type must be one of {', '.join(_MEASURES)}, got {iou_type!r}")
        if objectness not in ("quality", "focal"):
            raise ValueError(f"objectness must be quality or focal, got {objectness!r}")
        if pos_radius < 0:
            raise ValueError(f"pos_radius must be 0 or more, got {pos_radius}")
        self.lambda_obj, self.lambda_bbox = lambda_obj, lambda_bbox
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
            ``loss`` (with gradient), ``loss_obj``, ``loss_bbox`` before their weights, and ``num_pos``.

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
        predicted = cells.boxes.take_along_dim(pairs.cells[..., None], dim=1)
        loss_bbox = ((1 - self.measure(predicted, pairs.boxes)) * positive).sum()

        with torch.no_grad():
            reached = iou(predicted, pairs.boxes) if self.objectness == "quality" else 1.0
            targets = torch.zeros_like(logits).scatter_reduce(1, pairs.cells, positive * reached, "amax")
        loss_obj = focal_loss(logits, targets, alpha=self.focal_alpha, gamma=self.focal_gamma).sum()

        number = positive.sum()
        norm = _mean_over_processes(number).clamp_min(1)
        loss_obj, loss_bbox = loss_obj / norm, loss_bbox / norm
        loss = self.lambda_obj * loss_obj + self.lambda_bbox * loss_bbox
        return {
            "loss": loss,
            "loss_obj": loss_obj.detach(),
            "loss_bbox": loss_bbox.detach(),
            "num_pos": number,
        }


def _mean_over_processes(number: Tensor) -> Tensor:
    """Each process's gradients are averaged, so the common divisor is the mean of their counts."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return number
    total = number.detach().clone()
    torch.distributed.all_reduce(total)
    return total / torch.distributed.get_world_size()
