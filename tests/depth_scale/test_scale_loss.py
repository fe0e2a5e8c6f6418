"""The depth-aware scale loss: its formula, every edge case with what it must give, its gradients."""

from __future__ import annotations

import math
import warnings

import pytest
import torch

from sightline.depth_scale import Invalid, depth_aware_scale_loss, relative_scale_loss
from sightline.depth_scale.options import REASONS
from tests.depth_scale.squares import FOCAL, K, flat, square


def test_formula_by_hand() -> None:
    loss, info = depth_aware_scale_loss(square(), flat(0.25), FOCAL, K)
    # s = sqrt(400) = 20, s_exp = 0.08 * 500 * 0.25 = 10
    assert loss.item() == pytest.approx(math.log(2) ** 2, rel=1e-5)
    assert info.s_pred.shape == info.s_exp.shape == info.depth_stat.shape == (1, 1, 1, 1)
    assert info.s_pred.item() == 20.0
    assert info.s_exp.item() == pytest.approx(10.0)
    assert info.depth_stat.item() == 0.25
    loss, info = depth_aware_scale_loss(square(), flat(4.0), FOCAL, K, depth_mode="depth")
    assert info.s_exp.item() == pytest.approx(10.0)
    assert loss.item() == pytest.approx(math.log(2) ** 2, rel=1e-5)


def test_defaults_are_those_of_the_document() -> None:
    given_all = depth_aware_scale_loss(
        pred_mask01=square(),
        depth_map=flat(0.3),
        f_px=torch.tensor([FOCAL]),
        k_obj=K,
        depth_mode="inv_depth",
        depth_stat="median",
        scale_measure="sqrt_area",
        detach_depth=True,
    )
    assert given_all[0] == depth_aware_scale_loss(square(), flat(0.3), FOCAL, K)[0]


def test_mean_over_the_batch() -> None:
    sides = [10, 20, 40]
    masks = torch.cat([square(side=side) for side in sides])
    loss, info = depth_aware_scale_loss(masks, flat(0.5), FOCAL, K)
    assert loss.item() == pytest.approx(2 * math.log(2) ** 2 / 3, rel=1e-5)
    torch.testing.assert_close(
        info.log_ratio, torch.tensor([-math.log(2), 0.0, math.log(2)]), atol=1e-6, rtol=0
    )


@pytest.mark.parametrize(
    "f_px",
    [
        500,
        500.0,
        torch.tensor(500.0),
        torch.tensor([500.0]),
        torch.tensor([500.0, 500.0]),
        torch.tensor([[500.0], [500.0]]),
        torch.full((2, 1, 1, 1), 500.0),
        torch.tensor(500),
    ],
)
def test_every_form_of_a_focal_length(f_px: torch.Tensor | float) -> None:
    loss, _ = depth_aware_scale_loss(square(2), flat(0.25, 2), f_px, K)
    assert loss.item() == pytest.approx(math.log(2) ** 2, rel=1e-5)


@pytest.mark.parametrize("k_obj", [0.08, torch.tensor(0.08), torch.tensor([0.08]), torch.full((2, 1), 0.08)])
def test_every_form_of_a_constant(k_obj: torch.Tensor | float) -> None:
    loss, _ = depth_aware_scale_loss(square(2), flat(0.25, 2), FOCAL, k_obj)
    assert loss.item() == pytest.approx(math.log(2) ** 2, rel=1e-5)


@pytest.mark.parametrize("shape", [(64, 64), (1, 64, 64), (1, 1, 64, 64)])
def test_two_to_four_dimensions(shape: tuple[int, ...]) -> None:
    loss, info = depth_aware_scale_loss(square().view(shape), flat(0.25).view(shape), FOCAL, K)
    assert loss.item() == pytest.approx(math.log(2) ** 2, rel=1e-5)
    assert info.s_pred.shape == (1, 1, 1, 1)


def test_a_batch_without_channels() -> None:
    focal = torch.tensor([400.0, 500.0, 600.0])
    three, info = depth_aware_scale_loss(square(3)[:, 0], flat(0.25, 3)[:, 0], focal, K)
    assert info.s_pred.shape == (3, 1, 1, 1)
    four, _ = depth_aware_scale_loss(square(3), flat(0.25, 3), focal, K)
    assert three == four


def test_constants_by_object() -> None:
    table, ids = torch.tensor([0.04, 0.08, 0.16]), torch.tensor([1, 2, 0, 7])
    loss, info = depth_aware_scale_loss(square(4), flat(0.5, 4), FOCAL, table, object_id=ids)
    assert info.valid.tolist() == [True, True, True, False]
    assert info.reason[3] == Invalid.CONSTANT
    torch.testing.assert_close(info.s_exp[:3].flatten(), torch.tensor([20.0, 40.0, 10.0]))
    assert loss.item() == pytest.approx(2 * math.log(2) ** 2 / 3, rel=1e-5)


