import itertools
import math

import numpy as np
import pytest
import torch

from sightline.geometry.cameras import Camera
from sightline.geometry.poses import transform
from sightline.geometry.rotations import geodesic_distance
from sightline.objects.depth_search import search_by_depth
from sightline.objects.shown_points import shown_points
from sightline.objects.verification import verify_pose
from sightline.records import TriangleMesh
from sightline.rendering import render_views
from tests.objects.test_depth_refinement import _lmo as lmo_scene
from tests.printed_box import CAMERA, box_pose, picture_of, printed_box


def _wedge() -> TriangleMesh:
    """A bent thing without any symmetry: three boxes that meet in a corner."""
    box = printed_box()
    corners, faces = box.vertices, box.faces
    parts = [
        corners,
        corners * 0.7 + torch.tensor([0.05, 0.0, 0.04]),
        corners * torch.tensor([0.3, 0.5, 2.0]),
    ]
    return TriangleMesh(torch.cat(parts), torch.cat([faces + 8 * k for k in range(3)]))


def _depth(
    mesh: TriangleMesh, pose: torch.Tensor, behind: float = 0.12, noise: float = 0.001
) -> torch.Tensor:
    """What a depth camera sees of a thing before a wall, with a post before its left part."""
    drawn = render_views(mesh, pose[None], CAMERA.K, CAMERA.image_size, outputs=("depth",)).depth[0]
    generator = torch.Generator().manual_seed(0)
    depth = torch.where(drawn > 0, drawn, float(pose[2, 3]) + 0.12)
    depth = depth + 0.001 * torch.randn(depth.shape, generator=generator)
    depth[torch.rand(depth.shape, generator=generator) < 0.1] = 0
    return depth


def _box(mesh: TriangleMesh, pose: torch.Tensor, camera: Camera = CAMERA) -> torch.Tensor:
    pixels = camera.project(transform(pose, mesh.vertices.double()))
    return torch.cat([pixels.amin(0), pixels.amax(0)])


def _errors(found: torch.Tensor, truth: torch.Tensor) -> tuple[float, float]:
    turn = float(torch.rad2deg(geodesic_distance(found[:3, :3], truth[:3, :3])))
    return turn, float((found[:3, 3] - truth[:3, 3]).norm())


@pytest.mark.parametrize("turn", [0.5, 2.0, -1.3])
def test_a_pose_is_found_without_a_start(turn: float):
    mesh, truth = _wedge(), box_pose(turn=turn)
    best = search_by_depth(mesh, _depth(mesh, truth), CAMERA, _box(mesh, truth))[0]
    degrees, shift = _errors(best.cam_from_obj, truth)
    assert degrees < 1.0
    assert shift < 0.0015


def test_what_hides_a_part_is_no_contradiction_and_a_box_may_be_rough():
    mesh, truth = _wedge(), box_pose()
    depth = _depth(mesh, truth)
    box = _box(mesh, truth)
    middle = int((box[0] + box[2]) / 2)
    depth[:, middle - 15 : middle + 15] = 0.3  # a post
    rough = box + torch.tensor([-8.0, 5.0, 6.0, -6.0])
    best = search_by_depth(mesh, depth, CAMERA, rough)[0]
    degrees, shift = _errors(best.cam_from_obj, truth)
    assert degrees < 2.0
    assert shift < 0.003


def test_print_tells_the_sides_of_a_box_apart_that_are_alike_in_depth():
    mesh, truth = printed_box(), box_pose()
    picture, depth = picture_of(mesh, truth), _depth(mesh, truth)
    by_depth = search_by_depth(mesh, depth, CAMERA, _box(mesh, truth), most=6)
    best = search_by_depth(mesh, depth, CAMERA, _box(mesh, truth), image=picture)[0]
    assert _errors(best.cam_from_obj, truth)[0] < 1.0
    turns = [_errors(fit.cam_from_obj, truth)[0] for fit in by_depth]
    assert sum(turn > 170 for turn in turns) >= 2  # alike in depth, the other way round


def test_poses_are_distinct_and_as_few_as_asked_for():
    mesh, truth = printed_box(), box_pose()
    fits = search_by_depth(mesh, _depth(mesh, truth), CAMERA, _box(mesh, truth), most=4)
    assert len(fits) == 4
    turns = [_errors(a.cam_from_obj, b.cam_from_obj)[0] for a, b in itertools.pairwise(fits)]
    assert min(turns) > 5


def test_nothing_is_found_where_nothing_is_measured():
    mesh, truth = _wedge(), box_pose()
    assert search_by_depth(mesh, torch.zeros(240, 320), CAMERA, _box(mesh, truth)) == []


def test_bad_input_is_refused():
    mesh, truth = _wedge(), box_pose()
    with pytest.raises(ValueError, match="expected 320x240 pixels as its camera says, got 64x48"):
        search_by_depth(mesh, torch.ones(48, 64), CAMERA, _box(mesh, truth))
    with pytest.raises(ValueError, match="expected x0 < x1 and y0 < y1"):
        search_by_depth(mesh, torch.ones(240, 320), CAMERA, torch.tensor([5.0, 5, 5, 9]))


def test_shown_points_lie_on_the_surface_and_beside_it():
    box = printed_box()
    shown = shown_points(box, 42)
    half = torch.tensor([0.06, 0.04, 0.025])
    off = (shown.points.abs() - half).amax(-1)
    assert float(off.abs().max()) < 1e-4
    towards = -(shown.normals * shown.rotations[:, None, 2]).sum(-1)
    assert bool((towards > 0).all())
    # farther from the view's axis than the outline, hence off the box
    assert float((shown.beside.abs() - half).amax(-1).median()) > 0.0005
    assert math.isclose(float(shown.normals.norm(dim=-1).mean()), 1.0, abs_tol=1e-4)


@pytest.mark.real
def test_a_real_watering_can_is_found_by_depth_in_its_box():
    mesh, depth, camera, truth, image = lmo_scene()
    found = search_by_depth(mesh, depth, camera, _box(mesh, truth, camera), image=image)
    best = max(found, key=lambda f: verify_pose(mesh, f.cam_from_obj, image, camera, depth=depth).score)
    degrees, shift = _errors(best.cam_from_obj, truth)
    assert degrees < 2.0
    assert shift < 0.008
    assert np.isfinite(best.information.numpy()).all()
