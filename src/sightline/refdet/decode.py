"""Boxes from the head's maps and back: cells, levels, and the best detections of each picture.

A raw box is relative to its cell, in units of the level's stride s: centre ``c + s (tx, ty)`` and size
``s (exp tw, exp th)``, with c the centre of the cell. Every box can be written so at every cell, inside or
outside of it, small or large. Cell (i, j) covers the pixels ``s i .. s i + s - 1``, so its centre is at
``s (i + 1/2) - 1/2``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from sightline.geometry.boxes import clip, cxcywh_from_xyxy, xyxy_from_cxcywh
from sightline.geometry.nms import matrix_nms, nms_mask

Suppression = Literal["greedy", "matrix", "none"]
_MAX_LOG_SIZE = 10.0
_CANDIDATES = 1000


class Cells(NamedTuple):
    """All cells of all levels in one list.

    ``logits`` ``(b, cells)``, ``boxes`` ``(b, cells, 4)`` ``xyxy`` pixels, ``centers`` ``(cells, 2)`` pixels.
    """

    logits: Tensor
    boxes: Tensor
    centers: Tensor


class RefDetMaps(NamedTuple):
    """The detector's output.

    ``objectness``: a map ``(b, 1, h, w)`` of logits for each level; ``boxes``: a map ``(b, 4, h, w)`` of raw
    boxes for each; ``strides`` in pixels; ``image_size`` ``(width, height)`` of the search picture;
    ``relevance``: for each level logits ``(b, 1, h, w)`` that the object covers a cell, from similarities
    alone, for the loss; empty where it is not known.
    """

    objectness: tuple[Tensor, ...]
    boxes: tuple[Tensor, ...]
    strides: tuple[int, ...]
    image_size: tuple[int, int]
    relevance: tuple[Tensor, ...] = ()

    def cells(self) -> Cells:
        """The levels' cells one after another, with their boxes decoded."""
        logits = torch.cat([o.flatten(1) for o in self.objectness], dim=1)
        levels = list(zip(self.boxes, self.strides, strict=True))
        boxes = torch.cat([decode_boxes(raw, stride).flatten(1, 2) for raw, stride in levels], dim=1)
        centers = torch.cat([cell_centers(raw, stride).flatten(0, 1) for raw, stride in levels])
        return Cells(logits, boxes, centers)


class DecodedBoxes(NamedTuple):
    """The best detections: ``boxes`` ``(b, k, 4)`` px, ``scores`` ``(b, k)`` falling, ``valid``."""

    boxes: Tensor
    scores: Tensor
    valid: Tensor


def cell_centers(like: Float[Tensor, "b c h w"], stride: int) -> Float[Tensor, "h w 2"]:
    """The pixel positions (x, y) of a map's cells.

    Args:
        like: a map, for its size and type.
        stride: pixels from cell to cell.

    Returns:
        ``(h, w, 2)`` pixels.

    Example:
        >>> cell_centers(torch.zeros(1, 1, 1, 2), 4)
        tensor([[[1.5000, 1.5000],
                 [5.5000, 1.5000]]])
    """
    rows, columns = (
        (torch.arange(like.shape[axis], device=like.device, dtype=torch.float32) + 0.5) * stride - 0.5
        for axis in (-2, -1)
    )
    return torch.stack([columns.expand(like.shape[-2], -1), rows[:, None].expand(-1, like.shape[-1])], dim=-1)


def decode_boxes(raw: Float[Tensor, "b 4 h w"], stride: int) -> Float[Tensor, "b h w 4"]:
    """Boxes in pixels from raw ones.

    Args:
        raw: ``(b, 4, h, w)`` offsets of the centre and logarithms of the size, in strides.
        stride: of the map, in pixels.

    Returns:
        ``(b, h, w, 4)`` float32 ``xyxy`` pixels.

    Example:
        >>> decode_boxes(torch.zeros(1, 4, 1, 1), 4).flatten()
        tensor([-0.5000, -0.5000,  3.5000,  3.5000])
    """
    offset, log_size = raw.float().permute(0, 2, 3, 1).split(2, dim=-1)
    center = cell_centers(raw, stride) + offset * stride
    size = log_size.clamp(max=_MAX_LOG_SIZE).exp() * stride
    return xyxy_from_cxcywh(torch.cat([center, size], dim=-1))


def encode_boxes(
    boxes: Float[Tensor, "*batch 4"], centers: Float[Tensor, "*batch 2"], stride: int
) -> Float[Tensor, "*batch 4"]:
    """Raw boxes from boxes in pixels, the inverse of :func:`decode_boxes`.

    Args:
        boxes: ``(*batch, 4)`` ``xyxy`` pixels, of positive size.
        centers: ``(*batch, 2)`` the cells' centres.
        stride: of the map, in pixels.

    Returns:
        ``(*batch, 4)`` tx, ty, tw, th.

    Example:
        >>> encode_boxes(torch.tensor([-0.5, -0.5, 3.5, 3.5]), torch.tensor([1.5, 1.5]), 4)
        tensor([0., 0., 0., 0.])
    """
    center, size = cxcywh_from_xyxy(boxes).split(2, dim=-1)
    return torch.cat([(center - centers) / stride, (size / stride).log()], dim=-1)


