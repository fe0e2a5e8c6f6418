"""Which pixels an object would cover alone, and which it shows among the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from sightline.geometry.boxes import boxes_from_masks
from sightline.geometry.cameras import Camera
from sightline.rendering import PreparedMesh, render_views

Array = np.ndarray


@dataclass(frozen=True, eq=False)
class Silhouette:
    """One object's depth, alone, in a window around it that may leave the picture.

    Args:
        left: column of the window's first pixel in the picture.
        top: row of the window's first pixel in the picture.
        depth: ``(h, w)`` float32 metres, 0 where the object is not.
    """

    left: int
    top: int
    depth: Array

    @property
    def num_pixels(self) -> int:
        """How many pixels the object covers, those outside the picture included."""
        return int((self.depth > 0).sum())

    @property
    def box(self) -> Float[Tensor, "4"]:
        """``xyxy`` pixels around the silhouette; NaN where nothing is drawn."""
        corner = torch.tensor([self.left, self.top] * 2, dtype=torch.float64)
        return boxes_from_masks(torch.from_numpy(self.depth > 0)) + corner

    def paste(self, size: tuple[int, int]) -> tuple[tuple[slice, slice], Array]:
        """The window's part within a picture of ``size`` (width, height): where it goes, and its depth."""
        height, width = self.depth.shape
        x1, y1 = max(self.left, 0), max(self.top, 0)
        x2, y2 = min(self.left + width, size[0]), min(self.top + height, size[1])
        inside = self.depth[y1 - self.top : max(y2, y1) - self.top, x1 - self.left : max(x2, x1) - self.left]
        return (slice(y1, max(y2, y1)), slice(x1, max(x2, x1))), inside

    def depth_in(self, size: tuple[int, int]) -> Array:
        """``(h, w)`` float32 depth in a picture of ``size`` (width, height)."""
        full = np.zeros((size[1], size[0]), np.float32)
        where, depth = self.paste(size)
        full[where] = depth
        return full


def draw_silhouette(mesh: PreparedMesh, cam_from_obj: Array, camera: Camera) -> Silhouette:
    """Draw one object alone, up to one picture's size outside the picture.

    Args:
        mesh: metres.
        cam_from_obj: ``(4, 4)`` pose, metres.
        camera: without distortion.

    Example:
        >>> import numpy as np, torch
        >>> from sightline.synthetic.objects import make_object
        >>> pose = np.eye(4)
        >>> pose[2, 3] = 0.5
        >>> seen = draw_silhouette(make_object("box", 0).prepared, pose, Camera.from_focal(200, 64, 48))
        >>> seen.num_pixels > 500
        True
    """
    points = mesh.mesh.vertices.numpy() @ cam_from_obj[:3, :3].T + cam_from_obj[:3, 3]
    pixels = (points @ camera.K.numpy().T)[:, :2] / np.maximum(points[:, 2:], 1e-3)
    size = np.array(camera.image_size)
    low = np.clip(np.floor(pixels.min(0)) - 1, -size, 2 * size).astype(int)
    high = np.clip(np.ceil(pixels.max(0)) + 2, low + 1, 2 * size + 1).astype(int)
    (left, top), (width, height) = low, high - low
    window = camera.crop(int(left), int(top), int(width), int(height))
    pose = torch.from_numpy(cam_from_obj)[None]
    result = render_views(mesh, pose, window.K, window.image_size, outputs=("depth",))
    return Silhouette(int(left), int(top), result.depth[0].numpy())


def visible_masks(silhouettes: Sequence[Silhouette], size: tuple[int, int]) -> tuple[Array, Array]:
    """What each object shows where the nearest one wins.

    Args:
        silhouettes: one an object.
        size: (width, height) of the picture.

    Returns:
        ``(m, h, w)`` bool masks, and ``(h, w)`` int index of the nearest object, -1 where none is.
    """
    nearest = np.full((size[1], size[0]), np.inf, np.float32)
    owner = np.full((size[1], size[0]), -1, np.int64)
    for index, silhouette in enumerate(silhouettes):
        where, depth = silhouette.paste(size)
        wins = (depth > 0) & (depth < nearest[where])
        nearest[where] = np.where(wins, depth, nearest[where])
        owner[where] = np.where(wins, index, owner[where])
    return owner[None] == np.arange(len(silhouettes))[:, None, None], owner
