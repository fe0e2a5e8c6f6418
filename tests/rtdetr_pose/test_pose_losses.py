from __future__ import annotations

import math

import pytest
import torch

from sightline.geometry.cameras import project
from sightline.geometry.poses import make_pose
from sightline.geometry.rotations import exp, matrix_to_rot6d, random_rotations, rot6d_to_matrix
from sightline.geometry.symmetry import SymmetryGroup, stack_symmetries
from sightline.rtdetr_pose.matching import Pairs
from sightline.rtdetr_pose.pose_losses import POSE_TERMS, intrinsics_term, with_uncertainty
from sightline.rtdetr_pose.pose_pairs import corrected_camera, nearest_truth, pair_poses, translations
from sightline.rtdetr_pose.priors import depth_prior, height_above_plane, roll_pitch_yaw, upright_violation
from sightline.rtdetr_pose.true_objects import gather_objects

K = torch.tensor([[600.0, 0, 320], [0, 500, 240], [0, 0, 1]], dtype=torch.float64)
SIZE = torch.tensor([640, 480])
NAMES = ("bbox", "log_z", "rot6d", "offsets", "log_sigma_z", "log_sigma_rot")


def scene(n=3, groups=None, sizes=None, **target):
    """n objects of one picture, and as many queries that are right; ``pairs()`` puts them together."""
    g = torch.Generator().manual_seed(0)
    R = random_rotations(n, generator=g)
    t = torch.rand(n, 3, generator=g, dtype=torch.float64) * 0.2 + torch.tensor([0.0, 0.0, 0.8])
    boxes = torch.tensor([[0.5, 0.5, 0.2, 0.1]], dtype=torch.float64).expand(n, 4)
    center = boxes[:, :2] * SIZE - 0.5
    offsets = project(t, K) - center
    truth = {"R": R, "t": t, "z": t[:, 2], "offsets": offsets, "K": K, "image_size": SIZE, **target}
    targets = [{"labels": torch.zeros(n, dtype=torch.long), "boxes": boxes, **truth}]
    outputs = {
        "bbox": boxes.clone(),
        "log_z": t[:, 2:].log(),
        "rot6d": matrix_to_rot6d(R),
        "offsets": offsets.clone(),
    }
    objects = gather_objects(targets, 1, boxes)
    group = stack_symmetries([groups or SymmetryGroup.none()])[torch.zeros(n, dtype=torch.long)]
    object_sizes = torch.full((n, 2), torch.nan if sizes is None else sizes, dtype=torch.float64)

    def pairs(**changed):
        k_delta = changed.pop("k_delta", torch.zeros(1, 4, dtype=torch.float64))
        layer = {key: value[None, None] for key, value in {**outputs, **changed}.items()}
        index = torch.arange(n)
        which = Pairs(torch.zeros(n, dtype=torch.long), index[None], index[None])
        camera = corrected_camera(objects, k_delta)
        return pair_poses(layer, camera, which, objects, group, object_sizes)

    return outputs, objects, pairs


def value(name, pairs):
    term = POSE_TERMS[name][0](pairs)
    assert term.total.shape == (1,)
    return term.total.item(), term.count.item()


def test_what_is_right_costs_nothing():
    _, _, pairs = scene()
    for name in ("z", "rot", "off", "t"):
        total, count = value(name, pairs())
        assert count == 3
        assert total == pytest.approx(0, abs=1e-7), name
    for name in ("z_prior", "plane", "upright"):
        assert value(name, pairs()) == (0, 0)


def test_depth_of_the_table_and_without_any_mask():
    outputs, _, pairs = scene(1, z=torch.tensor([2.0], dtype=torch.float64))
    assert value("z", pairs(log_z=outputs["log_z"] * 0 + math.log(2.5)))[0] == pytest.approx(
        0.2231436, abs=1e-7
    )


