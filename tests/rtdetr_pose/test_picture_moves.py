from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sightline.rtdetr_pose.augmentation import PoseAugmentation, PoseAugmentationSettings
from sightline.rtdetr_pose.picture_moves import PictureMove, make_move, move_picture, refuse_move
from sightline.rtdetr_pose.pictures import LabelledPicture, ScenePictures, classes_of_objects
from sightline.synthetic import SceneSettings, make_object, make_scene

PRINTED, PLAIN = make_object("mug", 2), make_object("bottle", 3, texture="low")
CLASSES = classes_of_objects([PRINTED, PLAIN])
SCENE = make_scene([PRINTED, PLAIN], 5, SceneSettings(image_size=(200, 150), size_px=(50, 80)))
PICTURE = ScenePictures([SCENE], [PRINTED, PLAIN]).draw(0, np.random.default_rng(0))
K = np.array([[210.0, 0, 96], [0, 195, 80], [0, 0, 1]])


def only(label: int) -> LabelledPicture:
    rows = np.flatnonzero(PICTURE.labels == label)
    assert PICTURE.masks is not None
    return PICTURE._replace(
        labels=PICTURE.labels[rows],
        boxes=PICTURE.boxes[rows],
        cam_from_obj=PICTURE.cam_from_obj[rows],
        masks=PICTURE.masks[rows],
    )


def pixels(points: np.ndarray, pose: np.ndarray, camera: np.ndarray) -> np.ndarray:
    seen = (points @ pose[:3, :3].T + pose[:3, 3]) @ camera.T
    return seen[:, :2] / seen[:, 2:]


def through(move: PictureMove, px: np.ndarray) -> np.ndarray:
    return px @ move.affine[:, :2].T + move.affine[:, 2]


@given(
    st.floats(-3, 3),
    st.floats(0.5, 2),
    st.tuples(st.floats(-0.3, 0.3), st.floats(-0.3, 0.3)),
    st.sampled_from([(200, 150), (96, 96), (320, 160)]),
)
def test_projecting_the_moved_pose_with_the_moved_camera_lands_on_the_moved_pixels(
    angle: float, zoom: float, shift: tuple[float, float], size: tuple[int, int]
):
    move = make_move(K, (200, 150), size, angle=angle, zoom=zoom, shift=shift)
    pose = PICTURE.cam_from_obj[0]
    points = CLASSES[0].points
    assert points is not None
    assert move.K is not None
    moved = np.eye(4)
    moved[:3] = move.turn @ pose[:3]
    np.testing.assert_allclose(
        pixels(points, moved, move.K), through(move, pixels(points, pose, K)), atol=1e-6
    )
    np.testing.assert_allclose(move.turn @ move.turn.T, np.eye(3), atol=1e-12)


@pytest.mark.parametrize("angle", [0.0, 0.5, -2.0])
@pytest.mark.parametrize("mirrored", [False, True])
def test_everything_moves_together(angle: float, mirrored: bool):
    picture = only(1) if mirrored else PICTURE
    move = make_move(
        picture.K, picture.size, (192, 160), angle=angle, zoom=0.9, shift=(0.03, -0.02), mirrored=mirrored
    )
    moved = move_picture(picture, move, CLASSES)
    assert moved.size == (192, 160)
    assert moved.masks is not None
    assert moved.depth is not None
    assert moved.K is not None
    for row, label in enumerate(moved.labels):
        pose, points = moved.cam_from_obj[row], CLASSES[int(label)].points
        assert points is not None
        assert np.linalg.det(pose[:3, :3]) == pytest.approx(1)
        seen = pixels(points, pose, moved.K)
        low, high = seen.min(0), seen.max(0)
        np.testing.assert_allclose(moved.boxes[row], [*low, *high], atol=1.0)
        rows, columns = np.nonzero(moved.masks[row])
        assert low[0] - 1.5 <= columns.min() <= columns.max() <= high[0] + 1.5
        assert low[1] - 1.5 <= rows.min() <= rows.max() <= high[1] + 1.5
        assert np.abs(np.median(moved.depth[moved.masks[row]]) - pose[2, 3]) < CLASSES[int(label)].diameter


