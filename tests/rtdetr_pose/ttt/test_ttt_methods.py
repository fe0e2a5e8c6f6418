"""Each method does what was published, by its numbers."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from sightline.rtdetr_pose.ttt import Adapter, ClassifierReader, Cotta, Eata, Guards, Objective, Sar, Scope
from sightline.rtdetr_pose.ttt.batch_norm import BatchNormMode
from sightline.rtdetr_pose.ttt.cotta import follow
from sightline.rtdetr_pose.ttt.views import augment
from tests.rtdetr_pose.ttt.toys import Classifier, bare, pictures, same, tensors
from tests.tolerances import tolerance

EVERYTHING = Scope(select=("all",))


class Fixed(nn.Module):
    """Its outputs are what it is given, times a weight."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1, dtype=torch.float64))

    def forward(self, x):
        return x * self.weight


def logits_of(*rows: tuple[float, ...]) -> torch.Tensor:
    return torch.log(torch.tensor(rows, dtype=torch.float64))


def gradient_of(spec, batch, **arguments) -> float:
    """What the optimiser is given, seen through SGD at a rate of 1."""
    model = Fixed()
    with Adapter(model, spec, **arguments) as a:
        a.step(batch)
        return 1.0 - model.weight.item()


def plain(**values):
    return bare(**{"scope": EVERYTHING, "optimiser": "sgd", "lr": 1.0, **values})


def test_entropies_of_classifiers():
    reader = ClassifierReader()
    x = logits_of((0.7, 0.2, 0.1)).requires_grad_()
    entropy = reader.entropy(x)
    torch.testing.assert_close(entropy.item(), 0.8018186, rtol=1e-7, atol=1e-7)
    assert entropy.item() / reader.max_entropy(x) == pytest.approx(0.7298467, abs=1e-7)
    (found,) = torch.autograd.grad(entropy.sum(), x)
    expected = torch.tensor([[-0.3116005, 0.1615239, 0.1500767]], dtype=torch.float64)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-7)
    assert found.sum().item() == pytest.approx(0, abs=1e-12)
    assert reader.entropy(torch.zeros(1, 81)).item() == pytest.approx(4.3944492, abs=1e-5)
    tie = torch.full((1, 81), -1e4)
    tie[0, :2] = 1e4
    assert reader.entropy(tie).item() == pytest.approx(math.log(2), abs=1e-6)
    assert reader.entropy(tie).item() / reader.max_entropy(tie) == pytest.approx(0.1577324, abs=1e-6)
    assert reader.entropy(torch.tensor([[1e4, -1e4, 0.0]])).item() == 0
    torch.testing.assert_close(reader.entropy(x + 7), entropy)


def test_tent_steps_along_the_entropy():
    x = logits_of((0.7, 0.2, 0.1), (0.5, 0.4, 0.1))
    weight = torch.ones(1, dtype=torch.float64, requires_grad=True)
    (expected,) = torch.autograd.grad(ClassifierReader().entropy(x * weight).mean(), weight)
    assert gradient_of(plain(), x) == pytest.approx(expected.item())


@pytest.mark.parametrize("number", [1, 18_304])
def test_adams_first_step_is_as_long_as_the_rate(number):
    class Many(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(number, dtype=torch.float64))

        def forward(self, x):
            return x.expand(1, 2) * (1 + self.weight.sum())

    def run(limit):
        model = Many()
        guards = Guards(max_update_norm=limit, max_entropy=None, trust_radius=None, max_grad_norm=None)
        with Adapter(model, bare(scope=EVERYTHING, lr=1e-4, guards=guards)) as a:
            _, report = a.step(torch.tensor([[0.0, 1.0]], dtype=torch.float64))
            changed = bool(model.weight.abs().max() > 0)
        return report, changed

    report, changed = run(1.5e-4 * math.sqrt(number))
    assert changed
    assert report.figures["update_norm"] == pytest.approx(1e-4 * math.sqrt(number), rel=1e-3)
    if number == 18_304:
        assert report.figures["update_norm"] == pytest.approx(0.0135292, abs=1e-5)
        assert run(0.02)[0].fired == ()
        report, changed = run(0.01)
        assert report.rolled_back == "update of norm 0.0135"
        assert not changed


