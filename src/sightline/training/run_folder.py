"""The folder of a run: its config, its figures line by line, its state and its weights."""

from __future__ import annotations

import json
import math
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import sightline
from sightline.formats.atomic import atomic_write
from sightline.formats.json_files import read_json, write_json
from sightline.training.settings import FREE_TO_CHANGE, TrainSettings
from sightline.training.task import TrainingTask


@dataclass(frozen=True)
class RunFolder:
    """Where a run keeps what.

    Args:
        path: the folder.

    Example:
        >>> RunFolder(Path("runs/a")).weights.as_posix(), RunFolder(Path("runs/a")).epoch_weights(3).name
        ('runs/a/model.safetensors', 'epoch-0003.safetensors')
    """

    path: Path

    @property
    def config(self) -> Path:
        """Task, model and settings."""
        return self.path / "config.json"

    @property
    def metrics(self) -> Path:
        """One line of JSON a log interval and a validation."""
        return self.path / "metrics.jsonl"

    @property
    def state(self) -> Path:
        """What a run resumes from."""
        return self.path / "state.safetensors"

    @property
    def best(self) -> Path:
        """The weights of the best validation."""
        return self.path / "best.safetensors"

    @property
    def weights(self) -> Path:
        """The weights that the run is for: the best, or the last where nothing was validated."""
        return self.path / "model.safetensors"

    def epoch_weights(self, epoch: int) -> Path:
        """The weights after an epoch."""
        return self.path / f"epoch-{epoch:04d}.safetensors"

    def start(self, task: TrainingTask, settings: TrainSettings, processes: int) -> None:
        """Write the config of a new run; one that was stopped before its first state leaves nothing to keep.

        Raises:
            FileExistsError: the folder holds a run.
        """
        if self.state.exists() or self.weights.exists():
            raise FileExistsError(f"{self.path}: the folder holds a run; resume it, or name another folder")
        self.metrics.unlink(missing_ok=True)
        write_json(self.config, _describe(task, settings, processes))

    def resume(self, task: TrainingTask, settings: TrainSettings, processes: int, source: Path) -> None:
        """Check that a run may go on with these settings, and write them.

        Raises:
            ValueError: model or settings differ in what changes the steps that were made.
        """
        config = source.parent / "config.json"
        if config.exists():
            _refuse_changes(config, read_json(config), _describe(task, settings, processes))
        write_json(self.config, _describe(task, settings, processes))

    def cut_metrics(self, step: int) -> None:
        """Drop the lines after a step, which the resumed run writes again."""
        if not self.metrics.exists():
            return
        lines = self.metrics.read_text(encoding="utf-8").splitlines(keepends=True)
        kept = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= step]
        with atomic_write(self.metrics) as temporary:
            temporary.write_text("".join(kept), encoding="utf-8")

    def read_metrics(self) -> list[dict[str, Any]]:
        """The lines of ``metrics.jsonl``: ``step``, ``epoch`` and figures, None where one is not finite."""
        return [json.loads(line) for line in self.metrics.read_text(encoding="utf-8").splitlines()]

    def append_metrics(self, entry: Mapping[str, float]) -> None:
        """Add a line."""
        finite = {name: value if math.isfinite(value) else None for name, value in entry.items()}
        with self.metrics.open("a", encoding="utf-8") as file:
            file.write(json.dumps(finite) + "\n")


def _describe(task: TrainingTask, settings: TrainSettings, processes: int) -> dict[str, Any]:
    description = {
        "task": type(task).__name__,
        "kind": type(task.model).__name__,
        "model": dict(task.config),
        "settings": settings.plain(),
        "processes": processes,
        "versions": {
            "sightline": sightline.__version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
    }
    return json.loads(json.dumps(description))


def _refuse_changes(path: Path, old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    faults = [
        f"{key} was {old.get(key)!r}, is {new[key]!r}"
        for key in ("task", "kind", "processes")
        if old.get(key) != new[key]
    ]
    for section, free in (("model", frozenset()), ("settings", FREE_TO_CHANGE)):
        before, now = old.get(section, {}), new[section]
        faults += [
            f"{section}: {key} was {before.get(key)!r}, is {now.get(key)!r}"
            for key in sorted((before.keys() | now.keys()) - free)
            if before.get(key) != now.get(key)
        ]
    if faults:
        raise ValueError(f"{path}: the run cannot go on as another one: {'; '.join(faults)}")
