from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sightline.geometry.triangles import areas, closest_on_triangles, sample_surface, surface_moments


def _triangles(seed: int, count: int = 12) -> torch.Tensor:
    return torch.randn(count, 3, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_samples_lie_on_their_triangles_and_are_as_many_as_the_area_says():
    triangles = _triangles(1)
    samples = sample_surface(triangles, 4000)
    assert (samples.barycentric >= 0).all()
    torch.testing.assert_close(samples.barycentric.sum(1), torch.ones(4000).double())
    torch.testing.assert_close(
        samples.points, (samples.barycentric[..., None] * triangles[samples.face]).sum(1)
    )
    counts = torch.bincount(samples.face, minlength=12)
    expected = areas(triangles) / areas(triangles).sum() * 4000
    assert (counts - expected).abs().max() <= 1


def test_samples_have_the_moments_of_the_surface():
    triangles = _triangles(2)
    points = sample_surface(triangles, 40_000).points
    centroid, covariance = surface_moments(triangles)
    torch.testing.assert_close(points.mean(0), centroid, rtol=0, atol=2e-3)
    torch.testing.assert_close(points.T.cov(), covariance, rtol=0, atol=3e-3)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_moments_turn_with_the_surface(seed):
    triangles = _triangles(seed)
    turn = torch.linalg.qr(_triangles(seed + 1, 1)[0])[0]
    centroid, covariance = surface_moments(triangles)
    moved_centroid, moved = surface_moments(triangles @ turn.mT + 5.0)
    torch.testing.assert_close(moved_centroid, turn @ centroid + 5.0, rtol=0, atol=1e-12)
    torch.testing.assert_close(moved, turn @ covariance @ turn.mT, rtol=0, atol=1e-12)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_no_point_of_a_triangle_is_nearer_than_the_closest(seed):
    triangles = _triangles(seed, 40)
    points = 2 * torch.randn(40, 3, generator=torch.Generator().manual_seed(seed + 1), dtype=torch.float64)
    weights = closest_on_triangles(points, triangles)
    assert (weights >= 0).all()
    torch.testing.assert_close(weights.sum(-1), torch.ones(40).double())
    found = ((weights[..., None] * triangles).sum(-2) - points).norm(dim=-1)
    grid = torch.rand(300, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    grid = torch.cat([grid / grid.sum(1, keepdim=True), torch.eye(3).double()])
    others = (grid @ triangles - points[:, None]).norm(dim=-1)
    assert (found <= others.amin(1) + 1e-12).all()
    assert (others.amin(1) - found).max() < 0.5


def test_degenerate_triangles_have_a_closest_point_too():
    line = torch.tensor([[0.0, 0, 0], [1, 0, 0], [2, 0, 0]]).double()
    dot = torch.ones(3, 3).double()
    points = torch.tensor([[1.5, 1.0, 0]]).double()
    on_line = closest_on_triangles(points, line[None])[0] @ line
    torch.testing.assert_close(on_line, torch.tensor([1.5, 0, 0]).double())
    torch.testing.assert_close(closest_on_triangles(points, dot[None])[0] @ dot, dot[0])


def test_a_surface_without_area_cannot_be_sampled():
    with pytest.raises(ValueError, match="area above zero"):
        sample_surface(torch.zeros(2, 3, 3), 10)
