"""Many pictures one after the other, of which one that cannot be read does not stop the rest."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sightline.formats.images import read_image


class FileFault(NamedTuple):
    """A file that could not be used.

    Args:
        path: the file.
        reason: what is wrong with it, in words that name it.
    """

    path: Path
    reason: str


class LoadedImage(NamedTuple):
    """A picture that was read.

    Args:
        path: its file.
        image: ``(h, w, 3)`` uint8 RGB.
    """

    path: Path
    image: np.ndarray


def stream_images(paths: Iterable[str | Path]) -> Iterator[LoadedImage | FileFault]:
    """Read pictures in their order; a fault is a value in its picture's place.

    Args:
        paths: the files.

    Yields:
        The picture, or what is wrong with its file.

    Example:
        >>> [fault] = stream_images(["nowhere.png"])
        >>> fault.reason
        'nowhere.png: no such picture'
    """
    for path in map(Path, paths):
        try:
            yield LoadedImage(path, read_image(path))
        except (OSError, ValueError) as error:
            yield FileFault(path, str(error))
