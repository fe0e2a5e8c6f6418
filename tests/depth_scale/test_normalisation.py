"""Relative depth made positive: what each normalisation cancels, and the one that is refused."""

from __future__ import annotations

import math

import pytest
import torch

from sightline.depth_scale import align_depth, depth_aware_scale_loss, normalise_relative_depth


def scene(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Inverse depth of two pictures, and the mask of an object in each."""
    inverse = 0.2 + torch.rand(2, 1, 24, 32, generator=torch.Generator().manual_seed(seed)) * 0.3
    mask = torch.zeros(2, 1, 24, 32)
    mask[..., 8:16, 10:20] = 1.0
    return torch.where(mask > 0, inverse + 0.5, inverse), mask


def test_background_ratio_cancels_the_scale_of_each_picture() -> None:
    inverse, mask = scene()
    scaled = inverse * torch.tensor([3.0, 0.2]).view(2, 1, 1, 1)
    first, second = (
        normalise_relative_depth(d, "background_ratio", object_mask01=mask) for d in (inverse, scaled)
    )
    torch.testing.assert_close(first, second)
    assert first[mask == 0].median().item() == pytest.approx(1.0, abs=0.01)


@pytest.mark.parametrize("shift", [0.0, -5.0, 40.0])
def test_rescale_cancels_scale_and_shift_and_stays_positive(shift: float) -> None:
    inverse, _ = scene()
    plain = normalise_relative_depth(inverse, "rescale")
    torch.testing.assert_close(normalise_relative_depth(7 * inverse + shift), plain, atol=1e-5, rtol=1e-5)
    assert plain.min() > 0


def test_affine_alignment_recovers_scale_and_shift_from_a_few_points() -> None:
    inverse, _ = scene()
    reference = torch.full_like(inverse, math.nan)
    reference[:, :, ::6, ::7] = 2.5 * inverse[:, :, ::6, ::7] + 0.1
    fit = align_depth(inverse, reference)
    torch.testing.assert_close(fit.scale, torch.full((2,), 2.5))
    torch.testing.assert_close(fit.shift, torch.full((2,), 0.1))
    aligned = normalise_relative_depth(inverse, "affine", reference=reference)
    torch.testing.assert_close(aligned, 2.5 * inverse + 0.1)
    weights = torch.ones_like(inverse)
    reference[:, :, 0, 0], weights[:, :, 0, 0] = 99.0, 0.0
    torch.testing.assert_close(align_depth(inverse, reference, weights=weights).scale, fit.scale)


def test_one_known_depth_is_no_fit() -> None:
    inverse, _ = scene()
    reference = torch.full_like(inverse, math.nan)
    reference[:, :, 3, 3] = 1.0
    fit = align_depth(inverse, reference)
    assert fit.aligned.isnan().all()
    assert fit.scale.isnan().all()


def test_missing_depth_stays_missing() -> None:
    inverse, mask = scene()
    inverse[:, :, 2, 2] = math.nan
    for method in ("rescale", "background_ratio"):
        normalised = normalise_relative_depth(inverse, method, object_mask01=mask)
        assert normalised[:, :, 2, 2].isnan().all()
        assert normalised.isfinite().sum() == inverse.isfinite().sum()


def test_normalised_depth_can_be_used_where_a_z_score_cannot() -> None:
    inverse, mask = scene()
    scored = (inverse - inverse.mean()) / inverse.std() - 5
    assert not depth_aware_scale_loss(mask, scored, 40.0, 0.1)[1].valid.any()
    assert depth_aware_scale_loss(mask, normalise_relative_depth(scored), 40.0, 0.1)[1].valid.all()


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ("zscore", "a z-score makes depth negative.*expected one of background_ratio, affine, rescale"),
        ("log", "method: expected one of background_ratio, affine, rescale, got 'log'"),
        ("background_ratio", "object_mask01: expected"),
        ("affine", "reference: expected"),
    ],
)
def test_what_is_refused(method: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        normalise_relative_depth(torch.ones(4, 4), method)
