from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import trimesh

from sightline.geometry.poses import transform
from sightline.geometry.rotations import exp
from sightline.objects.self_registration import SelfRegistration
from sightline.objects.surface_index import SurfaceIndex
from sightline.objects.symmetry_search import find_symmetries
from sightline.records import TriangleMesh
from sightline.synthetic.objects import make_object

create = trimesh.creation
OFF_CENTRE = trimesh.transformations.rotation_matrix(1.1, (0.3, -0.8, 0.5)) + np.array(
    [[0, 0, 0, 0.3], [0, 0, 0, -0.2], [0, 0, 0, 0.1], [0, 0, 0, 0]]
)


def _mesh(shape: trimesh.Trimesh, place: np.ndarray = OFF_CENTRE, **colors) -> TriangleMesh:
    moved = shape.copy().apply_transform(place)
    return TriangleMesh(torch.tensor(np.array(moved.vertices)), torch.tensor(np.array(moved.faces)), **colors)


def _mug() -> trimesh.Trimesh:
    handle = create.torus(0.025, 0.006)
    handle.apply_transform(trimesh.transformations.rotation_matrix(math.pi / 2, (1, 0, 0)))
    body = create.annulus(0.036, 0.04, 0.1, sections=48)
    bottom = create.cylinder(0.038, 0.004, sections=48).apply_translation((0, 0, -0.048))
    return trimesh.util.concatenate([body, bottom, handle.apply_translation((0.05, 0, 0))])


SHAPES = {
    "box": (create.box((0.1, 0.2, 0.3)), "D2", 4),
    "cube": (create.box((0.1, 0.1, 0.1)), "O", 24),
    "square prism": (create.box((0.1, 0.1, 0.25)), "D4", 8),
    "triangular prism": (create.cylinder(0.05, 0.15, sections=3), "D3", 6),
    "octagonal prism": (create.cylinder(0.05, 0.1, sections=8), "D8", 16),
    "pyramid": (create.cone(0.05, 0.12, sections=5), "C5", 5),
    "tetrahedron": (
        trimesh.Trimesh(
            [[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]], [[0, 1, 2], [0, 3, 1], [0, 2, 3], [1, 3, 2]]
        ),
        "T",
        12,
    ),
    "cylinder": (create.cylinder(0.04, 0.12, sections=48), "Dinf", 2),
    "cylinder as wide as high": (create.cylinder(0.04, 0.04 * 3**0.5, sections=48), "Dinf", 2),
    "cone": (create.cone(0.04, 0.12, sections=48), "Cinf", 1),
    "ball": (create.icosphere(4), "sphere", 42),
    "mug": (_mug(), "none", 1),
}


@pytest.mark.parametrize("name", SHAPES)
def test_the_symmetries_of_plain_shapes_are_found(name):
    shape, symmetry, count = SHAPES[name]
    mesh = _mesh(shape)
    found = find_symmetries(mesh)
    assert (found.name, len(found.group.discrete)) == (symmetry, count)
    assert (found.group.axis is not None) == (symmetry in ("Cinf", "Dinf", "sphere"))
    assert found.distance < 0.004 and found.color_difference == 0
    center = OFF_CENTRE[:3, :3] @ shape.bounding_box.centroid + OFF_CENTRE[:3, 3]
    if symmetry in ("D2", "O", "D4", "Dinf"):
        moved = transform(found.group.discrete, torch.tensor(center)[None])
        torch.testing.assert_close(moved, torch.tensor(center).expand_as(moved), rtol=0, atol=1e-9)
    if symmetry in ("Cinf", "Dinf"):
        assert abs(float(found.group.axis @ torch.tensor(OFF_CENTRE[:3, 2]))) > 1 - 1e-6


@pytest.mark.parametrize("name", ["cube", "square prism", "octagonal prism", "tetrahedron"])
def test_what_is_found_is_a_group_to_the_last_digit(name):
    motions = find_symmetries(_mesh(SHAPES[name][0])).group.discrete
    assert torch.equal(motions[0], torch.eye(4).double())
    products = (motions[:, None] @ motions).flatten(0, 1)
    nearest = (products[:, None] - motions).abs().amax((-2, -1)).amin(1)
    assert nearest.max() < 1e-12


def test_the_search_gives_the_same_every_time():
    mesh = _mesh(SHAPES["cube"][0])
    assert torch.equal(find_symmetries(mesh).group.discrete, find_symmetries(mesh).group.discrete)


def test_a_cut_off_corner_takes_all_symmetries_of_a_cube_but_the_diagonal_s():
    corners = np.array([c for c in np.ndindex(2, 2, 2) if c != (1, 1, 1)], float)
    cuts = [[0.5, 1, 1], [1, 0.5, 1], [1, 1, 0.5]]
    assert find_symmetries(_mesh(trimesh.convex.convex_hull(np.concatenate([corners, cuts])))).name == "C3"


