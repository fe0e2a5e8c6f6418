"""A recipe of the matcher: the sections of its YAML file become a task and settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from sightline.synthetic.pose_crops import PoseCropSettings
from sightline.synthetic.pose_views import PoseViewSettings
from sightline.synthetic.sensor import SensorSettings
from sightline.training import TrainSettings, read_recipe
from sightline.training.recipes import nested_values
from sightline.vpog.encoder import TinyEncoder, begin_with_descriptor
from sightline.vpog.model import VPOGModel
from sightline.vpog.scene_data import SceneData
from sightline.vpog.training import PoseData, VPOGLoss, VPOGTask

_NESTED: dict[str, Any] = {
    "views": PoseViewSettings,
    "crops": PoseCropSettings,
    "sensor": SensorSettings,
    "scenes": SceneData,
    "validation_scenes": SceneData,
}


class VPOGRecipe(NamedTuple):
    """What is trained, and how."""

    task: VPOGTask
    settings: TrainSettings


def read_vpog_recipe(
    path: str | Path,
    *,
    data_folder: str | Path | None = None,
    descriptor: str | Path | None = None,
    default_descriptor: str | Path | None = None,
) -> VPOGRecipe:
    """Read a recipe and build what it says.

    Args:
        path: a YAML file with the sections ``model`` (of :class:`VPOGModel`), ``data`` (of
            :class:`PoseData`), ``loss`` (of :class:`VPOGLoss`) and ``train`` (of
            :class:`sightline.training.TrainSettings`).
        data_folder: where drawn objects are kept between runs; in memory unless given.
        descriptor: weights of the descriptor's pre-training, or of what began as one, with which a tiny
            encoder begins.
        default_descriptor: the same where the recipe names no weights of its encoder; of no account for
            another encoder than the tiny one.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: no YAML, an unknown key (with the nearest known one), a value that cannot be, weights of
            another network, or an encoder that begins otherwise.
    """
    recipe = read_recipe(path, model=VPOGModel, data=PoseData, loss=VPOGLoss, train=TrainSettings)
    data = nested_values(path, "data", recipe["data"], _NESTED)
    if data_folder is not None:
        data["folder"] = data_folder
    model = VPOGModel(**recipe["model"])
    has_weights = "weights" in (recipe["model"].get("encoder") or {})
    if descriptor is None and isinstance(model.encoder, TinyEncoder) and not has_weights:
        descriptor = default_descriptor
    if descriptor is not None:
        if not isinstance(model.encoder, TinyEncoder):
            kind = type(model.encoder).__name__
            raise ValueError(f"{path}: a descriptor is what the tiny encoder begins with, not {kind}")
        begin_with_descriptor(model.encoder, descriptor)
    task = VPOGTask(model, PoseData(**data), VPOGLoss(**recipe["loss"]))
    return VPOGRecipe(task, TrainSettings.of(recipe["train"]))
