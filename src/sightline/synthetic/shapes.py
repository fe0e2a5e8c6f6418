"""Closed surfaces whose skin is cut into flat panels: boxes, lathes, bent tubes, bumpy balls, wedges.

A `Surface` is geometry with a local ``(u, v)`` in each *panel*; `textures` paints the panels and packs them
into one atlas. Seen from outside, panels are upright (z of the object is up) and not mirrored.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

Array = np.ndarray


@dataclass(frozen=True, eq=False)
class Panel:
    """One flat piece of a surface's skin.

    Args:
        name: what the painter knows it by, such as ``"front"`` or ``"label"``.
        width: metres along u.
        height: metres along v.
        wraps: whether its left and right edges meet on the object.
        points: ``(rows, columns, 3)`` points over the panel, as its surface was first made, metres.
    """

    name: str
    width: float
    height: float
    points: Array
    wraps: bool = False


@dataclass(frozen=True, eq=False)
class Surface:
    """Triangles whose corners carry ``(u, v)`` within a panel, u to the right and v down, both in [0, 1].

    Args:
        vertices: ``(v, 3)`` float64 metres.
        faces: ``(f, 3)`` int64, counter-clockwise seen from outside.
        uv: ``(f, 3, 2)`` float64 panel coordinates.
        panel_of_face: ``(f,)`` int64 index into ``panels``.
        panels: the skin's pieces.
    """

    vertices: Array
    faces: Array
    uv: Array
    panel_of_face: Array
    panels: tuple[Panel, ...]

    def moved(
        self, rotation: Array | None = None, shift: Sequence[float] | Array = (0.0, 0.0, 0.0)
    ) -> Surface:
        """The same surface turned, then shifted (metres)."""
        turn = np.eye(3) if rotation is None else rotation
        return Surface(self.vertices @ turn.T + shift, self.faces, self.uv, self.panel_of_face, self.panels)

    def centred(self) -> Surface:
        """Shifted so that the origin is the middle of the bounding box."""
        low, high = self.vertices.min(0), self.vertices.max(0)
        return self.moved(shift=-(low + high) / 2)


def merge(surfaces: Sequence[Surface]) -> Surface:
    """Several surfaces as one; panels with one name stay apart."""
    vertex = np.cumsum([0, *(len(s.vertices) for s in surfaces)])
    panel = np.cumsum([0, *(len(s.panels) for s in surfaces)])
    return Surface(
        np.concatenate([s.vertices for s in surfaces]),
        np.concatenate([s.faces + vertex[i] for i, s in enumerate(surfaces)]),
        np.concatenate([s.uv for s in surfaces]),
        np.concatenate([s.panel_of_face + panel[i] for i, s in enumerate(surfaces)]),
        tuple(p for s in surfaces for p in s.panels),
    )


def _weld(surface: Surface) -> Surface:
    """Vertices at one place (to a nanometre) become one, so that panels close without a crack."""
    keys = np.round(surface.vertices * 1e9).astype(np.int64)
    _, first, index = np.unique(keys, axis=0, return_index=True, return_inverse=True)
    faces = index.reshape(-1)[surface.faces]
    real = (faces[:, 0] != faces[:, 1]) & (faces[:, 1] != faces[:, 2]) & (faces[:, 2] != faces[:, 0])
    return Surface(
        surface.vertices[first], faces[real], surface.uv[real], surface.panel_of_face[real], surface.panels
    )


def _grid(points: Array, name: str, *, wraps: bool = False) -> Surface:
    """A panel from ``(rows, columns, 3)`` points; seen from outside columns run right and rows run down."""
    rows, columns = points.shape[:2]
    index = np.arange(rows * columns).reshape(rows, columns)
    a, b, c, d = index[:-1, :-1], index[:-1, 1:], index[1:, 1:], index[1:, :-1]
    faces = np.stack([np.stack([a, d, c], -1), np.stack([a, c, b], -1)], -2).reshape(-1, 3)
    v, u = np.meshgrid(np.linspace(0, 1, rows), np.linspace(0, 1, columns), indexing="ij")
    uv = np.stack([u, v], -1).reshape(-1, 2)[faces]
    width = np.linalg.norm(np.diff(points, axis=1), axis=-1).sum(1).max()
    height = np.linalg.norm(np.diff(points, axis=0), axis=-1).sum(0).max()
    panel = Panel(name, float(width), float(height), points, wraps)
    return Surface(points.reshape(-1, 3), faces, uv, np.zeros(len(faces), np.int64), (panel,))


# panel name: (right, down) seen from outside; outward is down x right
_BOX_SIDES = {
    "front": ((1, 0, 0), (0, 0, -1)),
    "right": ((0, 1, 0), (0, 0, -1)),
    "back": ((-1, 0, 0), (0, 0, -1)),
    "left": ((0, -1, 0), (0, 0, -1)),
    "top": ((1, 0, 0), (0, -1, 0)),
    "bottom": ((1, 0, 0), (0, 1, 0)),
}


def box(size: Sequence[float], *, cells: int = 8, bulge: Callable[[Array], Array] | None = None) -> Surface:
    """A box of ``size`` metres along x, y, z about the origin; its front faces -y.

    Args:
        size: the three edges, metres.
        cells: cells along each edge.
        bulge: bends ``(n, 3)`` points of the cube [-1, 1]^3, before ``size``, into balls and pillows.

    Example:
        >>> box((0.1, 0.2, 0.3), cells=1).faces.shape
        (12, 3)
    """
    steps = np.linspace(-1.0, 1.0, cells + 1)
    down_steps, right_steps = np.meshgrid(steps, steps, indexing="ij")
    sides = []
    for name, (right, down) in _BOX_SIDES.items():
        outward = np.cross(down, right)
        cube = right_steps[..., None] * np.array(right) + down_steps[..., None] * np.array(down) + outward
        points = cube if bulge is None else bulge(cube.reshape(-1, 3)).reshape(cube.shape)
        sides.append(_grid(points * np.asarray(size) / 2, name))
    return _weld(merge(sides))


def lathe(
    profile: Sequence[tuple[str, Sequence[tuple[float, float]]]],
    *,
    sectors: int = 48,
    lobes: Callable[[Array], Array] | None = None,
) -> Surface:
    """A surface of revolution about z from runs of ``(radius, z)`` points, bottom to top along the outside.

    A run whose points lie at one height becomes a round lid (planar panel), any other one wraps around with u
    from the back (+y) over the front; consecutive runs share their end point.

    Args:
        profile: ``(panel name, [(radius, z), ...])``, metres; a radius of 0 closes the surface.
        sectors: divisions of the full turn.
        lobes: factor on the radius by angle, for knobs and gears.

    Example:
        >>> lathe([("bottom", [(0, 0), (1, 0)]), ("side", [(1, 0), (0, 1)])], sectors=8).vertices.shape
        (10, 3)
    """
    angle = np.pi / 2 + np.arange(sectors + 1) * 2 * np.pi / sectors
    factor = np.ones_like(angle) if lobes is None else lobes(angle)
    circle = np.stack([np.cos(angle) * factor, np.sin(angle) * factor], axis=1)
    circle[-1] = circle[0]
    runs = []
    for name, run in profile:
        line = np.asarray(run, float)[::-1]  # rows run down, so the top comes first
        ring = line[:, :1, None] * circle[None]
        points = np.concatenate([ring, np.broadcast_to(line[:, 1:, None], (*ring.shape[:2], 1))], axis=-1)
        surface = _grid(points, name, wraps=True)
        runs.append(_flat_lid(surface, name) if np.ptp(line[:, 1]) == 0 else surface)
    return _weld(merge(runs))


def _flat_lid(surface: Surface, name: str) -> Surface:
    """Planar panel coordinates for a disc; seen from outside x runs right on a lid that looks up."""
    a, b, c = (surface.vertices[surface.faces[:, k]] for k in range(3))
    upward = np.sign(np.cross(b - a, c - a)[:, 2].sum())
    radius = np.abs(surface.vertices[:, :2]).max()
    plane = surface.vertices[surface.faces][..., :2] / (2 * radius) * (1.0, -upward) + 0.5
    steps = np.linspace(-radius, radius, 9)
    y, x = np.meshgrid(steps * -upward, steps, indexing="ij")
    points = np.stack([x, y, np.full_like(x, surface.vertices[0, 2])], -1)
    panel = Panel(name, 2 * radius, 2 * radius, points)
    return Surface(surface.vertices, surface.faces, plane, surface.panel_of_face, (panel,))


def tube(path: Array, radii: Array, *, name: str = "side", sectors: int = 24) -> Surface:
    """A round tube along ``(n, 3)`` points of a planar or mildly bent curve; zero radii close its ends.

    Example:
        >>> import numpy as np
        >>> path = np.array([[0.0, 0, 0], [0, 0, 0.1], [0, 0, 0.2]])
        >>> tube(path, np.array([0.0, 0.02, 0.0]), sectors=8).vertices.shape
        (10, 3)
    """
    tangent = np.gradient(path, axis=0)
    tangent /= np.linalg.norm(tangent, axis=1, keepdims=True)
    normal = _plane_normal(path)
    side = np.cross(normal, tangent)
    side /= np.linalg.norm(side, axis=1, keepdims=True)
    other = np.cross(tangent, side)
    angle = np.arange(sectors + 1) * 2 * np.pi / sectors
    cosine, sine = np.cos(angle), np.sin(angle)
    cosine[-1], sine[-1] = cosine[0], sine[0]
    spokes = side[:, None] * cosine[None, :, None] + other[:, None] * sine[None, :, None]
    points = path[:, None] + np.asarray(radii, float)[:, None, None] * spokes
    return _weld(_grid(points[::-1], name, wraps=True))


def _plane_normal(path: Array) -> Array:
    """The direction in which a curve extends least; for a straight one any direction across it."""
    _, spread, axes = np.linalg.svd(path - path.mean(0))
    if spread[1] > 1e-9 * spread[0]:
        return axes[2]
    least = np.eye(3)[np.argmin(np.abs(axes[0]))]
    return np.cross(axes[0], least)


def wedge(length: float, height: float, thickness: float) -> Surface:
    """A right-angled triangular plate: legs along +x and +z from the origin, ``thickness`` centred on y.

    Example:
        >>> wedge(0.05, 0.04, 0.01).faces.shape
        (8, 3)
    """
    corners = np.array([[0.0, 0, 0], [length, 0, 0], [0, 0, height]])
    half = np.array([0.0, thickness / 2, 0])
    front, back = corners - half, corners + half
    quads = [
        np.stack([[front[2], back[2]], [front[1], back[1]]]),  # the slope
        np.stack([[front[0], front[1]], [back[0], back[1]]]),  # below
        np.stack([[back[2], front[2]], [back[0], front[0]]]),  # behind
    ]
    sides = [_grid(quad, "side") for quad in quads]
    flat = np.array([[0.0, 1.0], [1.0, 1.0], [0.0, 0.0]])
    for triangle, order, uv in ((front, [0, 1, 2], flat), (back, [0, 2, 1], flat * (-1, 1) + (1, 0))):
        panel = (Panel("side", length, height, triangle[[[2, 2], [0, 1]]]),)
        sides.append(Surface(triangle, np.array([order]), uv[order][None], np.zeros(1, np.int64), panel))
    return _weld(merge(sides))
