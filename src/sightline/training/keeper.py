"""What a run keeps: figures, the best weights, the state to resume from, and the weights that it was for."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from sightline.formats.atomic import atomic_write
from sightline.nn.checkpoint import save_model
from sightline.training.average import WeightAverage
from sightline.training.loggers import FigureLogger
from sightline.training.optimiser import optimizer_tensors
from sightline.training.processes import Processes, average_over_processes, share
from sightline.training.run_folder import RunFolder
from sightline.training.settings import TrainSettings
from sightline.training.state import Progress, save_state
from sightline.training.stream import EpochStream, validation_batches
from sightline.training.task import TrainingTask


class TrainingDiverged(RuntimeError):
    """Losses or gradients were not finite for too many steps in a row."""


class RunKeeper:
    """Keeps the record of a run; the first process writes the files.

    Args:
        task: what is trained.
        settings: how.
        stream: the training batches, from where the run is to its end.
        folder: where the files go.
        progress: where the run is; changed in place.
        loggers: further places for the figures.
        processes: which process this is.
    """

    def __init__(
        self,
        task: TrainingTask,
        settings: TrainSettings,
        *,
        stream: EpochStream,
        folder: RunFolder,
        progress: Progress,
        loggers: list[FigureLogger],
        processes: Processes,
    ) -> None:
        self.task = task
        self.settings = settings
        self.stream = stream
        self.folder = folder
        self.progress = progress
        self.processes = processes
        self.average: WeightAverage | None = None
        self._loggers = loggers
        self._window: dict[str, list[Tensor]] = {}
        self._clock = self._state_clock = time.monotonic()
        self._state_position = progress.position if progress.position else -1

    @property
    def steps(self) -> int:
        """Optimiser steps so far."""
        return self.progress.position // self.settings.accumulate

    @property
    def total_steps(self) -> int:
        """Optimiser steps of the whole run."""
        return self.stream.stop // self.settings.accumulate

    def start(self, window: Mapping[str, Tensor]) -> None:
        """Start the clock, with the losses that a resumed run had not written yet."""
        self._window = {name: list(values) for name, values in window.items()}
        self._clock = self._state_clock = time.monotonic()

    # ---- figures ----

    def take_losses(self, losses: Iterable[Mapping[str, Tensor]]) -> None:
        """Take the losses of a step; nothing is read back from the device."""
        for named in losses:
            for name, value in named.items():
                self._window.setdefault(name, []).append(value)

    def write_losses(self, rate: float) -> dict[str, float]:
        """Write the mean losses since the last time, over all processes.

        Args:
            rate: the learning rate of the last step.

        Returns:
            The means by name.
        """
        names = sorted(self._window)
        means: list[float] = []
        if names:
            stacked = torch.stack([torch.stack(self._window[name]).float().mean() for name in names])
            means = average_over_processes(stacked).tolist()
        self._window = {}
        self.read_clock()
        losses = dict(zip(names, means, strict=True))
        self._log({**losses, "lr": rate, "skipped": self.progress.skipped})
        return losses

    def _log(self, figures: Mapping[str, float]) -> None:
        if not self.processes.is_first:
            return
        place = {"step": self.steps, "epoch": self.steps / self.stream.steps_per_epoch}
        self.folder.append_metrics({**place, **figures, "minutes": self.progress.seconds / 60})
        for logger in self._loggers:
            logger.log(self.steps, figures)

    def read_clock(self) -> None:
        """Count the time since the last reading."""
        now = time.monotonic()
        self.progress.seconds += now - self._clock
        self._clock = now

    # ---- validation ----

    def validate(
        self,
        to_device: Callable[[Any], Any],
        precision: Callable[[], AbstractContextManager],
    ) -> None:
        """Judge the averaged weights on the validation samples, and keep them where they are the best.

        Args:
            to_device: moves a batch to the model's device.
            precision: the context of the run's precision.

        Raises:
            ValueError: the task's best figure is not among those that it gave.
        """
        samples = self.task.validation_samples()
        if samples is None:
            return
        progress = self.progress
        if self.processes.is_first:
            settings = self.settings
            batches = validation_batches(
                samples, self.task.collate, settings.batch_size, settings.seed, settings.num_workers
            )
            modes = {module: module.training for module in self.task.model.modules()}
            self.task.model.eval()
            with self.averaged(), torch.no_grad(), precision():
                figures = self.task.validate(map(to_device, batches))
                self._take_figures(figures)
            for module, mode in modes.items():
                module.training = mode
        kept = (progress.figures, progress.validated, progress.best, progress.best_step)
        progress.figures, progress.validated, progress.best, progress.best_step = share(kept)

    def _take_figures(self, figures: dict[str, float]) -> None:
        name, progress = self.task.best_figure, self.progress
        if name not in figures:
            there = ", ".join(figures) or "none"
            raise ValueError(f"{type(self.task).__name__}: validate must give {name!r}; it gave: {there}")
        progress.figures, progress.validated = figures, self.steps
        self.read_clock()
        self._log(figures)
        sign = 1.0 if self.task.best_is_high else -1.0
        value = sign * figures[name]
        if math.isfinite(value) and not (progress.best and value <= sign * progress.best[name]):
            progress.best, progress.best_step = figures, self.steps
            self._save_model(self.folder.best, figures)

    def averaged(self) -> AbstractContextManager:
        """The block in which the model holds the weights that are validated and exported."""
        return nullcontext() if self.average is None else self.average.applied()

    # ---- files ----

    def save_epoch(self, epoch: int) -> None:
        """Keep the weights of an epoch."""
        if self.processes.is_first:
            with self.averaged():
                self._save_model(self.folder.epoch_weights(epoch), self._figures())

    def state_is_due(self) -> bool:
        """Whether the state should be saved between the ends of epochs."""
        if self.settings.state_steps is not None:
            return self.steps % self.settings.state_steps == 0
        return time.monotonic() - self._state_clock > 60 * self.settings.state_minutes

    def save_state(self, optimizer: torch.optim.Optimizer, scaler: Mapping[str, float]) -> None:
        """Write what the run resumes from; between steps only, and once for each place.

        Args:
            optimizer: whose state.
            scaler: the state of fp16's loss scale.
        """
        if not self.processes.is_first or self._state_position == self.progress.position:
            return
        self.read_clock()
        self.progress.scaler = dict(scaler)
        model = self.task.model
        tensors = {"model": model.state_dict(), "optimizer": optimizer_tensors(model, optimizer)}
        if self.average is not None:
            tensors["average"] = self.average.tensors
        tensors["window"] = {name: torch.stack(values) for name, values in self._window.items()}
        save_state(self.folder.state, self.progress, tensors)
        self._state_clock = time.monotonic()
        self._state_position = self.progress.position

    def export(self) -> None:
        """Write the weights that the run is for: the best, or the last if the task wants these."""
        if not self.processes.is_first:
            return
        if self.task.exports_best and self.folder.best.exists():
            with atomic_write(self.folder.weights) as temporary:
                shutil.copyfile(self.folder.best, temporary)
        else:
            with self.averaged():
                self._save_model(self.folder.weights, self._figures())

    def _figures(self) -> dict[str, float]:
        return self.progress.figures if self.progress.validated == self.steps else {}

    def _save_model(self, path: Any, figures: Mapping[str, float]) -> None:  # noqa: ANN401
        finite = {name: value for name, value in figures.items() if math.isfinite(value)}
        notes = {"steps": self.steps, "figures": finite} | self.task.notes()
        save_model(path, self.task.model, self.task.config, notes)
