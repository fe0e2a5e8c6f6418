from __future__ import annotations

import pytest
import torch

from sightline.geometry.poses import look_at, make_pose
from sightline.geometry.rotations import exp
from sightline.synthetic.pose_crops import upright_pose
from sightline.vpog.prior_view import in_plane_turn, prior_view


@pytest.mark.parametrize("roll", [-2.9, -0.4, 0.0, 1.3, 3.0])
def test_the_turn_is_that_of_training(roll):
    """A query of the training's camera, rolled: against a template from the same side the roll is left."""
    toward = torch.tensor([0.4, -0.8, 0.3], dtype=torch.float64)
    aside = exp(torch.tensor([0.25, -0.15, 0.0], dtype=torch.float64))
    rolled = exp(torch.tensor([0.0, 0.0, roll], dtype=torch.float64)) @ aside
    pose = make_pose(rolled, torch.zeros(3, dtype=torch.float64)) @ look_at(toward)
    view = prior_view(pose, torch.zeros(3, dtype=torch.float64))
    assert torch.allclose(view.direction, toward / toward.norm())
    found = in_plane_turn(pose[:3, :3], view, upright_pose(pose.numpy())[:3, :3])
    assert float(found) == pytest.approx(roll, abs=1e-9)


def test_a_template_aside_changes_the_turn_by_what_lies_between():
    """Near the pole uprightness turns quickly: the turn is against the template, not against upright."""
    pose = look_at(torch.tensor([0.05, 0.02, 1.0], dtype=torch.float64))
    template = look_at(torch.tensor([-0.05, 0.05, 1.0], dtype=torch.float64))[:3, :3]
    view = prior_view(pose, torch.zeros(3, dtype=torch.float64))
    turn = in_plane_turn(pose[:3, :3], view, template)
    upright = exp(torch.tensor([0.0, 0.0, -float(turn)], dtype=torch.float64)) @ pose[:3, :3]
    # turned back it is the template but for the small turn between the two sides
    between = torch.arccos(((upright @ template.mT).trace() - 1) / 2)
    sides = torch.arccos((view.direction * -template[2]).sum())
    assert float(between) == pytest.approx(float(sides), abs=1e-6)
    assert abs(float(turn)) > 1.0


def test_the_middle_of_the_object_counts_not_its_origin():
    pose = look_at(torch.tensor([0.0, -2.0, 0.0], dtype=torch.float64))
    view = prior_view(pose, torch.tensor([0.0, 0.0, 2.0], dtype=torch.float64))
    half = 0.5**0.5
    assert torch.allclose(view.direction, torch.tensor([0.0, -half, -half], dtype=torch.float64))
