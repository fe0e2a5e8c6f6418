from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from sightline.rtdetr_pose.consistency import check_picture, check_pictures
from sightline.rtdetr_pose.pictures import LabelledPicture, ObjectClass, ScenePictures
from sightline.synthetic import SceneSettings, make_object, make_scene

OBJECTS = [make_object("box", 1), make_object("bottle", 3, texture="low")]
SCENE = make_scene(OBJECTS, 4, SceneSettings(image_size=(200, 150), size_px=(50, 80)))
SOURCE = ScenePictures([SCENE], OBJECTS)
PICTURE = SOURCE.draw(0, np.random.default_rng(0))


def kinds(picture: LabelledPicture, classes: Sequence[ObjectClass] = SOURCE.classes) -> set[str]:
    return {each.fault.kind for each in check_picture(picture, classes)}


def with_pose(**changes: object) -> LabelledPicture:
    pose = PICTURE.cam_from_obj.copy()
    for key, value in changes.items():
        pose[0, {"x": 0, "y": 1, "z": 2}[key], 3] = value
    return PICTURE._replace(cam_from_obj=pose)


def test_true_pictures_have_no_faults():
    assert check_picture(PICTURE, SOURCE.classes) == []
    report = check_pictures(SOURCE)
    assert report.lines() == ["1 pictures with 2 objects, 0 pictures with faults"]
    assert set(report.counts.values()) == {1}


def test_a_pose_beside_its_object():
    t = PICTURE.cam_from_obj[0, :3, 3]
    faults = check_picture(with_pose(x=t[0] + 0.5 * t[2]), SOURCE.classes)
    assert {each.fault.kind for each in faults} == {"box_projection", "mask_projection"}
    assert str(faults[0]).startswith(
        f"scene 0, object 0 ({OBJECTS[PICTURE.labels[0]].name}): box: its points"
    )


def test_a_pose_at_another_depth():
    pose = PICTURE.cam_from_obj.copy()
    pose[0, :3, 3] *= 2
    assert "depth_pose" in kinds(PICTURE._replace(cam_from_obj=pose))


def test_depth_in_millimetres_is_named():
    assert PICTURE.depth is not None
    faults = check_picture(PICTURE._replace(depth=1000 * PICTURE.depth), SOURCE.classes)
    assert any("millimetres read as metres" in str(each) for each in faults)
    assert {"depth_pose", "depth_unit"} <= {each.fault.kind for each in faults}


def test_a_mesh_in_another_unit():
    label = int(PICTURE.labels[0])
    known = list(SOURCE.classes)
    points = known[label].points
    assert points is not None
    known[label] = ObjectClass(known[label].name, 0, known[label].diameter, points=points / 1000)
    faults = [each for each in check_picture(PICTURE, known) if each.fault.kind == "box_projection"]
    assert "another unit" in str(faults[0])


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        (lambda p: p._replace(K=p.K * [[3.2], [3.2], [1]]), "box_projection"),
        (lambda p: p._replace(labels=p.labels + 7), "label_range"),
        (lambda p: p._replace(masks=p.masks & False), "mask_empty"),
        (lambda p: p._replace(boxes=p.boxes + 5000), "box_outside"),
        (lambda p: p._replace(boxes=p.boxes * np.nan), "box_values"),
        (lambda p: p._replace(depth=np.zeros_like(p.depth)), "depth_empty"),
        (lambda p: p._replace(depth=p.depth * np.nan), "depth_missing"),
        (lambda p: p._replace(depth=p.depth[:20]), "depth_size"),
        (lambda p: p._replace(boxes=p.boxes[:, [2, 3, 0, 1]]), "box_format"),
        (lambda p: p._replace(cam_from_obj=-p.cam_from_obj), "pose_matrix"),
    ],
)
def test_spoilt_pictures_are_found(change, kind: str):
    assert kind in kinds(change(PICTURE))


def test_a_point_behind_the_camera():
    assert "points_behind" in kinds(with_pose(z=0.02))


def test_a_camera_for_another_size_is_found_by_its_principal_point():
    assert PICTURE.K is not None
    scaled = PICTURE.K * [[3.2], [3.2], [1]]
    faults = check_picture(PICTURE._replace(K=scaled), SOURCE.classes)
    assert faults[0].row is None
    assert faults[0].fault.kind == "camera_size"


def test_files_that_cannot_be_read_and_classes_that_are_never_there():
    class Broken:
        classes = SOURCE.classes
        notes = ("class ids 3, 9 have holes",)

        def __len__(self) -> int:
            return 5

        def draw(self, number: int, rng: np.random.Generator) -> LabelledPicture:
            if number == 4:
                raise ValueError("rgb/000004.png: truncated")
            return PICTURE._replace(
                labels=PICTURE.labels[:0],
                boxes=PICTURE.boxes[:0],
                cam_from_obj=PICTURE.cam_from_obj[:0],
                masks=None,
            )

    report = check_pictures(Broken())
    lines = report.lines()
    assert lines[0] == "5 pictures with 0 objects, 1 pictures with faults"
    assert "class ids 3, 9 have holes" in lines
    assert sum("in no picture" in line for line in lines) == 2
    assert lines[-1] == "picture 4: picture: rgb/000004.png: truncated"
    assert check_pictures(Broken(), limit=2).num_pictures == 2
    with pytest.raises(ValueError, match="limit"):
        check_pictures(Broken(), limit=0)
