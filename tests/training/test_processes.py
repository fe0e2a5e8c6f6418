"""Two processes under torchrun, over gloo on the CPU, learn what one learns with the doubled batch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from sightline.training import average_over_processes, fit
from sightline.training.processes import Processes, share
from tests.training import tiny_task
from tests.training.tiny_task import TinyTask, settings

ROOT = Path(__file__).resolve().parents[2]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
JOBS: dict[str, dict[str, Any]] = {
    "simple": {"batch_size": 2},
    # what is frozen at first is unknown to DDP, until it is told
    "staged": {
        "batch_size": 1,
        "accumulate": 2,
        "freeze": ["backbone"],
        "freeze_epochs": 1,
        "ema_decay": 0.5,
    },
    "halted": {"batch_size": 2, "max_minutes": 0, "ema_decay": 0.5},
}


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict[str, Any]]]:
    """What each process came to, by job."""
    folder = tmp_path_factory.mktemp("processes")
    jobs = [(str(folder / name), {"plain": True, **options}) for name, options in JOBS.items()]
    jobs.append((str(folder / "halted"), {"plain": True, **JOBS["halted"], "max_minutes": None}))
    done = subprocess.run(
        [*TORCHRUN, tiny_task.__file__, json.dumps(jobs)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'src'}", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return {
        name: [torch.load(folder / name / f"rank-{rank}.pt", weights_only=True) for rank in range(2)]
        for name in JOBS
    }


@pytest.mark.parametrize("name", JOBS)
def test_two_processes_are_one_with_the_doubled_batch(
    tmp_path: Path, outcomes: dict[str, list[dict[str, Any]]], name: str
) -> None:
    first, second = outcomes[name]
    options = {**JOBS[name], "batch_size": 2 * JOBS[name]["batch_size"], "max_minutes": None}
    task = TinyTask(plain=True)
    alone = fit(task, settings(**options), tmp_path)
    assert first["steps"] == second["steps"] == alone.steps == 18
    assert first["figures"] == second["figures"] == pytest.approx(dict(alone.figures), abs=1e-5)
    start = TinyTask(plain=True).model.state_dict()
    for key, tensor in task.model.state_dict().items():
        assert torch.equal(first["state"][key], second["state"][key]), key
        torch.testing.assert_close(first["state"][key], tensor, atol=1e-5, rtol=0)
        assert not torch.allclose(tensor, start[key], atol=1e-3), key


def test_one_process_is_itself() -> None:
    value = torch.tensor([1.0, 2.0])
    assert average_over_processes(value) is value
    assert share("x") == "x"


def test_what_torchrun_says(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Processes.from_environment() == Processes(0, 1, 1)
    monkeypatch.setenv("SLURM_NTASKS", "8")  # a scheduler's variables alone make no processes
    assert Processes.from_environment() == Processes(0, 1, 1)
    said = {"TORCHELASTIC_RUN_ID": "none", "RANK": "5", "WORLD_SIZE": "8", "LOCAL_WORLD_SIZE": "4"}
    for name, value in said.items():
        monkeypatch.setenv(name, value)
    here = Processes.from_environment()
    assert (here.rank, here.count, here.nodes, here.is_first) == (5, 8, 2, False)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "3")
    with pytest.raises(ValueError, match="8 over all and 3 here"):
        Processes.from_environment()
