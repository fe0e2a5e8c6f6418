"""``fit``: a task and settings become a run folder with weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sightline.nn.checkpoint import load_weights
from sightline.training.keeper import RunKeeper
from sightline.training.loggers import build_loggers
from sightline.training.processes import Processes, accelerator_of, require_device
from sightline.training.run_folder import RunFolder
from sightline.training.settings import TrainSettings
from sightline.training.state import Progress, load_state
from sightline.training.stream import EpochStream
from sightline.training.task import TrainingTask


@dataclass(frozen=True)
class RunResult:
    """What a run gave.

    Args:
        folder: the run folder.
        weights: the exported weights, the best by the task's figure.
        figures: the figures of these weights; empty where nothing was validated.
        steps: optimiser steps made, over all continuations.
        skipped: how many of them had no finite gradients and changed nothing.
        minutes: time used, over all continuations.
        complete: whether the run came to its end, not only to that of its time.

    Example:
        >>> RunResult(Path("runs/a"), Path("runs/a/model.safetensors"), {"ap": 0.5}, 100, 0, 2.5, True).steps
        100
    """

    folder: Path
    weights: Path
    figures: Mapping[str, float]
    steps: int
    skipped: int
    minutes: float
    complete: bool


def fit(
    task: TrainingTask,
    settings: TrainSettings,
    folder: str | Path | None = None,
    *,
    resume: Literal["auto"] | str | Path | None = "auto",
) -> RunResult:
    """Train a task.

    Under ``torchrun`` each process calls this with the same arguments and takes its part.

    Args:
        task: what is trained.
        settings: how.
        folder: the run folder; ``settings.checkpoint_dir`` where it is not given.
        resume: ``auto`` goes on with the run in the folder where there is one; a state file or run folder
            goes on with that one; None starts anew and refuses a folder that holds a run.

    Returns:
        What came of it.

    Raises:
        FileNotFoundError: there is no state to resume from.
        FileExistsError: the folder holds a run that should not be resumed.
        ValueError: the run to be resumed had another model or other settings; the device cannot do a setting.
        ModuleNotFoundError: the package of a logger, or lightning, is missing.
        TrainingDiverged: the losses were not finite for too many steps in a row.

    Example:
        >>> import tempfile, torch
        >>> class Points:
        ...     def __len__(self):
        ...         return 64
        ...
        ...     def sample(self, index, rng):
        ...         x = torch.from_numpy(rng.normal(size=2)).float()
        ...         return {"x": x, "y": x.sum(0, keepdim=True)}
        >>> class SumTask(TrainingTask):
        ...     def training_samples(self):
        ...         return Points()
        ...
        ...     def losses(self, batch):
        ...         return {"loss": (self.model(batch["x"]) - batch["y"]).square().mean()}
        >>> task = SumTask(torch.nn.Linear(2, 1), {"in_features": 2, "out_features": 1})
        >>> settings = TrainSettings(epochs=20, lr=0.05, batch_size=8, num_workers=0, progress=False)
        >>> result = fit(task, settings, tempfile.mkdtemp())
        >>> result.steps, [round(w, 1) for w in task.model.weight.flatten().tolist()]
        (160, [1.0, 1.0])
    """
    require_device(settings.device)
    processes = Processes.from_environment()
    run_folder = RunFolder(Path(folder if folder is not None else settings.checkpoint_dir))
    source = _resume_source(run_folder, resume)
    progress, tensors = (Progress(), {}) if source is None else load_state(source)
    stream = _build_stream(task, settings, processes, progress.position)
    if processes.is_first:
        _enter_folder(run_folder, task, settings, processes, source, progress)
    if source is not None:
        load_weights(task.model, tensors.pop("model"))
    config = {"model": dict(task.config), "settings": settings.plain()}
    loggers = (
        build_loggers(settings, run_folder.path, progress.position // settings.accumulate, config)
        if processes.is_first
        else []
    )
    keeper = RunKeeper(
        task,
        settings,
        stream=stream,
        folder=run_folder,
        progress=progress,
        loggers=loggers,
        processes=processes,
    )
    budget = settings.max_minutes
    out_of_time = source is not None and budget is not None and progress.seconds >= 60 * budget
    if len(stream) > 0 and not out_of_time:
        from sightline.training.trainer import train

        train(keeper, tensors)
    elif not run_folder.weights.exists():  # the run ended between its last state and its export
        load_weights(task.model, tensors.get("average", task.model.state_dict()))
        keeper.export()
    for logger in loggers:
        logger.close()
    return RunResult(
        folder=run_folder.path,
        weights=run_folder.weights,
        figures=(progress.best if task.exports_best else {}) or progress.figures,
        steps=keeper.steps,
        skipped=progress.skipped,
        minutes=progress.seconds / 60,
        complete=progress.position >= stream.stop,
    )


def _resume_source(folder: RunFolder, resume: str | Path | None) -> Path | None:
    if resume is None:
        return None
    if resume == "auto":
        return folder.state if folder.state.exists() else None
    path = Path(resume)
    return RunFolder(path).state if path.is_dir() else path


def _build_stream(
    task: TrainingTask, settings: TrainSettings, processes: Processes, position: int
) -> EpochStream:
    def stream(stop: int) -> EpochStream:
        return EpochStream(
            samples,
            task.collate,
            settings.batch_size,
            settings.seed,
            accumulate=settings.accumulate,
            process=processes.rank,
            processes=processes.count,
            start=min(position, stop),
            stop=stop,
            num_workers=settings.num_workers,
            pin_memory=accelerator_of(settings.device) == "cuda",
        )

    samples = task.training_samples()
    steps = settings.epochs * stream(0).steps_per_epoch if settings.steps is None else settings.steps
    return stream(steps * settings.accumulate)


def _enter_folder(
    folder: RunFolder,
    task: TrainingTask,
    settings: TrainSettings,
    processes: Processes,
    source: Path | None,
    progress: Progress,
) -> None:
    if source is None:
        folder.start(task, settings, processes.count)
    else:
        folder.resume(task, settings, processes.count, source)
        folder.cut_metrics(progress.position // settings.accumulate)
