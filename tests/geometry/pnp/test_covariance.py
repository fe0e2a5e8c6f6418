"""Is the covariance true? Over many problems the normalised error must follow chi-square with six degrees."""

from __future__ import annotations

import pytest
import torch

from sightline.geometry.pnp.covariance import invert_information
from sightline.geometry.pnp.levenberg import PosePrior
from sightline.geometry.pnp.refine import refine_poses
from sightline.geometry.rotations import exp, log
from sightline.synthetic.problems import make_pnp_problems

CHI2_6_95 = 12.592  # scipy.stats.chi2.ppf(0.95, 6)
CHI2_6_50 = 5.348


def normalised_error(problems, refined) -> torch.Tensor:
    error = torch.cat([log(problems.R @ refined.R.mT), problems.t - refined.t], -1)
    return (error * torch.linalg.solve(refined.covariance, error)).sum(-1)


@pytest.mark.parametrize(
    ("loss", "outliers", "noise_px"),
    [("squared", 0.0, 0.3), ("huber", 0.0, 2.0), ("cauchy", 0.0, 1.0), ("tukey", 0.5, 1.0)],
)
def test_errors_are_as_large_as_the_covariance_says(loss, outliers, noise_px):
    problems = make_pnp_problems(1500, 60, noise_px=noise_px, outlier_fraction=outliers)
    refined = refine_poses(
        problems.points_2d,
        problems.points_3d,
        problems.camera.K,
        problems.R,
        problems.t,
        loss=loss,
        scale_px=2.0 if loss != "tukey" else 6.0,
        tolerance=1e-9,
    )
    error = normalised_error(problems, refined)
    assert float((error < CHI2_6_95).double().mean()) == pytest.approx(0.95, abs=0.04)
    assert float((error < CHI2_6_50).double().mean()) == pytest.approx(0.50, abs=0.06)


def test_unequal_noise_told_by_the_weights_is_believed():
    problems = make_pnp_problems(1500, 60, noise_px=0.0)
    generator = torch.Generator().manual_seed(5)
    sigma = torch.logspace(-1, 1, 60, dtype=torch.float64).expand(1500, 60)
    noise = sigma[..., None] * torch.randn(1500, 60, 2, generator=generator, dtype=torch.float64)
    arguments = (problems.points_2d + noise, problems.points_3d, problems.camera.K, problems.R, problems.t)
    # Only the ratio of weights matters: the scale of the noise is estimated.
    for factor in (1.0, 7.0):
        refined = refine_poses(*arguments, weights=factor / sigma, loss="squared", tolerance=1e-9)
        coverage = float((normalised_error(problems, refined) < CHI2_6_95).double().mean())
        assert coverage == pytest.approx(0.95, abs=0.03)


def test_a_prior_adds_its_information():
    problems = make_pnp_problems(1500, 12, noise_px=1.0)
    generator = torch.Generator().manual_seed(6)
    deviation = torch.tensor([0.01, 0.01, 0.01, 1e-3, 1e-3, 5e-3], dtype=torch.float64)
    offset = deviation * torch.randn(1500, 6, generator=generator, dtype=torch.float64)
    information = torch.diag(deviation**-2).expand(1500, 6, 6)
    prior = PosePrior(exp(offset[:, :3]) @ problems.R, problems.t + offset[:, 3:], information)
    arguments = (problems.points_2d, problems.points_3d, problems.camera.K, problems.R, problems.t)
    alone = refine_poses(*arguments, loss="squared", tolerance=1e-9)
    refined = refine_poses(*arguments, loss="squared", prior=prior, tolerance=1e-9)
    coverage = float((normalised_error(problems, refined) < CHI2_6_95).double().mean())
    assert coverage == pytest.approx(0.95, abs=0.04)
    assert (refined.covariance[:, 5, 5] < alone.covariance[:, 5, 5]).all()


def test_points_on_a_line_have_no_finite_covariance():
    problems = make_pnp_problems(2, 20)
    line = problems.points_3d * torch.tensor([1.0, 0, 0])
    x = problems.camera.project(line @ problems.R.mT + problems.t[:, None])
    refined = refine_poses(x, line, problems.camera.K, problems.R, problems.t)
    assert torch.isinf(refined.covariance).all()


def test_inverse_of_information_in_mixed_units():
    spread = torch.diag(torch.tensor([1e-6, 1e6], dtype=torch.float64))
    information = (spread @ torch.tensor([[2.0, 0.5], [0.5, 1.0]], dtype=torch.float64) @ spread)[None]
    torch.testing.assert_close(invert_information(information), torch.linalg.inv(information))
