from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sightline.geometry.cameras import project
from sightline.geometry.intrinsics import crop_intrinsics, resize_intrinsics
from sightline.geometry.translation import correct_intrinsics, recover_translation
from tests.tolerances import tolerance

EXACT = tolerance(torch.float64)
K = torch.tensor([[600.0, 0, 320], [0, 500, 240], [0, 0, 1]], dtype=torch.float64)


def double(*values) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_a_worked_example():
    corrected = correct_intrinsics(K, double(0.05, -0.02, 4, -3))
    torch.testing.assert_close(corrected, double([630, 0, 324], [0, 490, 237], [0, 0, 1]), **EXACT)
    t, valid = recover_translation(double(256, 288), double(3.5, -2.5), double(1.25)[0], corrected)
    assert valid
    torch.testing.assert_close(t, double(-0.1279762, 0.1237245, 1.25), rtol=0, atol=5e-8)
    torch.testing.assert_close(project(t, corrected), double(259.5, 285.5), **EXACT)


@given(x=st.floats(-300, 900), y=st.floats(-300, 900), z=st.floats(0.05, 20))
@settings(max_examples=25, deadline=None)
def test_translation_is_linear_in_depth(x, y, z):
    log_z = double(z).log().requires_grad_()
    t = recover_translation(double([x, y]), double([0, 0]), log_z.exp(), K).t[0]
    torch.testing.assert_close(
        t.detach() / z, recover_translation(double(x, y), double(0, 0), double(1)[0], K).t
    )
    for component in t:
        (slope,) = torch.autograd.grad(component, log_z, retain_graph=True)
        torch.testing.assert_close(slope[0], component.detach(), **EXACT)
    middle = recover_translation(double(320, 240), double(0, 0), double(z)[0], K).t
    assert middle[:2].tolist() == [0, 0]


@given(width=st.integers(100, 2000), height=st.integers(100, 2000), pad=st.floats(-50, 50))
@settings(max_examples=25, deadline=None)
def test_letterboxing_the_picture_does_not_move_the_object(width, height, pad):
    center, offset, z = double(256, 288), double(3.5, -2.5), double(1.25)[0]
    before = recover_translation(center, offset, z, K).t
    scale = double(width / 640, height / 480)
    resized = crop_intrinsics(resize_intrinsics(K, (640, 480), (width, height)), -pad, -pad)
    moved = (center + 0.5) * scale - 0.5 + pad
    after = recover_translation(moved, offset * scale, z, resized).t
    torch.testing.assert_close(after, before, **tolerance(torch.float64, "iterative"))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("k", -2.0),
        ("k", -1.0),
        ("k", torch.nan),
        ("z", 0.0),
        ("z", torch.inf),
        ("z", torch.nan),
        ("px", torch.nan),
    ],
)
def test_one_bad_object_does_not_spoil_the_others(field, value):
    center, z, delta = double([10, 20], [30, 40]), double(1, 2), torch.zeros(2, 4).double()
    {"k": delta[:, 0], "z": z, "px": center[:, 1]}[field][1] = value
    inputs = [tensor.requires_grad_() for tensor in (center, z, delta)]
    t, valid = recover_translation(center, torch.zeros(2, 2).double(), z, correct_intrinsics(K, delta))
    assert valid.tolist() == [True, False]
    assert t.isnan().all(-1).tolist() == [False, True]
    t.nansum().backward()
    for tensor in inputs:
        assert (
            tensor.grad.isfinite().all()
            and tensor.grad[1].abs().sum() == 0
            and tensor.grad[0].abs().sum() > 0
        )


@pytest.mark.parametrize("log_z", [1000.0, -1000.0])
def test_an_exploding_depth_is_not_valid(log_z):
    assert not recover_translation(double(1, 2), double(0, 0), double(log_z).exp()[0], K).valid


def test_a_batch_equals_the_loop_and_gradients():
    generator = torch.Generator().manual_seed(0)
    center = 300 * torch.rand(2, 3, 2, generator=generator, dtype=torch.float64)
    z = 1 + torch.rand(2, 3, generator=generator, dtype=torch.float64)
    delta = 0.1 * torch.rand(2, 3, 4, generator=generator, dtype=torch.float64)

    def solve(center, z, delta):
        return recover_translation(center, torch.ones_like(center), z, correct_intrinsics(K, delta)).t

    whole = solve(center, z, delta)
    for i in range(2):
        for j in range(3):
            torch.testing.assert_close(whole[i, j], solve(center[i, j], z[i, j], delta[i, j]), **EXACT)
    assert torch.autograd.gradcheck(solve, [tensor.requires_grad_() for tensor in (center, z, delta)])
