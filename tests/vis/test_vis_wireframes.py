from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sightline.geometry.distortion import invertible_radius
from sightline.records import PoseEstimate
from sightline.vis.palette import AXIS_COLORS, PALETTE
from sightline.vis.view_lines import project_point, project_segments
from sightline.vis.wireframes import box_edges, draw_axes, draw_box_3d
from tests.vis.scenes import BARREL, changed, grey_picture, grown, make_camera, make_estimate, near_color

UNIT = np.array([[-0.1, -0.1, -0.1], [0.1, 0.1, 0.1]])
coordinate = st.integers(-3000, 3000).map(lambda millimetres: millimetres / 1000)
point = st.tuples(coordinate, coordinate, coordinate).map(np.array)


def distance_to_polyline(points: np.ndarray, line: np.ndarray) -> np.ndarray:
    start, along = line[:-1], np.diff(line, axis=0)
    share = ((points[:, None] - start) * along).sum(axis=-1) / np.maximum((along**2).sum(axis=-1), 1e-12)
    nearest = start + np.clip(share, 0, 1)[..., None] * along
    return np.linalg.norm(points[:, None] - nearest, axis=-1).min(axis=1)


@pytest.mark.parametrize("distortion", [None, BARREL])
@settings(max_examples=80, deadline=None, derandomize=True)
@given(start=point, end=point)
def test_all_of_a_line_that_is_seen_is_drawn(distortion, start, end):
    camera = make_camera(distortion=distortion)
    points = torch.from_numpy(start + np.linspace(0, 1, 301)[:, None] * (end - start))
    seen = camera.project(points)[camera.sees(points)].numpy()
    lines = project_segments(camera, start[None], end[None])[0]
    if len(seen):
        assert np.min([distance_to_polyline(seen, line) for line in lines], axis=0).max() < 0.5


@pytest.mark.parametrize("distortion", [None, BARREL])
@settings(max_examples=80, deadline=None, derandomize=True)
@given(start=point, end=point)
def test_nothing_is_drawn_but_the_line(distortion, start, end):
    camera = make_camera(distortion=distortion)
    for line in project_segments(camera, start[None], end[None])[0]:
        assert np.isfinite(line).all()
        rays = camera.unproject(torch.from_numpy(line), torch.ones(len(line), dtype=torch.float64)).numpy()
        # Where the ray of each pixel meets the line in space: s ray = start + q (end - start), in front.
        for ray in rays[np.isfinite(rays).all(axis=1)]:
            (s, q), *_ = np.linalg.lstsq(np.stack([ray, start - end], axis=1), start, rcond=None)
            assert np.linalg.norm(s * ray - start - q * (end - start)) < 1e-6
            assert -1e-6 < q < 1 + 1e-6 and s > -1e-6


