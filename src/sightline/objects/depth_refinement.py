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
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from torch import Tensor

from sightline.geometry.cameras import Camera
from sightline.geometry.depth import is_measured, pixel_grid
from sightline.geometry.poses import invert, transform
from sightline.geometry.registration import register_to_planes
from sightline.geometry.rotations import exp, geodesic_distance
from sightline.objects.comparison import object_window, places_in_picture, prepared_mesh
from sightline.objects.verification import Verification, verify_pose
from sightline.records import PoseEstimate, TriangleMesh
from sightline.rendering import render_views

_TURN = math.radians(13.0)  # of the rough starts about each axis of the camera
_ROUGH_SIDE, _FINE_SIDE = 48, 96  # pixels of the larger side of what is drawn
_ROUGH_POINTS, _FINE_POINTS = 250, 700  # in a registration
_FEWEST_POINTS = 30
_ROUGH_REACHES, _FINE_REACHES = (0.25, 0.1), (0.05, 0.03, 0.02)  # of pairs, in diameters
_ROUGH_STEPS, _FINE_STEPS = 10, 8  # of ICP at each reach
_ROUNDS = 2  # of the fine registration, each with what the object then shows
_FARTHEST = math.radians(40.0)  # that an end may be turned: many things look alike from behind
_FAVOURITES = 3  # rough ends that are followed up
_SHIFT = 0.03  # metres by which the depth may be wrong at the least
_ROUGH_TOLERANCE, _TOLERANCE = 0.04, 0.015  # diameters: depths so far apart agree to 1/e
_FINEST = 0.002  # metres, of the tolerance
_EDGE = 0.1  # diameters: neighbours in depth that are farther apart are no surface
_HIDDEN = 0.3  # what a pixel counts before which something nearer lies
_COMMON_ERROR = 40.0  # neighbouring pixels err together: so many of them count as one
_BIAS = 0.0015  # metres that all of a depth picture may be off


class DepthFit(NamedTuple):
    """A pose and what a depth picture says of it.

    Args:
        cam_from_obj: ``(4, 4)`` float64 metres.
        agreement: of the measured depth with the drawn one, mean over the object's pixels, [0, 1].
        information: ``(6, 6)`` inverse covariance of the pose from the depth alone, by ``(w, v)`` in
            ``R' = exp(w) R``, ``t' = t + v``, 1/rad^2 and 1/m^2; singular where the surface leaves a motion
            open.
    """

    cam_from_obj: Float[Tensor, "4 4"]
    agreement: float
    information: Float[Tensor, "6 6"]


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
    rough = _View.open(mesh, start, depth, camera, side=_ROUGH_SIDE, reach=reach)
    if rough is None or not rough.measured.any():
        return None
    starts = _turned(rough.shifted(start, reach), mesh)
    shown = rough.surface(starts).thinned(_ROUGH_POINTS)
    ends = _register(
        shown.points, rough.seen_surface(start, reach), starts, _ROUGH_REACHES, _ROUGH_STEPS, mesh.diameter
    )
    candidates = torch.cat([start[None], starts[:1], ends])
    order = rough.agreements(candidates, _ROUGH_TOLERANCE).argsort(descending=True)
    fits = [_refine(mesh, each, depth, camera) for each in candidates[order[:_FAVOURITES]]]
    near = [fit for fit in fits if fit is not None and _turn_between(fit.cam_from_obj, start) < _FARTHEST]
    given = judge_by_depth(mesh, start, depth, camera)
    return max(near if given is None else [*near, given], key=lambda fit: fit.agreement, default=None)


def judge_by_depth(
    mesh: TriangleMesh, cam_from_obj: Float[Tensor, "4 4"], depth: Float[Tensor, "h w"], camera: Camera
) -> DepthFit | None:
    """Say how well a depth picture bears out a pose, and how well it fixes it.

    Args:
        mesh: the object, metres.
        cam_from_obj: the pose.
        depth: ``(h, w)`` metres, 0 or NaN where missing.
        camera: of the depth picture.

    Returns:
        The pose with its figures; None where nothing of the object is in the picture, or nothing of it is
        measured.
    """
    view = _View.open(mesh, cam_from_obj.double(), depth, camera, side=_FINE_SIDE)
    if view is None or not view.measured.any():
        return None
    agreement = float(view.agreements(cam_from_obj.double()[None])[0])
    return DepthFit(cam_from_obj.double(), agreement, view.information(cam_from_obj.double()))


