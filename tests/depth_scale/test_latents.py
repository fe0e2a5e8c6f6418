"""Latents: distances and their gradient, packing, clean latents, trust by time."""

import pytest
import torch
from torch.autograd import gradcheck

from sightline.depth_scale.latents import (
    clean_latents_from_velocity,
    geometry_weight,
    pack_latents,
    squared_latent_distances,
    unpack_latents,
)


def _latents(*shape, seed=0, dtype=torch.float64):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def test_distances_are_sums_over_channels():
    z, a, b = (_latents(2, 3, 4, 5, seed=i) for i in range(3))
    first, second = squared_latent_distances(z, a, b)
    torch.testing.assert_close(first.squared, (z - a).square().sum(1, keepdim=True))
    torch.testing.assert_close(second.squared, (z - b).square().sum(1, keepdim=True))
    assert first.finite.tolist() == [True, True]


def test_gradient_of_distances():
    z, a, b = (_latents(2, 3, 4, 5, seed=i) for i in range(3))

    def both(z):
        first, second = squared_latent_distances(z, a, b)
        return first.squared.sin() + 2 * second.squared

    assert gradcheck(both, z.requires_grad_())
    # Only one of both is used: the other's gradient arrives as zeros.
    assert gradcheck(lambda z: squared_latent_distances(z, a, b)[1].squared, z)


def test_strided_latents():
    z, a = _latents(2, 4, 5, 3).permute(0, 3, 1, 2), _latents(1, 3, 4, 5, seed=1).expand(2, 3, 4, 5)
    z = z.requires_grad_()
    distance = squared_latent_distances(z, a)[0].squared
    gradient = torch.autograd.grad(distance.sum(), z)[0]
    torch.testing.assert_close(distance, (z - a).square().sum(1, keepdim=True))
    torch.testing.assert_close(gradient, 2 * (z - a).detach())


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("where", ["prediction", "reference"])
def test_a_broken_sample_stays_alone(value, where):
    z, a = _latents(3, 2, 4, 4), _latents(3, 2, 4, 4, seed=1)
    expected = 2 * (z - a)
    (z if where == "prediction" else a)[1, 0, 2, 3] = value
    z.requires_grad_()
    squared, finite = squared_latent_distances(z, a)[0]
    assert finite.tolist() == [True, False, True]
    gradient = torch.autograd.grad(squared.sum(), z)[0]
    assert gradient.isfinite().all()
    torch.testing.assert_close(gradient[[0, 2]], expected[[0, 2]])


def test_half_precision_is_raised():
    z, a = _latents(1, 2, 2, 2).bfloat16().requires_grad_(), _latents(1, 2, 2, 2, seed=1).half()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        squared = squared_latent_distances(z, a)[0].squared
    squared.sum().backward()
    assert squared.dtype == torch.float32
    assert z.grad.dtype == torch.bfloat16
    torch.testing.assert_close(squared, (z.float() - a.float()).square().sum(1, keepdim=True))


def test_form_of_other_devices_has_the_same_numbers(monkeypatch):
    from sightline.depth_scale import latents

    z, a, b = (_latents(3, 4, 6, 5, seed=i) for i in range(3))
    weights = torch.rand(3, 1, 6, 5, dtype=torch.float64)
    z.requires_grad_()
    results = []
    for device in ("cpu", "accelerator"):
        monkeypatch.setattr(latents, "_is_compiled_for", lambda _z, device=device: device == "cpu")
        first, second = squared_latent_distances(z, a, b)
        loss = (weights * first.squared + second.squared.sqrt()).sum()
        results.append((first.squared, second.squared, torch.autograd.grad(loss, z)[0]))
    for compiled, plain in zip(*results, strict=True):
        torch.testing.assert_close(compiled, plain)


def test_no_value_is_read_on_another_device():
    z = torch.zeros(2, 4, 8, 8, device="meta", requires_grad=True)
    squared_latent_distances(z, torch.zeros_like(z))[0].squared.sum().backward()
    assert z.grad.shape == z.shape


def test_unequal_latents_are_refused():
    with pytest.raises(ValueError, match=r"same shape \(B, C, h, w\), got \(1, 4, 2, 2\) and \(1, 3, 2, 2\)"):
        squared_latent_distances.__wrapped__(torch.zeros(1, 4, 2, 2), torch.zeros(1, 3, 2, 2))


def test_packing_has_the_order_of_flux():
    z = _latents(2, 16, 6, 4)
    tokens = pack_latents(z)
    assert tokens.shape == (2, 6, 64)
    for row, column, channel, dy, dx in ((0, 0, 0, 0, 1), (2, 1, 15, 1, 0), (1, 0, 7, 1, 1)):
        token = tokens[:, row * 2 + column, 4 * channel + 2 * dy + dx]
        assert torch.equal(token, z[:, channel, 2 * row + dy, 2 * column + dx])
    assert torch.equal(unpack_latents(tokens, 6, 4), z)


def test_bad_packing_is_refused():
    with pytest.raises(ValueError, match=r"even height and width, got \(1, 4, 3, 4\)"):
        pack_latents(torch.zeros(1, 4, 3, 4))
    with pytest.raises(ValueError, match="even height 3 and width 4"):
        unpack_latents(torch.zeros(1, 3, 16), 3, 4)
    with pytest.raises(ValueError, match=r"got \(1, 5, 16\)"):
        unpack_latents(torch.zeros(1, 5, 16), 4, 4)


@pytest.mark.parametrize(
    "t", [0.3, torch.tensor(0.3), torch.tensor([0.3, 0.9]), torch.tensor([[0.3], [0.9]])]
)
def test_velocity_points_to_the_clean_latents(t):
    clean, noise = _latents(2, 4, 6, 6), _latents(2, 4, 6, 6, seed=1)
    at = torch.as_tensor(t, dtype=torch.float64).reshape(-1, 1, 1, 1)
    noisy, velocity = (1 - at) * clean + at * noise, noise - clean
    got = clean_latents_from_velocity(noisy, velocity, t)
    torch.testing.assert_close(got, clean, rtol=0, atol=1e-6)
    packed = clean_latents_from_velocity(pack_latents(noisy), pack_latents(velocity), t)
    torch.testing.assert_close(unpack_latents(packed, 6, 6), got)


def test_trust_falls_with_noise():
    t = torch.linspace(0, 1, 11, dtype=torch.float64)
    torch.testing.assert_close(geometry_weight(t), 1 - t)
    snr = geometry_weight(t, weighting="snr", full_snr=4.0)
    assert snr[0] == 1
    assert snr[-1] == 0
    torch.testing.assert_close(snr[5], torch.tensor(0.25, dtype=torch.float64))
    assert (snr.diff() <= 0).all()
    assert geometry_weight(0.25, 3).tolist() == [0.75] * 3
    assert geometry_weight(torch.tensor(0.25), 2).tolist() == [0.75] * 2


def test_bad_times_are_refused():
    with pytest.raises(ValueError, match=r"t: expected a time in \[0, 1\], got 1.5"):
        geometry_weight(1.5)
    with pytest.raises(ValueError, match="weighting: expected one of linear, snr, got 'cosine'"):
        geometry_weight.__wrapped__(0.5, weighting="cosine")
    with pytest.raises(ValueError, match="x_t, velocity: expected the same shape"):
        clean_latents_from_velocity.__wrapped__(torch.zeros(1, 2), torch.zeros(1, 3), 0.5)
