"""Further places for the figures of a run: TensorBoard, and Weights & Biases."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sightline.training.settings import TrainSettings


class FigureLogger(ABC):
    """Takes figures by step."""

    @abstractmethod
    def log(self, step: int, figures: Mapping[str, float]) -> None:
        """Take the figures of a step."""

    @abstractmethod
    def close(self) -> None:
        """Write what is pending."""


class TensorBoardLogger(FigureLogger):
    """Writes event files into ``tensorboard/`` of the run folder.

    Args:
        folder: the run folder.
        first_step: events after this step, of a run that was killed, are dropped.

    Raises:
        ModuleNotFoundError: the package ``tensorboard`` is missing.
    """

    def __init__(self, folder: Path, first_step: int) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise ModuleNotFoundError(
                "the logger 'tensorboard' needs the package of that name: pip install tensorboard"
            ) from error
        self._writer = SummaryWriter(str(folder / "tensorboard"), purge_step=first_step + 1)

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        """Take the figures of a step."""
        for name, value in figures.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Write what is pending."""
        self._writer.close()


class WandbLogger(FigureLogger):
    """Sends figures to Weights & Biases; ``WANDB_MODE=offline`` keeps them in ``wandb/`` of the run folder.

    Args:
        folder: the run folder; its file ``wandb-id`` lets a resumed run go on as the same one.
        project: the project's name.
        config: what is shown beside the run.

    Raises:
        ModuleNotFoundError: the package ``wandb`` is missing.
    """

    def __init__(self, folder: Path, project: str, config: Mapping[str, Any]) -> None:
        try:
            import wandb  # ty: ignore[import-not-found]
        except ImportError as error:
            raise ModuleNotFoundError(
                "use_wandb needs the package wandb: pip install wandb (or leave it off)"
            ) from error
        note = folder / "wandb-id"
        known = note.read_text(encoding="utf-8") if note.exists() else None
        self._run = wandb.init(
            project=project, name=folder.name, dir=str(folder), id=known, resume="allow", config=dict(config)
        )
        note.write_text(self._run.id, encoding="utf-8")

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        """Take the figures of a step."""
        self._run.log(dict(figures), step=step)

    def close(self) -> None:
        """Write what is pending."""
        self._run.finish()


def build_loggers(
    settings: TrainSettings, folder: Path, first_step: int, config: Mapping[str, Any]
) -> list[FigureLogger]:
    """The further loggers that the settings name.

    Args:
        settings: ``loggers``, ``use_wandb``, ``project_name``.
        folder: the run folder.
        first_step: the step at which the run starts or resumes.
        config: what is shown beside the run.

    Returns:
        The loggers, in the settings' order.

    Raises:
        ModuleNotFoundError: the package of one is missing.
    """
    names = dict.fromkeys((*settings.loggers, *(("wandb",) if settings.use_wandb else ())))
    return [
        TensorBoardLogger(folder, first_step)
        if name == "tensorboard"
        else WandbLogger(folder, settings.project_name, config)
        for name in names
    ]
