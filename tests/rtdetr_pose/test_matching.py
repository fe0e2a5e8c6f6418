from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment

from sightline.geometry.rotations import exp, geodesic_distance, matrix_to_rot6d, random_rotations
from sightline.geometry.symmetry import SymmetryGroup, stack_symmetries, symmetric_distance
from sightline.rtdetr_pose.matching import MatchCosts, denoising_pairs, match, rotation_cost, solve_assignment
from sightline.rtdetr_pose.true_objects import gather_objects

GROUPS = [
    SymmetryGroup.none(),
    SymmetryGroup.cyclic(4, (0, 0, 1)),
    SymmetryGroup.dihedral(3, (1, 1, 0)),
    SymmetryGroup.continuous((0, 1, 0)),
    SymmetryGroup.continuous((1, 2, 3), flip=True),
]


def boxes(n, generator):
    return torch.rand(n, 4, generator=generator) * 0.3 + 0.2


def scene(counts, seed=0):
    """Targets, and one layer of 6 queries of which the first show the objects in reverse."""
    g = torch.Generator().manual_seed(seed)
    targets = [{"labels": torch.randint(0, 3, (n,), generator=g), "boxes": boxes(n, g)} for n in counts]
    logits, box = torch.full((1, len(counts), 6, 3), -4.0), boxes(len(counts) * 6, g).view(1, -1, 6, 4)
    for i, target in enumerate(targets):
        shown = min(6, counts[i])
        box[0, i, :shown] = target["boxes"].flip(0)[:shown]
        logits[0, i, torch.arange(shown), target["labels"].flip(0)[:shown]] = 4.0
    return targets, {"logits": logits, "bbox": box}


def matched(outputs, targets, costs=None):
    objects = gather_objects(targets, outputs["logits"].shape[-1], outputs["logits"])
    groups = stack_symmetries([SymmetryGroup.none()])[torch.zeros(len(objects), dtype=torch.long)]
    return match(outputs, objects, costs or MatchCosts(), groups.to(outputs["logits"])), objects


def test_a_thousand_rectangular_problems_as_scipy_solves_them():
    rng = np.random.default_rng(0)
    for _ in range(1000):
        cost = rng.normal(size=rng.integers(1, 9, 2))
        rows, columns = solve_assignment(torch.from_numpy(cost))
        expected = linear_sum_assignment(cost)
        assert len(rows) == min(cost.shape)
        assert cost[rows, columns].sum() == pytest.approx(cost[expected].sum(), abs=1e-12)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_what_is_not_a_number_is_chosen_last_and_nothing_hangs(bad):
    cost = torch.tensor([[0.0, 1.0], [1.0, 0.0], [bad, bad]])
    assert solve_assignment(cost)[0].tolist() == [0, 1]
    assert len(solve_assignment(torch.full((4, 3), bad))[0]) == 3


def test_each_object_finds_the_query_that_shows_it():
    targets, outputs = scene((3, 0, 5))
    pairs, objects = matched(outputs, targets)
    assert objects.counts == (3, 0, 5)
    assert pairs.picture.tolist() == [0, 0, 0, 2, 2, 2, 2, 2]
    assert pairs.target[0].tolist() == [2, 1, 0, 7, 6, 5, 4, 3]
    assert pairs.query[0].tolist() == [0, 1, 2, 0, 1, 2, 3, 4]
    assert torch.equal(pairs.of(outputs["bbox"])[0], objects.boxes[pairs.target[0]])


def test_no_objects_and_more_objects_than_queries():
    targets, outputs = scene((0, 0))
    assert matched(outputs, targets)[0].query.shape == (1, 0)
    targets, outputs = scene((9, 2))
    pairs, _ = matched(outputs, targets)
    assert pairs.picture.tolist() == [0] * 6 + [1] * 2
    assert len(set(pairs.target[0].tolist())) == 8


def test_a_query_that_is_not_finite_is_avoided_in_its_layer_only():
    targets, outputs = scene((3,))
    stacked = {key: value.repeat(2, 1, 1, 1) for key, value in outputs.items()}
    stacked["bbox"][0, 0, 1] = torch.nan
    pairs, _ = matched(stacked, targets)
    assert 1 not in pairs.query[0].tolist()
    assert pairs.query[1].tolist() == [0, 1, 2]


