"""Settings, optimiser and recipes: the seed's defaults, every range, every fault with its name."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from sightline.training import TrainSettings, read_recipe
from sightline.training.optimiser import (
    build_optimizer,
    learning_rate,
    load_optimizer_tensors,
    optimizer_tensors,
    parameter_groups,
)
from sightline.training.settings import FREE_TO_CHANGE


def test_defaults_of_the_document() -> None:
    given = {
        "batch_size": 4,
        "epochs": 100,
        "lr": 1e-4,
        "weight_decay": 1e-4,
        "grad_clip": 1.0,
        "num_workers": 4,
        "use_wandb": False,
        "project_name": "convnext-refdet",
        "checkpoint_dir": "./checkpoints",
        "save_interval": 10,
        "min_lr": 1e-6,
    }
    values = dataclasses.asdict(TrainSettings())
    assert {name: values[name] for name in given} == given
    assert values.keys() >= FREE_TO_CHANGE


def test_plain_values_come_back() -> None:
    settings = TrainSettings(
        freeze=("a", "b"), freeze_epochs=2, lr_factors={"a": 0.1}, checkpoint_dir=Path("x")
    )
    plain = json.loads(json.dumps(settings.plain()))
    assert TrainSettings.of(plain) == dataclasses.replace(settings, checkpoint_dir="x")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"batch_size": 0}, "batch_size: expected a whole number at least 1, got 0"),
        ({"lr": float("nan")}, "lr: expected a number at least 0, got nan"),
        ({"lr": 1e-7}, r"min_lr: expected a number at most 1e-07, got 1e-06"),
        ({"ema_decay": 1.0}, "ema_decay: expected a number at least 0 and below 1, got 1"),
        ({"betas": [0.9, 1.5]}, "betas: .*below 1"),
        ({"lr_factors": {"backbone": -1}}, "lr_factors: backbone: .*at least 0"),
        ({"precision": "16"}, "precision: expected one of fp32, bf16, fp16, got '16'"),
        ({"loggers": ["csv"]}, "loggers: expected one of tensorboard, wandb, got 'csv'"),
        ({"freeze": ["backbone"]}, "freeze and freeze_epochs belong together"),
        ({"freeze_epochs": 3}, "freeze and freeze_epochs belong together"),
        ({"max_minutes": -1}, "max_minutes: .*at least 0"),
        ({"learning_rat": 1}, "train: unknown key 'learning_rat'"),
        ({"weigth_decay": 1}, "unknown key 'weigth_decay' .did you mean 'weight_decay'"),
    ],
)
def test_faults_are_named(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TrainSettings.of(values)


def test_schedule() -> None:
    rates = [learning_rate(s, 101, lr=1.0, min_lr=0.1) for s in range(102)]
    assert (rates[0], rates[50], rates[100], rates[101]) == pytest.approx((1.0, 0.55, 0.1, 0.1))
    assert learning_rate(0, 1, lr=1.0) == 1.0
    assert learning_rate(3, 2, lr=1.0, warmup_steps=9) == pytest.approx(0.4)


class Parts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(1, 2, 1), nn.GroupNorm(1, 2))
        self.backbone_two = nn.Linear(2, 2)
        self.scale = nn.Parameter(torch.ones(2))
        self.wide_norm = nn.LayerNorm((2, 2))


def test_groups_cover_every_parameter_once() -> None:
    model = Parts()
    settings = TrainSettings(lr=1.0, lr_factors={"backbone": 0.1, "backbone.1": 0.5}, weight_decay=0.3)
    groups = parameter_groups(model, settings)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    found = {
        names[id(parameter)]: (group["lr"], group["weight_decay"])
        for group in groups
        for parameter in group["params"]
    }
    assert sum(len(group["params"]) for group in groups) == len(names)
    assert found == {
        "scale": (1.0, 0.0),
        "backbone.0.weight": (0.1, 0.3),
        "backbone.0.bias": (0.1, 0.0),
        "backbone.1.weight": (0.5, 0.0),
        "backbone.1.bias": (0.5, 0.0),
        "backbone_two.weight": (1.0, 0.3),
        "backbone_two.bias": (1.0, 0.0),
        "wide_norm.weight": (1.0, 0.0),
        "wide_norm.bias": (1.0, 0.0),
    }
    with pytest.raises(ValueError, match=r"lr_factors: the model has no parameters of 'back' .*scale"):
        parameter_groups(model, TrainSettings(lr_factors={"back": 0.1}))


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_optimiser_state_comes_back(precision: str) -> None:
    settings = TrainSettings(lr_factors={"0": 0.5}, precision=precision)

    def step(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        optimizer.zero_grad()
        model(torch.ones(3, 2)).square().sum().backward()
        optimizer.step()

    one = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
    first = build_optimizer(one, settings)
    step(one, first)
    other = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
    other.load_state_dict(one.state_dict())
    second = build_optimizer(other, settings)
    saved = {name: tensor.clone() for name, tensor in optimizer_tensors(one, first).items()}
    load_optimizer_tensors(other, second, saved)
    step(one, first)
    step(other, second)
    for a, b in zip(one.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)


def build(width: int, *, sizes: tuple[int, int] = (1, 1), ratio: float = 0.5) -> None:
    """Stands for a room's model."""


def recipe(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_recipe(tmp_path: Path) -> None:
    path = recipe(tmp_path, "model: {width: 3, ratio: 1e-4}\ntrain:\n  lr: -1E+2\n  epochs: 2\nloss:\n")
    sections = read_recipe(path, model=build, data=build, loss=build, train=TrainSettings)
    assert sections == {
        "model": {"width": 3, "ratio": 1e-4},
        "train": {"lr": -100.0, "epochs": 2},
        "loss": {},
        "data": {},
    }
    assert read_recipe(recipe(tmp_path, "")) == {}
    anything = read_recipe(recipe(tmp_path, "model: {any: 1}"), model=lambda **values: values)
    assert anything["model"] == {"any": 1}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("modle: {}", r"tiny\.yaml: unknown key 'modle' .did you mean 'model'"),
        ("model: {widht: 3}", r"tiny\.yaml: model: unknown key 'widht' .did you mean 'width'"),
        ("model: {zzzz: 3}", r"model: unknown key 'zzzz' .there are: width, sizes, ratio"),
        ("data: {a: 1}", "data: unknown key 'a'"),
        ("model: {width: 3, width: 4}", r"'width' comes twice.* line 1, column 19"),
        ("model: [1, 2", "expected YAML: while parsing"),
        ("- 1", "expected sections .model, data, loss, train., got list"),
        ("model: 3", "model: expected keys with values, got 3"),
        ("model: !!python/object/apply:os.getcwd []", "expected YAML"),
    ],
)
def test_recipe_faults(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_recipe(recipe(tmp_path, text), model=build)


def test_recipe_absent(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="absent"):
        read_recipe(tmp_path / "absent.yaml")


def test_importing_loads_no_lightning() -> None:
    script = (
        "import sys, sightline.training; print([n for n in ('lightning', 'tensorboard') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_only_true_and_false_are_truth_values_in_recipes(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text("loss: {off: 2.0, yes: 'no', rot: true, cls: False}\n")

    def losses(**weights: object) -> None: ...

    assert read_recipe(path, loss=losses)["loss"] == {"off": 2.0, "yes": "no", "rot": True, "cls": False}
