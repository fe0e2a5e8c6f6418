from __future__ import annotations

import math

import pytest
import torch

from sightline.geometry.cameras import Camera
from sightline.geometry.pnp import solve_pnp
from sightline.geometry.poses import look_at, make_pose, transform
from sightline.geometry.rotations import exp, geodesic_distance
from sightline.vpog.inference import MatchSettings, VPOGMatcher
from tests.rendering.meshes import bumpy
from tests.vpog.oracle import Oracle, coordinate_card, coordinate_picture

CAMERA = Camera(torch.tensor([[600.0, 0, 325.0], [0, 605.0, 238.0], [0, 0, 1]]), 640, 480)


@pytest.fixture(scope="module")
def card():
    return coordinate_card(bumpy(1500))


def matcher_of(card, **settings) -> VPOGMatcher:
    return VPOGMatcher(Oracle(card), MatchSettings(places=8, **settings), turn=0.55)


@pytest.fixture(scope="module")
def matcher(card):
    return matcher_of(card)


def seen_from(direction, roll: float, distance: float = 0.5, aside=(0.1, -0.05)):
    """A camera that looks past the object, rolled about its optical axis."""
    eye = torch.nn.functional.normalize(torch.tensor(direction, dtype=torch.float64), dim=0) * distance
    turn = exp(torch.tensor([0.0, 0.0, roll], dtype=torch.float64)) @ exp(
        torch.tensor([*aside, 0.0], dtype=torch.float64)
    )
    return make_pose(turn, torch.zeros(3, dtype=torch.float64)) @ look_at(eye)


def box_around(card, pose):
    px = CAMERA.project(transform(pose, card.mesh.vertices.double()))
    return torch.cat([px.amin(0), px.amax(0)])


def error(found, truth) -> tuple[float, float]:
    assert found.valid, found.reason
    angle = geodesic_distance(found.R[None], truth[None, :3, :3])[0]
    return math.degrees(float(angle)), abs(float(found.t[2] / truth[2, 3]) - 1)


@pytest.mark.parametrize("mode", ["global-fast", "global", "cluster"])
@pytest.mark.parametrize(
    ("direction", "roll"), [((1, 0.3, 0.4), 0.0), ((-0.5, -1, 0.2), 2.4), ((0.2, 1, -1), -1.2)]
)
def test_true_matches_give_the_pose_whatever_the_turn(card, mode, direction, roll):
    matcher = matcher_of(card, mode=mode)
    truth = seen_from(direction, roll)
    picture = coordinate_picture(card, truth, CAMERA)
    groups = matcher.match(picture, card, box=box_around(card, truth), max_groups=3)
    assert 1 <= len(groups) <= 3
    solved = solve_pnp(groups[0].points_2d, groups[0].points_3d, CAMERA, weights=groups[0].weights)
    degrees, share = error(solved, truth)
    assert degrees < 0.5
    assert share < 0.005


def test_rematch_looks_from_the_side_of_the_pose_and_upright(card, matcher):
    """From a pose that is off: its correspondences give the true one, and the crop is upright."""
    truth = seen_from((0.7, -0.8, 0.5), 2.0)
    off = truth.clone()
    off[:3, :3] = exp(torch.tensor([0.05, -0.04, 0.06], dtype=torch.float64)) @ truth[:3, :3]
    picture = coordinate_picture(card, truth, CAMERA)
    found = matcher.rematch(picture, card, CAMERA, off, radius_px=30.0)
    degrees, share = error(solve_pnp(found.points_2d, found.points_3d, CAMERA, weights=found.weights), truth)
    assert degrees < 0.5
    assert share < 0.005
    crop = matcher.model.queries[-1]
    assert len(crop) == 1
    # the object's z, the last channel, rises upwards in the crop as it does in every template
    rows = torch.arange(crop.shape[2], dtype=torch.float32)[:, None].expand(crop.shape[2:])
    inside = (crop[0] > 0.1).all(0)
    heights, z = rows[inside], crop[0, 2][inside]
    assert float(torch.corrcoef(torch.stack([heights, z]))[0, 1]) < -0.8


