"""Axis-aligned boxes: forms, overlaps, and the boxes of masks and points.

Between rooms a box is ``xyxy`` in pixels. The centre of the top-left pixel is (0, 0), so a picture covers
[-0.5, width - 0.5] and a box that holds the pixel columns 3 to 5 runs from 2.5 to 5.5. Image sizes are
``(width, height)``, as a tuple or as a tensor whose last axis has two entries and which broadcasts.

``iou``, ``giou``, ``diou`` and ``ciou`` compare boxes one to one, with batch axes that broadcast; all pairs
of two lists are compared by :func:`pairwise`. A box without area overlaps nothing, and no box gives values or
gradients that are not finite.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

ImageSize = tuple[int, int] | Tensor


def xyxy_from_cxcywh(boxes: Float[Tensor, "*batch 4"]) -> Float[Tensor, "*batch 4"]:
    """Corners from centre and size.

    Args:
        boxes: ``(*batch, 4)`` centre x, centre y, width, height, in any unit.

    Returns:
        ``(*batch, 4)`` left, top, right, bottom in that unit.

    Example:
        >>> xyxy_from_cxcywh(torch.tensor([5.0, 4.0, 2.0, 6.0]))
        tensor([4., 1., 6., 7.])
    """
    center, size = boxes.split(2, dim=-1)
    return torch.cat([center - size / 2, center + size / 2], dim=-1)


def cxcywh_from_xyxy(boxes: Float[Tensor, "*batch 4"]) -> Float[Tensor, "*batch 4"]:
    """Centre and size from corners.

    Args:
        boxes: ``(*batch, 4)`` left, top, right, bottom, in any unit.

    Returns:
        ``(*batch, 4)`` centre x, centre y, width, height in that unit.

    Example:
        >>> cxcywh_from_xyxy(torch.tensor([4.0, 1.0, 6.0, 7.0]))
        tensor([5., 4., 2., 6.])
    """
    low, high = boxes.split(2, dim=-1)
    return torch.cat([(low + high) / 2, high - low], dim=-1)


def xyxy_from_xywh(boxes: Float[Tensor, "*batch 4"]) -> Float[Tensor, "*batch 4"]:
    """Corners from the top-left corner and the size, as BOP and COCO store them.

    Their files count from the outer corner of the first pixel; ``formats`` shifts them by half a pixel.

    Args:
        boxes: ``(*batch, 4)`` left, top, width, height, in any unit.

    Returns:
        ``(*batch, 4)`` left, top, right, bottom in that unit.

    Example:
        >>> xyxy_from_xywh(torch.tensor([4.0, 1.0, 2.0, 6.0]))
        tensor([4., 1., 6., 7.])
    """
    low, size = boxes.split(2, dim=-1)
    return torch.cat([low, low + size], dim=-1)


def xywh_from_xyxy(boxes: Float[Tensor, "*batch 4"]) -> Float[Tensor, "*batch 4"]:
    """The top-left corner and the size from corners; see :func:`xyxy_from_xywh`.

    Args:
        boxes: ``(*batch, 4)`` left, top, right, bottom, in any unit.

    Returns:
        ``(*batch, 4)`` left, top, width, height in that unit.

    Example:
        >>> xywh_from_xyxy(torch.tensor([4.0, 1.0, 6.0, 7.0]))
        tensor([4., 1., 2., 6.])
    """
    low, high = boxes.split(2, dim=-1)
    return torch.cat([low, high - low], dim=-1)


def normalize(boxes: Float[Tensor, "*batch 4"], image_size: ImageSize) -> Float[Tensor, "*batch 4"]:
    """Pixels to shares of the picture, whose edges become 0 and 1: ``(x + 0.5) / width``.

    Args:
        boxes: ``(*batch, 4)`` ``xyxy`` pixels.
        image_size: ``(width, height)`` pixels.

    Returns:
        ``(*batch, 4)`` ``xyxy`` shares.

    Example:
        >>> normalize(torch.tensor([-0.5, 23.5, 63.5, 47.5]), (64, 48))
        tensor([0.0000, 0.5000, 1.0000, 1.0000])
    """
    return (boxes + 0.5) / _corner_limits(boxes, image_size)


def denormalize(boxes: Float[Tensor, "*batch 4"], image_size: ImageSize) -> Float[Tensor, "*batch 4"]:
    """Shares of the picture to pixels, the inverse of :func:`normalize`: ``x width - 0.5``.

    Args:
        boxes: ``(*batch, 4)`` ``xyxy`` shares.
        image_size: ``(width, height)`` pixels.

    Returns:
        ``(*batch, 4)`` ``xyxy`` pixels.

    Example:
        >>> denormalize(torch.tensor([0.0, 0.5, 1.0, 1.0]), (64, 48))
        tensor([-0.5000, 23.5000, 63.5000, 47.5000])
    """
    return boxes * _corner_limits(boxes, image_size) - 0.5


def clip(boxes: Float[Tensor, "*batch 4"], image_size: ImageSize) -> Float[Tensor, "*batch 4"]:
    """Cut boxes off at the edges of the picture; one that lies outside keeps no area.

    Args:
        boxes: ``(*batch, 4)`` ``xyxy`` pixels.
        image_size: ``(width, height)`` pixels.

    Returns:
        ``(*batch, 4)`` ``xyxy`` pixels within [-0.5, width - 0.5] x [-0.5, height - 0.5].

    Example:
        >>> clip(torch.tensor([-9.0, 3.0, 70.0, 30.0]), (64, 48))
        tensor([-0.5000,  3.0000, 63.5000, 30.0000])
    """
    limits = _corner_limits(boxes, image_size) - 0.5
    return torch.minimum(boxes.clamp_min(-0.5), limits)


def area(boxes: Float[Tensor, "*batch 4"]) -> Float[Tensor, "*batch"]:
    """The areas of boxes, zero where corners are swapped.

    Args:
        boxes: ``(*batch, 4)`` ``xyxy``.

    Returns:
        ``(*batch)`` areas in the square of the boxes' unit.

    Example:
        >>> area(torch.tensor([1.0, 1.0, 3.0, 4.0]))
        tensor(6.)
    """
    return _extent(boxes[..., :2], boxes[..., 2:])


def iou(a: Float[Tensor, "*#batch 4"], b: Float[Tensor, "*#batch 4"]) -> Float[Tensor, "*#batch"]:
    """Intersection over union, in [0, 1].

    Args:
        a: ``(*batch, 4)`` ``xyxy``.
        b: ``(*batch, 4)`` ``xyxy`` in the same unit; the batch axes broadcast.

    Returns:
        ``(*batch)`` overlaps, 0 for two boxes without area.

    Example:
        >>> iou(torch.tensor([0.0, 0.0, 2.0, 1.0]), torch.tensor([1.0, 0.0, 3.0, 1.0]))
        tensor(0.3333)
    """
    intersection, union = _intersection_and_union(a, b)
    return _ratio(intersection, union)


def giou(a: Float[Tensor, "*#batch 4"], b: Float[Tensor, "*#batch 4"]) -> Float[Tensor, "*#batch"]:
    """Generalised IoU, in (-1, 1]: ``IoU - (E - U) / E`` (Rezatofighi et al., CVPR 2019).

    ``U`` is the area of the union, ``E`` that of the enclosing box.

    Args:
        a: ``(*batch, 4)`` ``xyxy``.
        b: ``(*batch, 4)`` ``xyxy`` in the same unit; the batch axes broadcast.

    Returns:
        ``(*batch)`` overlaps.

    Example:
        >>> giou(torch.tensor([0.0, 0.0, 1.0, 1.0]), torch.tensor([2.0, 0.0, 3.0, 1.0]))
        tensor(-0.3333)
    """
    intersection, union = _intersection_and_union(a, b)
    enclosing = area(_enclosing(a, b))
    return _ratio(intersection, union) - _ratio(enclosing - union, enclosing)


def diou(a: Float[Tensor, "*#batch 4"], b: Float[Tensor, "*#batch 4"]) -> Float[Tensor, "*#batch"]:
    """Distance IoU, in (-1, 1]: ``IoU - rho^2 / c^2`` (Zheng et al., AAAI 2020).

    ``rho`` is the distance of the centres, ``c`` the diagonal of the enclosing box.

    Args:
        a: ``(*batch, 4)`` ``xyxy``.
        b: ``(*batch, 4)`` ``xyxy`` in the same unit; the batch axes broadcast.

    Returns:
        ``(*batch)`` overlaps.

    Example:
        >>> diou(torch.tensor([0.0, 0.0, 1.0, 1.0]), torch.tensor([2.0, 0.0, 3.0, 1.0]))
        tensor(-0.4000)
    """
    low, high = _enclosing(a, b).split(2, dim=-1)
    apart = (a[..., :2] + a[..., 2:] - b[..., :2] - b[..., 2:]) / 2
    return iou(a, b) - _ratio(apart.square().sum(-1), (high - low).square().sum(-1))


def ciou(a: Float[Tensor, "*#batch 4"], b: Float[Tensor, "*#batch 4"]) -> Float[Tensor, "*#batch"]:
    """Complete IoU: ``DIoU - alpha v`` (Zheng et al., AAAI 2020).

    ``v = 4 / pi^2 (atan(w_a / h_a) - atan(w_b / h_b))^2`` compares the aspect ratios and
    ``alpha = v / (1 - IoU + v)`` weighs it. As in the paper alpha is a constant in the gradient; v is not.

    Args:
        a: ``(*batch, 4)`` ``xyxy``.
        b: ``(*batch, 4)`` ``xyxy`` in the same unit; the batch axes broadcast.

    Returns:
        ``(*batch)`` overlaps.

    Example:
        >>> ciou(torch.tensor([0.0, 0.0, 2.0, 2.0]), torch.tensor([0.0, 0.0, 2.0, 2.0]))
        tensor(1.)
    """
    v = (_aspect_angle(a) - _aspect_angle(b)).square() * (4 / math.pi**2)
    with torch.no_grad():
        alpha = _ratio(v, 1 - iou(a, b) + v)
    return diou(a, b) - alpha * v


def pairwise(
    measure: Callable[[Tensor, Tensor], Tensor],
    a: Float[Tensor, "*#batch n 4"],
    b: Float[Tensor, "*#batch m 4"],
) -> Float[Tensor, "*#batch n m"]:
    """Compare every box of one list with every box of another.

    Args:
        measure: :func:`iou`, :func:`giou`, :func:`diou` or :func:`ciou`.
        a: ``(*batch, n, 4)`` ``xyxy``.
        b: ``(*batch, m, 4)`` ``xyxy`` in the same unit.

    Returns:
        ``(*batch, n, m)`` overlaps.

    Example:
        >>> boxes = torch.tensor([[0.0, 0.0, 1.0, 1.0], [2.0, 0.0, 3.0, 1.0]])
        >>> pairwise(giou, boxes, boxes)
        tensor([[ 1.0000, -0.3333],
                [-0.3333,  1.0000]])
    """
    return measure(a[..., :, None, :], b[..., None, :, :])


def iou_matrix(
    a: Float[Tensor, "*#batch n 4"], b: Float[Tensor, "*#batch m 4"]
) -> Float[Tensor, "*#batch n m"]:
    """The IoU of every pair, :func:`pairwise` of :func:`iou`.

    Args:
        a: ``(*batch, n, 4)`` ``xyxy``.
        b: ``(*batch, m, 4)`` ``xyxy`` in the same unit.

    Returns:
        ``(*batch, n, m)`` overlaps.

    Example:
        >>> iou_matrix(torch.tensor([[0.0, 0.0, 2.0, 1.0]]), torch.tensor([[1.0, 0.0, 3.0, 1.0]]))
        tensor([[0.3333]])
    """
    return pairwise(iou, a, b)


def boxes_from_masks(masks: Bool[Tensor, "*batch h w"]) -> Float[Tensor, "*batch 4"]:
    """The smallest boxes around masks, to the outer edges of their pixels.

    Args:
        masks: ``(*batch, h, w)`` bool.

    Returns:
        ``(*batch, 4)`` float32 ``xyxy`` pixels, NaN for an empty mask.

    Example:
        >>> boxes_from_masks(torch.tensor([[False, True, True]]))
        tensor([ 0.5000, -0.5000,  2.5000,  0.5000])
    """
    sides = []
    for axis in (-2, -1):
        occupied = masks.any(dim=axis).to(torch.uint8)
        first, last = occupied.argmax(-1), occupied.shape[-1] - occupied.flip(-1).argmax(-1)
        sides.append(torch.stack([first, last], dim=-1))
    boxes = torch.stack(sides, dim=-1).flatten(-2).to(torch.float32) - 0.5
    return torch.where(masks.any(-1).any(-1)[..., None], boxes, torch.nan)


def boxes_from_points(
    points: Float[Tensor, "*batch n 2"], valid: Bool[Tensor, "*#batch n"] | None = None
) -> Float[Tensor, "*batch 4"]:
    """The smallest boxes around points; those that are not finite do not count.

    Args:
        points: ``(*batch, n, 2)`` pixels.
        valid: ``(*batch, n)`` which points count; all finite ones if not given.

    Returns:
        ``(*batch, 4)`` ``xyxy`` pixels, NaN where no point counts.

    Example:
        >>> boxes_from_points(torch.tensor([[3.0, 8.0], [5.0, 2.0], [torch.nan, 0.0]]))
        tensor([3., 2., 5., 8.])
    """
    counts = points.isfinite().all(dim=-1)
    counts = (counts if valid is None else counts & valid)[..., None]
    low = torch.where(counts, points, torch.inf).amin(dim=-2)
    high = torch.where(counts, points, -torch.inf).amax(dim=-2)
    return torch.where(counts.any(dim=-2), torch.cat([low, high], dim=-1), torch.nan)


def _corner_limits(boxes: Tensor, image_size: ImageSize) -> Tensor:
    size = torch.as_tensor(image_size, dtype=boxes.dtype, device=boxes.device)
    return torch.cat([size, size], dim=-1)


def _extent(low: Tensor, high: Tensor) -> Tensor:
    width, height = (high - low).clamp_min(0).unbind(-1)
    return width * height


def _intersection_and_union(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    low, high = torch.maximum(a[..., :2], b[..., :2]), torch.minimum(a[..., 2:], b[..., 2:])
    intersection = _extent(low, high)
    return intersection, area(a) + area(b) - intersection


def _enclosing(a: Tensor, b: Tensor) -> Tensor:
    low, high = torch.minimum(a[..., :2], b[..., :2]), torch.maximum(a[..., 2:], b[..., 2:])
    return torch.cat([low, high], dim=-1)


def _aspect_angle(boxes: Tensor) -> Tensor:
    """``atan(w / h)``, that of a square with no gradient for a box without size."""
    width, height = (boxes[..., 2:] - boxes[..., :2]).clamp_min(0).unbind(-1)
    sized = width.square() + height.square() > torch.finfo(boxes.dtype).tiny ** 0.5
    return torch.atan2(torch.where(sized, width, 1.0), torch.where(sized, height, 1.0))


def _ratio(numerator: Tensor, denominator: Tensor) -> Tensor:
    """The quotient, and zero with no gradient where the denominator is too small to have a finite one."""
    usable = denominator > torch.finfo(denominator.dtype).tiny ** 0.5
    return torch.where(usable, numerator / torch.where(usable, denominator, 1.0), 0.0)
