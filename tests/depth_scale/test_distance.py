"""Distances of masks against SciPy's, compiled and in torch."""

import numpy as np
import pytest
import torch
from scipy.ndimage import distance_transform_edt

from sightline.depth_scale.distance import distance_transform, signed_distance, signed_distance_torch


def _stack_of_masks(height: int, width: int) -> torch.Tensor:
    g = torch.Generator().manual_seed(height * 1000 + width)
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    noise = [torch.rand(height, width, generator=g) < share for share in (0.5, 0.9, 0.02)]
    pixel, hole = torch.zeros(height, width, dtype=torch.bool), torch.ones(height, width, dtype=torch.bool)
    pixel[height // 3, -1], hole[-1, width // 4] = True, False
    ring = ((x - 0.4 * width) ** 2 + (y - 0.6 * height) ** 2).float().sqrt().sub(0.3 * width).abs() < 1.0
    stripes = [x == width // 2, y == 0, (x + y) % 2 == 0, x == y, (x // 3 + y // 2) % 2 == 0]
    masks = [m for m in [*noise, *stripes, pixel, hole, ring] if m.any() and not m.all()]
    return torch.stack(masks)[:, None]


def _scipy(masks: torch.Tensor) -> torch.Tensor:
    return torch.from_numpy(np.stack([distance_transform_edt(m) for m in masks[:, 0].numpy()]))[:, None]


def _symmetric(masks: torch.Tensor) -> torch.Tensor:
    return torch.where(masks, 0.5 - _scipy(masks), _scipy(~masks) - 0.5)


@pytest.mark.parametrize("size", [(1, 9), (9, 1), (2, 2), (5, 7), (31, 17), (64, 64), (20, 90)])
def test_distances_are_scipys(size):
    masks = _stack_of_masks(*size)
    for got in (signed_distance(masks), signed_distance_torch(masks[:, 0].float())[:, None]):
        torch.testing.assert_close(got.double(), _symmetric(masks), rtol=0, atol=1e-5)
    torch.testing.assert_close(distance_transform(masks).double(), _scipy(masks), rtol=0, atol=1e-5)


def test_torch_form_in_pieces(monkeypatch):
    masks = _stack_of_masks(13, 11)[:, 0].float()
    whole = signed_distance_torch(masks)
    monkeypatch.setattr("sightline.depth_scale.distance._MOST_CANDIDATES", 3 * masks.numel())
    assert torch.equal(signed_distance_torch(masks), whole)


def test_strided_masks():
    turned = _stack_of_masks(20, 30).transpose(-1, -2)
    assert torch.equal(signed_distance(turned), signed_distance(turned.contiguous()))
    expanded = turned[:1].expand(3, 1, 30, 20)
    assert torch.equal(signed_distance(expanded)[2], signed_distance(turned)[0])


def test_large_picture_has_no_overflow():
    # float32 holds the squares only up to 4096 px; the distance itself stays good to 1e-6 relative.
    mask = torch.zeros(1, 3, 9000)
    mask[0, 0, 0] = 1.0
    for got in (signed_distance(mask)[:, 0], signed_distance_torch(mask)):
        assert got[0, 2, -1].item() == pytest.approx(np.hypot(2, 8999) - 0.5, rel=1e-6)


@pytest.mark.parametrize("value", [False, True])
@pytest.mark.parametrize("convention", ["symmetric", "kervadec"])
def test_a_mask_without_border_is_zero_and_no_phantom_corner(value, convention):
    masks = torch.full((2, 1, 6, 6), value)
    masks[1, 0, 2:4, 2:4] = not value
    phi = signed_distance(masks, convention=convention, normalise=value)
    assert not phi[0].any()
    assert phi[1].amax() > 0
    assert not distance_transform(masks)[0].any()
    assert not signed_distance_torch(masks[:, 0].float())[0].any()


def test_border_lies_between_the_pixels():
    masks = _stack_of_masks(24, 24)
    phi = signed_distance(masks)
    assert torch.equal(phi, -signed_distance(~masks))
    assert phi.abs().min() == 0.5


def test_published_form():
    masks = _stack_of_masks(24, 24)
    expected = _scipy(~masks) - (_scipy(masks) - 1.0) * masks
    got = signed_distance(masks, convention="kervadec")
    torch.testing.assert_close(got.double(), expected, rtol=0, atol=1e-5)


def test_normalised_to_one():
    masks = _stack_of_masks(12, 12)
    masks[0] = False
    phi = signed_distance(masks, normalise=True)
    assert phi[1:].abs().flatten(1).amax(1).tolist() == pytest.approx([1.0] * (len(masks) - 1))
    assert not phi[0].any()


@pytest.mark.parametrize("shape", [(4, 5), (2, 4, 5), (2, 1, 4, 5)])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_shapes_and_soft_masks(shape, dtype):
    soft = torch.rand(shape, generator=torch.Generator().manual_seed(0)).to(dtype)
    batch = 1 if len(shape) == 2 else 2
    assert signed_distance(soft).shape == (batch, 1, 4, 5)
    assert torch.equal(signed_distance(soft), signed_distance(soft > 0.5))
    assert torch.equal(distance_transform((soft > 0.5).long()), distance_transform(soft))


def test_no_gradient_reaches_the_mask():
    assert not signed_distance(torch.rand(4, 5, requires_grad=True)).requires_grad


def test_bad_input_is_named():
    with pytest.raises(ValueError, match=r"mask: expected \(H, W\).*got \(2, 3, 4, 5\)"):
        signed_distance(torch.zeros(2, 3, 4, 5))
    with pytest.raises(ValueError, match="convention: expected one of symmetric, kervadec, got 'inner'"):
        signed_distance.__wrapped__(torch.zeros(4, 5), convention="inner")


def test_no_value_is_read_on_another_device():
    masks = torch.zeros(2, 1, 8, 8, device="meta", dtype=torch.bool)
    assert signed_distance(masks, normalise=True, convention="kervadec").device.type == "meta"
    assert distance_transform(masks).shape == masks.shape