def test_eata_weighs_reliable_pictures():
    # E0 = 0.4 ln C; a sure picture counts exp(E0 - H)
    options = Eata(diversity=1.1, fisher_weight=0.0)
    sure, unsure = (0.97, 0.02, 0.01), (0.4, 0.3, 0.3)
    x = logits_of(sure, unsure)
    weight = torch.ones(1, dtype=torch.float64, requires_grad=True)
    entropy = ClassifierReader().entropy(x[:1] * weight)
    factor = math.exp(0.4 * math.log(3) - entropy.item())
    (expected,) = torch.autograd.grad(factor * entropy.sum(), weight)
    assert gradient_of(plain(method=options), x) == pytest.approx(expected.item())
    assert 0.4 * math.log(80) == pytest.approx(1.7528, abs=1e-4)
    assert math.exp(0.4 * math.log(80)) == pytest.approx(5.7708, abs=1e-4)


def test_eata_leaves_out_what_it_has_seen():
    options = Eata(diversity=0.5, fisher_weight=0.0)
    first, other = logits_of((0.97, 0.02, 0.01)), logits_of((0.01, 0.97, 0.02))
    with Adapter(Fixed(), plain(method=options, lr=0.0)) as a:
        assert a.step(first)[1].skipped is None
        assert a.step(first)[1].skipped == "no picture can be learnt from"
        assert a.step(other)[1].skipped is None
        # the average moved by a tenth towards the other
        mean = a._learner.memory["mean_probabilities"]
        torch.testing.assert_close(mean, (0.9 * first.exp() + 0.1 * other.exp())[0])


def test_eata_holds_on_to_what_source_pictures_need():
    x = logits_of((0.9, 0.05, 0.05))
    strong, weak = (Eata(diversity=1.1, fisher_weight=weight) for weight in (1e4, 1e-9))
    moves = []
    for options in (weak, strong):
        model = Fixed()
        spec = bare(method=options, steps=20, scope=EVERYTHING, optimiser="sgd", lr=1e-3)
        with Adapter(model, spec, source_batches=[x]) as a:
            a.step(x)
            moves.append(abs(model.weight.item() - 1))
            weight = torch.ones(1, dtype=torch.float64, requires_grad=True)
            (g,) = torch.autograd.grad(F.cross_entropy(x * weight, x.argmax(1)), weight)
            torch.testing.assert_close(a._method._fisher[0], g.square())
    assert moves[1] < 0.7 * moves[0]
    with pytest.raises(ValueError, match="at least one batch"):
        Adapter(Fixed(), plain(method=strong), source_batches=[])


def test_sar_takes_its_gradient_at_the_worst_place_nearby():
    # loss 0.5 * 4 * x^2 at x = 1: the gradient there is 4, at x + 0.05 it is 4.2
    class Sure(ClassifierReader):
        def entropy(self, outputs):
            return outputs.detach()[:, 0] * 0

    objective = Objective(Sure(), {"bowl": lambda outputs, batch: 2 * outputs[:, 0].square()})
    spec = plain(method=Sar(reset_entropy=0.0), objective={"bowl": 1.0})
    x = torch.ones(1, 2, dtype=torch.float64)
    assert gradient_of(spec, x, objective=objective) == pytest.approx(4.2)


def test_sar_asks_twice_whether_a_picture_is_reliable():
    options = Sar(reliable=0.5, rho=0.3, reset_entropy=0.0)
    # the second is reliable before the perturbation and no longer after it
    x = logits_of((0.98, 0.01, 0.01), (0.885, 0.0575, 0.0575))
    weight = torch.tensor([0.7], dtype=torch.float64, requires_grad=True)
    entropy = ClassifierReader().entropy(x * weight)
    limit = 0.5 * math.log(3)
    assert (ClassifierReader().entropy(x) < limit).tolist() == [True, True]
    assert (entropy < limit).tolist() == [True, False]
    (expected,) = torch.autograd.grad(entropy[0], weight)
    model = Fixed()
    with Adapter(model, plain(method=options)) as a:
        _, report = a.step(x)
        assert 1 - model.weight.item() == pytest.approx(expected.item())
        assert report.figures["sharp_loss"] == pytest.approx(entropy[0].item())


@pytest.mark.parametrize("floor", [0.2, 0.0])
def test_sar_recovers_when_everything_becomes_sure(floor):
    x = logits_of((0.99, 0.005, 0.005))
    model = Fixed()
    with Adapter(model, plain(method=Sar(reset_entropy=floor))) as a:
        _, report = a.step(x)
        assert (report.reset == "recovery: the loss's average is low") == (floor == 0.2)
        assert (model.weight.item() == 1.0) == (floor == 0.2)


def test_the_teacher_follows_slowly():
    teacher = [torch.zeros(3, dtype=torch.float64)]
    for _ in range(100):
        follow(teacher, [torch.ones(3, dtype=torch.float64)], 0.999)
    torch.testing.assert_close(
        teacher[0], torch.full((3,), 0.0952079, dtype=torch.float64), rtol=0, atol=1e-7
    )


