import json
import math

import numpy as np
import pytest
import torch

from sightline.formats.images import read_depth, read_image
from sightline.formats.meshes import read_mesh
from sightline.geometry.cameras import Camera
from sightline.geometry.rotations import exp, geodesic_distance
from sightline.objects.depth_refinement import refine_by_depth, settle_on_depth
from sightline.objects.depth_view import judge_by_depth
from sightline.objects.verification import verify_pose
from sightline.records import PoseEstimate
from sightline.rendering import render_views
from tests.printed_box import CAMERA, box_pose, picture_of, printed_box
from tests.real_data import real_path


def _depth(pose: torch.Tensor, *, behind: float = 0.15, noise: float = 0.001) -> torch.Tensor:
    """What a depth camera sees of the box before a wall, with holes along the outline."""
    drawn = render_views(printed_box(), pose[None], CAMERA.K, CAMERA.image_size, outputs=("depth",)).depth[0]
    generator = torch.Generator().manual_seed(0)
    depth = torch.where(drawn > 0, drawn, float(pose[2, 3]) + behind)
    depth = depth + noise * torch.randn(depth.shape, generator=generator)
    depth[torch.rand(depth.shape, generator=generator) < 0.1] = 0
    return depth


def _off(pose: torch.Tensor, degrees: float, shift: float, seed: int) -> torch.Tensor:
    """A pose turned about a random axis through the object's middle, and moved."""
    axis, way = torch.randn(2, 3, generator=torch.Generator().manual_seed(seed)).double()
    moved = pose.clone()
    moved[:3, :3] = exp(math.radians(degrees) * axis / axis.norm()) @ pose[:3, :3]
    moved[:3, 3] += shift * way / way.norm()
    return moved


def _errors(found: torch.Tensor, truth: torch.Tensor) -> tuple[float, float]:
    turn = float(torch.rad2deg(geodesic_distance(found[:3, :3], truth[:3, :3])))
    return turn, float((found[:3, 3] - truth[:3, 3]).norm())


@pytest.mark.parametrize("seed", range(4))
def test_a_pose_that_is_far_off_is_brought_home(seed: int):
    truth = box_pose()
    fit = refine_by_depth(printed_box(), _off(truth, 15, 0.03, seed), _depth(truth), CAMERA)
    assert fit is not None
    turn, shift = _errors(fit.cam_from_obj, truth)
    assert turn < 1.0
    assert shift < 0.0015
    assert fit.agreement > 0.7


def test_what_lies_before_the_object_does_not_pull_at_it():
    truth, depth = box_pose(), _depth(box_pose())
    depth[:, 150:185] = 0.36  # a post before the middle of the box
    fit = refine_by_depth(printed_box(), _off(truth, 6, 0.01, 0), depth, CAMERA)
    assert fit is not None
    turn, shift = _errors(fit.cam_from_obj, truth)
    assert turn < 1.5
    assert shift < 0.003


def test_a_right_pose_stays():
    truth = box_pose()
    fit = refine_by_depth(printed_box(), truth, _depth(truth, noise=0.0), CAMERA)
    assert fit is not None
    turn, shift = _errors(fit.cam_from_obj, truth)
    assert turn < 0.2
    assert shift < 3e-4


def test_the_agreement_tells_a_right_pose_from_others():
    truth = box_pose()
    depth = _depth(truth)
    scores = []
    for degrees, shift in ((0, 0.0), (5, 0.0), (15, 0.0), (0, 0.01)):
        fit = judge_by_depth(printed_box(), _off(truth, degrees, shift, 0), depth, CAMERA)
        assert fit is not None
        scores.append(fit.agreement)
    assert scores[0] > 0.75
    assert scores[0] > scores[1] + 0.1
    assert scores[1] > scores[2]
    assert scores[0] > scores[3] + 0.3


def test_what_hides_the_object_counts_less_than_what_is_seen_through_it():
    truth, scores = box_pose(), []
    for elsewhere in (0.36, 0.6):  # before it, and the wall behind it
        depth = _depth(truth)
        depth[:, 150:185] = elsewhere
        fit = judge_by_depth(printed_box(), truth, depth, CAMERA)
        assert fit is not None
        scores.append(fit.agreement)
    assert scores[0] > scores[1] + 0.1


