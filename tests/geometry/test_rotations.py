"""exp, log, geodesic distance, projection and means; the numbers are those of the published properties."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sightline.geometry.rotations import (
    angle_between,
    exp,
    geodesic_distance,
    hat,
    log,
    mean_rotation,
    project_to_so3,
    random_rotations,
    vee,
)
from tests.tolerances import tolerance

seeds = st.integers(0, 2**31 - 1)
EXACT = tolerance(torch.float64)
ITERATIVE = tolerance(torch.float64, "iterative")
DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
X, Y, Z = torch.eye(3, dtype=torch.float64)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def unit_vectors(count, seed):
    vectors = torch.randn(count, 3, generator=generator(seed), dtype=torch.float64)
    return torch.nn.functional.normalize(vectors)


def rotation_vectors(count, seed, longest=math.pi):
    return unit_vectors(count, seed) * torch.linspace(0, longest, count, dtype=torch.float64)[:, None]


def is_rotation(R, bound):
    orthonormal = (R @ R.mT - torch.eye(3, dtype=R.dtype)).abs() < bound
    return bool(orthonormal.all() and ((torch.linalg.det(R) - 1).abs() < bound).all())


def test_hat_is_the_cross_product_and_vee_its_inverse():
    a, b = torch.randn(2, 20, 3, generator=generator(), dtype=torch.float64)
    torch.testing.assert_close((hat(a) @ b[..., None])[..., 0], torch.linalg.cross(a, b), **EXACT)
    assert torch.equal(vee(hat(a)), a)
    assert vee(torch.ones(3, 3)).tolist() == [0, 0, 0]


@settings(max_examples=20, deadline=None)
@given(seeds)
def test_exp_is_the_matrix_exponential(seed):
    w = rotation_vectors(40, seed, longest=9.0)
    torch.testing.assert_close(exp(w), torch.linalg.matrix_exp(hat(w)), rtol=0, atol=1e-11)
    assert is_rotation(exp(w), 1e-14)


@DTYPES
@pytest.mark.parametrize("angle", [0.0, 1e-30, 1e-8, 1e-4, 0.0999, 0.1001, 1.0, math.pi / 2, 3.0])
def test_log_inverts_exp(dtype, angle):
    w = (unit_vectors(30, 1) * angle).to(dtype)
    bound = 4 * torch.finfo(dtype).eps * angle  # relative to the angle, however small
    torch.testing.assert_close(log(exp(w)), w, rtol=0, atol=bound)


@DTYPES
def test_log_near_pi(dtype):
    axes = unit_vectors(30, 2).to(dtype)
    for gap in (1e-3, 1e-6, 1e-12, 0.0):
        R = exp(axes * (math.pi - gap))
        w = log(R)
        assert (w.norm(dim=-1) <= math.pi + 1e-6).all()
        torch.testing.assert_close(exp(w), R, rtol=0, atol=10 * torch.finfo(dtype).eps)


def test_log_at_exact_half_turns():
    turns = 2 * torch.stack([X, Y, Z])[:, :, None] * torch.stack([X, Y, Z])[:, None, :] - torch.eye(3)
    assert torch.allclose(log(turns).abs(), math.pi * torch.eye(3, dtype=torch.float64), **EXACT)


@pytest.mark.parametrize("angle", [0.0, 1e-12, 1e-3, 0.0999999, 0.1000001, 1.5, math.pi - 1e-5])
def test_gradients_of_exp_and_log(angle):
    axes = torch.tensor([[0.6, 0.0, 0.8], [-1 / 3, 2 / 3, 2 / 3]], dtype=torch.float64)
    w = (axes * angle).requires_grad_()
    assert torch.autograd.gradcheck(exp, w)
    assert torch.autograd.gradgradcheck(exp, w)
    if angle < 3:
        assert torch.autograd.gradcheck(lambda w: log(exp(w)), w)
        jacobian = torch.autograd.functional.jacobian(lambda w: log(exp(w)), w[0])
        torch.testing.assert_close(jacobian, torch.eye(3).double(), **EXACT)


def test_gradient_of_log_is_finite_at_pi():
    R = exp(math.pi * torch.stack([X, Y, Z, (X + Y) / 2**0.5])).requires_grad_()
    log(R).sum().backward()
    assert R.grad.isfinite().all()
    assert R.grad.abs().max() < 10


# --- group C of the specification: geodesic distance


def test_geodesic_literals():
    quarter_x, quarter_z, half_z = exp(X * math.pi / 2), exp(Z * math.pi / 2), exp(Z * math.pi)
    assert geodesic_distance(quarter_z, quarter_x).item() == pytest.approx(2 * math.pi / 3, abs=1e-14)
    assert geodesic_distance(quarter_z, quarter_z).item() == 0
    assert geodesic_distance(quarter_x, quarter_x @ half_z).item() == pytest.approx(math.pi, abs=1e-14)
    A, B = exp(0 * X), exp(0.7 * (X + Y) / 2**0.5)
    assert torch.linalg.matrix_norm(A - B).item() == pytest.approx(0.9698615, abs=1e-7)
    assert geodesic_distance(A, B).item() == pytest.approx(0.7, abs=1e-15)


@settings(max_examples=20, deadline=None)
@given(seeds)
def test_geodesic_is_a_bi_invariant_metric(seed):
    A, B, C = random_rotations((3, 30), generator=generator(seed))
    d = geodesic_distance(A, B)
    torch.testing.assert_close(geodesic_distance(B, A), d, **EXACT)
    torch.testing.assert_close(geodesic_distance(C @ A, C @ B), d, **EXACT)
    torch.testing.assert_close(geodesic_distance(A @ C, B @ C), d, **EXACT)
    torch.testing.assert_close(torch.linalg.matrix_norm(A - B), 2 * 2**0.5 * (d / 2).sin(), **EXACT)
    torch.testing.assert_close(log(A.mT @ B).norm(dim=-1), d, **EXACT)
    assert (geodesic_distance(A, C) <= d + geodesic_distance(B, C) + 1e-12).all()


@DTYPES
@pytest.mark.parametrize("angle", [1e-7, 1e-4, 1e-2, 3.0, math.pi - 1e-4])
def test_geodesic_resolves_what_acos_cannot(dtype, angle):
    A = random_rotations(200, generator=generator(3))
    B = A @ exp(unit_vectors(200, 4) * angle)
    error = (geodesic_distance(A.to(dtype), B.to(dtype)) - angle).abs().max()
    assert error < (1e-6 if dtype == torch.float32 else 1e-14)


@DTYPES
def test_geodesic_gradient_at_zero_and_at_pi(dtype):
    A = random_rotations(100, generator=generator(5), dtype=dtype)
    at_zero = A.clone().requires_grad_()
    distance = geodesic_distance(at_zero, A)
    distance.sum().backward()
    assert (distance == 0).all()
    assert (at_zero.grad == 0).all()
    half_turn = torch.diag(torch.tensor([1.0, -1.0, -1.0], dtype=dtype))
    at_pi = (A @ half_turn).requires_grad_()
    distance = geodesic_distance(at_pi, A)
    distance.sum().backward()
    torch.testing.assert_close(distance.detach(), torch.full_like(distance, math.pi), **tolerance(dtype))
    assert at_pi.grad.isfinite().all()
    assert at_pi.grad.abs().max() < 10


def test_gradcheck_of_geodesic_distance():
    A, B = (random_rotations(5, generator=generator(seed)).requires_grad_() for seed in (6, 7))
    assert torch.autograd.gradcheck(geodesic_distance, (A, B))
    w = torch.tensor([0.3, -0.2, 0.1], dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(geodesic_distance(exp(w), torch.eye(3).double()), w)
    torch.testing.assert_close(gradient, (w / w.norm()).detach(), **EXACT)


def test_geodesic_broadcasts():
    A, B = random_rotations((2, 4), generator=generator(8))
    table = geodesic_distance(A[:, None], B)
    assert table.shape == (4, 4)
    assert table[1, 2] == geodesic_distance(A[1], B[2])


def test_angle_between():
    assert angle_between(X, X).item() == 0
    assert angle_between(X, -X).item() == math.pi
    u = torch.stack([X, X, X]).requires_grad_()
    v = torch.stack([X, -X, math.cos(1e-9) * X + math.sin(1e-9) * Y])
    angles = angle_between(u, v)
    assert angles[2].item() == pytest.approx(1e-9, rel=1e-12)
    angles.sum().backward()
    assert u.grad.isfinite().all()
    assert (u.grad[0] == 0).all()
    assert torch.autograd.gradcheck(angle_between, (unit_vectors(4, 0).requires_grad_(), v[0]))


# --- projection and means


@settings(max_examples=20, deadline=None)
@given(seeds)
def test_projection_is_the_nearest_rotation(seed):
    M = torch.randn(20, 3, 3, generator=generator(seed), dtype=torch.float64)
    R = project_to_so3(M)
    assert is_rotation(R, 1e-12)
    nearest = torch.linalg.matrix_norm(M - R)
    others = R @ exp(torch.randn(50, 20, 3, generator=generator(seed + 1), dtype=torch.float64))
    assert (torch.linalg.matrix_norm(M - others) >= nearest - 1e-12).all()
    torch.testing.assert_close(project_to_so3(R), R, **EXACT)
    torch.testing.assert_close(project_to_so3(3.0 * M), R, **ITERATIVE)


def test_gradient_of_projection_everywhere():
    M = torch.randn(4, 3, 3, generator=generator(1), dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(project_to_so3, M, eps=1e-7, atol=1e-5)
    R = random_rotations(3, generator=generator(2)).requires_grad_()  # three equal singular values
    assert torch.autograd.gradcheck(project_to_so3, R)
    singular = torch.stack([torch.zeros(3, 3), torch.ones(3, 3), -torch.eye(3)]).double().requires_grad_()
    nearest = project_to_so3(singular)
    assert is_rotation(nearest.detach(), 1e-12)
    nearest.sum().backward()
    assert singular.grad.isfinite().all()


def test_projection_of_nan_is_nan_for_that_matrix_only():
    M = torch.eye(3).repeat(2, 1, 1)
    M[0, 1, 1] = math.nan
    M.requires_grad_()
    R = project_to_so3(M)
    assert R[0].isnan().all()
    assert torch.equal(R[1], torch.eye(3))
    R[1].sum().backward()
    assert M.grad.isfinite().all()


@pytest.mark.parametrize("metric", ["chordal", "geodesic"])
@settings(max_examples=15, deadline=None)
@given(seed=seeds)
def test_mean_is_equivariant_and_ignores_order_and_scale(metric, seed):
    centre, left, right = random_rotations((3, 4), generator=generator(seed))
    w = 0.4 * torch.randn(4, 6, 3, generator=generator(seed + 1), dtype=torch.float64)
    weights = torch.rand(4, 6, generator=generator(seed + 2), dtype=torch.float64) + 0.1
    R = centre[:, None] @ exp(w)
    mean = mean_rotation(R, weights, metric=metric)
    moved = mean_rotation(left[:, None] @ R @ right[:, None], 5 * weights, metric=metric)
    torch.testing.assert_close(moved, left @ mean @ right, **ITERATIVE)
    torch.testing.assert_close(mean_rotation(R.flip(1), weights.flip(1), metric=metric), mean, **ITERATIVE)
    symmetric = centre[:, None] @ exp(torch.cat([w, -w], dim=1))
    torch.testing.assert_close(mean_rotation(symmetric, metric=metric), centre, **ITERATIVE)


def test_geodesic_mean_balances_the_angles():
    w = torch.tensor([0.0, 0.0, 2.0], dtype=torch.float64)
    R = torch.stack([exp(0 * w), exp(w)])
    weights = torch.tensor([3.0, 1.0], dtype=torch.float64)
    torch.testing.assert_close(log(mean_rotation(R, weights, metric="geodesic")), w / 4, **ITERATIVE)
    chordal = log(mean_rotation(R, weights))[2].item()
    assert chordal == pytest.approx(math.atan2(math.sin(2.0), 3 + math.cos(2.0)), abs=1e-12)
    spread = random_rotations(1, generator=generator(1)) @ exp(rotation_vectors(9, 2, longest=1.0))
    mean = mean_rotation(spread, metric="geodesic")
    assert log(mean.mT @ spread).mean(0).abs().max() < 1e-12


def test_no_mean_is_nan_and_not_a_rotation():
    R = torch.stack([torch.eye(3), torch.diag(torch.tensor([1.0, -1.0, -1.0]))]).double()
    assert mean_rotation(R).isnan().all()
    assert mean_rotation(R, torch.zeros(2).double()).isnan().all()
    both = mean_rotation(torch.stack([R, R[:1].expand(2, 3, 3)]), metric="geodesic")
    assert both[0].isnan().all()
    assert torch.equal(both[1], torch.eye(3).double())


@pytest.mark.parametrize("metric", ["chordal", "geodesic"])
def test_gradient_of_mean(metric):
    w = (0.3 * torch.randn(4, 3, generator=generator(1), dtype=torch.float64)).requires_grad_()
    weights = torch.tensor([1.0, 2.0, 0.5, 1.5], dtype=torch.float64).requires_grad_()
    mean = lambda w, weights: mean_rotation(exp(w), weights, metric=metric)  # noqa: E731
    assert torch.autograd.gradcheck(mean, (w, weights), atol=1e-6)
    identical = torch.eye(3).double().repeat(3, 1, 1).requires_grad_()
    mean_rotation(identical, metric=metric).sum().backward()
    assert identical.grad.isfinite().all()


def test_unknown_metric():
    with pytest.raises(ValueError, match="expected 'chordal' or 'geodesic', got 'mode'"):
        mean_rotation(torch.eye(3)[None], metric="mode")


def test_random_rotations_are_uniform_and_seeded():
    R = random_rotations(20_000, generator=generator(9))
    assert is_rotation(R, 1e-12)
    assert R.mean(0).abs().max() < 0.02
    # the density of the angle is (1 - cos a) / pi, its mean pi / 2 + 2 / pi
    assert log(R).norm(dim=-1).mean().item() == pytest.approx(math.pi / 2 + 2 / math.pi, abs=0.02)
    assert torch.equal(random_rotations(20_000, generator=generator(9)), R)
    assert random_rotations((2, 0)).shape == (2, 0, 3, 3)
    assert random_rotations(2, dtype=torch.float32).dtype == torch.float32
