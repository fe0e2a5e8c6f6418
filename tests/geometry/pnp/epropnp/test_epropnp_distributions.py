import math

import numpy as np
import pytest
import torch
from scipy import integrate, stats

from sightline.geometry.pnp.epropnp.angular_gaussian import AngularGaussian, disperse, fit_angular_gaussian
from sightline.geometry.pnp.epropnp.problems import Pose
from sightline.geometry.pnp.epropnp.sampling import draw_poses
from sightline.geometry.pnp.epropnp.student_t import StudentT, fit_student_t, safe_cholesky
from sightline.geometry.rotations import exp, geodesic_distance, log
from tests.tolerances import tolerance

SCALE = torch.tensor([[2.0, 0.3, -0.4], [0.3, 0.5, 0.1], [-0.4, 0.1, 1.0]], dtype=torch.float64)
MEAN = torch.tensor([0.5, -1.0, 2.0], dtype=torch.float64)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("degrees", [1, 3, 8])
def test_student_t_has_scipys_density(degrees):
    x = torch.randn(20, 3, generator=seeded(), dtype=torch.float64) * 3
    density = StudentT(MEAN, torch.linalg.cholesky(SCALE), degrees).log_density(x)
    wanted = stats.multivariate_t(MEAN.numpy(), SCALE.numpy(), df=degrees).logpdf(x.numpy())
    torch.testing.assert_close(density, torch.from_numpy(wanted), **tolerance(torch.float64))


def test_student_t_samples_have_its_quantiles():
    single = StudentT(MEAN[:1], SCALE[:1, :1].sqrt(), 3)
    samples = single.sample(20_000, seeded())[:, 0]
    shares = torch.tensor([0.05, 0.25, 0.5, 0.9], dtype=torch.float64)
    wanted = stats.t(3, loc=0.5, scale=math.sqrt(2)).cdf(samples.quantile(shares).numpy())
    assert np.abs(wanted - shares.numpy()).max() < 0.01


def test_student_t_fit_has_the_moments_of_its_samples():
    x = torch.randn(5, 400, 3, generator=seeded(), dtype=torch.float64)
    weights = torch.rand(5, 400, generator=seeded(1), dtype=torch.float64).softmax(-1)
    fit = fit_student_t(x, weights)
    wanted = np.cov(x[2].numpy().T, aweights=weights[2].numpy(), ddof=0)
    torch.testing.assert_close((fit.factor @ fit.factor.mT)[2], torch.from_numpy(wanted))


def test_angular_gaussian_integrates_to_one_on_the_circle():
    circle = AngularGaussian(torch.linalg.cholesky(SCALE[:2, :2]))
    total = integrate.quad(
        lambda a: float(
            circle.log_density(torch.tensor([[math.cos(a), math.sin(a)]], dtype=torch.float64)).exp()
        ),
        0,
        2 * math.pi,
    )
    assert total[0] == pytest.approx(1, abs=1e-8)


def test_angular_gaussian_integrates_to_one_over_quaternions():
    # q = (cos a, sin a cos b, sin a sin b cos c, sin a sin b sin c), area sin^2 a sin b, by Gauss-Legendre
    matrix = torch.diag(torch.tensor([1.0, 0.5, 2.0, 0.8], dtype=torch.float64))
    matrix[0, 1] = matrix[1, 0] = 0.2
    nodes, weights = np.polynomial.legendre.leggauss(40)
    a, b = (np.pi * (nodes + 1) / 2 for _ in range(2))
    c = np.pi * (nodes + 1)
    a, b, c = np.meshgrid(a, b, c, indexing="ij")
    area = np.einsum("i,j,k->ijk", weights, weights, weights) * (np.pi / 2) ** 2 * np.pi
    area = area * np.sin(a) ** 2 * np.sin(b)
    q = np.stack([np.cos(a), np.sin(a) * np.cos(b), np.sin(a) * np.sin(b) * np.cos(c)])
    q = np.concatenate([q, (np.sin(a) * np.sin(b) * np.sin(c))[None]]).reshape(4, -1).T
    density = AngularGaussian(torch.linalg.cholesky(matrix)).log_density(torch.from_numpy(q)).exp()
    assert float(density @ torch.from_numpy(area.ravel())) == pytest.approx(1, abs=1e-6)