def test_classes_decide_between_equal_boxes_and_the_cost_is_that_of_the_formula():
    box = torch.full((1, 1, 2, 4), 0.5)
    logits = torch.tensor([[[[-2.0, 1.0], [1.0, -2.0]]]])
    targets = [{"labels": torch.tensor([0, 1]), "boxes": torch.full((2, 4), 0.5)}]
    pairs, _ = matched({"logits": logits, "bbox": box}, targets)
    assert pairs.target[0, pairs.query[0].argsort()].tolist() == [1, 0]


def test_the_rotation_cost_is_the_symmetric_distance():
    g = torch.Generator().manual_seed(0)
    R, R_gt = random_rotations((2, 3, 7), generator=g), random_rotations((3, 5), generator=g)
    groups = stack_symmetries(GROUPS)[torch.arange(5).expand(3, 5)]
    each = stack_symmetries(GROUPS)[torch.arange(5)]
    expected = symmetric_distance(R[..., None, :, :], R_gt[:, None], each)
    assert torch.allclose(rotation_cost(R, R_gt, groups), expected, atol=1e-6)
    assert not torch.allclose(expected, geodesic_distance(R[..., None, :, :], R_gt[:, None]), atol=0.1)


def test_poses_decide_where_boxes_do_not_and_only_where_they_are_known():
    R = random_rotations(2, generator=torch.Generator().manual_seed(1)).float()
    same = torch.full((2, 4), 0.5)
    outputs = {
        "logits": torch.zeros(2, 1, 2, 1),
        "bbox": same.expand(2, 1, 2, 4),
        "rot6d": matrix_to_rot6d(R.flip(0) @ exp(torch.tensor([0.1, 0.0, 0.0])))[None, None],
        "log_z": torch.tensor([2.0, 1.0]).log().view(1, 1, 2, 1),
        "t": torch.tensor([[0.0, 0.0, 2.0], [0.0, 0.0, 1.0]])[None, None],
    }
    pose = {"R": R, "z": torch.tensor([1.0, 2.0]), "t": torch.tensor([[0.0, 0, 1], [0, 0, 2]])}
    target = {"labels": torch.zeros(2, dtype=torch.long), "boxes": same, **pose}
    for name in ("rot", "z", "t"):
        pairs, _ = matched(outputs, [target], MatchCosts(**{name: 1.0}))
        # only the last of two layers says anything of the pose
        assert pairs.target[1].tolist() == [1, 0], name
        unknown = {**target, "pose_valid": torch.zeros(2, dtype=torch.bool)}
        assert matched(outputs, [unknown], MatchCosts(**{name: 1.0}))[0].target[1].tolist() == [0, 1]


def test_denoising_queries_belong_to_their_objects():
    targets, outputs = scene((2, 0, 3))
    _, objects = matched(outputs, targets)
    # max 3 objects, groups of 3 positives and 3 negatives
    positive = (
        torch.tensor([0, 1, 6, 7]),
        torch.tensor([], dtype=torch.long),
        torch.arange(12)[[0, 1, 2, 6, 7, 8]],
    )
    pairs = denoising_pairs(positive, 2, 4, objects)
    assert pairs.query.shape == (4, 10)
    assert pairs.picture.tolist() == [0] * 4 + [2] * 6
    assert pairs.target[3].tolist() == [0, 1, 0, 1, 2, 3, 4, 2, 3, 4]


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ({"labels": torch.tensor([0])}, "targets.0.: the key 'boxes' is missing"),
        ({"labels": torch.tensor([3]), "boxes": torch.zeros(1, 4)}, "expected 0 to 2, got 3 to 3"),
        ({"labels": torch.tensor([0]), "boxes": torch.zeros(2, 4)}, r"'boxes'.: expected shape \(1, 4\)"),
        ({"labels": torch.tensor([0]), "boxes": torch.zeros(1, 4), "K": torch.zeros(4)}, "'K'"),
        ({"labels": torch.tensor([0]), "boxes": torch.zeros(1, 4), "z": torch.zeros(1, 1)}, "'z'"),
    ],
)
def test_targets_that_cannot_be(target, message):
    with pytest.raises(ValueError, match=message):
        gather_objects([target], 3, torch.zeros(()))
