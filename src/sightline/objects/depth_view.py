"""An object as a pose draws it, beside the depth that is measured about it, on one small grid of pixels."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from sightline.geometry.cameras import Camera
from sightline.geometry.depth import is_measured, pixel_grid
from sightline.objects.comparison import object_window, places_in_picture, prepared_mesh
from sightline.records import TriangleMesh
from sightline.rendering import render_views

_SIDE = 96  # pixels of the larger side of what is judged
_FEWEST_POINTS = 30
_TOLERANCE, _FINEST = 0.015, 0.002  # diameters, metres: depths so far apart agree to 1/e
_SAME_DEPTH = 0.05  # diameters: offsets so far apart are of one surface
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
    view = DepthView.open(mesh, cam_from_obj.double(), depth, camera, side=_SIDE)
    if view is None or not view.measured.any():
        return None
    agreement = float(view.agreements(cam_from_obj.double()[None])[0])
    return DepthFit(cam_from_obj.double(), agreement, view.information(cam_from_obj.double()))


class Surface(NamedTuple):
    """Points of a surface with their normals.

    Args:
        points: ``(m, 3)`` metres.
        normals: ``(m, 3)`` unit, either side.
    """

    points: Float[Tensor, "m 3"]
    normals: Float[Tensor, "m 3"]


class DepthView(NamedTuple):
    """The window about an object, and the depth that is measured in it.

    Its methods take poses ``cam_from_obj`` ``(4, 4)`` or ``(n, 4, 4)``, float64, and margins in metres.

    Args:
        mesh: the object, metres.
        window: a pinhole that frames it.
        depth: ``(r, c)`` float64 metres at the pixels of the window, 0 where missing.
    """

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
    ) -> DepthView | None:
        """The window about a pose, as coarse as asked for; None where the pose leaves the picture.

        Args:
            mesh: the object, metres.
            cam_from_obj: ``(4, 4)`` where it is thought to be.
            depth: ``(h, w)`` metres, 0 or NaN where missing.
            camera: of the depth picture.
            side: pixels of the window's larger side at most.
            reach: how far about the object it shall reach, metres.
        """
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
        near = (offsets - offsets[:, None]).abs() <= _SAME_DEPTH * self.mesh.diameter
        among = near[near.sum(1).argmax()]
        return _moved(pose, offsets[among].mean() / pose[2, 3])

    def shown_surface(self, poses: Tensor) -> Surface:
        """All that the object shows at some poses, in its own frame."""
        mask, xyz, normals = self.draw(poses, "mask", "xyz", "normals")
        towards = [(n[m] @ pose[:3, :3]) for n, m, pose in zip(normals, mask, poses, strict=True)]
        return Surface(xyz[mask], torch.cat(towards))

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

    def seen_surface(self, pose: Tensor, margin: float) -> Surface:
        """The measured surface near to an object, camera frame, its normals from neighbouring pixels."""
        points, edge = self.points(), _EDGE * self.mesh.diameter
        across, down = points[1:-1, 2:] - points[1:-1, :-2], points[2:, 1:-1] - points[:-2, 1:-1]
        normals = torch.nn.functional.normalize(torch.linalg.cross(across, down), dim=-1)
        smooth = (across.norm(dim=-1) < edge) & (down.norm(dim=-1) < edge)  # False beside a gap
        near = self.near(pose, margin)[1:-1, 1:-1] & smooth
        return Surface(points[1:-1, 1:-1][near], normals[near])

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


def _moved(pose: Tensor, share: Tensor) -> Tensor:
    """A pose farther along its ray by a share of its distance."""
    moved = pose.clone()
    moved[:3, 3] = pose[:3, 3] * (1 + share)
    return moved


def thinned(rows: Tensor, most: int) -> Tensor:
    """Not more than so many rows, evenly from all.

    Args:
        rows: ``(n, ...)``.
        most: how many.

    Example:
        >>> thinned(torch.arange(9), 3).tolist()
        [0, 4, 8]
    """
    if len(rows) <= most:
        return rows
    return rows[torch.linspace(0, len(rows) - 1, most).long()]


def _grown(mask: Tensor, pixels: int) -> Bool[Tensor, "r c"]:
    """A mask and the pixels about it."""
    wide = torch.nn.functional.max_pool2d(mask.float()[None, None], 2 * pixels + 1, 1, pixels)
    return wide[0, 0] > 0
