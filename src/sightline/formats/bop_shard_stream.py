"""A web data set read from front to back: shard after shard, shared among processes, from any place on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple, overload

import numpy as np

from sightline.formats.bop_webdataset import BopShards, frame_of_parts, key_of
from sightline.formats.frames import Frame, FrameSet
from sightline.formats.tar_shards import read_parts


class ShardPosition(NamedTuple):
    """How far a stream has been read.

    Args:
        shards: that were read to their end.
        samples: of the next one that were read or skipped.
    """

    shards: int = 0
    samples: int = 0


class ShardStream:
    """Frames in the order in which they lie on the disk, decoded; what is damaged is skipped and told.

    Shards are read one after the other, in an order that seed and epoch decide, and each by one reader alone:
    reader ``part`` of ``parts`` takes every ``parts``-th. With several processes that have several workers
    each, ``part = process * workers + worker``. The same arguments give the same frames.

    Args:
        shards: the data set; what is skipped is noted in its ``report``.
        part: which reader this is.
        parts: how many there are.
        seed: of the order of shards; None for that of their numbers.
        epoch: likewise.
        start: where to go on, as ``position`` said it.

    Raises:
        ValueError: a part that is not among the parts.
    """

    def __init__(
        self,
        shards: BopShards,
        *,
        part: int = 0,
        parts: int = 1,
        seed: int | None = None,
        epoch: int = 0,
        start: ShardPosition | None = None,
    ) -> None:
        if not 0 <= part < parts:
            raise ValueError(f"part: expected one of {parts}, from 0, got {part}")
        self.shards = shards
        order = np.array(shards.shards)
        if seed is not None:
            order = np.random.default_rng([seed, epoch]).permutation(order)
        self.order: list[int] = order[part::parts].tolist()
        self.position = start or ShardPosition()

    def __iter__(self) -> Iterator[Frame]:
        """The frames from ``position`` on, which moves along; each with picture and depth decoded."""
        while self.position.shards < len(self.order):
            shard = self.order[self.position.shards]
            samples = self.shards.samples(shard)
            rest = dict(list(samples.items())[self.position.samples :])
            for key, parts in read_parts(self.shards.path(shard), rest):
                self.position = self.position._replace(samples=self.position.samples + 1)
                frame = self._decode(shard, key, parts)
                if frame is not None:
                    yield frame
            self.position = ShardPosition(self.position.shards + 1)

    def _decode(self, shard: int, key: str, parts: dict[str, bytes]) -> Frame | None:
        path = self.shards.path(shard)
        try:
            return decoded(frame_of_parts(path, key, parts))
        except ValueError as error:
            self.shards.report.note(path / key, error)
            return None


def decoded(frame: Frame) -> Frame:
    """The same frame with picture and depth as arrays.

    Raises:
        ValueError: one of them is damaged.
    """
    return replace(frame, image=frame.read_image(), depth=frame.read_depth())


def read_whole_shards(folder: str | Path) -> FrameSet:
    """A web data set as frames, without those that are damaged, which are told; reads everything once.

    Args:
        folder: with the shards.

    Raises:
        FileNotFoundError: no such folder, or no shard in it.
    """
    shards = BopShards(folder)
    keys = [key_of(frame.scene_id, frame.frame_id) for frame in ShardStream(shards)]
    return FrameSet(
        _Chosen(shards, keys), ignored=tuple(f"not read: {each}" for each in shards.report.lines())
    )


class _Chosen(Sequence[Frame]):
    """Some of the pictures, in the order of their keys."""

    def __init__(self, shards: BopShards, keys: list[str]) -> None:
        self.shards, self.keys = shards, sorted(keys)

    def __len__(self) -> int:
        return len(self.keys)

    @overload
    def __getitem__(self, index: int) -> Frame: ...
    @overload
    def __getitem__(self, index: slice) -> list[Frame]: ...
    def __getitem__(self, index: int | slice) -> Frame | list[Frame]:
        if isinstance(index, slice):
            return [self.shards.frame(key) for key in self.keys[index]]
        return self.shards.frame(self.keys[index])
