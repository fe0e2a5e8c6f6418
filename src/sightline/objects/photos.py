"""From photographs to a card: with a mesh they are baked onto it, without one they are matched in 3-D."""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from sightline.geometry.cameras import Camera
from sightline.geometry.pnp import solve_pnp
from sightline.geometry.symmetry import SymmetryGroup
from sightline.objects.baking import PosedPhoto, bake_photos
from sightline.objects.card import ObjectCard, Provenance, Template
from sightline.objects.onboard import render_templates
from sightline.records import TriangleMesh
from sightline.rendering import render_views

_MAX_CORNER_ERROR = 0.02  # of the picture's width: clicked points are rarely better than a few pixels


def solve_photo_pose(
    camera: Camera, object_points: Float[Tensor, "n 3"], image_points: Float[Tensor, "n 2"], *, name: str
) -> Float[Tensor, "4 4"]:
    """The pose of the object in a photograph from pairs of points.

    Args:
        camera: the photograph's camera.
        object_points: ``(n, 3)`` metres, n >= 4.
        image_points: ``(n, 2)`` pixels.
        name: the photograph, for messages.

    Returns:
        ``cam_from_obj``, metres.

    Raises:
        ValueError: too few points, or points that no pose explains.
    """
    result = solve_pnp(
        image_points, object_points, camera, max_error_px=_MAX_CORNER_ERROR * camera.width, min_inliers=4
    )
    if not result.valid:
        raise ValueError(f"{name}: no pose explains its point pairs: {result.reason}")
    return result.cam_from_obj


def onboard_photos_on_mesh(
    mesh: TriangleMesh,
    photos: list[PosedPhoto],
    *,
    name: str,
    num_views: int = 162,
    template_size: int = 224,
    provenance: Provenance | None = None,
) -> tuple[ObjectCard, float]:
    """Make a card from a plain mesh and posed photographs of the object.

    The photographs are baked onto the mesh and views of it rendered; the photographs themselves are templates
    too, since nothing is as sharp. Symmetries are none: a print is rarely symmetric, and the unseen side of
    the object is unknown.

    Args:
        mesh: the object's surface, metres.
        photos: at least one.
        name: the object's name.
        num_views: 42, 162 or 642 rendered views.
        template_size: side of each rendered view, pixels.
        provenance: where all this comes from.

    Returns:
        The card, not yet saved, and the share of the surface that the photographs show.

    Raises:
        ValueError: no photograph, or none that sees the mesh.
    """
    textured, share = bake_photos(mesh, photos)
    views = render_templates(textured, num_views=num_views, template_size=template_size)
    card = ObjectCard(
        name=name,
        templates=(*(photo_template(mesh, photo) for photo in photos), *views),
        bounds=mesh.bounds.double(),
        diameter=mesh.diameter,
        symmetries=SymmetryGroup.none(),
        mesh=textured,
        provenance=provenance or Provenance("mesh+photos"),
    )
    return card, share


def photo_template(mesh: TriangleMesh, photo: PosedPhoto) -> Template:
    """The part of a photograph that shows the object, as a template with the depth that the mesh gives.

    Raises:
        ValueError: the object lies outside the photograph.
    """
    photo = straighten(photo)
    camera = photo.camera
    rendered = render_views(
        mesh, photo.cam_from_obj[None], camera.K, camera.image_size, outputs=("depth", "mask")
    )
    mask = rendered.mask[0] if photo.mask is None else rendered.mask[0] & photo.mask
    if not bool(mask.any()):
        raise ValueError("photo: at its pose the object covers no pixel of it")
    rows, columns = mask.any(1).nonzero()[:, 0], mask.any(0).nonzero()[:, 0]
    margin = 8
    y0, y1 = max(int(rows[0]) - margin, 0), min(int(rows[-1]) + margin + 1, camera.height)
    x0, x1 = max(int(columns[0]) - margin, 0), min(int(columns[-1]) + margin + 1, camera.width)
    window = (slice(y0, y1), slice(x0, x1))
    return Template(
        color=photo.image[window].contiguous(),
        mask=mask[window].contiguous(),
        depth=torch.where(mask, rendered.depth[0], 0.0)[window].contiguous(),
        K=camera.crop(x0, y0, x1 - x0, y1 - y0).K,
        cam_from_obj=photo.cam_from_obj,
        source="photo",
    )