def test_rotation_forgives_what_the_object_does_not_show():
    turn = exp(torch.tensor([0.0, 0.0, math.pi / 2 + 0.1], dtype=torch.float64))
    for group, angle in (
        (None, 1.6707963),
        (SymmetryGroup.cyclic(4, (0, 0, 1)), 0.1),
        (SymmetryGroup.continuous((0, 0, 1)), 0),
    ):
        outputs, _, pairs = scene(1, group)
        turned = rot6d_to_matrix(outputs["rot6d"]) @ turn
        assert value("rot", pairs(rot6d=matrix_to_rot6d(turned)))[0] == pytest.approx(angle, abs=1e-7)


def test_offsets_in_sizes_of_the_box():
    outputs, _, pairs = scene(1)
    moved = outputs["offsets"] + torch.tensor([12.8, -4.8])
    assert value("off", pairs(offsets=moved))[0] == pytest.approx(0.1 + 0.1, abs=1e-6)


def test_translation_by_depth_with_gradients_to_all_that_it_is_made_of():
    outputs, _, pairs = scene(1)
    assert value("t", pairs(log_z=outputs["log_z"] + math.log(1.1)))[0] > 0.1
    leaves = {key: value.clone().requires_grad_() for key, value in outputs.items()}
    leaves["k_delta"] = torch.tensor([[0.05, -0.02, 4.0, -3.0]], dtype=torch.float64, requires_grad=True)
    POSE_TERMS["t"][0](pairs(**leaves)).total.sum().backward()
    for name in ("bbox", "log_z", "offsets", "k_delta"):
        assert leaves[name].grad.abs().sum() > 0, name


def test_translation_of_the_table():
    corrected = torch.tensor([[630.0, 0, 324], [0, 490, 237], [0, 0, 1]], dtype=torch.float64)
    center = torch.tensor([256.5 / 640, 288.5 / 480, 0.1, 0.1], dtype=torch.float64)
    t = translations(
        center,
        torch.tensor([3.5, -2.5]).double(),
        torch.tensor(1.25).double().log(),
        corrected,
        SIZE.double(),
    )
    assert torch.allclose(t, torch.tensor([-0.1279762, 0.1237245, 1.25], dtype=torch.float64), atol=1e-7)
    assert torch.allclose(project(t, corrected), torch.tensor([259.5, 285.5], dtype=torch.float64))


def test_priors_judge_the_prediction_and_not_the_truth():
    plane = torch.tensor([0.0, -1.0, 0.0, 0.0])  # above it is y < 0
    ranges = torch.tensor([[-0.1, 0.1], [-0.1, 0.1]])
    outputs, objects, pairs = scene(1, sizes=0.1, plane=plane, upright_range=ranges)
    upside = exp(torch.tensor([[0.6, 0.0, 0.0]], dtype=torch.float64))
    assert value("upright", pairs(rot6d=matrix_to_rot6d(upside)))[0] == pytest.approx(0.5, abs=1e-6)
    assert value("upright", pairs(rot6d=matrix_to_rot6d(exp(upside[:, 0] * 0))))[0] == 0
    t = objects.t[0]
    assert value("plane", pairs())[0] == pytest.approx(float(t[1] / t[2]), abs=1e-7)
    raised = outputs["offsets"] - torch.tensor([0.0, 400.0])
    assert value("plane", pairs(offsets=raised))[0] == 0
    # 0.1 m in 128 x 48 pixels: 0.46875 and 1.0416667 m
    prior = math.log((0.46875 + 500 * 0.1 / 48) / 2)
    for distance, cost in ((0.0, 0.0), (0.7, 0.0), (-1.7, 1.0)):
        log_z = torch.full((1, 1), prior + distance, dtype=torch.float64)
        assert value("z_prior", pairs(log_z=log_z))[0] == pytest.approx(cost, abs=1e-7)
    for name in ("z_prior", "plane", "upright"):
        leaves = {key: value.clone().requires_grad_() for key, value in outputs.items()}
        far = {"log_z": leaves["log_z"] + 3, "rot6d": matrix_to_rot6d(upside) + 0 * leaves["rot6d"]}
        far["rot6d"] = far["rot6d"] + leaves["rot6d"] * 1e-3
        POSE_TERMS[name][0](pairs(**{**leaves, **far})).total.sum().backward()
        assert any(leaf.grad is not None and leaf.grad.abs().sum() > 0 for leaf in leaves.values()), name


