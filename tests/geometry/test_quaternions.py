"""Quaternions of both orders against matrices and SciPy."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from sightline.geometry import quaternions
from sightline.geometry.rotations import exp, random_rotations
from tests.tolerances import tolerance

EXACT = tolerance(torch.float64)


def test_a_quarter_turn_about_z_in_both_orders():
    R = exp(torch.tensor([0.0, 0.0, math.pi / 2], dtype=torch.float64))
    half = math.sqrt(0.5)
    wxyz = torch.tensor([half, 0, 0, half], dtype=torch.float64)
    xyzw = torch.tensor([0, 0, half, half], dtype=torch.float64)
    torch.testing.assert_close(quaternions.quaternion_wxyz_from_matrix(R), wxyz, **EXACT)
    torch.testing.assert_close(quaternions.quaternion_xyzw_from_matrix(R), xyzw, **EXACT)
    torch.testing.assert_close(quaternions.matrix_from_quaternion_wxyz(-3 * wxyz), R, **EXACT)
    torch.testing.assert_close(quaternions.matrix_from_quaternion_xyzw(0.1 * xyzw), R, **EXACT)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31 - 1))
def test_scipy_agrees(seed):
    R = random_rotations(40, generator=torch.Generator().manual_seed(seed))
    ours = quaternions.quaternion_xyzw_from_matrix(R)
    theirs = torch.from_numpy(Rotation.from_matrix(R.numpy()).as_quat(canonical=True))
    torch.testing.assert_close(ours, theirs, **EXACT)
    torch.testing.assert_close(quaternions.matrix_from_quaternion_xyzw(ours), R, **EXACT)


def test_reordering_is_its_own_round_trip():
    q = torch.arange(8.0).reshape(2, 4)
    assert quaternions.quaternion_wxyz_from_xyzw(q).tolist() == [[3, 0, 1, 2], [7, 4, 5, 6]]
    assert torch.equal(quaternions.quaternion_xyzw_from_wxyz(quaternions.quaternion_wxyz_from_xyzw(q)), q)


def test_half_turns_are_exact_with_finite_gradients():
    signs = torch.tensor([[1.0, -1, -1], [-1, 1, -1], [-1, -1, 1]], dtype=torch.float64)
    R = torch.diag_embed(signs).requires_grad_()
    q = quaternions.quaternion_wxyz_from_matrix(R)
    assert q.tolist() == [[0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]
    q.sum().backward()
    assert R.grad.isfinite().all()


def test_a_zero_quaternion_is_no_rotation():
    assert quaternions.matrix_from_quaternion_wxyz(torch.zeros(4)).isnan().all()


@pytest.mark.parametrize("angle", [0.0, 0.5, 2.5, 3.1])
def test_gradcheck(angle):
    w = (angle * torch.tensor([[2 / 3, 1 / 3, -2 / 3]], dtype=torch.float64)).requires_grad_()
    assert torch.autograd.gradcheck(lambda w: quaternions.quaternion_wxyz_from_matrix(exp(w)), w)
    q = torch.tensor([[0.3, -0.4, 2.0, 1.0]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(quaternions.matrix_from_quaternion_wxyz, q)
