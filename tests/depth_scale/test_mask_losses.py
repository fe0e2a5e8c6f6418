"""The losses beside the depth term: their formulas, gradients, and samples that cannot be judged."""

import math

import pytest
import torch
from torch.autograd import gradcheck
from torch.nn import functional

from sightline.depth_scale.distance import signed_distance
from sightline.depth_scale.latent_losses import background_preservation_mse_latent, weighted_masked_mse_latent
from sightline.depth_scale.mask_losses import (
    area_loss,
    boundary_loss,
    depth_consistency_loss,
    dice_loss,
    fill_losses,
)


def _rand(*shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _square(batch=1, size=12, start=3, stop=8):
    mask = torch.zeros(batch, 1, size, size, dtype=torch.float64)
    mask[..., start:stop, start:stop] = 1.0
    return mask


def _edge_masks():
    """Empty, full, one pixel, a square: the masks that break losses."""
    pixel = torch.zeros(1, 1, 12, 12, dtype=torch.float64)
    pixel[..., 5, 6] = 1.0
    return torch.cat([torch.zeros_like(pixel), torch.ones_like(pixel), pixel, _square()])


FILLS = [dice_loss, area_loss, boundary_loss]


def test_weighted_masked_mse():
    z_pred, z_tgt, mask = _rand(2, 3, 12, 12), _rand(2, 3, 12, 12, seed=1), 0.9 * _square(2)
    inside = (mask > 0.5).double()
    dilated, eroded = functional.max_pool2d(inside, 3, 1, 1), 1 - functional.max_pool2d(1 - inside, 3, 1, 1)
    weights = 1.0 * mask + 6.0 * (dilated - eroded).clamp(0, 1) + 0.2 * (1 - dilated)
    error = (z_pred - z_tgt).square().mean(1, keepdim=True)
    got = weighted_masked_mse_latent(z_pred, z_tgt, mask).loss
    torch.testing.assert_close(got, (weights * error).sum() / weights.sum())
    # The rim of the object weighs 7.
    one = torch.zeros_like(z_pred)
    one[0, :, 3, 5] = 1.0
    rim = weighted_masked_mse_latent(z_tgt + one, z_tgt, _square(2)).loss
    torch.testing.assert_close(rim * (weights + mask / 9).sum(), torch.tensor(7.0, dtype=torch.float64))


def test_background_preservation():
    z_pred, z_ctx, mask = _rand(2, 3, 12, 12), _rand(2, 3, 12, 12, seed=1), _square(2)
    outside = torch.ones(12, 12, dtype=torch.bool)
    outside[2:9, 2:9] = False
    expected = (z_pred - z_ctx).square()[..., outside].mean()
    torch.testing.assert_close(background_preservation_mse_latent(z_pred, z_ctx, mask).loss, expected)
    z_pred[..., 2:9, 2:9] = 1e3
    torch.testing.assert_close(background_preservation_mse_latent(z_pred, z_ctx, mask).loss, expected)


def test_full_mask_has_no_background():
    loss, valid = background_preservation_mse_latent(
        torch.ones(1, 2, 4, 4), torch.zeros(1, 2, 4, 4), torch.ones(4, 4)
    )
    assert loss == 0
    assert valid.all()


@pytest.mark.parametrize("loss", [weighted_masked_mse_latent, background_preservation_mse_latent])
def test_latents_that_are_not_finite_are_left_out(loss):
    z_pred, z_other, mask = _rand(3, 2, 12, 12), _rand(3, 2, 12, 12, seed=1), _square(3)
    alone = loss(z_pred[[0, 2]], z_other[[0, 2]], mask[[0, 2]]).loss
    z_other[1, 0, 0, 0] = torch.nan
    z_pred.requires_grad_()
    got, valid = loss(z_pred, z_other, mask)
    got.backward()
    assert valid.tolist() == [True, False, True]
    torch.testing.assert_close(got, alone)
    assert not z_pred.grad[1].any()
    assert z_pred.grad[0].any()
    left_out = loss(z_pred, z_other, mask, counts=torch.tensor([True, True, False]))
    torch.testing.assert_close(left_out.loss, loss(z_pred[:1], z_other[:1], mask[:1]).loss)


def test_dice_and_area():
    pred, target = _rand(3, 1, 12, 12), _square(3)
    shared, p, t = ((x).sum((1, 2, 3)) for x in (pred * target, pred, target))
    torch.testing.assert_close(
        dice_loss(pred, target).loss, (1 - (2 * shared + 1e-6) / (p + t + 1e-6)).mean()
    )
    torch.testing.assert_close(area_loss(pred, target).loss, (p / t).log().square().mean())
    weight = torch.tensor([1.0, 0.5, 0.0])
    torch.testing.assert_close(
        area_loss(pred, target, sample_weight=weight).loss, (weight * (p / t).log().square()).mean()
    )


def test_area_is_symmetric_and_bounded():
    small, large = _square(stop=5), _square(stop=9)
    torch.testing.assert_close(area_loss(small, large).loss, area_loss(large, small).loss)
    nothing = torch.zeros_like(small).requires_grad_()
    loss = area_loss(nothing, large).loss
    torch.testing.assert_close(loss.item(), (1 + math.log(36)) ** 2)
    loss.backward()
    # Growing is what it asks for, at a bounded rate.
    assert (nothing.grad < 0).all()
    assert nothing.grad.abs().max() < 10


def test_boundary():
    pred, target = _rand(2, 1, 12, 12), _square(2)
    expected = (pred * signed_distance(target)).mean()
    torch.testing.assert_close(boundary_loss(pred, target).loss, expected)
    kept = boundary_loss(pred, signed_distance=signed_distance(target))
    torch.testing.assert_close(kept.loss, expected)
    published = boundary_loss(pred, target, convention="kervadec").loss
    torch.testing.assert_close(published, expected + 0.5 * pred.mean())
    assert boundary_loss(target, target, normalise=True).loss.abs() < boundary_loss(target, target).loss.abs()
    shifted = boundary_loss(target.roll(2, -1), target).loss
    assert boundary_loss(target, target).loss < shifted < boundary_loss(1 - target, target).loss


@pytest.mark.parametrize("loss", FILLS)
def test_gradient_of_fills(loss):
    pred = (0.1 + 0.8 * _rand(2, 1, 12, 12)).requires_grad_()
    weight = torch.tensor([0.3, 1.0])
    assert gradcheck(lambda p: loss(p, _square(2), sample_weight=weight).loss, pred)


@pytest.mark.parametrize("loss", FILLS)
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_bad_samples_are_left_out(loss, value):
    target = torch.cat([_square(), torch.zeros(1, 1, 12, 12), _square(), _square(), _square(stop=10)])
    pred = 0.1 + 0.8 * _rand(5, 1, 12, 12)
    alone = loss(pred[[0, 4]], target[[0, 4]]).loss
    pred[2, 0, 5, 5] = value
    if loss is boundary_loss:
        target = signed_distance(target).double()
    target[3, 0, 5, 5] = value
    pred.requires_grad_()
    result = loss(pred, signed_distance=target) if loss is boundary_loss else loss(pred, target)
    result.loss.backward()
    assert result.valid.tolist() == [True, False, False, False, True]
    torch.testing.assert_close(result.loss, alone)
    assert pred.grad[[0, 4]].flatten(1).any(1).all()
    assert not pred.grad[1:4].any()


@pytest.mark.parametrize("loss", FILLS)
def test_nothing_to_judge_is_zero(loss):
    pred = _rand(2, 1, 12, 12).requires_grad_()
    result, valid = loss(pred, torch.zeros(2, 1, 12, 12))
    result.backward()
    assert result == 0
    assert not valid.any()
    assert not pred.grad.any()


@pytest.mark.parametrize("loss", FILLS)
def test_edge_masks_have_finite_gradients(loss):
    for target in _edge_masks().split(1):
        pred = _edge_masks().requires_grad_()
        result = loss(pred, target.expand(4, -1, -1, -1))
        result.loss.backward()
        assert result.loss.isfinite()
        assert pred.grad.isfinite().all()
        assert pred.grad.abs().max() < 100


@pytest.mark.parametrize("loss", FILLS)
def test_half_precision_and_shapes(loss):
    pred, target = _rand(3, 12, 12).half(), _square()[0, 0] > 0.5
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = loss(pred, target).loss
    assert got.dtype == torch.float32
    torch.testing.assert_close(
        got.double(), loss(pred.double()[:, None], _square(3)).loss, rtol=1e-5, atol=1e-6
    )


def test_fills_in_one_go_are_the_same():
    pred = torch.cat([0.1 + 0.8 * _rand(4, 1, 12, 12)])
    target = _edge_masks()
    counts, weight = torch.tensor([True, True, True, False]), torch.tensor([1.0, 0.5, 0.25, 1.0]).double()
    together = fill_losses(
        pred, target, signed_distance(target).double(), counts=counts, sample_weight=weight
    )
    for got, loss in zip(together, FILLS, strict=True):
        expected = loss(pred, target, counts=counts, sample_weight=weight)
        torch.testing.assert_close(got.loss, expected.loss)
        assert torch.equal(got.valid, expected.valid)


def _depths():
    pred, target = 1 + _rand(2, 1, 12, 12), 1 + _rand(2, 1, 12, 12, seed=1)
    return pred, target, _square(2)


def test_depth_consistency():
    pred, target, mask = _depths()
    dilated = functional.max_pool2d(mask, 3, 1, 1)
    band = dilated - (1 - functional.max_pool2d(1 - mask, 3, 1, 1))

    def mean(values, weights):
        return (values * weights).sum((1, 2, 3)) / weights.sum((1, 2, 3))

    def smooth(a, b):
        return functional.smooth_l1_loss(a, b, beta=0.1, reduction="none")

    steps, pairs = [], []
    for axis in (-1, -2):
        steps.append(smooth(pred.diff(dim=axis), target.diff(dim=axis)).flatten(1))
        pairs.append(((band.diff(dim=axis) == 0) & (band.narrow(axis, 1, 11) == 1)).double().flatten(1))
    steps, pairs = torch.cat(steps, 1), torch.cat(pairs, 1)
    error = smooth(pred, target)
    expected = (
        mean(error, mask) + 0.5 * mean(error, 1 - dilated) + 0.5 * (steps * pairs).sum(1) / pairs.sum(1)
    )
    torch.testing.assert_close(depth_consistency_loss(pred, target, mask).loss, expected.mean())
    assert depth_consistency_loss(target, target, mask).loss == 0


def test_depth_consistency_gradient():
    pred, target, mask = _depths()
    confidence = _rand(2, 1, 12, 12, seed=2)
    target[0, 0, 4, 4] = torch.nan
    loss = lambda p: depth_consistency_loss(p, target, mask, confidence=confidence).loss  # noqa: E731
    assert gradcheck(loss, pred.requires_grad_())


def test_missing_depth_is_not_read():
    pred, target, mask = _depths()
    trusted = torch.ones_like(target)
    trusted[0, 0, :, 6:] = 0.0
    expected = depth_consistency_loss(pred, target, mask, confidence=trusted).loss
    target[0, 0, :3, 6:], target[0, 0, 3:, 6:] = torch.nan, torch.inf
    pred[0, 0, 0, 6] = torch.nan
    pred.requires_grad_()
    got, valid = depth_consistency_loss(pred, target, mask)
    got.backward()
    torch.testing.assert_close(got, expected)
    assert valid.all()
    assert pred.grad.isfinite().all()
    target[1] = torch.nan
    assert depth_consistency_loss(pred, target, mask).valid.tolist() == [True, False]


@pytest.mark.parametrize("loss", FILLS)
def test_no_value_is_read_on_another_device(loss):
    pred = torch.zeros(2, 1, 8, 8, device="meta", requires_grad=True)
    loss(pred, torch.zeros(2, 1, 8, 8, device="meta")).loss.backward()
    assert pred.grad.shape == pred.shape


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="expected exactly one of target_mask01 and signed_distance"):
        boundary_loss(torch.zeros(4, 4))
    with pytest.raises(ValueError, match="pred_mask01 and target_mask01: expected the same height and width"):
        dice_loss(torch.zeros(4, 4), torch.zeros(5, 4))
    with pytest.raises(ValueError, match=r"mask: expected a mask for \(1, 1, 4, 4\), got \(3, 3\)"):
        weighted_masked_mse_latent(torch.zeros(1, 2, 4, 4), torch.zeros(1, 2, 4, 4), torch.zeros(3, 3))
