"""View sets: the spacings that the templates of VPOG are known to have, cameras at the poles, look-up."""

from __future__ import annotations

import math

import pytest
import torch

from sightline.geometry.poses import make_pose, transform
from sightline.geometry.rotations import exp, random_rotations
from sightline.geometry.viewpoints import icosphere_directions, nearest_views, view_direction, view_poses
from tests.tolerances import tolerance

EXACT = tolerance(torch.float64)
COUNTS = pytest.mark.parametrize("num_views", [42, 162, 642])


def random_directions(count, seed=0):
    vectors = torch.randn(count, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return torch.nn.functional.normalize(vectors)


@pytest.mark.parametrize(
    ("num_views", "nearest", "farthest", "covering", "mean"),
    [(42, 31.7, 31.7, 20.8, 11.9), (162, 15.86, 16.41, 10.75, 6.03), (642, 7.9, 9.1, 5.4, 3.0)],
)
def test_published_spacings(num_views, nearest, farthest, covering, mean):
    views = icosphere_directions(num_views)
    spacing = nearest_views(views, views, k=2)[1][:, 1].rad2deg()
    assert spacing.min().item() == pytest.approx(nearest, abs=0.05)
    assert spacing.max().item() == pytest.approx(farthest, abs=0.05)
    to_nearest = nearest_views(random_directions(50_000), views)[1].rad2deg()
    assert to_nearest.max().item() == pytest.approx(covering, abs=0.1)
    assert to_nearest.mean().item() == pytest.approx(mean, abs=0.05)


@COUNTS
def test_directions_are_unit_distinct_and_balanced(num_views):
    views = icosphere_directions(num_views)
    assert views.shape == (num_views, 3)
    assert views.dtype == torch.float64
    assert (views.norm(dim=-1) - 1).abs().max() < 1e-15
    assert len(views.round(decimals=6).unique(dim=0)) == num_views
    opposite, angle = nearest_views(-views, views)
    assert angle.max() < 1e-12
    assert torch.equal(opposite[opposite[:, 0], 0], torch.arange(num_views))
    # the second moment of an icosahedral set is that of the sphere
    moment = views.mT @ views / num_views
    torch.testing.assert_close(moment, torch.eye(3).double() / 3, **EXACT)


def test_small_sets_begin_the_large_ones_and_callers_cannot_spoil_them():
    views = icosphere_directions(642)
    assert torch.equal(icosphere_directions(162), views[:162])
    assert torch.equal(icosphere_directions(42), views[:42])
    views.zero_()
    assert icosphere_directions(642).norm(dim=-1).min() > 0.99


@pytest.mark.parametrize("num_views", [0, 12, 163])
def test_other_counts_are_refused(num_views):
    with pytest.raises(ValueError, match=f"expected 42, 162 or 642, got {num_views}"):
        icosphere_directions(num_views)


@COUNTS
def test_cameras_look_at_the_centre_with_up_upwards(num_views):
    center = torch.tensor([0.1, -0.2, 0.3], dtype=torch.float64)
    poses = view_poses(num_views, 0.7, center=center)
    R = poses[:, :3, :3]
    torch.testing.assert_close(R @ R.mT, torch.eye(3).double().expand_as(R), **EXACT)
    assert (torch.linalg.det(R) - 1).abs().max() < 1e-12
    seen = transform(poses, torch.stack([center, center + torch.tensor([0.0, 0.0, 0.1])]))
    in_the_middle = torch.tensor([0.0, 0.0, 0.7], dtype=torch.float64)
    torch.testing.assert_close(seen[:, 0], in_the_middle.expand(num_views, 3), **EXACT)
    directions = icosphere_directions(num_views)
    side = directions[:, 2].abs() < 1 - 1e-9
    assert side.sum() == num_views - 2  # two views stand on the axis
    assert seen[:, 1, 0].abs().max() < 1e-12
    assert (seen[side, 1, 1] < 0).all()
    torch.testing.assert_close(view_direction(R), directions, **EXACT)


def test_distance_and_up_of_choice():
    distances = torch.linspace(0.5, 2.0, 42)
    up = torch.tensor([0.0, 1.0, 0.0])
    poses = view_poses(42, distances, up=up)
    torch.testing.assert_close(poses[:, 2, 3], distances.double())
    assert (poses[:, 1, :3] @ up.double()).max() < 1e-12  # +y of the object is never below
    with pytest.raises(ValueError, match="positive metres, got 0"):
        view_poses(42, 0.0)


def test_view_direction_is_the_camera_centre_and_ignores_turns_in_the_plane():
    R = random_rotations(50, generator=torch.Generator().manual_seed(1))
    t = torch.tensor([0.0, 0.0, 1.7], dtype=torch.float64)
    center = torch.linalg.inv(make_pose(R, t))[:, :3, 3]
    torch.testing.assert_close(view_direction(R), torch.nn.functional.normalize(center), **EXACT)
    in_plane = exp(torch.tensor([0.0, 0.0, 0.8], dtype=torch.float64))
    torch.testing.assert_close(view_direction(in_plane @ R), view_direction(R), **EXACT)


def test_nearest_views_are_those_of_a_full_search():
    views, queries = icosphere_directions(162), random_directions(200, 2).reshape(10, 20, 3)
    indices, angles = nearest_views(queries, views, k=4)
    assert indices.shape == angles.shape == (10, 20, 4)
    every = torch.acos((queries @ views.mT).clamp(-1, 1)).sort(dim=-1)
    torch.testing.assert_close(angles, every.values[..., :4], rtol=0, atol=1e-7)
    assert (indices == every.indices[..., :4]).float().mean() > 0.99  # equal but for ties
    assert nearest_views(views[5].float(), views)[1].dtype == torch.float32
    assert nearest_views(views[5] * math.cos(1e-6) + 1e-6 * views[9], views)[0].item() == 5
