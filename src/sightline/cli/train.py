"""``sightline train-ROOM``: a recipe becomes a run folder with weights."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sightline.rtdetr_pose.pictures import PictureSource
    from sightline.training import TrainingTask, TrainSettings


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
    from sightline.refdet.recipe import begin_with_descriptor, begin_with_detector, read_refdet_recipe

    task, settings, stage0, refinement = read_refdet_recipe(recipe, data_folder=data or output / "data")
    if stage0 is not None:
        weights = _train(stage0.task, stage0.settings, output / "stage0", device, resume=resume)
        begin_with_descriptor(task.detector, weights)
    folder = output if refinement is None else output / "stage1"
    weights = _train(task, _shortened(settings, minutes=minutes, steps=steps), folder, device, resume=resume)
    if refinement is not None:
        begin_with_detector(refinement.task.detector, weights)
        _train(refinement.task, refinement.settings, output, device, resume=resume)


def train_vpog(
    recipe: Path,
    output: Path = Path("runs/vpog"),
    data: Path | None = None,
    descriptor: Path | None = None,
    minutes: float | None = None,
    steps: int | None = None,
    device: str = "auto",
    resume: bool = True,
) -> None:
    """Train the learned matcher of poses by a recipe.

    Writes model.safetensors, metrics.jsonl and what the run resumes from. A run that was stopped goes on
    where it stood when the command is given again.

    Args:
        recipe: a YAML file, such as configs/vpog/tiny.yaml.
        output: the run folder.
        data: folder where the drawn objects are kept; beside the run unless given.
        descriptor: weights that a tiny encoder begins with, such as stage0/model.safetensors of train-refdet;
            those of the package's reference detector unless given.
        minutes: stop after so many; the recipe's own unless given.
        steps: how many optimiser steps; the recipe's own unless given.
        device: auto, cpu, cuda or mps.
        resume: go on with the run in the folder, if there is one.
    """
    from sightline.refdet.shipped import shipped_weights
    from sightline.vpog.recipe import read_vpog_recipe

    task, settings = read_vpog_recipe(
        recipe,
        data_folder=data or output / "data",
        descriptor=descriptor,
        default_descriptor=shipped_weights(),
    )
    _train(task, _shortened(settings, minutes=minutes, steps=steps), output, device, resume=resume)


def train_rtdetr_pose(
    recipe: Path,
    output: Path = Path("runs/rtdetr-pose"),
    data: Path | None = None,
    minutes: float | None = None,
    steps: int | None = None,
    device: str = "auto",
    resume: bool = True,
    check: int | None = None,
) -> int:
    """Train the closed-set network by a recipe, or check what it would learn from.

    Writes model.safetensors, metrics.jsonl and what the run resumes from, and before them those of the
    teacher of masked reconstruction in the folder stage0, where the recipe has one. A run that was stopped
    goes on where it stood when the command is given again. A check projects the objects onto boxes, masks and
    depth of the training pictures, and says which picture is wrong how.

    Args:
        recipe: a YAML file, such as configs/rtdetr_pose/tiny.yaml.
        output: the run folder.
        data: folder where the drawn objects are kept; beside the run unless given.
        minutes: stop after so many; the recipe's own unless given.
        steps: how many optimiser steps; the recipe's own unless given.
        device: auto, cpu, cuda or mps.
        resume: go on with the run in the folder, if there is one.
        check: look at so many pictures instead of training; the exit status is 1 where some are wrong.
    """
    from sightline.rtdetr_pose.recipe import read_rtdetr_pose_recipe
    from sightline.rtdetr_pose.teacher import begin_with_teacher

    task, settings, teacher = read_rtdetr_pose_recipe(recipe, data_folder=data or output / "data")
    if check is not None:
        return _check(task.data.source, check)
    if teacher is not None:
        weights = _train(teacher.task, teacher.settings, output / "stage0", device, resume=resume)
        begin_with_teacher(task.net, weights)
    _train(task, _shortened(settings, minutes=minutes, steps=steps), output, device, resume=resume)
    return 0


def _check(source: PictureSource, limit: int) -> int:
    """Say what is wrong with pictures."""
    from rich.progress import track

    from sightline.cli.console import make_console
    from sightline.rtdetr_pose.consistency import check_pictures

    console = make_console()

    def progress(items: Iterable, text: str, total: int) -> Iterable:
        return track(items, text, total=total, console=console, transient=True)

    report = check_pictures(source, limit=limit, progress=progress)
    console.print(*report.lines(), sep="\n", highlight=False, soft_wrap=True)
    return 1 if report.faults else 0


def _shortened(settings: TrainSettings, *, minutes: float | None, steps: int | None) -> TrainSettings:
    """The recipe's settings with what the command line says instead."""
    from dataclasses import replace

    given = {"max_minutes": minutes, "steps": steps}
    return replace(settings, **{name: value for name, value in given.items() if value is not None})


def _train(task: TrainingTask, settings: TrainSettings, folder: Path, device: str, *, resume: bool) -> Path:
    """Train, say what came of it, and give the weights' file."""
    from dataclasses import replace

    from sightline.cli.console import make_console
    from sightline.training import fit

    settings = replace(settings, device=device, checkpoint_dir=folder)
    result = fit(task, settings, folder, resume="auto" if resume else None)
    figures = ", ".join(f"{name} {value:.3f}" for name, value in result.figures.items())
    make_console().print(
        f"{result.weights}: {result.steps} steps in {result.minutes:.1f} min; {figures or 'not validated'}",
        highlight=False,
        soft_wrap=True,
    )
    return result.weights
