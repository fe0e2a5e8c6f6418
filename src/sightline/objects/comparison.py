"""A rendered object and the part of a picture where it should be, on one small grid of pixels."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

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
from sightline.rendering import PreparedMesh, render_views

Grid = NDArray[np.float32]
MaskGrid = NDArray[np.bool_]

_SIDE = 144  # pixels of the larger side of the grid: details of a hundredth of the object
_FEWEST_PIXELS = 30  # of the object inside the picture; with fewer there is nothing to compare


@dataclass(frozen=True, eq=False)
class Comparison:
    """An object as a pose predicts it, beside what the picture shows there.

    Args:
        window: the pinhole whose pixels the grid is; it frames the object.
        rendered: ``(r, c)`` float32 predicted brightness, grey levels.
        depth: ``(r, c)`` float32 predicted depth, metres, 0 beside the object.
        mask: ``(r, c)`` bool, the predicted silhouette.
        seen: ``(r, c)`` float32 brightness of the picture, low-passed to the grid's resolution.
        valid: ``(r, c)`` bool, which pixels of the grid lie inside the picture.
        look_up: ``(r, c, 2)`` float64, where in the picture each pixel of the grid lies.
    """

    window: Camera
    rendered: Grid
    depth: Grid
    mask: MaskGrid
    seen: Grid
    valid: MaskGrid
    look_up: Float[Tensor, "r c 2"]

    @property
    def inside(self) -> MaskGrid:
        """The object's pixels inside the picture."""
        return self.mask & self.valid


def compare(
    mesh: TriangleMesh, cam_from_obj: Float[Tensor, "4 4"], image: NDArray[np.uint8], camera: Camera
) -> Comparison | None:
    """Render an object at a pose and cut the same window from the picture, lens distortion undone.

    Args:
        mesh: the object, metres.
        cam_from_obj: the pose.
        image: ``(h, w, 3)`` uint8 RGB.
        camera: the picture's camera.

    Returns:
        Both on one grid of at most 144 pixels a side; None where the pose lies outside the picture or behind
        the camera.

    Raises:
        ValueError: an image whose size is not the camera's.
    """
    _check_size(image, camera)
    window = object_window(mesh, cam_from_obj, camera)
    if window is None:
        return None
    drawn = render_views(
        prepared_mesh(mesh), cam_from_obj[None], window.K, window.image_size, lights=template_lights(mesh)
    )
    look_up = places_in_picture(window, camera)
    seen, valid = _resample(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), look_up, camera, window)
    mask = drawn.mask[0].numpy()
    if int((mask & valid).sum()) < _FEWEST_PIXELS:
        return None
    rendered = cv2.cvtColor(drawn.color[0].numpy(), cv2.COLOR_RGB2GRAY).astype(np.float32)
    return Comparison(window, rendered, drawn.depth[0].numpy(), mask, seen, valid, look_up)


@lru_cache(maxsize=64)
def prepared_mesh(mesh: TriangleMesh) -> PreparedMesh:
    """A mesh prepared for drawing, once: it is compared again and again; meshes are hashed by identity.

    Args:
        mesh: metres.
    """
    return PreparedMesh(mesh)


def _check_size(image: NDArray[np.uint8], camera: Camera) -> None:
    if image.shape[:2] != (camera.height, camera.width):
        raise ValueError(
            f"image: expected {camera.width}x{camera.height} pixels as its camera says, "
            f"got {image.shape[1]}x{image.shape[0]}"
        )


def object_window(
    mesh: TriangleMesh,
    cam_from_obj: Float[Tensor, "4 4"],
    camera: Camera,
    *,
    side: int = _SIDE,
    reach: float = 0.0,
) -> Camera | None:
    """A pinhole that frames an object, never finer than the picture.

    Args:
        mesh: the object, metres.
        cam_from_obj: its pose.
        camera: the picture's camera.
        side: pixels of the larger side of its picture at most.
        reach: how far about the object it shall reach, metres.

    Returns:
        The pinhole; None where the object lies outside the picture or behind the camera.
    """
    around = torch.tensor([[-reach], [reach]], dtype=torch.float64)
    points = transform(cam_from_obj, _corners(mesh.bounds.double() + around))
    if bool((points[:, 2] <= 1e-3).any()):
        return None
    straight = Camera(camera.K, camera.width, camera.height)
    pixels = straight.project(points)
    low, high = pixels.amin(0), pixels.amax(0)
    extent = high - low
    margin = 0.05 * float(extent.max()) + 2
    scale = min(1.0, side / (float(extent.max()) + 2 * margin))
    width, height = (int(s) for s in ((extent + 2 * margin) * scale).ceil())
    if (
        min(width, height) < 8
        or bool((high < 0).any())
        or bool((low > torch.tensor(camera.image_size)).any())
    ):
        return None
    K = camera.K.clone()
    K[:2, 2] -= low - margin
    K[:2] *= scale
    return Camera(K, width, height)


def _corners(bounds: Float[Tensor, "2 3"]) -> Float[Tensor, "8 3"]:
    return torch.cartesian_prod(*bounds.T)


def places_in_picture(window: Camera, camera: Camera) -> Float[Tensor, "r c 2"]:
    """Where in the picture each pixel of a window lies, lens distortion taken into account.

    Args:
        window: a pinhole of :func:`object_window`.
        camera: the picture's camera.
    """
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
    grey: NDArray[np.uint8], look_up: Float[Tensor, "r c 2"], camera: Camera, window: Camera
) -> tuple[Grid, MaskGrid]:
    """The picture as the comparison window sees it, low-passed where that is coarser, and what is inside."""
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
