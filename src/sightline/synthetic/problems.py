"""The generator of geometry problems with known truth, and the validators of their answers.

One generator serves tests, benchmarks and examples: PnP, triangulation, registration. Everything is drawn in
float64 from one seeded generator, so a problem is the same on every machine that has the same torch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from sightline.geometry.cameras import Camera, project
from sightline.geometry.poses import look_at, transform
from sightline.geometry.rotations import exp, geodesic_distance, random_rotations


class PoseErrors(NamedTuple):
    """How far poses are from the truth; infinite for a NaN pose, so that a failure is never a success."""

    rotation_deg: Float[Tensor, "*batch"]
    translation_m: Float[Tensor, "*batch"]


@dataclass(frozen=True, eq=False)
class PnPProblems:
    """Pictures of point sets with known pose.

    Args:
        points_2d: ``(b, n, 2)`` pixels: the projection with noise, or anywhere in the picture for an outlier.
        points_3d: ``(b, n, 3)`` metres, object frame.
        camera: the camera of all of them.
        R: ``(b, 3, 3)`` true rotation, object to camera.
        t: ``(b, 3)`` true translation, metres.
        inliers: ``(b, n)`` which correspondences are no outliers.
        noise_px: standard deviation of the inliers' pixels, per coordinate.
    """

    points_2d: Float[Tensor, "b n 2"]
    points_3d: Float[Tensor, "b n 3"]
    camera: Camera
    R: Float[Tensor, "b 3 3"]
    t: Float[Tensor, "b 3"]
    inliers: Bool[Tensor, "b n"]
    noise_px: float

    def __len__(self) -> int:
        return len(self.R)


@dataclass(frozen=True, eq=False)
class TriangulationProblems:
    """Points in space seen by cameras on a ring, frame by frame.

    Args:
        points_2d: ``(b, v, k, 2)`` pixels: b frames, v views, k points; NaN where a view misses a point.
        points_3d: ``(b, k, 3)`` true positions, metres, world frame.
        K: ``(v, 3, 3)`` pixels.
        cam_from_world: ``(v, 4, 4)``.
        inliers: ``(b, v, k)`` which observations are there and no outliers.
        image_size: ``(width, height)`` pixels.
    """

    points_2d: Float[Tensor, "b v k 2"]
    points_3d: Float[Tensor, "b k 3"]
    K: Float[Tensor, "v 3 3"]
    cam_from_world: Float[Tensor, "v 4 4"]
    inliers: Bool[Tensor, "b v k"]
    image_size: tuple[int, int]

    def __len__(self) -> int:
        return len(self.points_3d)


@dataclass(frozen=True, eq=False)
class RegistrationProblems:
    """Pairs of point sets, ``target = R source + t`` row by row.

    Args:
        source: ``(b, n, 3)`` metres, on the surface of an ellipsoid with three different axes.
        target: ``(b, n, 3)`` metres: the moved source with noise, or anywhere about it for an outlier.
        target_normals: ``(b, n, 3)`` unit normals of the target's surface.
        R: ``(b, 3, 3)`` true rotation, source to target.
        t: ``(b, 3)`` true translation, metres.
        inliers: ``(b, n)`` which rows are no outliers.
    """

    source: Float[Tensor, "b n 3"]
    target: Float[Tensor, "b n 3"]
    target_normals: Float[Tensor, "b n 3"]
    R: Float[Tensor, "b 3 3"]
    t: Float[Tensor, "b 3"]
    inliers: Bool[Tensor, "b n"]

    def __len__(self) -> int:
        return len(self.R)


def make_pnp_problems(
    num_problems: int,
    num_points: int,
    *,
    noise_px: float = 1.0,
    outlier_fraction: float = 0.0,
    planar: bool = False,
    diameter: float = 0.1,
    distance: float = 0.6,
    focal_px: float = 572.0,
    image_size: tuple[int, int] = (640, 480),
    distortion: Float[Tensor, "5"] | None = None,
    seed: int = 0,
) -> PnPProblems:
    """Draw point sets in a ball, or in a disc, in front of a camera, in any rotation.

    Args:
        num_problems: b.
        num_points: n points each.
        noise_px: standard deviation of the pixels, per coordinate.
        outlier_fraction: share of the points whose pixel is replaced by one anywhere in the picture.
        planar: points in a disc, tilted between 20 and 70 degrees to the line of sight, instead of in a ball.
        diameter: of the ball or disc, metres.
        distance: z of its centre, metres; varies by 10 %.
        focal_px: focal length of the camera, whose principal point is the middle of the picture.
        image_size: ``(width, height)`` pixels.
        distortion: ``(5,)`` k1 k2 p1 p2 k3 of the camera, or None.
        seed: of all random numbers.

    Returns:
        The problems with their truth, float64.

    Raises:
        ValueError: an outlier fraction outside [0, 1].

    Example:
        >>> problems = make_pnp_problems(2, 50, outlier_fraction=0.2)
        >>> problems.points_2d.shape, problems.inliers.sum(1)
        (torch.Size([2, 50, 2]), tensor([40, 40]))
    """
    generator = torch.Generator().manual_seed(seed)
    ideal = Camera.from_focal(focal_px, *image_size)
    camera = Camera(ideal.K, *image_size, distortion)
    points_3d = _points_in_ball(generator, num_problems, num_points) * (diameter / 2)
    R = random_rotations(num_problems, generator=generator)
    if planar:
        points_3d[..., 2] = 0
        R = _tilted_rotations(generator, num_problems)
    size = torch.tensor(image_size, dtype=torch.float64)
    centre_px = (size - 1) * (0.3 + 0.4 * _uniform(generator, num_problems, 2))
    depth = distance * (0.9 + 0.2 * _uniform(generator, num_problems))
    t = ideal.unproject(centre_px, depth)
    exact = camera.project(points_3d @ R.mT + t[:, None])
    points_2d = exact + noise_px * _normal(generator, *exact.shape)
    outliers = _outlier_mask(generator, (num_problems, num_points), outlier_fraction)
    elsewhere = size * _uniform(generator, *exact.shape) - 0.5
    points_2d = torch.where(outliers[..., None], elsewhere, points_2d)
    return PnPProblems(points_2d, points_3d, camera, R, t, ~outliers, noise_px)


def make_triangulation_problems(
    num_frames: int,
    num_views: int,
    num_points: int,
    *,
    noise_px: float = 0.0,
    outlier_fraction: float = 0.0,
    missing_fraction: float = 0.0,
    focal_px: float = 800.0,
    image_size: tuple[int, int] = (640, 480),
    seed: int = 0,
) -> TriangulationProblems:
    """Draw points in a box of 0.6 m, seen by cameras on a ring of 2 m about it.

    Args:
        num_frames: b.
        num_views: v cameras, evenly spaced at varying heights.
        num_points: k points in each frame.
        noise_px: standard deviation of the pixels, per coordinate.
        outlier_fraction: share of each view's observations that lie anywhere in the picture instead.
        missing_fraction: share of each view's observations that are NaN.
        focal_px: of every camera.
        image_size: ``(width, height)`` pixels of every camera.
        seed: of all random numbers.

    Returns:
        The problems with their truth, float64.

    Raises:
        ValueError: a fraction outside [0, 1].

    Example:
        >>> make_triangulation_problems(16, 6, 30).points_2d.shape
        torch.Size([16, 6, 30, 2])
    """
    generator = torch.Generator().manual_seed(seed)
    angle = 2 * math.pi * torch.arange(num_views, dtype=torch.float64) / num_views
    height = 0.4 + 0.8 * _uniform(generator, num_views)
    cam_from_world = look_at(torch.stack([2 * angle.cos(), 2 * angle.sin(), height], -1))
    K = Camera.from_focal(focal_px, *image_size).K.expand(num_views, 3, 3)
    points_3d = 0.6 * (_uniform(generator, num_frames, num_points, 3) - 0.5)
    exact = project(transform(cam_from_world, points_3d[:, None]), K)
    points_2d = exact + noise_px * _normal(generator, *exact.shape)
    outliers = _outlier_mask(generator, exact.shape[:-1], outlier_fraction)
    missing = _outlier_mask(generator, exact.shape[:-1], missing_fraction)
    elsewhere = torch.tensor(image_size) * _uniform(generator, *exact.shape) - 0.5
    points_2d = torch.where(outliers[..., None], elsewhere, points_2d)
    points_2d = torch.where(missing[..., None], torch.nan, points_2d)
    return TriangulationProblems(points_2d, points_3d, K, cam_from_world, ~(outliers | missing), image_size)


def make_registration_problems(
    num_problems: int,
    num_points: int,
    *,
    noise_m: float = 0.0,
    outlier_fraction: float = 0.0,
    max_angle: float = math.pi,
    diameter: float = 0.1,
    seed: int = 0,
) -> RegistrationProblems:
    """Draw points on an ellipsoid and move them rigidly.

    Args:
        num_problems: b.
        num_points: n points each.
        noise_m: standard deviation of the target, per coordinate, metres.
        outlier_fraction: share of the targets that lie anywhere within ``diameter`` of the object's centre.
        max_angle: rotations are uniform up to this angle, radians; translations up to ``diameter`` (ICP wants
            both small, Kabsch does not mind).
        diameter: longest axis of the ellipsoid, metres; the others are 0.8 and 0.6 of it.
        seed: of all random numbers.

    Returns:
        The problems with their truth, float64.

    Raises:
        ValueError: an outlier fraction outside [0, 1].

    Example:
        >>> problems = make_registration_problems(4, 100, max_angle=0.1)
        >>> problems.source.shape
        torch.Size([4, 100, 3])
    """
    generator = torch.Generator().manual_seed(seed)
    semi_axes = diameter / 2 * torch.tensor([1.0, 0.8, 0.6], dtype=torch.float64)
    directions = torch.nn.functional.normalize(_normal(generator, num_problems, num_points, 3), dim=-1)
    source = directions * semi_axes
    normals = torch.nn.functional.normalize(directions / semi_axes, dim=-1)
    axis = torch.nn.functional.normalize(_normal(generator, num_problems, 3), dim=-1)
    R = exp(axis * max_angle * _uniform(generator, num_problems, 1))
    t = axis * diameter * min(1.0, max_angle) * _uniform(generator, num_problems, 1)
    exact = source @ R.mT + t[:, None]
    target = exact + noise_m * _normal(generator, *exact.shape)
    outliers = _outlier_mask(generator, (num_problems, num_points), outlier_fraction)
    elsewhere = t[:, None] + diameter * _points_in_ball(generator, num_problems, num_points)
    target = torch.where(outliers[..., None], elsewhere, target)
    return RegistrationProblems(source, target, normals @ R.mT, R, t, ~outliers)


def pose_errors(
    R: Float[Tensor, "*#batch 3 3"],
    t: Float[Tensor, "*#batch 3"],
    R_true: Float[Tensor, "*#batch 3 3"],
    t_true: Float[Tensor, "*#batch 3"],
) -> PoseErrors:
    """The angle and the distance between estimated and true poses.

    Args:
        R: ``(*batch, 3, 3)`` estimated rotations, NaN for a failure.
        t: ``(*batch, 3)`` estimated translations, metres.
        R_true: ``(*batch, 3, 3)``.
        t_true: ``(*batch, 3)`` metres.

    Returns:
        ``(*batch,)`` degrees and ``(*batch,)`` metres, infinite for a failure.

    Example:
        >>> R, t = torch.eye(3), torch.tensor([0.0, 0.0, 1.0])
        >>> pose_errors(exp(torch.tensor([0.0, 0.1, 0.0])), t + 0.01, R, t).rotation_deg
        tensor(5.7296)
    """
    rotation = torch.rad2deg(geodesic_distance(R, R_true))
    translation = torch.linalg.vector_norm(t - t_true, dim=-1)
    return PoseErrors(*(torch.where(error.isnan(), torch.inf, error) for error in (rotation, translation)))


def success_rate(errors: PoseErrors, max_rotation_deg: float, max_translation_m: float = math.inf) -> float:
    """The share of poses within both bounds.

    Args:
        errors: from :func:`pose_errors`.
        max_rotation_deg: degrees.
        max_translation_m: metres.

    Example:
        >>> success_rate(PoseErrors(torch.tensor([1.0, torch.inf]), torch.tensor([0.0, torch.inf])), 2.0)
        0.5
    """
    near = (errors.rotation_deg < max_rotation_deg) & (errors.translation_m < max_translation_m)
    return float(near.double().mean())


def _uniform(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.rand(shape, generator=generator, dtype=torch.float64)


def _normal(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def _points_in_ball(generator: torch.Generator, *shape: int) -> Tensor:
    directions = torch.nn.functional.normalize(_normal(generator, *shape, 3), dim=-1)
    return directions * _uniform(generator, *shape, 1) ** (1 / 3)


def _tilted_rotations(generator: torch.Generator, count: int) -> Tensor:
    """Rotations whose z axis is 20 to 70 degrees away from the camera's."""
    spin, tilt, roll = (_uniform(generator, count) for _ in range(3))
    zero = torch.zeros_like(spin)
    about_z = [exp(torch.stack([zero, zero, 2 * math.pi * turn], -1)) for turn in (roll, spin)]
    about_x = exp(torch.stack([math.radians(20) + math.radians(50) * tilt, zero, zero], -1))
    return about_z[0] @ about_x @ about_z[1]


def _outlier_mask(generator: torch.Generator, shape: tuple[int, ...], fraction: float) -> Tensor:
    """True for exactly the given share of the last axis, at random places."""
    if not 0 <= fraction <= 1:
        raise ValueError(f"fraction: expected a share in [0, 1], got {fraction}")
    rank = _uniform(generator, *shape).argsort(-1).argsort(-1)
    return rank < round(fraction * shape[-1])
