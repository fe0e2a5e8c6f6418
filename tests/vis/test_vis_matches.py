from __future__ import annotations

import numpy as np
import pytest
import torch

import sightline.vis.matches as matches_file
from sightline.records import Correspondences, PoseEstimate
from sightline.vis.matches import draw_matches, explain_matches, most_used_template, spread_subset
from sightline.vis.palette import PALETTE
from tests.vis.scenes import grey_picture, make_camera, make_estimate, near_color


@pytest.fixture
def written(monkeypatch):
    texts, paint = [], matches_file.paint_label

    def record(canvas, text, *args, **kwargs):
        texts.append(text)
        return paint(canvas, text, *args, **kwargs)

    monkeypatch.setattr(matches_file, "paint_label", record)
    return texts


def test_matched_points_are_joined_in_the_colour_of_their_residual(written):
    template, crop = grey_picture(320, 320, 60), grey_picture(320, 320, 200)
    left, right = np.array([[100.0, 50.0], [100.0, 250.0]]), np.array([[200.0, 50.0], [200.0, 250.0]])
    drawn = draw_matches(template, crop, left, right, residuals_px=np.array([0.0, 5.0]), worst_px=3.0)
    shift = drawn.shape[1] - 320
    assert near_color(drawn[50, 110 : shift + 190], PALETTE["sky blue"]).mean() > 0.95
    assert near_color(drawn[250, 110 : shift + 190], PALETTE["vermillion"]).mean() > 0.95
    assert near_color(drawn[50, [100, shift + 200]], PALETTE["sky blue"]).all()
    assert (drawn[100:200, :320] == 60).all() and (drawn[100:200, shift:] == 200).all()
    assert written == ["2 matches, median error 2.50 px", "3 px or more", "0"]


def test_outliers_are_fainter_than_inliers():
    picture = grey_picture(320, 320, 200)
    points = np.array([[100.0, 50.0], [100.0, 250.0]])
    drawn = draw_matches(picture, picture, points, points, inliers=np.array([True, False]))
    contrast = np.abs(drawn[[50, 250], 150].astype(int) - 200).max(axis=-1)
    assert contrast[0] > 2 * contrast[1] > 0


def test_pictures_of_other_sizes_are_scaled_and_their_points_with_them():
    template, crop = grey_picture(80, 80, 60), grey_picture(640, 640, 200)
    drawn = draw_matches(template, crop, np.array([[40.0, 20.0]]), np.array([[320.0, 320.0]]))
    assert (drawn[:600, 5] == 60).all() and (drawn[:600, -5] == 200).all()
    changed = (drawn[:640, :640] != 60).any(axis=-1)
    rows, columns = np.nonzero(changed[:, :330])
    assert abs(columns.min() - 324) < 6 and abs(rows[columns.argmin()] - 164) < 6


def test_of_many_matches_a_spread_subset_is_joined(monkeypatch):
    lines = []
    monkeypatch.setattr(matches_file, "paint_polylines", lambda canvas, line, *a, **k: lines.extend(line))
    generator = np.random.default_rng(0)
    points = np.concatenate([generator.uniform(0, 20, (500, 2)), generator.uniform(0, 300, (30, 2))])
    inliers = np.ones(530, dtype=bool)
    inliers[::10] = False
    picture = grey_picture(320, 320)
    draw_matches(picture, picture, points, points, inliers=inliers, max_lines=24)
    assert len(lines) == 24 + 6  # and a quarter as many outliers
    joined = np.array(lines)[6:, 0]
    assert (joined > 40).any(axis=1).sum() > 15  # the crowd in the corner does not take all lines


def test_spread_subset_is_deterministic_and_within_bounds():
    points = np.random.default_rng(1).uniform(size=(200, 2))
    among = points[:, 0] > 0.5
    first = spread_subset(points, among, 20)
    assert (first == spread_subset(points, among, 20)).all() and len(set(first.tolist())) == 20
    assert among[first].all()
    gaps = np.linalg.norm(points[first][:, None] - points[first][None], axis=-1) + np.eye(20)
    assert gaps.min() > 0.08  # 20 random ones would lie 0.01 apart
    assert spread_subset(points, among, 0).tolist() == []
    assert spread_subset(points, np.zeros(200, dtype=bool), 5).tolist() == []
    same = np.zeros((9, 2))
    assert len(spread_subset(same, np.ones(9, dtype=bool), 4)) == 4