def settle_on_depth(
    mesh: TriangleMesh,
    pose: PoseEstimate,
    check: Verification,
    image: NDArray[np.uint8],
    camera: Camera,
    depth: Float[Tensor, "h w"],
) -> tuple[PoseEstimate, Verification]:
    """Move a pose onto the depth picture where colour and depth together bear that out better.

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
    better = verify_pose(mesh, fit.cam_from_obj, image, camera, depth=depth)
    if _by_colour(better) + fit.agreement <= _by_colour(check) + own.agreement:
        return replace(pose, covariance=_joined(pose.covariance, own.information)), check
    moved = fit.cam_from_obj
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


def _refine(mesh: TriangleMesh, cam_from_obj: Tensor, depth: Tensor, camera: Camera) -> DepthFit | None:
    """Fine registration from a pose some degrees and millimetres off."""
    pose = cam_from_obj
    for _ in range(_ROUNDS):
        margin = _FINE_REACHES[0] * mesh.diameter
        view = _View.open(mesh, pose, depth, camera, side=_FINE_SIDE, reach=margin)
        if view is None:
            return None
        points, surface = view.points_about(pose, margin), view.surface(pose[None])
        obj_from_cam = _register(
            _thinned(points, _FINE_POINTS),
            surface,
            invert(pose)[None],
            _FINE_REACHES,
            _FINE_STEPS,
            mesh.diameter,
        )
        pose = invert(obj_from_cam[0])
    return judge_by_depth(mesh, pose, depth, camera)


class _Surface(NamedTuple):
    """Points of a surface with their normals."""

    points: Float[Tensor, "m 3"]
    normals: Float[Tensor, "m 3"]

    def thinned(self, most: int) -> _Surface:
        """Not more than so many of them."""
        return _Surface(_thinned(self.points, most), _thinned(self.normals, most))


class _View(NamedTuple):
    """The window about an object, and the depth that is measured in it."""

    mesh: TriangleMesh
    window: Camera
    depth: Float[Tensor, "r c"]

    @classmethod
    def open(
        cls,
        mesh: TriangleMesh,
        cam_from_obj: Tensor,
        depth: Tensor,
        camera: Camera,
        *,
        side: int,
        reach: float = 0.0,
    ) -> _View | None:
        """The window about a pose, as coarse as asked for; None where the pose leaves the picture."""
        window = object_window(mesh, cam_from_obj, camera, side=side, reach=reach)
        if window is None:
            return None
        places = places_in_picture(window, camera).round()
        inside = ((places >= 0) & (places < torch.tensor(camera.image_size))).all(-1)
        columns, rows = torch.where(inside[..., None], places, 0.0).long().unbind(-1)
        seen = depth.double().nan_to_num(nan=0.0)[rows, columns]
        return cls(mesh, window, torch.where(inside, seen, 0.0))

    @property
    def measured(self) -> Bool[Tensor, "r c"]:
        """Which pixels have a depth."""
        return is_measured(self.depth)

    def draw(self, poses: Tensor, *outputs: str) -> list[Tensor]:
        """What the object looks like at ``(n, 4, 4)`` poses, float64 but for masks."""
        drawn = render_views(
            prepared_mesh(self.mesh), poses, self.window.K, self.window.image_size, outputs=outputs
        )
        layers = [getattr(drawn, name) for name in outputs]
        return [layer if layer.dtype == torch.bool else layer.double() for layer in layers]

    def shifted(self, pose: Tensor, reach: float) -> Tensor:
        """The pose moved along its ray to where most of the measured depth behind its outline is."""
        drawn = self.draw(pose[None], "depth")[0][0]
        offsets = (self.depth - drawn)[(drawn > 0) & self.measured]
        offsets = offsets[offsets.abs() <= reach]
        offsets = offsets[:: max(1, len(offsets) // 300)]
        if len(offsets) == 0:
            return pose
        near = (offsets - offsets[:, None]).abs() <= 0.05 * self.mesh.diameter
        among = near[near.sum(1).argmax()]
        return _moved(pose, offsets[among].mean() / pose[2, 3])

    def surface(self, poses: Tensor) -> _Surface:
        """All that the object shows at some poses, in its own frame."""
        mask, xyz, normals = self.draw(poses, "mask", "xyz", "normals")
        towards = [(n[m] @ pose[:3, :3]) for n, m, pose in zip(normals, mask, poses, strict=True)]
        return _Surface(xyz[mask], torch.cat(towards))

    def points(self) -> Float[Tensor, "r c 3"]:
        """What is measured, camera frame; NaN where nothing is."""
        places = pixel_grid(self.window.width, self.window.height)
        depth = torch.where(self.measured, self.depth, torch.nan)
        return self.window.unproject(places, depth)

    def near(self, pose: Tensor, margin: float) -> Bool[Tensor, "r c"]:
        """Which pixels are measured near to the object's outline and depth."""
        drawn = self.draw(pose[None], "depth")[0][0]
        if not bool((drawn > 0).any()):
            return torch.zeros_like(self.measured)
        pixels = math.ceil(margin * float(self.window.K[0, 0]) / float(pose[2, 3]))
        low, high = drawn[drawn > 0].aminmax()
        about = _grown(drawn > 0, pixels)
        return about & self.measured & (self.depth > low - margin) & (self.depth < high + margin)

    def points_about(self, pose: Tensor, margin: float) -> Float[Tensor, "n 3"]:
        """Measured points near to an object, camera frame."""
        return self.points()[self.near(pose, margin)]

    def seen_surface(self, pose: Tensor, margin: float) -> _Surface:
        """The measured surface near to an object, camera frame, its normals from neighbouring pixels."""
        points, edge = self.points(), _EDGE * self.mesh.diameter
        across, down = points[1:-1, 2:] - points[1:-1, :-2], points[2:, 1:-1] - points[:-2, 1:-1]
        normals = torch.nn.functional.normalize(torch.linalg.cross(across, down), dim=-1)
        smooth = (across.norm(dim=-1) < edge) & (down.norm(dim=-1) < edge)  # False beside a gap
        near = self.near(pose, margin)[1:-1, 1:-1] & smooth
        return _Surface(points[1:-1, 1:-1][near], normals[near])

    def agreements(self, poses: Tensor, tolerance: float = _TOLERANCE) -> Float[Tensor, " n"]:
        """How well the measured depth bears out each pose, [0, 1]."""
        drawn = self.draw(poses, "depth")[0]
        known = (drawn > 0) & self.measured
        offset = (self.depth - drawn) / max(tolerance * self.mesh.diameter, _FINEST)
        agrees = torch.where(known, torch.exp(-offset.square()), 0.0).sum((1, 2))
        counts = torch.where(offset < -3, _HIDDEN, 1.0) * known
        # what lies outside the window or is not measured is not borne out, only not contradicted
        least = 0.3 * (drawn > 0).sum((1, 2)).clamp_min(_FEWEST_POINTS)
        return agrees / torch.maximum(counts.sum((1, 2)), least)

    def information(self, pose: Tensor) -> Float[Tensor, "6 6"]:
        """What point-to-plane distances say of a pose, ``J^T J / sigma^2``."""
        mask, drawn, normals = (layer[0] for layer in self.draw(pose[None], "mask", "depth", "normals"))
        tolerance = 3 * max(_TOLERANCE * self.mesh.diameter, _FINEST)
        used = mask & self.measured & ((self.depth - drawn).abs() < tolerance)
        if int(used.sum()) < _FEWEST_POINTS:
            return torch.zeros(6, 6, dtype=torch.float64)
        places = pixel_grid(self.window.width, self.window.height)[used]
        points = self.window.unproject(places, drawn[used])
        across = normals[used]
        misses = (across * (self.window.unproject(places, self.depth[used]) - points)).sum(-1)
        sigma = 1.4826 * float(misses.abs().median()) + _BIAS
        jacobian = torch.cat([torch.linalg.cross(points - pose[:3, 3], across), across], -1)
        return jacobian.mT @ jacobian / (sigma**2 * _COMMON_ERROR)


