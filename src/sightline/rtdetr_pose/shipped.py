"""The weights of the closed-set network that come with the package."""

from __future__ import annotations

from pathlib import Path

from sightline.nn.shipped import shipped_file


def shipped_weights(name: str = "rtdetr-pose-tiny") -> Path:
    """The file of weights of a name.

    Args:
        name: without suffix.

    Returns:
        A ``.safetensors`` file; its card is the ``.md`` beside it.

    Raises:
        FileNotFoundError: no such weights come with this package.
    """
    return shipped_file(name)
