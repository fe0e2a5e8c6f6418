from __future__ import annotations

import pytest
import torch

from sightline.geometry.rotations import exp
from sightline.nn.rope import so3_channels, so3_rope
from tests.tolerances import tolerance


def _random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_scores_hold_the_relative_rotation_alone():
    q, k = _random(2, 1, 4, 1, 24)
    R, S, frame = exp(_random(3, 1, 1, 3, seed=1))
    scores = so3_rope(q, R[None], 24) @ so3_rope(k, S[None], 24).mT
    moved = so3_rope(q, (R @ frame)[None], 24) @ so3_rope(k, (S @ frame)[None], 24).mT
    torch.testing.assert_close(scores, moved, **tolerance(torch.float64))
    q, k = q.unflatten(-1, (8, 3)), k.unflatten(-1, (8, 3))
    relative = torch.einsum("bhnti,ij,bhmtj->bhnm", q, (R @ S.mT)[0, 0], k)
    torch.testing.assert_close(scores, relative, **tolerance(torch.float64))


def test_a_picture_is_all_its_tokens():
    x, R = _random(2, 3, 4, 7, 20), exp(_random(2, 3, 1, 3, seed=1))
    once = so3_rope(x, R, 12)
    torch.testing.assert_close(once, so3_rope(x, R.expand(2, 3, 7, 3, 3), 12), **tolerance(torch.float64))
    assert torch.equal(once[..., 12:], x[..., 12:])
    torch.testing.assert_close(so3_rope(x[1, 2], R[1, 2], 12), once[1, 2], **tolerance(torch.float64))


def test_norm_mask_stride_and_dtype():
    stored = _random(2, 7, 4, 20)
    x, before, R = stored.transpose(1, 2), stored.clone(), exp(_random(2, 1, 3, seed=1))
    rope_mask = torch.arange(7).expand(2, 7) < 5
    out = so3_rope(x, R, 12, rope_mask)
    assert torch.equal(out[:, :, 5:], x[:, :, 5:])
    assert torch.equal(out[:, :, :5], so3_rope(x, R, 12)[:, :, :5])
    assert torch.equal(so3_rope(x, R, 12, torch.zeros_like(rope_mask)), x)
    assert torch.equal(stored, before)
    torch.testing.assert_close(out.norm(dim=-1), x.norm(dim=-1), **tolerance(torch.float64))
    assert so3_rope(x.bfloat16(), R, 12).dtype == torch.bfloat16


def test_gradient():
    R = exp(_random(1, 3, seed=1))
    assert torch.autograd.gradcheck(lambda x: so3_rope(x, R, 6), _random(2, 8).requires_grad_())


@pytest.mark.parametrize("head_dim", range(16, 132, 4))
def test_both_parts_of_the_channels_divide(head_dim):
    channels = so3_channels(head_dim)
    assert channels % 3 == 0 and (head_dim - channels) % 4 == 0 and 0 < channels < head_dim


def test_bad_channels():
    with pytest.raises(ValueError, match="multiple of 3 up to 8, got 4"):
        so3_rope(torch.rand(2, 8), torch.eye(3)[None], 4)
    with pytest.raises(ValueError, match="at least 16, got 8"):
        so3_channels(8)
