"""Classes and boxes: the varifocal loss with overlaps for targets, L1 and generalised IoU, as RT-DETR."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from sightline.geometry.boxes import giou, iou, xyxy_from_cxcywh
from sightline.rtdetr_pose.matching import Pairs
from sightline.rtdetr_pose.true_objects import TrueObjects


def varifocal_loss(
    logits: Float[Tensor, "*batch"],
    quality: Float[Tensor, "*batch"],
    positive: Float[Tensor, "*batch"],
    *,
    alpha: float = 0.75,
    gamma: float = 2.0,
) -> Float[Tensor, "*batch"]:
    """The varifocal loss (Zhang et al., CVPR 2021): scores learn how good their boxes are.

    With p the sigmoid of the logit it is ``-q (q log p + (1 - q) log(1 - p))`` for a positive of quality q,
    and ``-alpha p^gamma log(1 - p)`` for a negative. The weights ``q`` and ``p^gamma`` have no gradient.

    Args:
        logits: ``(*batch)``.
        quality: ``(*batch)`` q in [0, 1], 0 where not positive.
        positive: ``(*batch)`` 1 for a positive, else 0.
        alpha: weight of negatives.
        gamma: how much negatives that are right already count less.

    Returns:
        ``(*batch)`` losses, not reduced.

    Example:
        >>> logit = torch.logit(torch.tensor([0.3, 0.3]))
        >>> varifocal_loss(logit, torch.tensor([0.8, 0.0]), torch.tensor([1.0, 0.0]))
        tensor([0.8276, 0.0241])
    """
    weight = torch.where(positive > 0, quality, alpha * logits.detach().sigmoid().pow(gamma))
    return F.binary_cross_entropy_with_logits(logits, quality, weight=weight, reduction="none")


def class_and_box_losses(
    logits: Float[Tensor, "layers b q c"],
    boxes: Float[Tensor, "layers b q 4"],
    pairs: Pairs,
    objects: TrueObjects,
    *,
    alpha: float,
    gamma: float,
    l1_weight: float,
    giou_weight: float,
) -> tuple[Float[Tensor, " layers"], Float[Tensor, " layers"]]:
    """The sums over all queries of the class loss, and over all pairs of the box loss, layer by layer.

    What is not finite is left out, with a gradient of zero: a prediction, or a true box.
    """
    predicted, wanted = pairs.of(boxes), objects.boxes[pairs.target]
    usable = (predicted.isfinite() & wanted.isfinite()).all(-1)
    # both become the same harmless box
    predicted, wanted = (torch.where(usable[..., None], box, 0.5) for box in (predicted, wanted))
    corners, true_corners = xyxy_from_cxcywh(predicted), xyxy_from_cxcywh(wanted)
    distance = (predicted - wanted).abs().sum(-1)
    loss_box = (l1_weight * distance + giou_weight * (1 - giou(corners, true_corners))).sum(-1)

    with torch.no_grad():
        reached = torch.where(usable, iou(corners, true_corners), 0.0)
        layer = torch.arange(len(logits), device=logits.device)[:, None].expand_as(pairs.query)
        place = (layer, pairs.picture.expand_as(pairs.query), pairs.query, objects.labels[pairs.target])
        quality, positive = torch.zeros_like(logits), torch.zeros_like(logits)
        quality[place] = reached
        positive[place] = 1.0
    finite = logits.isfinite()
    terms = varifocal_loss(torch.where(finite, logits, 0.0), quality, positive, alpha=alpha, gamma=gamma)
    return torch.where(finite, terms, 0.0).flatten(1).sum(1), loss_box
