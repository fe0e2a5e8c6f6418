from __future__ import annotations

import math

import pytest
import torch
import yaml

from sightline.geometry.rotations import exp
from sightline.rtdetr_pose.constraints import Constraints, PoseEvidence, Rules, ScoreWeights, check_poses

K = torch.tensor([[500.0, 0, 320], [0, 500, 240], [0, 0, 1]])
PLANE = torch.tensor([0.0, -1.0, 0.0, 0.3])  # a table 0.3 m below the camera


def poses(n=1, **changed):
    values = {
        "labels": torch.zeros(n, dtype=torch.long),
        "R": torch.eye(3).expand(n, 3, 3),
        "t": torch.tensor([[0.0, 0.0, 3.75]]).expand(n, 3),
        "box_size": torch.tensor([[20.0, 40.0]]).expand(n, 2),
        "scores": torch.full((n,), 0.9),
    }
    return PoseEvidence(**{**values, **changed})


def passed(rules, evidence, **options):
    return check_poses(Constraints(rules=rules), ["mug"], evidence, K, **options).passed.tolist()


def test_depth_against_the_objects_size_and_its_range():
    t = torch.tensor([[0.0, 0.0, z] for z in (3.75, 3.75 * 1.9, 3.75 / 2.1)])
    checks = check_poses(Constraints(), ["mug"], poses(3, t=t), K, diameters=torch.tensor([0.2]))
    expected = torch.tensor([0.0, math.log(1.9), math.log(2.1)])
    assert torch.allclose(checks.depth_log_ratio, expected, atol=1e-6)
    assert checks.passed.tolist() == [True, True, False]
    assert passed(Rules(depth_log_ratio=None), poses(3, t=t), diameters=torch.tensor([0.2])) == [True] * 3
    assert passed(Rules(), poses(3, t=t)) == [True] * 3  # no size, no rule
    checks = check_poses(Constraints(rules=Rules(depth_range=(2.0, 4.0))), ["mug"], poses(3, t=t), K)
    assert torch.allclose(checks.depth_outside, torch.tensor([0.0, 3.125, 2.0 - 3.75 / 2.1]))
    assert checks.passed.tolist() == [True, False, False]


def test_the_table():
    t = torch.tensor([[0.0, y, 1.0] for y in (0.2, 0.305, 0.32)])
    checks = check_poses(Constraints(), ["mug"], poses(3, t=t), K, plane=PLANE)
    assert torch.allclose(checks.height, torch.tensor([0.1, -0.005, -0.02]), atol=1e-6)
    assert checks.passed.tolist() == [True, True, False]
    assert passed(Rules(table_tolerance=None), poses(3, t=t), plane=PLANE) == [True] * 3
    assert passed(Rules(), poses(3, t=t)) == [True] * 3


def test_upright_in_the_frame_of_the_world():
    R = exp(torch.tensor([[0.0, 0.0, 0.0], [0.3, 0.0, 0.0], [0.0, 0.0, 2.0]]))
    rules = Rules(roll_range=(-10.0, 10.0), pitch_range=(-10.0, 10.0))
    checks = check_poses(Constraints(rules=rules), ["mug"], poses(3, R=R), K)
    assert checks.upright_violation_deg[1].tolist() == pytest.approx([math.degrees(0.3) - 10, 0.0], abs=1e-4)
    assert checks.passed.tolist() == [True, False, True]
    tilted = exp(torch.tensor([-0.3, 0.0, 0.0]))
    assert passed(rules, poses(3, R=R), world_from_cam=tilted) == [False, True, False]
    only_roll = check_poses(Constraints(rules=Rules(roll_range=(0.0, 0.0))), ["mug"], poses(3, R=R), K)
    assert only_roll.upright_violation_deg[:, 1].isnan().all()


def test_templates_and_doubt():
    evidence = poses(
        3, template_scores=torch.tensor([0.8, 0.2, torch.nan]), sigma_z=torch.tensor([0.1, 0.1, 0.9])
    )
    assert passed(Rules(min_template_score=0.5), evidence) == [True, False, True]
    assert passed(Rules(max_doubt=0.5), evidence) == [True, True, False]
    assert passed(Rules(), evidence) == [True] * 3


def test_a_failed_pose_passes_no_gate_and_breaks_no_neighbour():
    t = torch.tensor([[0.0, 0.0, 1.0], [0.0, torch.nan, 1.0], [0.0, 0.0, -1.0]])
    assert passed(Rules(), poses(3, t=t)) == [True, False, False]


def test_the_fused_score():
    weights = ScoreWeights(det=0.5, template=0.4, doubt=0.1)
    evidence = poses(
        2,
        template_scores=torch.tensor([0.8, torch.nan]),
        sigma_z=torch.tensor([0.2, 0.0]),
        sigma_rot=torch.tensor([0.3, torch.nan]),
    )
    score = check_poses(Constraints(weights=weights), ["mug"], evidence, K).final_score
    assert torch.allclose(score, torch.tensor([0.45 + 0.32 - 0.05, 0.45]))


def test_classes_have_rules_of_their_own_and_yaml_holds_them():
    text = """
    mug: {depth_range: [0.3, 2.0], table_tolerance: null}
    box: {size: [0.4, 0.2]}
    """
    constraints = Constraints(per_class=yaml.safe_load(text))
    assert constraints.of("mug") == Rules(depth_range=(0.3, 2.0), table_tolerance=None)
    assert constraints.of("lamp") == Rules()
    evidence = poses(3, labels=torch.tensor([0, 1, 2]))
    checks = check_poses(constraints, ["mug", "box", "lamp"], evidence, K)
    assert checks.passed.tolist() == [False, True, True]
    # 500 * 0.4 / 20 and 500 * 0.2 / 40 m
    assert checks.depth_log_ratio[1].item() == pytest.approx(math.log(6.25 / 3.75), abs=1e-6)
    with pytest.raises(
        ValueError, match=r"per_class.mug: unknown rule 'depth_rang', did you mean 'depth_range'"
    ):
        Constraints(per_class={"mug": {"depth_rang": (0, 1)}})
    with pytest.raises(ValueError, match="roll_range: expected the least and the greatest value"):
        Rules(roll_range=(10.0, -10.0))


def test_no_poses():
    checks = check_poses(Constraints(), ["mug"], poses(0), K, diameters=torch.tensor([0.2]), plane=PLANE)
    assert checks.passed.shape == checks.final_score.shape == (0,)
