"""The shapes of household and workshop things, each kind a family from which a seed draws one member.

A `Body` knows the symmetry that its shape has when it is painted in plain colours part by part; a printed
label takes that symmetry away.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from sightline.geometry.symmetry import SymmetryGroup
from sightline.synthetic.shapes import Surface, box, lathe, merge, tube, wedge

Profile = list[tuple[str, list[tuple[float, float]]]]

_UP = np.array([0.0, 0.0, 1.0])


@dataclass(frozen=True, eq=False)
class Body:
    """A shape without colours.

    Args:
        surface: not centred; panel names say what a painter should put there.
        symmetry: of the shape when each part has one plain colour.
        solid: whether its colours are a pattern in space (no flat place for a label).
    """

    surface: Surface
    symmetry: SymmetryGroup = field(default_factory=SymmetryGroup.none)
    solid: bool = False


def _straight(start: tuple[float, float], stop: tuple[float, float], steps: int) -> list[tuple[float, float]]:
    share = np.linspace(0.0, 1.0, steps + 1)[:, None]
    line = (1 - share) * np.array(start) + share * np.array(stop)
    return [(float(r), float(z)) for r, z in line]


def _sphere(points: np.ndarray) -> np.ndarray:
    return points / np.linalg.norm(points, axis=1, keepdims=True)


def _box(rng: np.random.Generator) -> Body:
    height = rng.uniform(0.1, 0.24)
    width = height * rng.uniform(0.55, 0.82)
    size = (width, width * rng.uniform(0.35, 0.75), height)
    if rng.uniform() < 0.3:  # a flat pack that lies on its side
        size = (height, size[1], width)
    return Body(box(size, cells=8), SymmetryGroup.dihedral(2, _UP))


def _can(rng: np.random.Generator) -> Body:
    radius = rng.uniform(0.03, 0.052)
    height = radius * rng.uniform(1.7, 3.6)
    rim, inner = 0.05 * radius, 0.9 * radius
    profile: Profile = [
        ("base", [(0.0, rim), (inner, rim)]),
        ("metal", [(inner, rim), (inner, 0.0), (radius, 0.0), (radius, rim)]),
        ("label", _straight((radius, rim), (radius, height - rim), 8)),
        ("metal", [(radius, height - rim), (radius, height), (inner, height), (inner, height - rim)]),
        ("lid", [(inner, height - rim), (0.0, height - rim)]),
    ]
    return Body(lathe(profile), SymmetryGroup.continuous(_UP, flip=True))


def _mug(rng: np.random.Generator) -> Body:
    radius = rng.uniform(0.034, 0.048)
    height, wall = radius * rng.uniform(1.9, 2.7), 0.1 * radius
    foot = radius * rng.uniform(0.75, 1.0)
    profile: Profile = [
        ("base", [(0.0, 0.0), (foot, 0.0)]),
        ("label", _straight((foot, 0.0), (radius, height), 8)),
        ("rim", [(radius, height), (radius - wall, height)]),
        ("inside", _straight((radius - wall, height), (foot - wall, wall), 4)),
        ("inside", [(foot - wall, wall), (0.0, wall)]),
    ]
    turn = np.linspace(np.radians(70), np.radians(-70), 15)
    reach, span = radius * rng.uniform(0.6, 0.8), height * rng.uniform(0.3, 0.38)
    middle = (foot + radius) / 2 - 0.55 * reach
    path = np.stack([0 * turn, middle + 1.5 * reach * np.cos(turn), height / 2 + span * np.sin(turn)], 1)
    thick = np.full(len(turn), radius * rng.uniform(0.1, 0.15))
    thick[[0, -1]] = 0.0  # the ends hide in the wall
    return Body(merge([lathe(profile), tube(path, thick, name="handle", sectors=14)]))


def _bottle(rng: np.random.Generator) -> Body:
    radius = rng.uniform(0.028, 0.042)
    height = radius * rng.uniform(4.8, 6.6)
    neck = radius * rng.uniform(0.32, 0.45)
    low, high, shoulder = 0.08 * height, rng.uniform(0.48, 0.58) * height, rng.uniform(0.7, 0.78) * height
    share = np.linspace(0.0, 1.0, 9)
    bend = neck + (radius - neck) * 0.5 * (1 + np.cos(np.pi * share))
    curve = [(float(r), float(high + s * (shoulder - high))) for r, s in zip(bend, share, strict=True)]
    cap = 1.25 * neck
    profile: Profile = [
        ("base", [(0.0, 0.0), (0.9 * radius, 0.0)]),
        ("body", [(0.9 * radius, 0.0), (radius, 0.1 * radius), (radius, low)]),
        ("label", _straight((radius, low), (radius, high), 8)),
        ("body", curve),
        ("body", [(neck, shoulder), (neck, 0.88 * height), (cap, 0.88 * height)]),
        ("cap", [(cap, 0.88 * height), (cap, height)]),
        ("cap", [(cap, height), (0.0, height)]),
    ]
    return Body(lathe(profile, sectors=40), SymmetryGroup.continuous(_UP))


def _bent(rng: np.random.Generator) -> Body:
    bend, radius = rng.uniform(1.1, 2.4), rng.uniform(0.05, 0.085)
    turn = np.linspace(-bend / 2, bend / 2, 34)
    path = radius * np.stack([np.sin(turn), 0 * turn, -np.cos(turn)], 1)
    share = np.linspace(0.0, 1.0, len(turn))
    swell = np.sin(np.pi * share) ** rng.uniform(0.25, 0.6)
    radii = radius * rng.uniform(0.22, 0.34) * swell * (1.0 - rng.uniform(0.25, 0.5) * share)
    radii[[0, -1]] = 0.0
    return Body(tube(path, radii), solid=True)


def _bumpy(rng: np.random.Generator) -> Body:
    waves = rng.normal(0.0, 1.0, (9, 3)) * rng.uniform(0.8, 2.0)
    phase, height = rng.uniform(0, 2 * np.pi, 9), rng.uniform(0.02, 0.09, 9)
    power = rng.uniform(2.0, 4.0)

    def bulge(points: np.ndarray) -> np.ndarray:
        round_ = points / (np.abs(points) ** power).sum(1, keepdims=True) ** (1 / power)
        return round_ * (1 + (height * np.sin(round_ @ waves.T + phase)).sum(1, keepdims=True))

    size = rng.uniform(0.08, 0.16) * np.array([1.0, rng.uniform(0.55, 0.85), rng.uniform(0.6, 1.1)])
    return Body(box(tuple(size), cells=14, bulge=bulge), solid=True)


def _bracket(rng: np.random.Generator) -> Body:
    length, rise = rng.uniform(0.1, 0.14), rng.uniform(0.06, 0.085)
    width, thick = rng.uniform(0.045, 0.07), rng.uniform(0.008, 0.014)
    plate = box((length, width, thick), cells=6)
    upright = box((thick, width - 0.002, rise), cells=6)
    rib = wedge(0.5 * length, 0.75 * rise, 0.8 * thick)
    wall, deck = -length / 2 + thick / 2 + 0.001, thick / 2 - 0.0005
    radius, tall = rng.uniform(0.2, 0.28) * width, rng.uniform(0.008, 0.02)
    profile: Profile = [
        ("boss", [(0.0, 0.0), (radius, 0.0)]),
        ("boss", [(radius, 0.0), (radius, tall)]),
        ("boss", [(radius, tall), (0.55 * radius, tall)]),
        ("hole", [(0.55 * radius, tall), (0.55 * radius, 0.002)]),
        ("hole", [(0.55 * radius, 0.002), (0.0, 0.002)]),
    ]
    parts = [
        plate,
        upright.moved(shift=(wall, 0.0, rise / 2 + deck)),
        rib.moved(shift=(wall, rng.uniform(0.2, 0.35) * width, deck)),
        lathe(profile, sectors=32).moved(shift=(0.3 * length, -0.12 * width, deck)),
    ]
    return Body(merge(parts))


def _knob(rng: np.random.Generator) -> Body:
    count = int(rng.choice([3, 4, 5, 6, 8]))
    radius, depth = rng.uniform(0.03, 0.055), rng.uniform(0.08, 0.16)
    foot, height = 0.3 * radius, radius * rng.uniform(0.9, 1.6)
    flange = rng.uniform(1.2, 1.4) * radius
    base: Profile = [
        ("base", [(0.0, 0.0), (flange, 0.0)]),
        ("flange", [(flange, 0.0), (flange, foot)]),
        ("flange", [(flange, foot), (0.0, foot)]),
    ]
    grip: Profile = [
        ("base", [(0.0, 0.5 * foot), (radius, 0.5 * foot)]),
        ("side", _straight((radius, 0.5 * foot), (0.86 * radius, height), 5)),
        ("top", [(0.86 * radius, height), (0.0, height)]),
    ]
    lobed = lathe(grip, sectors=120, lobes=lambda angle: 1 + depth * np.cos(count * angle))
    return Body(merge([lathe(base), lobed]), SymmetryGroup.cyclic(count, _UP))


def _toy(rng: np.random.Generator) -> Body:
    size = rng.uniform(0.09, 0.14)
    trunk = size * np.array([1.0, rng.uniform(0.45, 0.6), rng.uniform(0.45, 0.65)])
    head = size * rng.uniform(0.36, 0.5)
    lift = rng.uniform(0.25, 0.5) * size
    parts = [
        box(tuple(trunk), cells=8, bulge=_sphere),
        box((head, 0.9 * head, head), cells=7, bulge=_sphere).moved(shift=(0.48 * size, 0.0, lift)),
        box((0.6 * head, 0.5 * head, 0.4 * head), cells=5, bulge=_sphere).moved(
            shift=(0.48 * size + 0.45 * head, 0.0, lift - 0.1 * head)
        ),
    ]
    leg, thick = size * rng.uniform(0.25, 0.4), size * rng.uniform(0.07, 0.1)
    limb: Profile = [
        ("leg", [(0.0, -leg - trunk[2] * 0.3), (thick, -leg - trunk[2] * 0.3)]),
        ("leg", _straight((thick, -leg - trunk[2] * 0.3), (thick, 0.0), 3)),
        ("leg", [(thick, 0.0), (0.0, 0.0)]),
    ]
    for x, y in ((-0.28, -0.5), (-0.28, 0.5), (0.28, -0.5), (0.28, 0.5)):
        parts.append(lathe(limb, sectors=16).moved(shift=(x * size, y * 0.55 * trunk[1], 0.0)))
    ear = (0.12 * head, 0.45 * head, 0.5 * head)
    for side in (-1, 1):
        flap = box(ear, cells=4, bulge=_sphere)
        parts.append(flap.moved(shift=(0.44 * size, side * 0.42 * head, lift + 0.42 * head)))
    tail = np.linspace(0.0, 1.0, 9)
    curve = np.stack([-0.45 * size - 0.3 * size * tail, 0 * tail, 0.35 * size * tail**2], 1)
    parts.append(tube(curve, 0.05 * size * (1 - tail**4) * (tail > 0), sectors=12))
    return Body(merge(parts), solid=True)


BODIES: Mapping[str, Callable[[np.random.Generator], Body]] = {
    "box": _box,
    "can": _can,
    "mug": _mug,
    "bottle": _bottle,
    "bent": _bent,
    "bumpy": _bumpy,
    "bracket": _bracket,
    "knob": _knob,
    "toy": _toy,
}
