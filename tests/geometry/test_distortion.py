from __future__ import annotations

import tomllib

import cv2
import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sightline.geometry.distortion import (
    distort,
    distort_pixels,
    invertible_radius,
    undistort,
    undistort_pixels,
)
from tests.real_data import real_path
from tests.tolerances import tolerance

LENS = torch.tensor([-0.29, 0.11, 0.0011, -0.0009, -0.03], dtype=torch.float64)
K = torch.tensor([[900.0, 0, 640], [0, 900, 512], [0, 0, 1]], dtype=torch.float64)


def disc(radius: float, count: int = 200, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    angle, r = torch.rand(2, count, generator=generator, dtype=torch.float64)
    return (
        torch.stack([torch.cos(6.2832 * angle), torch.sin(6.2832 * angle)], -1) * (radius * r.sqrt())[:, None]
    )


def fixed_point(target: torch.Tensor, k: torch.Tensor, steps: int) -> torch.Tensor:
    """The common way, as OpenCV and others do it: kept here to show what it leaves."""
    k1, k2, p1, p2, k3 = k.tolist()
    x, y = target.unbind(-1)
    for _ in range(steps):
        r2 = x * x + y * y
        radial = 1 + r2 * (k1 + r2 * (k2 + r2 * k3))
        dx = 2 * p1 * x * y + p2 * (r2 + 2 * x * x)
        dy = p1 * (r2 + 2 * y * y) + 2 * p2 * x * y
        x, y = (target[..., 0] - dx) / radial, (target[..., 1] - dy) / radial
    return torch.stack([x, y], -1)


@pytest.mark.parametrize("index", range(5))
def test_every_coefficient_is_opencvs(index):
    lens = torch.zeros(5, dtype=torch.float64)
    lens[index] = 0.07
    xy = disc(0.6)
    rays = torch.cat([xy, torch.ones(len(xy), 1)], -1).numpy()
    expected, _ = cv2.projectPoints(rays, np.zeros(3), np.zeros(3), np.eye(3), lens.numpy())
    torch.testing.assert_close(
        distort(xy, lens), torch.from_numpy(expected[:, 0]), **tolerance(torch.float64, "closed_form")
    )


@given(
    k1=st.floats(-0.45, 0.6),
    k2=st.floats(-0.3, 0.3),
    k3=st.floats(-0.1, 0.1),
    p1=st.floats(-2e-3, 2e-3),
    p2=st.floats(-2e-3, 2e-3),
)
@example(k1=0.0, k2=0.25, k3=-0.025390625, p1=0.0, p2=0.0)  # Newton alone runs in a circle
@settings(max_examples=60, deadline=None)
def test_undistort_is_exact_up_to_the_fold(k1, k2, k3, p1, p2):
    lens = torch.tensor([k1, k2, p1, p2, k3], dtype=torch.float64)
    xy = disc(0.97 * min(float(invertible_radius(lens)), 2.0))
    found, valid = undistort(distort(xy, lens), lens)
    assert valid.all()
    assert float((found - xy).abs().max()) * 1000 < 1e-6  # pixels at a focal length of 1000


@pytest.mark.parametrize(("dtype", "error_px"), [(torch.float64, 1e-6), (torch.float32, 2e-3)])
def test_pixels_come_back(dtype, error_px):
    px = (disc(0.8) * 900 + torch.tensor([640.0, 512.0])).to(dtype)
    there, valid = undistort_pixels(distort_pixels(px, K, LENS), K, LENS)
    assert valid.all() and there.dtype == dtype
    assert float((there - px).abs().max()) < error_px


def test_the_radius_solves_its_equation():
    lenses = torch.tensor(
        [[-0.3, 0, 0, 0, 0], [-0.29, 0.11, 0, 0, -0.03], [0.2, -0.5, 0, 0, 0], [0, 0, 0, 0, -0.2]],
        dtype=torch.float64,
    )
    u = invertible_radius(lenses) ** 2
    k1, k2, _, _, k3 = lenses.unbind(-1)
    residual = 1 + 3 * k1 * u + 5 * k2 * u**2 + 7 * k3 * u**3
    torch.testing.assert_close(residual, torch.zeros(4, dtype=torch.float64), rtol=0, atol=1e-10)
    below = torch.linspace(0, 0.999, 500, dtype=torch.float64)[:, None] * u
    assert (1 + 3 * k1 * below + 5 * k2 * below**2 + 7 * k3 * below**3 > 0).all()  # it is the least root


@pytest.mark.parametrize("lens", [[0.0] * 5, [0.3, 0.1, 0, 0, 0.01], [0, 0, 0.01, 0, 0]])
def test_a_lens_that_never_folds_has_no_limit(lens):
    lens = torch.tensor(lens, dtype=torch.float64)
    assert invertible_radius(lens) == torch.inf
    xy = disc(2.0)
    torch.testing.assert_close(
        undistort(distort(xy, lens), lens).xy, xy, **tolerance(torch.float64, "iterative")
    )


def test_beyond_the_fold_is_flagged():
    barrel = torch.tensor([-0.3, 0, 0, 0, 0], dtype=torch.float64)
    edge = distort(invertible_radius(barrel)[None] * torch.tensor([[1.0, 0]], dtype=torch.float64), barrel)
    found, valid = undistort(torch.cat([edge * 0.999, edge * 1.001, edge * 3, edge * torch.nan]), barrel)
    assert valid.tolist() == [True, False, False, False]
    assert found.isnan().all(-1).tolist() == [False, True, True, True]


def test_the_branch_behind_the_fold_is_not_an_answer():
    lens = torch.tensor([-0.5, 0.08, 1e-3, 0, 0], dtype=torch.float64)  # folds at 0.93, grows from 1.70
    beyond = disc(1.0)
    beyond = beyond / beyond.norm(dim=-1, keepdim=True) * torch.linspace(0.6, 3, len(beyond))[:, None]
    assert not undistort(beyond, lens).valid.any()
    far = torch.stack([torch.linspace(1.8, 3, 50), torch.zeros(50)], -1).double()
    again, valid = undistort(distort(far, lens), lens)
    assert (again[valid].norm(dim=-1) < 0.94).all()


def test_a_batch_of_lenses_equals_the_loop():
    lenses = LENS * torch.tensor([[0.2], [1.0], [-0.7]], dtype=torch.float64)
    xy = disc(0.5, 24).view(3, 8, 2)
    found, valid = undistort(distort(xy, lenses), lenses)
    assert valid.shape == (3, 8) and valid.all()
    torch.testing.assert_close(found, xy, **tolerance(torch.float64, "iterative"))
    for i in range(3):
        torch.testing.assert_close(distort(xy, lenses)[i], distort(xy[i], lenses[i]))


def test_gradients_are_the_implicit_functions():
    xy, lens = disc(0.8, 5).requires_grad_(), LENS.clone().requires_grad_()
    assert torch.autograd.gradcheck(distort, (xy, lens))
    target = distort(xy, lens).detach().requires_grad_()
    assert torch.autograd.gradcheck(lambda x, k: undistort(x, k).xy, (target, lens))


def test_a_flagged_point_has_zero_gradient():
    xy = torch.tensor([[0.1, 0.1], [5.0, 5.0], [torch.nan, 0.0]], dtype=torch.float64, requires_grad=True)
    lens = torch.tensor([-0.3, 0, 0, 0, 0], dtype=torch.float64, requires_grad=True)
    matrix = torch.eye(3, dtype=torch.float64, requires_grad=True)
    for found in (undistort(xy, lens).xy, undistort_pixels(xy, matrix, lens).xy):
        xy.grad = None
        found.nansum().backward()
        assert lens.grad.isfinite().all()
        assert xy.grad.isfinite().all() and xy.grad[1:].abs().sum() == 0
    assert matrix.grad.isfinite().all()


@pytest.mark.real
def test_a_real_calibration_where_five_fixed_point_steps_leave_pixels():
    text = real_path("sleap_anipose/calibration_good.toml").read_text()
    cameras = [value for key, value in tomllib.loads(text).items() if key.startswith("cam")]
    assert len(cameras) == 4
    worst_fixed, worst = 0.0, 0.0
    for camera in cameras:
        matrix = torch.tensor(camera["matrix"], dtype=torch.float64)
        lens = torch.tensor(camera["distortions"], dtype=torch.float64)
        width, height = camera["size"]
        grid = torch.cartesian_prod(torch.arange(0, width, 20), torch.arange(0, height, 20)).double()
        ideal, valid = undistort_pixels(grid, matrix, lens)
        assert 0.05 < float((~valid).double().mean()) < 0.4  # the share of the frame beyond the lens model
        again = distort_pixels(ideal[valid], matrix, lens)
        worst = max(worst, float((again - grid[valid]).abs().max()))
        focal = matrix[0, 0]
        target = (grid[valid] - matrix[:2, 2]) / matrix.diagonal()[:2]
        left = distort(fixed_point(target, lens, 5), lens) - target
        worst_fixed = max(worst_fixed, float(left.abs().max() * focal))
    assert worst < 1e-6
    assert worst_fixed > 5
