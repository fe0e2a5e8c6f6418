"""A pose from a depth picture and a box: what each view would measure, beside what is measured.

Every view of the object, at every turn in the picture's plane, is a few points of its surface and a few just
beside its outline (:mod:`~sightline.objects.shown_points`). Laid into the box they read the depth picture:
where it agrees with them speaks for the hypothesis, where it is farther away the object cannot be (free
space), where it is nearer something hides the object, and beside the outline the surface must not go on. One
pass over all hypotheses finds their distances, one reads the best of them again, a few projective
point-to-plane steps (Blais and Levine, 1995) bring these home, and those that end well are registered finely.
A colour picture, where there is one, tells apart what the depth cannot: the sides of a can by its print.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import cv2
import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from sightline.geometry.cameras import Camera
from sightline.geometry.depth import is_measured
from sightline.geometry.poses import make_pose
from sightline.geometry.rotations import exp, geodesic_distance
from sightline.objects.depth_refinement import settle_finely
from sightline.objects.depth_view import DepthFit
from sightline.objects.shown_points import ShownPoints, shown_points
from sightline.records import TriangleMesh

_NUM_TURNS = 24  # in the picture's plane
_BIN = 0.05  # diameters between the distances that are tried
_REACH = 1.5  # diameters by which the distance that the box says may be wrong
_ROUGH, _FINE = 0.06, 0.025  # diameters: depths so far apart agree
_FREE, _HIDDEN, _BESIDE = 0.7, 0.3, 0.3  # what a point counts before the measured surface, behind it, beside
_BOX_MISFIT = 0.3  # what a shape of the outline counts that differs from the box's by a factor e
_SHIFT = 0.06  # diameters between the places that are tried
_FIRST, _SECOND, _THIRD = 600, 150, 40  # hypotheses that are read again, stepped, and turned a little
_PRINT = 0.4  # what colours count that are alike
_COLOR_NOISE = 10.0  # grey levels
_BLUR = 0.015  # of the picture, in larger sides of the box
_TURNS = (-0.16, -0.08, 0.08, 0.16)  # radians about each of the object's axes
_STEP_REACHES = (0.2, 0.2, 0.15, 0.15, 0.1, 0.1, 0.07, 0.07, 0.05, 0.05)  # of pairs at each step, diameters
_SAME_TURN, _SAME_PLACE = math.radians(12.0), 0.1  # radians, diameters: nearer hypotheses are one


def search_by_depth(
    mesh: TriangleMesh,
    depth: Float[Tensor, "h w"],
    camera: Camera,
    box: Float[Tensor, "4"],
    *,
    image: NDArray[np.uint8] | None = None,
    most: int = 3,
) -> list[DepthFit]:
    """Find poses of an object in a box that the depth picture bears out.

    Args:
        mesh: the object, metres.
        depth: ``(h, w)`` metres along the optical axis, 0 or NaN where missing.
        camera: of the depth picture; its distortion is taken into account.
        box: ``xyxy`` pixels around the object, whose size says roughly how far away it is.
        image: ``(h, w, 3)`` uint8 RGB; decides between poses that the depth bears out alike.
        most: poses at the most.

    Returns:
        Distinct poses with what the depth says of them, the best first; none where nothing is measured.

    Raises:
        ValueError: a depth picture whose size is not the camera's, or a box that is none.
    """
    if tuple(depth.shape) != (camera.height, camera.width):
        raise ValueError(
            f"depth: expected {camera.width}x{camera.height} pixels as its camera says, "
            f"got {depth.shape[1]}x{depth.shape[0]}"
        )
    if not bool(box.isfinite().all() and (box[2:] > box[:2]).all()):
        raise ValueError(f"box: expected x0 < x1 and y0 < y1 in pixels, got {box.tolist()}")
    seen = _Seen(depth, camera, None if image is None else _coarse(image, box))
    shown = shown_points(mesh)
    hypotheses = _first_pass(shown, seen, box, mesh.diameter)
    hypotheses = hypotheses.best(_FIRST)
    hypotheses = _placed(hypotheses, shown, seen, mesh.diameter).best(_SECOND)
    hypotheses = _stepped(hypotheses, shown, seen, mesh.diameter)
    if image is not None:
        hypotheses = _turned(hypotheses.best(_THIRD), shown, seen, mesh.diameter)
    poses = _distinct(hypotheses, mesh.diameter, most).poses(shown.middle)
    fits = [settle_finely(mesh, pose, depth, camera) for pose in poses]
    found = [fit for fit in fits if fit is not None]
    # the print, where it is seen, has a say in the order that the depth alone would give
    return sorted(found, key=lambda fit: -fit.agreement) if image is None else found


class _Seen(NamedTuple):
    """The depth picture, read at projected points."""

    depth: Tensor
    camera: Camera
    picture: Tensor | None  # (h, w, 3) float32

    def project(self, points: Tensor) -> Tensor:
        """Pixels of ``(..., 3)`` points; plain arithmetic, since there are millions of them."""
        if self.camera.distortion is not None:
            return self.camera.project(points.double()).to(points)
        K = self.camera.K.to(points)
        places = points[..., :2] / points[..., 2:].clamp_min(1e-6)
        return places * K.diagonal()[:2] + K[:2, 2]

    def read(self, points: Tensor) -> Tensor:
        """Measured depth at the pixels of ``(..., 3)`` points, 0 where none is or outside the picture."""
        flat, inside = self._pixels(points)
        values = torch.where(is_measured(self.depth), self.depth, 0.0).to(points).flatten()[flat]
        return torch.where(inside, values, 0.0)

    def colors(self, picture: Tensor, points: Tensor) -> Tensor:
        """The picture at the pixels of ``(..., 3)`` points that lie inside it."""
        return picture.flatten(0, 1)[self._pixels(points)[0]]

    def _pixels(self, points: Tensor) -> tuple[Tensor, Tensor]:
        columns, rows = self.project(points).nan_to_num(nan=-9.0).round().long().unbind(-1)
        inside = (columns >= 0) & (columns < self.camera.width) & (rows >= 0) & (rows < self.camera.height)
        return torch.where(inside, rows * self.camera.width + columns, 0), inside


class _Hypotheses(NamedTuple):
    """``h`` poses of the middle of the object: which view's points it shows, and how well it is borne out."""

    view: Tensor  # (h,)
    R: Tensor  # (h, 3, 3)
    t: Tensor  # (h, 3) of the middle
    prior: Tensor  # (h,) what the box says
    score: Tensor  # (h,)

    def best(self, most: int) -> _Hypotheses:
        order = self.score.topk(min(most, len(self.score))).indices
        return self.at(order)

    def at(self, rows: Tensor) -> _Hypotheses:
        return _Hypotheses(*(field[rows] for field in self))

    def placed(self, points: Tensor) -> Tensor:
        """``(h, n, 3)`` points of the views, in the camera's frame."""
        return points[self.view] @ self.R.mT + self.t[:, None]

    def poses(self, middle: Tensor) -> Float[Tensor, "h 4 4"]:
        """``cam_from_obj`` float64, their rotations orthogonal to double precision."""
        left, _, right = torch.linalg.svd(self.R.double())
        R = left @ right
        return make_pose(R, self.t.double() - R @ middle)


