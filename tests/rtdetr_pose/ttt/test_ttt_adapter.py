"""An adapter changes only its scope, forgets bit for bit, and gives the model back as it was."""

import json

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from sightline.rtdetr_pose.ttt import (
    Adapter,
    AdaptSpec,
    Cotta,
    Eata,
    Guards,
    Objective,
    Sar,
    Scope,
    Tent,
    adapter,
    apply_adapters,
    compare_on_streams,
    remove_adapters,
    run_stream,
    select_parameters,
    summarise,
)
from sightline.rtdetr_pose.ttt.readers import ClassifierReader
from sightline.rtdetr_pose.ttt.stream import StreamItem
from tests.rtdetr_pose.ttt.toys import Classifier, bare, pictures, same, tensors

METHODS = [
    Tent(),
    Eata(reliable=1.0, diversity=1.1, fisher_weight=10.0),
    Sar(reliable=1.0, reset_entropy=0.0),
    Cotta(momentum=0.9, views=3, confidence=1.1, restore=0.1),
]
EVERY_METHOD = pytest.mark.parametrize("method", METHODS, ids=lambda method: method.kind)


def make(model: nn.Module, spec: AdaptSpec) -> Adapter:
    return Adapter(model, spec, source_batches=[pictures(seed=9)])


@EVERY_METHOD
def test_a_rate_of_zero_changes_no_bit(method):
    model = Classifier().train()
    before = tensors(model)
    with make(model, bare(method=method, lr=0.0)) as a:
        for seed in range(3):
            a.step(pictures(seed=seed))
            assert same(tensors(model), before)


@EVERY_METHOD
def test_only_the_scope_changes_and_batch_norm_remembers_nothing(method):
    model = Classifier()
    before = tensors(model)
    with make(model, bare(method=method)) as a:
        for seed in range(3):
            _, report = a.step(pictures(seed=seed))
            assert report.updated
        after = tensors(model)
        assert report.parameters == 8 * 4
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"1.weight", "1.bias", "4.weight", "4.bias"}


@EVERY_METHOD
@pytest.mark.parametrize("optimiser", ["sgd", "adam", "adamw"])
def test_reset_is_bit_exact_with_optimiser_teacher_and_averages(method, optimiser):
    model = Classifier()
    before = tensors(model)
    with make(model, bare(method=method, optimiser=optimiser)) as a:
        first = [a.step(pictures(seed=seed))[0] for seed in range(3)]
        assert not same(tensors(model), before)
        a.reset()
        assert same(tensors(model), before)
        again = [a.step(pictures(seed=seed))[0] for seed in range(3)]
    assert all(map(torch.equal, first, again))


@EVERY_METHOD
def test_a_saved_state_goes_on_bit_for_bit(method):
    spec = bare(method=method)
    with make(Classifier(), spec) as a:
        for seed in range(3):
            a.step(pictures(seed=seed))
        state = a.state_dict()
        json.dumps([state["spec"], state["host"]])
        expected = [a.step(pictures(seed=seed))[0] for seed in (5, 6)]
    with make(Classifier(), spec) as b:
        b.load_state_dict(state)
        assert all(map(torch.equal, expected, [b.step(pictures(seed=seed))[0] for seed in (5, 6)]))
    with make(Classifier(seed=3), spec) as other, pytest.raises(ValueError, match="another source model"):
        other.load_state_dict(state)
    with (
        make(Classifier(), bare(method=method, lr=0.5)) as other,
        pytest.raises(ValueError, match="specific"),
    ):
        other.load_state_dict(state)


@EVERY_METHOD
def test_episodic_results_do_not_depend_on_the_order(method):
    batches = [pictures(seed=seed) for seed in range(4)]
    with make(Classifier(), bare(method=method, reset="episodic")) as a:
        forwards = [a.step(each)[0] for each in batches]
        backwards = [a.step(each)[0] for each in reversed(batches)][::-1]
    assert all(map(torch.equal, forwards, backwards))
    with make(Classifier(), bare(method=method, reset="stream")) as a:
        forwards = [a.step(each)[0] for each in batches]
        assert not torch.equal(forwards[-1], make(Classifier(), bare(method=method)).step(batches[-1])[0])


