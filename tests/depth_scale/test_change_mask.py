"""The soft change mask: the bias of the published form, and what the others do about it."""

import math

import pytest
import torch
from torch.autograd import gradcheck

from sightline.depth_scale.change_mask import (
    ChangeMaskForm,
    named_form,
    soft_change_mask_from_latents,
)
from sightline.depth_scale.mask_losses import area_loss, dice_loss
from sightline.depth_scale.regions import dilate


def _insertion(amplitude=2.0, noise=0.1, channels=16, seed=0, size=64, dtype=torch.float32):
    """A perfect insertion of 20x20 cells into 64x64, but for the noise that a model leaves everywhere."""
    g = torch.Generator().manual_seed(seed)
    mask = torch.zeros(1, 1, size, size, dtype=dtype)
    mask[..., 20:40, 20:40] = 1.0
    z_ctx = torch.randn(1, channels, size, size, generator=g, dtype=dtype)
    direction = torch.randn(1, channels, 1, 1, generator=g, dtype=dtype)
    change = amplitude * mask * direction / direction.norm() * math.sqrt(channels)
    return z_ctx + change + noise * torch.randn(z_ctx.shape, generator=g, dtype=dtype), z_ctx, mask


def _judged(form, **kwargs):
    z_pred, z_ctx, mask = _insertion(**kwargs)
    changed, _, _ = soft_change_mask_from_latents(z_pred, z_ctx, mask, form=form)
    area = changed.sum().item()
    return area, (0.5 * math.log(area / 400)) ** 2, dice_loss(changed, mask).loss.item()


@pytest.mark.parametrize("seed", range(3))
def test_published_form_is_biased_at_the_perfect_result(seed):
    area, scale_loss, dice = _judged("original", seed=seed)
    assert area == pytest.approx(972, rel=0.02)
    assert scale_loss == pytest.approx(0.197, rel=0.05)
    assert 4 * scale_loss == pytest.approx(0.788, rel=0.05)
    assert dice == pytest.approx(0.417, rel=0.03)


@pytest.mark.parametrize("form", ["unbiased", "graded", ChangeMaskForm(robust=True)])
@pytest.mark.parametrize("channels", [4, 16])
@pytest.mark.parametrize("noise", [0.02, 0.1])
def test_other_forms_are_not(form, channels, noise):
    area, scale_loss, dice = _judged(form, channels=channels, noise=noise)
    assert area == pytest.approx(400, rel=0.05)
    assert scale_loss < 1e-3
    assert dice < 0.03


def _gradients(form, **kwargs):
    z_pred, z_ctx, mask = _insertion(**kwargs)
    changed, _, _ = soft_change_mask_from_latents(z_pred.requires_grad_(), z_ctx, mask, form=form)
    loss = dice_loss(changed, mask).loss + area_loss(changed, mask).loss
    gradient = torch.autograd.grad(loss, z_pred)[0].abs()
    return (gradient * mask).sum().item(), (gradient * (1 - mask)).sum().item()


def test_published_form_pulls_at_the_background_and_the_others_at_the_object():
    # A weak insertion: there is all reason to change the object, and none to change the noise.
    inside, background = _gradients("original", amplitude=0.25, channels=4)
    assert inside < 0.5 * background
    for form in ("unbiased", "graded"):
        inside, background = _gradients(form, amplitude=0.25, channels=4)
        assert inside > 5 * background


def test_only_the_graded_form_can_shrink_a_strong_insertion():
    z_pred, z_ctx, mask = _insertion(amplitude=3.0)
    smaller = torch.zeros_like(mask)
    smaller[..., 25:35, 25:35] = 1.0
    pulls = {}
    for form in ("unbiased", "graded"):
        z = z_pred.clone().requires_grad_()
        changed, _, _ = soft_change_mask_from_latents(z, z_ctx, mask, form=form)
        gradient = torch.autograd.grad(area_loss(changed, smaller).loss, z)[0]
        toward_context = (gradient * (z_pred - z_ctx) * mask).sum()
        pulls[form] = toward_context.item()
    assert pulls["unbiased"] < 1e-6
    assert pulls["graded"] > 1e-2


def test_statistics_are_detached_unless_asked():
    z_pred, z_ctx, mask = _insertion(size=48, amplitude=0.2)
    for form, moves in (("unbiased", False), (ChangeMaskForm(detach=False), True)):
        z = z_pred.clone().requires_grad_()
        changed, _, _ = soft_change_mask_from_latents(z, z_ctx, mask, form=form)
        # Does the background move the mask of the object?
        gradient = torch.autograd.grad(changed[0, 0, 25, 25], z)[0][0, :, :5, :5]
        assert bool(gradient.any()) is moves


def _small_insertion():
    z_pred, z_ctx, mask = _insertion(amplitude=0.3, channels=2, size=48, dtype=torch.float64)
    return (x[..., 17:26, 17:26].contiguous() for x in (z_pred, z_ctx, mask))


@pytest.mark.parametrize("form", ["original", ChangeMaskForm(detach=False, graded=4.0)])
def test_gradient_through_the_statistics(form):
    z_pred, z_ctx, mask = _small_insertion()
    assert gradcheck(
        lambda z: soft_change_mask_from_latents(z, z_ctx, mask, form=form)[0], z_pred.requires_grad_()
    )


