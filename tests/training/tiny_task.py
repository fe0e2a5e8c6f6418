"""A task with every kind of randomness and of tensor; run by itself, it is killed or runs over processes.

``python tiny_task.py '[["FOLDER", {"epochs": 3, "kill_at": 7}], ...]'`` makes each run in a process of its
own and prints how these ended; under torchrun the runs follow each other and each process writes its weights.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sightline.training import TrainingTask, TrainSettings, fit


class Points:
    """Points whose noise comes from ``rng`` and from the generators of python, numpy and torch."""

    def __init__(self, count: int = 24) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def sample(self, index: int, rng: np.random.Generator) -> dict[str, Any]:
        noise = rng.normal(size=4) + np.random.normal() + random.random()  # noqa: NPY002
        x = torch.from_numpy(noise).float() + 0.1 * torch.randn(4) + 0.01 * index
        return {"x": x, "y": x.sum(0, keepdim=True)}


class TinyNet(nn.Module):
    def __init__(self, plain: bool = False) -> None:
        super().__init__()
        self.backbone = nn.Sequential(
            nn.Linear(4, 8), nn.Identity() if plain else nn.BatchNorm1d(8), nn.Tanh()
        )
        self.head = nn.Sequential(nn.Dropout(0.0 if plain else 0.2), nn.Linear(8, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.backbone(x))


class TinyTask(TrainingTask):
    def __init__(self, *, plain: bool = False, validates: bool = True, samples: int = 24) -> None:
        torch.manual_seed(5)
        super().__init__(TinyNet(plain), {"plain": plain})
        self.validates = validates
        self.samples = samples
        self.passes = 0
        self.kill_at = -1
        self.kill_by = signal.SIGKILL

    def training_samples(self) -> Points:
        return Points(self.samples)

    def validation_samples(self) -> Points | None:
        return Points(8) if self.validates else None

    def losses(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        if self.model.training:
            self.passes += 1
            if self.passes == self.kill_at:
                os.kill(os.getpid(), self.kill_by)
        error = (self.model(batch["x"]) - batch["y"]).square().mean()
        return {"loss": error, "loss_error": error}


def settings(**values: Any) -> TrainSettings:
    """Settings of a run that takes a second at most."""
    usual: dict[str, Any] = {
        "batch_size": 4,
        "epochs": 3,
        "lr": 0.02,
        "num_workers": 0,
        "device": "cpu",
        "log_steps": 2,
        "progress": False,
    }
    return TrainSettings.of(usual | values)


def run(folder: Path, options: dict[str, Any]) -> None:
    task = TinyTask(plain=options.pop("plain", False))
    task.kill_at = options.pop("kill_at", -1)
    task.kill_by = signal.Signals[options.pop("kill_by", "SIGKILL")]
    result = fit(task, settings(**options), folder)
    if "RANK" in os.environ:
        outcome = {"steps": result.steps, "figures": dict(result.figures), "state": task.model.state_dict()}
        torch.save(outcome, folder / f"rank-{os.environ['RANK']}.pt")


def run_apart(folder: Path, options: dict[str, Any]) -> int:
    """Run in a forked process, which spares the imports; what it exited with, or the negative signal."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            run(folder, options)
            code = 0
        except SystemExit as ending:
            code = int(ending.code or 0)
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


if __name__ == "__main__":
    torch.set_num_threads(1)
    jobs = [(Path(folder), options) for folder, options in json.loads(sys.argv[1])]
    if "RANK" in os.environ:
        for job in jobs:
            run(*job)
    else:
        import sightline.training.trainer  # noqa: F401  # once for all children

        sys.stdout.write(json.dumps([run_apart(*job) for job in jobs]))