@EVERY_METHOD
@pytest.mark.parametrize("steps", [1, 3])
def test_an_early_exit_changes_nothing_but_the_time(method, steps):
    guards = Guards(max_entropy=0.93, min_marginal_ratio=None, max_rise=0.02)
    runs = []
    for early in (False, True):
        spec = bare(method=method, steps=steps, guards=guards, early_exit=early)
        with make(Classifier(), spec) as a:
            runs.append([a.step(pictures(number=2, seed=seed)) for seed in range(6)])
    kinds = [(report.skipped, report.rolled_back, report.reset) for _, report in runs[0]]
    assert kinds == [(report.skipped, report.rolled_back, report.reset) for _, report in runs[1]]
    assert all(torch.equal(one[0], other[0]) for one, other in zip(*runs, strict=True))


class _HostReads(TorchDispatchMode):
    """Counts what would make the host wait for the device."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        if name in ("_local_scalar_dense", "nonzero", "masked_select", "equal", "is_nonzero"):
            self.found.append(name)
        return func(*args, **(kwargs or {}))


@EVERY_METHOD
def test_the_host_waits_once_a_step(method, monkeypatch):
    fetched = []
    original = adapter.fetch
    monkeypatch.setattr(adapter, "fetch", lambda numbers: fetched.append(1) or original(numbers))
    # Adam's and the momentum's counters live on the host and wait for nothing.
    spec = bare(method=method, guards=Guards(), optimiser="sgd", early_exit=False)
    with make(Classifier(), spec) as a:
        a.step(pictures())
        fetched.clear()
        with _HostReads() as reads:
            a.step(pictures(seed=2))
    assert reads.found == []
    assert len(fetched) == 1


def test_closing_restores_modes_flags_and_weights():
    model = Classifier().train()
    model[0].eval()
    model[0].weight.requires_grad_(False)
    modes = [module.training for module in model.modules()]
    flags = [each.requires_grad for each in model.parameters()]
    before = tensors(model)
    with pytest.raises(KeyError), Adapter(model, bare(bn="batch")) as a:
        a.step(pictures())
        assert not model.training
        raise KeyError
    assert [module.training for module in model.modules()] == modes
    assert [each.requires_grad for each in model.parameters()] == flags
    assert all(each.grad is None for each in model.parameters())
    assert "forward" not in model[1].__dict__
    assert same(tensors(model), before)
    with pytest.raises(RuntimeError, match="closed"):
        a.step(pictures())


def test_what_was_learnt_can_be_kept():
    model = Classifier()
    a = Adapter(model, bare(method=Cotta(momentum=0.5, restore=0.0, views=0)))
    for seed in range(3):
        a.step(pictures(seed=seed))
    expected = a.predict(pictures())
    before = tensors(model)
    a.close(keep=True)
    assert torch.equal(model.eval()(pictures()), expected)  # the teacher's, not the student's
    assert not same(tensors(model), before)


def test_a_failed_adapter_leaves_the_model_alone():
    model = Classifier().train()
    flags = [each.requires_grad for each in model.parameters()]
    with pytest.raises(ValueError, match="source_batches"):
        Adapter(model, bare(method="eata"))
    with pytest.raises(ValueError, match=r"unknown key 'mim' .*entropy"):
        Adapter(model, bare(objective={"mim": 1.0}))
    assert model.training
    assert [each.requires_grad for each in model.parameters()] == flags


def test_a_scope_that_selects_nothing_is_an_error():
    plain = nn.Sequential(nn.Linear(3, 3))
    with pytest.raises(ValueError, match="selects none of the model's 2 parameters"):
        Adapter(plain)
    with pytest.raises(ValueError, match="call apply_adapters first"):
        Adapter(Classifier(), AdaptSpec(scope=Scope(select=("adapters",))))
    with pytest.raises(ValueError, match="no_such"):
        select_parameters(Classifier(), Scope(include=("no_such",)))
    with pytest.raises(ValueError, match="depends on none"):
        Adapter(Classifier(), bare(), objective=_Deaf()).step(pictures())


class _Deaf(Objective):
    def __init__(self) -> None:
        super().__init__(ClassifierReader(), {"deaf": lambda outputs, batch: outputs.detach().sum(1)})
        self.bind = lambda model, weights, changing: setattr(self, "weights", {"deaf": 1.0})


def test_adapters_never_include_what_they_adapt():
    model = Classifier()
    expected = model.eval()(pictures())
    names = apply_adapters(model, rank=2, layers=("linear", "conv"))
    assert names == ["0", "3", "8"]
    assert torch.equal(model(pictures()), expected)
    chosen = select_parameters(model, Scope(select=("adapters",)))
    assert sum(each.numel() for each in chosen.values()) == 2 * (8 + 27) + 2 * (8 + 72) + 2 * (5 + 8)
    assert not any("original" in name for name in chosen)
    weights = tensors(model)
    with Adapter(model, bare(scope=Scope(select=("adapters",)))) as a:
        for seed in range(3):
            outputs, _ = a.step(pictures(seed=seed))
        after = tensors(model)
        assert not torch.equal(outputs, expected)
    changed = {name for name in weights if not torch.equal(weights[name], after[name])}
    assert changed == set(chosen)
    assert remove_adapters(model) == names
    assert torch.equal(model(pictures()), expected)


def test_merged_adapters_stay_in_the_weights():
    model = nn.Sequential(nn.Linear(4, 3))
    apply_adapters(model, rank=1)
    model[0].parametrizations["weight"][0].up.data.fill_(1.0)
    expected = model(torch.ones(1, 4))
    remove_adapters(model, merge=True)
    torch.testing.assert_close(model(torch.ones(1, 4)), expected)
    with pytest.raises(ValueError, match="no layer"):
        apply_adapters(nn.ReLU())


def test_any_objective_and_any_arguments():
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.LayerNorm(4)

        def forward(self, x, shift):
            return {"scores": self.norm(x) + shift}

    objective = Objective(
        ClassifierReader("scores"), {"size": lambda out, batch: out["scores"].square().sum(1)}
    )
    spec = bare(objective={"size": 1.0}, lr=0.1)
    x, shift = torch.rand(2, 4), torch.zeros(4)
    for batch in ({"x": x, "shift": shift}, (x, shift)):
        with Adapter(Two(), spec, objective=objective) as a:
            outputs, report = a.step(batch)
        assert outputs["scores"].shape == (2, 4)
        assert report.figures["loss_after"] < report.figures["loss_before"]


def test_frozen_steps_only_predict():
    model = Classifier()
    with Adapter(model, bare()) as a:
        a.step(pictures())
        before = tensors(model)
        with a.frozen():
            outputs, report = a.step(pictures(seed=2))
        assert (report.skipped, report.updated) == ("frozen", False)
        assert same(tensors(model), before)
        assert torch.equal(outputs, a.predict(pictures(seed=2)))
        assert a.step(pictures(seed=2))[1].updated


def test_predictions_before_or_after_the_update():
    model = Classifier()
    source = model.eval()(pictures())
    with Adapter(model, bare(repredict=False)) as a:
        assert torch.equal(a.step(pictures())[0], source)
    with Adapter(model, bare()) as a:
        outputs, _ = a.step(pictures())
        assert not torch.equal(outputs, source)
        assert torch.equal(outputs, a.predict(pictures()))
        assert not outputs.requires_grad


def test_a_stream_with_reports_and_methods_beside_the_source(tmp_path):
    items = [pictures(seed=0), StreamItem(batch=pictures(seed=1))]
    with Adapter(Classifier(), bare()) as a:
        reports = [report for _, report in run_stream(a, items, report_path=tmp_path / "steps.jsonl")]
    lines = [json.loads(line) for line in (tmp_path / "steps.jsonl").read_text().splitlines()]
    assert [line["index"] for line in lines] == [0, 1]
    assert lines[0]["figures"]["loss_before"] == pytest.approx(reports[0].figures["loss_before"])
    assert summarise(reports)["updated"] == 2

    def confidence(name, kept):
        return float(torch.stack(kept).mean())

    rows = compare_on_streams(
        lambda spec: make(Classifier(), spec),
        {"tent": bare(lr=0.05), "eata": bare(method=METHODS[1], lr=0.05)},
        {"a": items, "b": items[:1]},
        confidence,
        keep=lambda outputs: outputs.softmax(1).amax(1).mean(),
    )
    assert [(row["stream"], row["method"]) for row in rows[:3]] == [
        ("a", "source"),
        ("a", "tent"),
        ("a", "eata"),
    ]
    source = Classifier().eval()
    both = [source(each).detach() for each in (items[0], items[1].batch)]
    plain = torch.stack([each.softmax(1).amax(1).mean() for each in both]).mean()
    assert rows[0]["score"] == pytest.approx(float(plain))
    assert rows[1]["gain"] == pytest.approx(rows[1]["score"] - rows[0]["score"])
    assert rows[1]["gain"] > 0
    assert (rows[0]["updated"], rows[1]["updated"]) == (0, 2)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@EVERY_METHOD
def test_a_seed_serves_on_the_gpu(method):
    runs = []
    for _ in range(2):
        with Adapter(Classifier().cuda(), bare(method=method), source_batches=[pictures(seed=9).cuda()]) as a:
            runs.append([a.step(pictures(seed=seed).cuda())[0] for seed in range(3)])
    for one, other in zip(*runs, strict=True):
        torch.testing.assert_close(one, other)
