from __future__ import annotations

import pytest
import torch

from sightline.geometry.rotations import exp, geodesic_distance
from sightline.geometry.viewpoints import view_direction
from sightline.vpog.view_encoding import as_rotations, build_encoding, reference_view

NAMES = ["s2rope-fixed", "s2rope-compat", "so3"]


def _random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _scores(name: str, shift: torch.Tensor, frame: torch.Tensor, mask: torch.Tensor | None = None):
    """Scores between a query and two templates, 32 channels a head."""
    encoding = build_encoding(name, 32)
    rotations, reference = exp(_random(1, 2, 3)) @ frame, exp(_random(1, 3, seed=1)) @ frame
    places = torch.randint(0, 9, (1, 2, 6, 2), generator=torch.Generator().manual_seed(2)) + shift
    q, k = _random(1, 1, 3, 6, 32, seed=3), _random(1, 2, 3, 6, 32, seed=4)
    query_mask = None if mask is None else mask[:, :1]
    of_query = encoding.prepare(places[:, :1], reference[:, None], reference, query_mask)
    of_templates = encoding.prepare(places, rotations, reference, mask)
    return encoding.rotate(q, of_query) @ encoding.rotate(k, of_templates).mT


@pytest.mark.parametrize("name", NAMES)
def test_scores_between_pictures_are_relative_in_both_axes(name):
    still, frame = torch.zeros(2, dtype=torch.int64), torch.eye(3, dtype=torch.float64)
    here = _scores(name, still, frame)
    for shift in ([4, 0], [0, -7], [3, 2]):
        torch.testing.assert_close(_scores(name, torch.tensor(shift), frame), here, rtol=0, atol=1e-5)
    apart = torch.zeros(1, 2, 6, 2, dtype=torch.int64)
    apart[:, 1] = 3
    assert not torch.allclose(_scores(name, apart, frame), here)


@pytest.mark.parametrize(
    ("name", "equivariant"), [("s2rope-fixed", True), ("s2rope-compat", False), ("so3", True)]
)
def test_frame_of_the_object_does_not_matter_even_for_added_tokens(name, equivariant):
    still = torch.zeros(2, dtype=torch.int64)
    mask = (torch.arange(6) < 4).expand(1, 2, 6)
    here = _scores(name, still, torch.eye(3, dtype=torch.float64), mask)
    there = _scores(name, still, exp(_random(3, seed=5)), mask)
    assert bool((here - there).abs().max() < 1e-5) == equivariant


@pytest.mark.parametrize("name", NAMES)
def test_masked_tokens_are_bit_identical(name):
    encoding, x = build_encoding(name, 32), _random(2, 2, 3, 6, 32)
    mask = (torch.arange(6) < 4).expand(2, 2, 6)
    views = exp(_random(2, 2, 3))
    places = torch.randint(1, 9, (2, 2, 6, 2), generator=torch.Generator().manual_seed(2))
    out = encoding.rotate(x, encoding.prepare(places, views, views[:, 0], mask))
    assert torch.equal(out[..., 4:, :], x[..., 4:, :])
    assert not torch.isclose(out[..., :4, :], x[..., :4, :]).all(-1).any()
    nothing = encoding.prepare(places, views, views[:, 0], torch.zeros_like(mask))
    assert torch.equal(encoding.rotate(x, nothing), x)


def test_directions_alone_become_views_of_them():
    directions = torch.nn.functional.normalize(_random(2, 5, 3), dim=-1)
    torch.testing.assert_close(view_direction(as_rotations(directions)), directions)
    rotations = exp(_random(2, 5, 3))
    assert as_rotations(rotations) is rotations


def test_the_nearest_template_says_what_is_up():
    views = exp(_random(2, 6, 3))
    wanted = torch.tensor([4, 1])
    truth = views[torch.arange(2), wanted]
    found = reference_view(view_direction(truth), views)
    assert geodesic_distance(found, truth).max() < 1e-6
    assert reference_view(truth, views) is truth
    valid = torch.ones(2, 6, dtype=torch.bool)
    valid[0, 4] = False
    other = reference_view(view_direction(truth), views, valid)
    torch.testing.assert_close(view_direction(other), view_direction(truth))
    assert geodesic_distance(other, truth)[0] > 1e-2
    frame = exp(_random(3, seed=1))
    moved = reference_view(view_direction(truth @ frame), views @ frame, valid)
    torch.testing.assert_close(moved, other @ frame, rtol=0, atol=1e-9)


def test_unknown_name():
    with pytest.raises(ValueError, match="expected one of s2rope-fixed, s2rope-compat, so3, got 'rope'"):
        build_encoding("rope", 32)
