from __future__ import annotations

import pytest
import torch

from sightline.geometry.pnp.levenberg import (
    Objective,
    PosePrior,
    State,
    damped_step,
    minimise,
)
from sightline.geometry.pnp.linearise import pack_problems
from sightline.geometry.rotations import exp, geodesic_distance, log, random_rotations
from sightline.synthetic.problems import make_pnp_problems

PROBLEMS = make_pnp_problems(5, 30, seed=4)


def objective_with(prior: PosePrior | None, loss: str = "squared") -> Objective:
    problems = pack_problems(PROBLEMS.points_2d, PROBLEMS.points_3d, PROBLEMS.camera.K, None, None)
    return Objective(problems, loss, torch.full((5,), 3.0).double(), prior)


def truth() -> State:
    return State(PROBLEMS.R, PROBLEMS.t, torch.zeros(5, dtype=torch.float64))


def some_prior(information: float) -> PosePrior:
    turn = torch.tensor([[0.3, -0.5, 0.4]], dtype=torch.float64)
    return PosePrior(
        exp(turn) @ PROBLEMS.R, PROBLEMS.t + 0.05, information * torch.eye(6).double().expand(5, 6, 6)
    )


def test_step_without_damping_is_newtons():
    A = torch.tensor([[[4.0, 1.0], [1.0, 3.0]]])
    g = torch.tensor([[1.0, 2.0]])
    step, promised = damped_step(A, g, torch.zeros(1))
    torch.testing.assert_close(step, -torch.linalg.solve(A, g))
    assert promised.item() == pytest.approx(float(g @ torch.linalg.solve(A, g).T))


def test_step_of_a_matrix_that_is_not_positive_is_zero_and_refused():
    step, promised = damped_step(torch.tensor([[[1.0, 2.0], [2.0, 1.0]]]), torch.ones(1, 2), torch.zeros(1))
    assert (step == 0).all()
    assert torch.isinf(promised).all()


def test_gradient_of_the_prior_is_that_of_its_cost():
    """Far from the prior the logarithm's Jacobian matters: a slope of one would fail here."""
    mixed = torch.randn(5, 6, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    prior = some_prior(1.0)._replace(information=mixed @ mixed.mT)
    objective = objective_with(prior)
    state = truth()

    def cost(step):
        moved = State(exp(step[:, :3]) @ state.R, state.t + step[:, 3:], state.log_focal)
        return objective.equations(moved).cost.sum()

    automatic = torch.func.grad(cost)(torch.zeros(5, 6, dtype=torch.float64))
    torch.testing.assert_close(2 * objective.equations(state).gradient, automatic, rtol=1e-8, atol=1e-6)


def test_an_overwhelming_prior_is_the_answer_and_none_leaves_the_data():
    strong, weak = some_prior(1e12), some_prior(0.0)
    held = minimise(objective_with(strong), truth(), 50, 1e-14).state
    assert geodesic_distance(held.R, strong.R).max() < 1e-5
    free = minimise(objective_with(None), truth(), 50, 1e-14).state
    same = minimise(objective_with(weak), truth(), 50, 1e-14).state
    torch.testing.assert_close(same.R, free.R, rtol=0, atol=1e-9)


def test_prior_and_data_are_weighed_by_their_information():
    """Near the optimum both are Gaussian: the posterior mean is the information-weighted mean."""
    free = minimise(objective_with(None), truth(), 50, 1e-16).state
    hessian = objective_with(None).equations(free).hessian
    offset = 1e-5 * torch.randn(5, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    prior = PosePrior(exp(offset[:, :3]) @ free.R, free.t + offset[:, 3:], 3 * hessian)
    both = minimise(objective_with(prior), free, 50, 1e-16).state
    moved = torch.cat([log(both.R @ free.R.mT), both.t - free.t], -1)
    torch.testing.assert_close(moved, 0.75 * offset, rtol=0, atol=1e-7)


def test_problems_that_have_converged_are_left_alone():
    objective = objective_with(None)
    done = minimise(objective, truth(), 50, 1e-14).state
    turn = torch.zeros(5, 3, dtype=torch.float64)
    turn[2] = 0.2
    start = done._replace(R=exp(turn) @ done.R)
    again = minimise(objective, start, 50, 1e-14)
    assert again.converged.all()
    unmoved = torch.tensor([0, 1, 3, 4])
    assert torch.equal(again.state.R[unmoved], done.R[unmoved])
    torch.testing.assert_close(again.state.R[2], done.R[2], rtol=0, atol=1e-7)


def test_the_cost_never_rises_from_whatever_start():
    problems = make_pnp_problems(200, 12, outlier_fraction=0.4, seed=1)
    packed = pack_problems(problems.points_2d, problems.points_3d, problems.camera.K, None, None)
    R = random_rotations(200, generator=torch.Generator().manual_seed(0))
    start = State(R, problems.t * 0.5, torch.zeros(200, dtype=torch.float64))
    for loss in ("squared", "tukey"):
        objective = Objective(packed, loss, torch.full((200,), 30.0).double())
        before = objective.equations(start).cost
        for limit in (1, 3, 10):
            end = minimise(objective, start, limit, 1e-12).state
            after = objective.equations(end).cost
            assert (after <= before).all()
            before = after


@pytest.mark.parametrize("limit", [0, 1])
def test_a_descent_cut_short_says_so(limit):
    state = truth()._replace(R=exp(torch.full((5, 3), 0.1).double()) @ PROBLEMS.R)
    assert not minimise(objective_with(None), state, limit, 1e-14).converged.any()
