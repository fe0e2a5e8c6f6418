"""The one LightningModule of all rooms; imported only where something is trained.

Lightning owns devices, processes, mixed precision, the backward pass and accumulation. The place in the run,
the order of data, the random numbers, the learning rate and the files are Sightline's: Lightning sees the
whole run as one epoch that begins wherever the stream does, and no state of its loops has to be restored.
"""

from __future__ import annotations

import gc
import math
from collections.abc import Mapping
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.fabric.utilities import move_data_to_device
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch import Tensor

from sightline.training.average import WeightAverage
from sightline.training.freezing import FrozenParts
from sightline.training.keeper import RunKeeper, TrainingDiverged
from sightline.training.optimiser import (
    build_optimizer,
    learning_rate,
    load_optimizer_tensors,
    set_learning_rate,
)
from sightline.training.processes import share
from sightline.training.progress import ProgressBar
from sightline.training.stream import seed_step


class RoomModule(pl.LightningModule):
    """Trains a task.

    Args:
        keeper: the record of the run, with its task, settings and stream.
        restored: tensors of the state that it resumes from, by what they belong to; empty for a new run.
        bar: shows the progress.
    """

    def __init__(
        self, keeper: RunKeeper, restored: Mapping[str, Mapping[str, Tensor]], bar: ProgressBar
    ) -> None:
        super().__init__()
        self.keeper = keeper
        self.task = keeper.task
        self.model = keeper.task.model
        self.settings = keeper.settings
        self.out_of_time = False
        self._bar = bar
        self._restored = dict(restored)
        self._losses: list[dict[str, Tensor]] = []
        self._is_good = True
        self._parameters_of_model = list(self.model.parameters())
        self._frozen = FrozenParts(self.model, self.settings.freeze)
        if self._is_frozen:
            self._frozen.hold()  # before DDP looks which parameters learn

    @property
    def _is_frozen(self) -> bool:
        return self.keeper.steps < self.settings.freeze_epochs * self.keeper.stream.steps_per_epoch

    # ---- Lightning's hooks, in the order of a run ----

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """AdamW, with its state where the run resumes."""
        optimizer = build_optimizer(self.model, self.settings)
        load_optimizer_tensors(self.model, optimizer, self._restored.get("optimizer", {}))
        return optimizer

    def on_fit_start(self) -> None:
        """Make the average, now that the model is where it stays, and take up what was saved."""
        first, here = share(self.keeper.progress.position), self.keeper.progress.position
        if first != here:
            raise RuntimeError(
                f"the first process resumes after {first} forward passes, this one after {here}: "
                f"{self.keeper.folder.path} must be a folder that all machines see"
            )
        if self.settings.ema_decay:
            self.keeper.average = WeightAverage(self.model, self.settings.ema_decay)
            if "average" in self._restored:
                self.keeper.average.load(self._restored["average"])
        if self.keeper.progress.scaler:
            self.trainer.precision_plugin.load_state_dict(self.keeper.progress.scaler)
        self.keeper.start(self._restored.get("window", {}))
        self._restored.clear()

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:  # noqa: ANN401  # the task's batch
        """Seed the random numbers and set the learning rate of this place in the run."""
        keeper = self.keeper
        position = keeper.progress.position
        seed_step(self.settings.seed, position, keeper.processes.rank)
        self.task.at_progress(position / keeper.stream.stop)
        if position % self.settings.accumulate == 0:
            set_learning_rate(self._optimizer, self._rate(keeper.steps))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:  # noqa: ANN401  # the task's batch
        """Run the task's losses."""
        losses = self.task.losses(batch)
        self._losses.append({name: value.detach() for name, value in losses.items()})
        loss = losses["loss"]
        # A loss that is not finite can have finite gradients. Made NaN, they say so to every process at once.
        return loss * torch.where(loss.detach().isfinite(), 1.0, torch.nan)

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip the gradients; where they are not finite, drop them, so that the optimiser finds none."""
        learning = [parameter for parameter in self._parameters_of_model if parameter.grad is not None]
        norm = torch.nn.utils.get_total_norm([p.grad for p in learning if p.grad is not None])
        self._losses[-1]["grad_norm"] = norm
        self._is_good = math.isfinite(norm.item())
        if not self._is_good:
            optimizer.zero_grad(set_to_none=True)
        elif self.settings.grad_clip:
            torch.nn.utils.clip_grads_with_norm_(learning, self.settings.grad_clip, norm)

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:  # noqa: ANN401
        """Count, and do what is due after a step, an interval or an epoch."""
        self.keeper.progress.position += 1
        if self.keeper.progress.position % self.settings.accumulate:
            return
        self._count_step()
        step = self.keeper.steps
        self._bar.advance(step)
        if step % self.settings.log_steps == 0:
            self._bar.note(self.keeper.write_losses(self._rate(step - 1)))
            self._watch_time()
        if step % self.keeper.stream.steps_per_epoch == 0:
            self._end_epoch(step // self.keeper.stream.steps_per_epoch)
        elif self.keeper.state_is_due():
            self.save_state()

    def on_train_end(self) -> None:
        """Judge what was not judged, and export."""
        if self.keeper.progress.validated != self.keeper.steps:
            self._validate()
        self.save_state()
        self.keeper.export()
        share(None)  # nobody leaves before the files are there

    # ---- their parts ----

    @property
    def _optimizer(self) -> torch.optim.Optimizer:
        return self.trainer.optimizers[0]

    def _rate(self, step: int) -> float:
        settings = self.settings
        return learning_rate(
            step,
            self.keeper.total_steps,
            lr=settings.lr,
            min_lr=settings.min_lr,
            warmup_steps=settings.warmup_steps,
        )

    def _count_step(self) -> None:
        progress, losses = self.keeper.progress, self._losses
        self._losses = []
        if self._is_good:
            progress.skipped_in_row = 0
            self.keeper.take_losses(losses)
            if self.keeper.average is not None:
                self.keeper.average.update(self.keeper.steps - 1 - progress.skipped)
            return
        progress.skipped += 1
        progress.skipped_in_row += 1
        if progress.skipped_in_row >= self.settings.max_bad_steps:
            raise TrainingDiverged(self._divergence(losses[-1]))

    def _divergence(self, losses: Mapping[str, Tensor]) -> str:
        values = ", ".join(f"{name} {float(value):g}" for name, value in losses.items())
        return (
            f"{self.keeper.progress.skipped_in_row} steps in a row, up to step {self.keeper.steps}, had "
            f"losses or gradients that are not finite (the last: {values}); the weights are those before "
            "them. Lower lr, raise warmup_steps, or see which loss it is. "
            f"The last state: {self.keeper.folder.state}"
        )

    def _watch_time(self) -> None:
        budget = self.settings.max_minutes
        if budget is not None and share(self.keeper.progress.seconds >= 60 * budget):
            self.out_of_time = self.trainer.should_stop = True

    def _end_epoch(self, epoch: int) -> None:
        if self.settings.freeze and epoch == self.settings.freeze_epochs:
            self._release()
        if epoch % self.settings.validate_interval == 0 or self.keeper.steps == self.keeper.total_steps:
            self._validate()
        if self.settings.save_interval and epoch % self.settings.save_interval == 0:
            self.keeper.save_epoch(epoch)
        self.save_state()

    def _release(self) -> None:
        self._frozen.release()
        strategy = self.trainer.strategy
        if isinstance(strategy, DDPStrategy):
            # DDP learns which parameters get gradients when it wraps the model, and never again.
            strategy.model = self
            gc.collect()
            strategy.configure_ddp()

    def _validate(self) -> None:
        self.keeper.validate(
            lambda batch: move_data_to_device(batch, self.device),
            self.trainer.precision_plugin.val_step_context,
        )

    def save_state(self) -> None:
        """Write what the run resumes from."""
        self.keeper.save_state(self._optimizer, self.trainer.precision_plugin.state_dict())


class SaveWhenTerminated(pl.Callback):
    """Saves the state when the run is told to end (SIGTERM), as clusters do before they take a machine."""

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """Save between steps only: a step that is half done is done again."""
        if not isinstance(exception, SIGTERMException) or not isinstance(pl_module, RoomModule):
            return
        if pl_module.keeper.progress.position % pl_module.settings.accumulate == 0:
            pl_module.save_state()