def test_a_small_difference_counts_only_beyond_the_tolerance():
    nearly = _mesh(create.box((0.1, 0.102, 0.25)))
    assert find_symmetries(nearly, tolerance=0.015).name == "D4"
    assert find_symmetries(nearly, tolerance=0.002).name == "D2"


def test_turns_that_hold_do_not_make_a_group_of_turns_that_do_not():
    # Height and width may be exchanged, width and depth too, but height and depth differ by too much.
    assert find_symmetries(_mesh(create.box((0.1, 0.104, 0.108)))).name == "D4"


@pytest.mark.parametrize(("kind", "seed"), [("box", 0), ("can", 0), ("can", 3), ("mug", 1), ("bottle", 2)])
def test_a_label_takes_the_symmetries_away(kind, seed):
    labelled = make_object(kind, seed).mesh
    assert find_symmetries(labelled).name == "none"
    if kind != "mug":
        assert find_symmetries(labelled, texture=False).name != "none"


@pytest.mark.parametrize(("kind", "seed"), [("box", 0), ("can", 0), ("bottle", 3), ("knob", 3)])
def test_plainly_painted_objects_keep_the_symmetries_of_their_shape(kind, seed):
    made = make_object(kind, seed, texture="low")
    found = find_symmetries(made.mesh)
    assert len(found.group.discrete) == len(made.symmetries.discrete) > 1 or found.group.axis is not None
    assert (found.group.axis is None) == (made.symmetries.axis is None)
    assert found.color_difference < 0.12


def _painted_cylinder(paint) -> TriangleMesh:
    shape = create.cylinder(0.04, 0.1, sections=96).subdivide().subdivide().subdivide()
    x, y, z = shape.vertices.T
    shade = torch.tensor(paint(np.arctan2(y, x), z) * (np.hypot(x, y) > 0.0399), dtype=torch.float32)
    return _mesh(shape, vertex_colors=shade[:, None].expand(-1, 3).contiguous())


@pytest.mark.parametrize(
    ("paint", "name"),
    [
        (lambda angle, z: (np.abs(z) > 0.02) * 0.7, "Dinf"),
        (lambda angle, z: (z > 0.02) * 0.7, "Cinf"),
        (lambda angle, z: 0.5 + 0.5 * np.sign(np.sin(3 * angle + 0.4)), "D3"),
        (lambda angle, z: 0.5 + 0.5 * np.sign(np.sin(2 * angle + 40 * z)), "D2"),
        (lambda angle, z: (np.sin(2 * angle) > 0) * (z > 0) * 0.8, "C2"),
        (lambda angle, z: (np.abs(angle) < 0.6) * (np.abs(z) < 0.02) * 0.8, "C2"),
        (lambda angle, z: (np.abs(angle) < 0.6) * (np.abs(z - 0.02) < 0.02) * 0.8, "none"),
    ],
)
def test_a_painted_cylinder_has_the_symmetries_of_its_paint(paint, name):
    assert find_symmetries(_painted_cylinder(paint)).name == name


def test_colors_need_not_agree_when_they_are_not_asked_for():
    mesh = _painted_cylinder(lambda angle, z: (np.abs(angle - 0.5) < 0.6) * (z > 0) * 0.8)
    assert find_symmetries(mesh, texture=False).name == "Dinf"


def test_the_finest_turn_tried_is_a_choice():
    assert find_symmetries(_mesh(SHAPES["pyramid"][0]), max_order=4).name == "none"


def test_a_fit_says_how_far_and_how_unlike():
    box = SelfRegistration(_mesh(create.box((0.1, 0.2, 0.2)), np.eye(4)))
    quarter = exp(torch.tensor([0, 0, math.pi / 2]).double())
    assert box.fit(quarter).distance == pytest.approx(0.05 / 0.3, rel=0.03)
    assert box.fit(torch.eye(3).double()).distance < 1e-9


def test_distances_to_a_surface_are_exact():
    ball = SurfaceIndex(_mesh(create.icosphere(3), np.eye(4)), torch.zeros(3))
    box = SurfaceIndex(_mesh(create.box((2, 2, 2)), np.eye(4)), torch.zeros(3))
    points = torch.tensor([[0.0, 0, 3], [0.5, 0.25, 0], [2, 2, 0.3]]).double()
    torch.testing.assert_close(box.distances(points), torch.tensor([2, 0.5, 2**0.5]).double())
    assert float(ball.distances(points[:1])) == pytest.approx(2.0, abs=0.02)


def test_a_surface_without_area_is_refused():
    line = TriangleMesh(torch.tensor([[0.0, 0, 0], [1, 0, 0], [2, 0, 0]]), torch.tensor([[0, 1, 2]]))
    with pytest.raises(ValueError, match="area above zero"):
        find_symmetries(line)