def test_rematch_keeps_what_lies_within_reach(card, matcher):
    truth = seen_from((0.7, -0.8, 0.5), 0.3)
    picture = coordinate_picture(card, truth, CAMERA)
    aside = truth.clone()
    aside[0, 3] += 12 * truth[2, 3] / 600  # twelve pixels
    wide = matcher.rematch(picture, card, CAMERA, aside, radius_px=30.0)
    assert len(wide) > 100
    assert len(matcher.rematch(picture, card, CAMERA, aside, radius_px=3.0)) < 0.2 * len(wide)


def test_rematch_of_a_pose_outside_the_picture_finds_nothing(card, matcher):
    truth = seen_from((1, 0, 0), 0.0)
    picture = coordinate_picture(card, truth, CAMERA)
    beyond, behind = truth.clone(), truth.clone()
    beyond[0, 3] += 3.0
    behind[2, 3] = -1.0
    for pose in (beyond, behind):
        assert len(matcher.rematch(picture, card, CAMERA, pose, radius_px=10.0)) == 0


def test_an_object_at_the_border_is_found(card, matcher):
    truth = seen_from((1, 0.3, 0.4), 0.0)
    truth[0, 3] = -0.5 * truth[2, 3]  # the middle of the object is 25 px from the left border
    box = box_around(card, truth)
    assert box[0] < -20
    groups = matcher.match(coordinate_picture(card, truth, CAMERA), card, box=box)
    solved = solve_pnp(groups[0].points_2d, groups[0].points_3d, CAMERA, weights=groups[0].weights)
    assert error(solved, truth)[0] < 1.0


@pytest.mark.parametrize(
    ("box", "words"),
    [
        ([-90.0, 10, -5, 60], "outside the picture"),
        ([650.0, 10, 700, 60], "outside the picture"),
        ([50.0, 60, 50, 90], "no extent"),
        ([float("nan"), 10, 20, 60], "no extent"),
        ([10.0, 10, 120, 120], "none of 42 templates"),
    ],
)
def test_nothing_is_found_and_why(card, matcher, box, words):
    picture = coordinate_picture(card, seen_from((1, 0, 0), 0.0), CAMERA)
    found = matcher.search(picture, card, box=torch.tensor(box))
    assert found.groups == []
    assert words in found.reason


def test_a_direction_limits_cluster_mode_to_its_neighbours(card):
    truth = seen_from((1, 0.3, 0.4), 1.0)
    picture, box = coordinate_picture(card, truth, CAMERA), box_around(card, truth)
    matcher = matcher_of(card, mode="cluster")
    direction = torch.nn.functional.normalize(torch.tensor([1.0, 0.3, 0.4]), dim=0)
    found = matcher.search(picture, card, box=box, direction=direction)
    used = torch.cat([group.template for group in found.groups]).unique()
    known = matcher.known(card)
    nearest = (known.directions @ direction.double()).topk(4).indices
    assert set(used.tolist()) <= set(nearest.tolist())
    assert len(used) > 1
    opposite = matcher.search(picture, card, box=box, direction=-direction)
    assert sum(map(len, opposite.groups)) < 0.1 * sum(map(len, found.groups))
    with pytest.raises(ValueError, match="cluster"):
        matcher_of(card).search(picture, card, box=box, direction=direction)


def test_groups_are_ordered_and_name_points_of_the_cards_templates(card, matcher):
    truth = seen_from((-0.5, -1, 0.2), 0.9)
    groups = matcher.match(coordinate_picture(card, truth, CAMERA), card, box=box_around(card, truth))
    support = [float(group.weights.sum()) for group in groups]
    assert support == sorted(support, reverse=True)
    for number in groups[0].template.unique():
        view, rows = card.templates[number], groups[0].template == number
        expected = view.camera.project(transform(view.cam_from_obj, groups[0].points_3d[rows]))
        assert float((expected - groups[0].template_points[rows]).norm(dim=1).max()) < 0.1
