from __future__ import annotations

import math

import pytest
import torch

from sightline.geometry.pnp.robust import (
    RansacOptions,
    count_support,
    find_pose,
    least_support,
    sample_by_weight,
)
from sightline.synthetic.problems import make_pnp_problems, pose_errors

WIDE = torch.tensor([-0.3, 0.1, 0.001, -0.001, 0.0], dtype=torch.float64)
SKEWED = torch.tensor([[620.0, 40.0, 310.0], [0, 400.0, 250.0], [0, 0, 1]], dtype=torch.float64)


@pytest.mark.parametrize("distortion", [None, WIDE])
def test_finds_the_pose_among_outliers(distortion):
    problems = make_pnp_problems(10, 200, outlier_fraction=0.6, distortion=distortion)
    for i in range(len(problems)):
        found = find_pose(problems.points_2d[i], problems.points_3d[i], problems.camera.K, distortion)
        errors = pose_errors(found.R, found.t, problems.R[i], problems.t[i])
        assert errors.rotation_deg < 3.0


def test_distorted_pixels_are_undistorted_first():
    problems = make_pnp_problems(3, 50, distortion=WIDE, noise_px=0.0, diameter=0.3)
    for i in range(len(problems)):
        found = find_pose(problems.points_2d[i], problems.points_3d[i], problems.camera.K, WIDE)
        assert pose_errors(found.R, found.t, problems.R[i], problems.t[i]).rotation_deg < 1e-4


def test_skew_and_unequal_focal_lengths_count():
    from sightline.geometry.cameras import project

    problems = make_pnp_problems(1, 50)
    pixels = project(problems.points_3d @ problems.R.mT + problems.t[:, None], SKEWED)
    found = find_pose(pixels[0], problems.points_3d[0], SKEWED)
    assert pose_errors(found.R, found.t, problems.R[0], problems.t[0]).rotation_deg < 1e-4


def test_the_same_seed_gives_the_same_pose():
    problems = make_pnp_problems(1, 100, outlier_fraction=0.7)
    arguments = problems.points_2d[0], problems.points_3d[0], problems.camera.K
    first, again, other = (find_pose(*arguments, options=RansacOptions(seed=seed)) for seed in (3, 3, 4))
    assert torch.equal(first.R, again.R)
    assert first.iterations == again.iterations
    assert not torch.equal(first.R, other.R)


def test_where_nothing_agrees_there_is_no_pose():
    generator = torch.Generator().manual_seed(0)
    x = 1e5 * torch.rand(6, 2, generator=generator, dtype=torch.float64)
    X = torch.rand(6, 3, generator=generator, dtype=torch.float64)
    assert find_pose(x, X, SKEWED, options=RansacOptions(max_error_px=0.01, max_iterations=200)) is None
    assert find_pose(x[:3], X[:3], SKEWED) is None
    # All of these lie beyond what the lens can image.
    assert find_pose(x, X, SKEWED, WIDE) is None


def test_sample_prefers_the_heavy_and_never_takes_the_weightless():
    weights = torch.cat([torch.zeros(100), torch.full((500,), 0.1), torch.full((500,), 10.0)])
    chosen = sample_by_weight(weights, 200, seed=1)
    assert len(chosen.unique()) == 200
    assert (chosen >= 100).all()
    assert int((chosen >= 600).sum()) > 180
    assert torch.equal(chosen, sample_by_weight(weights, 200, seed=1))
    assert sample_by_weight(weights, 5000).tolist() == list(range(100, 1100))


@pytest.mark.parametrize(("num_points", "spread_px"), [(50, 100.0), (300, 400.0), (1000, 200.0)])
def test_chance_stays_below_the_least_support(num_points, spread_px):
    """RANSAC on pure outliers, with as many samples as are counted, must not reach the bound."""
    reached = 0
    for seed in range(12):
        generator = torch.Generator().manual_seed(seed)
        x = spread_px * torch.rand(num_points, 2, generator=generator, dtype=torch.float64) + 200
        X = 0.1 * torch.rand(num_points, 3, generator=generator, dtype=torch.float64)
        found = find_pose(x, X, SKEWED, options=RansacOptions(seed=seed, max_iterations=2000))
        if found is None:
            continue
        seen = X @ found.R.mT + found.t
        error = ((seen @ SKEWED.mT)[:, :2] / seen[:, 2:] - x).norm(dim=-1)
        witness, needed = least_support(x, 3.0, found.iterations)
        reached += count_support(witness, (error < 3.0) & (seen[:, 2] > 0)) >= needed
    assert reached <= 1


def test_least_support_is_the_binomial_tail():
    # 300 samples of up to four poses each, whose other 97 points agree with p = pi 9 / 503 / 505.
    x = torch.tensor([[0.0, 0.0], [497.0, 499.0]]).double()
    x = torch.cat([x, 3 * torch.arange(1, 99, dtype=torch.float64)[:, None].expand(98, 2) + 0.5])
    from scipy.stats import binom

    p = math.pi * 9 / (503 * 505)
    needed = next(k for k in range(4, 100) if 4 * 300 * binom.sf(k - 4, 97, p) < 0.1)
    assert least_support(x, 3.0, 300)[1] == needed


def test_copies_of_one_correspondence_are_one_witness():
    x = torch.rand(30, 2, generator=torch.Generator().manual_seed(0)).double() * 500
    repeated = x.repeat_interleave(5, 0)
    witness, _ = least_support(repeated, 3.0, 1000)
    assert count_support(witness, torch.ones(150, dtype=torch.bool)) == 30
    inliers = torch.zeros(150, dtype=torch.bool)
    inliers[:10] = True
    assert count_support(witness, inliers) == 2
