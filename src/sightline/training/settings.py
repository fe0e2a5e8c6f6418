"""How a run trains: plain values, checked when they are given."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from sightline.training.choices import refuse_unknown, require_choice

Precision = Literal["fp32", "bf16", "fp16"]
Logger = Literal["tensorboard", "wandb"]
PRECISIONS = ("fp32", "bf16", "fp16")
LOGGERS = ("tensorboard", "wandb")

# What may differ between a run and its continuation: none of these changes a step that was already made.
FREE_TO_CHANGE = frozenset(
    {
        "epochs",
        "steps",
        "num_workers",
        "device",
        "checkpoint_dir",
        "save_interval",
        "validate_interval",
        "state_steps",
        "state_minutes",
        "max_minutes",
        "max_bad_steps",
        "log_steps",
        "loggers",
        "use_wandb",
        "project_name",
        "progress",
    }
)


@dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """How a run trains.

    An epoch is one pass over the task's samples in steps of ``batch_size * accumulate * processes`` samples;
    a remainder that fills no step is left to the other epochs, each of which draws another order.

    Args:
        batch_size: samples of one process in one forward pass.
        epochs: how many epochs.
        steps: how many optimiser steps, instead of ``epochs``.
        lr: the highest learning rate.
        min_lr: the learning rate at the end of the cosine.
        warmup_steps: steps in which the learning rate rises linearly; 0 for none.
        weight_decay: of AdamW; never on biases, norms and other vectors.
        betas: of AdamW.
        lr_factors: learning rate factors by the leading part of parameter names, such as
            ``{"backbone": 0.1}``; the longest part that fits counts.
        grad_clip: the largest norm of the gradient; 0 for no limit.
        accumulate: forward passes that make one optimiser step.
        precision: ``fp32``, ``bf16`` or ``fp16`` (mixed: the weights stay float32).
        ema_decay: decay of the average of the weights that is validated and exported; 0 for none.
        freeze: leading parts of parameter names that do not learn at first, such as ``("backbone",)``.
        freeze_epochs: for how many epochs they do not.
        max_bad_steps: after so many steps in a row without finite losses and gradients the run stops.
        seed: all randomness is a function of it, of the place in the run, and of the process.
        num_workers: processes that prepare data; they change no number.
        device: ``auto`` (CUDA where there is one), ``cpu``, ``cuda``, ``cuda:1``, ``mps``.
        find_unused_parameters: needed over several processes if some weights take no part in some steps.
        checkpoint_dir: the run folder.
        save_interval: epochs between weights that are kept as ``epoch-....safetensors``; 0 for none.
        validate_interval: epochs between validations.
        state_steps: steps between states from which a killed run resumes; beside those of the epochs' ends.
        state_minutes: minutes between such states, where ``state_steps`` is not given.
        max_minutes: after so many minutes, over all continuations, the run ends properly.
        log_steps: steps between lines of ``metrics.jsonl``.
        loggers: further places for the figures: ``tensorboard``, ``wandb``.
        use_wandb: the same as ``"wandb"`` among ``loggers``.
        project_name: the project in Weights & Biases.
        progress: whether a terminal shows a progress bar.

    Raises:
        ValueError: a value outside its range, with its name.

    Example:
        >>> TrainSettings(epochs=2, lr=3e-4).min_lr
        1e-06
        >>> TrainSettings(precision="fp8")
        Traceback (most recent call last):
        ValueError: precision: expected one of fp32, bf16, fp16, got 'fp8'
    """

    batch_size: int = 4
    epochs: int = 100
    steps: int | None = None
    lr: float = 1e-4
    min_lr: float = 1e-6
    warmup_steps: int = 0
    weight_decay: float = 1e-4
    betas: tuple[float, float] = (0.9, 0.999)
    lr_factors: Mapping[str, float] = field(default_factory=dict)
    grad_clip: float = 1.0
    accumulate: int = 1
    precision: Precision | str = "fp32"
    ema_decay: float = 0.0
    freeze: tuple[str, ...] = ()
    freeze_epochs: int = 0
    max_bad_steps: int = 10
    seed: int = 0
    num_workers: int = 4
    device: str = "auto"
    find_unused_parameters: bool = False
    checkpoint_dir: str | Path = "./checkpoints"
    save_interval: int = 10
    validate_interval: int = 1
    state_steps: int | None = None
    state_minutes: float = 10.0
    max_minutes: float | None = None
    log_steps: int = 10
    loggers: tuple[Logger | str, ...] = ()
    use_wandb: bool = False
    project_name: str = "convnext-refdet"
    progress: bool = True

    def __post_init__(self) -> None:
        for name in ("freeze", "loggers"):
            if isinstance(getattr(self, name), str):
                raise ValueError(f"{name}: expected a list of names, got {getattr(self, name)!r}")
        for name in ("batch_size", "epochs", "accumulate", "max_bad_steps", "validate_interval", "log_steps"):
            _require(name, getattr(self, name), low=1, whole=True)
        for name in ("steps", "state_steps"):
            if getattr(self, name) is not None:
                _require(name, getattr(self, name), low=1, whole=True)
        for name in ("warmup_steps", "freeze_epochs", "seed", "num_workers", "save_interval"):
            _require(name, getattr(self, name), low=0, whole=True)
        for name in ("weight_decay", "grad_clip", "min_lr", "lr"):
            _require(name, getattr(self, name), low=0)
        _require("min_lr", self.min_lr, high=self.lr)
        _require("ema_decay", self.ema_decay, low=0, below=1)
        for beta in self.betas:
            _require("betas", beta, low=0, below=1)
        for part, factor in self.lr_factors.items():
            _require(f"lr_factors: {part}", factor, low=0)
        if self.max_minutes is not None:
            _require("max_minutes", self.max_minutes, low=0)
        require_choice("precision", self.precision, PRECISIONS)
        for logger in self.loggers:
            require_choice("loggers", logger, LOGGERS)
        if bool(self.freeze) != bool(self.freeze_epochs):
            raise ValueError(
                "freeze and freeze_epochs belong together: the one says what, the other how long"
            )

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> TrainSettings:
        """Make settings of plain values, as YAML and JSON hold them.

        Args:
            values: by name; lists stand for tuples.

        Returns:
            The settings.

        Raises:
            ValueError: an unknown name, with the nearest known one; a value outside its range.

        Example:
            >>> TrainSettings.of({"epochs": 3, "freeze": ["backbone"], "freeze_epochs": 1}).freeze
            ('backbone',)
            >>> TrainSettings.of({"epoch": 3})
            Traceback (most recent call last):
            ValueError: train: unknown key 'epoch' (did you mean 'epochs'?)
        """
        refuse_unknown("train", values, [entry.name for entry in dataclasses.fields(cls)])
        given: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in values.items()
        }
        return cls(**given)

    def plain(self) -> dict[str, Any]:
        """The values as JSON holds them; ``of`` is the inverse."""
        values = dataclasses.asdict(self) | {"checkpoint_dir": str(self.checkpoint_dir)}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


def _require(
    name: str,
    value: object,
    low: float = -math.inf,
    high: float = math.inf,
    below: float = math.inf,
    *,
    whole: bool = False,
) -> None:
    kinds = int if whole else int | float
    if (
        isinstance(value, kinds)
        and not isinstance(value, bool)
        and math.isfinite(value)
        and low <= value <= high
        and value < below
    ):
        return
    limits = [f"at least {low:g}"] * (low > -math.inf) + [f"at most {high:g}"] * (high < math.inf)
    limits += [f"below {below:g}"] * (below < math.inf)
    kind = "whole number" if whole else "number"
    raise ValueError(f"{name}: expected a {kind} {' and '.join(limits)}, got {value!r}")
