"""The angular central Gaussian distribution, by which rotations are proposed: q and -q are equally likely."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from sightline.geometry.pnp.epropnp.student_t import safe_cholesky

_FIXED_POINT_STEPS = 3


class AngularGaussian(NamedTuple):
    """Angular central Gaussian distributions on the unit sphere in d dimensions (Tyler, Biometrika 1987).

    The direction of a Gaussian vector of mean zero and covariance ``S = L L^T``:
    ``p(q) = |S|^(-1/2) (q^T S^-1 q)^(-d/2) / A`` with A the area of the sphere, ``2 pi^2`` for quaternions.
    The scale of S is free.

    Args:
        factor: ``(*batch, d, d)`` L, lower triangular with a positive diagonal.

    Example:
        >>> uniform = AngularGaussian(torch.eye(4))
        >>> torch.allclose(uniform.log_density(torch.eye(4)).exp(), torch.tensor(1 / (2 * torch.pi**2)))
        True
    """

    factor: Float[Tensor, "*batch d d"]

    def sample(self, count: int, generator: torch.Generator | None = None) -> Float[Tensor, "*batch k d"]:
        """Draw ``(*batch, count, d)`` unit vectors; all of a batch are made from the same random numbers."""
        shape = (count, self.factor.shape[-1])
        noise = torch.randn(shape, generator=generator, dtype=self.factor.dtype, device=self.factor.device)
        return torch.nn.functional.normalize(noise @ self.factor.mT, dim=-1)

    def log_density(self, q: Float[Tensor, "*batch k d"]) -> Float[Tensor, "*batch k"]:
        """The logarithm of the density, by the sphere's area, at unit vectors ``(*batch, k, d)``."""
        d = self.factor.shape[-1]
        white = torch.linalg.solve_triangular(self.factor, q.mT, upper=False)
        log_area = math.log(2) + d / 2 * math.log(math.pi) - math.lgamma(d / 2)
        log_size = self.factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        return -log_size[..., None] - d / 2 * white.square().sum(-2).log() - log_area


def fit_angular_gaussian(
    q: Float[Tensor, "*batch k d"], weights: Float[Tensor, "*batch k"], start: AngularGaussian
) -> AngularGaussian:
    """The most likely distribution of weighted samples: a few steps of ``S <- d sum w q q^T / (q^T S^-1 q)``.

    Args:
        q: ``(*batch, k, d)`` unit vectors.
        weights: ``(*batch, k)``, of sum one.
        start: where the fixed-point iteration (Tyler 1987) begins.
    """
    factor = start.factor
    for _ in range(_FIXED_POINT_STEPS):
        white = torch.linalg.solve_triangular(factor, q.mT, upper=False)
        share = weights / white.square().sum(-2)
        factor = disperse((share[..., None] * q).mT @ q).factor
    return AngularGaussian(factor)


def disperse(scatter: Float[Tensor, "*batch d d"], share: float = 1e-3) -> AngularGaussian:
    """The distribution with this scatter, of trace one, and a little of the uniform one that keeps it proper.

    Args:
        scatter: ``(*batch, d, d)`` symmetric, positive semi-definite.
        share: of the uniform one, in units of ``|S|^(1/d)``.
    """
    d = scatter.shape[-1]
    scatter = scatter / scatter.diagonal(dim1=-2, dim2=-1).sum(-1)[..., None, None]
    factor = safe_cholesky(scatter)
    size = factor.diagonal(dim1=-2, dim2=-1).log().mean(-1).mul(2).exp()
    identity = torch.eye(d, dtype=scatter.dtype, device=scatter.device)
    return AngularGaussian(safe_cholesky(scatter + share * size[..., None, None] * identity))
