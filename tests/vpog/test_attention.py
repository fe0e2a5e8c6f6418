from __future__ import annotations

import pytest
import torch

from sightline.vpog.attention import DropPath, Heads, PartialAttention, attend


def _random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_attend_is_softmax():
    q, k, v = _random(3, 2, 4, 3, 5, 8)
    valid = torch.rand(2, 4, 5, generator=torch.Generator().manual_seed(1)) < 0.6
    valid[..., 0] = True
    scores = (q @ k.mT / 8**0.5).masked_fill(~valid[:, :, None, None], -torch.inf)
    torch.testing.assert_close(attend(q, k, v, valid), scores.softmax(-1) @ v)
    torch.testing.assert_close(attend(q, k, v), (q @ k.mT / 8**0.5).softmax(-1) @ v)


@pytest.mark.parametrize("sizes", [(1, 6), (3, 2, 2), (7,)])
def test_parts_of_keys_sum_exactly(sizes):
    q, k, v = 3 * _random(2, 3, 4, 8), 3 * _random(2, 3, 7, 8, seed=1), _random(2, 3, 7, 8, seed=2)
    total = None
    for part_k, part_v in zip(k.split(sizes, -2), v.split(sizes, -2), strict=True):
        part = PartialAttention.over(q, part_k, part_v)
        total = part if total is None else total.with_other(part)
    assert total is not None
    torch.testing.assert_close(total.out, attend(q, k, v), rtol=0, atol=1e-12)


def test_a_part_without_valid_keys_has_no_weight():
    q, k, v = _random(3, 2, 3, 5, 8)
    mine = PartialAttention.over(q, k, v)
    nothing = PartialAttention.over(q, k, v * 1e6, torch.zeros(2, 5, dtype=torch.bool))
    assert torch.equal(mine.with_other(nothing).out, mine.out)
    assert torch.equal(nothing.with_other(mine).out, mine.out)


def test_drop_path_keeps_the_mean_and_drops_whole_pictures():
    torch.manual_seed(0)
    out = DropPath(0.25).train()(torch.ones(200, 100, 1, 2))
    assert abs(float(out.mean()) - 1) < 0.01
    torch.testing.assert_close(out.unique(), torch.tensor([0.0, 4 / 3]))
    assert torch.equal(out[..., 0], out[..., 1])


def test_heads_must_divide():
    with pytest.raises(ValueError, match="must divide dim = 10, got 3"):
        Heads(10, 3)
