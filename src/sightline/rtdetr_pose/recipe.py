"""A recipe of the room: the sections of its YAML file become a task and settings, stage 0 before them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from sightline.rtdetr_pose.augmentation import PoseAugmentationSettings
from sightline.rtdetr_pose.matching import MatchCosts
from sightline.rtdetr_pose.model import RTDETRPose
from sightline.rtdetr_pose.teacher import GeometryAutoencoder, TeacherTask
from sightline.rtdetr_pose.training import PoseLoss, RTDETRPoseTask
from sightline.rtdetr_pose.training_data import PoseSceneData
from sightline.synthetic.pose_composites import CompositeSettings
from sightline.synthetic.sensor import SensorSettings
from sightline.training import TrainSettings, read_recipe
from sightline.training.recipes import nested_values

_NESTED: dict[str, Any] = {
    "composites": CompositeSettings,
    "augmentation": PoseAugmentationSettings,
    "sensor": SensorSettings,
    "costs": MatchCosts,
}


class TeacherRecipe(NamedTuple):
    """Stage 0: what the teacher of masked reconstruction learns, and how."""

    task: TeacherTask
    settings: TrainSettings


class RTDETRPoseRecipe(NamedTuple):
    """What is trained, and how; ``teacher`` first, where the model reconstructs a teacher's features."""

    task: RTDETRPoseTask
    settings: TrainSettings
    teacher: TeacherRecipe | None


def read_rtdetr_pose_recipe(path: str | Path, *, data_folder: str | Path | None = None) -> RTDETRPoseRecipe:
    """Read a recipe and build what it says.

    Args:
        path: a YAML file with the sections ``model`` (of :class:`RTDETRPose`; ``weights`` in it names a hub's
            model or a folder whose detection weights it begins with), ``data`` (of
            :class:`PoseSceneData`), ``loss`` (of :class:`PoseLoss`), ``train`` and ``teacher`` (of
            :class:`sightline.training.TrainSettings`).
        data_folder: where drawn objects are kept between runs; in memory unless given.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: no YAML, an unknown key (with the nearest known one), or a value that cannot be.
    """
    recipe = read_recipe(
        path, model=_model, data=PoseSceneData, loss=PoseLoss, train=TrainSettings, teacher=TrainSettings
    )
    data_values = nested_values(path, "data", recipe["data"], _NESTED)
    if data_folder is not None:
        data_values["folder"] = data_folder
    data = PoseSceneData(**data_values)
    values: dict[str, Any] = {"num_classes": len(data.classes), **recipe["model"]}
    model = _model(**values)
    loss = PoseLoss(**nested_values(path, "loss", recipe["loss"], {"costs": MatchCosts}))
    task = RTDETRPoseTask(model, data, loss)
    settings = TrainSettings.of(recipe["train"])
    teacher = None
    if model.mim is not None and model.mim.target == "teacher":
        stage = TeacherTask(GeometryAutoencoder(len(model.mim.token), model.mim.teacher.in_channels), data)
        shared = {name: recipe["train"][name] for name in ("num_workers", "seed") if name in recipe["train"]}
        teacher = TeacherRecipe(stage, TrainSettings.of({**_TEACHER, **shared, **recipe["teacher"]}))
    return RTDETRPoseRecipe(task, settings, teacher)


_TEACHER: Mapping[str, Any] = {"batch_size": 16, "steps": 400, "lr": 2e-3, "warmup_steps": 20}
"""How the teacher is trained unless the recipe says otherwise."""


def _model(
    num_classes: int = 80,
    hidden_dim: int = 256,
    num_queries: int = 300,
    enable_mim: bool = False,
    use_uncertainty: bool = False,
    backbone: str = "r18",
    detector: Mapping[str, Any] | None = None,
    mim_geom_channels: int = 2,
    mim_target: str = "teacher",
    weights: str | None = None,
) -> RTDETRPose:
    """A model of a recipe; with ``weights`` it begins with a published detector."""
    model = RTDETRPose(
        num_classes,
        hidden_dim,
        num_queries,
        enable_mim,
        use_uncertainty=use_uncertainty,
        backbone=backbone,
        detector=detector,
        mim_geom_channels=mim_geom_channels,
        mim_target=mim_target,
    )
    if weights is not None:
        from sightline.rtdetr_pose.detection_weights import load_detection_weights

        load_detection_weights(model, weights)
    return model
