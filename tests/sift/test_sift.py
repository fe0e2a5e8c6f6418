from dataclasses import fields

import numpy as np
import pytest
import torch

from sightline.geometry.poses import transform
from sightline.geometry.symmetry import SymmetryGroup
from sightline.objects.card import ObjectCard
from sightline.objects.onboard import onboard_mesh
from sightline.sift import FeatureBank, SiftMatcher, extract_features
from sightline.sift.hypotheses import group_matches
from sightline.sift.matching import Matches, match_features
from tests.printed_box import CAMERA, box_pose, picture_of, printed_box


@pytest.fixture(scope="module")
def card() -> ObjectCard:
    none = SymmetryGroup.none()
    return onboard_mesh(printed_box(), name="box", num_views=42, template_size=160, symmetries=none)


@pytest.fixture(scope="module")
def matcher(card: ObjectCard) -> SiftMatcher:
    return SiftMatcher([card])


def _blob(x: float, y: float) -> np.ndarray:
    rows, columns = np.mgrid[0:80, 0:100].astype(float)
    grey = 255 * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * 4.0**2))
    return np.repeat(grey[..., None], 3, axis=2).astype(np.uint8)


def test_centre_of_the_top_left_pixel_is_the_origin():
    found = extract_features(_blob(40.3, 30.7))
    nearest = found.points[(found.points - torch.tensor([40.3, 30.7])).norm(dim=1).argmin()]
    assert torch.allclose(nearest, torch.tensor([40.3, 30.7], dtype=torch.float64), atol=0.08)


def test_descriptors_have_unit_length():
    found = extract_features(picture_of(printed_box(), box_pose()))
    assert len(found) > 100
    assert torch.allclose(found.descriptors.norm(dim=1), torch.ones(len(found)), atol=1e-4)


def test_picture_without_texture_has_no_features():
    assert len(extract_features(np.full((64, 64, 3), 90, np.uint8))) == 0


def test_bank_lies_on_the_surface(card: ObjectCard, matcher: SiftMatcher):
    bank = matcher.bank(card)
    assert len(bank) > 1000
    half = card.bounds[1]
    outside = (bank.points_3d.abs() / half).amax(1)
    assert float((outside - 1).abs().median()) < 1e-3
    # each feature projects to where its template shows it
    for index in (0, 11):
        rows = bank.template == index
        view = card.templates[index]
        expected = view.camera.project(transform(view.cam_from_obj, bank.points_3d[rows]))
        assert float((expected - bank.template_points[rows]).norm(dim=1).max()) < 1e-6


def test_blind_matches_agree_with_the_truth(card: ObjectCard, matcher: SiftMatcher):
    pose = box_pose()
    features = matcher.describe(picture_of(printed_box(), pose))
    groups = matcher.match(features, card)
    assert groups
    expected = CAMERA.project(transform(pose, groups[0].points_3d))
    errors = (expected - groups[0].points_2d).norm(dim=1)
    assert float((errors < 2).double().mean()) > 0.8


def test_guided_matches_are_more_and_better(card: ObjectCard, matcher: SiftMatcher):
    pose = box_pose()
    features = matcher.describe(picture_of(printed_box(), pose))
    blind = matcher.match(features, card)[0]
    guided = matcher.rematch(features, card, CAMERA, pose, radius_px=4.0)
    assert len(guided) > 1.3 * len(blind)
    errors = (CAMERA.project(transform(pose, guided.points_3d)) - guided.points_2d).norm(dim=1)
    assert float(errors.max()) <= 4.0
    assert float(errors.median()) < 0.8


def test_a_box_limits_where_is_looked(card: ObjectCard, matcher: SiftMatcher):
    features = matcher.describe(picture_of(printed_box(), box_pose()))
    corner = torch.tensor([0.0, 0.0, 40.0, 40.0], dtype=torch.float64)
    assert matcher.match(features, card, box=corner) == []


def test_the_second_nearest_is_at_another_place(card: ObjectCard, matcher: SiftMatcher):
    """The same place is seen in many templates: a plain ratio test refuses what they agree on."""
    bank = matcher.bank(card)
    features = matcher.describe(picture_of(printed_box(), box_pose()))
    # every feature is seen a second time, a hair's breadth away and nearly alike
    twins = torch.nn.functional.normalize(bank.descriptors + 0.01, dim=1)
    twice = {f.name: torch.cat([getattr(bank, f.name)] * 2) for f in fields(FeatureBank)}
    twice["points_3d"][len(bank) :] += 1e-4
    twice["descriptors"][len(bank) :] = twins
    doubled = FeatureBank(**twice)
    once = match_features(features, bank, diameter=card.diameter)
    fair = match_features(features, doubled, diameter=card.diameter)
    plain = match_features(features, doubled, diameter=0.0)
    assert len(fair) > 0.9 * len(once)
    assert len(plain) < 0.5 * len(fair)


def test_two_instances_are_two_groups(card: ObjectCard, matcher: SiftMatcher):
    left, right = box_pose(distance=0.6), box_pose(tilt=0.8, distance=0.6)
    left[0, 3], right[0, 3] = -0.08, 0.08
    picture = picture_of(printed_box(), left)
    other = picture_of(printed_box(), right)
    picture[:, 160:] = other[:, 160:]
    groups = matcher.match(matcher.describe(picture), card)
    sides = [float(group.points_2d[:, 0].median()) < 160 for group in groups[:2]]
    assert sorted(sides) == [False, True]


def test_scattered_matches_make_no_group(card: ObjectCard, matcher: SiftMatcher):
    bank = matcher.bank(card)
    features = matcher.describe(picture_of(printed_box(1), box_pose()))
    generator = torch.Generator().manual_seed(0)
    query = torch.randint(len(features), (12,), generator=generator)
    random = Matches(query, torch.randint(len(bank), (12,), generator=generator), torch.ones(12).double())
    assert group_matches(random, features, bank) == []


def test_nothing_to_match(matcher: SiftMatcher, card: ObjectCard):
    empty = matcher.describe(np.zeros((48, 64, 3), np.uint8))
    assert matcher.match(empty, card) == []
    assert len(matcher.rematch(empty, card, CAMERA, box_pose(), radius_px=5.0)) == 0
