"""Estimates laid beside truths: grouping, ordering, units and what is refused."""

from __future__ import annotations

import pytest
import torch

from sightline.geometry.cameras import Camera
from sightline.geometry.rotations import random_rotations
from sightline.geometry.symmetry import SymmetryGroup
from sightline.metrics.bop import bop_average_precision, bop_average_recall
from sightline.metrics.pose import add, adds, mspd, mssd
from sightline.metrics.pose_pairs import ObjectShape, PicturePoses, pair_errors
from sightline.records import PoseEstimate, TriangleMesh
from tests.tolerances import tolerance

F64 = torch.float64
CAMERA = Camera.from_focal(700.0, 1280, 720)
GENERATOR = torch.Generator().manual_seed(0)
POINTS = 0.1 * torch.randn(40, 3, generator=GENERATOR, dtype=F64)
TURN = SymmetryGroup.cyclic(2, (0, 0, 1)).transforms()
SHAPES = {"box": ObjectShape(POINTS, 0.4), "can": ObjectShape(POINTS, 0.3, TURN)}


def random_pose(name, score=1.0):
    R = random_rotations(1, generator=GENERATOR)[0]
    t = 0.2 * torch.randn(3, generator=GENERATOR, dtype=F64) + torch.tensor([0.0, 0.0, 2.0], dtype=F64)
    return PoseEstimate(R, t, score, valid=True, name=name)


def picture(truths, estimates, **options):
    return PicturePoses.from_records(CAMERA, truths, estimates, **options)


def test_every_pair_of_one_object_is_measured():
    truths = [random_pose("box"), random_pose("can"), random_pose("box")]
    estimates = [random_pose("can", 0.3), random_pose("box", 0.2), random_pose("can", 0.8)]
    box, can = pair_errors([picture(truths, estimates)], SHAPES)
    assert (box.name, can.name) == ("box", "can")
    assert (box.rank.tolist(), can.rank.tolist()) == ([2], [0, 1])
    assert can.scores.tolist() == [0.8, 0.3]
    assert (box.mssd.shape, can.mssd.shape) == ((1, 2), (2, 1))
    for g, truth in enumerate((truths[0], truths[2])):
        pair = estimates[1].cam_from_obj, truth.cam_from_obj, POINTS
        torch.testing.assert_close(box.add[0, g], add(*pair), **tolerance(F64))
        torch.testing.assert_close(box.mssd[0, g], mssd(*pair), **tolerance(F64))
        # BOP states pixels for a width of 640, this picture has 1280
        torch.testing.assert_close(box.mspd[0, g], mspd(*pair, CAMERA.K) / 2, **tolerance(F64))
    for e, estimate in enumerate((estimates[2], estimates[0])):
        pair = estimate.cam_from_obj, truths[1].cam_from_obj, POINTS
        torch.testing.assert_close(can.add[e, 0], adds(*pair), **tolerance(F64))
        torch.testing.assert_close(can.mssd[e, 0], mssd(*pair, TURN), **tolerance(F64))
        torch.testing.assert_close(can.mspd[e, 0], mspd(*pair, CAMERA.K, TURN) / 2, **tolerance(F64))


def test_vsd_follows_the_order_of_the_scores():
    truths = [random_pose("box"), random_pose("can"), random_pose("box")]
    estimates = [random_pose("box", 0.1), random_pose("can"), random_pose("box", 0.9)]
    vsd = torch.arange(3 * 3 * 2, dtype=F64).reshape(3, 3, 2)
    box, _ = pair_errors([picture(truths, estimates, vsd=vsd)], SHAPES)
    assert torch.equal(box.vsd[0], torch.stack([vsd[2, [0, 2], 0], vsd[0, [0, 2], 0]]))


def test_lost_poses_are_no_estimates_and_take_their_vsd_along():
    estimates = [PoseEstimate.failure("lost", name="box"), random_pose("box", 0.5)]
    vsd = torch.tensor([[[torch.nan]], [[0.25]]], dtype=F64)
    seen = picture([random_pose("box")], estimates, vsd=vsd)
    assert seen.names == ("box",)
    assert seen.vsd.item() == 0.25


def test_objects_missed_imagined_and_wanted_all_have_an_entry():
    seen = picture([random_pose("box")], [random_pose("can")], targets={"mug": 1, "box": 2})
    shapes = {**SHAPES, "mug": SHAPES["box"], "unseen": SHAPES["box"]}
    entries = {pair.name: (pair.mssd.shape, pair.target_count) for pair in pair_errors([seen], shapes)}
    assert entries == {"box": ((0, 1), 2), "can": ((1, 0), 0), "mug": ((0, 0), 1)}


def test_pairs_that_need_rendering():
    seen = picture(
        [random_pose("box"), random_pose("can")], [random_pose("can"), random_pose("mug"), random_pose("box")]
    )
    assert seen.same_object_pairs().tolist() == [[0, 1], [2, 0]]
    assert picture([], []).same_object_pairs().shape == (0, 2)


def test_true_poses_score_one():
    pictures = []
    for _ in range(5):
        truths = [random_pose("box", 0.7), random_pose("can", 0.4), random_pose("can", 0.2)]
        turned = PoseEstimate(truths[1].R @ TURN[1, :3, :3], truths[1].t, 0.4, valid=True, name="can")
        pictures.append(picture(truths, [truths[2], turned, truths[0]], vsd=torch.zeros(3, 3, 10, dtype=F64)))
    pairs = pair_errors(pictures, SHAPES)
    # VSD was given as zero for the crossed pairs too, which may only change who is matched with whom
    assert bop_average_recall(pairs).value == 1
    assert bop_average_precision(pairs).value == 1
    assert pairs[0].picture == 0
    assert pairs[-1].picture == 4


def test_shape_of_a_mesh():
    mesh = TriangleMesh(torch.eye(3, dtype=F64), torch.tensor([[0, 1, 2]]))
    shape = ObjectShape.from_mesh(mesh, SymmetryGroup.continuous((0, 0, 1)))
    assert shape.diameter == pytest.approx(2**0.5)
    assert shape.symmetries.shape == (315, 4, 4)
    assert shape.is_symmetric
    assert not ObjectShape.from_mesh(mesh).is_symmetric
    assert not ObjectShape.from_mesh(mesh, SymmetryGroup.none()).is_symmetric


def test_objects_without_a_shape_are_named():
    with pytest.raises(ValueError, match="got none for mug"):
        pair_errors([picture([random_pose("mug")], [])], SHAPES)


def test_faulty_input_is_refused():
    with pytest.raises(ValueError, match="diameter"):
        ObjectShape(POINTS, 0.0)
    with pytest.raises(ValueError, match="points"):
        ObjectShape(POINTS[:0], 0.1)
    with pytest.raises(ValueError, match="visibility: expected 1 rows"):
        picture([random_pose("box")], [], visibility=torch.ones(2, dtype=F64))
    with pytest.raises(ValueError, match=r"vsd: expected \(0, 1, t\)"):
        picture([random_pose("box")], [], vsd=torch.zeros(0, 2, 10, dtype=F64))
