import numpy as np
import pytest
import torch

from sightline.objects.baking import PosedPhoto, bake_photos
from sightline.records import TriangleMesh
from sightline.rendering import render_views
from tests.printed_box import CAMERA, box_pose, picture_of, printed_box


def _plain_box() -> TriangleMesh:
    box = printed_box()
    return TriangleMesh(box.vertices, box.faces)


def _photo(pose: torch.Tensor) -> PosedPhoto:
    return PosedPhoto(torch.from_numpy(picture_of(printed_box(), pose)), CAMERA, pose)


def test_baked_mesh_looks_like_the_photo():
    pose = box_pose()
    photo = _photo(pose)
    baked, share = bake_photos(_plain_box(), [photo])
    drawn = render_views(baked, pose[None], CAMERA.K, CAMERA.image_size)
    difference = (drawn.color[0].int() - photo.image.int()).abs().float().mean(-1)
    assert float(difference[drawn.mask[0]].median()) < 3.0
    assert 0.3 < share < 0.7  # three of six faces


def test_baked_mesh_looks_right_from_elsewhere():
    baked, _ = bake_photos(_plain_box(), [_photo(box_pose())])
    other = box_pose(tilt=0.75, turn=0.3)
    seen = picture_of(printed_box(), other)
    drawn = render_views(baked, other[None], CAMERA.K, CAMERA.image_size)
    difference = np.abs(drawn.color[0].numpy().astype(int) - seen).mean(-1)
    assert np.median(difference[drawn.mask[0].numpy()]) < 12.0


def test_more_photos_show_more():
    shares = [
        bake_photos(_plain_box(), photos)[1]
        for photos in (
            [_photo(box_pose())],
            [_photo(box_pose()), _photo(box_pose(tilt=3.4))],
        )
    ]
    assert shares[1] > shares[0] + 0.2


def test_unseen_faces_stay_plain():
    baked, _ = bake_photos(_plain_box(), [_photo(box_pose())])
    behind = box_pose(tilt=0.6 + np.pi, turn=0.5 + np.pi)
    drawn = render_views(baked, behind[None], CAMERA.K, CAMERA.image_size)
    shades = drawn.color[0][drawn.mask[0]].float()
    seen = render_views(baked, box_pose()[None], CAMERA.K, CAMERA.image_size)
    assert float(shades.std()) < 0.5 * float(seen.color[0][seen.mask[0]].float().std())


def test_what_the_object_itself_hides_is_not_baked():
    """A half-size copy stands wholly behind the box: it gets nothing of the box's picture."""
    box, pose = printed_box(), box_pose()
    towards = pose[:3, :3].T @ pose[:3, 3] / pose[:3, 3].norm()
    behind = box.vertices / 2 + 0.15 * towards
    both = TriangleMesh(torch.cat([box.vertices, behind]), torch.cat([box.faces, box.faces + 8]))
    _, alone = bake_photos(_plain_box(), [_photo(pose)])
    _, share = bake_photos(both, [_photo(pose)])
    assert abs(share * 1.25 - alone) < 0.02


def test_masked_part_of_a_photo_is_not_baked():
    photo = _photo(box_pose())
    nothing = PosedPhoto(
        photo.image, photo.camera, photo.cam_from_obj, torch.zeros(240, 320, dtype=torch.bool)
    )
    with pytest.raises(ValueError, match="no photograph sees the mesh"):
        bake_photos(_plain_box(), [nothing])


def test_no_photo_and_wrong_size_are_refused():
    with pytest.raises(ValueError, match="at least one posed photograph"):
        bake_photos(_plain_box(), [])
    with pytest.raises(ValueError, match="the image is 10x10, its camera 320x240"):
        PosedPhoto(torch.zeros(10, 10, 3, dtype=torch.uint8), CAMERA, box_pose())
