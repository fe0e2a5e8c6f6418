"""Found objects drawn on their picture."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from sightline.geometry.cameras import Camera
from sightline.geometry.poses import transform
from sightline.pipeline.estimate import FoundObject
from sightline.rendering import render_views
from sightline.vis.matches import explain_matches, most_used_template
from sightline.vis.pose_overlays import draw_poses


def silhouette(found: FoundObject, camera: Camera) -> NDArray[np.bool_] | None:
    """The object's mask at its pose as the camera, lens distortion included, would see it unoccluded.

    Args:
        found: the object.
        camera: the picture's camera.

    Returns:
        ``(h, w)`` bool; None for an invalid pose or a card without a mesh.
    """
    mesh = found.card.mesh
    if mesh is None or not found.pose.valid:
        return None
    rendered = render_views(
        mesh, found.pose.cam_from_obj[None], camera.K, camera.image_size, outputs=("mask",)
    )
    mask = rendered.mask[0].numpy()
    if camera.distortion is None:
        return mask
    v, u = torch.meshgrid(
        torch.arange(camera.height, dtype=torch.float64),
        torch.arange(camera.width, dtype=torch.float64),
        indexing="ij",
    )
    rays = camera.unproject(torch.stack([u, v], dim=-1), torch.ones_like(u))
    straight = Camera(camera.K, camera.width, camera.height).project(rays).nan_to_num(nan=-1).float().numpy()
    return cv2.remap(mask.astype(np.uint8), straight[..., 0], straight[..., 1], cv2.INTER_NEAREST) > 0


def quadrilateral(found: FoundObject, camera: Camera) -> NDArray[np.float64] | None:
    """The four corners of a flat object in the picture.

    Args:
        found: the object.
        camera: the picture's camera.

    Returns:
        ``(4, 2)`` pixels in order around it; None for an invalid pose or an object that is not flat.
    """
    low, high = found.card.bounds
    if not found.pose.valid or float((high - low).min()) > 1e-3 * found.card.diameter:
        return None
    thin = int((high - low).argmin())
    first, second = (axis for axis in range(3) if axis != thin)
    corners = low.repeat(4, 1)
    corners[1:3, first] = high[first]
    corners[2:, second] = high[second]
    return camera.project(transform(found.pose.cam_from_obj, corners)).numpy()


def draw_found(image: NDArray[np.uint8], camera: Camera, found: list[FoundObject]) -> NDArray[np.uint8]:
    """The standard overlay: contour, box, axes and label of each object, and what was not found, with why.

    Args:
        image: ``(h, w, 3)`` uint8 RGB.
        camera: its camera.
        found: the objects.

    Returns:
        A new picture.
    """
    return draw_poses(
        image,
        camera,
        [one.pose for one in found],
        bounds=[one.card.bounds for one in found],
        masks=[silhouette(one, camera) for one in found],
    )


def draw_evidence(image: NDArray[np.uint8], camera: Camera, found: FoundObject) -> NDArray[np.uint8] | None:
    """The template that most matches came from, beside the part of the picture that they lie in.

    Args:
        image: ``(h, w, 3)`` uint8 RGB.
        camera: its camera.
        found: one object.

    Returns:
        A picture, or None where there are no matches to show.
    """
    matches = found.correspondences
    if matches is None or not found.pose.valid or len(matches) == 0:
        return None
    index = most_used_template(matches, found.pose.inliers)
    if index < 0:
        return None
    template = found.card.templates[index].color.numpy()
    return explain_matches(image, camera, found.pose, matches, template, template_index=index)
