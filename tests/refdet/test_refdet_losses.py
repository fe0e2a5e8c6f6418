"""Objectness, boxes and the loss of whole pictures."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from sightline.refdet.decode import RefDetMaps, cell_centers, encode_boxes
from sightline.refdet.losses import RefDetLoss, focal_loss
from tests.tolerances import tolerance

NEAR = tolerance(torch.float64)


def test_focal_loss_without_its_weights_is_half_the_cross_entropy():
    logits, targets = torch.randn(50, dtype=torch.float64), torch.rand(50, dtype=torch.float64).round()
    ours = focal_loss(logits, targets, alpha=0.5, gamma=0.0)
    entropy = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    torch.testing.assert_close(ours, 0.5 * entropy, **NEAR)


def test_focal_loss_of_hard_targets_is_lins_formula():
    logits, targets = 3 * torch.randn(50, dtype=torch.float64), torch.rand(50, dtype=torch.float64).round()
    p_t = torch.where(targets == 1, logits.sigmoid(), 1 - logits.sigmoid())
    alpha_t = torch.where(targets == 1, 0.25, 0.75)
    torch.testing.assert_close(focal_loss(logits, targets), -alpha_t * (1 - p_t) ** 2 * p_t.log(), **NEAR)


def test_focal_loss_is_least_at_its_soft_target():
    target = torch.full((1,), 0.7, dtype=torch.float64)
    logit = torch.logit(target).requires_grad_()
    loss = focal_loss(logit, target)
    assert loss.item() == pytest.approx(0, abs=1e-12)
    assert focal_loss(logit + 0.1, target) > loss < focal_loss(logit - 0.1, target)


@pytest.mark.parametrize(("logit", "target"), [(-20.0, 1.0), (20.0, 0.0), (-60.0, 1.0), (60.0, 0.0)])
def test_certain_mistakes_have_the_largest_gradient(logit, target):
    logits = torch.tensor([logit], requires_grad=True)
    focal_loss(logits, torch.tensor([target])).sum().backward()
    weight = 0.25 if target else 0.75
    assert logits.grad.item() == pytest.approx(-weight if target else weight, rel=1e-3)


def test_focal_loss_gradient():
    logits = torch.randn(6, dtype=torch.float64, requires_grad=True)
    targets = torch.tensor([0, 1, 0.3, 0.8, 0, 1], dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: focal_loss(x, targets), logits)


def maps_of(boxes, logit=4.0, stride=4, size=(16, 24), background=-6.0):
    """Maps on which every cell whose centre is in one of the boxes says that box."""
    logits, raw = torch.full((len(boxes), 1, *size), background), torch.zeros(len(boxes), 4, *size)
    centers = cell_centers(logits, stride)
    for picture, listed in enumerate(boxes):
        for box in listed:
            inside = ((centers >= box[:2]) & (centers <= box[2:])).all(-1)
            logits[picture, 0][inside] = logit
            raw[picture][:, inside] = encode_boxes(
                box.expand(int(inside.sum()), 4), centers[inside], stride
            ).T
    return RefDetMaps((logits,), (raw,), (stride,), (size[1] * stride, size[0] * stride))


BOXES = [
    torch.tensor([[7.5, 7.5, 19.5, 23.5], [40.0, 20.0, 70.0, 60.0]]),
    torch.zeros(0, 4),
    torch.tensor([[10.0, 4.0, 22.0, 30.0]]),
]


@pytest.mark.parametrize("iou_type", ["iou", "giou", "diou", "ciou"])
def test_true_boxes_cost_nothing_and_wrong_ones_do(iou_type):
    criterion = RefDetLoss(iou_type=iou_type)
    right = criterion(maps_of(BOXES), BOXES)
    assert right["loss_bbox"].item() == pytest.approx(0, abs=1e-5)
    assert right["num_pos"] > 3
    wrong = criterion(maps_of([b * 1.2 for b in BOXES]), BOXES)
    assert wrong["loss_bbox"] > 0.05


def test_absent_objects_cost_when_claimed():
    nothing = [torch.zeros(0, 4)] * 3
    silent, loud = (RefDetLoss()(maps, nothing) for maps in (maps_of(nothing), maps_of(BOXES)))
    assert silent["num_pos"] == 0
    assert silent["loss_bbox"] == 0
    assert silent["loss"].isfinite()
    assert loud["loss_obj"] > 100 * silent["loss_obj"]


def test_the_terms_are_weighted():
    maps = maps_of([b * 1.1 for b in BOXES])
    maps = maps._replace(relevance=(torch.randn(3, 1, 16, 24),))
    losses = RefDetLoss(2.0, 7.0, lambda_match=3.0)(maps, BOXES)
    total = 2 * losses["loss_obj"] + 7 * losses["loss_bbox"] + 3 * losses["loss_match"]
    torch.testing.assert_close(losses["loss"], total, **tolerance(torch.float32))
    assert RefDetLoss()(maps_of(BOXES), BOXES)["loss_match"] == 0


def test_scores_are_taught_the_overlap():
    maps = maps_of([b + torch.tensor([0.0, 0.0, 4.0, 0.0]) for b in BOXES])
    logits = maps.objectness[0].requires_grad_()
    gradients = {}
    for kind in ("quality", "focal"):
        loss = RefDetLoss(objectness=kind, pos_radius=0)(maps._replace(objectness=(logits,)), BOXES)["loss"]
        gradients[kind] = torch.autograd.grad(loss, logits)[0][0, 0, 4, 3]
    assert gradients["quality"] > 0 > gradients["focal"]  # a logit of 4 claims more than the box reaches


def test_the_loss_does_not_depend_on_the_size_of_the_picture():
    small, large = maps_of(BOXES, background=-12.0), maps_of(BOXES, size=(64, 64), background=-12.0)
    a, b = (RefDetLoss()(maps, BOXES)["loss"] for maps in (small, large))
    assert a.item() == pytest.approx(b.item(), rel=0.02)


def test_unreached_targets_have_gradients():
    far = torch.tensor([[60.0, 4.0, 92.0, 60.0]])  # boxes start at four cells, this has 8 x 14
    raw = (
        torch.tensor([0.0, 0.0, math.log(4), math.log(4)])
        .view(1, 4, 1, 1)
        .repeat(1, 1, 16, 24)
        .requires_grad_()
    )
    maps = RefDetMaps((torch.zeros(1, 1, 16, 24),), (raw,), (4,), (96, 64))
    RefDetLoss()(maps, [far])["loss"].backward()
    touched = raw.grad.abs().amax((0, 2, 3))
    assert (touched[2:] > 1e-2).all()


def test_relevance_is_taught_what_the_object_covers():
    relevance = torch.zeros(3, 1, 16, 24, requires_grad=True)
    maps = maps_of(BOXES)._replace(relevance=(relevance,))
    RefDetLoss()(maps, BOXES)["loss"].backward()
    rises = relevance.grad < 0
    centers = cell_centers(relevance, 4)
    for picture, listed in enumerate(BOXES):
        inside = torch.zeros(16, 24, dtype=torch.bool)
        for box in listed:
            inside |= ((centers >= box[:2]) & (centers <= box[2:])).all(-1)
        assert torch.equal(rises[picture, 0], inside)


def test_ciou_is_not_diou_in_its_gradient():
    raw = torch.randn(1, 4, 16, 24, generator=torch.Generator().manual_seed(0)).requires_grad_()
    maps = RefDetMaps((torch.zeros(1, 1, 16, 24),), (raw,), (4,), (96, 64))
    gradients = [
        torch.autograd.grad(RefDetLoss(iou_type=kind)(maps, [BOXES[2]])["loss"], raw)[0]
        for kind in ("ciou", "diou")
    ]
    assert (gradients[0] - gradients[1]).abs().max() > 1e-3


def test_mixed_precision_maps_give_a_float32_loss():
    maps = maps_of(BOXES)
    half = maps._replace(objectness=(maps.objectness[0].bfloat16(),), boxes=(maps.boxes[0].bfloat16(),))
    losses = RefDetLoss()(half, BOXES)
    assert losses["loss"].dtype == torch.float32


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"iou_type": "fiou"}, "iou, giou, diou, ciou"),
        ({"objectness": "hard"}, "quality or focal"),
        ({"pos_radius": -1}, "0 or more"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        RefDetLoss(**options)


def test_boxes_of_another_number_of_pictures_are_refused():
    with pytest.raises(ValueError, match="3 pictures, got 2"):
        RefDetLoss()(maps_of(BOXES), BOXES[:2])
