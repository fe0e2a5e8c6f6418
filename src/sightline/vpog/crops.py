"""Square crops of a picture around a box, at several turns, each with the exact affine that leads to it."""

from __future__ import annotations

import math
from typing import NamedTuple

import cv2
import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from sightline.geometry import pixel_affine
from sightline.geometry.boxes import boxes_from_points
from sightline.nn.pictures import float_picture

FILL = 0.75
"""Longer side of a box in its crop: in training objects fill 0.62 to 0.98, and a turn may lengthen a box."""

_AREA_BELOW = 0.75  # when shrinking by more, averaging comes before interpolation
_MARGIN = 2  # pixels around what interpolation needs


class Crops(NamedTuple):
    """Parts of one picture as the network takes them.

    Args:
        pictures: ``(n, 3, s, s)`` float32 RGB in [0, 1], black where the picture had ended.
        crop_from_image: ``(n, 2, 3)`` float64.
    """

    pictures: Float[Tensor, "n 3 s s"]
    crop_from_image: Float[Tensor, "n 2 3"]


def even_turns(number: int) -> Float[Tensor, " number"]:
    """Angles all around, from 0, radians.

    Example:
        >>> even_turns(4).div(torch.pi).tolist()
        [0.0, 0.5, 1.0, 1.5]
    """
    return torch.arange(number, dtype=torch.float64) * (2 * math.pi / number)


def box_affines(
    box: Float[Tensor, "4"], size: int, turns: Float[Tensor, " n"], *, fill: float = FILL
) -> Float[Tensor, "n 2 3"]:
    """What brings a box to the middle of turned square crops.

    Args:
        box: ``(4,)`` xyxy pixels.
        size: side of a crop, pixels.
        turns: ``(n,)`` radians by which the picture is turned, from the x axis towards the y axis.
        fill: longer side of the box over the side of a crop.

    Returns:
        ``(n, 2, 3)`` float64 crop_from_image.

    Raises:
        ValueError: a box without extent, or not finite.

    Example:
        >>> affine = box_affines(torch.tensor([10.0, 10, 30, 20]), 64, even_turns(4), fill=1.0)
        >>> pixel_affine.apply(affine[1], torch.tensor([[20.0, 15.0], [30.0, 15.0]])).round(decimals=3)
        tensor([[31.5000, 31.5000],
                [31.5000, 63.5000]])
    """
    upright = pixel_affine.square_crop(box.double(), size, margin=1 / fill)
    middle = ((size - 1) / 2, (size - 1) / 2)
    spun = torch.stack([pixel_affine.rotate(float(turn), middle) for turn in turns])
    return pixel_affine.compose(spun, upright)


def cut_crops(
    image: UInt8[np.ndarray, "h w 3"], crop_from_image: Float[Tensor, "n 2 3"], size: int
) -> Crops | None:
    """Draw crops of one scale, averaging where the picture shrinks.

    Args:
        image: ``(h, w, 3)`` uint8 RGB.
        crop_from_image: ``(n, 2, 3)`` similarities of equal scale.
        size: side of the crops, pixels.

    Returns:
        The crops; None where all of them lie outside the picture.
    """
    edges = torch.tensor([-0.5, size - 0.5], dtype=torch.float64)
    corners = torch.cartesian_prod(edges, edges).expand(len(crop_from_image), 4, 2)
    seen = boxes_from_points(pixel_affine.apply(pixel_affine.invert(crop_from_image), corners).view(-1, 2))
    scale = float(torch.linalg.det(crop_from_image[0, :, :2]).abs().sqrt())
    part = cut_part(image, seen, scale)
    if part is None:
        return None
    small, small_from_image = part
    crop_from_small = pixel_affine.compose(crop_from_image, pixel_affine.invert(small_from_image))
    picture = float_picture(small).expand(len(crop_from_image), -1, -1, -1)
    return Crops(pixel_affine.warp(picture, crop_from_small, (size, size)), crop_from_image)


def cut_part(
    image: UInt8[np.ndarray, "h w 3"], region: Float[Tensor, "4"], scale: float
) -> tuple[UInt8[np.ndarray, "ph pw 3"], Float[Tensor, "2 3"]] | None:
    """The part of a picture that a warp needs, shrunk by averaging where the warp shrinks it.

    Args:
        image: ``(h, w, 3)`` uint8 RGB.
        region: ``(4,)`` xyxy pixels.
        scale: of the warp, new pixels an old one.

    Returns:
        The part and ``(2, 3)`` part_from_image; None where the region lies outside the picture.
    """
    height, width = image.shape[:2]
    x1, y1, x2, y2 = region.tolist()
    if not (x2 > -0.5 and y2 > -0.5 and x1 < width - 0.5 and y1 < height - 0.5):
        return None
    left, top = max(0, math.floor(x1) - _MARGIN), max(0, math.floor(y1) - _MARGIN)
    right, bottom = min(width, math.ceil(x2) + _MARGIN + 1), min(height, math.ceil(y2) + _MARGIN + 1)
    part, affine = image[top:bottom, left:right], pixel_affine.crop(left, top)
    if scale >= _AREA_BELOW:
        return part, affine
    size = (right - left, bottom - top)
    smaller = (max(1, round(size[0] * scale)), max(1, round(size[1] * scale)))
    shrunk = cv2.resize(part, smaller, interpolation=cv2.INTER_AREA)
    return shrunk, pixel_affine.compose(pixel_affine.resize(size, smaller), affine)
