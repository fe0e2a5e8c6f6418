"""Weights that come with the package; beside each file lies a card that says how they were made."""

from __future__ import annotations

from importlib import resources
from pathlib import Path


def shipped_folder() -> Path:
    """Where they lie.

    Example:
        >>> shipped_folder().name
        'weights'
    """
    return Path(str(resources.files("sightline"))) / "weights"


def shipped_file(name: str) -> Path:
    """The file of weights of a name.

    Args:
        name: without suffix.

    Returns:
        A ``.safetensors`` file; its card is the ``.md`` beside it.

    Raises:
        FileNotFoundError: no such weights come with this package.

    Example:
        >>> shipped_file("refdet-huge")
        Traceback (most recent call last):
        FileNotFoundError: ...refdet-huge.safetensors: no such weights come with the package; there are: ...
    """
    folder = shipped_folder()
    path = folder / f"{name}.safetensors"
    if not path.is_file():
        known = ", ".join(sorted(each.stem for each in folder.glob("*.safetensors"))) or "none"
        raise FileNotFoundError(f"{path}: no such weights come with the package; there are: {known}")
    return path
