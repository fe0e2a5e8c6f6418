from __future__ import annotations

import pytest
import torch

from sightline.geometry.pnp.losses import robust_loss
from tests.tolerances import tolerance

NAMES = ["squared", "huber", "cauchy", "geman_mcclure", "tukey"]


@pytest.mark.parametrize("name", NAMES)
def test_weight_and_curvature_are_the_derivatives_of_the_value(name):
    s = torch.tensor([0.0, 1e-3, 0.3, 0.99, 1.01, 3.0, 100.0], dtype=torch.float64, requires_grad=True)
    terms = robust_loss(s, name)
    (slope,) = torch.autograd.grad(terms.value.sum(), s, retain_graph=True)
    torch.testing.assert_close(terms.weight, slope, **tolerance(torch.float64))
    if name != "squared":
        (bend,) = torch.autograd.grad(terms.weight.sum(), s)
        torch.testing.assert_close(terms.curvature, bend, **tolerance(torch.float64))


@pytest.mark.parametrize("name", NAMES)
def test_all_losses_agree_on_small_residuals_and_never_fall(name):
    small = torch.tensor([1e-7], dtype=torch.float64)
    assert float(robust_loss(small, name).value / small) == pytest.approx(1, abs=1e-6)
    s = torch.linspace(0, 20, 500, dtype=torch.float64)
    assert (robust_loss(s, name).value.diff() >= 0).all()


def test_golden_values():
    # By hand from the formulas of Huber 1964 and Beaton and Tukey 1974 at s = 4 and s = 1/2.
    assert robust_loss(torch.tensor([4.0]), "huber").value.item() == 3.0
    assert robust_loss(torch.tensor([0.5]), "tukey").value.item() == pytest.approx(7 / 24)
    assert robust_loss(torch.tensor([4.0]), "tukey").weight.item() == 0.0


def test_an_unknown_loss_is_named():
    from sightline.geometry.pnp import losses

    with pytest.raises(ValueError, match="expected one of squared, huber"):
        losses.robust_loss.__wrapped__(torch.ones(1), "hubert")