def test_angular_gaussian_is_fitted_to_its_own_samples():
    wanted = disperse(torch.diag(torch.tensor([1.0, 0.5, 0.1, 0.05], dtype=torch.float64)), share=0.0)
    q = wanted.sample(20_000, seeded())
    fit = wanted
    for _ in range(3):
        fit = fit_angular_gaussian(q, torch.full((20_000,), 1 / 20_000, dtype=torch.float64), fit)
    ratio = (fit.factor @ fit.factor.mT).diagonal() / (wanted.factor @ wanted.factor.mT).diagonal()
    assert (ratio - ratio[0]).abs().max() < 0.05


def test_singular_covariances_have_a_factor():
    singular = torch.stack([torch.ones(3, 3), torch.zeros(3, 3), torch.diag(torch.tensor([1.0, 0, 0]))])
    factor = safe_cholesky(singular)
    assert factor.isfinite().all()
    assert (factor.diagonal(dim1=-2, dim2=-1) > 0).all()


def sharp_about(truth: Pose, kappa: float):
    """``kappa (1 - (q . q0)^2)`` and a quartic well by each axis: its integral is known by axes."""
    sharpness = torch.tensor([1.0, 4.0, 0.5], dtype=torch.float64)

    def cost(pose: Pose) -> torch.Tensor:
        angle = geodesic_distance(pose.R, truth.R[:, None].expand_as(pose.R))
        away = (pose.t - truth.t[:, None]) * sharpness
        return kappa * (angle / 2).sin().square() + (away.square() / 2 + 0.3 * away**4).sum(-1)

    z = (
        4
        * math.pi
        * integrate.quad(lambda a: math.exp(-kappa * math.sin(a) ** 2) * math.sin(a) ** 2, 0, math.pi)[0]
    )
    for s in sharpness.tolist():
        z *= integrate.quad(lambda x: math.exp(-(x**2) / 2 - 0.3 * x**4), -8, 8)[0] / s
    information = torch.diag(torch.cat([torch.full((3,), kappa / 2).double(), sharpness.square()]))[None]
    return cost, math.log(z), information


@pytest.mark.parametrize("kappa", [2.0, 50.0])
def test_log_z_is_that_of_numerical_integration(kappa):
    truth = Pose(exp(torch.tensor([[0.4, -1.0, 0.3]]).double()), MEAN[None])
    cost, log_z, information = sharp_about(truth, kappa)
    samples = draw_poses(cost, truth, information, num_samples=20_000, generator=seeded())
    assert abs(math.expm1(float(samples.log_z) - log_z)) < 0.02
    few = [draw_poses(cost, truth, information, generator=seeded(s)).log_z.exp() for s in range(30)]
    # adaptation to few samples narrows the proposals: some 5 % of Z
    assert abs(float(torch.stack(few).mean()) / math.exp(log_z) - 1) < 0.08


def test_log_z_survives_a_bad_start():
    truth = Pose(exp(torch.tensor([[0.4, -1.0, 0.3]]).double()), MEAN[None])
    cost, log_z, information = sharp_about(truth, 20.0)
    off = Pose(exp(torch.tensor([[0.5, 0.0, 0.2]]).double()) @ truth.R, truth.t + 0.5)
    samples = draw_poses(cost, off, 2 * information, num_samples=20_000, rounds=8, generator=seeded())
    assert abs(math.expm1(float(samples.log_z) - log_z)) < 0.02
    mean = samples.mean()
    assert torch.rad2deg(geodesic_distance(mean.R, truth.R)) < 1
    assert (mean.t - truth.t).abs().max() < 0.02


def test_covariance_of_samples_is_that_of_a_gaussian():
    truth = Pose(exp(torch.tensor([[0.4, -1.0, 0.3]]).double()), MEAN[None])
    blocks = torch.randn(2, 3, 3, generator=seeded(), dtype=torch.float64) / 40 + 0.05 * torch.eye(3)
    root = torch.block_diag(*blocks)
    information = torch.linalg.inv(root @ root.mT)[None]

    def cost(pose: Pose) -> torch.Tensor:
        away = torch.cat([log(pose.R @ truth.R[:, None].mT), pose.t - truth.t[:, None]], -1)
        return ((away @ information) * away).sum(-1) / 2

    samples = draw_poses(cost, truth, information, num_samples=40_000, rounds=8, generator=seeded())
    wanted = root @ root.mT
    size = wanted.diagonal().sqrt()
    error = (samples.second_moment(samples.mean())[0] - wanted) / (size[:, None] * size)
    assert error.abs().max() < 0.05
