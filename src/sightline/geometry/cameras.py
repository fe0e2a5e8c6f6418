"""The camera: a pinhole with OpenCV's distortion, its picture's size, and how points go through it.

OpenCV's frame: x right, y down, z forward, metres. The centre of the top-left pixel is (0, 0).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

from sightline.geometry.distortion import distort, invertible_radius, undistort
from sightline.geometry.focal import focal_mm_to_px
from sightline.geometry.intrinsics import (
    crop_intrinsics,
    flip_intrinsics,
    resize_intrinsics,
    to_normalised,
    to_pixels,
    validate_intrinsics,
)

__all__ = ["Camera", "focal_mm_to_px", "project", "unproject"]


def project(
    points_cam: Float[Tensor, "*points 3"],
    K: Float[Tensor, "..."],
    distortion: Float[Tensor, "..."] | None = None,
) -> Float[Tensor, "... 2"]:
    """Project points in the camera frame to pixels, ``u ~ K distort(X / Z, Y / Z)``.

    Args:
        points_cam: ``(*points, 3)`` metres, camera frame.
        K: ``(3, 3)`` for all points, or ``(*batch, 3, 3)`` with points ``(*batch, n, 3)``; pixels.
        distortion: ``(5,)`` or ``(*batch, 5)`` k1 k2 p1 p2 k3, or None for none.

    Returns:
        ``(*points, 2)`` pixels in the dtype of the points; NaN, with zero gradient, for a point that is not
        in front of the camera (z <= 0).

    Example:
        >>> K = torch.tensor([[600.0, 0, 320], [0, 600, 240], [0, 0, 1]])
        >>> project(torch.tensor([[0.1, 0.0, 1.0], [0.1, 0.0, -1.0]]), K)
        tensor([[380., 240.],
                [ nan,  nan]])
    """
    depth = points_cam[..., 2:]
    in_front = depth > 0
    # The inner where keeps the gradient of the points behind the camera at zero instead of NaN.
    xy = torch.where(in_front, points_cam[..., :2], 0.0) / torch.where(in_front, depth, 1.0)
    if distortion is not None:
        xy = distort(xy, distortion)
    return torch.where(in_front, to_pixels(xy, K), torch.nan)


def unproject(
    px: Float[Tensor, "*points 2"],
    depth: Float[Tensor, "*points"],
    K: Float[Tensor, "..."],
    distortion: Float[Tensor, "..."] | None = None,
) -> Float[Tensor, "... 3"]:
    """Lift pixels with known depth to points in the camera frame, the inverse of :func:`project`.

    Args:
        px: ``(*points, 2)`` pixels, as the camera delivers them.
        depth: ``(*points,)`` z in metres (not the distance along the ray).
        K: ``(3, 3)`` for all points, or ``(*batch, 3, 3)`` with points ``(*batch, n, 2)``; pixels.
        distortion: ``(5,)`` or ``(*batch, 5)`` k1 k2 p1 p2 k3, or None for none.

    Returns:
        ``(*points, 3)`` metres, camera frame; NaN where the pixel lies beyond what the lens model can image.

    Example:
        >>> K = torch.tensor([[600.0, 0, 320], [0, 600, 240], [0, 0, 1]])
        >>> unproject(torch.tensor([380.0, 240.0]), torch.tensor(2.0), K)
        tensor([0.2000, 0.0000, 2.0000])
    """
    xy = to_normalised(px, K)
    if distortion is None:
        return functional.pad(xy, (0, 1), value=1.0) * depth[..., None]
    xy, valid = undistort(xy, distortion)
    safe = torch.where(valid[..., None], xy, 0.0)  # no NaN times zero in the gradient of the depth
    points = functional.pad(safe, (0, 1), value=1.0) * depth[..., None]
    return torch.where(valid[..., None], points, torch.nan)


@dataclass(frozen=True, eq=False)
class Camera:
    """One camera: intrinsic matrix, size of the picture, lens distortion.

    Args:
        K: ``(3, 3)`` intrinsic matrix ``[[fx, skew, cx], [0, fy, cy], [0, 0, 1]]``, pixels; kept as float64.
        width: of the picture, pixels.
        height: of the picture, pixels.
        distortion: ``(5,)`` OpenCV's k1 k2 p1 p2 k3, or None for an ideal lens; kept as float64.

    Raises:
        ValueError: K is not an intrinsic matrix (a transposed one is named as such), the distortion has not
            five finite numbers, or the picture is empty.

    Example:
        >>> camera = Camera.from_focal(600.0, 640, 480)
        >>> camera.project(torch.tensor([0.0, 0.0, 2.0], dtype=torch.float64))
        tensor([319.5000, 239.5000], dtype=torch.float64)
    """

    K: Tensor
    width: int
    height: int
    distortion: Tensor | None = None

    def __post_init__(self) -> None:
        """Check everything and keep it in float64."""
        validate_intrinsics(self.K)
        if self.width <= 0 or self.height <= 0:
            raise ValueError(f"width, height: expected a picture, got {self.width}x{self.height}")
        object.__setattr__(self, "K", self.K.double())
        if self.distortion is None:
            return
        if self.distortion.shape != (5,):
            raise ValueError(
                f"distortion: expected (5,) numbers k1 k2 p1 p2 k3, got shape {tuple(self.distortion.shape)}"
            )
        if not bool(self.distortion.isfinite().all()):
            raise ValueError(f"distortion: expected finite numbers, got {self.distortion.tolist()}")
        object.__setattr__(self, "distortion", self.distortion.double())

    @classmethod
    def from_focal(cls, focal_px: float | int, width: int, height: int) -> Camera:
        """A camera with square pixels, no distortion, and its principal point in the middle of the picture.

        Args:
            focal_px: focal length, pixels.
            width: of the picture, pixels.
            height: of the picture, pixels.
        """
        rows = [[focal_px, 0, (width - 1) / 2], [0, focal_px, (height - 1) / 2], [0, 0, 1]]
        return cls(torch.tensor(rows, dtype=torch.float64), width, height)

    @property
    def image_size(self) -> tuple[int, int]:
        """``(width, height)`` of the picture, pixels."""
        return self.width, self.height

    def project(self, points_cam: Float[Tensor, "*points 3"]) -> Float[Tensor, "*points 2"]:
        """Project ``(*points, 3)`` metres in the camera frame to ``(*points, 2)`` pixels (NaN for z <= 0)."""
        return project(points_cam, self.K, self.distortion)

    def unproject(
        self, px: Float[Tensor, "*points 2"], depth: Float[Tensor, "*points"]
    ) -> Float[Tensor, "*points 3"]:
        """Lift ``(*points, 2)`` pixels at ``(*points,)`` z depth in metres to the camera frame."""
        return unproject(px, depth, self.K, self.distortion)

    def sees(self, points_cam: Float[Tensor, "*points 3"]) -> Bool[Tensor, "*points"]:
        """Whether points lie in front of the camera, in its picture, and where the lens model holds.

        The last matters for wide lenses: beyond the invertible radius the distortion polynomial folds points
        from far outside back into the picture.

        Args:
            points_cam: ``(*points, 3)`` metres, camera frame.
        """
        px = self.project(points_cam)
        size = torch.tensor(self.image_size, dtype=px.dtype, device=px.device)
        seen = ((px >= -0.5) & (px <= size - 0.5)).all(-1)
        if self.distortion is None:
            return seen
        radius = torch.linalg.vector_norm(points_cam[..., :2], dim=-1) / points_cam[..., 2]
        return seen & (radius <= invertible_radius(self.distortion).to(radius))

    def crop(self, x0: float | int, y0: float | int, width: int, height: int) -> Camera:
        """The camera of the ``width`` x ``height`` part of the picture whose first pixel was ``(x0, y0)``."""
        return Camera(crop_intrinsics(self.K, x0, y0), width, height, self.distortion)

    def resize(self, width: int, height: int) -> Camera:
        """The camera of the picture resized to ``width`` x ``height``, ``x' = (x + 0.5) s - 0.5``."""
        K = resize_intrinsics(self.K, self.image_size, (width, height))
        return Camera(K, width, height, self.distortion)

    def flip_horizontal(self) -> Camera:
        """The camera of the mirrored picture, ``x' = width - 1 - x``, of the mirrored scene, ``X' = -X``."""
        distortion = self.distortion
        if distortion is not None:  # of the five, p2 alone is odd in x
            distortion = distortion * distortion.new_tensor([1, 1, 1, -1, 1])
        return Camera(flip_intrinsics(self.K, self.width), self.width, self.height, distortion)
