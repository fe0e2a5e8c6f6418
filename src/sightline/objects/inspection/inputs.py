"""What is given of one object in one picture, right or wrong: what the checks between inputs work on."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from sightline.records import TriangleMesh


@dataclass(frozen=True, eq=False)
class Inputs:
    """What is given of one object in one picture, right or wrong; each part may be missing.

    Args:
        image_size: ``(width, height)`` of the picture, pixels.
        K: ``(3, 3)`` float64 intrinsics as they were found, pixels.
        distortion: ``(5,)`` k1 k2 p1 p2 k3.
        camera_size: ``(width, height)`` that the camera's file states.
        mesh: the surface, in what is taken for metres.
        diameter: of the object, in what is taken for metres; the mesh's own unless given.
        mesh_scale: by which mesh and diameter are to be multiplied.
        depth: ``(h, w)`` float32, what is taken for metres; 0 or NaN where missing.
        depth_is_complete: whether every value, 0 included, is said to be a measurement.
        mask: ``(h, w)`` bool, the object's visible pixels (or its whole silhouette).
        box: ``(4,)`` float64 x0 y0 x1 y1 of what the mask covers, or of the whole silhouette.
        cam_from_obj: ``(4, 4)`` float64, OpenCV camera frame, what is taken for metres.

    Example:
        >>> Inputs(image_size=(640, 480)).can_render
        False
    """

    image_size: tuple[int, int] | None = None
    K: Float[Tensor, "3 3"] | None = None
    distortion: Float[Tensor, "5"] | None = None
    camera_size: tuple[int, int] | None = None
    mesh: TriangleMesh | None = None
    diameter: float | None = None
    mesh_scale: float = 1.0
    depth: Float[Tensor, "depth_h depth_w"] | None = None
    depth_is_complete: bool = False
    mask: Bool[Tensor, "mask_h mask_w"] | None = None
    box: Float[Tensor, "4"] | None = None
    cam_from_obj: Float[Tensor, "4 4"] | None = None

    def __post_init__(self) -> None:
        """Measure the mesh once; repairs only scale it."""
        if self.diameter is None and self.mesh is not None:
            object.__setattr__(self, "diameter", self.mesh.diameter)

    @property
    def size_m(self) -> float | None:
        """The diameter times the mesh's scale."""
        return None if self.diameter is None else self.diameter * self.mesh_scale

    @property
    def can_render(self) -> bool:
        """Whether mesh, pose, camera and picture size are there, fit to be drawn."""
        if self.mesh is None or self.cam_from_obj is None or self.K is None or self.image_size is None:
            return False
        return is_intrinsic(self.K) and is_rigid(self.cam_from_obj)

    @property
    def observed(self) -> tuple[str, ...]:
        """Which of mask, box and depth are there to be compared with the drawn object."""
        return tuple(name for name in ("mask", "box", "depth") if getattr(self, name) is not None)

    def without(self, name: str) -> Inputs:
        """The same without one part."""
        return replace(self, **{name: None})


def is_intrinsic(K: Float[Tensor, "3 3"]) -> bool:
    """Whether a matrix is an intrinsic matrix that can be drawn with.

    Example:
        >>> is_intrinsic(torch.eye(3)), is_intrinsic(torch.ones(3, 3))
        (True, False)
    """
    upper = bool(K.isfinite().all()) and K[2].tolist() == [0.0, 0.0, 1.0] and float(K[1, 0]) == 0
    return upper and float(K[0, 0]) > 0 and float(K[1, 1]) > 0


def is_rigid(pose: Float[Tensor, "4 4"]) -> bool:
    """Whether a matrix is a rotation with a translation.

    Example:
        >>> is_rigid(torch.eye(4)), is_rigid(torch.diag(torch.tensor([1.0, 1, -1, 1])))
        (True, False)
    """
    if not bool(pose.isfinite().all()) or pose[3].tolist() != [0.0, 0.0, 0.0, 1.0]:
        return False
    R = pose[:3, :3]
    error = (R @ R.mT - torch.eye(3, dtype=R.dtype)).abs().max()
    return float(error) < 0.01 and float(torch.linalg.det(R)) > 0
