import math

import pytest
import torch

from sightline.geometry.symmetry import SymmetryGroup
from sightline.objects.baking import PosedPhoto
from sightline.objects.card import ObjectCard
from sightline.objects.growing import grow_card, is_certain, rebake, shows_a_new_view
from sightline.objects.onboard import onboard_mesh
from sightline.objects.photos import onboard_photos_on_mesh
from sightline.objects.verification import verify_pose
from sightline.records import PoseEstimate, TriangleMesh
from tests.printed_box import CAMERA, box_pose, picture_of, printed_box


@pytest.fixture(scope="module")
def card() -> ObjectCard:
    box = printed_box()
    photo = PosedPhoto(torch.from_numpy(picture_of(box, box_pose())), CAMERA, box_pose())
    plain = TriangleMesh(box.vertices, box.faces)
    return onboard_photos_on_mesh(plain, [photo], name="box", num_views=42, template_size=96)[0]


def _estimate(pose: torch.Tensor, sigma_deg: float) -> PoseEstimate:
    covariance = torch.eye(6, dtype=torch.float64) * math.radians(sigma_deg) ** 2 / 3
    return PoseEstimate(pose[:3, :3], pose[:3, 3], 0.8, valid=True, covariance=covariance)


def test_only_a_certain_pose_teaches():
    pose = box_pose()
    check = verify_pose(printed_box(), pose, picture_of(printed_box(), pose), CAMERA)
    assert is_certain(_estimate(pose, 0.2), check)
    assert not is_certain(_estimate(pose, 3.0), check)
    covered = picture_of(printed_box(), pose)
    covered[:, :150] = 128
    assert not is_certain(_estimate(pose, 0.2), verify_pose(printed_box(), pose, covered, CAMERA))


def test_only_a_new_view_teaches(card: ObjectCard):
    assert not shows_a_new_view(card, box_pose(turn=0.55))  # a turn in the plane shows nothing new
    assert shows_a_new_view(card, box_pose(tilt=1.2))


def test_a_frame_becomes_a_template(card: ObjectCard):
    pose = box_pose(tilt=1.2)
    image = torch.from_numpy(picture_of(printed_box(), pose))
    grown = grow_card(card, image, CAMERA, pose)
    assert len(grown.templates) == len(card.templates) + 1
    view = grown.templates[-1]
    assert view.source == "frame"
    assert float(view.mask.double().mean()) > 0.4
    assert grown.folder is None


def test_a_grown_card_shows_more(card: ObjectCard):
    behind = box_pose(tilt=0.6 + math.pi, turn=0.5)
    picture = picture_of(printed_box(), behind)
    before = verify_pose(card.mesh, behind, picture, CAMERA)
    grown = rebake(grow_card(card, torch.from_numpy(picture), CAMERA, behind))
    after = verify_pose(grown.mesh, behind, picture, CAMERA)
    assert after.texture > before.texture + 0.3
    assert after.appearance > 0.8


def test_what_covers_the_object_is_not_learnt(card: ObjectCard):
    pose = box_pose()
    image = torch.from_numpy(picture_of(printed_box(), pose))
    noise = torch.randint(0, 255, (240, 60, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    image[:, 110:170] = noise
    clean = grow_card(card, torch.from_numpy(picture_of(printed_box(), pose)), CAMERA, pose).templates[-1]
    grown = grow_card(card, image, CAMERA, pose).templates[-1]
    assert int(grown.mask.sum()) < 0.8 * int(clean.mask.sum())


def test_a_card_without_a_mesh_cannot_grow(card: ObjectCard):
    bare = ObjectCard("box", card.templates[:1], card.bounds, card.diameter, SymmetryGroup.none())
    with pytest.raises(ValueError, match="only a card with a mesh can grow"):
        grow_card(bare, torch.zeros(240, 320, 3, dtype=torch.uint8), CAMERA, box_pose())


def test_a_card_of_a_mesh_grows_without_baking():
    made = onboard_mesh(
        printed_box(), name="box", num_views=42, template_size=64, symmetries=SymmetryGroup.none()
    )
    assert shows_a_new_view(made, box_pose())
