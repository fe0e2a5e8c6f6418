import numpy as np
import pytest
import torch

from sightline.geometry.rotations import geodesic_distance
from sightline.geometry.symmetry import SymmetryGroup
from sightline.objects.card import ObjectCard
from sightline.objects.onboard import onboard_mesh
from sightline.pipeline.estimate import PoseEstimator
from sightline.pipeline.estimators import make_estimator
from sightline.pipeline.sources import Frame
from sightline.pipeline.tracking import track
from sightline.rendering import render_views
from tests.printed_box import CAMERA, box_pose, picture_of, printed_box


def _card(seed: int, name: str) -> ObjectCard:
    none = SymmetryGroup.none()
    return onboard_mesh(printed_box(seed), name=name, num_views=42, template_size=160, symmetries=none)


@pytest.fixture(scope="module")
def estimator() -> PoseEstimator:
    return make_estimator([_card(0, "box")])


def _noisy(picture: np.ndarray, seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(0, 4, picture.shape)
    return np.clip(picture + noise, 0, 255).astype(np.uint8)


def test_pose_is_found(estimator: PoseEstimator):
    pose = box_pose()
    (found,) = estimator.find(_noisy(picture_of(printed_box(), pose)), CAMERA)
    assert found.pose.valid
    assert found.pose.name == "box"
    assert float(geodesic_distance(found.pose.R, pose[:3, :3])) < np.radians(0.5)
    assert float((found.pose.t - pose[:3, 3]).norm()) < 0.002
    assert found.pose.score > 0.7
    assert found.pose.covariance is not None
    assert set(found.seconds) >= {"features", "match", "solve", "refine", "verify"}


def test_box_surrounds_the_object(estimator: PoseEstimator):
    pose = box_pose()
    (found,) = estimator.find(picture_of(printed_box(), pose), CAMERA)
    mask = render_views(printed_box(), pose[None], CAMERA.K, CAMERA.image_size, outputs=("mask",)).mask[0]
    rows, columns = mask.any(1).nonzero()[:, 0], mask.any(0).nonzero()[:, 0]
    true = torch.stack([columns[0], rows[0], columns[-1], rows[-1]]).double()
    assert float((found.box - true).abs().max()) < 2.5


def test_an_absent_object_is_not_guessed(estimator: PoseEstimator):
    (found,) = estimator.find(_noisy(picture_of(printed_box(1), box_pose())), CAMERA)
    assert not found.pose.valid
    assert found.pose.reason
    assert bool(found.box.isnan().all()) or found.pose.score < 0.4


def test_failure_is_never_the_identity(estimator: PoseEstimator):
    (found,) = estimator.find(np.full((240, 320, 3), 128, np.uint8), CAMERA)
    assert not found.pose.valid
    assert bool(found.pose.R.isnan().all())


def test_a_solved_pose_that_is_not_borne_out_is_no_pose():
    strict = make_estimator([_card(0, "box")], min_score=0.999)
    (found,) = strict.find(_noisy(picture_of(printed_box(), box_pose())), CAMERA)
    assert not found.pose.valid
    assert "does not bear the pose out" in found.pose.reason
    assert found.pose.num_inliers > 20
    assert found.pose.score > 0.7
    assert bool(found.pose.R.isnan().all())
    assert bool(found.box.isnan().all())


def test_two_instances():
    left, right = box_pose(distance=0.6), box_pose(tilt=0.8, distance=0.6)
    left[0, 3], right[0, 3] = -0.08, 0.08
    picture = picture_of(printed_box(), left)
    picture[:, 160:] = picture_of(printed_box(), right)[:, 160:]
    estimator = make_estimator([_card(0, "box")], max_instances=3)
    found = [one for one in estimator.find(picture, CAMERA) if one.pose.valid]
    assert len(found) == 2
    assert sorted(float(one.pose.t[0]) < 0 for one in found) == [False, True]


def test_look_alikes_do_not_share_a_place():
    estimator = make_estimator([_card(0, "first"), _card(1, "second")])
    found = {one.card.name: one for one in estimator.find(picture_of(printed_box(1), box_pose()), CAMERA)}
    assert found["second"].pose.valid
    assert not found["first"].pose.valid


def test_depth_in_another_unit_is_refused(estimator: PoseEstimator):
    depth = torch.full((240, 320), 450.0)
    with pytest.raises(ValueError, match="millimetres read as metres"):
        estimator.find(picture_of(printed_box(), box_pose()), CAMERA, depth=depth)


def test_tracking_loses_and_finds_again(estimator: PoseEstimator):
    def frames():
        for index in range(8):
            pose = box_pose(turn=0.5 + 0.03 * index)
            picture = picture_of(printed_box(), pose)
            if index in (3, 4):
                picture[:] = 128
            yield Frame(index, f"{index}", picture)

    results = list(track(frames(), estimator, CAMERA))
    states = [result.states["box"] for result in results]
    assert states[0] == "found"
    assert states[1:3] == ["tracked", "tracked"]
    assert states[3:5] == ["lost", "lost"]
    assert states[5] == "found"
    assert states[6:] == ["tracked", "tracked"]
    last = results[-1].found[0].pose
    assert float(geodesic_distance(last.R, box_pose(turn=0.71)[:3, :3])) < np.radians(1)
