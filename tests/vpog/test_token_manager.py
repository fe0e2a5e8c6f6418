from __future__ import annotations

import pytest
import torch

from sightline.nn.rope import rope_encode
from sightline.vpog.token_manager import TokenManager


def _tokens(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("of_query", "of_template"), [(0, 1), (2, 3), (0, 0)])
def test_round_trip_is_exact(of_query, of_template):
    manager = TokenManager(8, of_query, of_template)
    query, templates = _tokens(2, 9, 8), _tokens(2, 3, 9, 8)
    places = torch.cartesian_prod(torch.arange(3), torch.arange(3))
    more_query, query_places, query_mask = manager.add_query_tokens(query, places)
    more, template_places, template_mask = manager.add_template_tokens(templates, places.expand(2, 3, 9, 2))
    assert more_query.shape == (2, 9 + of_query, 8) and more.shape == (2, 3, 9 + of_template, 8)
    assert query_places.shape == (2, 9 + of_query, 2) and template_places.shape == (2, 3, 9 + of_template, 2)
    assert torch.equal(query_places[:, :9], places.expand(2, 9, 2)) and not query_places[:, 9:].any()
    assert query_mask[:, :9].all() and not query_mask[:, 9:].any()
    assert template_mask[..., :9].all() and not template_mask[..., 9:].any()
    back_query, back = manager.remove_added_tokens(more_query, more)
    assert torch.equal(back_query, query) and torch.equal(back, templates)


def test_all_templates_get_the_same_tokens_and_share_their_gradient():
    manager = TokenManager(8, 0, 2)
    out, _, _ = manager.add_template_tokens(_tokens(2, 3, 4, 8), torch.zeros(4, 2, dtype=torch.int64))
    assert torch.equal(out[:, :, 4:], manager.template_added.detach()[0].expand(2, 3, 2, 8))
    out.sum().backward()
    assert manager.template_added.grad is not None
    assert torch.equal(manager.template_added.grad, torch.full((1, 2, 8), 6.0))
    assert manager.template_added.abs().max() < 0.05


def test_added_tokens_are_never_turned():
    manager = TokenManager(8, 0, 2)
    places = torch.randint(1, 9, (2, 3, 4, 2))
    x, pos, rope_mask = manager.add_template_tokens(_tokens(2, 3, 4, 8), places)
    turned = rope_encode(x, pos + 5, rope_mask)
    assert torch.equal(turned[..., 4:, :], x[..., 4:, :])
    assert not torch.allclose(turned[..., :4, :], x[..., :4, :])


def test_half_precision_stays():
    manager = TokenManager(8)
    out, _, _ = manager.add_template_tokens(
        _tokens(1, 1, 4, 8).bfloat16(), torch.zeros(4, 2, dtype=torch.int64)
    )
    assert out.dtype == torch.bfloat16


def test_negative_numbers_are_refused():
    with pytest.raises(ValueError, match="got -1 and 1"):
        TokenManager(8, -1)
