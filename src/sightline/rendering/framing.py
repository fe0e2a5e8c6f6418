"""Cameras that frame an object: how far, or how much zoomed, it fills a given share of the picture."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from sightline.geometry.poses import transform
from sightline.records import TriangleMesh


def fit_distance(
    mesh_or_radius: TriangleMesh | float, K: Tensor, image_size: tuple[int, int], fill: float = 0.87
) -> float:
    """How far from the camera a sphere around the object's origin fills the picture, whatever the view.

    The outline of a sphere of radius r at distance d is a cone whose half-angle has the sine r / d; on the
    optical axis it is a circle of ``f r / sqrt(d^2 - r^2)`` pixels, which is set to ``fill`` times the
    distance to the nearest border of the picture.

    Args:
        mesh_or_radius: the mesh (its farthest vertex from the origin is the radius), or the radius in metres.
        K: ``(3, 3)`` pixels.
        image_size: ``(width, height)`` pixels.
        fill: share of the way from the principal point to the nearest border, in (0, 1].

    Returns:
        The distance of the origin from the camera, metres.

    Example:
        >>> K = torch.tensor([[300.0, 0, 111.5], [0, 300, 111.5], [0, 0, 1]])
        >>> round(fit_distance(0.1, K, (224, 224)), 4)
        0.3237
    """
    _check_fill(fill)
    radius = _radius(mesh_or_radius) if isinstance(mesh_or_radius, TriangleMesh) else mesh_or_radius
    if not (math.isfinite(radius) and radius > 0):
        raise ValueError(f"radius: expected a length above 0 m, got {radius}")
    focal = K.double().diagonal()[:2]
    center, size = K.double()[:2, 2], torch.tensor(image_size, dtype=torch.float64)
    margin = torch.minimum(center + 0.5, size - 0.5 - center)
    if bool((margin <= 0).any()):
        raise ValueError(f"K: expected a principal point inside the picture, got {center.tolist()}")
    return float(radius * (1 + (focal / (fill * margin)).square()).sqrt().max())


def fit_poses(
    mesh: TriangleMesh, cam_from_obj: Tensor, K: Tensor, image_size: tuple[int, int], fill: float = 0.87
) -> Float[Tensor, "n 4 4"]:
    """Move each view's camera, without turning it, to the nearest point from which the object fits the frame.

    The frame is the picture shrunk to ``fill`` about its middle. Every vertex lies within its four side
    planes, and the two planes of the tighter direction touch the object, so that its extent is exactly
    ``fill`` there. With half-angle tangent a, ``z + t_z`` must reach ``|x + t_x| / a`` for all vertices,
    which is solved in closed form.

    Args:
        mesh: metres.
        cam_from_obj: ``(n, 4, 4)`` poses; only their rotations matter.
        K: ``(3, 3)`` pixels.
        image_size: ``(width, height)`` pixels.
        fill: share of the picture's width or height that the object's projected extent takes, in (0, 1].

    Returns:
        ``(n, 4, 4)`` poses, float64.

    Example:
        >>> corners = torch.tensor([[-0.1, 0, 0], [0.1, 0, 0], [0, 0.05, 0]])
        >>> mesh = TriangleMesh(corners, torch.tensor([[0, 1, 2]]))
        >>> K = torch.tensor([[100.0, 0, 49.5], [0, 100, 49.5], [0, 0, 1]])
        >>> round(float(fit_poses(mesh, torch.eye(4)[None], K, (100, 100), fill=0.8)[0, 2, 3]), 6)
        0.25
    """
    _check_fill(fill)
    K, size = K.double(), torch.tensor(image_size, dtype=torch.float64)
    poses = cam_from_obj.detach().double().clone()
    points = _used_vertices(mesh) @ poses[:, :3, :3].mT
    # A shear puts the middle of the picture straight ahead; the planes are then symmetric.
    aside = torch.linalg.solve_triangular(K[:2, :2], ((size - 1) / 2 - K[:2, 2])[:, None], upper=True)[:, 0]
    slope = fill * size / (2 * K.diagonal()[:2])
    along, z = points[..., :2] - aside * points[..., 2:], points[..., 2:]
    right, left = (along - slope * z).amax(1), (-along - slope * z).amax(1)
    depth = ((right + left) / (2 * slope)).amax(-1, keepdim=True)
    if bool((depth + z.amin(1) <= 0).any()):
        raise ValueError("mesh: expected an extent above zero across the view")
    poses[:, :2, 3] = (left - right) / 2 + aside * depth
    poses[:, 2:3, 3] = depth
    return poses


def fit_camera(
    mesh: TriangleMesh, cam_from_obj: Tensor, image_size: tuple[int, int], fill: float = 0.87
) -> Float[Tensor, "n 3 3"]:
    """Zoom each view in place, so that the object's projected extent fills the frame and is centred in it.

    Args:
        mesh: metres.
        cam_from_obj: ``(n, 4, 4)`` poses, which stay.
        image_size: ``(width, height)`` pixels.
        fill: share of the picture's width or height (the tighter) that the extent takes, in (0, 1].

    Returns:
        ``(n, 3, 3)`` K of square pixels, float64.

    Raises:
        ValueError: the object reaches behind a camera.

    Example:
        >>> corners = torch.tensor([[0.0, 0, 1], [0.5, 0, 1], [0, 0.2, 1]])
        >>> mesh = TriangleMesh(corners, torch.tensor([[0, 1, 2]]))
        >>> fit_camera(mesh, torch.eye(4)[None], (100, 100), fill=0.8)[0].tolist()[0]
        [160.0, 0.0, 9.5]
    """
    _check_fill(fill)
    points = transform(cam_from_obj.detach().double(), _used_vertices(mesh))
    if bool((points[..., 2] <= 0).any()):
        raise ValueError("cam_from_obj: expected the whole object in front of each camera")
    rays = points[..., :2] / points[..., 2:]
    low, high = rays.amin(1), rays.amax(1)
    size = torch.tensor(image_size, dtype=torch.float64)
    focal = (fill * size / (high - low)).amin(-1)
    K = torch.eye(3, dtype=torch.float64).repeat(len(points), 1, 1)
    K[:, 0, 0] = K[:, 1, 1] = focal
    K[:, :2, 2] = (size - 1) / 2 - focal[:, None] * (low + high) / 2
    return K


def _check_fill(fill: float) -> None:
    if not 0 < fill <= 1:
        raise ValueError(f"fill: expected a share in (0, 1], got {fill}")


def _used_vertices(mesh: TriangleMesh) -> Float[Tensor, "v 3"]:
    return mesh.vertices[mesh.faces.unique()].double()


def _radius(mesh: TriangleMesh) -> float:
    return float(_used_vertices(mesh).norm(dim=-1).max())
