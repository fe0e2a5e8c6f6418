"""What one input shows by itself: each check finds its fault, says what it looks like, and is else silent."""

import math

import pytest
import torch

from sightline.geometry.cameras import Camera
from sightline.objects.checks import (
    Fault,
    check_box,
    check_camera,
    check_depth,
    check_depth_values,
    check_intrinsics,
    check_mask,
    check_pose,
    check_size,
    raise_faults,
    suspect_camera,
)
from sightline.objects.inspection.depth_holes import check_holes, check_zeros

CAMERA = Camera.from_focal(600.0, 640, 480)


def _kinds(faults: list[Fault]) -> list[str]:
    return [fault.kind for fault in faults]


def _pose(x: float = 0.0, y: float = 0.0, z: float = 0.8) -> torch.Tensor:
    pose = torch.eye(4, dtype=torch.float64)
    pose[:3, 3] = torch.tensor([x, y, z])
    return pose


@pytest.mark.parametrize("diameter", [0.003, 0.1, 5.0])
def test_possible_sizes_pass(diameter: float):
    assert check_size(diameter) == []


@pytest.mark.parametrize(
    ("diameter", "words"),
    [
        (150.0, "1000 times smaller it would be 0.15 m: millimetres read as metres?"),
        (0.00015, "1000 times larger it would be 0.15 m: metres read as millimetres?"),
    ],
)
def test_impossible_sizes_name_the_unit(diameter: float, words: str):
    (fault,) = check_size(diameter)
    assert fault.kind == "mesh_unit"
    assert fault.evidence == {"diameter": diameter}
    assert words in fault.message


def test_sound_intrinsics_pass():
    assert check_intrinsics(CAMERA.K, (640, 480)) == []
    assert check_camera(CAMERA) == []
    assert suspect_camera(CAMERA.crop(30, -20, 640, 480).K, (640, 480)) == []


@pytest.mark.parametrize(
    ("K", "kind", "words"),
    [
        (CAMERA.K.mT.contiguous(), "camera_transposed", "(319.5, 239.5) stands in the last row"),
        (torch.full((3, 3), math.nan, dtype=torch.float64), "camera_matrix", "NaN"),
        (CAMERA.K * torch.tensor([-1.0, 1, 1])[:, None], "camera_matrix", "not positive"),
        (torch.ones(3, 3, dtype=torch.float64), "camera_matrix", "no intrinsic matrix"),
        (CAMERA.K / torch.tensor([640.0, 480, 1])[:, None], "camera_normalised", "shares of the picture"),
    ],
)
def test_matrices_that_are_no_camera(K: torch.Tensor, kind: str, words: str):
    (fault,) = check_intrinsics(K, (640, 480))
    assert fault.kind == kind
    assert words in fault.message


@pytest.mark.parametrize(
    ("size", "kind", "words"),
    [
        ((320, 240), "camera_size", "middle of 320x240"),
        ((480, 640), "camera_swapped", "width and height swapped"),
    ],
)
def test_principal_point_of_another_picture_is_suspected(size: tuple[int, int], kind: str, words: str):
    (fault,) = suspect_camera(Camera.from_focal(500.0, *size).K, (640, 480))
    assert fault.kind == kind
    assert words in fault.message


def test_principal_point_of_a_cut_picture_is_not_suspected():
    assert suspect_camera(CAMERA.crop(200, 20, 640, 480).K, (640, 480)) == []


@pytest.mark.parametrize("focal", [100.0, 8000.0])
def test_impossible_angle_of_view(focal: float):
    (fault,) = check_camera(Camera.from_focal(focal, 640, 480))
    assert fault.kind == "camera_focal"
    assert "degrees" in fault.message


@pytest.mark.parametrize(
    ("factor", "words"), [(1000.0, "millimetres read as metres"), (0.001, "metres read as millimetres")]
)
def test_depth_in_another_unit(factor: float, words: str):
    (fault,) = check_depth(torch.full((480, 640), 0.8 * factor), CAMERA)
    assert fault.kind == "depth_unit"
    assert words in fault.message