def _register(
    points: Tensor, surface: _Surface, starts: Tensor, reaches: tuple[float, ...], steps: int, diameter: float
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


def _turned(pose: Tensor, mesh: TriangleMesh) -> Float[Tensor, "7 4 4"]:
    """A pose, and the same turned both ways about the middle of the object and each axis of the camera."""
    middle = transform(pose, mesh.bounds.double().mean(0)[None])[0]
    axes = torch.eye(3, dtype=torch.float64)
    turns = exp(_TURN * torch.cat([torch.zeros_like(axes[:1]), axes, -axes]))
    turned = pose.repeat(len(turns), 1, 1)
    turned[:, :3, :3] = turns @ pose[:3, :3]
    turned[:, :3, 3] = (turns @ (pose[:3, 3] - middle)) + middle
    return turned


def _turn_between(a: Tensor, b: Tensor) -> float:
    return float(geodesic_distance(a[:3, :3], b[:3, :3]))


def _moved(pose: Tensor, share: Tensor) -> Tensor:
    """A pose farther along its ray by a share of its distance."""
    moved = pose.clone()
    moved[:3, 3] = pose[:3, 3] * (1 + share)
    return moved


def _thinned(rows: Tensor, most: int) -> Tensor:
    """Not more than so many rows, evenly from all."""
    if len(rows) <= most:
        return rows
    return rows[torch.linspace(0, len(rows) - 1, most).long()]


def _grown(mask: Tensor, pixels: int) -> Bool[Tensor, "r c"]:
    """A mask and the pixels about it."""
    wide = torch.nn.functional.max_pool2d(mask.float()[None, None], 2 * pixels + 1, 1, pixels)
    return wide[0, 0] > 0
