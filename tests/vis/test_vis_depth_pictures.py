from __future__ import annotations

import numpy as np
import pytest
import torch

from sightline.vis.depth_pictures import draw_depth, draw_depth_difference
from sightline.vis.palette import GREY, PALETTE, WHITE


def test_depth_runs_from_blue_to_red_and_what_is_missing_is_grey():
    depth = torch.linspace(0.5, 1.5, 101)[None].repeat(3, 1)
    depth[0, 50], depth[1, 50], depth[2, 50] = 0.0, torch.nan, torch.inf
    drawn = draw_depth(depth)
    assert drawn.shape == (3, 101, 3)
    assert (drawn[:, 50] == GREY).all()
    assert drawn[0, 0].tolist() == list(PALETTE["sky blue"])
    assert drawn[0, -1].tolist() == list(PALETTE["vermillion"])
    same = draw_depth(np.full((2, 2), 0.7))
    assert (same == same[0, 0]).all() and not (same == GREY).all()
    assert (draw_depth(np.zeros((2, 2))) == GREY).all()


def test_difference_says_which_side():
    measured, rendered = np.array([[1.0, 0.98, 1.05, 0.0, np.nan]]), np.array([[1.0, 1.0, 1.0, 1.0, 1.0]])
    drawn = draw_depth_difference(measured, rendered, worst=0.04)[0]
    assert drawn[0].tolist() == list(WHITE)
    np.testing.assert_allclose(
        drawn[1], [127.5, 184.5, 216.5], atol=1
    )  # half way to blue: something is in front
    assert drawn[2].tolist() == list(PALETTE["vermillion"])
    assert (drawn[3:] == GREY).all()


def test_bad_depth_is_refused():
    with pytest.raises(ValueError, match=r"depth: expected metres of shape \(height, width\)"):
        draw_depth(np.zeros((2, 2, 1)))
    with pytest.raises(ValueError, match="none negative"):
        draw_depth(np.array([[-1.0]]))
    with pytest.raises(ValueError, match="two maps of one shape"):
        draw_depth_difference(np.ones((2, 2)), np.ones((2, 3)), worst=1.0)
    with pytest.raises(ValueError, match="worst: expected a positive number"):
        draw_depth_difference(np.ones((2, 2)), np.ones((2, 2)), worst=0.0)
