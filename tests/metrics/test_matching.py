"""Greedy matching against a loop."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sightline.metrics.matching import match_greedily, match_groups

F64 = torch.float64


def naive_match(errors, limit):
    """BOP's rule, one estimate and one truth at a time."""
    taken, found = set(), []
    for row in errors:
        best, best_error = -1, limit
        for truth, error in enumerate(row):
            if truth not in taken and error < best_error:
                best, best_error = truth, error
        taken.add(best)
        found.append(best)
    return found


tables = st.integers(0, 5).flatmap(
    lambda truths: st.lists(
        # few values, so that ties and errors equal to the limit occur; NaN never matches
        st.lists(st.sampled_from([0.0, 0.1, 0.2, 0.3, 0.5, math.nan]), min_size=truths, max_size=truths),
        max_size=6,
    ).map(lambda rows: torch.tensor(rows, dtype=F64).reshape(len(rows), truths))
)


@given(errors=tables)
def test_equals_loop(errors):
    limits = [0.05, 0.2, 0.3, 1.0]
    found = match_greedily(errors, torch.tensor(limits, dtype=F64))
    assert found.tolist() == [naive_match(errors.tolist(), limit) for limit in limits]


@given(groups=st.lists(tables, max_size=6))
def test_groups_equal_single_matching(groups):
    limits = torch.tensor([0.15, 0.4], dtype=F64)
    stacked = [torch.stack([errors, 0.5 * errors]) for errors in groups]
    for errors, found in zip(stacked, match_groups(stacked, limits), strict=True):
        assert torch.equal(found, match_greedily(errors, limits))


def test_many_groups_are_chunked(monkeypatch):
    monkeypatch.setattr("sightline.metrics.matching._MAX_ELEMENTS", 50)
    generator = torch.Generator().manual_seed(0)
    sizes = torch.randint(0, 6, (40, 2), generator=generator).tolist()
    groups = [torch.rand(1, e, g, generator=generator) for e, g in sizes]
    limits = torch.tensor([0.3, 0.6])
    for errors, found in zip(groups, match_groups(groups, limits), strict=True):
        assert torch.equal(found, match_greedily(errors, limits))


@pytest.mark.parametrize(("inclusive", "found"), [(False, -1), (True, 0)])
def test_an_error_equal_to_the_limit(inclusive, found):
    assert match_greedily(torch.tensor([[0.5]]), torch.tensor([0.5]), inclusive=inclusive).item() == found


def test_a_truth_is_found_once_and_by_the_surest():
    errors = torch.tensor([[0.2, 0.9], [0.0, 0.1], [0.0, 0.9]])
    assert match_greedily(errors, torch.tensor([0.5])).tolist() == [[0, 1, -1]]


def test_infinite_errors_never_match_even_without_a_limit():
    errors = torch.tensor([[torch.inf, 3.0], [torch.inf, 4.0]])
    assert match_greedily(errors, torch.tensor([torch.inf]), inclusive=True).tolist() == [[1, -1]]
