"""Symmetries of a mesh, found by registering it with itself, its colours included.

Every symmetry turns the object about its surface's centroid and leaves the surface's second moments as they
are. Where the three principal moments differ, only half turns about their axes can be symmetries; where two
agree, turns about the third and half turns across it; where all agree, any. Candidates are ranked by the
distance of the turned surface from itself, refined by point-to-plane registration, checked at many points in
shape and colour, and closed to an exact group.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice

import torch
from jaxtyping import Float
from torch import Tensor

from sightline.geometry.poses import make_pose
from sightline.geometry.rotation_groups import generate_group
from sightline.geometry.rotations import exp, geodesic_distance, log
from sightline.geometry.symmetry import SymmetryGroup
from sightline.geometry.viewpoints import icosphere_directions
from sightline.objects.self_registration import Fit, SelfRegistration
from sightline.records import TriangleMesh

_EQUAL_MOMENTS = 0.1  # relative difference below which two principal moments may be equal
_PRIMES = (2, 3, 5, 7, 11)  # a turn of any order has a power of prime order
_MAX_CANDIDATES = 40
_PROMISING = 0.06  # rough distance, share of the diameter, that refinement may still bring to zero
_SAME_TURN_RAD, _SAME_AXIS_RAD, _RETOLD_RAD = 0.2, 0.1, 0.005
_GOLDEN_TURN = math.pi * (3 - math.sqrt(5))
_NUM_FREE_TURNS = 8
_MAX_GROUP = 120


@dataclass(frozen=True, eq=False)
class FoundSymmetries:
    """The symmetries of a mesh and how well they hold.

    Args:
        group: the symmetries, object frame, metres.
        name: ``none``, ``C4``, ``D2`` and so on, ``T``, ``O`` or ``I`` (the rotations of a tetrahedron, cube,
            icosahedron), ``Cinf``, ``Dinf``, or ``sphere``.
        distance: the largest distance of the turned surface from itself, as a share of the diameter.
        color_difference: the largest mean difference of colour over a patch, RGB in [0, 1].
    """

    group: SymmetryGroup
    name: str
    distance: float
    color_difference: float


def find_symmetries(
    mesh: TriangleMesh,
    *,
    tolerance: float = 0.015,
    texture: bool = True,
    color_tolerance: float = 0.12,
    max_order: int = 12,
) -> FoundSymmetries:
    """Find the rotations of a mesh onto itself.

    A rotation counts where none of 2,000 even points comes to lie farther from the surface than
    ``tolerance``, and no patch of some 7 % of the diameter differs in its mean colour by more than
    ``color_tolerance`` from what it comes to lie on. Turns of order 2 to ``max_order`` are tried, and turns
    by any angle. A ball's symmetries are given as an axis of revolution in each of 42 directions. The result
    is the same at every call.

    Args:
        mesh: metres.
        tolerance: share of the diameter.
        texture: whether colours must agree, where the mesh has any.
        color_tolerance: difference of RGB in [0, 1], the mean of the three channels.
        max_order: the finest turn tried.

    Returns:
        The symmetries with their residuals; the identity alone where there are none.

    Raises:
        ValueError: a surface without area.

    Example:
        >>> import trimesh
        >>> box = trimesh.creation.box(extents=(0.1, 0.2, 0.3))
        >>> vertices, faces = torch.tensor(box.vertices.tolist()), torch.tensor(box.faces.tolist())
        >>> found = find_symmetries(TriangleMesh(vertices, faces))
        >>> found.name, len(found.group.discrete)
        ('D2', 4)
    """
    search = _Search(mesh, tolerance, color_tolerance if texture else math.inf, max_order)
    axes = search.likely_axes()
    shape_axes = list(islice((axis for axis in axes if search.is_revolved(axis, in_color=False)), 3))
    revolved = search.revolved(shape_axes)
    if revolved is not None:
        return revolved
    turns = search.turns_about(shape_axes or axes)
    if shape_axes:
        turns += search.painted_half_turns(shape_axes[0])
    return search.close(turns)


class _Search:
    def __init__(self, mesh: TriangleMesh, tolerance: float, color_tolerance: float, max_order: int) -> None:
        self.itself = SelfRegistration(mesh)
        self.tolerance, self.color_tolerance, self.max_order = tolerance, color_tolerance, max_order
        self._seen: list[tuple[Tensor, Fit]] = []

    def fit(self, turn: Float[Tensor, "3 3"]) -> Fit:
        """The turn's fit, or that of the same turn or its inverse if it was asked for before."""
        for known, fit in self._seen:
            if min(_angle(known, turn), _angle(known, turn.mT)) < _RETOLD_RAD:
                return fit
        fit = self.itself.fit(turn, self.tolerance)
        self._seen.append((turn, fit))
        return fit

    def holds(self, turn: Float[Tensor, "3 3"], *, in_color: bool = True) -> bool:
        """Whether the turned object lies on itself."""
        fit = self.fit(turn)
        alike = not (in_color and self.itself.surface.has_color and math.isfinite(self.color_tolerance))
        return fit.distance <= self.tolerance and (alike or fit.color_difference <= self.color_tolerance)

    def likely_axes(self) -> Float[Tensor, "a 3"]:
        """Axes of turns that may lay the object on itself, the exact ones from its moments first."""
        candidates = self._candidates()
        rough = self.itself.rough_distances(candidates)
        best = _spread_out(candidates[rough.argsort()][: int((rough < _PROMISING).sum())])
        refined = self.itself.refine(best[:_MAX_CANDIDATES])
        refined = refined[self.itself.rough_distances(refined) <= self.tolerance + self.itself.slack]
        refined = self.itself.refine(_spread_out(refined), exact=True)
        turns = log(refined)
        turns = turns[turns.norm(dim=-1) > _SAME_TURN_RAD]  # the others went back to no turn at all
        known = self.itself.principal_axes
        if self.itself.surface.has_color:
            known = torch.cat([known, self.itself.color_axes().flip(0)])
        return _distinct_axes(torch.cat([known, torch.nn.functional.normalize(turns, dim=-1)]))

    def _candidates(self) -> Float[Tensor, "c 3 3"]:
        axes, moments = self.itself.principal_axes, self.itself.moments
        turns = [exp(math.pi * axes)]
        low, high = (moments.diff() < _EQUAL_MOMENTS * moments[2]).tolist()
        if low and high:
            directions = icosphere_directions(642)
            turns.append(_turns(directions[directions[:, 2] >= 0], _PRIMES))
        elif low or high:
            unique = axes[2] if low else axes[0]
            turns += [_turns(unique[None], _PRIMES), exp(math.pi * _across(unique, 180))]
        return torch.cat(turns)

    def is_revolved(self, axis: Float[Tensor, "3"], *, in_color: bool) -> bool:
        """Whether any turn about the axis lays the object on itself."""
        turns = self._free_turns(axis)
        if bool((self.itself.rough_distances(turns) > self.tolerance + self.itself.slack).any()):
            return False
        return all(self.holds(turn, in_color=in_color) for turn in turns)

    def _free_turns(self, axis: Float[Tensor, "3"]) -> Float[Tensor, "k 3 3"]:
        angles = _GOLDEN_TURN * torch.arange(1, _NUM_FREE_TURNS + 1, dtype=torch.float64)
        return exp(angles[:, None] * axis)

    def revolved(self, shape_axes: list[Tensor]) -> FoundSymmetries | None:
        """The symmetries of a body of revolution whose colours turn with it; None if there is none."""
        axes = [axis for axis in shape_axes if self.is_revolved(axis, in_color=True)]
        if not axes:
            return None
        axis = axes[0]
        half_turn = exp(math.pi * _across(axis, 1)[0])
        turns = self._free_turns(axis)
        if len(axes) > 1:
            directions = icosphere_directions(42)
            discrete = torch.stack([_rotation_between(axis, direction) for direction in directions])
            discrete = discrete[geodesic_distance(discrete, torch.eye(3).double()).argsort()]
            discrete[0] = torch.eye(3)
            return self._found("sphere", discrete, axis, turns)
        if self.holds(half_turn):
            both = torch.stack([torch.eye(3, dtype=torch.float64), half_turn])
            return self._found("Dinf", both, axis, torch.cat([turns, both[1:]]))
        return self._found("Cinf", torch.eye(3, dtype=torch.float64)[None], axis, turns)

    def turns_about(self, axes: Iterable[Tensor]) -> list[Tensor]:
        """The turns of finite order about the axes that hold."""
        orders = range(2, self.max_order + 1)
        return self._holding(torch.cat([_turns(axis[None], orders) for axis in axes]))

    def painted_half_turns(self, axis: Float[Tensor, "3"]) -> list[Tensor]:
        """Half turns across the axis of a body of revolution under which its colours agree."""
        half_turns = exp(math.pi * _across(axis, 120))
        difference = self.itself.color_differences(half_turns)
        lowest = (difference <= difference.roll(1)) & (difference <= difference.roll(-1))
        near = lowest | lowest.roll(1) | lowest.roll(-1)  # a few points do not tell the best from the next
        return self._holding(half_turns[near & (difference < self.color_tolerance)])

    def _holding(self, turns: Float[Tensor, "c 3 3"]) -> list[Tensor]:
        near = self.itself.rough_distances(turns) <= self.tolerance + self.itself.slack
        return [turn for turn in turns[near] if self.holds(turn)]

    def _misfit(self, turn: Float[Tensor, "3 3"]) -> float:
        distance, difference = self.fit(turn)
        return distance / self.tolerance + difference / self.color_tolerance

    def close(self, turns: list[Tensor]) -> FoundSymmetries:
        """The largest group that the turns generate, the best first, all of whose elements hold."""
        generators: list[Tensor] = []
        group = torch.eye(3, dtype=torch.float64)[None]
        for turn in sorted(turns, key=self._misfit):
            if bool((geodesic_distance(group, turn) < _SAME_TURN_RAD).any()):
                continue
            larger = generate_group(torch.stack([*generators, turn]), _MAX_GROUP)
            if larger is not None and all(self.holds(element) for element in larger[1:]):
                group, generators = larger, [*generators, turn]
        return self._found(_name(group), group, None, group[1:])

    def _found(
        self,
        name: str,
        rotations: Float[Tensor, "g 3 3"],
        axis: Tensor | None,
        checked: Float[Tensor, "c 3 3"],
    ) -> FoundSymmetries:
        centroid = self.itself.centroid
        motions = make_pose(rotations, centroid - rotations @ centroid)
        group = SymmetryGroup(motions, axis, None if axis is None else centroid)
        fits = [Fit(0.0, 0.0), *(self.fit(turn) for turn in checked)]
        distance, difference = (max(values) for values in zip(*fits, strict=True))
        return FoundSymmetries(group, name, distance, difference)


