"""A recipe of the reference detector: the sections of its YAML file become a task and settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from sightline.nn.checkpoint import LoadReport, load_weights
from sightline.nn.descriptor import DescriptorNet
from sightline.refdet.composites import CompositeSettings
from sightline.refdet.detector import ConvNeXtRefDet
from sightline.refdet.losses import RefDetLoss
from sightline.refdet.refinement import RefinementData, RefinementTask
from sightline.refdet.template_pictures import TemplateSettings
from sightline.refdet.training import CompositeData, RefDetTask
from sightline.synthetic.crops import CropSettings
from sightline.synthetic.sprites import SpriteSettings
from sightline.training import TrainingTask, TrainSettings, read_recipe
from sightline.training.descriptor import DescriptorData, DescriptorTask
from sightline.training.recipes import nested_values

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


class Refinement(NamedTuple):
    """The training of the second look's boxes, and how."""

    task: RefinementTask
    settings: TrainSettings


class RefDetRecipe(NamedTuple):
    """What :func:`read_refdet_recipe` gives: the detector's training, and what comes before and after it.

    Args:
        task: the detector's.
        settings: of its run.
        stage0: the descriptor's training; None where the recipe has none.
        refinement: the training of the boxes of the second look, on a detector of its own that begins as the
            trained one (:func:`begin_with_detector`); None where the recipe has none.
    """

    task: RefDetTask
    settings: TrainSettings
    stage0: Stage | None
    refinement: Refinement | None


def read_refdet_recipe(path: str | Path, *, data_folder: str | Path | None = None) -> RefDetRecipe:
    """Read a recipe and build what it says.

    Args:
        path: a YAML file with the sections ``model`` (of :class:`ConvNeXtRefDet`), ``data`` (of
            :class:`CompositeData`), ``loss`` (of :class:`RefDetLoss`) and ``train`` (of
            :class:`sightline.training.TrainSettings`); where the descriptor is trained first also ``stage0``
            (of ``TrainSettings``) and ``stage0_data`` (of
            :class:`~sightline.training.descriptor.DescriptorData`, by itself from the objects of ``data``);
            where the second look learns to say boxes also ``refinement`` (of ``TrainSettings``) and
            ``refinement_data`` (of :class:`~sightline.refdet.refinement.RefinementData`).
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
        refinement_data=RefinementData,
        refinement=TrainSettings,
    )
    data = nested_values(path, "data", recipe["data"], _NESTED)
    if data_folder is not None:
        data["folder"] = data_folder
    model = ConvNeXtRefDet(**recipe["model"])
    stage0 = None
    if recipe["stage0"]:
        shared = ("folder", "num_objects", "num_backdrops", "num_validation_objects", "sprites")
        values = {name: data[name] for name in shared if name in data}
        values |= nested_values(path, "stage0_data", recipe["stage0_data"], _NESTED)
        task = DescriptorTask(descriptor_of(model), DescriptorData(**values))
        stage0 = Stage(task, TrainSettings.of(recipe["stage0"]))
    composites = CompositeData(**data)
    task = RefDetTask(model, composites, RefDetLoss(**recipe["loss"]))
    refinement = None
    if recipe["refinement"]:
        options: dict[str, Any] = recipe["model"] | {"refine_boxes": True}
        refined = ConvNeXtRefDet(**options)
        crops = RefinementData(**recipe["refinement_data"])
        refinement = Refinement(
            RefinementTask(refined, composites, crops), TrainSettings.of(recipe["refinement"])
        )
    return RefDetRecipe(task, TrainSettings.of(recipe["train"]), stage0, refinement)


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


def begin_with_detector(model: ConvNeXtRefDet, weights: str | Path) -> LoadReport:
    """Fill a detector with those of the same one that cannot refine boxes yet.

    Args:
        model: the detector, with ``refine_boxes``.
        weights: of the other.

    Returns:
        What was matched; ``missing`` is the refiner alone.

    Raises:
        ValueError: weights of another network.
    """
    report = load_weights(model, weights, strict=False)
    absent = [name for name in report.missing if not name.startswith("refiner.")]
    wrong = ", ".join([*absent, *report.unexpected, *report.mismatched])
    if wrong:
        raise ValueError(f"{weights}: expected a detector as the recipe's; they differ in {wrong}")
    return report
