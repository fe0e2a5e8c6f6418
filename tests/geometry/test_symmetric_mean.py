"""The mean rotation under symmetry: truth recovered from equivalents, the start, gradients."""

from __future__ import annotations

import pytest
import torch

from sightline.geometry.rotations import exp, log, random_rotations
from sightline.geometry.symmetric_mean import symmetric_mean_rotation
from sightline.geometry.symmetry import SymmetryGroup, symmetric_distance

Z = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)
TILTED = (1.0, -2.0, 0.5)
C4 = SymmetryGroup.cyclic(4, Z)
GROUPS = [
    SymmetryGroup.none(),
    C4,
    SymmetryGroup.dihedral(6, TILTED, offset=(0.1, 0.2, 0.3)),
    SymmetryGroup.continuous(Z),
    SymmetryGroup.continuous(TILTED, (0.1, -0.2, 0.3), flip=True),
]


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("group", GROUPS, ids=["none", "C4", "D6", "Cinf", "Dinf"])
def test_symmetric_mean(group):
    truth = random_rotations(3, generator=generator(6))
    noise = 0.05 * torch.randn(3, 9, 3, generator=generator(7), dtype=torch.float64)
    noisy = truth[:, None] @ exp(torch.cat([noise, -noise], dim=1))
    motions = group.transforms(0.3)[:, :3, :3]
    pick = torch.randint(len(motions), (3, 18), generator=generator(8))
    mean = symmetric_mean_rotation(noisy @ motions[pick], group)
    # the turn about a continuous axis is free, and alignment takes the noise about it away
    assert symmetric_distance(mean, truth, group).max() < (1e-9 if group.axis is None else 2e-3)
    weights = torch.zeros(3, 18, dtype=torch.float64)
    weights[:, 4] = 1.0
    only = symmetric_mean_rotation(noisy, group, weights)
    assert symmetric_distance(only, noisy[:, 4], group).max() < 1e-9


def test_symmetric_mean_starts_among_the_many():
    # the lone turn of 44 degrees sees half of the others nearer after a quarter turn
    degrees = torch.tensor([44.0, -5.0, -3.0, 3.0, 5.0], dtype=torch.float64)
    R = exp(Z * degrees.deg2rad()[:, None])
    mean = symmetric_mean_rotation(R, C4)
    assert log(mean).rad2deg()[2].item() == pytest.approx(degrees.mean().item(), abs=0.5)


def test_symmetric_mean_has_gradients():
    w = (0.1 * torch.randn(4, 3, generator=generator(9), dtype=torch.float64)).requires_grad_()
    mean = lambda w: symmetric_mean_rotation(exp(w), C4)  # noqa: E731
    assert torch.autograd.gradcheck(mean, w)