def straighten(photo: PosedPhoto) -> PosedPhoto:
    """The photograph as a camera without lens distortion would have taken it.

    Args:
        photo: any; one without distortion is returned as it is.

    Returns:
        The photograph and its mask, resampled, with a pinhole of the same intrinsics.
    """
    camera = photo.camera
    if camera.distortion is None:
        return photo
    import cv2

    K, distortion = camera.K.numpy(), camera.distortion.numpy()
    image = torch.from_numpy(cv2.undistort(photo.image.numpy(), K, distortion))
    mask = photo.mask
    if mask is not None:
        straight = cv2.undistort(mask.numpy().astype("uint8"), K, distortion)
        mask = torch.from_numpy(straight > 0)
    return replace(photo, image=image, mask=mask, camera=Camera(camera.K, camera.width, camera.height))


def onboard_flat(
    picture: UInt8[Tensor, "h w 3"],
    width_m: float,
    *,
    name: str,
    template_size: int = 224,
    provenance: Provenance | None = None,
) -> ObjectCard:
    """Make a card of a flat object (a book's cover, a poster, a label) from one frontal picture of it.

    Args:
        picture: ``(h, w, 3)`` uint8 RGB that shows the object from edge to edge.
        width_m: the object's real width, metres.
        name: the object's name.
        template_size: side of each rendered view, pixels.
        provenance: where the picture comes from.

    Returns:
        The card, not yet saved; its front faces -z, x points right and y down, as in the picture.

    Raises:
        ValueError: a width that is not positive.
    """
    mesh = flat_mesh(picture, width_m)
    height, width = picture.shape[:2]
    # the picture itself, as a camera three widths away would see it
    cam_from_obj = torch.eye(4, dtype=torch.float64)
    cam_from_obj[2, 3] = 3 * width_m
    front = torch.tensor([0.0, 0.0, -1.0], dtype=torch.float64)
    return ObjectCard(
        name=name,
        templates=(
            Template(
                color=picture,
                mask=torch.ones(height, width, dtype=torch.bool),
                depth=torch.full((height, width), 3 * width_m),
                K=Camera.from_focal(3.0 * width, width, height).K,
                cam_from_obj=cam_from_obj,
                source="photo",
            ),
            *render_templates(mesh, template_size=template_size, front=front),
        ),
        bounds=mesh.bounds,
        diameter=mesh.diameter,
        symmetries=SymmetryGroup.none(),
        mesh=mesh,
        provenance=provenance or Provenance("flat"),
    )


def flat_mesh(picture: UInt8[Tensor, "h w 3"], width_m: float) -> TriangleMesh:
    """A flat rectangle that bears a picture, its centre at the origin, facing -z.

    Args:
        picture: ``(h, w, 3)`` uint8 RGB.
        width_m: the real width, metres.

    Returns:
        The mesh: x to the right and y down, as in the picture.

    Raises:
        ValueError: a width that is not positive.
    """
    if not width_m > 0:
        raise ValueError(f"width: expected a positive number of metres, got {width_m}")
    height, width = picture.shape[:2]
    unit = torch.tensor([[0, 0], [1, 0], [1, 1], [0, 1]], dtype=torch.float64)
    extent = torch.tensor([width_m, width_m * height / width], dtype=torch.float64)
    corners = torch.cat([(unit - 0.5) * extent, torch.zeros(4, 1, dtype=torch.float64)], dim=1)
    faces = torch.tensor([[0, 2, 1], [0, 3, 2]])  # counter-clockwise for a viewer at negative z
    return TriangleMesh(corners, faces, uv=unit[faces].float(), texture=picture)
