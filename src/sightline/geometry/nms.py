"""Non-maximum suppression, greedy or by lowered scores, in any number of groups and pictures at once."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sightline.geometry.boxes import area

Decay = Literal["gaussian", "linear"]

_BLOCK = 1024


def nms(
    boxes: Float[Tensor, "n 4"],
    scores: Float[Tensor, " n"],
    iou_threshold: float,
    *,
    groups: Int[Tensor, " n"] | None = None,
) -> Int[Tensor, " kept"]:
    """Keep the best of boxes that overlap; see :func:`nms_mask` for what counts and for whole batches.

    Args:
        boxes: ``(n, 4)`` ``xyxy`` pixels.
        scores: ``(n,)`` the higher the better.
        iou_threshold: boxes whose IoU with a better one is above it are dropped.
        groups: ``(n,)`` class labels, picture numbers or both in one number: boxes of different groups do not
            touch each other.

    Returns:
        ``(kept,)`` int64 indices into ``boxes``, best score first.

    Example:
        >>> boxes = torch.tensor([[0.0, 0.0, 9.0, 9.0], [1.0, 0.0, 9.0, 9.0], [20.0, 0.0, 29.0, 9.0]])
        >>> nms(boxes, torch.tensor([0.5, 0.9, 0.7]), 0.5)
        tensor([1, 2])
    """
    keep = nms_mask(boxes, scores, iou_threshold, groups=groups)
    order = scores.argsort(descending=True, stable=True)
    return order[keep[order]]


@torch.no_grad()
def nms_mask(
    boxes: Float[Tensor, "*batch n 4"],
    scores: Float[Tensor, "*batch n"],
    iou_threshold: float,
    *,
    groups: Int[Tensor, "*batch n"] | None = None,
    between_groups: bool = False,
) -> Bool[Tensor, "*batch n"]:
    """Greedy non-maximum suppression of a batch of pictures, without a loop over boxes.

    The greedy rule, "keep a box unless a kept better one covers it", is the one fixed point of
    ``keep = not any(covers & keep)``. Boxes are taken in blocks of falling score: what is already kept
    suppresses a block in one step, and within it the rule is repeated until nothing changes, as often as the
    longest chain of boxes that suppress each other in turn.

    Args:
        boxes: ``(*batch, n, 4)`` ``xyxy`` pixels.
        scores: ``(*batch, n)`` the higher the better; of equal scores the first wins. Entries with a score of
            minus infinity or NaN, or with NaN in the box, are padding and are not kept.
        iou_threshold: boxes whose IoU with a better one is above it are dropped.
        groups: ``(*batch, n)`` class labels: boxes of different groups do not touch each other.
        between_groups: the other way round: only boxes of different groups touch each other.

    Returns:
        ``(*batch, n)`` bool, the boxes to keep.

    Example:
        >>> boxes = torch.tensor([[0.0, 0.0, 9.0, 9.0], [1.0, 0.0, 9.0, 9.0]])
        >>> nms_mask(boxes, torch.tensor([0.5, 0.9]), 0.5, groups=torch.tensor([0, 1]))
        tensor([True, True])
    """
    order = scores.argsort(dim=-1, descending=True, stable=True)
    boxes = boxes.take_along_dim(order[..., None], dim=-2)
    groups = None if groups is None else groups.take_along_dim(order, dim=-1)
    keep = (scores > -torch.inf).take_along_dim(order, dim=-1) & boxes.isfinite().all(dim=-1)
    for start in range(0, scores.shape[-1], _BLOCK):
        stop = min(start + _BLOCK, scores.shape[-1])
        covers = _overlaps(boxes[..., :stop, :], boxes[..., start:stop, :]) > iou_threshold
        if groups is not None:
            alike = groups[..., :stop, None] == groups[..., None, start:stop]
            covers &= alike != between_groups
        covers = covers.to(torch.float32)
        open_ = keep[..., start:stop] & ~_any_covers(covers[..., :start, :], keep[..., :start])
        keep[..., start:stop] = _greedy(covers[..., start:, :].triu(1), open_)
    return torch.zeros_like(keep).scatter(-1, order, keep)


@torch.no_grad()
def matrix_nms(
    boxes: Float[Tensor, "*batch n 4"],
    scores: Float[Tensor, "*batch n"],
    *,
    decay: Decay | str = "gaussian",
    sigma: float = 2.0,
    groups: Int[Tensor, "*batch n"] | None = None,
) -> Float[Tensor, "*batch n"]:
    """Lower the scores of boxes that overlap better ones, all at once (Wang et al., SOLOv2, NeurIPS 2020).

    Box j keeps the share ``min_i f(iou_ij) / f(c_i)`` over the better boxes i, where ``c_i`` is the overlap
    of i with the best of its own betters: a box that is doubtful itself suppresses less. ``f`` is
    ``exp(-sigma iou^2)`` or ``1 - iou``. Unlike a threshold this leaves close neighbours a chance.

    Args:
        boxes: ``(*batch, n, 4)`` ``xyxy`` pixels.
        scores: ``(*batch, n)`` not negative, the higher the better; of equal scores the first is the better.
            Entries of minus infinity or NaN, or with NaN in the box, are padding.
        decay: ``gaussian`` or ``linear``.
        sigma: how fast the Gaussian falls.
        groups: ``(*batch, n)`` class labels: boxes of different groups do not touch each other.

    Returns:
        ``(*batch, n)`` scores in the order given, minus infinity for padding.

    Raises:
        ValueError: for another ``decay``.

    Example:
        >>> boxes = torch.tensor([[0.0, 0.0, 9.0, 9.0], [0.0, 0.0, 9.0, 9.0], [20.0, 0.0, 29.0, 9.0]])
        >>> matrix_nms(boxes, torch.tensor([0.9, 0.8, 0.7]))
        tensor([0.9000, 0.1083, 0.7000])
    """
    if decay not in ("gaussian", "linear"):
        raise ValueError(f"decay must be gaussian or linear, got {decay!r}")
    if not scores.shape[-1]:
        return scores.clone()
    real = (scores > -torch.inf) & boxes.isfinite().all(dim=-1)
    scores = scores.masked_fill(~real, -torch.inf)
    order = scores.argsort(dim=-1, descending=True, stable=True)
    boxes = torch.where(real[..., None], boxes, 0.0).take_along_dim(order[..., None], dim=-2)
    overlap = _overlaps(boxes, boxes).triu(1)  # row i is the better one
    if groups is not None:
        groups = groups.take_along_dim(order, dim=-1)
        overlap = overlap * (groups[..., :, None] == groups[..., None, :])
    own = overlap.amax(dim=-2)
    if decay == "gaussian":
        share = (-sigma * (overlap.square() - own.square()[..., :, None])).exp()
    else:
        share = (1 - overlap) / (1 - own).clamp_min(1e-6)[..., :, None]
    better = torch.ones_like(share, dtype=torch.bool).triu(1)
    share = torch.where(better, share, 1.0).amin(dim=-2).clamp_max(1)
    lowered = scores.take_along_dim(order, dim=-1) * share
    return torch.zeros_like(scores).scatter(-1, order, lowered)


def _overlaps(a: Tensor, b: Tensor) -> Tensor:
    """``boxes.iou_matrix`` without gradients, a fifth of its time: in place, one coordinate after another."""
    (ax, ay, au, av), (bx, by, bu, bv) = a[..., None].unbind(-2), b[..., None, :, :].unbind(-1)
    shared = torch.minimum(au, bu).sub_(torch.maximum(ax, bx)).clamp_min_(0)
    shared.mul_(torch.minimum(av, bv).sub_(torch.maximum(ay, by)).clamp_min_(0))
    union = (area(a)[..., None] + area(b)[..., None, :]).sub_(shared)
    return shared.div_(union.clamp_min_(torch.finfo(union.dtype).tiny ** 0.5))


def _any_covers(covers: Tensor, keep: Tensor) -> Tensor:
    """Whether a kept box covers each column; as a product, which is faster than a masked any."""
    return (keep.to(covers.dtype)[..., None, :] @ covers)[..., 0, :] > 0


def _greedy(covers: Tensor, candidates: Tensor) -> Tensor:
    """The fixed point; after k rounds the fate of everything in chains of length k is decided."""
    keep, previous = candidates, None
    while previous is None or not torch.equal(keep, previous):
        previous, keep = keep, candidates & ~_any_covers(covers, keep)
    return keep
