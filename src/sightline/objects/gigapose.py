"""Templates that GigaPose has rendered, as those of a card; and a mesh drawn in its layout."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from sightline.formats.gigapose_templates import (
    GIGAPOSE_CAMERA,
    DrawnView,
    GigaPoseViews,
    write_gigapose_views,
)
from sightline.geometry.symmetry import SymmetryGroup
from sightline.geometry.viewpoints import view_poses
from sightline.objects.card import ObjectCard, Provenance, Template
from sightline.records import TriangleMesh
from sightline.rendering import render_views

_RADIUS = 0.4  # metres from which GigaPose draws objects of BOP


def templates_of_views(views: Iterable[DrawnView]) -> tuple[Template, ...]:
    """Views as templates, without those in which the object was not drawn.

    Args:
        views: of one object.

    Raises:
        ValueError: none shows the object.
    """
    templates = tuple(
        Template(
            torch.from_numpy(view.color),
            torch.from_numpy(view.mask),
            torch.from_numpy(view.depth),
            view.K,
            view.cam_from_obj,
        )
        for view in views
        if view.mask.any()
    )
    if not templates:
        raise ValueError("views: expected the object in at least one of them, all are empty")
    return templates


def read_gigapose_card(
    folder: str | Path,
    obj_id: int,
    *,
    name: str,
    bounds: Float[Tensor, "2 3"],
    diameter: float,
    scale: float | int = 1.0,
    symmetries: SymmetryGroup | None = None,
    mesh: TriangleMesh | None = None,
) -> ObjectCard:
    """A card of GigaPose's templates.

    Args:
        folder: ``templates/DATASET``.
        obj_id: the object's number.
        name: the card's.
        bounds: ``(2, 3)`` corners of the object's box, metres, as ``models_info.json`` says.
        diameter: metres, likewise.
        scale: as in :class:`~sightline.formats.gigapose_templates.GigaPoseViews`.
        symmetries: none unless given.
        mesh: of the object, metres, where there is one.

    Raises:
        FileNotFoundError: poses or pictures are missing.
        ValueError: they are damaged, or none shows the object.
    """
    views = GigaPoseViews(folder, obj_id, scale=scale)
    try:
        templates = templates_of_views(views)
    except ValueError as error:
        raise error if str(views.folder) in str(error) else ValueError(f"{views.folder}: {error}") from error
    return ObjectCard(
        name=name,
        templates=templates,
        bounds=bounds.double(),
        diameter=diameter,
        symmetries=symmetries or SymmetryGroup.none(),
        mesh=mesh,
        provenance=Provenance("mesh", unit="mm", unit_reason="as GigaPose's templates"),
    )


def draw_gigapose_views(
    mesh: TriangleMesh, *, num_views: int = 162, distance: float = _RADIUS
) -> Iterable[DrawnView]:
    """Draw a mesh with GigaPose's camera, from all around, to be written in its layout.

    The views are those of :func:`~sightline.geometry.viewpoints.view_poses`, in that order, which is not the
    order of GigaPose's own: programs that read the poses understand them, programs that know them by heart do
    not.

    Args:
        mesh: metres.
        num_views: 42, 162 or 642.
        distance: of the camera from the object's origin, metres.

    Yields:
        The views.
    """
    poses = view_poses(num_views, distance)
    for pose in poses:
        drawn = render_views(mesh, pose[None], GIGAPOSE_CAMERA.K, GIGAPOSE_CAMERA.image_size)
        layers = (drawn.color[0].numpy(), drawn.mask[0].numpy(), drawn.depth[0].numpy())
        yield DrawnView(*layers, GIGAPOSE_CAMERA.K, pose)


def write_gigapose_templates(
    folder: str | Path, obj_id: int, mesh: TriangleMesh, *, num_views: int = 162, scale: float | int = 1.0
) -> None:
    """Draw a mesh as GigaPose does and write its folder of templates.

    Args:
        folder: ``templates/DATASET``.
        obj_id: the object's number.
        mesh: metres.
        num_views: 42, 162 or 642.
        scale: how many times as large as it is the object is drawn, from that many times 0.4 m.

    Example:
        >>> import tempfile
        >>> corners = torch.tensor([[-0.05, 0, 0], [0.05, 0, 0], [0, 0.05, 0], [0, 0, 0.05]]).double()
        >>> mesh = TriangleMesh(corners, torch.tensor([[0, 1, 2], [0, 1, 3], [1, 2, 3], [0, 2, 3]]))
        >>> folder = Path(tempfile.mkdtemp()) / "templates" / "toys"
        >>> write_gigapose_templates(folder, 1, mesh, num_views=42)
        >>> len(templates_of_views(GigaPoseViews(folder, 1)))
        42
    """
    write_gigapose_views(folder, obj_id, draw_gigapose_views(mesh, num_views=num_views), scale=scale)
