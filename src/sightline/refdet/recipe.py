"""A recipe of the reference detector: the sections of its YAML file become a task and settings."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from sightline.refdet.composites import CompositeSettings
from sightline.refdet.detector import ConvNeXtRefDet
from sightline.refdet.losses import RefDetLoss
from sightline.refdet.training import CompositeData, RefDetTask
from sightline.synthetic.sprites import SpriteSettings
from sightline.training import TrainSettings, read_recipe
from sightline.training.choices import refuse_unknown

_NESTED: dict[str, Any] = {"sprites": SpriteSettings, "composites": CompositeSettings}


class RefDetRecipe(NamedTuple):
    """What :func:`read_refdet_recipe` gives: what is trained, and how."""

    task: RefDetTask
    settings: TrainSettings


def read_refdet_recipe(path: str | Path, *, data_folder: str | Path | None = None) -> RefDetRecipe:
    """Read a recipe and build what it says.

    Args:
        path: a YAML file with the sections ``model`` (of :class:`ConvNeXtRefDet`), ``data`` (of
            :class:`CompositeData`), ``loss`` (of :class:`RefDetLoss`) and ``train`` (of
            :class:`sightline.training.TrainSettings`).
        data_folder: where sprites and backdrops are kept between runs; in memory unless given.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: no YAML, an unknown key (with the nearest known one), or a value that cannot be.
    """
    recipe = read_recipe(path, model=ConvNeXtRefDet, data=CompositeData, loss=RefDetLoss, train=TrainSettings)
    data = {name: _value(path, name, value) for name, value in recipe["data"].items()}
    if data_folder is not None:
        data["folder"] = data_folder
    model = ConvNeXtRefDet(**recipe["model"])
    task = RefDetTask(model, CompositeData(**data), RefDetLoss(**recipe["loss"]))
    return RefDetRecipe(task, TrainSettings.of(recipe["train"]))


def _value(path: str | Path, name: str, value: Any) -> Any:  # noqa: ANN401  # what YAML holds
    if isinstance(value, list):
        return tuple(value)
    if name in _NESTED and isinstance(value, Mapping):
        kind = _NESTED[name]
        refuse_unknown(f"{path}: data: {name}", value, list(kind.__dataclass_fields__))
        return kind(**{key: tuple(v) if isinstance(v, list) else v for key, v in value.items()})
    return value
