from __future__ import annotations

import numpy as np
import pytest
import trimesh

from sightline.synthetic.bodies import BODIES
from sightline.synthetic.shapes import Surface, box, lathe, merge, tube, wedge


def sphere(points: np.ndarray) -> np.ndarray:
    return points / np.linalg.norm(points, axis=1, keepdims=True)


ARC = np.linspace(0.0, 2.0, 12)
SHAPES = {
    "box": box((0.1, 0.2, 0.3)),
    "ball": box((2.0, 2.0, 2.0), cells=16, bulge=sphere),
    "cone": lathe([("bottom", [(0, 0), (1, 0)]), ("side", [(1, 0), (0, 3)])], sectors=96),
    "cup": lathe(
        [
            ("bottom", [(0, 0), (1, 0)]),
            ("side", [(1, 0), (1, 2)]),
            ("rim", [(1, 2), (0.9, 2)]),
            ("inside", [(0.9, 2), (0.9, 0.1)]),
            ("floor", [(0.9, 0.1), (0, 0.1)]),
        ]
    ),
    "tube": tube(np.stack([np.sin(ARC), 0 * ARC, np.cos(ARC)], 1), 0.1 * np.r_[0, np.ones(10), 0]),
    "rod": tube(np.stack([ARC, 0 * ARC, 0 * ARC], 1), 0.1 * np.r_[0, np.ones(10), 0]),
    "wedge": wedge(0.1, 0.05, 0.01),
}
BODY_SURFACES = {
    f"{kind}-{seed}": make(np.random.default_rng(seed)).surface
    for kind, make in BODIES.items()
    for seed in range(3)
}
ALL = SHAPES | BODY_SURFACES


def solid(surface: Surface) -> trimesh.Trimesh:
    return trimesh.Trimesh(surface.vertices, surface.faces, process=False)


@pytest.mark.parametrize("name", ALL)
def test_surfaces_are_closed_and_look_outwards(name: str):
    mesh = solid(ALL[name])
    assert mesh.is_watertight
    assert mesh.is_winding_consistent
    assert all(part.volume > 0 for part in mesh.split())


@pytest.mark.parametrize("name", ALL)
def test_panels_are_not_mirrored(name: str):
    surface = ALL[name]
    (a, b, c) = (surface.uv[:, k] for k in range(3))
    turn = np.linalg.det(np.stack([b - a, c - a], 1))
    assert (turn < 0).all()  # v runs down, so a counter-clockwise face is clockwise in its picture
    assert surface.uv.min() >= -1e-9
    assert surface.uv.max() <= 1 + 1e-9


@pytest.mark.parametrize("name", BODY_SURFACES)
def test_bodies_have_household_sizes_and_moderate_meshes(name: str):
    surface = BODY_SURFACES[name]
    extent = np.ptp(surface.vertices, axis=0)
    assert 0.05 < extent.max() < 0.3
    assert 500 <= len(surface.faces) <= 6000


def test_volumes():
    assert solid(SHAPES["box"]).volume == pytest.approx(0.006)
    assert solid(SHAPES["ball"]).volume == pytest.approx(4 / 3 * np.pi, rel=0.02)
    assert solid(SHAPES["cone"]).volume == pytest.approx(np.pi, rel=0.01)
    assert solid(SHAPES["wedge"]).volume == pytest.approx(0.5 * 0.1 * 0.05 * 0.01)


def test_fronts_face_minus_y_and_are_upright():
    surface = SHAPES["box"]
    front = [panel.name for panel in surface.panels].index("front")
    chosen = surface.panel_of_face == front
    corners, uv = surface.vertices[surface.faces[chosen]], surface.uv[chosen]
    assert np.allclose(corners[..., 1], -0.1)
    assert np.allclose(corners[..., 0], (uv[..., 0] - 0.5) * 0.1)
    assert np.allclose(corners[..., 2], (0.5 - uv[..., 1]) * 0.3)


def test_a_wrapped_label_begins_at_the_back():
    surface = SHAPES["cone"]
    side = [panel.name for panel in surface.panels].index("side")
    chosen = surface.panel_of_face == side
    corners, uv = surface.vertices[surface.faces[chosen]].reshape(-1, 3), surface.uv[chosen].reshape(-1, 2)
    low = uv[:, 1] > 0.999
    angle = np.pi / 2 + 2 * np.pi * uv[low, 0]
    assert np.allclose(corners[low, :2], np.stack([np.cos(angle), np.sin(angle)], 1), atol=1e-9)


def test_panels_know_their_points_and_sizes():
    for panel in SHAPES["box"].panels:
        across = np.linalg.norm(panel.points[0, -1] - panel.points[0, 0])
        down = np.linalg.norm(panel.points[-1, 0] - panel.points[0, 0])
        assert panel.width == pytest.approx(across)
        assert panel.height == pytest.approx(down)


def test_moving_and_merging_keep_the_panels():
    pair = merge([SHAPES["box"].moved(shift=(1.0, 0, 0)), SHAPES["wedge"]])
    assert len(pair.panels) == len(SHAPES["box"].panels) + len(SHAPES["wedge"].panels)
    assert pair.panel_of_face.max() == len(pair.panels) - 1
    assert np.allclose(pair.centred().vertices.min(0), -pair.centred().vertices.max(0))
    quarter = np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])
    turned = SHAPES["box"].moved(quarter)
    assert np.allclose(np.ptp(turned.vertices, axis=0), (0.2, 0.1, 0.3))