@torch.no_grad()
def decode_maps(
    maps: RefDetMaps,
    *,
    score_threshold: float = 0.0,
    max_detections: int = 100,
    suppression: Suppression | str = "matrix",
    iou_threshold: float = 0.5,
) -> DecodedBoxes:
    """The best detections of each picture, in steps over the whole batch.

    Args:
        maps: the detector's output.
        score_threshold: detections below it are not valid.
        max_detections: how many to keep, at most.
        suppression: ``matrix`` lowers the scores of boxes that overlap a better one
            (:func:`~sightline.geometry.nms.matrix_nms`), ``greedy`` drops them, ``none`` does neither.
        iou_threshold: from which overlap ``greedy`` drops.

    Returns:
        At most ``max_detections`` boxes, clipped to the picture, the best first.

    Raises:
        ValueError: for another ``suppression``.

    Example:
        >>> logits, raw = torch.full((1, 1, 4, 4), -9.0), torch.zeros(1, 4, 4, 4)
        >>> logits[0, 0, 2, 1] = 3.0
        >>> found = decode_maps(RefDetMaps((logits,), (raw,), (4,), (16, 16)), score_threshold=0.5)
        >>> found.boxes[found.valid]
        tensor([[ 3.5000,  7.5000,  7.5000, 11.5000]])
    """
    if suppression not in ("greedy", "matrix", "none"):
        raise ValueError(f"suppression must be greedy, matrix or none, got {suppression!r}")
    cells = maps.cells()
    scores, index = cells.logits.float().sigmoid().topk(min(_CANDIDATES, cells.logits.shape[1]), dim=1)
    boxes = clip(cells.boxes.take_along_dim(index[..., None], dim=1), maps.image_size)
    scores = scores.masked_fill(scores < score_threshold, -torch.inf)
    if suppression == "matrix":
        scores = matrix_nms(boxes, scores)
    elif suppression == "greedy":
        scores = scores.masked_fill(~nms_mask(boxes, scores, iou_threshold), -torch.inf)
    scores, order = scores.topk(min(max_detections, scores.shape[1]), dim=1)
    valid = (scores >= score_threshold) & (scores > -torch.inf)
    return DecodedBoxes(boxes.take_along_dim(order[..., None], dim=1), scores.clamp_min(0), valid)


def decode_predictions(
    objectness: Float[Tensor, "b 1 h w"],
    bbox: Float[Tensor, "b 4 h w"],
    score_threshold: float = 0.5,
    top_k: int = 1,
    *,
    stride: int = 4,
    image_size: tuple[int, int] | None = None,
    iou_threshold: float = 0.5,
) -> list[list[dict[str, Any]]]:
    """Detections as dicts, from the two maps of a detector with one level.

    Args:
        objectness: ``(b, 1, h, w)`` logits.
        bbox: ``(b, 4, h, w)`` raw boxes.
        score_threshold: least score.
        top_k: how many objects to report in a picture, at most; of boxes that overlap the best counts.
        stride: of the maps, in pixels.
        image_size: ``(width, height)``; the maps' whole extent if not given.
        iou_threshold: from which overlap two boxes are one object.

    Returns:
        For each picture a list of dicts, best first: ``bbox`` ``[x1, y1, x2, y2]`` pixels within
        [0, size - 1], ``score``, ``center`` the cell ``[gx, gy]`` that holds the box's centre, and
        ``center_coords`` the box's centre ``[x, y]`` in pixels.

    Example:
        >>> logits = torch.full((1, 1, 4, 4), -9.0)
        >>> logits[0, 0, 2, 1] = 3.0
        >>> detection = decode_predictions(logits, torch.zeros(1, 4, 4, 4))[0][0]
        >>> detection["bbox"], detection["center"], round(detection["score"], 3)
        ([3.5, 7.5, 7.5, 11.5], [1, 2], 0.953)
    """
    width, height = image_size or (bbox.shape[-1] * stride, bbox.shape[-2] * stride)
    maps = RefDetMaps((objectness,), (bbox,), (stride,), (width, height))
    found = decode_maps(
        maps,
        score_threshold=score_threshold,
        max_detections=top_k,
        suppression="greedy",
        iou_threshold=iou_threshold,
    )
    limits = torch.tensor([width - 1, height - 1] * 2, dtype=found.boxes.dtype, device=found.boxes.device)
    boxes = torch.minimum(found.boxes.clamp_min(0), limits)
    return [
        [_as_dict(box, score, stride) for box, score, valid in zip(*rows, strict=True) if valid]
        for rows in zip(boxes.tolist(), found.scores.tolist(), found.valid.tolist(), strict=True)
    ]


def _as_dict(box: Sequence[float], score: float, stride: int) -> dict[str, Any]:
    x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    cell = [int((x + 0.5) // stride), int((y + 0.5) // stride)]
    return {"bbox": list(box), "score": score, "center": cell, "center_coords": [x, y]}
