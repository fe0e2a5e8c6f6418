"""A run that was stopped anywhere, by anything, ends with the bits of one that was not."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from sightline.training import RunResult, fit
from sightline.training.run_folder import RunFolder
from tests.training import tiny_task
from tests.training.tiny_task import TinyTask, settings

ROOT = Path(__file__).resolve().parents[2]
FULL: dict[str, Any] = {
    "accumulate": 2,
    "ema_decay": 0.9,
    "freeze": ["backbone"],
    "freeze_epochs": 1,
    "warmup_steps": 2,
    "state_steps": 1,
    "lr_factors": {"backbone": 0.5},
}


class Stopped(Exception):
    pass


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Runs that were killed, by name; made in one go, because to import everything takes longest."""
    folder = tmp_path_factory.mktemp("stopped")
    jobs = {
        "killed": {**FULL, "state_steps": 2, "kill_at": 11},
        "terminated": {"state_minutes": 1e6, "ema_decay": 0.9, "kill_at": 9, "kill_by": "SIGTERM"},
    }
    runs = json.dumps([(str(folder / name), options) for name, options in jobs.items()])
    done = subprocess.run(
        [sys.executable, tiny_task.__file__, runs],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'src'}", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert json.loads(done.stdout) == [-signal.SIGKILL, 128 + signal.SIGTERM], done.stderr
    return {name: folder / name for name in jobs}


def lines(folder: Path) -> list[dict[str, Any]]:
    return [{k: v for k, v in line.items() if k != "minutes"} for line in RunFolder(folder).read_metrics()]


def assert_same_run(one: Path, other: Path) -> None:
    for name in ("state.safetensors", "model.safetensors", "best.safetensors"):
        if not (one / name).exists():
            assert name.startswith("best")
            assert not (other / name).exists()
            continue
        a, b = load_file(one / name), load_file(other / name)
        assert a.keys() == b.keys()
        for key in a:
            assert torch.equal(a[key], b[key]), (name, key)
    assert lines(one) == lines(other)


def test_killed_in_the_middle_of_an_epoch(tmp_path: Path, stopped: dict[str, Path]) -> None:
    """SIGKILL at forward pass 11 of 18; the continuation also prepares its data with two workers."""
    folder = stopped["killed"]
    assert not (folder / "model.safetensors").exists()
    assert int(load_file(folder / "state.safetensors")["optimizer/head.1.weight/step"]) == 4
    resumed = fit(TinyTask(), settings(**{**FULL, "num_workers": 2}), folder)
    whole = fit(TinyTask(), settings(**FULL), tmp_path)
    assert (resumed.steps, resumed.figures) == (whole.steps, whole.figures)
    assert_same_run(tmp_path, folder)


def test_terminated_by_the_cluster(tmp_path: Path, stopped: dict[str, Path]) -> None:
    """SIGTERM saves the state of the step that it came in."""
    folder = stopped["terminated"]
    assert int(load_file(folder / "state.safetensors")["optimizer/head.1.weight/step"]) == 9
    fit(TinyTask(), settings(ema_decay=0.9), folder)
    fit(TinyTask(), settings(ema_decay=0.9), tmp_path)
    assert_same_run(tmp_path, folder)


@pytest.mark.parametrize("validates", [True, False])
@pytest.mark.parametrize("place", [1, 3, 6, 7, 12, 13, 18])
def test_stopped_at_any_place(tmp_path: Path, place: int, validates: bool) -> None:
    """Before the first state, inside a step's passes, at both sides of an epoch's end, at the last."""
    task = TinyTask(validates=validates)
    losses = task.losses

    def stops(batch: Any) -> Any:
        if task.model.training and task.passes + 1 == place:
            raise Stopped
        return losses(batch)

    task.losses = stops  # ty: ignore[invalid-assignment]
    with pytest.raises(Stopped):
        fit(task, settings(**FULL), tmp_path / "stopped")
    fit(TinyTask(validates=validates), settings(**FULL), tmp_path / "stopped")
    fit(TinyTask(validates=validates), settings(**FULL), tmp_path / "whole")
    assert_same_run(tmp_path / "whole", tmp_path / "stopped")


def test_out_of_time_and_on(tmp_path: Path) -> None:
    result = fit(TinyTask(), settings(**FULL, max_minutes=0), tmp_path / "a")
    assert (result.steps, result.complete) == (2, False)
    assert result.weights.exists()
    result = fit(TinyTask(), settings(**FULL), tmp_path / "a")
    whole = fit(TinyTask(), settings(**FULL), tmp_path / "b")
    assert result.complete
    a, b = load_file(tmp_path / "a" / "state.safetensors"), load_file(tmp_path / "b" / "state.safetensors")
    assert all(torch.equal(a[key], b[key]) for key in b)
    assert result.minutes > 0
    assert whole.steps == result.steps


def test_a_finished_run_is_finished(tmp_path: Path) -> None:
    first = fit(TinyTask(), settings(), tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    again = fit(TinyTask(), settings(), tmp_path)
    assert again == first
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    # killed between its last state and its export
    first.weights.unlink()
    assert fit(TinyTask(), settings(), tmp_path).weights.read_bytes() == before["model.safetensors"]


def test_more_epochs_go_on(tmp_path: Path) -> None:
    fit(TinyTask(), settings(), tmp_path)
    assert fit(TinyTask(), settings(epochs=4), tmp_path).steps == 24


def test_from_another_folder(tmp_path: Path) -> None:
    fit(TinyTask(), settings(epochs=1), tmp_path / "a")
    result = fit(TinyTask(), settings(), tmp_path / "b", resume=tmp_path / "a")
    assert (result.steps, result.folder) == (18, tmp_path / "b")
    assert [line["step"] for line in lines(tmp_path / "a")][-1] == 6


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 1}, r"settings: seed was 0, is 1"),
        ({"batch_size": 2, "lr": 0.1}, r"batch_size was 4, is 2; settings: lr was 0\.02, is 0\.1"),
    ],
)
def test_another_run_is_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    fit(TinyTask(), settings(epochs=1), tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(ValueError, match=message):
        fit(TinyTask(), settings(**change), tmp_path)
    with pytest.raises(ValueError, match="model: plain was False, is True"):
        fit(TinyTask(plain=True), settings(), tmp_path)
    with pytest.raises(FileExistsError, match="holds a run"):
        fit(TinyTask(), settings(), tmp_path, resume=None)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_what_cannot_be_resumed_from(tmp_path: Path) -> None:
    result: RunResult = fit(TinyTask(), settings(epochs=1), tmp_path / "a")
    with pytest.raises(ValueError, match="weights alone; nothing to resume"):
        fit(TinyTask(), settings(), tmp_path / "b", resume=result.weights)
    with pytest.raises(FileNotFoundError, match="absent"):
        fit(TinyTask(), settings(), tmp_path / "b", resume=tmp_path / "absent")
    state = tmp_path / "a" / "state.safetensors"
    state.write_bytes(state.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"state\.safetensors: expected safetensors, damaged"):
        fit(TinyTask(), settings(), tmp_path / "a")