def test_lines_bend_as_the_lens_does():
    camera = make_camera(distortion=BARREL)
    start, end = np.array([-0.5, 0.38, 1.0]), np.array([0.5, 0.38, 1.0])
    (line,) = project_segments(camera, start[None], end[None])[0]
    rays = camera.unproject(torch.from_numpy(line), torch.ones(len(line), dtype=torch.float64))
    np.testing.assert_allclose(rays[:, 1], 0.38, atol=1e-9)
    chord = np.linalg.norm(line[-1] - line[0])
    assert np.linalg.norm(np.diff(line, axis=0), axis=1).sum() > chord  # it is no chord
    assert line[len(line) // 2, 1] - line[0, 1] > 3


def test_what_a_wide_lens_folds_back_is_not_drawn():
    camera = make_camera(focal=120.0, distortion=(-0.25, 0.0, 0.0, 0.0, 0.0))
    radius = float(invertible_radius(camera.distortion))
    assert camera.project(torch.tensor([radius, 0.0, 1.0]).double())[0] < 300  # a circle inside the picture
    for beyond in (
        np.array([[1.3 * radius, 0.0, 1.0], [1.6 * radius, 0.4, 1.0]]),
        np.array([[0.72 * radius, 0.75 * radius, 1.0], [0.9 * radius, 0.9 * radius, 1.0]]),
    ):
        pixels = camera.project(torch.from_numpy(beyond))
        assert (pixels >= 0).all() and (pixels < 240).any()  # the formula alone puts it into the picture
        assert project_segments(camera, beyond[:1], beyond[1:]) == [[]]
    across = np.array([[-0.9 * radius, 0.2, 1.0], [3.0, 0.2, 1.0]])
    (line,) = project_segments(camera, across[:1], across[1:])[0]  # what lies inside the circle is
    assert (np.diff(line[:, 0]) > 0).all() and len(line) > 8


def test_bad_segments_are_refused():
    camera = make_camera()
    with pytest.raises(ValueError, match=r"expected two arrays \(n, 3\)"):
        project_segments(camera, np.zeros((2, 3)), np.zeros((1, 3)))
    with pytest.raises(ValueError, match="NaN or infinity"):
        project_segments(camera, np.full((1, 3), np.nan), np.zeros((1, 3)))
    assert project_point(camera, np.array([0.0, 0.0, 1.0])).tolist() == [159.5, 119.5]
    assert project_point(camera, np.array([9.0, 0.0, 1.0])) is None


def test_axes_point_where_the_frame_points():
    camera, image = make_camera(), grey_picture()
    drawn = draw_axes(image, camera, make_estimate(turn=(0.0, -0.6, 0.0)), length=0.2)
    tips = [(0.1651, 0.0, 0.1129), (0.0, 0.2, 0.0), (-0.1129, 0.0, 0.1651)]  # the turned axes, 0.2 m long
    for color, tip in zip(AXIS_COLORS, tips, strict=True):
        middle = 0.6 * np.array(tip) + [0, 0, 1]
        column, row = np.rint(300 * middle[:2] / middle[2] + [159.5, 119.5]).astype(int)
        assert near_color(drawn[row, column], color).all()
    # z is foreshortened and so ends left of the middle; nothing is drawn far from the axes.
    assert not changed(image, drawn)[:, :100].any() and not changed(image, drawn)[:90].any()


def test_the_nearest_axis_is_on_top():
    for turn, on_top in (((0.0, 0.0, 0.0), (0, 1)), ((np.pi, 0.0, 0.0), (2,))):
        drawn = draw_axes(grey_picture(), make_camera(), make_estimate(turn=turn), length=0.2, letters=False)
        origin = drawn[118:122, 158:162]
        assert any(near_color(origin, AXIS_COLORS[axis], 60).any() for axis in on_top)


def test_axes_carry_their_letters():
    without = draw_axes(grey_picture(), make_camera(), make_estimate(), length=0.2, letters=False)
    letters = draw_axes(grey_picture(), make_camera(), make_estimate(), length=0.2)
    place = changed(without, letters)
    assert place[:, 220:240].any() and place[180:200].any()


def test_nothing_is_drawn_for_what_is_behind_or_not_found():
    image, camera = grey_picture(), make_camera()
    for pose in (make_estimate(t=(0.0, 0.0, -1.0)), PoseEstimate.failure("hidden")):
        assert (draw_axes(image, camera, pose, length=0.2) == image).all()
        assert (draw_box_3d(image, camera, pose, UNIT) == image).all()


def test_a_box_that_reaches_behind_the_camera_is_cut_not_mirrored():
    image, camera = grey_picture(), make_camera()
    pose = make_estimate(t=(0.0, 0.15, 0.0))
    drawn = draw_box_3d(image, camera, pose, np.array([[-0.1, -0.1, -2.0], [0.1, 0.1, 2.0]]))
    assert changed(image, drawn)[120:].any()
    assert not changed(image, drawn)[:118].any()  # all of the box is below the line of sight


def test_box_edges_lie_where_they_are_projected_and_hidden_ones_are_paler():
    image, camera, color = grey_picture(), make_camera(), PALETTE["orange"]
    drawn = draw_box_3d(image, camera, make_estimate(), UNIT, color=color)
    front, back = 300 * 0.1 / 0.9, 300 * 0.1 / 1.1  # half the front and the back face, pixels
    middle = np.array([159.5, 119.5])
    row, column = np.rint(middle + np.array([0, front]))[::-1].astype(int)
    assert near_color(drawn[row, column], color).all()
    row, column = np.rint(middle + np.array([8, back]))[::-1].astype(int)
    pale = drawn[row - 1 : row + 2, column].astype(int)
    assert changed(image, drawn)[row - 1 : row + 2, column].any()
    assert not near_color(pale, color).any()
    expected = 0.45 * np.array(color) + 0.55 * 100
    assert near_color(pale, expected, 45).any()


@pytest.mark.parametrize("distortion", [None, BARREL])
def test_the_box_of_a_turned_object_has_its_edges_where_opencv_projects_them(distortion):
    image, camera, color = grey_picture(640, 480), make_camera(600.0, 640, 480, distortion), (255, 0, 0)
    bounds = np.array([[-0.05, -0.1, -0.02], [0.15, 0.1, 0.12]])
    pose = make_estimate(turn=(0.5, -2.2, 0.3), t=(0.05, -0.08, 0.7))
    drawn = draw_box_3d(image, camera, pose, bounds, color=color)
    corners = np.array([[x, y, z] for x in bounds[:, 0] for y in bounds[:, 1] for z in bounds[:, 2]])
    steps = np.linspace(0, 1, 200)[:, None]
    coefficients = None if distortion is None else np.array(distortion)
    eye = np.linalg.solve(pose.R.numpy(), -pose.t.numpy())
    pale, everywhere = [], np.zeros((480, 640), dtype=bool)
    for a, b in [(i, j) for i in range(8) for j in range(i) if bin(i ^ j).count("1") == 1]:
        edge = (1 - steps) * corners[a] + steps * corners[b]
        pixels = cv2.projectPoints(
            edge, cv2.Rodrigues(pose.R.numpy())[0], pose.t.numpy(), camera.K.numpy(), coefficients
        )
        columns, rows = np.rint(pixels[0][:, 0]).astype(int).T
        everywhere[rows, columns] = True
        share = near_color(drawn[rows, columns], color, 60).mean()
        assert share > 0.9 or share < 0.3
        pale += [{a, b}] if share < 0.3 else []
    assert len(pale) == 3  # from a corner three edges are hidden, those that meet in the opposite one
    (hidden,) = set.intersection(*pale)
    assert (corners[hidden] == np.where(eye > bounds[1], bounds[0], bounds[1])).all()
    assert not (changed(image, drawn) & ~grown(everywhere, 5)).any()
    assert changed(image, drawn)[everywhere].mean() > 0.99


@settings(max_examples=80, deadline=None, derandomize=True)
@given(eye=st.tuples(coordinate, coordinate, coordinate).map(np.array))
def test_an_edge_is_hidden_when_the_box_stands_before_its_middle(eye):
    bounds = np.array([[-1.0, -0.5, -0.8], [0.7, 0.9, 1.1]])
    if np.abs(eye - bounds).min() < 1e-3:
        return  # in the plane of a face both answers are right
    starts, ends, hidden = box_edges(bounds, eye)
    assert len(np.unique(np.round(np.concatenate([starts, ends]), 9), axis=0)) == 8
    steps = np.linspace(0, 1, 2001)[1:-1, None]
    for start, end, is_hidden in zip(starts, ends, hidden, strict=True):
        sight = eye + steps * ((start + end) / 2 - eye)
        inside = ((sight > bounds[0] + 1e-9) & (sight < bounds[1] - 1e-9)).all(axis=1)
        outside_eye = ((eye < bounds[0]) | (eye > bounds[1])).any()
        assert is_hidden == bool(inside.any() and outside_eye) or inside.sum() < 3


def test_bad_arguments_are_refused():
    image, camera, pose = grey_picture(), make_camera(), make_estimate()
    with pytest.raises(ValueError, match="length: expected a positive number of metres, got 0"):
        draw_axes(image, camera, pose, length=0.0)
    with pytest.raises(ValueError, match="expected the camera's 320 x 240 pixels, got 64 x 48"):
        draw_axes(grey_picture(64, 48), camera, pose, length=0.1)
    with pytest.raises(ValueError, match="bounds: expected finite"):
        draw_box_3d(image, camera, pose, UNIT[::-1])
    with pytest.raises(ValueError, match="bounds: expected finite"):
        draw_box_3d(image, camera, pose, np.full((2, 3), np.nan))
    with pytest.raises(ValueError, match="bounds: expected finite"):
        draw_box_3d(image, camera, pose, np.zeros((8, 3)))
