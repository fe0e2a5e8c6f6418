"""A pose rendered and compared with the picture: the one place that says whether a pose is believed.

Inlier counts do not certify a pose: a wrong side of a bottle easily gets thirty. What the pose predicts must
be seen: texture where the object has some, edges along its outline, and depth where there is a depth picture.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from sightline.geometry.cameras import Camera
from sightline.geometry.poses import transform
from sightline.objects.lighting import template_lights
from sightline.records import TriangleMesh
from sightline.rendering import render_views

Grid = NDArray[np.float32]

_SIDE = 144  # pixels of the larger side of the comparison: details of a hundredth of the object
_WINDOW = 9  # of the local correlation, pixels
_TEXTURE_NOISE = 5.0  # grey levels; a rendered window with less contrast than this says little
_EDGE_NOISE = 12.0  # grey levels a pixel
_CONTOUR_WEIGHT = 0.12  # of the outline beside the texture, which is worth its own amount
_SUPPORTED = 0.5  # correlation above which a window counts as seen


@dataclass(frozen=True)
class Verification:
    """How well a picture bears out a pose.

    Args:
        score: the summary in [0, 1].
        appearance: local correlation of rendered and seen brightness, weighted by rendered contrast, [0, 1].
        contour: agreement of the outline with edges of the picture, [0, 1].
        depth: share of the unoccluded pixels whose depth agrees, NaN without a depth picture.
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
    _check_size(image, camera)
    window = _comparison_camera(mesh, cam_from_obj, camera)
    if window is None:
        return _NOTHING
    rendered = render_views(
        mesh,
        cam_from_obj[None],
        window.K,
        window.image_size,
        lights=template_lights(mesh),
    )
    look_up = _look_up(window, camera)
    seen, valid = _resample(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), look_up, camera, window)
    mask = rendered.mask[0].numpy()
    area = int(mask.sum())
    inside = mask & valid
    if int(inside.sum()) < 30:
        return _NOTHING
    grey = cv2.cvtColor(rendered.color[0].numpy(), cv2.COLOR_RGB2GRAY).astype(np.float32)
    appearance, support, texture = _appearance(grey, seen, inside)
    contour = _contour(seen, mask, valid)
    agreement = float("nan")
    if depth is not None:
        agreement = _depth_agreement(rendered.depth[0].numpy(), depth, look_up, inside, mesh.diameter)
    score = (texture * appearance + _CONTOUR_WEIGHT * contour) / (texture + _CONTOUR_WEIGHT)
    if np.isfinite(agreement):
        score = 0.5 * (score + agreement)
    share = float(inside.sum()) / area
    return Verification(score, appearance, contour, agreement, support, texture, share)


def _check_size(image: NDArray[np.uint8], camera: Camera) -> None:
    if image.shape[:2] != (camera.height, camera.width):
        raise ValueError(
            f"image: expected {camera.width}x{camera.height} pixels as its camera says, "
            f"got {image.shape[1]}x{image.shape[0]}"
        )


def _comparison_camera(
    mesh: TriangleMesh, cam_from_obj: Float[Tensor, "4 4"], camera: Camera
) -> Camera | None:
    """A pinhole that frames the object, at most ``_SIDE`` pixels large and never finer than the picture."""
    points = transform(cam_from_obj, _corners(mesh.bounds.double()))
    if bool((points[:, 2] <= 1e-3).any()):
        return None
    straight = Camera(camera.K, camera.width, camera.height)
    pixels = straight.project(points)
    low, high = pixels.amin(0), pixels.amax(0)
    extent = high - low
    margin = 0.05 * float(extent.max()) + 2
    scale = min(1.0, _SIDE / (float(extent.max()) + 2 * margin))
    width, height = (int(s) for s in ((extent + 2 * margin) * scale).ceil())
    if min(width, height) < 8 or bool((high < 0).any()) or bool((low > torch.tensor(camera.image_size)).any()):
        return None
    K = camera.K.clone()
    K[:2, 2] -= low - margin
    # scaling about the pixel grid's corner, which lies half a pixel outside the first centre
    K[:2] *= scale
    K[:2, 2] += (scale - 1) / 2
    return Camera(K, width, height)


