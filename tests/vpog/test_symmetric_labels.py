"""Labels of a symmetric object do not depend on which of its equal poses the data name."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from sightline.geometry.poses import invert, look_at, make_pose
from sightline.geometry.rotations import exp
from sightline.geometry.symmetry import SymmetryGroup
from sightline.geometry.viewpoints import view_poses
from sightline.synthetic.pose_crops import nearest_equivalents, upright_pose
from sightline.synthetic.pose_views import ObjectViews

GROUPS = {
    "three turns": SymmetryGroup.cyclic(3, (0, 0, 1)),
    "a half turn": SymmetryGroup.cyclic(2, (0, 0, 1)),
    "any turn": SymmetryGroup.continuous((0, 0, 1)),
}


def template_from_query(pose: torch.Tensor, group: SymmetryGroup) -> torch.Tensor:
    """All that labels know of poses: how a point of the query's camera lies in each template's."""
    templates = view_poses(42, 0.6).double()
    shown: Any = SimpleNamespace(cam_from_obj=templates.numpy())  # poses are all that counts
    views = ObjectViews("thing", 0.2, group, shown, shown)
    return nearest_equivalents(views, upright_pose(pose.numpy())) @ invert(pose)


@pytest.mark.parametrize("name", GROUPS)
@pytest.mark.parametrize("seed", range(4))
def test_labels_are_those_of_any_equal_pose(name, seed):
    group, draw = GROUPS[name], torch.Generator().manual_seed(seed)
    eye = torch.nn.functional.normalize(torch.randn(3, generator=draw).double(), dim=0) * 0.6
    turn = make_pose(exp(torch.tensor([0.0, 0.0, 0.3]).double()), torch.tensor([0.01, 0.02, 0.05]).double())
    pose = turn @ look_at(eye)
    first = template_from_query(pose, group)
    for motion in group.transforms(math.radians(40.0)):
        again = template_from_query(pose @ motion.double(), group)
        # of templates that lie between two equal poses either may be the nearest
        same = (again - first).abs().amax((1, 2)) < 1e-6
        assert float(same.double().mean()) > 0.9


def test_without_the_symmetry_labels_would_differ():
    pose = look_at(torch.tensor([0.4, 0.1, 0.3]).double())
    half = GROUPS["a half turn"].discrete[1].double()
    plain = SymmetryGroup.none()
    gap = (template_from_query(pose @ half, plain) - template_from_query(pose, plain)).abs().amax((1, 2))
    assert float(gap.min()) > 0.1
