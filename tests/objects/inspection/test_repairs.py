"""Each planted mistake is found and named; sound inputs, whole or in part, are left alone."""

import itertools
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch

from sightline.geometry.poses import invert
from sightline.objects.inspection.consistency import Views
from sightline.objects.inspection.diagnosis import PASSES, RESTORED, diagnose_inputs
from sightline.objects.inspection.findings import Findings
from sightline.objects.inspection.input_checks import undo_certain
from sightline.objects.inspection.inputs import Inputs, is_rigid
from sightline.objects.inspection.repairs import find_repairs
from sightline.records import TriangleMesh
from sightline.synthetic.mistakes import MISTAKES, Case, make_case

SEEDS = (0, 1, 4)
SOUND_SEEDS = range(20)
PARTS = ("mesh", "K", "cam_from_obj", "mask", "box", "depth")

make_case_once = cache(make_case)


def _keep(inputs: Inputs, *parts: str) -> Inputs:
    dropped: dict[str, Any] = {part: None for part in PARTS if part not in parts}
    return replace(inputs, **dropped, **({"diameter": None} if "mesh" in dropped else {}))


def _named(found: Findings) -> list[tuple[str, str]]:
    return [(fault.what, fault.kind) for fault in found.faults]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_named(name: str, seed: int):
    found = diagnose_inputs(make_case_once(seed).with_mistake(name))
    assert _named(found) == [(MISTAKES[name].what, MISTAKES[name].kind)]
    assert "; or " not in found.faults[0].message


@pytest.mark.parametrize("seed", SOUND_SEEDS)
def test_sound_inputs_are_left_alone(seed: int):
    case = make_case_once(seed)
    whole = diagnose_inputs(case.inputs)
    assert whole.is_sound, whole.faults
    assert whole.notes == ()
    assert "mask IoU 0.9" in whole.comparisons[0]
    dropped = PARTS[seed % len(PARTS)]
    found = diagnose_inputs(_keep(case.inputs, *[part for part in PARTS if part != dropped]))
    assert found.is_sound, (dropped, found.faults)


@pytest.mark.parametrize("seed", SEEDS[:2])
def test_every_part_of_sound_inputs_is_left_alone(seed: int):
    inputs = make_case_once(seed).inputs
    for count in range(1, len(PARTS)):
        for parts in itertools.combinations(PARTS, count):
            found = diagnose_inputs(_keep(inputs, *parts))
            assert found.is_sound, (parts, found.faults)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("mesh in millimetres", "mesh_scale", 0.001),
        ("pose in millimetres", "cam_from_obj", None),
        ("box as x, y, width, height", "box", None),
        ("K of a larger picture", "K", None),
        ("OpenGL pose", "cam_from_obj", None),
        ("quaternion wxyz read as xyzw", "cam_from_obj", None),
    ],
)
def test_the_repair_gives_back_the_sound_input(name: str, value: str, said: float | None):
    case = make_case_once(1)
    repaired = getattr(diagnose_inputs(case.with_mistake(name)).repaired, value)
    expected = torch.tensor(said) if said else getattr(case.inputs, value)
    torch.testing.assert_close(torch.as_tensor(repaired).double(), expected.double())


def test_the_evidence_is_in_numbers():
    (fault,) = diagnose_inputs(make_case_once(1).with_mistake("depth in tenths of a millimetre")).faults
    assert fault.evidence["given_depth_ratio"] == pytest.approx(10, rel=0.02)
    assert fault.evidence["repaired_depth_ratio"] == pytest.approx(1, rel=0.02)
    assert fault.evidence["repaired_mask_iou"] > 0.9
    assert "as given mask IoU" in fault.message
    assert "undone mask IoU" in fault.message


@pytest.mark.parametrize(("factor", "words"), [(1 / 2.1, "2.1"), (1.6, "1.6"), (1 / 1.5, "1.5")])
def test_the_focal_length_is_found_in_numbers(factor: float, words: str):
    inputs = make_case_once(1).inputs
    assert inputs.K is not None
    wrong = inputs.K.clone()
    wrong[0, 0] *= factor
    wrong[1, 1] *= factor
    (fault,) = diagnose_inputs(replace(inputs, K=wrong)).faults
    direction = "long" if factor > 1 else "short"
    assert f"the focal length is {words}" in fault.message
    assert f"times too {direction} for the other inputs" in fault.message


