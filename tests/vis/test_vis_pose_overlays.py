from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

import sightline.vis.pose_overlays as pose_overlays
from sightline.records import PoseEstimate
from sightline.vis.palette import AXIS_COLORS, PALETTE, PLATE
from sightline.vis.pose_overlays import draw_pose, draw_poses
from tests.vis.scenes import changed, grey_picture, make_camera, make_estimate, near_color

BOUNDS = np.array([[-0.1, -0.1, -0.1], [0.1, 0.1, 0.1]])


def disc(x: float, y: float, radius: int) -> np.ndarray:
    mask = np.zeros((240, 320), dtype=np.uint8)
    cv2.circle(mask, (round(x), round(y)), radius, 1, -1)
    return mask.astype(bool)


@pytest.fixture
def written(monkeypatch):
    """The texts that the overlay writes."""
    texts, label, notes = [], pose_overlays.paint_label, pose_overlays.paint_notes

    def paint_label(canvas, text, *args, **kwargs):
        texts.append(text)
        return label(canvas, text, *args, **kwargs)

    def paint_notes(canvas, lines, **kwargs):
        texts.extend(lines)
        return notes(canvas, lines, **kwargs)

    monkeypatch.setattr(pose_overlays, "paint_label", paint_label)
    monkeypatch.setattr(pose_overlays, "paint_notes", paint_notes)
    return texts


def test_the_standard_overlay_has_contour_box_axes_and_label(written):
    image, color = grey_picture(), PALETTE["vermillion"]
    pose = make_estimate()
    drawn = draw_pose(image, make_camera(), pose, bounds=BOUNDS, mask=disc(159.5, 119.5, 20), color=color)
    assert near_color(drawn[119, 139:142], color, 90).any()  # the contour of the disc
    assert near_color(drawn[152:155, 150], color, 90).any()  # the near edge of the box
    assert near_color(drawn[119:121, 190], AXIS_COLORS[0]).any()  # x
    assert near_color(drawn[165, 159:161], AXIS_COLORS[1]).any()  # y
    assert near_color(drawn[60:90, 120:250], color, 0).mean() > 0.1  # the label's plate
    assert not changed(image, drawn)[:50].any() and not changed(image, drawn)[200:].any()
    assert written == ["mug 0.93  1.00 m"]
    assert (image == 100).all()


def test_what_was_not_found_is_listed_and_never_placed(written):
    image = grey_picture()
    lost = [PoseEstimate.failure("3 matches", name="mug"), PoseEstimate.failure("", name="can")]
    drawn = draw_poses(image, make_camera(), lost, bounds=[BOUNDS, BOUNDS], masks=[disc(90, 60, 30), None])
    assert written == ["mug not found: 3 matches", "can not found: no reason given"]
    place = changed(image, drawn)
    assert place[239, 0] and not place[:200].any() and drawn[239, 0].tolist() == list(PLATE)


def test_far_objects_are_drawn_first(written):
    near = make_estimate(t=(0.0, 0.0, 0.6), name="near")
    far = make_estimate(t=(0.0, 0.0, 1.0), name="far")
    masks = [disc(159.5, 119.5, 40), disc(159.5 + 40, 119.5, 40)]
    colors = {"near": (255, 0, 0), "far": (0, 0, 255)}
    pictures = []
    for order in ((0, 1), (1, 0)):
        poses = [(near, far)[i] for i in order]
        pictures.append(
            draw_poses(grey_picture(), make_camera(), poses, masks=[masks[i] for i in order], colors=colors)
        )
    assert (pictures[0] == pictures[1]).all()
    crossing = np.argwhere(masks[0] & masks[1])[0]
    row, column = crossing
    assert near_color(pictures[0][row - 1 : row + 2, column - 1 : column + 2], (255, 0, 0), 90).any()
    assert written[:2] == ["near 0.93  600 mm", "far 0.93  1.00 m"]  # the nearest chooses its place first


def test_labels_of_neighbours_do_not_cover_one_another(monkeypatch):
    boxes, paint = [], pose_overlays.paint_label

    def record(*args, **kwargs):
        boxes.append(paint(*args, **kwargs))
        return boxes[-1]

    monkeypatch.setattr(pose_overlays, "paint_label", record)
    poses = [make_estimate(t=(0.01 * i, 0.0, 1.0), name=f"object {i}") for i in range(4)]
    draw_poses(grey_picture(), make_camera(), poses, bounds=[BOUNDS] * 4)
    assert len(boxes) == 4
    for i, a in enumerate(boxes):
        for b in boxes[:i]:
            assert a.x1 <= b.x0 or b.x1 <= a.x0 or a.y1 <= b.y0 or b.y1 <= a.y0


def test_an_object_outside_the_picture_has_no_label(written):
    image = grey_picture()
    poses = [make_estimate(t=(5.0, 0.0, 1.0)), make_estimate(t=(0.0, 0.0, -1.0))]
    assert (draw_poses(image, make_camera(), poses, bounds=[BOUNDS, None]) == image).all()
    assert written == []


def test_records_and_arrays_of_any_kind_are_taken():
    pose = make_estimate()
    single = PoseEstimate(pose.R.float(), pose.t.float(), 0.5, True, name="mug")
    mask = torch.from_numpy(disc(159.5, 119.5, 20))
    drawn = draw_pose(grey_picture(), make_camera(), single, bounds=torch.from_numpy(BOUNDS), mask=mask)
    assert changed(grey_picture(), drawn).any()


def test_bad_arguments_are_refused():
    image, camera, pose = grey_picture(), make_camera(), make_estimate()
    with pytest.raises(ValueError, match="expected the camera's 320 x 240 pixels, got 320 x 200"):
        draw_pose(grey_picture(320, 200), camera, pose)
    with pytest.raises(ValueError, match=r"masks: expected one \(or None\) for each of 1 poses, got 2"):
        draw_poses(image, camera, [pose], masks=[None, None])
    with pytest.raises(ValueError, match="mask: expected bool"):
        draw_pose(image, camera, pose, mask=np.ones((10, 10), dtype=bool))
    with pytest.raises(ValueError, match="bounds: expected finite"):
        draw_pose(image, camera, pose, bounds=np.zeros((3, 2)))