def _turns(axes: Float[Tensor, "a 3"], orders: Iterable[int]) -> Float[Tensor, "c 3 3"]:
    angles = 2 * math.pi / torch.tensor(list(orders), dtype=torch.float64)
    return exp((angles[:, None] * axes[:, None]).flatten(0, 1))


def _across(axis: Float[Tensor, "3"], count: int) -> Float[Tensor, "c 3"]:
    """Directions at right angles to an axis, evenly over half a turn."""
    first = torch.linalg.cross(axis, torch.eye(3, dtype=axis.dtype)[axis.abs().argmin()])
    first = first / first.norm()
    angles = math.pi / count * torch.arange(count, dtype=axis.dtype)[:, None]
    return angles.cos() * first + angles.sin() * torch.linalg.cross(axis, first)


def _rotation_between(a: Float[Tensor, "3"], b: Float[Tensor, "3"]) -> Float[Tensor, "3 3"]:
    half = a + b if float(a @ b) > -0.99 else _across(a, 1)[0]
    half = half / half.norm()
    return exp(math.pi * half) if float(a @ b) <= -0.99 else exp(math.pi * half) @ exp(math.pi * a)


def _spread_out(rotations: Float[Tensor, "c 3 3"]) -> Float[Tensor, "k 3 3"]:
    """The first of each bunch."""
    kept = []
    while len(rotations):
        kept.append(rotations[0])
        cosine = ((rotations * rotations[0]).sum((-2, -1)) - 1) / 2
        rotations = rotations[cosine < math.cos(_SAME_TURN_RAD)]
    return torch.stack(kept) if kept else rotations


def _angle(first: Float[Tensor, "3 3"], second: Float[Tensor, "3 3"]) -> float:
    # precise enough above a thousandth of a radian
    return math.acos(min(max((float((first * second).sum()) - 1) / 2, -1.0), 1.0))


def _distinct_axes(axes: Float[Tensor, "c 3"]) -> Float[Tensor, "k 3"]:
    kept: list[Tensor] = []
    for axis in axes:
        if all(abs(float(axis @ other)) < math.cos(_SAME_AXIS_RAD) for other in kept):
            kept.append(axis)
    return torch.stack(kept)


def _name(group: Float[Tensor, "g 3 3"]) -> str:
    shares = [float(angle) / (2 * math.pi) for angle in geodesic_distance(group, group[0])]
    size, order = len(group), max(Fraction(share).limit_denominator(24).denominator for share in shares)
    if size == 1:
        return "none"
    if order == size:
        return f"C{size}"
    return f"D{order}" if 2 * order == size else {12: "T", 24: "O", 60: "I"}.get(size, f"order {size}")