def test_a_mirrored_plain_bottle_has_its_mirrored_vertices():
    picture = only(1)
    move = make_move(picture.K, picture.size, picture.size, mirrored=True)
    moved = move_picture(picture, move, CLASSES)
    points = CLASSES[1].points
    assert points is not None
    assert picture.K is not None
    assert moved.K is not None
    before = through(move, pixels(points, picture.cam_from_obj[0], picture.K))
    after = pixels(points, moved.cam_from_obj[0], moved.K)
    distance = np.linalg.norm(before[:, None] - after[None], axis=-1).min(1)
    assert distance.max() < 1.0
    np.testing.assert_array_equal(moved.image, picture.image[:, ::-1])


def test_mirrored_prints_are_refused_and_pictures_without_poses_are_not():
    move = make_move(PICTURE.K, PICTURE.size, PICTURE.size, mirrored=True)
    assert "another object" in str(refuse_move(PICTURE, move, CLASSES))
    with pytest.raises(ValueError, match="another object"):
        move_picture(PICTURE, move, CLASSES)
    boxes_only = PICTURE._replace(K=None, cam_from_obj=np.full_like(PICTURE.cam_from_obj, np.nan))
    flipped = move_picture(boxes_only, make_move(None, PICTURE.size, PICTURE.size, mirrored=True), CLASSES)
    np.testing.assert_allclose(flipped.boxes[:, 0], 199 - PICTURE.boxes[:, 2])
    turn = make_move(None, PICTURE.size, PICTURE.size, angle=0.3)
    with pytest.raises(ValueError, match="turned box"):
        move_picture(boxes_only, turn, CLASSES)


def test_the_plain_resize_keeps_bytes_and_scales_k_by_axis():
    same = move_picture(PICTURE, make_move(PICTURE.K, PICTURE.size, PICTURE.size), CLASSES)
    assert same is PICTURE
    move = make_move(K, (200, 150), (100, 150))
    np.testing.assert_allclose(move.K, [[105, 0, 47.75], [0, 195, 80], [0, 0, 1]])


def test_drawn_moves_are_true_and_lose_no_box():
    augmentation = PoseAugmentation(PoseAugmentationSettings(move_share=1.0, flip_share=1.0))
    turned = mirrored = 0
    for seed in range(40):
        picture = only(1) if seed % 2 else PICTURE
        move = augmentation.draw_move(np.random.default_rng(seed), picture, (160, 128), CLASSES)
        assert refuse_move(picture, move, CLASSES) is None
        turned += not move.straight
        mirrored += move.mirrored
        boxes = move_picture(picture, move, CLASSES).boxes
        inside = np.clip(boxes, -0.5, np.array([159.5, 127.5] * 2))
        assert (
            np.prod(inside[:, 2:] - inside[:, :2], 1) > 0.6 * np.prod(boxes[:, 2:] - boxes[:, :2], 1)
        ).all()
    assert turned > 10
    assert mirrored == 20


def test_looks_change_the_picture_alone_and_deterministically():
    augmentation = PoseAugmentation(
        PoseAugmentationSettings(color_share=1, blur_share=1, haze_share=1, noise_share=1, jpeg_share=1)
    )
    first, second = (augmentation.change_look(np.random.default_rng(3), PICTURE) for _ in range(2))
    assert np.array_equal(first.image, second.image)
    assert not np.array_equal(first.image, PICTURE.image)
    assert first.boxes is PICTURE.boxes
    nothing = PoseAugmentationSettings(color_share=0, blur_share=0, haze_share=0, noise_share=0, jpeg_share=0)
    assert PoseAugmentation(nothing).change_look(np.random.default_rng(3), PICTURE).image is PICTURE.image
    with pytest.raises(ValueError, match="zoom"):
        PoseAugmentationSettings(zoom=(2.0, 1.0))