def test_matches_without_a_place_in_the_template_are_left_out(written):
    picture, nan = grey_picture(320, 320), np.full((3, 2), np.nan)
    drawn = draw_matches(picture, picture, nan, np.zeros((3, 2)), inliers=np.array([True, True, False]))
    assert (drawn[:320, :320] == 100).all() and written == ["2 of 3 matches are inliers"]
    none = draw_matches(picture, picture, np.zeros((0, 2)), np.zeros((0, 2)))
    assert (none[:320, :320] == 100).all() and written[-1] == "0 matches"


def problem() -> tuple[PoseEstimate, Correspondences]:
    """A pose, matches of template 3 that fit it, one outlier, and matches of template 5."""
    generator = np.random.default_rng(2)
    points_3d = torch.from_numpy(generator.uniform(-0.1, 0.1, (12, 3)))
    inliers = torch.ones(12, dtype=torch.bool)
    inliers[7] = False
    pose = make_estimate(turn=(0.2, 0.1, 0.4), inliers=inliers)
    points_2d = make_camera().project(points_3d @ pose.R.T + pose.t)
    points_2d[7] = torch.tensor([310.0, 230.0], dtype=torch.float64)
    points_2d[:7, 0] += 2.0
    template = torch.tensor([3] * 8 + [5] * 4)
    places = torch.from_numpy(generator.uniform(20, 200, (12, 2)))
    return pose, Correspondences.build(points_2d, points_3d, template=template, template_points=places)


def test_a_pose_is_explained_by_the_template_it_rests_on(written, monkeypatch):
    pose, matches = problem()
    drawn, draw = [], matches_file.draw_matches

    def record(*args, **kwargs):
        drawn.append((args, kwargs))
        return draw(*args, **kwargs)

    monkeypatch.setattr(matches_file, "draw_matches", record)
    image = np.random.default_rng(0).integers(0, 255, (240, 320, 3), dtype=np.uint8)
    explain_matches(image, make_camera(), pose, matches, grey_picture(224, 224))
    (template, crop, left, right), options = drawn[0]
    assert template.shape == (224, 224, 3) and len(left) == 8
    assert options["inliers"].tolist() == [True] * 7 + [False]
    np.testing.assert_allclose(options["residuals_px"][:7], 2.0, atol=1e-9)
    corner = (matches.points_2d[:8].numpy() - right)[0].astype(int)  # where the crop begins
    height, width = crop.shape[:2]
    assert (crop == image[corner[1] : corner[1] + height, corner[0] : corner[0] + width]).all()
    assert height < 240 and width < 320  # the outlier in the corner does not stretch it
    assert written[0] == "7 of 8 matches are inliers, median error 2.00 px"


def test_a_failure_is_explained_without_residuals(written):
    _, matches = problem()
    lost = PoseEstimate.failure("no consensus")
    explain_matches(grey_picture(), make_camera(), lost, matches, grey_picture(224, 224))
    assert written == ["8 matches"]


def test_most_used_template():
    _, matches = problem()
    assert most_used_template(matches) == 3
    only_five = np.array([False] * 8 + [True] * 4)
    assert most_used_template(matches, only_five) == 5
    assert most_used_template(matches, np.zeros(12, dtype=bool)) == 3  # without inliers all count
    assert most_used_template(Correspondences.build(torch.zeros(3, 2), torch.zeros(3, 3))) == -1


def test_bad_arguments_are_refused():
    picture, two, three = grey_picture(), np.zeros((2, 2)), np.zeros((3, 2))
    with pytest.raises(ValueError, match="of one length, got 2, 3, 2 and 2"):
        draw_matches(picture, picture, two, three)
    with pytest.raises(ValueError, match="of one length, got 2, 2, 3 and 2"):
        draw_matches(picture, picture, two, two, inliers=np.ones(3, dtype=bool))
    with pytest.raises(ValueError, match="crop: expected uint8 RGB"):
        draw_matches(picture, picture[..., 0], two, two)
    with pytest.raises(ValueError, match="template_points: expected pixels"):
        draw_matches(picture, picture, np.zeros((2, 3)), two)
    pose, matches = problem()
    with pytest.raises(ValueError, match="expected one for each of 4 correspondences, got 12"):
        explain_matches(picture, make_camera(), pose, matches.select(torch.arange(4)), picture)
    with pytest.raises(ValueError, match="expected the camera's"):
        explain_matches(picture[:100], make_camera(), pose, matches, picture)