def _first_pass(shown: ShownPoints, seen: _Seen, box: Tensor, diameter: float) -> _Hypotheses:
    """All views at all turns in the middle of the box, each at the distance that the depth bears out best."""
    ray = seen.camera.unproject((box[:2] + box[2:]).double() / 2, torch.ones((), dtype=torch.float64)).float()
    angles = torch.arange(_NUM_TURNS) * (2 * math.pi / _NUM_TURNS)
    turns = exp(torch.nn.functional.pad(angles[:, None], (2, 0)))
    R = (_towards(ray) @ turns[:, None] @ shown.rotations).flatten(0, 1)
    view = torch.arange(len(shown.points)).repeat(_NUM_TURNS)
    points = shown.points[view] @ R.mT
    extremes = (shown.extremes[view] @ R.mT)[..., :2]
    low, high = extremes.amin(1), extremes.amax(1)
    focal = seen.camera.K.diagonal()[:2].float()
    distances = focal * (high - low) / (box[2:] - box[:2]).float()
    distance = distances.prod(1).sqrt().clamp_min(0.6 * diameter)
    misfit = (distances[:, 0] / distances[:, 1]).log().abs()
    t = distance[:, None] * ray - torch.nn.functional.pad((low + high) / 2, (0, 1))
    moved = points + t[:, None]
    offset = seen.read(moved)
    offset = torch.where(offset > 0, offset - moved[..., 2], torch.nan)
    shift, score = _best_offset(offset, diameter)
    t = t + shift[:, None] * ray
    prior = -_BOX_MISFIT * misfit.clamp_max(1.0)
    return _Hypotheses(view, R, t, prior, score + prior)


