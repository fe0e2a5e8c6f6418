from __future__ import annotations

import math

import pytest
import torch

from sightline.geometry.pnp.validity import (
    find_degeneracy,
    find_lack_of_support,
    find_looseness,
    is_planar,
)

CUBE = torch.tensor([[x, y, z] for x in (0.0, 1) for y in (0.0, 1) for z in (0.0, 1)], dtype=torch.float64)


@pytest.mark.parametrize(
    ("points", "reason"),
    [
        (CUBE[:3], "3 correspondences, at least 4"),
        (CUBE[:1].expand(8, 3), "same point"),
        (CUBE[:1].expand(8, 3) + 7, "same point"),
        (CUBE * torch.tensor([0.0, 1, 0]) + 3, "one line"),
        (CUBE * torch.tensor([1.0, 1, 0]), ""),
        (CUBE + 100, ""),
    ],
)
def test_degenerate_points(points, reason):
    found = find_degeneracy(points)
    assert reason in found
    assert bool(reason) == bool(found)


def test_a_plane_is_one_in_any_frame():
    assert is_planar(CUBE * torch.tensor([1.0, 1, 0.001]) + 5)
    assert not is_planar(CUBE * torch.tensor([1.0, 1, 0.1]))


def test_support_is_counted_against_the_given_number():
    x = torch.arange(40, dtype=torch.float64).reshape(20, 2) * 20
    inliers = torch.arange(20) < 7
    options = {"max_error_px": 3.0, "trials": 1000}
    assert find_lack_of_support(x, inliers, min_inliers=7, **options) == ""
    assert find_lack_of_support(x, inliers, min_inliers=8, **options) == "7 inliers of 20, 8 are needed"
    assert "3 inliers" in find_lack_of_support(x, torch.arange(20) < 3, min_inliers=1, **options)
    assert find_lack_of_support(x, inliers, min_inliers=None, **options) == ""
    assert "chance" in find_lack_of_support(x, torch.arange(20) < 4, min_inliers=None, **options)


def test_looseness_names_what_is_open():
    t = torch.tensor([0.0, 0.0, 0.5], dtype=torch.float64)
    tight = torch.eye(6, dtype=torch.float64) * 1e-6
    assert find_looseness(tight, t) == ""
    turned, far = tight.clone(), tight.clone()
    turned[1, 1] = math.radians(30) ** 2
    far[5, 5] = 0.2**2
    assert "rotation open by 30 degrees" in find_looseness(turned, t)
    assert "distance open by 40 %" in find_looseness(far, t)
    assert find_looseness(far, t, with_depth=False) == ""
    assert "do not fix" in find_looseness(tight + math.inf, t)
