"""The nouns of the house: validated, frozen records that cross every boundary between rooms.

Metres, radians and pixels; OpenCV cameras; the centre of the top-left pixel is (0, 0); boxes are ``xyxy``.
A record checks itself when it is made and says which field is wrong; none of them reads a file.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)


def _require_shape(name: str, tensor: Tensor, *shape: int | None) -> None:
    wanted = ", ".join("n" if size is None else str(size) for size in shape)
    fits = tensor.ndim == len(shape) and all(
        size is None or size == got for size, got in zip(shape, tensor.shape, strict=True)
    )
    _require(fits, f"{name}: expected shape ({wanted}), got {tuple(tensor.shape)}")


def _require_finite(name: str, tensor: Tensor) -> None:
    _require(bool(torch.isfinite(tensor).all()), f"{name}: expected finite numbers, got NaN or infinity")


@dataclass(frozen=True, eq=False)
class TriangleMesh:
    """A triangle mesh in metres, with one colour source at most: vertex colours or a texture.

    Args:
        vertices: ``(v, 3)`` float64 positions in the object frame, metres.
        faces: ``(f, 3)`` int64 indices into ``vertices``, counter-clockwise seen from outside.
        vertex_colors: ``(v, 3)`` float32 RGB in [0, 1].
        uv: ``(f, 3, 2)`` float32 texture coordinates of each face's corners, u to the right and v *down*,
            (0, 0) the top-left and (1, 1) the bottom-right corner of the texture picture.
        texture: ``(h, w, 3)`` uint8 RGB picture that ``uv`` indexes.

    Raises:
        ValueError: no faces, an index out of range, non-finite vertices, or ``uv`` without ``texture``.

    Example:
        >>> import torch
        >>> mesh = TriangleMesh(torch.eye(3, dtype=torch.float64), torch.tensor([[0, 1, 2]]))
        >>> round(mesh.diameter, 4)
        1.4142
    """

    vertices: Float[Tensor, "v 3"]
    faces: Int[Tensor, "f 3"]
    vertex_colors: Float[Tensor, "v 3"] | None = None
    uv: Float[Tensor, "f 3 2"] | None = None
    texture: UInt8[Tensor, "h w 3"] | None = None

    def __post_init__(self) -> None:
        """Check shapes, ranges and that the colour source is whole."""
        _require_shape("vertices", self.vertices, None, 3)
        _require_shape("faces", self.faces, None, 3)
        _require(len(self.faces) > 0, "faces: expected at least one triangle, got a mesh without faces")
        _require_finite("vertices", self.vertices)
        low, high = int(self.faces.min()), int(self.faces.max())
        count = len(self.vertices)
        _require(low >= 0 and high < count, f"faces: expected indices in [0, {count}), got [{low}, {high}]")
        if self.vertex_colors is not None:
            _require_shape("vertex_colors", self.vertex_colors, count, 3)
        _require((self.uv is None) == (self.texture is None), "uv and texture: expected both or neither")
        if self.uv is not None:
            _require_shape("uv", self.uv, len(self.faces), 3, 2)

    @cached_property
    def bounds(self) -> Float[Tensor, "2 3"]:
        """The axis-aligned box as ``[min, max]`` corners, metres."""
        used = self.vertices[self.faces.unique()]
        return torch.stack([used.amin(0), used.amax(0)])

    @cached_property
    def diameter(self) -> float:
        """The largest distance between two vertices, metres (exact, over the convex hull)."""
        points = self.vertices[self.faces.unique()]
        if len(points) > 64:
            points = points[_hull_indices(points)]
        return float(torch.cdist(points, points).max())

    def scaled(self, factor: float) -> TriangleMesh:
        """The same mesh with all vertices multiplied by ``factor``."""
        return TriangleMesh(self.vertices * factor, self.faces, self.vertex_colors, self.uv, self.texture)


def _hull_indices(points: Float[Tensor, "v 3"]) -> Int[Tensor, " k"]:
    from scipy.spatial import ConvexHull, QhullError

    try:
        return torch.from_numpy(ConvexHull(points.numpy()).vertices).long()
    except QhullError:  # a flat mesh has no hull of volume
        return torch.arange(len(points))


@dataclass(frozen=True, eq=False)
class Detections:
    """Objects found in one picture.

    Args:
        boxes: ``(n, 4)`` float ``xyxy`` pixels, ``x1 <= x2`` and ``y1 <= y2``.
        scores: ``(n,)`` float, higher is surer.
        names: the object's name, one a detection.
        image_size: ``(width, height)`` of the picture, pixels.
        masks: ``(n, height, width)`` bool, optional.

    Raises:
        ValueError: unequal lengths, NaN, or a box whose corners are swapped.

    Example:
        >>> import torch
        >>> found = Detections(torch.tensor([[10., 20., 30., 60.]]), torch.tensor([0.9]), ("mug",), (64, 64))
        >>> len(found)
        1
    """

    boxes: Float[Tensor, "n 4"]
    scores: Float[Tensor, " n"]
    names: tuple[str, ...]
    image_size: tuple[int, int]
    masks: Bool[Tensor, "n h w"] | None = None

    def __post_init__(self) -> None:
        """Check lengths, order of corners and finiteness."""
        count = len(self.names)
        _require_shape("boxes", self.boxes, count, 4)
        _require_shape("scores", self.scores, count)
        _require_finite("boxes", self.boxes)
        _require_finite("scores", self.scores)
        ordered = bool((self.boxes[:, 2:] >= self.boxes[:, :2]).all())
        _require(ordered, "boxes: expected xyxy with x1 <= x2 and y1 <= y2; is it xywh?")
        if self.masks is not None:
            width, height = self.image_size
            _require_shape("masks", self.masks, count, height, width)

    def __len__(self) -> int:
        return len(self.names)


@dataclass(frozen=True, eq=False)
class Correspondences:
    """Matches between points of a picture and points of one object.

    Args:
        points_2d: ``(m, 2)`` float64 pixels of the *whole* picture, distorted as the camera delivers them.
        points_3d: ``(m, 3)`` float64 metres in the object frame.
        weights: ``(m,)`` float64, non-negative; proportional to the inverse standard deviation of the pixel.
        template: ``(m,)`` int64, which template of the card each match came from (-1 unknown).
        template_points: ``(m, 2)`` float64 pixels in that template, for drawing (NaN unknown).

    Raises:
        ValueError: unequal lengths, non-finite points or a negative weight.

    Example:
        >>> import torch
        >>> Correspondences.build(torch.zeros(4, 2), torch.zeros(4, 3)).weights
        tensor([1., 1., 1., 1.], dtype=torch.float64)
    """

    points_2d: Float[Tensor, "m 2"]
    points_3d: Float[Tensor, "m 3"]
    weights: Float[Tensor, " m"]
    template: Int[Tensor, " m"]
    template_points: Float[Tensor, "m 2"]

    def __post_init__(self) -> None:
        """Check lengths, finiteness and the sign of the weights."""
        count = len(self.points_2d)
        _require_shape("points_2d", self.points_2d, count, 2)
        _require_shape("points_3d", self.points_3d, count, 3)
        _require_shape("weights", self.weights, count)
        _require_shape("template", self.template, count)
        _require_shape("template_points", self.template_points, count, 2)
        for name in ("points_2d", "points_3d", "weights"):
            _require_finite(name, getattr(self, name))
        _require(bool((self.weights >= 0).all()), "weights: expected non-negative numbers")

    def __len__(self) -> int:
        return len(self.points_2d)

    @classmethod
    def build(
        cls,
        points_2d: Float[Tensor, "m 2"],
        points_3d: Float[Tensor, "m 3"],
        *,
        weights: Float[Tensor, " m"] | None = None,
        template: Int[Tensor, " m"] | None = None,
        template_points: Float[Tensor, "m 2"] | None = None,
    ) -> Correspondences:
        """Fill what is not given: unit weights, unknown templates."""
        count = len(points_2d)
        unknown = torch.full((count, 2), math.nan, dtype=torch.float64)
        return cls(
            points_2d.double(),
            points_3d.double(),
            torch.ones(count, dtype=torch.float64) if weights is None else weights.double(),
            torch.full((count,), -1) if template is None else template.long(),
            unknown if template_points is None else template_points.double(),
        )

    def select(self, keep: Tensor) -> Correspondences:
        """The matches that a bool mask or an index tensor of shape ``(k,)`` selects."""
        return Correspondences(
            self.points_2d[keep],
            self.points_3d[keep],
            self.weights[keep],
            self.template[keep],
            self.template_points[keep],
        )


@dataclass(frozen=True, eq=False)
class PoseEstimate:
    """Where one object is: ``X_cam = R @ X_obj + t``, or the plain statement that this could not be found.

    A failure is a value: ``valid`` is False, ``R`` and ``t`` are NaN (never the identity) and ``reason`` says
    why.

    Args:
        R: ``(3, 3)`` float64 rotation, object to camera.
        t: ``(3,)`` float64 metres, the object's origin in the camera frame.
        score: how well the pose is supported, in [0, 1] (0 for an invalid one).
        valid: whether the pose may be used.
        covariance: ``(6, 6)`` float64 of ``(w, v)`` in ``R' = exp(w) R``, ``t' = t + v``; rad and m.
        inliers: ``(m,)`` bool over the correspondences that were given to the solver.
        residual_px: the median reprojection error of the inliers, pixels.
        focal_px: the focal length that was estimated, where the camera's was unknown.
        reason: why the pose is not valid, or what is doubtful about a valid one.
        name: the object's name.
        covariance_freedom: degrees of freedom of the Student's t, above 2, whose covariance it is: a few
            poses are much further off than most; infinite for a normal distribution.
        alternatives: other poses of the object that the picture bears out as well, best first.

    Raises:
        ValueError: a valid pose whose rotation is not a rotation or whose numbers are not finite.

    Example:
        >>> lost = PoseEstimate.failure("3 correspondences, at least 4 are needed")
        >>> lost.valid, bool(lost.t.isnan().all())
        (False, True)
    """

    R: Float[Tensor, "3 3"]
    t: Float[Tensor, "3"]
    score: float
    valid: bool
    covariance: Float[Tensor, "6 6"] | None = None
    inliers: Bool[Tensor, " m"] | None = None
    residual_px: float = math.nan
    focal_px: float | None = None
    reason: str = ""
    name: str = ""
    covariance_freedom: float = math.inf
    alternatives: tuple[PoseEstimate, ...] = ()

    def __post_init__(self) -> None:
        """Check that a valid pose is a rigid motion."""
        _require_shape("R", self.R, 3, 3)
        _require_shape("t", self.t, 3)
        if not self.valid:
            return
        _require_finite("R", self.R)
        _require_finite("t", self.t)
        error = float((self.R @ self.R.mT - torch.eye(3, dtype=self.R.dtype)).abs().max())
        proper = error < 1e-4 and float(torch.linalg.det(self.R)) > 0
        _require(proper, f"R: expected a rotation, got one that misses orthogonality by {error:.2g}")

    @classmethod
    def failure(cls, reason: str, *, name: str = "") -> PoseEstimate:
        """An invalid pose: NaN, score 0, and the reason in words."""
        nan = torch.full((3, 3), math.nan, dtype=torch.float64)
        return cls(nan, nan[0].clone(), 0.0, valid=False, reason=reason, name=name)

    @property
    def cam_from_obj(self) -> Float[Tensor, "4 4"]:
        """The pose as a 4x4 matrix, float64."""
        matrix = torch.eye(4, dtype=torch.float64)
        matrix[:3, :3], matrix[:3, 3] = self.R, self.t
        return matrix

    @property
    def num_inliers(self) -> int:
        """How many correspondences support the pose."""
        return 0 if self.inliers is None else int(self.inliers.sum())


@dataclass(frozen=True, eq=False)
class Keypoints2D:
    """Named points in the pictures of one or several cameras.

    Args:
        points: ``(v, k, 2)`` float pixels, NaN where unknown; v views, k key points.
        confidence: ``(v, k)`` float in [0, 1].
        names: the k key points' names.
        views: the v cameras' names.

    Raises:
        ValueError: unequal lengths.

    Example:
        >>> import torch
        >>> Keypoints2D(torch.zeros(1, 2, 2), torch.ones(1, 2), ("nose", "tail"), ("top",)).points.shape
        torch.Size([1, 2, 2])
    """

    points: Float[Tensor, "v k 2"]
    confidence: Float[Tensor, "v k"]
    names: tuple[str, ...]
    views: tuple[str, ...]

    def __post_init__(self) -> None:
        """Check that the names fit the tensors."""
        _require_shape("points", self.points, len(self.views), len(self.names), 2)
        _require_shape("confidence", self.confidence, len(self.views), len(self.names))


@dataclass(frozen=True, eq=False)
class Keypoints3D:
    """Named points in space.

    Args:
        points: ``(k, 3)`` float metres in the world frame, NaN where unknown.
        names: the k key points' names.
        reprojection_px: ``(k,)`` float, the mean reprojection error.
        num_views: ``(k,)`` int, how many views each point rests on.
        covariance: ``(k, 3, 3)`` float square metres, optional.

    Raises:
        ValueError: unequal lengths.

    Example:
        >>> import torch
        >>> points = Keypoints3D(torch.zeros(1, 3), ("nose",), torch.zeros(1), torch.tensor([2]))
        >>> points.num_views.tolist()
        [2]
    """

    points: Float[Tensor, "k 3"]
    names: tuple[str, ...]
    reprojection_px: Float[Tensor, " k"]
    num_views: Int[Tensor, " k"]
    covariance: Float[Tensor, "k 3 3"] | None = field(default=None)

    def __post_init__(self) -> None:
        """Check that the names fit the tensors."""
        count = len(self.names)
        _require_shape("points", self.points, count, 3)
        _require_shape("reprojection_px", self.reprojection_px, count)
        _require_shape("num_views", self.num_views, count)
