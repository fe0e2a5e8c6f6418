"""Finite groups of rotations from rotations that are only nearly those of a group."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sightline.geometry.rotations import geodesic_distance, project_to_so3

_SAME_RAD = 0.2  # the steps of C_15 are twice as large
_EXACT_ROUNDS = 8


def generate_group(generators: Float[Tensor, "k 3 3"], max_size: int = 120) -> Float[Tensor, "g 3 3"] | None:
    """The smallest group of rotations that holds the given ones, exact although they are not.

    Products are formed until nothing new appears, two rotations within 0.2 rad counting as one. Then every
    element is replaced by the mean of the products that should equal it, ``R_a <- proj(sum_b R_ab R_b^T)``,
    again and again: near a group this converges quadratically to one (Grove, Karcher and Ruh, 1974).

    Args:
        generators: ``(k, 3, 3)`` rotations, each within a few degrees of a group's.
        max_size: the largest group to look for; 60 is the icosahedron's.

    Returns:
        ``(g, 3, 3)`` float64 with the identity first, or None where no group of at most that size appears.

    Example:
        >>> from sightline.geometry.rotations import exp
        >>> quarter = exp(torch.tensor([[0.0, 0.01, torch.pi / 2 + 0.005]], dtype=torch.float64))
        >>> group = generate_group(quarter)
        >>> len(group), bool(torch.linalg.matrix_power(group[1], 4).allclose(torch.eye(3).double()))
        (4, True)
    """
    group = fresh = torch.eye(3, dtype=torch.float64, device=generators.device)[None]
    while len(fresh):
        # only by the generators, so that no product is longer, and its error no larger, than it need be
        fresh = _without_known((fresh[:, None] @ generators.double()).flatten(0, 1), group)
        group = torch.cat([group, fresh])
        if len(group) > max_size:
            return None
    return _make_exact(group)


def _without_known(rotations: Tensor, known: Tensor) -> Tensor:
    # Those that are neither near a known one nor near an earlier one of their own.
    new = rotations[(geodesic_distance(rotations[:, None], known) > _SAME_RAD).all(1)]
    kept: list[Tensor] = []
    while len(new):
        kept.append(new[0])
        new = new[geodesic_distance(new, new[0]) > _SAME_RAD]
    return torch.stack(kept) if kept else rotations[:0]


def _make_exact(group: Float[Tensor, "g 3 3"]) -> Float[Tensor, "g 3 3"]:
    table: Int[Tensor, "g g"] = geodesic_distance((group[:, None] @ group)[:, :, None], group).argmin(-1)
    for _ in range(_EXACT_ROUNDS):
        group = project_to_so3((group[table] @ group.mT).mean(1))
    group[0] = torch.eye(3)
    return group
