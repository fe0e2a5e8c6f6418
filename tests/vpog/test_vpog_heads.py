"""Heads of the matcher: temperatures, cached projections, and matched pairs against all pairs."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from sightline.vpog.classification_head import MAX_SCALE, ClassificationHead
from sightline.vpog.flow_head import FlowHead
from sightline.vpog.losses import classification_loss, flow_loss


@pytest.fixture
def tokens():
    torch.manual_seed(0)
    return torch.randn(2, 4, 32), torch.randn(2, 3, 6, 32)


@pytest.mark.parametrize("use_mlp", [False, True])
def test_logits_are_cosines_by_the_temperature(tokens, use_mlp):
    head = ClassificationHead(32, proj_dim=8, use_mlp=use_mlp, temperature=0.5)
    query, templates = tokens
    logits = head(query, templates)
    a, b = head.query_projection(query), head.template_projection(templates)
    expected = F.cosine_similarity(a[:, None, :, None], b[:, :, None], dim=-1) / 0.5
    torch.testing.assert_close(logits, expected)


def test_projections_that_were_kept_give_the_same_logits(tokens):
    head = ClassificationHead(32)
    query, templates = tokens
    kept = head.project_templates(templates)
    assert torch.equal(head.compare(head.project_query(query), kept), head(query, templates))
    rough = head.compare(head.project_query(query), kept.half())
    torch.testing.assert_close(rough, head(query, templates), atol=0.02, rtol=0)


def test_templates_are_independent_and_their_order_is_the_logits(tokens):
    head = ClassificationHead(32)
    query, templates = tokens
    order = torch.tensor([2, 0, 1])
    torch.testing.assert_close(head(query, templates[:, order]), head(query, templates)[:, order])


@pytest.mark.parametrize("temperature", [0.07, 1.0])
@pytest.mark.parametrize("learnable", [False, True])
def test_temperature_is_what_was_asked_for(tokens, temperature, learnable):
    head = ClassificationHead(32, temperature=temperature, learnable_temperature=learnable)
    assert head.temperature.item() == pytest.approx(temperature, rel=1e-5)
    assert any(p is head.scale_logit for p in head.parameters()) == learnable
    assert "scale_logit" in head.state_dict()


def test_certainty_of_cosines_is_bounded_at_temperature_one(tokens):
    head = ClassificationHead(32, temperature=1.0, learnable_temperature=False)
    query, templates = tokens
    assert head(query, templates).abs().max() <= 1 + 1e-5


def test_learned_scale_never_leaves_its_bound_and_comes_back(tokens):
    head = ClassificationHead(32)
    with torch.no_grad():
        head.scale_logit.fill_(1e3)
    assert head.scale.item() <= MAX_SCALE
    with torch.no_grad():
        head.scale_logit.fill_(6.0)
    query, templates = tokens
    before = head.scale.item()
    optimiser = torch.optim.SGD([head.scale_logit], lr=1.0)
    labels = head(query, templates).argmin(-1)  # all wrong: less certainty is better
    classification_loss(head(query, templates), labels).backward()
    optimiser.step()
    assert before > 99
    assert head.scale.item() < before


def test_temperatures_beyond_the_bound_are_refused():
    with pytest.raises(ValueError, match=r"expected above 0\.01, got 0\.005"):
        ClassificationHead(8, temperature=0.005)


def test_logits_are_float32_under_autocast(tokens):
    head = ClassificationHead(32)
    query, templates = tokens
    with torch.autocast("cpu", torch.bfloat16):
        logits = head(query, templates)
    assert logits.dtype == torch.float32
    cosines = logits / head.scale
    torch.testing.assert_close(cosines, head(query, templates) / head.scale, atol=0.03, rtol=0)
    assert len(logits.unique()) == logits.numel()  # bfloat16 would let many coincide


def test_matched_pairs_are_those_of_all_pairs(tokens):
    torch.manual_seed(1)
    head = FlowHead(32, hidden_dim=16, flow_resolution=4)
    torch.nn.init.normal_(head.output.weight)
    query, templates = tokens
    flow, confidence = head.all_pairs(query, templates)
    assert flow.shape == (2, 3, 4, 6, 4, 4, 2)
    assert confidence.shape == (2, 3, 4, 6, 4, 4)
    b, s, q = torch.meshgrid(torch.arange(2), torch.arange(3), torch.arange(4), indexing="ij")
    t = torch.randint(6, b.shape)
    matched = head(query[b, q], templates[b, s, t])
    packed = head(query[b, q].flatten(0, 2), templates[b, s, t].flatten(0, 2))
    torch.testing.assert_close(matched.flow, flow[b, s, q, t])
    torch.testing.assert_close(matched.confidence, confidence[b, s, q, t])
    torch.testing.assert_close(packed.flow, matched.flow.flatten(0, 2))


def test_first_flow_is_nearly_nothing_and_its_scale_that_of_a_patch():
    torch.manual_seed(2)
    prediction = FlowHead(32)(torch.randn(50, 32), torch.randn(50, 32))
    assert prediction.flow.abs().max() < 0.1
    # components uniform in [-1/2, 1/2] have |x| + |y| = 1/2 in the mean, whose best scale is half of it
    torch.testing.assert_close(prediction.scale, torch.full((50, 16, 16), 0.25), atol=0.03, rtol=0)
    torch.testing.assert_close(prediction.confidence, (-prediction.scale).exp())


def test_scale_stays_above_its_least_and_confidence_in_its_bounds():
    head = FlowHead(8, flow_resolution=2, min_scale=0.02)
    for bias, confidence in ((-1e3, math.exp(-0.02)), (1e3, 0.0)):
        torch.nn.init.constant_(head.output.bias, bias)
        prediction = head(torch.randn(3, 8), torch.randn(3, 8))
        assert prediction.scale.min() >= 0.02 * (1 - 1e-6)
        torch.testing.assert_close(prediction.confidence, torch.full((3, 2, 2), confidence))


@pytest.mark.parametrize("kind", ["l1", "huber", "laplace"])
def test_every_weight_of_the_flow_head_learns_by_any_loss(kind):
    torch.manual_seed(3)
    head = FlowHead(8, 16, 2, 4)
    prediction = head(torch.randn(9, 8), torch.randn(9, 8))
    target = torch.rand(9, 4, 4, 2)
    flow_loss(prediction, target, torch.ones(9, 4, 4, dtype=torch.bool), kind).backward()
    assert all(p.grad is not None and p.grad.any() for p in head.parameters())


def test_no_pairs_give_no_flow():
    assert FlowHead(8)(torch.zeros(0, 8), torch.zeros(0, 8)).flow.shape == (0, 16, 16, 2)


def test_flow_is_float32_under_autocast():
    with torch.autocast("cpu", torch.bfloat16):
        prediction = FlowHead(8)(torch.randn(2, 8), torch.randn(2, 8))
    assert {x.dtype for x in prediction} == {torch.float32}


def test_a_head_without_layers_is_refused():
    with pytest.raises(ValueError, match="1 or more, got 0"):
        FlowHead(8, num_layers=0)
