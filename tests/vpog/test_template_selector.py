from __future__ import annotations

import math

import pytest
import torch

from sightline.geometry.poses import make_pose
from sightline.geometry.rotations import angle_between, exp, random_rotations
from sightline.geometry.viewpoints import icosphere_directions, view_direction, view_poses
from sightline.vpog.template_selector import TemplateSelector

POSES = view_poses(162, 0.5)
VIEWS = view_direction(POSES[:, :3, :3])


def queries(count: int, seed: int = 0):
    R = random_rotations(count, generator=torch.Generator().manual_seed(seed))
    return make_pose(R.double(), torch.tensor([0.0, 0.0, 0.5], dtype=torch.float64))


def angles(chosen, poses):
    return torch.rad2deg(angle_between(view_direction(poses[..., :3, :3])[..., None, :], chosen.directions))


def test_directions_are_rows_and_turns_in_the_plane_do_not_count():
    """Neighbours of a view are its neighbours on the icosphere, 15.9 to 18.1 degrees away."""
    found = TemplateSelector(6, 0).nearest(VIEWS[14], POSES)
    assert found.indices[0] == 14 and set(found.indices[1:3].tolist()) == {44, 67}
    steps = angles(found, POSES[14])
    assert float(steps[0]) == pytest.approx(0, abs=1e-4)
    assert float(steps[1:].min()) > 15.85 and float(steps[1:].max()) < 18.1
    turned = POSES[14].clone()
    turned[:3, :3] = exp(torch.tensor([0.0, 0, 2.0], dtype=torch.float64)) @ turned[:3, :3]
    again = TemplateSelector(6, 0)(turned, POSES)
    assert set(again.indices.tolist()[:3]) == {14, 44, 67}
    by_column = (POSES[:, :3, 2] @ turned[:3, 2]).topk(6).indices
    assert set(by_column.tolist()) != set(found.indices.tolist())  # what a column in place of the row gives


def test_positives_are_the_nearest_and_negatives_at_least_a_right_angle_away():
    poses = queries(40)
    found = TemplateSelector(4, 2)(poses, POSES, generator=torch.Generator().manual_seed(0))
    assert (
        found.indices.shape == found.types.shape == (40, 6) and found.types[0].tolist() == [0] * 4 + [1] * 2
    )
    torch.testing.assert_close(found.directions, VIEWS[found.indices])
    torch.testing.assert_close(found.reference, found.directions[:, 0])
    apart = angles(found, poses)
    every = angle_between(view_direction(poses[:, :3, :3])[:, None], icosphere_directions(162)).rad2deg()
    torch.testing.assert_close(apart[:, :4], every.sort(-1).values[:, :4])
    assert float(apart[:, 0].max()) <= 10.8
    assert float(apart[:, 4:].min()) >= 90 - 1e-3
    assert (found.indices[:, 4] != found.indices[:, 5]).all()


def test_random_positives_lie_within_the_range_and_differ():
    poses = queries(30)
    select = TemplateSelector(3, 1, mode="random_within_range", range_deg=30.0)
    found = select(poses, POSES, generator=torch.Generator().manual_seed(0))
    apart = angles(found, poses)
    assert float(apart[:, :3].max()) <= 30 and (apart[:, :3].diff(dim=-1) >= 0).all()
    nearest = TemplateSelector(3, 1).nearest(view_direction(poses[:, :3, :3]), POSES)
    assert (found.indices[:, :3] != nearest.indices).any(-1).float().mean() > 0.8
    torch.testing.assert_close(found.reference, nearest.directions[:, 0])
    narrow = TemplateSelector(3, 0, mode="random_within_range", range_deg=1.0)(POSES[14], POSES)
    assert narrow.indices[0] == 14 and set(narrow.indices.tolist()) == {14, 44, 67}  # filled with the nearest


def test_the_same_generator_gives_the_same_choice():
    select = TemplateSelector(mode="random_within_range", d_ref_random_ratio=0.5)
    one, two, other = (
        select(queries(8), POSES, generator=torch.Generator().manual_seed(seed)) for seed in (3, 3, 4)
    )
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))
    assert not torch.equal(one.indices, other.indices)


@pytest.mark.parametrize("ratio", [0.0, 0.3, 1.0])
def test_the_reference_is_now_and_then_any_template(ratio):
    poses = queries(400)
    found = TemplateSelector(1, 0, d_ref_random_ratio=ratio)(
        poses, POSES, generator=torch.Generator().manual_seed(1)
    )
    moved = (found.reference != found.directions[:, 0]).any(-1).double().mean()
    assert float(moved) == pytest.approx(ratio, abs=0.08)


def test_a_prior_direction_need_not_be_normalised_and_batches():
    found = TemplateSelector(4).nearest(3.0 * VIEWS[:7], POSES)
    assert found.indices[:, 0].tolist() == list(range(7)) and found.types.unique().tolist() == [0]
    torch.testing.assert_close(found.reference, VIEWS[:7])


def test_too_few_templates_and_bad_options_are_named():
    with pytest.raises(ValueError, match="expected at least 4, got 3"):
        TemplateSelector()(POSES[0], POSES[:3])
    front = POSES[(VIEWS @ VIEWS[14]) > math.cos(1.0)]
    with pytest.raises(ValueError, match="expected 2 that are 90 degrees or more from each query, got 0"):
        TemplateSelector()(POSES[14], front)
    with pytest.raises(ValueError, match="num_positives"):
        TemplateSelector(0)
    with pytest.raises(ValueError, match="range_deg"):
        TemplateSelector(range_deg=200.0)
    with pytest.raises(ValueError, match="d_ref_random_ratio"):
        TemplateSelector(d_ref_random_ratio=2.0)