def _with(case: Case, **parts: Any) -> list[tuple[str, str]]:
    return _named(diagnose_inputs(replace(case.inputs, **parts)))


def test_further_mistakes_are_named():
    case = make_case_once(4)
    inputs = case.inputs
    assert inputs.cam_from_obj is not None and inputs.mask is not None
    assert inputs.depth is not None and inputs.box is not None
    pose = inputs.cam_from_obj
    turned = pose.clone()
    turned[:3, :3] = pose[:3, :3].mT
    assert _with(case, cam_from_obj=invert(pose)) == [("pose", "pose_inverse")]
    assert _with(case, cam_from_obj=turned) == [("pose", "pose_rotation_transposed")]
    assert _with(case, cam_from_obj=pose.mT.contiguous()) == [("pose", "pose_transposed")]
    assert _with(case, mask=~inputs.mask) == [("mask", "mask_inverted")]
    assert _with(case, mask=inputs.mask.flip(1)) == [("mask", "mask_mirrored")]
    assert _with(case, mask=inputs.mask.mT) == [("mask", "mask_swapped")]
    assert _with(case, mask=inputs.mask[::2, ::2]) == [("mask", "mask_size")]
    assert _with(case, depth=inputs.depth.mT) == [("depth", "depth_swapped")]
    assert _with(case, depth=inputs.depth * 0.1) == [("depth", "depth_unit")]
    assert _with(case, box=inputs.box[[1, 0, 3, 2]]) == [("box", "box_format")]
    assert _with(case, box=inputs.box / 640) == [("box", "box_normalised")]


def test_two_mistakes_are_both_named():
    case = make_case_once(1)
    both = replace(
        case.with_mistake("pose in millimetres"), box=case.with_mistake("box as x, y, width, height").box
    )
    assert sorted(_named(diagnose_inputs(both))) == [("box", "box_format"), ("pose", "pose_unit")]
    K = case.with_mistake("K transposed").K
    both = replace(case.with_mistake("mesh in millimetres"), K=K)
    assert _named(diagnose_inputs(both)) == [("camera", "camera_transposed"), ("mesh", "mesh_unit")]


def test_an_impossible_length_does_not_hide_a_second_mistake_of_the_drawing():
    case = make_case_once(1)
    both = replace(
        case.with_mistake("pose in millimetres"), K=case.with_mistake("focal length 2.1 times too long").K
    )
    assert sorted(_named(diagnose_inputs(both))) == [("camera", "camera_focal"), ("pose", "pose_unit")]


def test_everything_in_millimetres_is_named_although_it_agrees():
    case = make_case_once(1)
    inputs = case.with_mistake("mesh in millimetres")
    inputs = replace(inputs, depth=case.with_mistake("depth in millimetres").depth)
    inputs = replace(inputs, cam_from_obj=case.with_mistake("pose in millimetres").cam_from_obj)
    found = diagnose_inputs(inputs)
    assert sorted(_named(found)) == [("depth", "depth_unit"), ("mesh", "mesh_unit"), ("pose", "pose_unit")]


def test_mesh_and_pose_in_millimetres_against_depth():
    case = make_case_once(1)
    inputs = replace(
        case.with_mistake("mesh in millimetres"),
        cam_from_obj=case.with_mistake("pose in millimetres").cam_from_obj,
    )
    assert _named(diagnose_inputs(inputs)) == [("mesh and pose", "mesh_and_pose_unit")]


def test_what_no_mistake_explains_is_reported_as_disagreement():
    case = make_case_once(1)
    assert case.inputs.cam_from_obj is not None
    pose = case.inputs.cam_from_obj.clone()
    pose[0, 3] += 0.05  # where the mask agrees least, but little less than the box
    found = diagnose_inputs(replace(case.inputs, cam_from_obj=pose))
    assert _named(found) == [("pose", "disagreement")]
    assert "mask" in found.faults[0].message


