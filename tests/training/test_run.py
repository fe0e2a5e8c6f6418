"""What a run does beside learning: skipping, freezing, averaging, validating, writing, stopping."""

from __future__ import annotations

import math
import sys
import types
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sightline.nn.checkpoint import load_weights, read_config
from sightline.training import TrainingDiverged, TrainSettings, fit
from sightline.training.run_folder import RunFolder
from sightline.training.state import load_state
from sightline.training.stream import validation_batches
from tests.training.tiny_task import Points, TinyNet, TinyTask, settings


class Broken(TinyTask):
    """Losses that are not finite at some forward passes."""

    def __init__(self, bad: Iterable[int], how: str = "nan") -> None:
        super().__init__(plain=True)
        self.bad = set(bad)
        self.how = how

    def losses(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        losses = super().losses(batch)
        if self.model.training and self.passes in self.bad:
            # a constant has no gradient: the gradients stay finite
            poison = {"nan": losses["loss"] * torch.nan, "constant": losses["loss"] + torch.inf}[self.how]
            return losses | {"loss": poison}
        return losses


def state(task: TinyTask) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in task.model.state_dict().items()}


def test_folder_holds_what_is_needed(tmp_path: Path) -> None:
    options = settings(epochs=10, ema_decay=0.9, save_interval=6)
    result = fit(TinyTask(), options, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {
        "config.json",
        "metrics.jsonl",
        "state.safetensors",
        "best.safetensors",
        "model.safetensors",
        "epoch-0006.safetensors",
    }
    assert (result.steps, result.skipped, result.complete) == (60, 0, True)
    card = read_config(result.weights)
    assert (card.kind, card.config) == ("TinyNet", {"plain": False})
    assert card.extra["figures"] == result.figures
    judged = [line["val_loss"] for line in RunFolder(tmp_path).read_metrics() if "val_loss" in line]
    assert len(judged) == 10
    assert result.figures["val_loss"] == min(judged) < 0.5 * judged[0]

    # the exported weights give the figures that stand beside them
    task = TinyTask()
    load_weights(task.model, result.weights)
    task.model.eval()
    batches = validation_batches(Points(8), task.collate, options.batch_size, options.seed)
    with torch.no_grad():
        assert task.validate(batches) == result.figures


def test_best_is_by_the_task_figure(tmp_path: Path) -> None:
    class Rated(TinyTask):
        best_figure = "score"
        best_is_high = True
        scores = iter((0.2, math.nan, 0.7, 0.7, 0.5))

        def validate(self, batches: Iterable[Any]) -> dict[str, float]:
            assert not any(module.training for module in self.model.modules())
            assert not torch.is_grad_enabled()
            assert sum(len(batch["x"]) for batch in batches) == 8
            return {"score": next(self.scores)}

    task = Rated()
    result = fit(task, settings(epochs=5), tmp_path)
    assert result.figures == {"score": 0.7}
    assert read_config(result.weights).extra == {"steps": 18, "figures": {"score": 0.7}}
    assert all(module.training for module in task.model.modules())
    task.best_figure = "ap"
    with pytest.raises(ValueError, match="Rated: validate must give 'ap'; it gave: score"):
        task.scores = iter([0.1])
        fit(task, settings(epochs=1), tmp_path / "b")


def test_average_is_validated_and_exported(tmp_path: Path) -> None:
    """By hand: the same run without the average gives the weights of each step."""
    steps: list[dict[str, Tensor]] = []

    class Recorded(TinyTask):
        def at_progress(self, fraction: float) -> None:
            steps.append(state(self))

    task = Recorded(validates=False)
    fit(task, settings(epochs=1, ema_decay=0.6), tmp_path)
    steps.append(state(task))
    expected = steps[0]["head.1.weight"]
    for n, weights in enumerate(steps[1:]):
        decay = min(0.6, (1 + n) / (10 + n))
        expected = decay * expected + (1 - decay) * weights["head.1.weight"]
    exported = TinyNet()
    load_weights(exported, tmp_path / "model.safetensors")
    torch.testing.assert_close(exported.head[1].weight.detach(), expected)
    assert not torch.allclose(exported.head[1].weight, steps[-1]["head.1.weight"])
    assert int(exported.backbone[1].num_batches_tracked) == 6


@pytest.mark.parametrize("how", ["nan", "constant"])
def test_a_step_that_is_not_finite_is_skipped(tmp_path: Path, how: str) -> None:
    """Skipping step 3 of 4 changes neither weights nor moments: the optimiser counts three steps."""
    task = Broken([3], how)
    result = fit(task, settings(steps=4, ema_decay=0.5), tmp_path / "a")
    assert (result.steps, result.skipped) == (4, 1)
    assert all(bool(tensor.isfinite().all()) for tensor in task.model.state_dict().values())
    from safetensors.torch import load_file

    stored = load_file(tmp_path / "a" / "state.safetensors")
    assert {int(stored[key]) for key in stored if key.endswith("/step")} == {3}
    lines = RunFolder(tmp_path / "a").read_metrics()
    assert [line["skipped"] for line in lines if "loss" in line] == [0, 1]
    assert all(line["loss"] is not None for line in lines if "loss" in line)


def test_one_bad_pass_spoils_its_whole_step(tmp_path: Path) -> None:
    result = fit(Broken([2]), settings(steps=3, accumulate=2), tmp_path)
    assert (result.steps, result.skipped) == (3, 1)


def test_divergence_ends_the_run(tmp_path: Path) -> None:
    task = Broken([2, 4, *range(8, 99)])
    with pytest.raises(TrainingDiverged, match=r"3 steps in a row, up to step 10.*loss nan.*Lower lr"):
        fit(task, settings(max_bad_steps=3), tmp_path)
    assert all(bool(tensor.isfinite().all()) for tensor in task.model.state_dict().values())
    assert RunFolder(tmp_path).state.exists()


def test_frozen_parts_rest_and_wake(tmp_path: Path) -> None:
    task = TinyTask()
    task.model.backbone[0].bias.requires_grad_(False)  # by the model's own decision, for ever
    before = state(task)
    frozen = settings(epochs=2, freeze=["backbone"], freeze_epochs=2)
    fit(task, frozen, tmp_path)
    for name, tensor in task.model.state_dict().items():
        assert torch.equal(tensor, before[name]) == name.startswith("backbone"), name
    fit(task, TrainSettings.of(frozen.plain() | {"epochs": 3}), tmp_path)
    for name, tensor in task.model.state_dict().items():
        assert torch.equal(tensor, before[name]) == (name == "backbone.0.bias"), name
    assert all(module.training for module in task.model.modules())
    with pytest.raises(ValueError, match=r"freeze: the model has no parameters of 'bakbone' \(it has: backb"):
        fit(TinyTask(), settings(freeze=["bakbone"], freeze_epochs=1), tmp_path / "b")


def test_gradients_are_clipped(tmp_path: Path) -> None:
    seen: list[float] = []

    class Watched(TinyTask):
        def at_progress(self, fraction: float) -> None:
            norms = [p.grad.norm() for p in self.model.parameters() if p.grad is not None]
            if norms:
                seen.append(float(torch.stack(norms).norm()))

    fit(Watched(), settings(grad_clip=0.5), tmp_path / "a")
    assert seen
    assert max(seen) <= 0.5 + 1e-5
    logged = [line["grad_norm"] for line in RunFolder(tmp_path / "a").read_metrics() if "loss" in line]
    assert max(logged) > 0.5  # the norm before clipping
    seen.clear()
    fit(Watched(), settings(grad_clip=0), tmp_path / "b")
    assert max(seen) > 0.5


def test_learning_rate_at_every_step(tmp_path: Path) -> None:
    fit(TinyTask(), settings(steps=8, warmup_steps=3, log_steps=1, min_lr=1e-3), tmp_path)
    rates = [line["lr"] for line in RunFolder(tmp_path).read_metrics() if "lr" in line]
    assert rates[:4] == pytest.approx([0.005, 0.01, 0.015, 0.02])
    assert rates[-1] == pytest.approx(1e-3)
    assert rates[3:] == sorted(rates[3:], reverse=True)


def test_precisions(tmp_path: Path) -> None:
    seen: set[torch.dtype] = set()
    task = TinyTask()
    task.model.head[1].register_forward_hook(lambda *args: seen.add(args[-1].dtype))
    fit(task, settings(epochs=1, precision="bf16"), tmp_path / "a")
    assert seen == {torch.bfloat16}
    assert {tensor.dtype for tensor in task.model.parameters()} == {torch.float32}
    with pytest.raises(ValueError, match="fp16 needs a GPU"):
        fit(TinyTask(), settings(precision="fp16"), tmp_path / "b")


def test_fp16_loss_scale(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A scale that overflows is halved until it fits; these steps are skipped. The scale is resumed."""
    import lightning.pytorch as pl
    from lightning.pytorch.plugins.precision import MixedPrecision

    from sightline.training import trainer
    from sightline.training.processes import Processes

    def build(settings: TrainSettings, processes: Processes) -> pl.Trainer:
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**20)
        built = trainers(TrainSettings.of(settings.plain() | {"precision": "fp32"}), processes)
        built.strategy.precision_plugin = MixedPrecision("16-mixed", "cpu", scaler)
        return built

    trainers = trainer.build_trainer
    monkeypatch.setattr(trainer, "build_trainer", build)
    options = {"precision": "fp16", "log_steps": 1, "ema_decay": 0.5}
    whole = fit(TinyTask(), settings(**options), tmp_path / "a")
    assert 2 <= whole.skipped <= 9
    lines = RunFolder(tmp_path / "a").read_metrics()
    assert all(line["loss"] is not None for line in lines if "loss" in line)
    progress, _ = load_state(tmp_path / "a" / "state.safetensors")
    assert progress.scaler["scale"] == 2.0 ** (20 - whole.skipped)
    fit(TinyTask(), settings(**options, max_minutes=0), tmp_path / "b")
    resumed = fit(TinyTask(), settings(**options), tmp_path / "b")
    assert (resumed.skipped, resumed.figures) == (whole.skipped, whole.figures)


def test_interrupt_stays_an_interrupt(tmp_path: Path) -> None:
    class Interrupted(TinyTask):
        def at_progress(self, fraction: float) -> None:
            if fraction > 0.5:
                raise KeyboardInterrupt

    import signal

    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        fit(Interrupted(), settings(), tmp_path)
    assert signal.getsignal(signal.SIGINT) is handler


def test_wandb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []

    class Run:
        id = "abc"

        def log(self, figures: dict[str, float], step: int) -> None:
            calls.append((step, set(figures)))

        def finish(self) -> None:
            calls.append("finish")

    def init(**options: Any) -> Run:
        calls.append((options["project"], options["id"], options["resume"]))
        return Run()

    wandb = types.ModuleType("wandb")
    wandb.__dict__["init"] = init
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    options = {"use_wandb": True, "loggers": ["wandb"], "project_name": "p", "log_steps": 6}
    fit(TinyTask(), settings(epochs=1, **options), tmp_path)
    assert calls[0] == ("p", None, "allow")
    assert calls[1] == (6, {"loss", "loss_error", "grad_norm", "lr", "skipped"})
    assert calls[2:] == [(6, {"val_loss", "val_loss_error"}), "finish"]
    calls.clear()
    fit(TinyTask(), settings(epochs=2, **options), tmp_path)
    assert calls[0] == ("p", "abc", "allow")


@pytest.mark.parametrize(
    ("package", "options"), [("wandb", {"use_wandb": True}), ("tensorboard", {"loggers": ["tensorboard"]})]
)
def test_a_missing_logger_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str, options: dict[str, Any]
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(sys.modules, "torch.utils.tensorboard", raising=False)
    with pytest.raises(ModuleNotFoundError, match=f"pip install {package}"):
        fit(TinyTask(), settings(**options), tmp_path)


def test_tensorboard(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    fit(TinyTask(), settings(epochs=1, loggers=["tensorboard"]), tmp_path)
    assert list((tmp_path / "tensorboard").iterdir())


def test_a_model_of_any_kind(tmp_path: Path) -> None:
    """Tied weights and integer buffers go through state and export."""

    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Linear(4, 4)
            self.b = nn.Linear(4, 4)
            self.b.weight = self.a.weight
            self.register_buffer("places", torch.arange(3))

        def forward(self, x: Tensor) -> Tensor:
            return self.b(self.a(x)).sum(1, keepdim=True)

    def task() -> TinyTask:
        result = TinyTask()
        torch.manual_seed(0)
        result.model = Tied()
        return result

    options = {"ema_decay": 0.5, "lr": 1e-3}
    fit(task(), settings(epochs=1, **options), tmp_path / "a")
    first = fit(task(), settings(**options), tmp_path / "a", resume="auto")
    whole = Tied()
    load_weights(whole, first.weights)
    assert torch.equal(whole.a.weight, whole.b.weight)
