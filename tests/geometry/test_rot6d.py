"""The 6-D code of rotations: group B of the specification, both conventions, degenerate input."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sightline.geometry.rotations import matrix_to_rot6d, random_rotations, rot6d_to_matrix
from tests.tolerances import tolerance

EXACT = tolerance(torch.float64)
CONVENTIONS = pytest.mark.parametrize("convention", ["rows", "columns"])
DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.float64])


def codes(count, seed=0, dtype=torch.float64):
    return torch.randn(count, 6, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def assert_rotations(R, bound):
    torch.testing.assert_close(R @ R.mT, torch.eye(3, dtype=R.dtype).expand_as(R), rtol=0, atol=bound)
    assert (torch.linalg.det(R) - 1).abs().max() <= bound


def test_literals():
    eye = rot6d_to_matrix(torch.tensor([3.0, 0, 0, 1, 2, 0]))
    assert torch.equal(eye, torch.eye(3))
    code = torch.tensor([1.0, 2, 2, 0, 3, 0], dtype=torch.float64)
    rows = [
        [1 / 3, 2 / 3, 2 / 3],
        [-0.2981424, 0.7453560, -0.5962848],
        [-0.8944272, 0, 0.4472136],
    ]
    by_rows = rot6d_to_matrix(code)  # the default
    torch.testing.assert_close(by_rows, torch.tensor(rows, dtype=torch.float64), rtol=0, atol=5e-8)
    assert torch.equal(rot6d_to_matrix(code, "rows"), by_rows)
    assert torch.equal(rot6d_to_matrix(code, convention="columns"), by_rows.mT)
    assert torch.linalg.det(by_rows).item() == pytest.approx(1.0, abs=1e-14)


@CONVENTIONS
@DTYPES
def test_ten_thousand_random_codes_are_rotations(convention, dtype):
    assert_rotations(rot6d_to_matrix(codes(10_000, dtype=dtype), convention), 1e-6)


@CONVENTIONS
@DTYPES
def test_round_trip(convention, dtype):
    R = random_rotations(1000, generator=torch.Generator().manual_seed(1), dtype=dtype)
    again = rot6d_to_matrix(matrix_to_rot6d(R, convention), convention)
    torch.testing.assert_close(again, R, rtol=0, atol=1e-6)


def test_the_conventions_take_different_entries():
    R = torch.arange(9.0).reshape(3, 3)
    assert matrix_to_rot6d(R).tolist() == [0, 1, 2, 3, 4, 5]
    assert matrix_to_rot6d(R, "columns").tolist() == [0, 3, 6, 1, 4, 7]


@settings(max_examples=30, deadline=None)
@given(
    st.integers(0, 2**31 - 1),
    st.floats(1e-3, 1e3),
    st.floats(1e-3, 1e3),
    st.floats(-10, 10),
)
def test_invariance_and_equivariance(seed, a, b, g):
    x = codes(20, seed)
    first, second = x.split(3, dim=-1)
    R = rot6d_to_matrix(x)
    skewed = torch.cat([a * first, b * second + g * first], dim=-1)
    torch.testing.assert_close(rot6d_to_matrix(skewed), R, rtol=0, atol=1e-6)
    Q = random_rotations(20, generator=torch.Generator().manual_seed(seed))
    turned = (x.unflatten(-1, (2, 3)) @ Q).flatten(-2)
    torch.testing.assert_close(rot6d_to_matrix(turned), R @ Q, rtol=0, atol=1e-9)
    turned = (x.unflatten(-1, (2, 3)) @ Q.mT).flatten(-2)  # columns: each vector is turned by Q from the left
    columns = rot6d_to_matrix(turned, "columns")
    torch.testing.assert_close(columns, Q @ rot6d_to_matrix(x, "columns"), rtol=0, atol=1e-9)


DEGENERATE = {
    "zeros": [0.0] * 6,
    "collinear": [1.0, 2, 3, 2, 4, 6],
    "opposite": [1.0, 2, 3, -1, -2, -3],
    "nearly collinear": [1.0, 2, 3, 1, 2, 3 + 1e-6],
    "equal": [1.0] * 6,
    "first zero": [0.0, 0, 0, 0, 0, 2],
    "first zero, second x": [0.0, 0, 0, 5, 0, 0],
    "second zero": [0.0, 1, 0, 0, 0, 0],
    "tiny": [1e-20, 0, 0, 0, 1e-20, 0],
    "tiny and skew": [1e-20, 3e-20, 0, 0, 1e-20, 2e-20],
    "huge": [1e20, 0, 0, 1e20, 1e20, 0],
    "of different size": [1e20, 1, 0, 0, 1e-20, 1e-20],
    "denormal": [1e-42, 0, 0, 0, 1e-42, 0],
}


@CONVENTIONS
@DTYPES
@pytest.mark.parametrize("name", DEGENERATE)
def test_degenerate_codes_give_rotations_and_finite_gradients(name, dtype, convention):
    x = torch.tensor(DEGENERATE[name], dtype=dtype, requires_grad=True)
    R = rot6d_to_matrix(x, convention)
    assert_rotations(R.detach(), 1e-6)
    (R * torch.arange(9, dtype=dtype).reshape(3, 3)).sum().backward()
    assert x.grad.isfinite().all()


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_non_finite_codes_are_flagged_and_harm_no_neighbour(bad):
    x = codes(3)
    x[1, 4] = bad
    x.requires_grad_()
    R = rot6d_to_matrix(x)
    assert R[1].isnan().all()
    assert torch.equal(R[[0, 2]], rot6d_to_matrix(x[[0, 2]]))
    R.sum().backward()
    assert (x.grad[1] == 0).all()
    assert x.grad.isfinite().all()


@CONVENTIONS
def test_gradcheck(convention):
    assert torch.autograd.gradcheck(lambda x: rot6d_to_matrix(x, convention), codes(4).requires_grad_())


def test_an_unknown_convention():
    with pytest.raises(ValueError, match="expected 'rows' or 'columns', got 'row'"):
        rot6d_to_matrix(torch.zeros(6), "row")
    with pytest.raises(ValueError, match="expected 'rows' or 'columns'"):
        matrix_to_rot6d(torch.eye(3), "zyx")
