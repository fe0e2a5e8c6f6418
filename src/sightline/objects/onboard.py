"""From a mesh to a card: views from all around, each filling its frame, and what the mesh tells of itself."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from sightline.geometry.symmetry import SymmetryGroup
from sightline.geometry.viewpoints import view_poses
from sightline.objects.card import ObjectCard, Provenance, Template
from sightline.objects.lighting import template_lights
from sightline.objects.symmetry_search import find_symmetries
from sightline.records import TriangleMesh
from sightline.rendering import fit_camera, render_views

# Far enough for a perspective like that of pictures in which the object is a part of the scene.
_DISTANCE_IN_DIAMETERS = 4.0


def onboard_mesh(
    mesh: TriangleMesh,
    *,
    name: str,
    num_views: int = 162,
    template_size: int = 224,
    fill: float = 0.87,
    symmetries: SymmetryGroup | None = None,
    provenance: Provenance | None = None,
) -> ObjectCard:
    """Make a card from a mesh alone.

    Args:
        mesh: the object's surface, metres.
        name: the object's name.
        num_views: 42, 162 or 642 directions, spread evenly over the sphere.
        template_size: side of each square template, pixels.
        fill: share of the frame that the object's larger extent fills.
        symmetries: known symmetries; searched for in shape and colour when not given.
        provenance: where the mesh comes from.

    Returns:
        The card, not yet saved.

    Raises:
        ValueError: a mesh without extent, or a number of views that is not offered.
    """
    if symmetries is None:
        symmetries = find_symmetries(mesh).group
    return ObjectCard(
        name=name,
        templates=render_templates(mesh, num_views=num_views, template_size=template_size, fill=fill),
        bounds=mesh.bounds.double(),
        diameter=mesh.diameter,
        symmetries=symmetries,
        mesh=mesh,
        provenance=provenance or Provenance("mesh"),
    )


def render_templates(
    mesh: TriangleMesh,
    *,
    num_views: int = 162,
    template_size: int = 224,
    fill: float = 0.87,
    front: Float[Tensor, "3"] | None = None,
) -> tuple[Template, ...]:
    """Views of a mesh from all around, each framed so that the object fills it.

    Args:
        mesh: the object's surface, metres.
        num_views: 42, 162 or 642.
        template_size: side of each square picture, pixels.
        fill: share of the frame that the object's larger extent fills.
        front: unit direction, object frame, within 70 degrees of which views are kept; all when not given.

    Returns:
        One template a view.
    """
    cam_from_obj = _orbit(mesh, num_views)
    if front is not None:
        cam_from_obj = cam_from_obj[-cam_from_obj[:, 2, :3] @ front > math.cos(math.radians(70))]
    K = fit_camera(mesh, cam_from_obj, (template_size, template_size), fill)
    pictures = render_views(
        mesh, cam_from_obj, K, (template_size, template_size), lights=template_lights(mesh), samples=2
    )
    return tuple(
        Template(pictures.color[i], pictures.mask[i], pictures.depth[i], K[i], cam_from_obj[i])
        for i in range(len(K))
        if bool(pictures.mask[i].any())
    )


def _orbit(mesh: TriangleMesh, num_views: int) -> Float[Tensor, "n 4 4"]:
    """Poses around the centre of the box of the mesh, which need not be the mesh's origin."""
    extent = mesh.diameter
    if not extent > 0:
        raise ValueError(f"mesh: expected an extent above zero, got a diameter of {extent} m")
    cam_from_centred = view_poses(num_views, _DISTANCE_IN_DIAMETERS * extent)
    centred_from_obj = torch.eye(4, dtype=torch.float64)
    centred_from_obj[:3, 3] = -mesh.bounds.double().mean(0)
    return cam_from_centred @ centred_from_obj
