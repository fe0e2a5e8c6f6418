"""Lightning's trainer, set up for one run and kept in its place; imported only where something is trained."""

from __future__ import annotations

import logging
import signal
import threading
import warnings
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.fabric.utilities.warnings import PossibleUserWarning
from lightning.pytorch.plugins.environments import LightningEnvironment, TorchElasticEnvironment
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch import Tensor

from sightline.training.keeper import RunKeeper
from sightline.training.module import RoomModule, SaveWhenTerminated
from sightline.training.processes import Processes, accelerator_of
from sightline.training.progress import ProgressBar
from sightline.training.settings import TrainSettings

_PRECISIONS: Mapping[str, Any] = {"fp32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}


def train(keeper: RunKeeper, restored: Mapping[str, Mapping[str, Tensor]]) -> None:
    """Train from where the run is to its end.

    Args:
        keeper: the record of the run.
        restored: tensors of the state that it resumes from; empty for a new run.

    Raises:
        ValueError: the device cannot do the precision.
        TrainingDiverged: the losses were not finite for too many steps in a row.
    """
    keeper.task.model.train()
    visible = keeper.settings.progress and keeper.processes.is_first
    with (
        ProgressBar(keeper.total_steps, keeper.stream.steps_per_epoch, visible=visible) as bar,
        _lightning_in_its_place(),
    ):
        trainer = build_trainer(keeper.settings, keeper.processes)
        trainer.fit(RoomModule(keeper, restored, bar), train_dataloaders=keeper.stream)


def build_trainer(settings: TrainSettings, processes: Processes) -> pl.Trainer:
    """Lightning's trainer for the settings and processes of a run, with none of its files, bars and loops.

    Args:
        settings: device, precision, accumulation.
        processes: over how many it runs.

    Returns:
        The trainer.

    Raises:
        ValueError: the device cannot do the precision.

    Example:
        >>> build_trainer(TrainSettings(device="cpu", precision="fp16"), Processes())
        Traceback (most recent call last):
        ValueError: precision: fp16 needs a GPU; on a CPU use bf16 or fp32
    """
    accelerator = accelerator_of(settings.device)
    if settings.precision == "fp16" and accelerator == "cpu":
        raise ValueError("precision: fp16 needs a GPU; on a CPU use bf16 or fp32")
    index = None if settings.device == "auto" else torch.device(settings.device).index
    alone = processes.count == 1
    return pl.Trainer(
        accelerator=accelerator,
        devices=processes.per_node if index is None or not alone else [index],
        num_nodes=processes.nodes,
        strategy="auto" if alone else DDPStrategy(find_unused_parameters=settings.find_unused_parameters),
        precision=_PRECISIONS[settings.precision],
        # Named, so that the variables of a cluster's scheduler do not make processes that nobody asked for.
        plugins=[LightningEnvironment() if alone else TorchElasticEnvironment()],
        callbacks=[SaveWhenTerminated()],
        max_epochs=1,  # the whole run; see ``module``
        accumulate_grad_batches=settings.accumulate,
        limit_val_batches=0,
        num_sanity_val_steps=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )


@contextmanager
def _lightning_in_its_place() -> Generator[None]:
    """Lightning without its notices, and without its exit, and its deafness for ever, after Ctrl-C."""
    notices = logging.getLogger("lightning.pytorch")
    level = notices.level
    on_interrupt = signal.getsignal(signal.SIGINT)
    notices.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            # Lightning 2.6 asks torch's trees in a way that torch 2.13 calls deprecated.
            warnings.filterwarnings("ignore", r"`isinstance\(treespec, LeafSpec\)`", FutureWarning)
            # Frozen parts are in evaluation mode on purpose.
            warnings.filterwarnings("ignore", r"Found \d+ module\(s\) in eval mode", PossibleUserWarning)
            yield
    except SIGTERMException as ending:
        raise SystemExit(128 + signal.SIGTERM) from ending  # Lightning's own says that all went well
    except SystemExit as ending:
        if isinstance(ending.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from ending
        raise
    finally:
        notices.setLevel(level)
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, on_interrupt)
