import math

import pytest
import torch

from sightline.geometry.rotations import geodesic_distance
from sightline.objects.baking import PosedPhoto
from sightline.objects.card_files import load_card, save_card
from sightline.pipeline.estimators import make_estimator
from sightline.sift import onboard_photos
from tests.printed_box import CAMERA, box_pose, picture_of, printed_box


def _photos(count: int = 3) -> list[PosedPhoto]:
    poses = [box_pose(tilt=0.5 + 0.15 * index) for index in range(count)]
    return [PosedPhoto(torch.from_numpy(picture_of(printed_box(), pose)), CAMERA, pose) for pose in poses]


def test_points_lie_on_the_object():
    card = onboard_photos(_photos(), name="box")
    assert card.mesh is None
    half = printed_box().bounds[1]
    assert float((card.bounds[1] - half).abs().max()) < 0.01
    assert sum(int((view.depth > 0).sum()) for view in card.templates) > 200


def test_poses_from_photographs_alone(tmp_path):
    card = save_card(onboard_photos(_photos(), name="box"), tmp_path / "box")
    truth = box_pose(tilt=0.58)
    (found,) = make_estimator([load_card(tmp_path / "box")]).find(picture_of(printed_box(), truth), CAMERA)
    assert card.folder == tmp_path / "box"
    assert found.pose.valid
    assert found.verification is None
    assert "not verified" in found.pose.reason
    assert float(geodesic_distance(found.pose.R, truth[:3, :3])) < math.radians(1.0)


def test_one_photograph_is_not_enough():
    with pytest.raises(ValueError, match="at least two posed photographs"):
        onboard_photos(_photos(1), name="box")


def test_wrong_poses_are_noticed():
    photos = _photos(2)
    wrong = PosedPhoto(photos[1].image, CAMERA, box_pose(tilt=1.4, turn=1.5))
    with pytest.raises(ValueError, match="are the poses right"):
        onboard_photos([photos[0], wrong], name="box")