@pytest.mark.parametrize("form", ["unbiased", "graded"])
def test_gradient_past_the_statistics(form):
    z_pred, z_ctx, mask = _small_insertion()
    z_pred.requires_grad_()
    changed, statistics, distance = soft_change_mask_from_latents(z_pred, z_ctx, mask, form=form)
    weight = torch.rand(changed.shape, dtype=torch.float64)
    got = torch.autograd.grad((weight * changed).sum(), z_pred)[0]
    idle = (dilate(mask, 1) == 0) & (distance < statistics.tau)
    assert idle.any()
    expected = weight * changed * (1 - changed) / statistics.slope * (z_pred - z_ctx) / distance * ~idle
    torch.testing.assert_close(got, expected)


def test_statistics():
    z_pred, z_ctx, mask = _insertion(channels=4)
    _, statistics, distance = soft_change_mask_from_latents(z_pred, z_ctx, mask, band_radius=3)
    torch.testing.assert_close(distance, torch.linalg.vector_norm(z_pred - z_ctx, dim=1, keepdim=True))
    background = torch.ones(64, 64, dtype=torch.bool)
    background[17:43, 17:43] = False
    values = distance[0, 0][background]
    torch.testing.assert_close(statistics.mean.squeeze(), values.mean())
    spread = (values.var(correction=0) + 1e-4).sqrt()
    torch.testing.assert_close(statistics.spread.squeeze(), spread)
    torch.testing.assert_close(statistics.tau.squeeze(), values.mean() + 4 * spread)
    torch.testing.assert_close(statistics.slope.squeeze(), 0.5 * spread)
    robust = soft_change_mask_from_latents(z_pred, z_ctx, mask, form=ChangeMaskForm(robust=True))[1]
    assert robust.spread.item() == pytest.approx(spread.item(), rel=0.15)


def test_robust_statistics_ignore_a_spoilt_corner():
    z_pred, z_ctx, mask = _insertion()
    z_pred[..., :8, :8] += 5.0
    plain, robust = (
        soft_change_mask_from_latents(z_pred, z_ctx, mask, form=ChangeMaskForm(robust=r))[1]
        for r in (False, True)
    )
    clean = soft_change_mask_from_latents(*_insertion())[1]
    assert plain.spread > 5 * robust.spread
    assert robust.spread < 2 * clean.spread


def test_what_was_drawn_beyond_the_place_can_be_taken_back():
    z_pred, z_ctx, mask = _insertion(amplitude=0.5)
    z_pred[..., 50:54, 50:54] += 0.25
    z_pred.requires_grad_()
    changed, _, _ = soft_change_mask_from_latents(z_pred, z_ctx, mask)
    gradient = torch.autograd.grad(dice_loss(changed, mask).loss, z_pred)[0].abs().sum(1)[0]
    assert (gradient[50:54, 50:54] > 0).float().mean() > 0.9
    assert not gradient[:19].any()


def test_untouched_background_is_no_step_function():
    z_pred, z_ctx, mask = _insertion(noise=0.0)
    for form in ("unbiased", "graded"):
        changed, statistics, _ = soft_change_mask_from_latents(z_pred, z_ctx, mask, form=form)
        assert changed[mask == 0].max() < 1e-2
        assert changed[mask == 1].min() > 0.99
        assert statistics.slope >= 0.005
    nothing, _, _ = soft_change_mask_from_latents(z_ctx.requires_grad_(), z_ctx.detach(), mask)
    assert nothing.max() < 1e-2
    assert torch.autograd.grad(nothing.sum(), z_ctx)[0].isfinite().all()


def test_samples_that_cannot_be_judged():
    z_pred, z_ctx, mask = (x.repeat(3, 1, 1, 1) for x in _insertion())
    z_pred[1, 0, 0, 0] = torch.nan
    place = mask.clone()
    place[2] = 1.0
    changed, statistics, distance = soft_change_mask_from_latents(z_pred.requires_grad_(), z_ctx, place)
    assert statistics.valid.tolist() == [True, False, False]
    assert changed.isfinite().all()
    assert distance.isfinite().all()
    assert torch.autograd.grad(changed.sum(), z_pred)[0].isfinite().all()


def test_without_a_place_all_is_background():
    z_pred, z_ctx, _ = _insertion(amplitude=0.0)
    changed, statistics, distance = soft_change_mask_from_latents(z_pred, z_ctx)
    torch.testing.assert_close(statistics.mean.squeeze(), distance.mean())
    assert changed.mean() < 0.01


def test_bad_input_is_named():
    z_pred, z_ctx, _ = _insertion()
    with pytest.raises(
        ValueError, match="change mask: expected unbiased, graded, original or a ChangeMaskForm, got 'hard'"
    ):
        named_form.__wrapped__("hard")
    with pytest.raises(ValueError, match=r"place: expected a mask for \(1, 1, 64, 64\), got \(32, 32\)"):
        soft_change_mask_from_latents(z_pred, z_ctx, torch.zeros(32, 32))