def test_cotta_learns_the_teachers_classes():
    reader = ClassifierReader()
    student = torch.zeros(1, 2, dtype=torch.float64, requires_grad=True)
    loss = reader.consistency(student, logits_of((0.9, 0.1)))
    torch.testing.assert_close(loss.item(), math.log(2), **tolerance(torch.float64))
    (found,) = torch.autograd.grad(loss.sum(), student)
    torch.testing.assert_close(found, torch.tensor([[-0.4, 0.4]], dtype=torch.float64))


def test_cotta_restores_weights():
    for share in (0.0, 0.5, 1.0):
        model = Classifier()
        before = tensors(model)
        with Adapter(model, bare(method=Cotta(restore=share, views=0), scope=EVERYTHING)) as a:
            a.step(pictures())
            a.step(pictures(seed=2))
            after = tensors(model)
        assert same(after, before) == (share == 1.0)
        if share == 0.5:
            restored = torch.cat(
                [(after[name] == before[name]).flatten() for name in dict(model.named_parameters())]
            )
            assert 0.3 < restored.float().mean() < 0.8


def test_cotta_looks_again_only_where_the_source_is_unsure():
    passes = []
    model = Classifier()
    model.register_forward_hook(lambda *_: passes.append(1))
    for confidence, expected in ((0.0, 3), (1.1, 3 + 5)):
        spec = bare(method=Cotta(views=5, confidence=confidence), repredict=False)
        with Adapter(model, spec) as a:
            passes.clear()
            outputs, report = a.step(pictures())
        assert len(passes) == expected
        assert 0 < report.figures["anchor_confidence"] < 1
        assert outputs.shape == (4, 5)


def test_the_teacher_predicts():
    model = Classifier()
    with Adapter(model, bare(method=Cotta(momentum=0.9, restore=0.0, views=0), lr=0.1)) as a:
        a.step(pictures())
        a.step(pictures(seed=2))
        teacher = {name.removeprefix("teacher "): each for name, each in a._learner.memory.items()}
        expected = torch.func.functional_call(model, teacher, (pictures(seed=3),))
        assert torch.equal(a.predict(pictures(seed=3)), expected)
        assert torch.equal(a.step(pictures(seed=3))[0], expected)
        assert not torch.equal(model(pictures(seed=3)), expected)


def test_views_are_pictures_and_differ():
    generator = torch.Generator().manual_seed(0)
    x = pictures()
    views = [augment(x, i, generator) for i in range(4)]
    assert [mirrored for _, mirrored in views] == [True, False, True, False]
    assert all(view.shape == x.shape and view.min() >= 0 and view.max() <= 1 for view, _ in views)
    assert (views[0][0].flip(-1) - x).abs().mean() < (views[0][0] - x).abs().mean()
    assert not torch.equal(views[1][0], views[3][0])
    with pytest.raises(ValueError, match="expected pictures"):
        augment(torch.rand(3, 4, 4), 0, generator)


@pytest.mark.parametrize("bn", ["frozen", "alpha:0.1", "batch"])
def test_statistics_of_batch_norm(bn):
    model = Classifier()
    x = pictures()
    before = tensors(model)
    features = model[0](x).detach()
    mean, var = features.mean((0, 2, 3)), features.var((0, 2, 3), correction=0)
    alpha = {"frozen": 0.0, "alpha:0.1": 0.1, "batch": 1.0}[bn]
    mean = (1 - alpha) * model[1].running_mean + alpha * mean
    var = (1 - alpha) * model[1].running_var + alpha * var
    scaled = (features - mean[:, None, None]) / (var[:, None, None] + model[1].eps).sqrt()
    with Adapter(model, bare(bn=bn, lr=0.0)) as a:
        torch.testing.assert_close(a.predict(x), nn.Sequential(*list(model)[2:])(scaled).detach())
        a.step(x)
        assert same(tensors(model), before)  # running statistics and their counter too


def test_statistics_frozen_into_buffers_are_mixed_too():
    class FrozenNorm(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            for name, value in (("weight", 2.0), ("bias", 1.0), ("running_mean", 0.0), ("running_var", 1.0)):
                self.register_buffer(name, torch.full((3,), value))

        def forward(self, x):
            return x

    norm, x = FrozenNorm(), torch.randn(5, 3, 4, 4)
    BatchNormMode(norm, 1.0)
    torch.testing.assert_close(norm(x).mean((0, 2, 3)), torch.ones(3))
    torch.testing.assert_close(norm(x).std((0, 2, 3), correction=0), torch.full((3,), 2.0), rtol=1e-4, atol=0)
