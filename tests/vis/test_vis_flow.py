from __future__ import annotations

import colorsys

import numpy as np
import pytest
import torch

from sightline.vis.flow import (
    draw_flow,
    draw_flow_arrows,
    draw_flow_wheel,
    draw_patch_flow,
    draw_patch_matches,
    largest_flow,
)
from sightline.vis.palette import GREY, PLATE, WHITE
from tests.vis.scenes import changed, grey_picture, near_color


def test_hue_is_the_direction_and_saturation_the_length():
    angles = np.linspace(-np.pi, np.pi, 61)[:-1] + 0.01
    lengths = np.linspace(0, 1.5, 60)
    flow = np.stack([lengths * np.cos(angles), lengths * np.sin(angles)], -1)[None]
    drawn = draw_flow(flow, largest=1.0)[0]
    for color, angle, length in zip(drawn, angles, lengths, strict=True):
        expected = colorsys.hsv_to_rgb((angle + np.pi) / (2 * np.pi), min(length, 1.0), 1.0)
        np.testing.assert_allclose(color, 255 * np.array(expected), atol=1)


def test_unseen_is_grey_and_the_colours_reach_the_99th_percentile():
    flow = torch.zeros(10, 20, 2)
    flow[..., 0] = torch.arange(200).view(10, 20) / 100
    flow[0, 0] = torch.nan
    unseen = torch.zeros(10, 20, dtype=torch.bool)
    unseen[9] = True
    drawn = draw_flow(flow, unseen)
    assert (drawn[9] == GREY).all() and drawn[0, 0].tolist() == list(GREY)
    seen = np.hypot(*flow[:9].reshape(-1, 2)[1:].numpy().T)
    assert largest_flow(flow, unseen) == pytest.approx(np.percentile(seen, 99))
    assert drawn[8, 19].tolist() == [0, 255, 255]  # to the right, fully
    assert (draw_flow(flow, np.ones((10, 20), bool)) == GREY).all()
    assert (draw_flow(np.zeros((2, 2, 2))) == WHITE).all()


def test_the_wheel_shows_each_direction_where_it_points():
    wheel = draw_flow_wheel(200, largest=0.5)
    side = 200 - 32
    middle = (side - 1) / 2
    for angle in (0.3, 1.8, -2.5):
        x, y = round(99.5 + 0.6 * middle * np.cos(angle)), round(middle + 0.6 * middle * np.sin(angle))
        direction = np.array([[[np.cos(angle), np.sin(angle)]]]) * 0.6
        assert np.abs(wheel[y, x].astype(int) - draw_flow(direction, largest=1.0)[0, 0]).max() < 8
    assert wheel[0, 0].tolist() == list(PLATE) and near_color(wheel[side:], WHITE).any()


def test_arrows_point_along_the_flow():
    picture = grey_picture(64, 48)
    flow = np.zeros((48, 64, 2))
    flow[...] = [1.0, 0.0]
    unseen = np.zeros((48, 64), bool)
    unseen[:, 32:] = True
    flow[:, 50:] = np.nan
    drawn = draw_flow_arrows(picture, flow, unseen, unit_px=10, step_px=32)
    different = changed(picture, drawn)
    assert different[16, 16:26].all() and not different[16, 8:14].any()
    columns = np.flatnonzero(different[:, :32].any(axis=0))
    assert columns.min() >= 14 and 24 <= columns.max() <= 29
    assert near_color(drawn[16:17, 48:49], GREY, 2).all() and not different[:, 50:].any()
    with pytest.raises(ValueError, match="flow: expected the picture's size"):
        draw_flow_arrows(picture, flow[:40])


def test_a_patch_lands_where_its_flow_says():
    """All pixels land in the lower right quarter of the template patch, a second patch is mostly unseen."""
    rng = np.random.default_rng(0)
    query = np.full((32, 32, 3), 40, np.uint8)
    query[8:16, 16:24] = (10, 90, 10)
    template = np.full((32, 32, 3), rng.integers(60, 70), np.uint8)
    flow = np.full((8, 8, 2), 0.25)
    visible = np.ones((8, 8), bool)
    visible[:2] = False
    drawn = draw_patch_flow(flow, visible, query, template, 6, 5, cell_px=12)
    side = 96
    assert drawn.shape == (side, 3 * side + 16, 3)
    left, middle, right = drawn[:, :side], drawn[:, side + 8 : 2 * side + 8], drawn[:, 2 * side + 16 :]
    assert near_color(left, (10, 90, 10), 2)[:24].all()
    assert near_color(middle[:24], GREY, 2).all() and not near_color(middle[24:], GREY, 2).any()
    inside = right[36:60, 36:60]  # within the frame
    hit = changed(inside, np.full_like(inside, template[0, 0, 0]))
    assert hit[18 - 6 + 6 :, :].any() and not hit[:10, :10].any()
    with pytest.raises(ValueError, match="query_patch: expected 0 to 15, got 16"):
        draw_patch_flow(flow, visible, query, template, 16, 5)


def test_matched_patches_have_one_colour():
    query, template = grey_picture(32, 32, 0), grey_picture(32, 32, 0)
    labels = np.full(16, -1)
    labels[5], labels[6], labels[10] = 3, 12, 16
    drawn = draw_patch_matches(query, template, torch.from_numpy(labels), patch_size=8, tint=1.0)
    assert drawn.shape == (320, 648, 3)
    left, right = drawn[:, :320], drawn[:, 328:]

    def cell(picture, index):
        row, column = divmod(index, 4)
        return picture[80 * row + 40, 80 * column + 40].astype(int)

    assert (
        np.abs(cell(left, 5) - cell(right, 3)).max() < 3 and np.abs(cell(left, 6) - cell(right, 12)).max() < 3
    )
    assert np.abs(cell(left, 5) - cell(left, 6)).max() > 100
    assert np.abs(cell(left, 10) - np.array(GREY)).max() < 3
    assert not cell(left, 0).any() and not cell(right, 0).any()
    with pytest.raises(ValueError, match="labels: expected 16"):
        draw_patch_matches(query, template, labels[:9], patch_size=8)
    with pytest.raises(ValueError, match="labels: expected -1 to 16, got -1 to 17"):
        draw_patch_matches(query, template, np.where(labels == 16, 17, labels), patch_size=8)


def test_bad_flow_is_refused():
    with pytest.raises(ValueError, match="flow: expected shape"):
        draw_flow(np.zeros((4, 4)))
    with pytest.raises(ValueError, match="unseen: expected the flow's shape"):
        draw_flow(np.zeros((4, 4, 2)), np.zeros((4, 3), bool))
    with pytest.raises(ValueError, match="largest"):
        draw_flow(np.zeros((4, 4, 2)), largest=0.0)
    with pytest.raises(ValueError, match="size_px"):
        draw_flow_wheel(8)
