"""How rooms learn: one task, one set of settings, one run folder, one LightningModule for all.

A room gives a ``TrainingTask``; ``fit`` trains it. ``settings`` says how, ``stream`` in which order,
``optimiser`` with which steps, ``average`` and ``freezing`` with which weights; ``state`` and ``run_folder``
are the files, ``keeper`` what goes into them, ``recipes`` the YAML. Only ``module`` and ``trainer`` know
Lightning, and are imported where something is trained.
"""

from sightline.training.keeper import TrainingDiverged
from sightline.training.processes import average_over_processes
from sightline.training.recipes import read_recipe
from sightline.training.run import RunResult, fit
from sightline.training.settings import TrainSettings
from sightline.training.stream import EpochStream
from sightline.training.task import Samples, TrainingTask

__all__ = [
    "EpochStream",
    "RunResult",
    "Samples",
    "TrainSettings",
    "TrainingDiverged",
    "TrainingTask",
    "average_over_processes",
    "fit",
    "read_recipe",
]
