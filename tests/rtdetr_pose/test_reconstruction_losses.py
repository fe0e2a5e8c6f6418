from __future__ import annotations

import math

import pytest
import torch

from sightline.rtdetr_pose.reconstruction_losses import (
    entropy_loss,
    foreground_entropy,
    mim_reconstruction_loss,
)


@pytest.mark.parametrize("junk", [100.0, torch.nan, torch.inf])
def test_only_masked_cells_count_in_value_and_gradient(junk):
    recon, teacher = torch.full((1, 4, 2, 2), junk), torch.full((1, 4, 2, 2), junk)
    recon[..., 0, 0], teacher[..., 0, 0] = 0.0, 1.0
    mask = torch.tensor([[True, False], [False, False]])
    recon.requires_grad_()
    teacher.requires_grad_()
    loss = mim_reconstruction_loss(recon, teacher, mask)
    loss.backward()
    assert loss.item() == 1.0
    assert torch.equal(recon.grad[0, :, 0, 0], torch.full((4,), -0.25))
    assert recon.grad.abs().sum() == 1.0
    assert teacher.grad is None


def test_nothing_masked_and_no_teacher_are_zero_with_zero_gradient():
    recon = torch.full((1, 4, 2, 2), torch.nan, requires_grad=True)
    for teacher, mask in ((torch.zeros(1, 4, 2, 2), torch.zeros(2, 2)), (None, torch.ones(2, 2))):
        recon.grad = None
        loss = mim_reconstruction_loss(recon, teacher, mask)
        loss.backward()
        assert loss.item() == 0.0
        assert recon.grad is not None
        assert torch.equal(recon.grad, torch.zeros_like(recon))


@pytest.mark.parametrize("size", [(3, 4), (1, 5), (5, 1)])
def test_the_forms_of_a_mask_agree(size):
    g = torch.Generator().manual_seed(0)
    recon, teacher = (torch.rand(2, 3, *size, generator=g) for _ in range(2))
    mask = torch.rand(size, generator=g) < 0.5
    losses = [
        mim_reconstruction_loss(recon, teacher, form)
        for form in (mask, mask.expand(2, *size), mask.expand(2, 1, *size), mask.float())
    ]
    expected = (recon - teacher).abs().permute(0, 2, 3, 1)[:, mask].mean()
    for loss in losses:
        assert torch.allclose(loss, expected)


def test_weights_of_cells():
    recon, teacher = torch.zeros(1, 2, 1, 2), torch.tensor([1.0, 3.0]).expand(1, 2, 1, 2)
    weights = torch.tensor([[[3.0, 1.0]]])
    assert mim_reconstruction_loss(recon, teacher, None, cell_weights=weights).item() == 1.5


def test_masks_and_teachers_that_do_not_fit():
    with pytest.raises(ValueError, match="mask: expected shape"):
        mim_reconstruction_loss(torch.zeros(2, 3, 4, 4), torch.zeros(2, 3, 4, 4), torch.ones(2, 2))
    with pytest.raises(ValueError, match="expected the same shape"):
        mim_reconstruction_loss(torch.zeros(2, 3, 4, 4), torch.zeros(2, 3, 2, 4))


def test_softmax_entropy_of_the_table():
    uniform = torch.zeros(2, 81, dtype=torch.float64)
    assert entropy_loss(uniform).item() == pytest.approx(4.3944492, abs=1e-6)
    assert entropy_loss(uniform, normalise=True).item() == pytest.approx(1.0)
    assert entropy_loss(torch.tensor([[1e4, 0.0, -1e4]])).item() == 0.0
    tie = torch.full((1, 81), -1e4)
    tie[0, :2] = 1e4
    assert entropy_loss(tie).item() == pytest.approx(math.log(2), abs=1e-6)
    assert entropy_loss(tie, normalise=True).item() == pytest.approx(0.1577324, abs=1e-6)
    assert entropy_loss(torch.zeros(0, 5)).item() == 0.0


def test_gradient_of_the_softmax_entropy():
    logits = torch.tensor([0.7, 0.2, 0.1], dtype=torch.float64).log().requires_grad_()
    loss = entropy_loss(logits)
    loss.backward()
    assert loss.item() == pytest.approx(0.8018186, abs=1e-6)
    assert entropy_loss(logits.detach() + 7, normalise=True).item() == pytest.approx(0.7298467, abs=1e-6)
    expected = torch.tensor([-0.3116005, 0.1615239, 0.1500767], dtype=torch.float64)
    assert torch.allclose(logits.grad, expected, atol=1e-6)
    assert abs(logits.grad.sum().item()) < 1e-12
    assert torch.autograd.gradcheck(
        entropy_loss, (torch.randn(3, 5, dtype=torch.float64, requires_grad=True),)
    )


def test_bernoulli_entropy_of_the_best_queries():
    nine = math.log(9)
    assert foreground_entropy(torch.tensor([[[nine, -50.0]]])).item() == pytest.approx(0.4689956, abs=1e-6)
    # background does not count, of the rest the best two do
    logits = torch.tensor([[[nine], [-9.0], [0.0], [-1.0]]])
    assert foreground_entropy(logits, top_k=2).item() == pytest.approx((0.4689956 + 1) / 2, abs=1e-6)
    assert foreground_entropy(torch.tensor([[[1e4], [-1e4]]]), min_score=0.0).item() == 0.0


def test_nothing_in_the_foreground_is_zero_with_zero_gradient():
    logits = torch.full((2, 5, 3), -20.0, requires_grad=True)
    loss = foreground_entropy(logits)
    loss.backward()
    assert loss.item() == 0.0
    assert torch.equal(logits.grad, torch.zeros_like(logits))
    logits = torch.randn(2, 5, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(foreground_entropy, (logits,))
