"""The scale loss: its gradients, its laws, and the bad input that it names."""

from __future__ import annotations

import math
import warnings

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sightline.depth_scale import depth_aware_scale_loss
from tests.depth_scale.squares import FOCAL, K, flat, square

# ---- gradients and laws ----


@pytest.mark.parametrize("measure", ["sqrt_area", "bbox_height", "diagonal", "moment_height", "perimeter"])
@pytest.mark.parametrize("stat", ["median", "mean", "trimmed_mean"])
def test_gradcheck_of_the_mask(measure: str, stat: str) -> None:
    generator = torch.Generator().manual_seed(3)
    mask = (torch.rand(2, 1, 5, 6, generator=generator, dtype=torch.float64) * 0.8 + 0.1).requires_grad_()
    # one depth a sample: where it is read cannot change it, so detaching that is exact
    depth = torch.tensor([0.4, 0.9], dtype=torch.float64).view(2, 1, 1, 1).expand(2, 1, 5, 6)

    def loss(m: torch.Tensor) -> torch.Tensor:
        return depth_aware_scale_loss(m, depth, 7.0, 1.5, depth_stat=stat, scale_measure=measure)[0]

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert torch.autograd.gradcheck(loss, mask)


@pytest.mark.parametrize("stat", ["mean", "trimmed_mean"])
def test_gradcheck_through_where_depth_is_read(stat: str) -> None:
    generator = torch.Generator().manual_seed(4)
    mask = (torch.rand(2, 1, 5, 5, generator=generator, dtype=torch.float64) * 0.8 + 0.1).requires_grad_()
    depth = (torch.rand(2, 1, 5, 5, generator=generator, dtype=torch.float64) + 0.5).requires_grad_()

    def loss(m: torch.Tensor, d: torch.Tensor) -> torch.Tensor:
        options = {"depth_stat": stat, "detach_stat": False, "detach_depth": False}
        return depth_aware_scale_loss(m, d, 7.0, 1.5, **options)[0]

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert torch.autograd.gradcheck(loss, (mask, depth))


def test_gradient_to_constant_and_focal_length_is_analytic() -> None:
    k = torch.tensor([0.05, 0.2], requires_grad=True)
    focal = torch.tensor([400.0, 600.0], requires_grad=True)
    loss, info = depth_aware_scale_loss(square(2), flat(0.5, 2), focal, k, eps=0.0)
    loss.backward()
    expected = -2 * info.log_ratio / 2
    torch.testing.assert_close(k.grad * k.detach(), expected)
    torch.testing.assert_close(focal.grad * focal.detach(), expected)


def test_depth_gets_a_gradient_only_when_asked() -> None:
    for detach in (True, False):
        depth = torch.rand(1, 1, 64, 64, generator=torch.Generator().manual_seed(0)) + 0.2
        depth.requires_grad_()
        mask = square(side=10).requires_grad_()
        depth_aware_scale_loss(mask, depth, FOCAL, K, detach_depth=detach)[0].backward()
        if detach:
            assert depth.grad is None
        else:
            assert (depth.grad != 0).sum() == 1  # the median pixel alone


@pytest.mark.parametrize("fill", ["empty", "full", "one pixel"])
@pytest.mark.parametrize("measure", ["sqrt_area", "bbox_height", "diagonal", "moment_width", "perimeter"])
def test_gradients_are_finite_at_the_ends(fill: str, measure: str) -> None:
    mask = torch.full((1, 1, 9, 9), 1.0 if fill == "full" else 0.0)
    if fill == "one pixel":
        mask[..., 4, 4] = 1.0
    mask.requires_grad_()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        loss, _ = depth_aware_scale_loss(
            mask, torch.ones(9, 9), FOCAL, K, scale_measure=measure, depth_mask01=torch.ones(9, 9)
        )
    loss.backward()
    assert loss.isfinite()
    assert mask.grad.isfinite().all()


@given(st.floats(0.1, 10.0), st.floats(0.05, 20.0))
def test_only_focal_length_times_inverse_depth_matters(factor: float, ratio: float) -> None:
    mask, depth = square(dtype=torch.float64), flat(0.5 * ratio, dtype=torch.float64)
    plain, _ = depth_aware_scale_loss(mask, depth, FOCAL, K)
    moved, _ = depth_aware_scale_loss(mask, depth / factor, FOCAL * factor, K)
    torch.testing.assert_close(plain, moved)


