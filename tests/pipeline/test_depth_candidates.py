import pytest
import torch

from sightline.geometry.poses import transform
from sightline.geometry.rotations import geodesic_distance
from sightline.objects.onboard import onboard_mesh
from sightline.pipeline.depth_candidates import poses_by_depth
from sightline.pipeline.estimate import PoseEstimator
from sightline.records import Correspondences
from sightline.rendering import render_views
from tests.objects.test_depth_refinement import _lmo as lmo_scene
from tests.printed_box import CAMERA, box_pose, picture_of, printed_box


class _Blind:
    """A matcher that sees nothing anywhere."""

    errors_in_common = 1.0

    def describe(self, image):
        return None

    def extend(self, card):
        raise AssertionError

    def match(self, features, card, *, box=None, max_groups=4) -> list[Correspondences]:
        return []

    def rematch(self, *args, **kwargs) -> Correspondences:
        raise AssertionError


def _depth(pose: torch.Tensor) -> torch.Tensor:
    drawn = render_views(printed_box(), pose[None], CAMERA.K, CAMERA.image_size, outputs=("depth",)).depth[0]
    return torch.where(drawn > 0, drawn, 0.6)


def _box(mesh, pose: torch.Tensor, camera) -> torch.Tensor:
    pixels = camera.project(transform(pose, mesh.vertices.double()))
    return torch.cat([pixels.amin(0), pixels.amax(0)])


def _turn(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(torch.rad2deg(geodesic_distance(a[:3, :3], b[:3, :3])))


def test_the_best_borne_out_comes_first_with_a_covariance():
    mesh, truth = printed_box(), box_pose()
    poses = poses_by_depth(
        mesh, picture_of(mesh, truth), CAMERA, _depth(truth), _box(mesh, truth, CAMERA), name="box"
    )
    scores = [check.score for _, check in poses]
    assert scores == sorted(scores, reverse=True)
    assert scores == [pose.score for pose, _ in poses]
    best = poses[0][0]
    assert best.name == "box"
    assert _turn(best.cam_from_obj, truth) < 0.5
    assert best.covariance is not None
    assert bool((torch.linalg.eigvalsh(best.covariance) > 0).all())
    assert float(best.covariance.diagonal()[3:].max().sqrt()) < 0.005


def test_depth_finds_what_no_matcher_sees():
    mesh, truth = printed_box(), box_pose()
    card = onboard_mesh(mesh, name="box", num_views=42, template_size=64)
    box = {"box": _box(mesh, truth, CAMERA)}
    estimator = PoseEstimator([card], _Blind())
    picture = picture_of(mesh, truth)
    found = estimator.find(picture, CAMERA, depth=_depth(truth), boxes=box)[0]
    assert found.pose.valid
    assert _turn(found.pose.cam_from_obj, truth) < 0.5
    assert found.seconds["depth"] > 0
    assert found.correspondences is None
    assert not estimator.find(picture, CAMERA, boxes=box)[0].pose.valid
    assert not estimator.find(picture, CAMERA, depth=_depth(truth))[0].pose.valid


@pytest.mark.real
def test_a_real_watering_can_is_found_by_depth():
    mesh, depth, camera, truth, image = lmo_scene()
    pose = poses_by_depth(mesh, image, camera, depth, _box(mesh, truth, camera), name="can")[0][0]
    assert _turn(pose.cam_from_obj, truth) < 2
    assert float((pose.t - truth[:3, 3]).norm()) < 0.008
