"""``sightline train-refdet``: a recipe becomes a run folder with weights."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

    from sightline.training import RunResult


def train_refdet(
    recipe: Path,
    output: Path = Path("runs/refdet"),
    data: Path | None = None,
    minutes: float | None = None,
    steps: int | None = None,
    device: str = "auto",
    resume: bool = True,
) -> None:
    """Train the reference detector by a recipe.

    Writes model.safetensors, metrics.jsonl and what the run resumes from, and before them those of the
    descriptor, in the folder stage0, where the recipe begins with it, and those of the detector without
    refined boxes, in the folder stage1, where the recipe ends with these. A run that was stopped goes on
    where it stood when the command is given again.

    Args:
        recipe: a YAML file, such as configs/refdet/tiny.yaml.
        output: the run folder.
        data: folder where the drawn objects are kept; beside the run unless given.
        minutes: stop the detector's training after so many; the recipe's own unless given.
        steps: how many optimiser steps of it; the recipe's own unless given.
        device: auto, cpu, cuda or mps.
        resume: go on with the run in the folder, if there is one.
    """
    from dataclasses import replace

    from sightline.cli.console import make_console
    from sightline.refdet.recipe import begin_with_descriptor, begin_with_detector, read_refdet_recipe
    from sightline.training import fit

    console = make_console()
    task, settings, stage0, refinement = read_refdet_recipe(recipe, data_folder=data or output / "data")
    goes_on = "auto" if resume else None
    if stage0 is not None:
        first = replace(stage0.settings, device=device, checkpoint_dir=output / "stage0")
        result = fit(stage0.task, first, output / "stage0", resume=goes_on)
        _say(console, result)
        begin_with_descriptor(task.detector, result.weights)
    folder = output if refinement is None else output / "stage1"
    settings = replace(settings, device=device, checkpoint_dir=folder)
    if minutes is not None:
        settings = replace(settings, max_minutes=minutes)
    if steps is not None:
        settings = replace(settings, steps=steps)
    result = fit(task, settings, folder, resume=goes_on)
    _say(console, result)
    if refinement is not None:
        last = replace(refinement.settings, device=device, checkpoint_dir=output)
        begin_with_detector(refinement.task.detector, result.weights)
        _say(console, fit(refinement.task, last, output, resume=goes_on))


def _say(console: Console, result: RunResult) -> None:
    figures = ", ".join(f"{name} {value:.3f}" for name, value in result.figures.items())
    console.print(
        f"{result.weights}: {result.steps} steps in {result.minutes:.1f} min; {figures or 'not validated'}",
        highlight=False,
        soft_wrap=True,
    )