@pytest.mark.parametrize("name", ["bbox", "log_z", "rot6d", "offsets", "log_sigma_z", "k_delta"])
@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf, 1e30])
def test_a_bad_prediction_costs_itself_and_no_neighbour(name, bad):
    outputs, _, pairs = scene(
        2, sizes=0.1, plane=torch.tensor([0.0, -1.0, 0, 0]), upright_range=torch.zeros(2, 2)
    )
    g = torch.Generator().manual_seed(1)
    noisy = {key: x + 0.01 * torch.randn(x.shape, generator=g, dtype=x.dtype) for key, x in outputs.items()}
    noisy["log_sigma_z"] = noisy["log_sigma_rot"] = torch.zeros(2, 1, dtype=torch.float64)
    noisy["k_delta"] = torch.zeros(1, 4, dtype=torch.float64)
    leaves = {key: x.clone() for key, x in noisy.items()}
    leaves[name][0] = bad
    leaves = {key: x.requires_grad_() for key, x in leaves.items()}
    terms = {key: f(pairs(**leaves)).total.sum() for key, (f, _) in POSE_TERMS.items()}
    torch.stack(list(terms.values())).sum().backward()
    for key, term in terms.items():
        assert term.isfinite(), key
    for key, leaf in leaves.items():
        assert leaf.grad.isfinite().all(), key
    if name != "k_delta":
        assert leaves["rot6d"].grad[1].abs().sum() > 0


@pytest.mark.parametrize("missing", ["K", "image_size", "t", "R", "z", "offsets"])
def test_what_is_not_known_counts_nothing_and_leaves_the_gradients_finite(missing):
    outputs, _, pairs = scene(2, sizes=0.1, **{missing: None})
    leaves = {key: x.clone().requires_grad_() for key, x in outputs.items()}
    terms = {key: f(pairs(**leaves)) for key, (f, _) in POSE_TERMS.items()}
    torch.stack([term.total.sum() for term in terms.values()]).sum().backward()
    assert all(leaf.grad is None or leaf.grad.isfinite().all() for leaf in leaves.values())
    unknown = {key for key, term in terms.items() if term.count.item() == 0} - {"plane", "upright"}
    expected = {
        "K": {"t", "z_prior"},
        "image_size": {"t", "off", "z_prior"},
        "R": {"rot"},
        "offsets": {"off"},
    }
    assert unknown == expected.get(missing, {missing})


def test_uncertainty_belongs_to_each_instance():
    error, s = torch.full((3,), 2.0), torch.tensor([0.0, math.log(2), 1.0])
    expected = torch.tensor([2.0, 1.6931472, 1.7357589])
    assert torch.allclose(with_uncertainty(error, s[:, None]), expected, atol=1e-6)
    error = torch.tensor([1.0, 9.0])
    of_each = with_uncertainty(error, error.log()[:, None]).mean()
    of_the_mean = (-error.log().mean()).exp() * error.mean() + error.log().mean()
    assert of_each < of_the_mean - 0.5


