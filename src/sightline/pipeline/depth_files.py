"""The depth pictures that belong to the pictures of a source."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from sightline.formats.images import read_depth
from sightline.pipeline.sources import Frame, Source

_SUFFIXES = (".png", ".tif", ".tiff")


@dataclass(frozen=True)
class DepthFiles:
    """Depth pictures, one a picture.

    Args:
        files: by the picture's file name.
        unit_mm: millimetres in one step.
    """

    files: dict[str, Path]
    unit_mm: float

    def read(self, frame: Frame) -> Float[Tensor, "h w"]:
        """The depth of one picture, metres, 0 where it is missing.

        Args:
            frame: the picture.

        Raises:
            ValueError: a damaged file, no depth, or a size that is not the picture's.
        """
        path = self.files[frame.name]
        depth = torch.from_numpy(read_depth(path, self.unit_mm))
        if tuple(depth.shape) != frame.image.shape[:2]:
            raise ValueError(
                f"{path}: expected {frame.image.shape[1]}x{frame.image.shape[0]} pixels as {frame.name} has, "
                f"got {depth.shape[1]}x{depth.shape[0]}"
            )
        return depth


def open_depth(path: Path, source: Source, unit_mm: float = 1.0) -> DepthFiles:
    """Find the depth picture of every picture of a source.

    Args:
        path: of one picture its depth picture; of a folder a folder with one of each, named alike.
        source: the pictures.
        unit_mm: millimetres in one step of a depth picture.

    Raises:
        FileNotFoundError: there is nothing at the path, or nothing for some picture, which is named.
        ValueError: a video, or a file for several pictures.
    """
    if source.is_video:
        raise ValueError(f"{path}: expected a picture or a folder of pictures beside depth, got a video")
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file or folder")
    if path.is_file():
        if len(source.files) > 1:
            raise ValueError(
                f"{path}: expected a folder with the depth of {len(source.files)} pictures, got one file"
            )
        return DepthFiles({source.files[0].name: path}, unit_mm)
    files = {}
    for picture in source.files:
        named_alike = (path / f"{picture.stem}{suffix}" for suffix in _SUFFIXES)
        found = next((file for file in named_alike if file.is_file()), None)
        if found is None:
            raise FileNotFoundError(f"{path}: found no depth picture {picture.stem}.png for {picture.name}")
        files[picture.name] = found
    return DepthFiles(files, unit_mm)
