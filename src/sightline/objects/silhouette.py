"""A pose judged by the object's outline and depth alone: for objects without texture, and for bare masks."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from sightline.geometry.cameras import Camera
from sightline.objects.comparison import Comparison, MaskGrid, compare
from sightline.objects.verification import judge
from sightline.records import TriangleMesh

_FARTHEST = 0.1  # of the object's size; an outline further off than this is as wrong as can be
_CANNY = (30, 90)  # grey levels


@dataclass(frozen=True)
class SilhouetteScore:
    """How well outline and depth agree with a pose.

    Args:
        score: 1 where the outlines coincide, 0 where they are 10 % of the object's size apart or more; with a
            depth picture the mean of that and of ``depth``.
        chamfer: mean distance of the outlines, relative to the object's size, at most 0.1.
        depth: share of the unoccluded pixels whose depth agrees, NaN without a depth picture.
    """

    score: float
    chamfer: float
    depth: float


def score_silhouette(
    mesh: TriangleMesh,
    cam_from_obj: Float[Tensor, "4 4"],
    image: NDArray[np.uint8],
    camera: Camera,
    *,
    mask: NDArray[np.bool_] | None = None,
    depth: Float[Tensor, "h w"] | None = None,
) -> SilhouetteScore:
    """Compare a rendered outline with that of a mask, or with the picture's edges, and the depth beneath it.

    The chamfer distance (Barrow et al., IJCAI 1977), each pixel's part cut off at 10 % of the square root of
    the object's area. With a mask it is the mean of both directions; with edges, most of which are not the
    object's, it runs from the rendered outline to the nearest edge.

    Args:
        mesh: the object, metres.
        cam_from_obj: the pose in question.
        image: ``(h, w, 3)`` uint8 RGB.
        camera: the picture's camera; its distortion is taken into account.
        mask: ``(h, w)`` the object's pixels, as a segmentation gives them.
        depth: ``(h, w)`` float metres along the optical axis, 0 or NaN where missing.

    Returns:
        The score and its parts; 0 where the pose lies outside the picture or behind the camera, or the mask
        is empty there.

    Raises:
        ValueError: an image, or a mask, whose size is not the camera's.
    """
    if mask is not None and mask.shape != (camera.height, camera.width):
        raise ValueError(
            f"mask: expected {camera.width}x{camera.height} pixels, got {mask.shape[1]}x{mask.shape[0]}"
        )
    both = compare(mesh, cam_from_obj, image, camera)
    if both is None:
        return SilhouetteScore(0.0, _FARTHEST, math.nan)
    chamfer = _chamfer(both, mask)
    agreement = math.nan if depth is None else judge(both, mesh.diameter, depth=depth).depth
    score = 1 - chamfer / _FARTHEST
    return SilhouetteScore(score if math.isnan(agreement) else (score + agreement) / 2, chamfer, agreement)


def _chamfer(both: Comparison, mask: NDArray[np.bool_] | None) -> float:
    """The mean distance of the outlines by the square root of the object's area, cut off."""
    size = math.sqrt(float(both.mask.sum()))
    drawn = _outline(both.mask) & both.valid
    if mask is None:
        seen = cv2.Canny(both.seen.clip(0, 255).astype(np.uint8), *_CANNY) > 0
        return _mean_distance(drawn, seen & both.valid, size)
    places = both.look_up.numpy().astype(np.float32)
    there = cv2.remap(mask.astype(np.uint8), places[..., 0], places[..., 1], cv2.INTER_NEAREST) > 0
    seen = _outline(there) & both.valid
    return (_mean_distance(drawn, seen, size) + _mean_distance(seen, drawn, size)) / 2


def _outline(mask: MaskGrid) -> MaskGrid:
    framed = np.pad(mask, 1).astype(np.uint8)
    return mask & ~cv2.erode(framed, np.ones((3, 3), np.uint8)).astype(bool)[1:-1, 1:-1]


def _mean_distance(from_pixels: MaskGrid, to_pixels: MaskGrid, size: float) -> float:
    if not from_pixels.any() or not to_pixels.any():
        return _FARTHEST
    distance = cv2.distanceTransform((~to_pixels).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return float(np.minimum(distance[from_pixels] / size, _FARTHEST).mean())
