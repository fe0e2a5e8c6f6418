"""How a network adapts itself, as people say it: a preset's name, or a YAML file."""

from __future__ import annotations

from pathlib import Path

import yaml

from sightline.rtdetr_pose.ttt import PRESETS, AdaptSpec, preset


def read_adaptation(text: str) -> AdaptSpec:
    """The specification of a preset, or of a file.

    Args:
        text: a name of :data:`~sightline.rtdetr_pose.ttt.PRESETS`, or the path of a YAML file with the keys
            of :class:`~sightline.rtdetr_pose.ttt.AdaptSpec`.

    Raises:
        FileNotFoundError: neither a preset nor a file.
        ValueError: a file that is no YAML, or with an unknown key or value.

    Example:
        >>> read_adaptation("safe").options.kind
        'tent'
    """
    if text in PRESETS:
        return preset(text)
    path = Path(text)
    if not path.is_file():
        known = ", ".join(PRESETS)
        raise FileNotFoundError(f"{text}: expected a YAML file, or one of the presets {known}")
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        return AdaptSpec.from_dict(values)
    except (yaml.YAMLError, TypeError, AttributeError, UnicodeDecodeError) as error:
        raise ValueError(
            f"{path}: expected keys with values, as YAML: {' '.join(str(error).split())}"
        ) from error
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
