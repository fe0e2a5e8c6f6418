"""Views all around an object: icosphere directions, the cameras that stand there, and the nearest of them.

A *view direction* points from the object to the camera and is given in the object's frame; a turn of
the picture in its plane does not change it.
"""

from __future__ import annotations

import functools
import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sightline.geometry.poses import look_at
from sightline.geometry.rotations import angle_between

_SUBDIVISIONS = {42: 1, 162: 2, 642: 3}


def icosphere_directions(num_views: int) -> Float[Tensor, "num_views 3"]:
    """Nearly even directions: an icosahedron whose edges are halved once, twice or three times.

    Neighbours are 31.7 (42 views), 15.9 to 16.4 (162) and 7.9 to 9.1 degrees (642) apart; no direction is
    farther than 20.9, 10.8 and 5.5 degrees from the nearest view. The smaller sets are the first rows of the
    larger ones, and each set contains the opposite of each of its directions.

    Args:
        num_views: 42, 162 or 642.

    Returns:
        ``(num_views, 3)`` float64 unit vectors.

    Raises:
        ValueError: another number of views.

    Example:
        >>> icosphere_directions(162).shape
        torch.Size([162, 3])
    """
    if num_views not in _SUBDIVISIONS:
        raise ValueError(f"num_views: expected 42, 162 or 642, got {num_views}")
    return _icosphere(_SUBDIVISIONS[num_views])[0].clone()


def view_poses(
    num_views: int,
    distance: float | Float[Tensor, "..."],
    *,
    center: Float[Tensor, "3"] | None = None,
    up: Float[Tensor, "3"] | None = None,
) -> Float[Tensor, "num_views 4 4"]:
    """Cameras on a sphere around an object, all looking at its centre with ``up`` upwards in the picture.

    From straight above or below, where ``up`` has no direction in the picture, +y is upwards.

    Args:
        num_views: 42, 162 or 642.
        distance: metres from the camera to ``center``, one for all or one a view.
        center: ``(3,)`` metres, the point looked at in the object frame; its origin if not given.
        up: ``(3,)`` the direction that points upwards, object frame; +z if not given.

    Returns:
        ``(num_views, 4, 4)`` float64 transforms ``cam_from_obj``, in the order of the directions.

    Raises:
        ValueError: another number of views, or a distance that is not positive.

    Example:
        >>> view_poses(42, 0.5)[:, :3, 3].mean(0)
        tensor([0.0000, 0.0000, 0.5000], dtype=torch.float64)
    """
    directions = icosphere_directions(num_views)
    distances = torch.as_tensor(distance, dtype=directions.dtype)
    if not bool((distances > 0).all()):
        raise ValueError(f"distance: expected positive metres, got {distance}")
    target = directions.new_zeros(3) if center is None else center.to(directions)
    eyes = target + directions * distances.reshape(-1, 1)
    return look_at(eyes, target, None if up is None else up.to(directions))


def view_direction(R: Float[Tensor, "*batch 3 3"]) -> Float[Tensor, "*batch 3"]:
    """Where the camera stands, seen from the object: ``-R[2]`` of an OpenCV rotation.

    For a camera that looks at the object's origin this is its normalised centre ``-R^T t``. It does not
    change when the picture is turned in its plane.

    Args:
        R: ``(*batch, 3, 3)`` rotations ``cam_from_obj``.

    Returns:
        ``(*batch, 3)`` unit vectors from the object to the camera, object frame.

    Example:
        >>> view_direction(torch.eye(3))
        tensor([-0., -0., -1.])
    """
    return -R[..., 2, :]


def nearest_views(
    directions: Float[Tensor, "*batch 3"], views: Float[Tensor, "n 3"], k: int = 1
) -> tuple[Int[Tensor, "*batch k"], Float[Tensor, "*batch k"]]:
    """The ``k`` views nearest to each direction, nearest first; turns in the picture's plane do not count.

    Args:
        directions: ``(*batch, 3)`` unit vectors to look up.
        views: ``(n, 3)`` unit vectors to choose from.
        k: how many, at most ``n``.

    Returns:
        ``(*batch, k)`` int64 indices into ``views`` and ``(*batch, k)`` angles, radians.

    Example:
        >>> views = icosphere_directions(42)
        >>> nearest_views(views[7], views)[0]
        tensor([7])
    """
    views = views.to(directions)
    indices = (directions @ views.mT).topk(k, dim=-1).indices
    return indices, angle_between(directions[..., None, :], views[indices])


@functools.cache
def _icosphere(subdivisions: int) -> tuple[Tensor, Tensor]:
    if subdivisions == 0:
        return _icosahedron()
    vertices, faces = _icosphere(subdivisions - 1)
    # each edge once, whichever of its two faces names it
    edges = torch.stack([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]], dim=1)
    unique, which = edges.reshape(-1, 2).sort(dim=-1).values.unique(dim=0, return_inverse=True)
    middles = torch.nn.functional.normalize(vertices[unique].sum(dim=1), dim=-1)
    ab, bc, ca = (which.reshape(-1, 3) + len(vertices)).unbind(-1)
    a, b, c = faces.unbind(-1)
    corners = ((a, ab, ca), (b, bc, ab), (c, ca, bc), (ab, bc, ca))
    return torch.cat([vertices, middles]), torch.cat([torch.stack(triple, dim=-1) for triple in corners])


def _icosahedron() -> tuple[Tensor, Tensor]:
    """Twelve vertices ``(0, +-1, +-golden)``, cycled; the faces are the triples of mutual neighbours."""
    golden = (1 + math.sqrt(5)) / 2
    signs = torch.cartesian_prod(torch.tensor([1.0, -1.0]), torch.tensor([golden, -golden])).double()
    third = torch.cat([torch.zeros(4, 1, dtype=torch.float64), signs], dim=1)
    vertices = torch.cat([third.roll(shift, dims=1) for shift in range(3)])
    vertices = vertices / vertices[0].norm()
    near = (vertices @ vertices.mT - 1 / math.sqrt(5)).abs() < 1e-6
    triples = torch.combinations(torch.arange(12), 3)
    a, b, c = triples.unbind(-1)
    return vertices, triples[near[a, b] & near[b, c] & near[c, a]]
