"""A pose rendered and compared with the picture: the one place that says whether a pose is believed.

Inlier counts do not certify a pose: a wrong side of a bottle easily gets thirty. What the pose predicts must
be seen: texture where the object has some, edges along its outline, and depth where there is a depth picture.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from sightline.geometry.cameras import Camera
from sightline.objects.comparison import Comparison, Grid, MaskGrid, compare
from sightline.records import TriangleMesh

_WINDOW = 9  # of the local correlation, pixels
_TEXTURE_NOISE = 5.0  # grey levels; a rendered window with less contrast than this says little
_EDGE_NOISE = 12.0  # grey levels a pixel
_CONTOUR_WEIGHT = 0.12  # of the outline beside the texture, which is worth its own amount
_HIDDEN = 0.3  # what a pixel counts before which something nearer lies
_SUPPORTED = 0.5  # correlation above which a window counts as seen


@dataclass(frozen=True)
class Verification:
    """How well a picture bears out a pose.

    Args:
        score: the summary in [0, 1].
        appearance: local correlation of rendered and seen brightness, weighted by rendered contrast, [0, 1].
        contour: agreement of the outline with edges of the picture, [0, 1].
        depth: share of the pixels whose depth agrees, NaN without a depth picture; those that something
            nearer hides count less, but a few that show do not bear out a pose behind a table.
        support: share of the textured surface that is seen, [0, 1]; an occluder lowers it.
        texture: how much of the rendered surface has contrast, [0, 1]; near 0, ``appearance`` means little.
        inside: share of the object that lies inside the picture, [0, 1].
    """

    score: float
    appearance: float
    contour: float
    depth: float
    support: float
    texture: float
    inside: float


_NOTHING = Verification(0.0, 0.0, 0.0, float("nan"), 0.0, 0.0, 0.0)


def verify_pose(
    mesh: TriangleMesh,
    cam_from_obj: Float[Tensor, "4 4"],
    image: NDArray[np.uint8],
    camera: Camera,
    *,
    depth: Float[Tensor, "h w"] | None = None,
) -> Verification:
    """Render the object at a pose and compare it with the picture.

    Args:
        mesh: the object, metres.
        cam_from_obj: the pose in question.
        image: ``(h, w, 3)`` uint8 RGB.
        camera: the picture's camera; its distortion is taken into account.
        depth: ``(h, w)`` float metres along the optical axis, 0 or NaN where missing.

    Returns:
        The parts and their summary; all zero where the pose lies outside the picture or behind the camera.

    Raises:
        ValueError: an image whose size is not the camera's.

    Cost: one rendering and a dozen box filters of 144 x 144 pixels, about 3 ms.
    """
    both = compare(mesh, cam_from_obj, image, camera)
    return _NOTHING if both is None else judge(both, mesh.diameter, depth=depth)


def judge(both: Comparison, diameter: float, *, depth: Float[Tensor, "h w"] | None = None) -> Verification:
    """Score a comparison that is already made.

    Args:
        both: the rendered object beside the picture.
        diameter: of the object, metres.
        depth: ``(h, w)`` float metres of the whole picture, 0 or NaN where missing.

    Returns:
        The parts and their summary.
    """
    inside = both.inside
    appearance, support, texture = _appearance(both)
    contour = _contour(both.seen, both.mask, both.valid)
    agreement = float("nan")
    if depth is not None:
        agreement = _depth_agreement(both.depth, depth, both.look_up, inside, diameter)
    score = (texture * appearance + _CONTOUR_WEIGHT * contour) / (texture + _CONTOUR_WEIGHT)
    if np.isfinite(agreement):
        score = 0.5 * (score + agreement)
    share = float(inside.sum()) / float(both.mask.sum())
    return Verification(score, appearance, contour, agreement, support, texture, share)


def correlation_map(both: Comparison) -> tuple[Grid, Grid]:
    """Local correlation of rendered and seen brightness, in windows restricted to the object.

    Args:
        both: the rendered object beside the picture.

    Returns:
        ``(r, c)`` correlation in [0, 1], and ``(r, c)`` in [0, 1] how much contrast the rendering has there.
    """
    m = both.inside.astype(np.float32)
    rendered, seen = both.rendered, both.seen
    count = np.maximum(_box(m), 1e-6)
    mean_r, mean_s = _box(rendered * m) / count, _box(seen * m) / count
    var_r = np.maximum(_box(rendered**2 * m) / count - mean_r**2, 0)
    var_s = np.maximum(_box(seen**2 * m) / count - mean_s**2, 0)
    covariance = _box(rendered * seen * m) / count - mean_r * mean_s
    correlation = covariance / np.sqrt((var_r + 1.0) * (var_s + _TEXTURE_NOISE**2 / 4))
    return np.clip(correlation, 0, 1), var_r / (var_r + _TEXTURE_NOISE**2)


def _appearance(both: Comparison) -> tuple[float, float, float]:
    """Mean correlation weighted by contrast, the share of contrast that is seen, the amount of contrast."""
    correlation, contrast = (values[both.inside] for values in correlation_map(both))
    total = float(contrast.sum()) + 1e-6
    appearance = float((contrast * correlation).sum()) / total
    support = float((contrast * (correlation > _SUPPORTED)).sum()) / total
    return appearance, support, total / len(contrast)


def _box(values: Grid) -> Grid:
    return cv2.boxFilter(
        values, cv2.CV_32F, (_WINDOW, _WINDOW), normalize=True, borderType=cv2.BORDER_CONSTANT
    )


def _contour(seen: Grid, mask: MaskGrid, valid: MaskGrid) -> float:
    """Mean over the outline of the best edge within a pixel that runs along it."""
    smooth = cv2.GaussianBlur(seen, (0, 0), 0.8)
    gx, gy = (cv2.Sobel(smooth, cv2.CV_32F, i, 1 - i, scale=1 / 8) for i in (1, 0))
    soft = cv2.GaussianBlur(mask.astype(np.float32), (0, 0), 1.5)
    nx, ny = (cv2.Sobel(soft, cv2.CV_32F, i, 1 - i) for i in (1, 0))
    norm = np.sqrt(nx**2 + ny**2) + 1e-9
    across = np.abs(gx * nx + gy * ny) / norm
    strength = across**2 / (np.sqrt(gx**2 + gy**2) + 1e-6) / (across + _EDGE_NOISE)
    best = cv2.dilate(strength, np.ones((3, 3), np.uint8))
    outline = mask & ~cv2.erode(mask.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(bool) & valid
    return float(best[outline].mean()) if outline.any() else 0.0


def _depth_agreement(
    rendered: Grid,
    depth: Float[Tensor, "h w"],
    look_up: Float[Tensor, "r c 2"],
    inside: MaskGrid,
    diameter: float,
) -> float:
    """Share of the pixels with depth on the rendered surface; those that are hidden count less."""
    columns, rows = (look_up[..., i].round().long() for i in (0, 1))
    rows, columns = rows.clamp(0, depth.shape[0] - 1), columns.clamp(0, depth.shape[1] - 1)
    seen = depth[rows, columns].nan_to_num(nan=0.0).numpy()
    tolerance = max(0.05 * diameter, 0.005)
    known = inside & (seen > 0)
    if not known.any():
        return float("nan")
    hidden = known & (seen <= rendered - tolerance)
    agrees = known & (np.abs(seen - rendered) < tolerance)
    return float(agrees.sum() / (known.sum() - (1 - _HIDDEN) * hidden.sum()))
