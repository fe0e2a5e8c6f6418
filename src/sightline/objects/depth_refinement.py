"""A pose moved until the drawn surface lies on the depth picture: point-to-plane ICP from a few starts.

What the object shows is drawn, and the measured points about it are registered to that surface
(:func:`~sightline.geometry.registration.register_to_planes`): roughly from several turns of the pose, the
drawn points to the measured surface, so that what else is measured does not pull; then finely from the best
ends, the measured points to the surface drawn anew, whose normals are without noise. Pairs may be less and
less far apart, and what lies before the object does not count against it. The depth that each end predicts,
beside the depth that is measured, says which end is the best, or whether the given pose was better.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from sightline.geometry.cameras import Camera
from sightline.geometry.poses import invert, transform
from sightline.geometry.registration import register_to_planes
from sightline.geometry.rotations import exp, geodesic_distance
from sightline.objects.depth_view import DepthFit, DepthView, Surface, judge_by_depth, thinned
from sightline.objects.verification import Verification, verify_pose
from sightline.records import PoseEstimate, TriangleMesh

_TURN = math.radians(17.0)  # of the rough starts, to all sides
_ROUGH_SIDE, _FINE_SIDE = 48, 96  # pixels of the larger side of what is drawn
_ROUGH_POINTS, _FINE_POINTS = 250, 700  # in a registration
_FEWEST_POINTS = 30
_ROUGH_REACHES, _FINE_REACHES = (0.25, 0.1), (0.05, 0.03, 0.02)  # of pairs, in diameters
_ROUGH_STEPS, _FINE_STEPS = 10, 8  # of ICP at each reach
_ROUNDS = 2  # of the fine registration, each with what the object then shows
_ROUGH_TOLERANCE = 0.04  # diameters: depths so far apart agree to 1/e
_FARTHEST = math.radians(40.0)  # that an end may be turned
_FAVOURITES = 3  # rough ends that are followed up
_SHIFT = 0.03  # metres by which the position may be wrong at the least
_COLOUR_LOSS = 0.1  # of the verification score by colour: more says that the depth shows something else


def refine_by_depth(
    mesh: TriangleMesh,
    cam_from_obj: Float[Tensor, "4 4"],
    depth: Float[Tensor, "h w"],
    camera: Camera,
    *,
    reach: float | None = None,
) -> DepthFit | None:
    """Move a pose that is roughly right, some 15 degrees and 3 cm, onto a depth picture.

    Args:
        mesh: the object, metres.
        cam_from_obj: the pose to start from.
        depth: ``(h, w)`` metres along the optical axis, 0 or NaN where missing.
        camera: of the depth picture; its distortion is taken into account.
        reach: how far off the object may be, metres; a fifth of its diameter and at least 3 cm unless given.

    Returns:
        The pose that the depth bears out best, which may be the given one; None where too little depth is
        measured about the object, or it lies outside the picture.

    Raises:
        ValueError: a depth picture whose size is not the camera's.

    Cost: 30 drawings of at most 96 pixels a side and some 20,000 searches for a nearest point.
    """
    if tuple(depth.shape) != (camera.height, camera.width):
        raise ValueError(
            f"depth: expected {camera.width}x{camera.height} pixels as its camera says, "
            f"got {depth.shape[1]}x{depth.shape[0]}"
        )
    start = cam_from_obj.double()
    reach = max(0.2 * mesh.diameter, _SHIFT) if reach is None else reach
    rough = DepthView.open(mesh, start, depth, camera, side=_ROUGH_SIDE, reach=reach)
    if rough is None or not rough.measured.any():
        return None
    starts = _turned(rough.shifted(start, reach), mesh)
    shown = thinned(rough.shown_surface(starts).points, _ROUGH_POINTS)
    ends = _register(
        shown, rough.seen_surface(start, reach), starts, _ROUGH_REACHES, _ROUGH_STEPS, mesh.diameter
    )
    candidates = _near(torch.cat([start[None], starts[:1], ends]), start)
    order = rough.agreements(candidates, _ROUGH_TOLERANCE).argsort(descending=True)
    refined = [_refine(mesh, each, depth, camera) for each in candidates[order[:_FAVOURITES]]]
    ends = torch.stack([start, *refined])
    fits = [judge_by_depth(mesh, each, depth, camera) for each in _near(ends, start)]
    return max((fit for fit in fits if fit is not None), key=lambda fit: fit.agreement, default=None)


def settle_finely(
    mesh: TriangleMesh, cam_from_obj: Float[Tensor, "4 4"], depth: Float[Tensor, "h w"], camera: Camera
) -> DepthFit | None:
    """Register a pose some degrees and millimetres off finely, and say how the depth picture bears it out.

    Args:
        mesh: the object, metres.
        cam_from_obj: the pose to start from, float64.
        depth: ``(h, w)`` metres, 0 or NaN where missing.
        camera: of the depth picture.

    Returns:
        The registered pose or the given one, whichever is borne out better; None where nothing of it is
        measured.
    """
    ends = (_refine(mesh, cam_from_obj, depth, camera), cam_from_obj)
    fits = [judge_by_depth(mesh, each, depth, camera) for each in ends]
    return max((fit for fit in fits if fit is not None), key=lambda fit: fit.agreement, default=None)


def settle_on_depth(
    mesh: TriangleMesh,
    pose: PoseEstimate,
    check: Verification,
    image: NDArray[np.uint8],
    camera: Camera,
    depth: Float[Tensor, "h w"],
) -> tuple[PoseEstimate, Verification]:
    """Move a pose onto the depth picture where colour and depth together bear that out better.

    Depth that contradicts what colour shows clearly moves nothing.

    Args:
        mesh: the object with its colours, metres.
        pose: a valid one.
        check: what the pictures say of it.
        image: ``(h, w, 3)`` uint8 RGB.
        camera: of both pictures.
        depth: ``(h, w)`` metres, 0 or NaN where missing.

    Returns:
        The better pose, with the covariance that both pictures leave, and what they say of it.
    """
    own = judge_by_depth(mesh, pose.cam_from_obj, depth, camera)
    fit = refine_by_depth(mesh, pose.cam_from_obj, depth, camera)
    if own is None or fit is None:
        return pose, check
    if torch.equal(fit.cam_from_obj, own.cam_from_obj):
        return replace(pose, covariance=_joined(pose.covariance, own.information)), check
    moved = fit.cam_from_obj
    better = verify_pose(mesh, moved, image, camera, depth=depth)
    gain, by_colour = fit.agreement - own.agreement, _by_colour(better) - _by_colour(check)
    if gain + by_colour <= 0 or by_colour < -_COLOUR_LOSS:
        return pose, check
    covariance = _joined(pose.covariance, fit.information)
    return replace(pose, R=moved[:3, :3], t=moved[:3, 3], covariance=covariance), better


def _by_colour(check: Verification) -> float:
    """What the colour picture alone says: a verification with depth is the mean of both."""
    return 2 * check.score - check.depth if math.isfinite(check.depth) else check.score


def _joined(covariance: Tensor | None, information: Tensor) -> Tensor | None:
    """The covariance of a pose of which depth says something too."""
    if covariance is None or not bool(covariance.isfinite().all()):
        return covariance
    return torch.linalg.inv(torch.linalg.pinv(covariance, hermitian=True) + information)


def _refine(mesh: TriangleMesh, cam_from_obj: Tensor, depth: Tensor, camera: Camera) -> Float[Tensor, "4 4"]:
    """Fine registration of a pose some degrees and millimetres off."""
    pose, margin = cam_from_obj, _FINE_REACHES[0] * mesh.diameter
    for _ in range(_ROUNDS):
        view = DepthView.open(mesh, pose, depth, camera, side=_FINE_SIDE, reach=margin)
        if view is None:
            return pose
        points, surface = view.points_about(pose, margin), view.shown_surface(pose[None])
        obj_from_cam = _register(
            thinned(points, _FINE_POINTS),
            surface,
            invert(pose)[None],
            _FINE_REACHES,
            _FINE_STEPS,
            mesh.diameter,
        )
        pose = invert(obj_from_cam[0])
    return pose


def _register(
    points: Tensor, surface: Surface, starts: Tensor, reaches: tuple[float, ...], steps: int, diameter: float
) -> Float[Tensor, "n 4 4"]:
    """The motions after ICP with ever nearer pairs; those that come to nothing stay what they were."""
    if len(points) < _FEWEST_POINTS or len(surface.points) < _FEWEST_POINTS:
        return starts
    motions = starts
    for reach in reaches:
        found = register_to_planes(
            points,
            *surface,
            motions,
            max_distance=reach * diameter,
            max_iterations=steps,
            tolerance=1e-4,
        )
        motions = torch.where(found.valid[:, None, None], found.b_from_a, motions)
    return motions


def _turned(pose: Tensor, mesh: TriangleMesh) -> Float[Tensor, "15 4 4"]:
    """A pose, and the same turned about the middle of the object, by the axes and the corners of a cube."""
    middle = transform(pose, mesh.bounds.double().mean(0)[None])[0]
    axes = torch.eye(3, dtype=torch.float64)
    corners = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0], dtype=torch.float64)] * 3) / math.sqrt(3)
    turns = exp(_TURN * torch.cat([torch.zeros_like(axes[:1]), axes, -axes, corners]))
    turned = pose.repeat(len(turns), 1, 1)
    turned[:, :3, :3] = turns @ pose[:3, :3]
    turned[:, :3, 3] = (turns @ (pose[:3, 3] - middle)) + middle
    return turned


def _near(poses: Tensor, start: Tensor) -> Float[Tensor, "m 4 4"]:
    """Those that are not turned too far from a start: many things look alike from behind."""
    return poses[geodesic_distance(poses[:, :3, :3], start[:3, :3].expand_as(poses[:, :3, :3])) < _FARTHEST]
