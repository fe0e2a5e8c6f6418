"""What a command reads pictures from: one picture, a folder of them, or a video."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sightline.formats.images import read_image
from sightline.formats.videos import VideoReader

_PICTURES = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"}
_VIDEOS = {".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v"}


@dataclass(frozen=True, eq=False)
class Frame:
    """One picture of a source.

    Args:
        index: its number, from 0.
        name: its file name, or ``frame 000012`` of a video.
        image: ``(h, w, 3)`` uint8 RGB.
    """

    index: int
    name: str
    image: NDArray[np.uint8]


@dataclass(frozen=True)
class Source:
    """Where pictures come from; iterating decodes one at a time.

    Args:
        path: the file or folder.
        files: the pictures, in order of their names; empty for a video.
    """

    path: Path
    files: tuple[Path, ...]

    @property
    def is_video(self) -> bool:
        """Whether the source is a video file."""
        return not self.files

    def __len__(self) -> int:
        if self.files:
            return len(self.files)
        with VideoReader(self.path) as reader:
            return reader.count_frames()

    def __iter__(self) -> Iterator[Frame]:
        if self.files:
            for index, path in enumerate(self.files):
                yield Frame(index, path.name, read_image(path))
            return
        with VideoReader(self.path) as reader:
            for index, image in enumerate(reader):
                yield Frame(index, f"frame {index:06d}", image)

    @property
    def fps(self) -> float:
        """Frames a second of a video; 1 for pictures."""
        if self.files:
            return 1.0
        with VideoReader(self.path) as reader:
            return float(reader.fps)

    def sample(self, count: int) -> list[Frame]:
        """At most ``count`` frames spread evenly over the source."""
        total = len(self)
        wanted = sorted({round(i * (total - 1) / max(count - 1, 1)) for i in range(min(count, total))})
        if self.files:
            return [Frame(i, self.files[i].name, read_image(self.files[i])) for i in wanted]
        with VideoReader(self.path) as reader:
            return [Frame(i, f"frame {i:06d}", image) for i, image in reader.frames(wanted)]


def open_source(path: str | Path) -> Source:
    """Recognise a picture, a folder of pictures or a video.

    Args:
        path: the file or folder.

    Returns:
        The source.

    Raises:
        FileNotFoundError: there is nothing at the path.
        ValueError: neither picture, video nor a folder with pictures in it.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file or folder")
    if path.is_dir():
        files = tuple(sorted(p for p in path.iterdir() if p.suffix.lower() in _PICTURES))
        if not files:
            raise ValueError(
                f"{path}: expected a folder with pictures, found none ({', '.join(sorted(_PICTURES))})"
            )
        return Source(path, files)
    if path.suffix.lower() in _PICTURES:
        return Source(path, (path,))
    if path.suffix.lower() in _VIDEOS:
        return Source(path, ())
    raise ValueError(f"{path}: expected a picture, a video or a folder, got a file of type {path.suffix!r}")
