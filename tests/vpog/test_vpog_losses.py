"""Losses of the matcher against their formulas, what gets no gradient, and what confidence cannot do."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from sightline.vpog.flow_head import FlowPrediction
from sightline.vpog.losses import (
    classification_accuracy,
    classification_loss,
    flow_errors,
    flow_loss,
    weight_regularization,
)
from tests.tolerances import tolerance

NEAR = tolerance(torch.float64)
KINDS = ("l1", "huber", "laplace")


@pytest.fixture
def logits():
    torch.manual_seed(0)
    return 3 * torch.randn(2, 3, 7, 10, dtype=torch.float64)


@pytest.fixture
def labels():
    torch.manual_seed(1)
    return torch.randint(-1, 10, (2, 3, 7))


def predicted(flow, scale):
    return FlowPrediction(flow, scale, (-scale).exp())


def random_flow(*shape):
    flow = torch.randn(*shape, 2, dtype=torch.float64)
    return predicted(flow.requires_grad_(), (torch.rand(*shape, dtype=torch.float64) + 0.1).requires_grad_())


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_classification_is_torchs_cross_entropy(logits, labels, smoothing):
    ours = classification_loss(logits, labels, label_smoothing=smoothing, temperature=0.5)
    theirs = F.cross_entropy(
        2 * logits.flatten(0, 2), labels.flatten(), ignore_index=-1, label_smoothing=smoothing
    )
    torch.testing.assert_close(ours, theirs, **NEAR)


def test_weight_of_unseen_patches_is_a_class_weight(logits, labels):
    weights = torch.ones(10, dtype=torch.float64)
    weights[9] = 0.3
    theirs = F.cross_entropy(logits.flatten(0, 2), labels.flatten(), weights, ignore_index=-1)
    torch.testing.assert_close(classification_loss(logits, labels, weight_unseen=0.3), theirs, **NEAR)


def test_without_a_class_for_unseen_patches_they_do_not_count(logits, labels):
    seen_only = classification_loss(logits[..., :9], labels, num_patches=9)
    theirs = F.cross_entropy(
        logits[..., :9].flatten(0, 2), labels.flatten().where(labels.flatten() < 9, -1), ignore_index=-1
    )
    torch.testing.assert_close(seen_only, theirs, **NEAR)


def test_unseen_is_the_first_added_token():
    logits = torch.zeros(1, 6)
    logits[0, 4] = 50.0
    assert classification_loss(logits, torch.tensor([4]), num_patches=4) < 1e-6
    assert classification_accuracy(logits, torch.tensor([4]), num_patches=4).unseen == 1


def test_ignored_patches_get_no_gradient_whatever_they_hold(logits, labels):
    logits[labels < 0] = torch.nan
    logits.requires_grad_()
    classification_loss(logits, labels).backward()
    assert (labels < 0).any()
    assert not logits.grad[labels < 0].any()
    assert logits.grad[labels >= 0].any(-1).all()


def test_classification_gradient(logits, labels):
    logits = logits[0, :2, :3].clone().requires_grad_()
    options = {"weight_unseen": 0.5, "label_smoothing": 0.1, "temperature": 0.7}
    assert torch.autograd.gradcheck(lambda x: classification_loss(x, labels[0, :2, :3], **options), logits)


def test_number_of_patches_must_fit_the_classes(logits, labels):
    with pytest.raises(ValueError, match="expected 1 to 10, the number of classes, got 11"):
        classification_loss(logits, labels, num_patches=11)


def test_accuracy_counts_seen_and_unseen_apart():
    logits = F.one_hot(torch.tensor([0, 1, 2, 3, 3, 0]), 4).float()
    accuracy = classification_accuracy(logits, torch.tensor([0, 1, 1, 3, 2, -1]))
    assert [float(x) for x in accuracy] == pytest.approx([3 / 5, 2 / 4, 1.0, 4, 1])
    nothing = classification_accuracy(logits, torch.full((6,), -1))
    assert all(x.isnan() for x in nothing[:3])


@pytest.mark.parametrize("kind", KINDS)
def test_flow_formulas(kind):
    torch.manual_seed(2)
    prediction = random_flow(5, 4, 4)
    target = torch.randn(5, 4, 4, 2, dtype=torch.float64)
    visible = torch.rand(5, 4, 4) < 0.6
    values = []
    for index in visible.nonzero().tolist():
        dx, dy = (prediction.flow[tuple(index)] - target[tuple(index)]).tolist()
        b, norm = prediction.scale[tuple(index)].item(), math.hypot(dx, dy)
        values.append(
            {
                "l1": abs(dx) + abs(dy),
                "huber": norm**2 / 2 if norm <= 1 else norm - 0.5,
                "laplace": (abs(dx) + abs(dy)) / b + 2 * math.log(b),
            }[kind]
        )
    assert flow_loss(prediction, target, visible, kind).item() == pytest.approx(sum(values) / len(values))


def test_laplace_is_the_likelihood_of_two_variables():
    prediction = random_flow(3, 2, 2)
    target = torch.randn(3, 2, 2, 2, dtype=torch.float64)
    laplace = torch.distributions.Laplace(prediction.flow, prediction.scale[..., None])
    theirs = -laplace.log_prob(target).sum(-1).mean() - 2 * math.log(2)
    torch.testing.assert_close(
        flow_loss(prediction, target, torch.ones(3, 2, 2, dtype=torch.bool)), theirs, **NEAR
    )


def test_best_scale_is_half_the_mean_error():
    torch.manual_seed(3)
    target = torch.randn(64, 4, 4, 2, dtype=torch.float64)
    visible = torch.ones(64, 4, 4, dtype=torch.bool)
    best = target.abs().sum(-1).mean() / 2

    def loss(scale):
        return flow_loss(predicted(torch.zeros_like(target), scale.expand(64, 4, 4)), target, visible)

    scale = best.clone().requires_grad_()
    loss(scale).backward()
    assert abs(scale.grad.item()) < 1e-10
    assert loss(0.9 * best) > loss(best) < loss(1.1 * best)


@pytest.mark.parametrize("kind", KINDS)
def test_confidence_cannot_collapse(kind):
    """With an error that stays, neither certainty nor doubt makes the loss arbitrarily small."""
    target = torch.full((1, 4, 4, 2), 0.3, dtype=torch.float64)
    visible = torch.ones(1, 4, 4, dtype=torch.bool)
    flow = torch.zeros_like(target)
    scales = torch.logspace(-3, 6, 60, dtype=torch.float64)
    losses = torch.stack(
        [flow_loss(predicted(flow, b.expand(1, 4, 4)), target, visible, kind) for b in scales]
    )
    if kind == "laplace":
        assert losses[0] > losses.min() + 100
        assert losses[-1] > losses.min() + 10
    else:
        assert losses.max() == losses.min()


@pytest.mark.parametrize("kind", KINDS)
def test_unseen_pixels_give_no_gradient_and_may_be_nan(kind):
    torch.manual_seed(4)
    prediction = random_flow(5, 4, 4)
    target = torch.randn(5, 4, 4, 2, dtype=torch.float64)
    visible = torch.rand(5, 4, 4) < 0.5
    target[~visible] = torch.nan
    loss = flow_loss(prediction, target, visible, kind)
    loss.backward()
    assert loss.isfinite()
    assert not prediction.flow.grad[~visible].any()
    assert prediction.flow.grad[visible].all()
    if kind == "laplace":
        assert not prediction.scale.grad[~visible].any()
        assert prediction.scale.grad[visible].all()


def test_invisible_pixels_teach_doubt_where_asked():
    torch.manual_seed(5)
    prediction = random_flow(3, 4, 4)
    target = torch.randn(3, 4, 4, 2, dtype=torch.float64)
    visible = torch.rand(3, 4, 4) < 0.5
    without = flow_loss(prediction, target, visible)
    loss = flow_loss(prediction, target, visible, weight_invisible=0.1)
    expected = without + 0.1 * (1 / prediction.scale[~visible]).mean()
    torch.testing.assert_close(loss, expected, **NEAR)
    loss.backward()
    assert (prediction.scale.grad[~visible] < 0).all()
    assert not prediction.flow.grad[~visible].any()


@pytest.mark.parametrize("kind", KINDS)
def test_flow_gradient(kind):
    torch.manual_seed(6)
    prediction = random_flow(2, 3, 3)
    target = 2 * torch.randn(2, 3, 3, 2, dtype=torch.float64)
    visible = torch.rand(2, 3, 3) < 0.7

    def loss(flow, scale):
        return flow_loss(predicted(flow, scale), target, visible, kind, huber_delta=0.8, weight_invisible=0.1)

    assert torch.autograd.gradcheck(loss, (prediction.flow, prediction.scale))


@pytest.mark.parametrize("kind", KINDS)
def test_a_perfect_flow_has_a_finite_gradient(kind):
    prediction = random_flow(1, 2, 2)
    flow_loss(prediction, prediction.flow.detach(), torch.ones(1, 2, 2, dtype=torch.bool), kind).backward()
    assert prediction.flow.grad.isfinite().all()


@pytest.mark.parametrize("patches", [0, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_nothing_visible_is_zero_with_a_gradient(kind, patches):
    prediction = random_flow(patches, 4, 4)
    target = torch.full((patches, 4, 4, 2), torch.nan, dtype=torch.float64)
    loss = flow_loss(prediction, target, torch.zeros(patches, 4, 4, dtype=torch.bool), kind)
    loss.backward()
    assert loss.item() == 0
    assert prediction.flow.grad is not None
    assert not prediction.flow.grad.any()


def test_nothing_to_classify_is_zero_with_a_gradient(logits):
    logits.requires_grad_()
    loss = classification_loss(logits, torch.full((2, 3, 7), -1))
    loss.backward()
    assert loss.item() == 0
    assert not logits.grad.any()


def test_half_precision_is_summed_in_float32(logits, labels):
    half = classification_loss(logits.bfloat16(), labels)
    assert half.dtype == torch.float32
    prediction = random_flow(2, 4, 4)
    rough = FlowPrediction(*(x.detach().bfloat16() for x in prediction))
    target = torch.zeros(2, 4, 4, 2)
    assert flow_loss(rough, target, torch.ones(2, 4, 4, dtype=torch.bool)).dtype == torch.float32


def test_unknown_kind_is_refused():
    prediction = random_flow(1, 2, 2)
    with pytest.raises(ValueError, match="l1, huber, laplace, got 'l2'"):
        flow_loss(prediction, prediction.flow, torch.ones(1, 2, 2, dtype=torch.bool), "l2")


def test_flow_errors_are_means_over_both_components():
    torch.manual_seed(7)
    flow, target = torch.randn(4, 4, 4, 2), torch.randn(4, 4, 4, 2)
    visible = torch.rand(4, 4, 4) < 0.5
    target[~visible] = torch.nan
    errors = flow_errors(flow, target, visible, patch_size=8)
    torch.testing.assert_close(errors.mae, F.l1_loss(flow[visible], target[visible]))
    torch.testing.assert_close(errors.rmse, F.mse_loss(flow[visible], target[visible]).sqrt())
    torch.testing.assert_close(errors.mae_px, 8 * errors.mae)
    torch.testing.assert_close(errors.rmse_px, 8 * errors.rmse)
    assert errors.num_pixels == visible.sum()
    assert flow_errors(flow, target, torch.zeros_like(visible)).mae.isnan()


def test_regularisation_leaves_out_biases_norms_and_what_is_frozen():
    net = nn.Sequential(
        nn.Conv2d(2, 3, 3), nn.LayerNorm((4, 4)), nn.BatchNorm2d(3), nn.Linear(4, 5), nn.Linear(2, 2)
    )
    for parameter in net.parameters():
        nn.init.ones_(parameter)
    net[4].requires_grad_(False)
    loss = weight_regularization(net, 0.5)
    assert loss.item() == 0.5 * (54 + 20)
    loss.backward()
    assert torch.equal(net[0].weight.grad, net[0].weight)
    assert net[0].bias.grad is None
    assert net[1].weight.grad is None


def test_tied_weights_are_counted_once():
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    net[1].weight = net[0].weight
    torch.testing.assert_close(weight_regularization(net, 1.0), net[0].weight.square().sum())


def test_nothing_to_regularise_is_zero():
    assert weight_regularization(nn.LayerNorm((2, 3))).item() == 0
