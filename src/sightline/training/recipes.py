"""Recipes: YAML files that say what is built and how it is trained, each key known to what it is for."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import yaml
from yaml.constructor import ConstructorError

from sightline.training.choices import refuse_unknown

SECTIONS = ("model", "data", "loss", "train")


class _RecipeLoader(yaml.SafeLoader):
    """Plain YAML in which ``1e-4`` is a number, ``off`` is a word, and no key comes twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        keys = [self.construct_object(key, deep=deep) for key, _ in node.value]
        for place, key in enumerate(keys):
            if key in keys[:place]:
                mark = node.value[place][0].start_mark
                raise ConstructorError(None, None, f"the key {key!r} comes twice", mark)
        return super().construct_mapping(node, deep=deep)


# As in YAML 1.2 only true and false are truth values: "off" is a name, such as that of a loss.
_RecipeLoader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in rules if tag != "tag:yaml.org,2002:bool"]
    for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_RecipeLoader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)
_RecipeLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"),
    list("-+.0123456789"),
)


def read_recipe(path: str | Path, **builders: Callable[..., Any]) -> dict[str, dict[str, Any]]:
    r"""Read a recipe and check its keys against what they are for.

    Args:
        path: a YAML file with the sections ``model``, ``data``, ``loss`` and ``train``, and those that the
            builders name beside them; each is optional.
        builders: by section, the class or function whose arguments the section's keys are.

    Returns:
        The values by section and key, with a dict, maybe empty, for each builder.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: no YAML, a key that comes twice, a section or key that does not exist, with the nearest.

    Example:
        >>> import tempfile
        >>> from sightline.training import TrainSettings
        >>> path = Path(tempfile.mkdtemp()) / "tiny.yaml"
        >>> _ = path.write_text("model: {in_features: 4}\ntrain: {lr: 3e-4, freeze: [backbone]}\n")
        >>> from torch.nn import Linear
        >>> read_recipe(path, model=Linear, train=TrainSettings)
        {'model': {'in_features': 4}, 'train': {'lr': 0.0003, 'freeze': ['backbone']}}
        >>> _ = path.write_text("train: {learning_rate: 3e-4, warmup_step: 5}")
        >>> read_recipe(path, train=TrainSettings)
        Traceback (most recent call last):
        ValueError: ...tiny.yaml: train: unknown key 'learning_rate' ...
    """
    path = Path(path)
    sections = tuple(dict.fromkeys((*SECTIONS, *builders)))
    recipe = _read_yaml(path, sections)
    refuse_unknown(f"{path}", recipe, sections)
    for section, builder in builders.items():
        values = recipe.setdefault(section, {})
        accepted = inspect.signature(builder).parameters.values()
        if all(parameter.kind is not parameter.VAR_KEYWORD for parameter in accepted):
            refuse_unknown(f"{path}: {section}", values, [parameter.name for parameter in accepted])
    for section in recipe.keys() - builders.keys():
        refuse_unknown(f"{path}: {section}", recipe[section], ())
    return recipe


def nested_values(
    path: str | Path, section: str, values: Mapping[str, Any], kinds: Mapping[str, Any]
) -> dict[str, Any]:
    """The values of a section, with lists as tuples and mappings as the dataclasses that they stand for.

    Args:
        path: of the recipe, for messages.
        section: likewise.
        values: by key.
        kinds: by key, at any depth, the dataclass that its mapping fills.

    Raises:
        ValueError: an unknown key in one of the mappings.

    Example:
        >>> from sightline.training import TrainSettings
        >>> values = {"size": [3, 4], "inner": {"lr": 0.1}}
        >>> read = nested_values("tiny.yaml", "data", values, {"inner": TrainSettings})
        >>> read["size"], read["inner"].lr
        ((3, 4), 0.1)
    """

    def convert(name: str, value: Any) -> Any:  # noqa: ANN401  # what YAML holds
        if isinstance(value, list):
            return tuple(convert(name, each) for each in value)
        if name in kinds and isinstance(value, Mapping):
            kind = kinds[name]
            refuse_unknown(f"{path}: {section}: {name}", value, [field.name for field in fields(kind)])
            return kind(**{key: convert(key, inner) for key, inner in value.items()})
        return value

    return {name: convert(name, value) for name, value in values.items()}


def _read_yaml(path: Path, expected: Sequence[str]) -> dict[str, dict[str, Any]]:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such recipe")
    try:
        recipe = yaml.load(path.read_text(encoding="utf-8"), Loader=_RecipeLoader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: expected YAML: {' '.join(str(error).split())}") from error
    recipe = {} if recipe is None else recipe
    if not isinstance(recipe, Mapping):
        raise ValueError(f"{path}: expected sections ({', '.join(expected)}), got {type(recipe).__name__}")
    sections = {name: {} if values is None else values for name, values in recipe.items()}
    for name, values in sections.items():
        if not isinstance(values, Mapping):
            raise ValueError(f"{path}: {name}: expected keys with values, got {values!r}")
    return sections