def _corners(bounds: Float[Tensor, "2 3"]) -> Float[Tensor, "8 3"]:
    return torch.cartesian_prod(*bounds.T)


def _look_up(window: Camera, camera: Camera) -> Float[Tensor, "h w 2"]:
    """Where in the picture each pixel of the comparison window lies."""
    v, u = torch.meshgrid(
        torch.arange(window.height, dtype=torch.float64),
        torch.arange(window.width, dtype=torch.float64),
        indexing="ij",
    )
    pixels = torch.stack([u, v], dim=-1)
    if camera.distortion is None:
        scale = camera.K[0, 0] / window.K[0, 0]
        return (pixels - window.K[:2, 2]) * scale + camera.K[:2, 2]
    return camera.project(window.unproject(pixels, torch.ones_like(u)))


def _resample(
    grey: NDArray[np.uint8], look_up: Float[Tensor, "h w 2"], camera: Camera, window: Camera
) -> tuple[Grid, NDArray[np.bool_]]:
    """The picture as the comparison window sees it, low-passed first where it is coarser, and what is inside."""
    shrink = float(camera.K[0, 0] / window.K[0, 0])
    low, high = (look_up.reshape(-1, 2).amin(0) - 16).floor(), (look_up.reshape(-1, 2).amax(0) + 16).ceil()
    x0, y0 = (max(int(s), 0) for s in low)
    x1, y1 = int(min(float(high[0]), camera.width)), int(min(float(high[1]), camera.height))
    part = grey[y0:y1, x0:x1].astype(np.float32)
    if shrink > 1.2:
        part = cv2.GaussianBlur(part, (0, 0), 0.4 * shrink)
    places = look_up.numpy().astype(np.float32)
    seen = cv2.remap(
        part, places[..., 0] - x0, places[..., 1] - y0, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    size = np.array(camera.image_size)
    valid = ((places >= 0) & (places <= size - 1)).all(-1)
    return seen, valid


def _appearance(rendered: Grid, seen: Grid, mask: NDArray[np.bool_]) -> tuple[float, float, float]:
    """Correlation in windows restricted to the mask; its supported share; the amount of texture."""
    m = mask.astype(np.float32)
    count = np.maximum(_box(m), 1e-6)
    mean_r, mean_s = _box(rendered * m) / count, _box(seen * m) / count
    var_r = np.maximum(_box(rendered**2 * m) / count - mean_r**2, 0)
    var_s = np.maximum(_box(seen**2 * m) / count - mean_s**2, 0)
    covariance = _box(rendered * seen * m) / count - mean_r * mean_s
    correlation = covariance / np.sqrt((var_r + 1.0) * (var_s + _TEXTURE_NOISE**2 / 4))
    weight = (var_r / (var_r + _TEXTURE_NOISE**2))[mask]
    correlation = np.clip(correlation[mask], 0, 1)
    total = float(weight.sum()) + 1e-6
    appearance = float((weight * correlation).sum()) / total
    support = float((weight * (correlation > _SUPPORTED)).sum()) / total
    return appearance, support, total / mask.sum()


def _box(values: Grid) -> Grid:
    return cv2.boxFilter(values, cv2.CV_32F, (_WINDOW, _WINDOW), normalize=True, borderType=cv2.BORDER_CONSTANT)


def _contour(seen: Grid, mask: NDArray[np.bool_], valid: NDArray[np.bool_]) -> float:
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
    look_up: Float[Tensor, "h w 2"],
    inside: NDArray[np.bool_],
    diameter: float,
) -> float:
    """Share of the pixels with depth, less those hidden by something nearer, that lie on the rendered surface."""
    columns, rows = (look_up[..., i].round().long() for i in (0, 1))
    rows, columns = rows.clamp(0, depth.shape[0] - 1), columns.clamp(0, depth.shape[1] - 1)
    seen = depth[rows, columns].nan_to_num(nan=0.0).numpy()
    tolerance = max(0.05 * diameter, 0.005)
    known = inside & (seen > 0)
    visible = known & (seen > rendered - tolerance)
    if not visible.any():
        return 0.0 if known.any() else float("nan")
    return float((np.abs(seen - rendered) < tolerance)[visible].mean())
