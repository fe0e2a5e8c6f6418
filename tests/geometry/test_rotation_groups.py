from __future__ import annotations

import math

import pytest
import torch

from sightline.geometry.rotation_groups import generate_group
from sightline.geometry.rotations import exp, geodesic_distance

GOLDEN = (1 + 5**0.5) / 2
Z, X, DIAGONAL, FIVEFOLD = (0, 0, 1), (1, 0, 0), (1, 1, 1), (0, 1, GOLDEN)


def _turn(axis, order: int) -> torch.Tensor:
    axis = torch.tensor(axis, dtype=torch.float64)
    return exp(axis / axis.norm() * 2 * math.pi / order)


GROUPS = {
    "C4": ([(Z, 4)], 4),
    "C12": ([(Z, 12)], 12),
    "D2": ([(Z, 2), (X, 2)], 4),
    "D12": ([(Z, 12), (X, 2)], 24),
    "tetrahedron": ([(DIAGONAL, 3), (Z, 2)], 12),
    "cube": ([(DIAGONAL, 3), (Z, 4)], 24),
    "icosahedron": ([(DIAGONAL, 3), (FIVEFOLD, 5)], 60),
}


@pytest.mark.parametrize("name", GROUPS)
@pytest.mark.parametrize("error", [0.0, 0.004])
def test_nearly_right_generators_give_the_exact_group(name, error):
    turns, size = GROUPS[name]
    noise = torch.randn(len(turns), 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    group = generate_group(exp(error * noise) @ torch.stack([_turn(*turn) for turn in turns]))
    assert group is not None and len(group) == size
    assert torch.equal(group[0], torch.eye(3).double())
    products = (group[:, None] @ group).flatten(0, 1)
    assert (products[:, None] - group).abs().amax((-2, -1)).amin(1).max() < 1e-12
    assert (group @ group.mT - torch.eye(3)).abs().max() < 1e-12
    for turn in turns:
        assert geodesic_distance(group, _turn(*turn)).min() < 10 * error + 1e-9


def test_turns_of_no_small_group_give_none():
    assert generate_group(torch.stack([_turn(Z, 4), _turn((0.3, 0.1, 1), 3)])) is None
    assert generate_group(exp(torch.tensor([[0, 0, 1.0]]).double()), max_size=5) is None


def test_the_identity_generates_itself():
    group = generate_group(torch.eye(3)[None])
    assert torch.equal(group, torch.eye(3).double()[None])
