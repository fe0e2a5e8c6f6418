from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sightline.nn.rope import RoPE2D, rope_2d, rope_encode
from tests.real_data import golden_path
from tests.tolerances import tolerance


def _tokens(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def _places(*shape: int, seed: int = 1, most: int = 14) -> torch.Tensor:
    return torch.randint(0, most, (*shape, 2), generator=torch.Generator().manual_seed(seed))


def _rotate_half_reference(x: torch.Tensor, positions: torch.Tensor, base: float) -> torch.Tensor:
    """RoPE2D written the other way: concatenated angles and a rotated copy, half by half."""

    def one_axis(half: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
        width = half.shape[-1]
        frequencies = 1.0 / base ** (torch.arange(0, width, 2, dtype=x.dtype) / width)
        angles = places[..., None].to(x.dtype) * frequencies
        angles = torch.cat([angles, angles], dim=-1)
        swapped = torch.cat([-half[..., width // 2 :], half[..., : width // 2]], dim=-1)
        return half * angles.cos() + swapped * angles.sin()

    rows, columns = x.chunk(2, dim=-1)
    return torch.cat([one_axis(rows, positions[..., 0]), one_axis(columns, positions[..., 1])], dim=-1)


@pytest.mark.real
@pytest.mark.parametrize("name", ["rope", "rope16"])
def test_equals_croco(name):
    golden = np.load(golden_path("rope2d_and_croco.npz"))
    x, places, expected = (
        torch.from_numpy(golden[f"{name}_{part}"]) for part in ("tokens", "positions_yx", "out")
    )
    torch.testing.assert_close(RoPE2D()(x, places), expected, rtol=0, atol=1e-5)


def test_equals_the_rotate_half_form():
    x, places = _tokens(2, 3, 20, 64), _places(2, 20)
    expected = _rotate_half_reference(x, places[:, None], 100.0)
    torch.testing.assert_close(rope_2d(x, places), expected, **tolerance(torch.float64))


def test_the_first_half_is_y():
    x = _tokens(1, 16)
    moved = rope_2d(x, torch.tensor([[3, 0]]))
    assert torch.equal(moved[:, 8:], x[:, 8:])
    assert not torch.allclose(moved[:, :8], x[:, :8])


@settings(max_examples=20, deadline=None)
@given(st.integers(-20, 20), st.integers(-20, 20), st.sampled_from([8, 32, 64]))
def test_scores_are_relative_in_both_axes(down, right, width):
    q, k = _tokens(2, 12, width)
    places = _places(12)
    shift = torch.tensor([down, right])
    scores = rope_2d(q, places) @ rope_2d(k, places).mT
    moved = rope_2d(q, places + shift) @ rope_2d(k, places + shift).mT
    torch.testing.assert_close(scores, moved, rtol=0, atol=1e-9)


def test_norms_are_kept_and_heads_broadcast():
    x, places = _tokens(2, 5, 3, 7, 32), _places(2, 5, 7)
    out = rope_2d(x, places)
    torch.testing.assert_close(out.norm(dim=-1), x.norm(dim=-1), **tolerance(torch.float64))
    torch.testing.assert_close(out[:, :, 1], rope_2d(x[:, :, 1], places), **tolerance(torch.float64))


def test_masked_tokens_are_bit_identical():
    x, places = _tokens(2, 3, 4, 10, 16, dtype=torch.float32), _places(2, 3, 10)
    rope_mask = torch.rand(2, 3, 10, generator=torch.Generator().manual_seed(3)) < 0.5
    out = rope_encode(x, places, rope_mask)
    kept = ~rope_mask[:, :, None].expand(2, 3, 4, 10)
    assert torch.equal(out[kept], x[kept])
    turned = rope_2d(x, places)
    assert torch.equal(out[~kept], turned[~kept])


def test_mask_of_nothing_is_no_encoding_and_of_all_the_plain_one():
    x, places = _tokens(2, 6, 16, dtype=torch.float32), _places(2, 6)
    nothing = torch.zeros(2, 6, dtype=torch.bool)
    assert torch.equal(rope_encode(x, places, nothing), x)
    assert torch.equal(rope_encode(x, places, ~nothing), rope_2d(x, places))


def test_any_stride_and_nothing_in_place():
    x, places = _tokens(2, 9, 3, 16), _places(2, 9)
    before = x.clone()
    strided = rope_2d(x.transpose(1, 2), places)
    assert torch.equal(x, before)
    assert torch.equal(strided, rope_2d(x.transpose(1, 2).contiguous(), places))


def test_bfloat16_rounds_once():
    x, places = _tokens(4, 30, 64, dtype=torch.float32).bfloat16(), _places(30)
    out = rope_2d(x, places)
    assert out.dtype == torch.bfloat16
    assert torch.equal(out, rope_2d(x.float(), places).bfloat16())


def test_gradient():
    x = _tokens(2, 5, 8).requires_grad_()
    rope_mask = torch.tensor([True, False, True, True, False])
    assert torch.autograd.gradcheck(lambda tokens: rope_encode(tokens, _places(2, 5), rope_mask), x)


def test_width_must_be_a_multiple_of_four():
    with pytest.raises(ValueError, match="multiple of 4, got 6"):
        rope_2d(torch.rand(3, 6), torch.zeros(3, 2))