def _towards(ray: Tensor) -> Float[Tensor, "3 3"]:
    """The least turn that takes the optical axis to a ray."""
    axis = torch.linalg.cross(torch.tensor([0.0, 0.0, 1.0]), ray / ray.norm())
    sine = axis.norm()
    angle = torch.atan2(sine, ray[2] / ray.norm())
    return exp(axis / sine.clamp_min(1e-12) * angle)


def _best_offset(offset: Tensor, diameter: float) -> tuple[Tensor, Tensor]:
    """How far each hypothesis is to be moved away, and how well it is borne out there.

    A histogram of the offsets, smoothed by its neighbours, says what agrees at every distance; its sums from
    both ends say what lies before the measured surface and what is hidden by it.
    """
    step = _BIN * diameter
    half = round(_REACH / _BIN)
    known = offset.isfinite()
    bins = (offset.nan_to_num(nan=0.0) / step).round().clamp(-half - 2, half + 2).long() + half + 2
    counts = offset.new_zeros(len(offset), 2 * half + 5).scatter_add_(1, bins, known.to(offset))
    near = torch.nn.functional.avg_pool1d(counts[:, None], 3, 1, 1)[:, 0] * 3
    nearer = counts.cumsum(1) - counts
    hidden = nearer - torch.nn.functional.pad(counts, (1, 0))[:, :-1]
    farther = counts.sum(1, keepdim=True) - near - hidden
    score = _borne_out(near, farther, hidden)[:, 2:-2]
    best = score.max(1)
    return (best.indices - half).to(offset) * step, best.values


def _borne_out(agree: Tensor, farther: Tensor, hidden: Tensor) -> Tensor:
    """Between -1 and 1, from the numbers of points that agree, lie in free space, and are hidden."""
    counted = agree + farther + _HIDDEN * hidden
    # a few points that agree do not make up for all that is hidden or not measured
    return (agree - _FREE * farther) / counted.clamp_min(24.0)


def _scores(hypotheses: _Hypotheses, shown: ShownPoints, seen: _Seen, tolerance: float) -> Tensor:
    """How well each hypothesis is borne out: by its surface, by what is beside its outline, by its print."""
    points, beside = hypotheses.placed(shown.points), hypotheses.placed(shown.beside)
    agree, farther, hidden = _parts(points, seen.read(points), tolerance)
    continued, open_space, _ = _parts(beside, seen.read(beside), tolerance)
    outline = (open_space.float() - continued.float()).mean(1)
    score = _borne_out(*(part.float().sum(1) for part in (agree, farther, hidden)))
    score = score + _BESIDE * outline + hypotheses.prior
    if seen.picture is None:
        return score
    return score + _PRINT * _alike(shown.colors[hypotheses.view], seen.colors(seen.picture, points), agree)


def _alike(drawn: Tensor, seen: Tensor, where: Tensor) -> Tensor:
    """Correlation over the points of ``(h, n, 3)`` colours, less where there is little print."""
    weight = where.to(drawn)[..., None]
    total = weight.sum(1, keepdim=True).clamp_min(24.0)
    drawn, seen = (colors - (colors * weight).sum(1, keepdim=True) / total for colors in (drawn, seen))
    of_both, of_drawn, of_seen = (
        (weight * product / total).sum((1, 2)) for product in (drawn * seen, drawn**2, seen**2)
    )
    return of_both / ((of_drawn + _COLOR_NOISE**2) * (of_seen + _COLOR_NOISE**2)).sqrt()