def test_a_camera_is_cleared_by_agreement():
    """A cut picture has its principal point anywhere; the drawn object says that this is right."""
    case = make_case_once(1)
    inputs = case.inputs
    assert inputs.K is not None and inputs.mask is not None and inputs.depth is not None
    assert inputs.image_size is not None and inputs.box is not None
    left = int(inputs.mask.any(0).nonzero()[0]) - 5
    shift = torch.tensor([left, 0.0, left, 0.0])
    K = inputs.K.clone()
    K[0, 2] -= left
    cut = replace(
        inputs,
        K=K,
        mask=inputs.mask[:, left:],
        depth=inputs.depth[:, left:],
        box=inputs.box - shift,
        image_size=(640 - left, 480),
        camera_size=None,
    )
    assert diagnose_inputs(cut).is_sound


def test_equal_explanations_are_both_named():
    """Without depth, a mask cannot tell a mesh ten times too large from a pose ten times too near."""
    case = make_case_once(1)
    assert case.inputs.mesh is not None
    larger = case.inputs.mesh.scaled(10.0)
    inputs = replace(_keep(case.inputs, *PARTS[:-1]), mesh=larger, diameter=None)
    (fault,) = diagnose_inputs(inputs).faults
    assert fault.kind in ("mesh_unit", "pose_unit")
    assert "; or " in fault.message


def test_size_under_the_mask_without_a_pose():
    case = make_case_once(1)
    for name in ("mesh in millimetres", "depth in millimetres"):
        found = diagnose_inputs(replace(case.with_mistake(name), cam_from_obj=None))
        assert _named(found) == [(MISTAKES[name].what, MISTAKES[name].kind)]
    assert case.inputs.K is not None
    wrong = case.inputs.K.clone()
    wrong[0, 0] /= 3.0
    wrong[1, 1] /= 3.0
    (fault,) = diagnose_inputs(replace(case.inputs, cam_from_obj=None, K=wrong)).faults
    assert fault.kind == "camera_focal"
    assert "times too short for this depth and this object" in fault.message


def test_depth_against_a_pose_without_mesh():
    case = make_case_once(1)
    inputs = _keep(case.with_mistake("depth in tenths of a millimetre"), "K", "cam_from_obj", "depth")
    (fault,) = diagnose_inputs(inputs).faults
    assert fault.kind == "depth_unit"
    assert fault.evidence["ratio"] == pytest.approx(10, rel=0.3)


def test_lens_distortion_is_taken_into_account():
    """Barrel distortion moves the borders of a picture by many pixels."""
    corners = torch.tensor([[-1.0, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0]], dtype=torch.float64) * 0.1
    mesh = TriangleMesh(corners, torch.tensor([[0, 2, 1], [0, 3, 2]]))
    K = torch.tensor([[300.0, 0, 159.5], [0, 300, 119.5], [0, 0, 1]], dtype=torch.float64)
    pose = torch.eye(4, dtype=torch.float64)
    pose[:3, 3] = torch.tensor([0.2, 0.13, 0.6])
    lens = torch.tensor([-0.35, 0.1, 0.0, 0.0, 0.0], dtype=torch.float64)
    given = Inputs(image_size=(320, 240), K=K, mesh=mesh, cam_from_obj=pose, distortion=lens)
    mask = torch.from_numpy(Views(given).draw_whole(given))
    straight = torch.from_numpy(Views(given).draw_whole(replace(given, distortion=None)))
    assert int((mask ^ straight).sum()) > 0.2 * int(straight.sum())
    found = diagnose_inputs(replace(given, mask=mask))
    assert found.is_sound, found.faults
    assert "mask IoU 1.00" in found.comparisons[0]
    assert "mask IoU 0.8" in diagnose_inputs(replace(given, mask=straight)).comparisons[0]


def test_repairs_lead_to_poses_and_cameras():
    for repair in find_repairs(make_case_once(1).inputs):
        repaired = repair.apply(make_case_once(1).inputs)
        assert repaired.cam_from_obj is not None
        assert is_rigid(repaired.cam_from_obj), repair


def test_thresholds_leave_room():
    assert all(PASSES[name] < RESTORED[name] for name in PASSES)


def test_sizes_are_those_of_the_majority():
    inputs = make_case_once(1).inputs
    faults, repaired = undo_certain(replace(inputs, image_size=(480, 640)))
    assert [(fault.what, fault.kind) for fault in faults] == [("image", "image_swapped")]
    assert repaired.image_size == (640, 480)
