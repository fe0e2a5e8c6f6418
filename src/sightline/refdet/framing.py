"""How pictures become the network's: letterboxed searches, and templates cropped to their object.

Each keeps its aspect ratio and is described by one 2x3 affine (:mod:`sightline.geometry.pixel_affine`), with
which boxes go to the network's picture and back exactly. Sizes are ``(width, height)``.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from sightline.formats.pixel_boxes import box_of_mask
from sightline.formats.refdet_templates import TemplatePicture
from sightline.geometry import pixel_affine
from sightline.geometry.boxes import boxes_from_points
from sightline.nn.pictures import float_picture

FILL_RGB = (124, 116, 104)  # the mean colour of ImageNet, which normalisation makes nothing
_AREA_BELOW = 0.75  # when shrinking by more, averaging comes before interpolation


class PreparedSearch(NamedTuple):
    """A picture as the network searches it.

    Args:
        picture: ``(3, h, w)`` float32 RGB in [0, 1].
        search_from_image: ``(2, 3)`` float64.
    """

    picture: Float[Tensor, "3 h w"]
    search_from_image: Float[Tensor, "2 3"]


class PreparedTemplate(NamedTuple):
    """A template as the network encodes it.

    Args:
        picture: ``(3, h, w)`` float32 RGB in [0, 1].
        mask: ``(h, w)`` float32 in [0, 1]: where the object is; where that is unknown, where the picture is.
        template_from_image: ``(2, 3)`` float64.
    """

    picture: Float[Tensor, "3 h w"]
    mask: Float[Tensor, "h w"]
    template_from_image: Float[Tensor, "2 3"]


def letterbox_affine(region: Float[Tensor, "4"], target_size: tuple[int, int]) -> Float[Tensor, "2 3"]:
    """The affine that fits a region of a picture into a frame, centred and with its aspect ratio kept.

    Args:
        region: ``(4,)`` xyxy pixels; may leave the picture.
        target_size: ``(width, height)`` of the frame, pixels.

    Returns:
        ``(2, 3)`` float64 frame_from_image.

    Raises:
        ValueError: a region without extent, or a frame without pixels.

    Example:
        >>> affine = letterbox_affine(torch.tensor([-0.5, -0.5, 63.5, 35.5]), (128, 128))
        >>> pixel_affine.apply(affine, torch.tensor([[-0.5, -0.5], [63.5, 35.5]])).tolist()
        [[-0.5, 27.5], [127.5, 99.5]]
    """
    x1, y1, x2, y2 = region.tolist()
    if min(target_size) < 1:
        raise ValueError(f"target_size: expected (width, height) of at least 1, got {target_size}")
    if not (x2 > x1 and y2 > y1):
        raise ValueError(f"region: expected x1 < x2 and y1 < y2, got {region.tolist()}")
    scale = min(target_size[0] / (x2 - x1), target_size[1] / (y2 - y1))
    shift = [
        (target_size[axis] - 1) / 2 - scale * (low + high) / 2
        for axis, low, high in ((0, x1, x2), (1, y1, y2))
    ]
    return torch.tensor([[scale, 0, shift[0]], [0, scale, shift[1]]], dtype=torch.float64)


def whole_picture(image_size: tuple[int, int]) -> Float[Tensor, "4"]:
    """The box of a whole picture, to the outer edges of its pixels.

    Example:
        >>> whole_picture((64, 36)).tolist()
        [-0.5, -0.5, 63.5, 35.5]
    """
    return torch.tensor([-0.5, -0.5, image_size[0] - 0.5, image_size[1] - 0.5], dtype=torch.float64)


def grown_to_frame(region: Float[Tensor, "4"], target_size: tuple[int, int]) -> Float[Tensor, "4"]:
    """The region that fills a frame into which a smaller one is fitted, around the same centre.

    Args:
        region: ``(4,)`` xyxy pixels.
        target_size: ``(width, height)`` of the frame, pixels.

    Returns:
        ``(4,)`` float64 xyxy pixels, of the frame's form.

    Example:
        >>> grown_to_frame(torch.tensor([-0.5, -0.5, 63.5, 35.5]), (128, 128)).tolist()
        [-0.5, -14.5, 63.5, 49.5]
    """
    image_from_frame = pixel_affine.invert(letterbox_affine(region.double(), target_size))
    return transform_boxes(whole_picture(target_size)[None], image_from_frame)[0]


def transform_boxes(boxes: Float[Tensor, "n 4"], new_from_old: Float[Tensor, "2 3"]) -> Float[Tensor, "n 4"]:
    """Boxes in another pixel grid; exact where the affine does not turn.

    Args:
        boxes: ``(n, 4)`` xyxy pixels of the old picture.
        new_from_old: ``(2, 3)``; a mirror is welcome.

    Returns:
        ``(n, 4)`` xyxy pixels of the new picture, in the dtype of the boxes.

    Example:
        >>> mirror = pixel_affine.flip_horizontal(64)
        >>> transform_boxes(torch.tensor([[-0.5, 3.5, 9.5, 7.5]]), mirror).tolist()
        [[53.5, 3.5, 63.5, 7.5]]
    """
    corners = boxes[:, [0, 1, 2, 1, 2, 3, 0, 3]].double().view(-1, 4, 2)
    return boxes_from_points(pixel_affine.apply(new_from_old.double(), corners)).to(boxes.dtype)


def warp_picture(
    image: np.ndarray,
    new_from_old: Float[Tensor, "2 3"],
    new_size: tuple[int, int],
    *,
    fill: tuple[int, ...] | float = FILL_RGB,
) -> np.ndarray:
    """Draw a picture in a new pixel grid, averaging where it shrinks.

    Args:
        image: ``(h, w, c)`` or ``(h, w)``, uint8 or float32.
        new_from_old: ``(2, 3)`` without turn.
        new_size: ``(width, height)``.
        fill: what stands where the old picture had nothing.

    Returns:
        An array of ``new_size`` in the image's dtype.

    Example:
        >>> wide = np.full((4, 8, 3), 200, np.uint8)
        >>> square_from_wide = letterbox_affine(whole_picture((8, 4)), (4, 4))
        >>> drawn = warp_picture(wide, square_from_wide, (4, 4), fill=(0, 0, 0))
        >>> drawn[:, 0, 0].tolist()
        [0, 200, 200, 0]
    """
    import cv2

    image, new_from_old = _crop_to_need(image, new_from_old, new_size)
    height, width = image.shape[:2]
    scale = new_from_old[:, :2].abs().amax(1)
    if float(scale.max()) < _AREA_BELOW:
        smaller = (max(1, round(width * float(scale[0]))), max(1, round(height * float(scale[1]))))
        image = cv2.resize(image, smaller, interpolation=cv2.INTER_AREA)
        shrink = pixel_affine.resize((width, height), smaller)
        new_from_old = pixel_affine.compose(new_from_old, pixel_affine.invert(shrink))
    return cv2.warpAffine(
        image,
        new_from_old.numpy(),
        new_size,
        flags=cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=fill,
    )


def _crop_to_need(
    image: np.ndarray, new_from_old: Tensor, new_size: tuple[int, int]
) -> tuple[np.ndarray, Tensor]:
    """The part of a picture that will be seen: a template is often a small part of a large photograph."""
    height, width = image.shape[:2]
    seen = transform_boxes(whole_picture(new_size)[None], pixel_affine.invert(new_from_old))[0].tolist()
    x1, y1 = max(0, int(seen[0]) - 2), max(0, int(seen[1]) - 2)
    x2, y2 = min(width, int(seen[2]) + 4), min(height, int(seen[3]) + 4)
    if (x1, y1, x2, y2) == (0, 0, width, height) or x1 >= x2 or y1 >= y2:
        return image, new_from_old
    return image[y1:y2, x1:x2], pixel_affine.compose(
        new_from_old, pixel_affine.invert(pixel_affine.crop(x1, y1))
    )


def prepare_search(
    image: UInt8[np.ndarray, "h w 3"],
    search_size: tuple[int, int],
    *,
    region: Float[Tensor, "4"] | None = None,
) -> PreparedSearch:
    """Fit a picture, or a part of it, into the network's frame.

    Args:
        image: ``(h, w, 3)`` uint8 RGB.
        search_size: ``(width, height)`` pixels.
        region: ``(4,)`` xyxy pixels of the part; may leave the picture. The whole unless given.

    Returns:
        The picture and the affine that leads to it.

    Example:
        >>> prepared = prepare_search(np.zeros((36, 64, 3), np.uint8), (128, 96))
        >>> prepared.picture.shape, prepared.search_from_image.tolist()
        (torch.Size([3, 96, 128]), [[2.0, 0.0, 0.5], [0.0, 2.0, 12.5]])
    """
    region = whole_picture((image.shape[1], image.shape[0])) if region is None else region
    affine = letterbox_affine(region.double(), search_size)
    return PreparedSearch(float_picture(warp_picture(image, affine, search_size)), affine)


def prepare_template(
    template: TemplatePicture, template_size: tuple[int, int], *, margin: float = 0.1
) -> PreparedTemplate:
    """Crop a template to its object and fit it into the network's frame.

    The object is where the mask is, else in the box, else anywhere: then the whole picture is taken.

    Args:
        template: picture with mask or box, if they are known.
        template_size: ``(width, height)`` pixels.
        margin: on each side of the object, in shares of its longer side.

    Returns:
        Picture and mask. Around the picture both are empty: the fill colour, and 0.

    Raises:
        ValueError: a picture that is black all over, a box outside the picture, or a negative margin.

    Example:
        >>> mask = np.zeros((60, 80), bool)
        >>> mask[20:40, 30:50] = True
        >>> prepared = prepare_template(TemplatePicture(np.full((60, 80, 3), 9, np.uint8), mask), (48, 48))
        >>> int(prepared.mask.sum())
        1600
    """
    if margin < 0:
        raise ValueError(f"margin: expected at least 0, got {margin}")
    if not template.image.any():
        raise ValueError("template: expected a picture of the object, all its pixels are black")
    size = (template.image.shape[1], template.image.shape[0])
    whole = whole_picture(size)
    region, where = whole, np.ones(size[::-1], np.float32)
    if template.mask is not None:
        region, where = box_of_mask(template.mask), template.mask.astype(np.float32)
    elif template.box is not None:
        region = _inside(template.box.double(), whole)
        columns, rows = np.arange(size[0]), np.arange(size[1])[:, None]
        x1, y1, x2, y2 = region.tolist()
        where = ((columns > x1) & (columns < x2) & (rows > y1) & (rows < y2)).astype(np.float32)
    if region is not whole:
        spare = margin * float((region[2:] - region[:2]).max())
        region = region + region.new_tensor([-spare, -spare, spare, spare])
    affine = letterbox_affine(region, template_size)
    picture = float_picture(warp_picture(template.image, affine, template_size))
    mask = torch.from_numpy(warp_picture(where, affine, template_size, fill=0.0))
    return PreparedTemplate(picture, mask, affine)


def _inside(box: Tensor, whole: Tensor) -> Tensor:
    cut = torch.cat([torch.maximum(box[:2], whole[:2]), torch.minimum(box[2:], whole[2:])])
    if bool((cut[2:] <= cut[:2]).any()):
        raise ValueError(f"box: expected a box within the template's picture, got {box.tolist()}")
    return cut