def _coarse(image: NDArray[np.uint8], box: Tensor) -> Float[Tensor, "h w 3"]:
    """The picture without details that a few points of the object would miss."""
    sigma = max(0.5, _BLUR * float((box[2:] - box[:2]).max()))
    return torch.from_numpy(cv2.GaussianBlur(image.astype(np.float32), (0, 0), sigma))


def _parts(points: Tensor, depth: Tensor, tolerance: float) -> tuple[Tensor, Tensor, Tensor]:
    """Which points agree with the measured depth, lie before it, and are hidden by it."""
    known, offset = depth > 0, depth - points[..., 2]
    return known & (offset.abs() <= tolerance), known & (offset > tolerance), known & (offset < -tolerance)


def _placed(hypotheses: _Hypotheses, shown: ShownPoints, seen: _Seen, diameter: float) -> _Hypotheses:
    """Each hypothesis at the best of nine places about it."""
    steps = torch.cartesian_prod(*[torch.tensor([0.0, -1.0, 1.0])] * 2) * (_SHIFT * diameter)
    moves = torch.nn.functional.pad(steps, (0, 1))
    tried = [hypotheses._replace(t=hypotheses.t + move) for move in moves]
    scores = torch.stack([_scores(each, shown, seen, _ROUGH * diameter) for each in tried])
    best = scores.max(0)
    return hypotheses._replace(t=hypotheses.t + moves[best.indices], score=best.values)


def _stepped(hypotheses: _Hypotheses, shown: ShownPoints, seen: _Seen, diameter: float) -> _Hypotheses:
    """Point-to-plane steps towards what is measured at the pixels of the points."""
    normals = shown.normals[hypotheses.view]
    for reach in _STEP_REACHES:
        points = hypotheses.placed(shown.points)
        across = normals @ hypotheses.R.mT
        depth = seen.read(points)
        misses = points * (depth / points[..., 2].clamp_min(1e-6))[..., None] - points
        used = (depth > 0) & (misses.norm(dim=-1) <= reach * diameter)
        arms = (points - hypotheses.t[:, None]) / diameter
        jacobian = torch.cat([torch.linalg.cross(arms, across), across], -1) * used[..., None]
        normal = jacobian.mT @ jacobian + 1e-2 * used.sum(1).clamp_min(1)[:, None, None] * torch.eye(6)
        motion = torch.linalg.solve(normal, (jacobian.mT @ (across * misses).sum(-1, keepdim=True))[..., 0])
        hypotheses = hypotheses._replace(
            R=exp(motion[:, :3] / diameter) @ hypotheses.R, t=hypotheses.t + motion[:, 3:]
        )
    return hypotheses._replace(score=_scores(hypotheses, shown, seen, _FINE * diameter))


def _turned(hypotheses: _Hypotheses, shown: ShownPoints, seen: _Seen, diameter: float) -> _Hypotheses:
    """Each hypothesis, and the same turned a little: what the depth leaves open, the print may say."""
    axes = torch.eye(3).repeat_interleave(len(_TURNS), 0) * torch.tensor(_TURNS).repeat(3)[:, None]
    turns = exp(torch.cat([torch.zeros(1, 3), axes]))
    rows = torch.arange(len(hypotheses.view)).repeat_interleave(len(turns))
    many = hypotheses.at(rows)
    many = many._replace(R=many.R @ turns.repeat(len(hypotheses.view), 1, 1))
    return many._replace(score=_scores(many, shown, seen, _FINE * diameter))


def _distinct(hypotheses: _Hypotheses, diameter: float, most: int) -> _Hypotheses:
    """The best of those that are alike."""
    order = hypotheses.score.argsort(descending=True)
    kept: list[int] = []
    for row in order.tolist():
        turns = geodesic_distance(hypotheses.R[row].expand(len(kept), 3, 3), hypotheses.R[kept])
        places = (hypotheses.t[row] - hypotheses.t[kept]).norm(dim=-1)
        if not bool(((turns < _SAME_TURN) & (places < _SAME_PLACE * diameter)).any()):
            kept.append(row)
        if len(kept) == most:
            break
    return hypotheses.at(torch.tensor(kept, dtype=torch.long))
