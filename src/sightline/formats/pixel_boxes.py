"""Boxes of files to boxes of the house, and the boxes of masks.

In the house the centre of the top-left pixel is (0, 0), so that a box around that one pixel is
``(-0.5, -0.5, 0.5, 0.5)``. Files count from the pixel's *edge* (COCO: that box is ``0 0 1 1``), or give the
*indices* of the first pixel and the distance to the last (BOP's ``scene_gt_info``: ``0 0 0 0``).
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from sightline.geometry.boxes import boxes_from_masks, xywh_from_xyxy, xyxy_from_xywh

_EDGE = 0.5


def xyxy_from_coco(xywh: Float[Tensor, "*boxes 4"]) -> Float[Tensor, "*boxes 4"]:
    """Convert COCO boxes, which measure from the corner of the picture, to house boxes.

    Args:
        xywh: ``(*boxes, 4)`` left, top, width, height, pixels from the edge of the picture.

    Returns:
        ``(*boxes, 4)`` xyxy, pixels from the centre of the first pixel.

    Example:
        >>> xyxy_from_coco(torch.tensor([10.0, 20.0, 5.0, 8.0]))
        tensor([ 9.5000, 19.5000, 14.5000, 27.5000])
    """
    return xyxy_from_xywh(xywh) - _EDGE


def coco_from_xyxy(xyxy: Float[Tensor, "*boxes 4"]) -> Float[Tensor, "*boxes 4"]:
    """Convert house boxes to COCO's, the inverse of :func:`xyxy_from_coco`.

    Args:
        xyxy: ``(*boxes, 4)`` xyxy, pixels from the centre of the first pixel.

    Returns:
        ``(*boxes, 4)`` left, top, width, height, pixels from the edge of the picture.

    Example:
        >>> coco_from_xyxy(torch.tensor([9.5, 19.5, 14.5, 27.5]))
        tensor([10., 20.,  5.,  8.])
    """
    return xywh_from_xyxy(xyxy + _EDGE)


def xyxy_from_pixel_edges(corners: Float[Tensor, "*boxes 4"]) -> Float[Tensor, "*boxes 4"]:
    """Convert xyxy boxes that measure from the corner of the picture to house boxes.

    Args:
        corners: ``(*boxes, 4)`` xyxy, pixels from the edge of the picture.

    Returns:
        ``(*boxes, 4)`` xyxy, pixels from the centre of the first pixel.

    Example:
        >>> xyxy_from_pixel_edges(torch.tensor([10.0, 20.0, 15.0, 28.0]))
        tensor([ 9.5000, 19.5000, 14.5000, 27.5000])
    """
    return corners - _EDGE


def pixel_edges_from_xyxy(xyxy: Float[Tensor, "*boxes 4"]) -> Float[Tensor, "*boxes 4"]:
    """Convert house boxes to xyxy from the corner of the picture.

    Args:
        xyxy: ``(*boxes, 4)`` xyxy, pixels from the centre of the first pixel.

    Returns:
        ``(*boxes, 4)`` xyxy, pixels from the edge of the picture.

    Example:
        >>> pixel_edges_from_xyxy(torch.tensor([9.5, 19.5, 14.5, 27.5]))
        tensor([10., 20., 15., 28.])
    """
    return xyxy + _EDGE


def xyxy_from_bop(xywh: Float[Tensor, "*boxes 4"]) -> Float[Tensor, "*boxes 4"]:
    """Convert boxes of BOP's ``scene_gt_info``, whose width is last index minus first, to house boxes.

    Args:
        xywh: ``(*boxes, 4)`` first column, first row, last minus first column, last minus first row.

    Returns:
        ``(*boxes, 4)`` xyxy around all these pixels; NaN for BOP's ``-1 -1 -1 -1`` (not visible).

    Example:
        >>> xyxy_from_bop(torch.tensor([10.0, 20.0, 4.0, 7.0]))
        tensor([ 9.5000, 19.5000, 14.5000, 27.5000])
    """
    first, last = xywh[..., :2], xywh[..., :2] + xywh[..., 2:]
    absent = (xywh[..., 2:] < 0).any(-1, keepdim=True)
    return torch.cat([first - _EDGE, last + _EDGE], dim=-1).masked_fill(absent, torch.nan)


def bop_from_xyxy(xyxy: Float[Tensor, "*boxes 4"]) -> Float[Tensor, "*boxes 4"]:
    """Convert house boxes to those of BOP's ``scene_gt_info``, the inverse of :func:`xyxy_from_bop`.

    Args:
        xyxy: ``(*boxes, 4)`` xyxy; NaN for an object that is not visible.

    Returns:
        ``(*boxes, 4)`` first column and row, last minus first; ``-1 -1 -1 -1`` for NaN.

    Example:
        >>> bop_from_xyxy(torch.tensor([9.5, 19.5, 14.5, 27.5]))
        tensor([10., 20.,  4.,  7.])
    """
    first, last = xyxy[..., :2] + _EDGE, xyxy[..., 2:] - _EDGE
    absent = xyxy.isnan().any(-1, keepdim=True)
    return torch.cat([first, last - first], dim=-1).masked_fill(absent, -1.0)


def box_of_mask(mask: Bool[np.ndarray, "h w"]) -> Float[Tensor, "4"]:
    """The smallest house box around the pixels of a mask.

    Args:
        mask: ``(h, w)`` bool.

    Returns:
        ``(4,)`` float64 xyxy; NaN for an empty mask.

    Example:
        >>> mask = np.zeros((10, 20), dtype=bool)
        >>> mask[2:5, 7:15] = True
        >>> box_of_mask(mask).tolist()
        [6.5, 1.5, 14.5, 4.5]
    """
    return boxes_from_masks(torch.from_numpy(mask)).double()