def test_gradients_of_all_terms():
    plane, ranges = torch.tensor([0.0, -1.0, 0.1, 0.0]), torch.tensor([[-0.1, 0.1], [-0.1, 0.1]])
    group = SymmetryGroup.continuous((0, 0, 1), flip=True)
    outputs, _, pairs = scene(2, group, sizes=0.02, plane=plane, upright_range=ranges)
    g = torch.Generator().manual_seed(1)
    noisy = {key: x + 0.05 * torch.randn(x.shape, generator=g, dtype=x.dtype) for key, x in outputs.items()}
    noisy["log_sigma_z"] = torch.full((2, 1), 0.3, dtype=torch.float64)
    noisy["log_sigma_rot"] = torch.full((2, 1), -0.3, dtype=torch.float64)
    noisy["k_delta"] = torch.tensor([[0.05, -0.02, 4.0, -3.0]], dtype=torch.float64)
    leaves = [x.requires_grad_() for x in noisy.values()]
    for name, (term, _) in POSE_TERMS.items():

        def loss(*values, term=term):
            return term(pairs(**dict(zip(noisy, values, strict=True)))).total

        assert torch.autograd.gradcheck(loss, leaves), name


def test_intrinsics_are_supervised_and_a_given_camera_is_a_true_one():
    _, objects, _ = scene(1)
    wrong = torch.tensor([[0.05, -0.02, 6.4, -3.2]], dtype=torch.float64)
    term = intrinsics_term(wrong, objects)
    assert term.total.item() == pytest.approx(0.05 + 0.02 + 0.01 + 0.005)
    _, objects, _ = scene(1, k_delta=wrong[0])
    assert intrinsics_term(wrong, objects).total.item() == pytest.approx(0)
    _, objects, _ = scene(1, K=None)
    assert intrinsics_term(wrong, objects).count.item() == 0


def test_a_symmetry_that_moves_the_origin_moves_the_truth():
    group = SymmetryGroup.cyclic(2, (0, 0, 1), offset=(0.05, 0.0, 0.0))
    outputs, objects, pairs = scene(2, group)
    other = make_pose(objects.R, objects.t) @ group.discrete[1]
    center = outputs["bbox"][:, :2] * SIZE - 0.5
    same = {
        "rot6d": matrix_to_rot6d(other[:, :3, :3]),
        "log_z": other[:, 2, 3:].log(),
        "offsets": project(other[:, :3, 3], K) - center,
    }
    assert value("t", pairs(**same))[0] > 0.1
    nearest = nearest_truth(pairs(**same))
    for name in ("z", "rot", "off", "t"):
        assert value(name, nearest)[0] == pytest.approx(0, abs=1e-6), name


def test_priors_of_the_table():
    size = torch.tensor([0.2, 0.2])
    assert depth_prior(torch.tensor([20.0, 40.0]), size, torch.tensor([500.0, 500.0])).item() == 3.75
    assert height_above_plane(
        torch.tensor([0.0, 0.2, 1.0]), torch.tensor([0.0, -1, 0, 0.5])
    ).item() == pytest.approx(0.3)


def test_roll_pitch_and_yaw_compose_the_rotation():
    R = random_rotations(50, generator=torch.Generator().manual_seed(0))
    x, y, z = torch.eye(3, dtype=torch.float64)
    roll, pitch, yaw = (angle[:, None] for angle in roll_pitch_yaw(R).unbind(-1))
    assert torch.allclose(exp(yaw * z) @ exp(pitch * y) @ exp(roll * x), R, atol=1e-12)
    for sign in (1, -1):  # looking straight up or down
        locked = (exp(0.4 * z) @ exp(sign * math.pi / 2 * y)).requires_grad_()
        angles = roll_pitch_yaw(locked)
        assert torch.allclose(
            angles, torch.tensor([0.0, sign * math.pi / 2, 0.4], dtype=torch.float64), atol=1e-6
        )
        angles.sum().backward()
        assert locked.grad.isfinite().all()


def test_upright_violations():
    ranges = torch.tensor([[-0.1, 0.2], [0.0, 0.3]])
    R = exp(torch.tensor([[0.0, 0.5, 0.0], [0.0, -0.2, 0.0], [-0.3, 0.0, 0.0], [0.1, 0.0, 0.0]]))
    expected = torch.tensor([[0.0, 0.2], [0.0, 0.2], [0.2, 0.0], [0.0, 0.0]])
    assert torch.allclose(upright_violation(R, ranges), expected, atol=1e-6)