# ---- the table of edge cases ----


def test_one_empty_mask_does_not_touch_the_others() -> None:
    masks = torch.cat([square(side=40), torch.zeros(1, 1, 64, 64)]).requires_grad_()
    loss, info = depth_aware_scale_loss(masks, flat(0.5, 2), FOCAL, K)
    loss.backward()
    assert loss.item() == pytest.approx(math.log(2) ** 2, rel=1e-5)
    assert info.num_valid == 1
    assert info.reason.tolist() == [0, Invalid.MASK_EMPTY]
    assert info.describe() == [f"sample 1: {REASONS[Invalid.MASK_EMPTY]}"]
    assert masks.grad[1].abs().max() == 0
    assert masks.grad[0].min() > 0


def test_nothing_valid_gives_zero_and_no_gradient() -> None:
    mask = torch.zeros(2, 1, 8, 8, requires_grad=True)
    loss, info = depth_aware_scale_loss(mask, torch.ones(2, 1, 8, 8), FOCAL, K)
    loss.backward()
    assert loss.item() == 0
    assert info.num_valid == 0
    assert mask.grad.abs().max() == 0
    assert info.s_exp.isnan().all()


def test_soft_values_below_one_half_still_have_a_median() -> None:
    depth = flat(0.5)
    depth[..., :32] = 0.25
    mask = square() * torch.where(torch.arange(64) < 32, 0.4, 0.1)
    _, info = depth_aware_scale_loss(mask, depth, FOCAL, K)
    assert info.valid.all()
    assert info.depth_stat.item() == 0.25
    assert not depth_aware_scale_loss(mask, depth, FOCAL, K, depth_stat="threshold_median")[1].valid.any()


