import pytest
import torch

from sightline.metrics import coverage, ellipsoid_levels, in_right_mode


def _covariance(seed: int = 0) -> torch.Tensor:
    root = torch.randn(3, 3, generator=torch.Generator().manual_seed(seed)).double()
    return root @ root.mT + 0.1 * torch.eye(3).double()


# scipy.stats.chi2.ppf([0.5, 0.9, 0.95], 3)
@pytest.mark.parametrize(("squared", "level"), [(2.365974, 0.5), (6.251389, 0.9), (7.814728, 0.95)])
def test_levels_are_those_of_chi_squared(squared: float, level: float):
    covariance = _covariance()
    direction = torch.linalg.cholesky(covariance) @ torch.tensor([0.6, 0.0, 0.8]).double()
    found = ellipsoid_levels(direction * squared**0.5, covariance)
    assert float(found) == pytest.approx(level, abs=1e-6)


# scipy.stats.f.ppf([0.5, 0.9, 0.95], 3, 5)
@pytest.mark.parametrize(("ratio", "level"), [(0.907146, 0.5), (3.619477, 0.9), (5.409451, 0.95)])
def test_heavy_tails_have_other_levels(ratio: float, level: float):
    covariance = _covariance()  # that of the t: its scale matrix is 3/5 of it
    direction = torch.linalg.cholesky(covariance) @ torch.tensor([0.6, 0.0, 0.8]).double()
    error = direction * (3 * ratio * 3 / 5) ** 0.5
    assert float(ellipsoid_levels(error, covariance, 5.0)) == pytest.approx(level, abs=1e-5)
    both = ellipsoid_levels(
        error.expand(2, 3), covariance.expand(2, 3, 3), torch.tensor([5.0, torch.inf]).double()
    )
    assert float(both[1]) == pytest.approx(float(ellipsoid_levels(error, covariance)))


def test_right_claims_cover_what_they_say():
    covariance = _covariance(1)
    noise = torch.randn(20_000, 3, generator=torch.Generator().manual_seed(2)).double()
    errors = noise @ torch.linalg.cholesky(covariance).mT
    at = torch.tensor([0.1, 0.5, 0.9, 0.95]).double()
    right = coverage(ellipsoid_levels(errors, covariance.expand(20_000, 3, 3)), at)
    assert float((right - at).abs().max()) < 0.012
    bold = coverage(ellipsoid_levels(errors, (covariance / 4).expand(20_000, 3, 3)), at)
    assert bool((bold < at - 0.05).all())


def test_what_claims_nothing_is_left_out():
    claims = torch.stack([torch.eye(3), torch.full((3, 3), torch.inf), torch.zeros(3, 3), -torch.eye(3)])
    levels = ellipsoid_levels(torch.ones(4, 3), claims)
    assert levels.isnan().tolist() == [False, True, True, True]
    assert coverage(levels, torch.tensor([1.0])).tolist() == [1.0]
    assert bool(coverage(levels[1:], torch.tensor([0.5])).isnan().all())


def test_the_right_mode_ends_where_it_says():
    turn = torch.tensor([15.0, 15.1, 3.0, 3.0, torch.inf, torch.nan])
    shift = torch.tensor([0.15, 0.1, 0.16, 0.0, 0.0, 0.0])
    assert in_right_mode(turn, shift).tolist() == [True, False, False, True, False, False]
