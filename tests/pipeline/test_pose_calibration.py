"""Models of errors are found again from errors that they made, and claims become right by them."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from sightline.metrics import coverage
from sightline.objects.pose_errors import ErrorModel, PoseErrors, write_error_model
from sightline.pipeline import estimators
from sightline.pipeline.estimators import EstimatorMaker, MatcherChoice
from sightline.pipeline.pose_calibration import (
    PoseClaims,
    collect_claims,
    cross_fitted_levels,
    fit_pose_errors,
)

AT = torch.tensor([0.5, 0.9, 0.95]).double()


def claims_by(model: PoseErrors, count: int = 240, tail: float = 1.0, seed: int = 0) -> PoseClaims:
    """Poses whose errors are what a model says of their claims."""
    draw = torch.Generator().manual_seed(seed)
    root = torch.randn(count, 6, 6, generator=draw).double() * torch.tensor([0.01] * 3 + [0.002] * 3).double()
    root = root * torch.rand(count, 1, 1, generator=draw).double().add(0.2)
    pose = torch.eye(4).double().repeat(count, 1, 1)
    pose[:, :3, 3] = torch.tensor([0.0, 0.0, 0.6]).double()
    claims = PoseClaims(
        torch.zeros(count, 6).double(),
        root.mT @ root,
        pose,
        0.1 * torch.randn(count, 3, generator=draw).double(),
        torch.full((count,), 0.2).double(),
        torch.rand(count, generator=draw).double(),
        tuple(f"object-{row % 20}" for row in range(count)),
        count,
    )
    factor = torch.linalg.cholesky(
        model.widen(claims.covariance, pose, claims.middle, claims.diameter, claims.score)
    )
    noise = torch.randn(count, 6, 1, generator=draw).double()
    noise = noise * torch.where(torch.rand(count, 1, 1, generator=draw) < 0.1, tail, 1.0)
    return replace(claims, errors=(factor @ noise)[..., 0])


def test_a_model_is_found_again():
    true = PoseErrors(scale=2.0, turn=0.02, shift=0.01, zoom=0.02, doubt=3.0)
    claims = claims_by(true)
    found = fit_pose_errors(claims)
    assert found.doubt == pytest.approx(3.0, rel=0.3)
    # scale and floors can stand in for each other; what they say together cannot
    told = [claims._widened(each).diagonal(dim1=1, dim2=2).mean(0) for each in (found, true)]
    torch.testing.assert_close(told[0], told[1], rtol=0.5, atol=0)


@pytest.mark.parametrize("tail", [1.0, 3.0])
def test_claims_become_right_on_other_objects_with_heavy_tails_too(tail):
    claims = claims_by(PoseErrors(scale=3.0, turn=0.01), tail=tail)
    raw = torch.stack([coverage(each, AT) for each in claims.levels(PoseErrors())])
    assert bool((raw < AT - 0.1).all())
    held = torch.stack([coverage(each, AT) for each in cross_fitted_levels(claims)])
    assert float((held - AT).abs().max()) < 0.07


def test_with_depth_the_distance_is_not_widened():
    assert fit_pose_errors(claims_by(PoseErrors(zoom=0.03)), with_depth=True).zoom == 0


def test_what_cannot_be_learned_from_is_refused():
    with pytest.raises(ValueError, match="at least 30 poses in the right mode to learn from, got 12"):
        fit_pose_errors(claims_by(PoseErrors(), count=12))
    with pytest.raises(ValueError, match="nothing is tuned on the exam"):
        collect_claims(EstimatorMaker(), split="exam")


def test_the_model_beside_the_weights_is_taken_up(tmp_path, monkeypatch):
    monkeypatch.setattr("sightline.nn.shipped.shipped_folder", lambda: tmp_path)
    assert EstimatorMaker()([]).errors is None
    model = ErrorModel(PoseErrors(scale=2.0))
    write_error_model(tmp_path / "sift.errors.json", model)
    assert EstimatorMaker()([]).errors == model
    assert EstimatorMaker(calibrated=False)([]).errors is None
    write_error_model(tmp_path / "mine.errors.json", model)
    own = MatcherChoice("vpog", tmp_path / "mine.safetensors")
    assert estimators._read_errors(own) == model


def test_claims_are_collected_from_pictures():
    colour, depth = collect_claims(EstimatorMaker(), split="development", limit=1)
    for claims in (colour, depth):
        assert len(claims) == len(claims.score) == len(claims.objects) <= claims.num_valid
        assert bool((claims.score > 0).all())
    assert len(depth) > 0
