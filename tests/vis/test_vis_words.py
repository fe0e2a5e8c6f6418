from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sightline.geometry.rotations import exp
from sightline.records import PoseEstimate
from sightline.vis.words import (
    describe_pose,
    describe_uncertainty,
    format_angle,
    format_length,
    label_pose,
    pose_uncertainty,
)
from tests.vis.scenes import make_estimate


def sigma_of(*sigmas: float) -> torch.Tensor:
    return torch.diag(torch.tensor(sigmas, dtype=torch.float64) ** 2)


def test_uncertainty_is_split_along_and_across_the_line_of_sight():
    # The object lies along (0, 3, 4) / 5; position is known to 10 mm along that and to 1 mm across.
    sight = torch.tensor([0.0, 0.6, 0.8], dtype=torch.float64)
    position = 0.01**2 * torch.outer(sight, sight) + 0.001**2 * (torch.eye(3) - torch.outer(sight, sight))
    covariance = torch.block_diag(0.02**2 * torch.eye(3, dtype=torch.float64), position.double())
    covariance[0, 0] = 0.03**2
    sigma = pose_uncertainty(make_estimate(t=(0.0, 0.3, 0.4), covariance=covariance))
    np.testing.assert_allclose(sigma, [0.01, 0.001, 0.03], rtol=1e-6)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.lists(st.floats(-3, 3), min_size=3, max_size=3))
def test_uncertainty_does_not_depend_on_where_the_camera_points(turn):
    covariance = sigma_of(0.01, 0.02, 0.03, 0.001, 0.002, 0.008)
    R = exp(torch.tensor(turn, dtype=torch.float64))
    both = torch.block_diag(R, R)
    pose = make_estimate(t=(0.1, 0.2, 0.9), covariance=covariance)
    turned = PoseEstimate(R @ pose.R, R @ pose.t, 0.9, True, both @ covariance @ both.T)
    np.testing.assert_allclose(pose_uncertainty(turned), pose_uncertainty(pose), rtol=1e-9)


def test_no_covariance_no_uncertainty():
    assert pose_uncertainty(make_estimate()) is None
    assert pose_uncertainty(PoseEstimate.failure("hidden")) is None
    assert pose_uncertainty(make_estimate(covariance=torch.full((6, 6), math.nan).double())) is None
    assert describe_uncertainty(make_estimate()) == "not known"


@pytest.mark.parametrize(
    ("metres", "text"),
    [
        (0.0, "0 mm"),
        (0.00042, "0.420 mm"),
        (0.0123, "12.3 mm"),
        (0.642, "642 mm"),
        (-0.5, "-500 mm"),
        (12.3456, "12.3 m"),
    ],
)
def test_lengths(metres, text):
    assert format_length(metres) == text


def test_angles():
    assert format_angle(math.radians(0.4234)) == "0.42°"
    assert format_angle(math.radians(9.87)) == "9.9°"
    assert format_angle(math.radians(123.45)) == "123.5°"
    assert format_angle(math.inf) == "unknown"


def test_a_pose_describes_itself():
    inliers = torch.tensor([True] * 57 + [False] * 3)
    pose = make_estimate(
        turn=(0.0, 0.0, math.pi / 2),
        t=(0.01, -0.02, 0.6),
        covariance=sigma_of(0.001, 0.001, 0.002, 0.0002, 0.0002, 0.003),
        inliers=inliers,
        residual_px=0.824,
        focal_px=625.31,
        reason="planar",
    )
    facts = describe_pose(pose)
    assert facts["Found"] == "yes" and facts["Score"] == "0.930"
    assert facts["Position"] == "10.0, -20.0, 600.0 mm"
    assert facts["Position in metres"] == "0.0100, -0.0200, 0.6000 m"
    assert facts["Distance"] == "600.4 mm"
    assert facts["Rotation"] == "90.00° about (0.000, 0.000, 1.000)"
    assert facts["Quaternion w x y z"] == "0.7071, 0.0000, 0.0000, 0.7071"
    assert facts["Certainty (one sigma)"].startswith("±3.0 mm along the line of sight, ±0.2")
    assert facts["Certainty (one sigma)"].endswith("mm across it, ±0.11°")
    assert facts["Inliers"] == "57 of 60 matches"
    assert facts["Median reprojection error"] == "0.82 px"
    assert facts["Focal length found"] == "625.3 px"
    assert facts["Remark"] == "planar"
    assert label_pose(pose) == "mug 0.93  600 mm ±3.0 mm ±0.11°"


def test_a_pose_without_extras_says_only_what_it_knows():
    facts = describe_pose(make_estimate())
    assert not {"Inliers", "Median reprojection error", "Focal length found", "Remark"} & set(facts)
    assert facts["Rotation"].startswith("0.00° about")
    assert facts["Certainty (one sigma)"] == "not known"


def test_a_failure_says_why_and_nothing_else():
    assert describe_pose(PoseEstimate.failure("")) == {"Found": "no", "Reason": "no reason given"}
    assert label_pose(PoseEstimate.failure("")) == "object not found: no reason given"
