"""The multivariate Student-t distribution, by which translations are proposed for its heavy tails."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor


class StudentT(NamedTuple):
    """Multivariate Student-t distributions.

    ``p(x) = G((v + d) / 2) / (G(v / 2) (v pi)^(d/2) |S|^(1/2)) (1 + s / v)^(-(v + d) / 2)`` with v degrees
    of freedom, ``S = L L^T`` and ``s = (x - m)^T S^-1 (x - m)``; for v > 2 the covariance is
    ``v / (v - 2) S``.

    Args:
        mean: ``(*batch, d)``.
        factor: ``(*batch, d, d)`` L, lower triangular with a positive diagonal.
        degrees: v, a whole number.

    Example:
        >>> cauchy = StudentT(torch.zeros(1), torch.eye(1), degrees=1)
        >>> torch.allclose(cauchy.log_density(torch.zeros(1, 1)).exp(), torch.tensor(1 / torch.pi))
        True
    """

    mean: Float[Tensor, "*batch d"]
    factor: Float[Tensor, "*batch d d"]
    degrees: int = 3

    def sample(self, count: int, generator: torch.Generator | None = None) -> Float[Tensor, "*batch k d"]:
        """Draw ``(*batch, count, d)``; all of a batch are made from the same random numbers."""
        d = self.mean.shape[-1]
        noise = _normal(self.mean, (count, d), generator)
        chi_square = _normal(self.mean, (count, self.degrees), generator).square().sum(-1, keepdim=True)
        scaled = noise * (self.degrees / chi_square).sqrt()
        return self.mean[..., None, :] + scaled @ self.factor.mT

    def log_density(self, x: Float[Tensor, "*batch k d"]) -> Float[Tensor, "*batch k"]:
        """The logarithm of the density at ``(*batch, k, d)``."""
        d, v = self.mean.shape[-1], self.degrees
        away = (x - self.mean[..., None, :]).mT
        white = torch.linalg.solve_triangular(self.factor, away, upper=False)
        constant = math.lgamma((v + d) / 2) - math.lgamma(v / 2) - d / 2 * math.log(v * math.pi)
        log_size = self.factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        return constant - log_size[..., None] - (v + d) / 2 * torch.log1p(white.square().sum(-2) / v)


def fit_student_t(
    x: Float[Tensor, "*batch k d"], weights: Float[Tensor, "*batch k"], degrees: int = 3
) -> StudentT:
    """The distribution with the mean of weighted samples and their covariance as its scale.

    Args:
        x: ``(*batch, k, d)``.
        weights: ``(*batch, k)``, of sum one.
        degrees: of freedom. With the covariance as its scale it is wider than the samples, as a proposal
            should be.
    """
    mean = (weights[..., None] * x).sum(-2)
    away = x - mean[..., None, :]
    return StudentT(mean, safe_cholesky((weights[..., None] * away).mT @ away), degrees)


def safe_cholesky(matrix: Float[Tensor, "*batch d d"]) -> Float[Tensor, "*batch d d"]:
    """The Cholesky factor of a covariance that may be singular to the precision of its dtype.

    A share of each variance is added, then a larger one where that was not enough, then the rest is dropped.
    """
    diagonal = matrix.diagonal(dim1=-2, dim2=-1).clamp_min(torch.finfo(matrix.dtype).tiny)
    ridge = torch.diag_embed(diagonal)
    small, large = (8 * torch.finfo(matrix.dtype).eps, 1e-3)
    factor, failed = torch.linalg.cholesky_ex(matrix + small * ridge)
    spare, still = torch.linalg.cholesky_ex(matrix + large * ridge)
    spare = torch.where((still > 0)[..., None, None], torch.diag_embed(diagonal.sqrt()), spare)
    return torch.where((failed > 0)[..., None, None], spare, factor)


def _normal(like: Tensor, shape: tuple[int, int], generator: torch.Generator | None) -> Tensor:
    return torch.randn(shape, generator=generator, dtype=like.dtype, device=like.device)
