"""A recipe of the reference detector: the sections of its YAML file become a task and settings."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from sightline.nn.checkpoint import LoadReport, load_weights
from sightline.nn.descriptor import DescriptorNet
from sightline.refdet.composites import CompositeSettings
from sightline.refdet.detector import ConvNeXtRefDet
from sightline.refdet.losses import RefDetLoss
from sightline.refdet.template_pictures import TemplateSettings
from sightline.refdet.training import CompositeData, RefDetTask
from sightline.synthetic.crops import CropSettings
from sightline.synthetic.sprites import SpriteSettings
from sightline.training import TrainingTask, TrainSettings, read_recipe
from sightline.training.choices import refuse_unknown
from sightline.training.descriptor import DescriptorData, DescriptorTask

_NESTED: dict[str, Any] = {
    "sprites": SpriteSettings,
    "composites": CompositeSettings,
    "crops": CropSettings,
    "looks": CropSettings,
    "templates": TemplateSettings,
}


class Stage(NamedTuple):
    """What is trained, and how."""

    task: TrainingTask
    settings: TrainSettings


class RefDetRecipe(NamedTuple):
    """What :func:`read_refdet_recipe` gives: the detector's training, and stage 0 where there is one."""

    task: RefDetTask
    settings: TrainSettings
    stage0: Stage | None


def read_refdet_recipe(path: str | Path, *, data_folder: str | Path | None = None) -> RefDetRecipe:
    """Read a recipe and build what it says.

    Args:
        path: a YAML file with the sections ``model`` (of :class:`ConvNeXtRefDet`), ``data`` (of
            :class:`CompositeData`), ``loss`` (of :class:`RefDetLoss`) and ``train`` (of
            :class:`sightline.training.TrainSettings`); where the descriptor is trained first also ``stage0``
            (of ``TrainSettings``) and ``stage0_data`` (of
            :class:`~sightline.training.descriptor.DescriptorData`, by itself from the objects of ``data``).
        data_folder: where sprites and backdrops are kept between runs; in memory unless given.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: no YAML, an unknown key (with the nearest known one), or a value that cannot be.
    """
    recipe = read_recipe(
        path,
        model=ConvNeXtRefDet,
        data=CompositeData,
        loss=RefDetLoss,
        train=TrainSettings,
        stage0_data=DescriptorData,
        stage0=TrainSettings,
    )
    data = {name: _value(path, name, value) for name, value in recipe["data"].items()}
    if data_folder is not None:
        data["folder"] = data_folder
    model = ConvNeXtRefDet(**recipe["model"])
    stage0 = None
    if recipe["stage0"]:
        shared = ("folder", "num_objects", "num_backdrops", "num_validation_objects", "sprites")
        values = {name: data[name] for name in shared if name in data}
        values |= {name: _value(path, name, value) for name, value in recipe["stage0_data"].items()}
        task = DescriptorTask(descriptor_of(model), DescriptorData(**values))
        stage0 = Stage(task, TrainSettings.of(recipe["stage0"]))
    task = RefDetTask(model, CompositeData(**data), RefDetLoss(**recipe["loss"]))
    return RefDetRecipe(task, TrainSettings.of(recipe["train"]), stage0)


def descriptor_of(model: ConvNeXtRefDet) -> DescriptorNet:
    """The descriptor network that a detector can begin as, with random weights.

    Args:
        model: the detector.
    """
    return DescriptorNet(
        backbone=model.config["backbone"],
        fpn_channels=model.config["fpn_channels"],
        descriptor_channels=model.config["descriptor_channels"],
        strides=model.fpn.strides,
        late_strides=model.late_strides,
    )


def begin_with_descriptor(model: ConvNeXtRefDet, weights: str | Path) -> LoadReport:
    """Fill a detector's backbone, pyramid and projections with those of a trained descriptor.

    Args:
        model: the detector.
        weights: of the descriptor that :func:`descriptor_of` gives.

    Returns:
        What was matched; ``missing`` are the parts that a descriptor does not have.

    Raises:
        ValueError: weights of another network.
    """
    projections = {f"projections.{s}.": f"matchers.{s}.prototypes.projection." for s in model.fpn.strides}
    report = load_weights(model, weights, rename=projections, strict=False)
    begun = [name for name in model.state_dict() if name.startswith(("backbone.", "fpn."))]
    absent = sorted(set(begun) - set(report.matched))
    if absent:
        raise ValueError(f"{weights}: expected a descriptor for this detector; it lacks {', '.join(absent)}")
    return report


def _value(path: str | Path, name: str, value: Any) -> Any:  # noqa: ANN401  # what YAML holds
    if isinstance(value, list):
        return tuple(value)
    if name in _NESTED and isinstance(value, Mapping):
        kind = _NESTED[name]
        refuse_unknown(f"{path}: data: {name}", value, list(kind.__dataclass_fields__))
        return kind(**{key: _value(path, key, inner) for key, inner in value.items()})
    return value