def test_depth_of_another_size_or_without_values():
    assert _kinds(check_depth(torch.ones(240, 320), CAMERA)) == ["depth_size"]
    assert _kinds(check_depth_values(torch.full((4, 4), math.nan))) == ["depth_empty"]
    assert check_depth_values(torch.tensor([[0.0, math.nan, 0.8]])) == []


def test_masks_of_nothing_and_of_everything():
    mask = torch.zeros(4, 4, dtype=torch.bool)
    assert _kinds(check_mask(mask)) == ["mask_empty"]
    assert _kinds(check_mask(~mask)) == ["mask_full"]
    mask[1, 1] = True
    assert check_mask(mask) == []


@pytest.mark.parametrize(
    ("box", "kind"),
    [
        ((300, 200, 80, 60), "box_format"),
        ((0.1, 0.2, 0.3, 0.4), "box_normalised"),
        ((700, 100, 800, 200), "box_outside"),
        ((math.nan, 0, 1, 2), "box_values"),
    ],
)
def test_boxes_that_are_none(box: tuple, kind: str):
    assert _kinds(check_box(torch.tensor(box, dtype=torch.float64), (640, 480))) == [kind]


def test_boxes_that_leave_the_picture_pass():
    assert check_box(torch.tensor([-20.0, 10, 90, 70]), (640, 480)) == []


def test_pose_before_the_camera_passes():
    assert check_pose(_pose()) == []


@pytest.mark.parametrize(
    ("pose", "kind", "words"),
    [
        (_pose(z=-0.8), "pose_opengl", "behind the camera"),
        (_pose(z=800.0), "pose_unit", "millimetres read as metres"),
        (_pose(z=0.0008), "pose_unit", "metres read as millimetres"),
        (_pose().mT.contiguous(), "pose_transposed", "stands in the last row"),
        (_pose() * 2, "pose_matrix", "last row"),
        (_pose() * math.nan, "pose_values", "NaN"),
        (_pose() @ torch.diag(torch.tensor([1.0, 1, -1, 1]).double()), "pose_reflection", "left-handed"),
        (_pose() @ torch.diag(torch.tensor([9.0, 9, 9, 1]).double()), "pose_scaled", "scale of 9"),
        (_pose() @ torch.diag(torch.tensor([1.0, 2, 1, 1]).double()), "pose_rotation", "R R^T misses"),
        (_pose() @ torch.diag(torch.tensor([1.0, 1, 0, 1]).double()), "pose_rotation", "R R^T misses"),
    ],
)
def test_matrices_that_are_no_pose(pose: torch.Tensor, kind: str, words: str):
    (fault,) = check_pose(pose)
    assert fault.kind == kind
    assert words in fault.message


def test_zeros_are_missing_or_a_fault():
    depth = torch.ones(10, 10)
    assert check_zeros(depth) == []
    depth[0, :3] = 0
    (fault,) = check_zeros(depth)
    assert fault.evidence["share"] == pytest.approx(0.03)


@pytest.mark.parametrize("weights", [(0.5,), (0.25, 0.75)])
def test_holes_blended_into_the_surface(weights: tuple[float, ...]):
    depth = torch.full((80, 80), 1.3)
    for step, weight in reversed(list(enumerate(weights))):
        depth[29 - step : 51 + step, 29 - step : 51 + step] = 1.3 * weight
    depth[30:50, 30:50] = 0
    (fault,) = check_holes(depth)
    assert fault.kind == "depth_zeros"
    assert fault.evidence["share"] > 0.9


def test_clean_holes_beside_a_step_pass():
    depth = torch.full((80, 80), 2.0)
    depth[20:60, 40:] = 0.8  # an object ...
    depth[20:60, 30:40] = 0  # ... and its shadow without depth
    depth[2:8, 2:30] = 0
    assert check_holes(depth) == []


def test_faults_become_one_error():
    with pytest.raises(ValueError, match=r"^a\.ply: mesh: a diameter of 150 m; .*; box: bad$"):
        raise_faults([*check_size(150.0), Fault("box", "bad")], source="a.ply")
    raise_faults([], source="a.ply")