@pytest.mark.parametrize("stat", ["median", "mean", "trimmed_mean", "threshold_median"])
@pytest.mark.parametrize("hole", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("mode", ["inv_depth", "depth"])
def test_depth_that_is_not_finite_is_left_out(stat: str, hole: float, mode: str) -> None:
    clean = flat(2.0)
    broken = clean.clone()
    broken[..., 30, 30] = hole  # inside
    broken[..., 2, 2] = hole  # outside
    mask = square().requires_grad_()
    loss, info = depth_aware_scale_loss(mask, broken, FOCAL, K, mode, stat)
    loss.backward()
    assert loss.item() == pytest.approx(depth_aware_scale_loss(mask, clean, FOCAL, K, mode, stat)[0].item())
    assert info.valid.all()
    assert mask.grad.isfinite().all()


def test_zero_depth_is_missing_in_depth_mode() -> None:
    depth = flat(2.0)
    depth[..., 22:42, 22:36] = 0.0  # 280 of 400 pixels: a plain median would be 0
    _, info = depth_aware_scale_loss(square(), depth, FOCAL, K, "depth")
    assert info.depth_stat.item() == 2.0
    _, kept = depth_aware_scale_loss(square(), depth, FOCAL, K, "depth", zero_is_missing=False)
    assert kept.reason.tolist() == [Invalid.DEPTH_NOT_POSITIVE]


def test_zero_inverse_depth_is_far_unless_said_otherwise() -> None:
    inverse = flat(0.5)
    inverse[..., 22:42, 22:28] = 0.0
    _, info = depth_aware_scale_loss(square(), inverse, FOCAL, K, depth_stat="mean")
    assert info.depth_stat.item() == pytest.approx(0.35)
    _, info = depth_aware_scale_loss(square(), inverse, FOCAL, K, depth_stat="mean", zero_is_missing=True)
    assert info.depth_stat.item() == pytest.approx(0.5)


def test_z_scored_depth_is_invalid_and_not_nan() -> None:
    depth = torch.linspace(1, 3, 64 * 64).view(1, 1, 64, 64)
    scored = (depth - depth.mean()) / depth.std()
    mask = torch.zeros(1, 1, 64, 64)
    mask[..., 2:22, 2:22] = 1.0  # in the half below the mean
    mask.requires_grad_()
    loss, info = depth_aware_scale_loss(mask, scored, FOCAL, K)
    loss.backward()
    assert loss.item() == 0
    assert "z-score" in info.describe()[0]
    assert mask.grad.abs().max() == 0


def test_latent_resolution_as_the_document_has_it() -> None:
    latent = depth_aware_scale_loss(square(side=8), flat(0.5), FOCAL, 0.256)[
        0
    ]  # 64 px calibrated, seen at 1/8
    assert latent.item() == pytest.approx(math.log(8) ** 2, rel=1e-5)


def test_image_width_makes_resolution_irrelevant() -> None:
    pixels, latents = square(side=128, size=512), square(side=16, size=64)
    at_pixels, fine = depth_aware_scale_loss(pixels, flat(0.5, size=512), FOCAL, 0.4, image_width_px=512)
    at_latents, coarse = depth_aware_scale_loss(latents, flat(0.5), FOCAL, 0.4, image_width_px=512)
    assert at_pixels == at_latents
    assert fine.s_pred == coarse.s_pred == 128
    plain, _ = depth_aware_scale_loss(pixels, flat(0.5, size=512), FOCAL, 0.4)
    assert at_pixels == plain


def test_cells_that_are_not_square() -> None:
    mask, depth = torch.zeros(1, 1, 32, 64), torch.full((1, 1, 32, 64), 0.5)
    mask[..., 8:16, 10:26] = 1.0
    sizes = {"sqrt_area": math.sqrt(16 * 8 * 8 * 16), "bbox_height": 128.0, "bbox_width": 128.0}
    for measure, size in sizes.items():
        _, info = depth_aware_scale_loss(
            mask, depth, FOCAL, K, scale_measure=measure, image_width_px=512, image_height_px=512
        )
        assert info.s_pred.item() == pytest.approx(size)


def test_a_vanishing_mask_has_a_bounded_loss_and_gradient() -> None:
    mask = torch.zeros(1, 1, 64, 64, requires_grad=True)
    loss, info = depth_aware_scale_loss(mask, flat(1.0), FOCAL, 0.1, depth_mask01=square())
    loss.backward()
    assert info.valid.all()
    assert info.s_exp.item() == pytest.approx(50.0)
    assert loss.item() < 25
    assert -10 < mask.grad.min() == mask.grad.max() < -1e-3


@pytest.mark.parametrize("measure", ["bbox_height", "bbox_width", "diagonal", "perimeter"])
def test_vanishing_masks_in_every_length(measure: str) -> None:
    mask = torch.zeros(1, 1, 64, 64, requires_grad=True)
    loss, _ = depth_aware_scale_loss(
        mask, flat(1.0), FOCAL, 0.1, scale_measure=measure, depth_mask01=square()
    )
    loss.backward()
    assert loss.item() < 40
    assert mask.grad.abs().max() < 40
    assert mask.grad.isfinite().all()


def test_the_mean_does_not_let_the_mask_slide_to_other_depths() -> None:
    depth = torch.linspace(0.2, 0.8, 64).expand(1, 1, 64, 64)
    spreads = {}
    for detach_stat in (True, False):
        mask = square().requires_grad_()
        depth_aware_scale_loss(mask, depth, FOCAL, 0.2, depth_stat="mean", detach_stat=detach_stat)[
            0
        ].backward()
        spreads[detach_stat] = mask.grad.std().item()
    assert spreads[True] < 1e-8
    assert spreads[False] > 1e-4


def test_half_precision_is_computed_in_single() -> None:
    expected, _ = depth_aware_scale_loss(square(), flat(0.25), FOCAL, K)
    for dtype in (torch.float16, torch.bfloat16):
        loss, info = depth_aware_scale_loss(square().to(dtype), flat(0.25).to(dtype), FOCAL, K)
        assert loss.dtype == info.s_exp.dtype == torch.float32
        assert loss == expected
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss, _ = depth_aware_scale_loss(square(), flat(0.25), FOCAL, K)
    assert loss == expected


def test_truncated_masks() -> None:
    cut = torch.zeros(2, 1, 64, 64)
    cut[0, :, 0:10, 20:40] = 1.0  # half a square of 20 is visible
    cut[1, :, 0:60, 2:62] = 1.0  # far too large, though cut off
    depth = flat(0.5, 2)
    kept, _ = depth_aware_scale_loss(cut, depth, FOCAL, K)
    ignored, info = depth_aware_scale_loss(cut, depth, FOCAL, K, border_policy="ignore")
    hinged, _ = depth_aware_scale_loss(cut, depth, FOCAL, K, border_policy="one_sided")
    small, large = math.log(0.5) / 2, math.log(3)
    assert kept.item() == pytest.approx((small**2 + large**2) / 2, rel=1e-4)
    assert ignored.item() == 0
    assert info.reason.tolist() == [Invalid.TRUNCATED, Invalid.TRUNCATED]
    assert hinged.item() == pytest.approx(large**2 / 2, rel=1e-4)
    small_but_whole = square(side=10)
    kept, _ = depth_aware_scale_loss(small_but_whole, flat(0.5), FOCAL, K, border_policy="one_sided")
    assert kept.item() == pytest.approx(math.log(2) ** 2, rel=1e-4)


def test_a_mask_that_is_not_finite_is_invalid() -> None:
    for measure in ("sqrt_area", "bbox_height", "moment_width", "perimeter", "diagonal"):
        mask = square(2, side=30)
        mask[1, 0, 5, 5] = math.nan
        mask.requires_grad_()
        loss, info = depth_aware_scale_loss(mask, flat(0.5, 2), FOCAL, K, scale_measure=measure)
        loss.backward()
        assert info.reason.tolist() == [0, Invalid.MASK_NOT_FINITE]
        assert loss.isfinite()
        assert mask.grad.isfinite().all()


def test_bad_entries_of_tensors_make_their_sample_invalid() -> None:
    focal = torch.tensor([FOCAL, -FOCAL, math.nan, 0.0])
    _, info = depth_aware_scale_loss(square(4), flat(0.5, 4), focal, K)
    assert info.reason.tolist() == [0, *[Invalid.FOCAL] * 3]
    constants = torch.tensor([K, -K, math.inf, 0.0])
    _, info = depth_aware_scale_loss(square(4), flat(0.5, 4), FOCAL, constants)
    assert info.reason.tolist() == [0, *[Invalid.CONSTANT] * 3]


# ---- options ----


def test_quantile_leans_to_the_nearer_side() -> None:
    depth = flat(2.0)
    depth[..., 22:42, 22:29] = 1.0  # 35 % of the mask
    assert depth_aware_scale_loss(square(), depth, FOCAL, K, "depth")[1].depth_stat.item() == 2.0
    assert (
        depth_aware_scale_loss(square(), depth, FOCAL, K, "depth", quantile=0.3)[1].depth_stat.item() == 1.0
    )


def test_context_depth_is_read_where_the_object_stands() -> None:
    depth = flat(5.0)  # the wall behind
    depth[..., 39:, :] = 2.0  # the floor, on which the mask's last three rows lie
    _, behind = depth_aware_scale_loss(square(), depth, FOCAL, K, "depth")
    _, contact = depth_aware_scale_loss(square(), depth, FOCAL, K, "depth", depth_of="context")
    _, band = depth_aware_scale_loss(square(), depth, FOCAL, K, "depth", contact_band=0.15)
    assert behind.depth_stat.item() == 5.0
    assert contact.depth_stat.item() == band.depth_stat.item() == 2.0


def test_depth_mask_says_where_depth_is_read() -> None:
    depth, spot = flat(2.0), torch.zeros(64, 64)
    depth[..., 2, 2], spot[2, 2] = 4.0, 1.0
    _, info = depth_aware_scale_loss(square(), depth, FOCAL, K, "depth", depth_mask01=spot)
    assert info.depth_stat.item() == 4.0


def test_sample_weight_scales_each_sample() -> None:
    masks = torch.cat([square(side=40), square(side=10)])
    loss, _ = depth_aware_scale_loss(masks, flat(0.5), FOCAL, K, sample_weight=torch.tensor([1.0, 0.25]))
    assert loss.item() == pytest.approx(1.25 / 2 * math.log(2) ** 2, rel=1e-5)


def test_huber_continues_the_square_linearly() -> None:
    ratio = math.log(20 / 0.2)
    tiny_k = K * 0.2 / 20
    square_loss, _ = depth_aware_scale_loss(square(), flat(0.5), FOCAL, tiny_k, huber_delta=None)
    bounded, _ = depth_aware_scale_loss(square(), flat(0.5), FOCAL, tiny_k, huber_delta=3.0)
    assert square_loss.item() == pytest.approx(ratio**2, rel=1e-4)
    assert bounded.item() == pytest.approx(6 * ratio - 9, rel=1e-4)


def test_relative_form_needs_no_constant() -> None:
    loss, info = relative_scale_loss(square(side=20), flat(2.0), square(side=40), flat(1.0), "depth")
    assert loss.item() == pytest.approx(0.0, abs=1e-9)
    assert info.s_exp.item() == pytest.approx(20.0)
    loss, info = relative_scale_loss(square(side=20), flat(1.0), square(side=40), flat(1.0))
    assert loss.item() == pytest.approx(math.log(2) ** 2, rel=1e-5)


def test_small_masks_are_named_with_what_helps() -> None:
    with pytest.warns(UserWarning, match="bbox_height"):
        depth_aware_scale_loss(square(side=3), flat(0.5), FOCAL, K)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        depth_aware_scale_loss(square(side=3), flat(0.5), FOCAL, K, scale_measure="bbox_height")
