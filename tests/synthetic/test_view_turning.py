from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sightline.rendering import render_views
from sightline.synthetic import make_object
from sightline.synthetic.pose_composites import projected_box
from sightline.synthetic.pose_views import PoseView, PoseViewSettings
from sightline.synthetic.view_bank import ViewBank
from sightline.synthetic.view_turning import turn_towards, turn_view

OBJECT = make_object("mug", 3)
BANK = ViewBank([OBJECT], PoseViewSettings(num_queries=6, query_px=160, query_aside=0.2))
K = np.array([[280.0, 0, 130.2], [0, 280, 92.1], [0, 0, 1]])


@given(
    st.lists(st.floats(-1, 1), min_size=2, max_size=2),
    st.lists(st.floats(-1, 1), min_size=2, max_size=2),
    st.floats(-3, 3),
)
def test_a_turn_is_a_rotation_onto_the_ray(a: list[float], b: list[float], angle: float):
    position, ray = np.array([*a, 1.0]), np.array([*b, 1.0])
    turn = turn_towards(position, ray, angle)
    np.testing.assert_allclose(turn @ turn.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(turn) == pytest.approx(1)
    np.testing.assert_allclose(np.cross(turn @ position, ray), 0, atol=1e-12)


def test_the_angle_turns_from_x_to_y_in_the_picture():
    turned = turn_towards(np.array([0, 0, 1.0]), np.array([0, 0, 1.0]), np.pi / 2) @ np.array([0.1, 0, 1])
    np.testing.assert_allclose(turned, [0, 0.1, 1], atol=1e-12)


def test_a_ray_behind_the_camera_is_refused():
    with pytest.raises(ValueError, match="opposite"):
        turn_towards(np.array([0, 0, 1.0]), np.array([0, 0, -1.0]), 0.0)


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 5), st.floats(30, 220), st.floats(25, 160), st.floats(-3, 3))
def test_what_is_pasted_is_what_the_renderer_draws_at_that_pose(row: int, x: float, y: float, angle: float):
    turned = turn_view(BANK.views(0).view(row), K, (x, y), angle)
    height, width = turned.solid.shape
    shift = np.array([[1.0, 0, -turned.corner[0]], [0, 1, -turned.corner[1]], [0, 0, 1]])
    drawn = render_views(
        OBJECT.prepared,
        torch.from_numpy(turned.cam_from_obj)[None],
        torch.from_numpy(shift @ K),
        (width, height),
        outputs=("depth", "mask"),
    )
    mask, depth = drawn.mask[0].numpy(), drawn.depth[0].numpy()
    overlap = (mask & turned.solid).sum() / (mask | turned.solid).sum()
    assert overlap > 0.93
    both = mask & turned.solid
    error = np.abs(turned.depth[both] / depth[both] - 1)
    assert np.median(error) < 5e-4
    assert np.quantile(error, 0.8) < 5e-3
    box = projected_box(BANK.hulls[0], turned.cam_from_obj, shift @ K)
    rows, columns = np.nonzero(turned.solid)
    seen = [columns.min(), rows.min(), columns.max(), rows.max()]
    np.testing.assert_allclose(box, seen, atol=1.6)


def test_the_pose_shows_the_origin_at_the_wanted_pixel_at_the_view_s_distance():
    view = BANK.views(0).view(2)
    turned = turn_view(view, K, (200.5, 40.25), 2.0)
    t = turned.cam_from_obj[:3, 3]
    np.testing.assert_allclose((K @ t)[:2] / t[2], [200.5, 40.25], atol=1e-9)
    assert np.linalg.norm(t) == pytest.approx(np.linalg.norm(view.cam_from_obj[:3, 3]))


def test_an_empty_view_is_refused():
    nothing = np.zeros((8, 8))
    empty = PoseView(
        np.zeros((8, 8, 3), np.uint8), nothing.astype(np.float32), nothing.astype(bool), K, np.eye(4)
    )
    with pytest.raises(ValueError, match="empty"):
        turn_view(empty, K, (4.0, 4.0), 0.0)