def test_turns_are_about_the_objects_origin():
    truth = box_pose()
    fit = judge_by_depth(printed_box(), truth, _depth(truth), CAMERA)
    assert fit is not None
    turns, shifts = (fit.information[part, part].trace() for part in (slice(3), slice(3, 6)))
    assert float(turns / shifts) < (printed_box().diameter / 2) ** 2  # no arm is longer than the object


def test_nothing_is_said_where_nothing_is_measured():
    pose = box_pose()
    assert refine_by_depth(printed_box(), pose, torch.zeros(240, 320), CAMERA) is None
    assert judge_by_depth(printed_box(), pose, torch.full((240, 320), math.nan), CAMERA) is None
    aside = pose.clone()
    aside[0, 3] = 3.0
    assert refine_by_depth(printed_box(), aside, _depth(pose), CAMERA) is None
    aside[:3, 3] = -pose[:3, 3]  # behind the camera
    assert refine_by_depth(printed_box(), aside, _depth(pose), CAMERA) is None


def test_a_depth_picture_of_another_size_is_refused():
    with pytest.raises(ValueError, match="expected 320x240 pixels as its camera says, got 64x48"):
        refine_by_depth(printed_box(), box_pose(), torch.ones(48, 64), CAMERA)


def test_a_single_face_leaves_three_motions_open():
    frontal = torch.eye(4).double()
    frontal[2, 3] = 0.45
    fit = judge_by_depth(printed_box(), frontal, _depth(frontal), CAMERA)
    assert fit is not None
    values = torch.linalg.eigvalsh(fit.information)
    assert int((values > 1e-6 * values[-1]).sum()) == 3
    assert bool(fit.information[5, 5] > 1e6)  # along the axis it is sure to a millimetre
    assert bool(fit.information[2, 2] < 1e-6 * values[-1])  # of a turn in the plane it knows nothing


def test_colour_and_depth_together_decide_and_the_covariance_shrinks():
    truth = box_pose()
    image, depth = picture_of(printed_box(), truth), _depth(truth)
    start = _off(truth, 3, 0.008, 1)
    claim = torch.diag(torch.tensor([0.05] * 3 + [0.01] * 3).double() ** 2)
    pose = PoseEstimate(start[:3, :3], start[:3, 3], 0.5, True, claim, name="box")
    check = verify_pose(printed_box(), start, image, CAMERA, depth=depth)
    found, better = settle_on_depth(printed_box(), pose, check, image, CAMERA, depth)
    assert better.score > check.score
    assert _errors(found.cam_from_obj, truth)[1] < 0.0015
    assert found.covariance is not None
    assert bool((found.covariance.diagonal() < claim.diagonal()).all())
    assert bool(torch.linalg.eigvalsh(found.covariance)[0] > 0)


def test_depth_of_something_else_moves_nothing():
    truth = box_pose()
    image = picture_of(printed_box(), truth)
    wall = torch.full((240, 320), 0.44)
    pose = PoseEstimate(truth[:3, :3], truth[:3, 3], 0.5, True, name="box")
    check = verify_pose(printed_box(), truth, image, CAMERA, depth=wall)
    found, better = settle_on_depth(printed_box(), pose, check, image, CAMERA, wall)
    assert _errors(found.cam_from_obj, truth)[0] < 3
    assert better.score >= check.score - 0.1


def _lmo() -> tuple:
    folder = real_path("lmo_scene")
    camera = json.loads((folder / "camera.json").read_text())
    truth = next(iter(json.loads((folder / "scene_gt.json").read_text()).values()))[0]
    pose = torch.eye(4).double()
    pose[:3, :3] = torch.tensor(truth["cam_R_m2c"]).double().view(3, 3)
    pose[:3, 3] = torch.tensor(truth["cam_t_m2c"]).double() / 1000
    return (
        read_mesh(folder / "obj_000005.ply").mesh,
        torch.from_numpy(read_depth(folder / "depth.png", camera["depth_scale"])),
        Camera(torch.tensor(camera["cam_K"]).double().view(3, 3), 640, 480),
        pose,
        read_image(folder / "rgb.png"),
    )


@pytest.mark.real
def test_a_real_watering_can_is_brought_home():
    mesh, depth, camera, truth, _ = _lmo()
    errors = []
    for seed in range(5):
        fit = refine_by_depth(mesh, _off(truth, 15, 0.03, seed), depth, camera)
        assert fit is not None
        errors.append(_errors(fit.cam_from_obj, truth))
    turns, shifts = np.array(errors).T
    assert np.median(turns) < 2
    assert np.median(shifts) < 0.008