@given(st.floats(1.05, 15.0))
def test_too_large_and_too_small_weigh_the_same(ratio: float) -> None:
    mask = square(dtype=torch.float64)
    large, _ = depth_aware_scale_loss(mask, flat(0.5 / ratio, dtype=torch.float64), FOCAL, K, eps=0.0)
    small, _ = depth_aware_scale_loss(mask, flat(0.5 * ratio, dtype=torch.float64), FOCAL, K, eps=0.0)
    torch.testing.assert_close(large, small)
    assert large > 1e-3
    exact, _ = depth_aware_scale_loss(mask, flat(0.5, dtype=torch.float64), FOCAL, K, eps=0.0)
    assert exact.item() == pytest.approx(0.0, abs=1e-20)


def test_the_gradient_is_the_same_at_every_pixel() -> None:
    mask = (torch.rand(1, 1, 64, 64, generator=torch.Generator().manual_seed(1))).requires_grad_()
    depth_aware_scale_loss(mask, torch.rand(1, 1, 64, 64) + 0.2, FOCAL, K)[0].backward()
    assert mask.grad.std() < 1e-9
    assert mask.grad.abs().min() > 1e-6


def test_nothing_is_read_back_from_the_device() -> None:
    def meta(*shape: int) -> torch.Tensor:
        return torch.zeros(*shape, device="meta")

    for options in (
        {},
        {"depth_stat": "mean"},
        {"depth_stat": "trimmed_mean", "border_policy": "one_sided"},
        {"contact_band": 0.2, "image_width_px": 512, "scale_measure": "bbox_height"},
        {"midpoint": True, "border_policy": "ignore", "scale_measure": "perimeter"},
    ):
        mask = meta(2, 1, 8, 8).requires_grad_()
        loss, _ = depth_aware_scale_loss(mask, meta(2, 1, 8, 8), meta(2), meta(()), **options)
        loss.backward()  # a value that is read on the meta device raises
        assert mask.grad.shape == mask.shape


# ---- bad input ----


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"depth_map": torch.ones(1, 1, 32, 64)},
            r"pred_mask01 and depth_map: .*\(1, 1, 64, 64\).*\(1, 1, 32, 64\)",
        ),
        ({"pred_mask01": square(3), "depth_map": flat(0.5, 2)}, "equal batches"),
        ({"pred_mask01": torch.ones(1, 3, 64, 64)}, r"pred_mask01: expected .*got \(1, 3, 64, 64\)"),
        ({"pred_mask01": torch.ones(64)}, r"pred_mask01: expected .*got \(64,\)"),
        ({"depth_mode": "disparity"}, "depth_mode: expected one of inv_depth, depth, got 'disparity'"),
        ({"depth_stat": "mode"}, "depth_stat: expected one of median, mean"),
        ({"scale_measure": "volume"}, "scale_measure: expected one of sqrt_area"),
        ({"border_policy": "drop"}, "border_policy: expected one of keep, ignore, one_sided"),
        ({"depth_of": "scene"}, "depth_of: expected one of target, pred, context"),
        ({"f_px": -500.0}, "f_px: expected a positive number, got -500.0"),
        ({"f_px": 0}, "f_px: expected a positive number, got 0"),
        ({"f_px": math.nan}, "f_px: expected a positive number, got nan"),
        ({"k_obj": -1.0}, "k_obj: expected a positive number"),
        ({"f_px": torch.ones(3)}, r"f_px: expected .*\(1,\) or \(1, 1\), got \(3,\)"),
        ({"k_obj": 1.0, "object_id": torch.tensor([0])}, r"k_obj: expected a table of shape \(K,\)"),
        (
            {"k_obj": torch.ones(3), "object_id": torch.zeros(2)},
            r"object_id: expected shape \(1,\), got \(2,\)",
        ),
        ({"quantile": 1.5}, "quantile: expected a number between 0 and 1, got 1.5"),
        ({"contact_band": 0.0}, r"contact_band: expected a share in \(0, 1\], got 0"),
        ({"image_height_px": 512}, "image_width_px"),
    ],
)
def test_bad_input_is_named(changes: dict, message: str) -> None:
    arguments = {"pred_mask01": square(), "depth_map": flat(0.5), "f_px": FOCAL, "k_obj": K} | changes
    with pytest.raises(ValueError, match=message):
        depth_aware_scale_loss(**arguments)
