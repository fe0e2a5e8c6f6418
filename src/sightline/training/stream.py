"""The order of data as a function of seed, epoch and place: nothing to save, nothing that workers change."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from sightline.training.task import Samples

_ORDER, _SAMPLE, _STEP, _VALIDATION = range(4)


@lru_cache(maxsize=2)
def _epoch_order(seed: int, epoch: int, count: int) -> np.ndarray:
    return np.random.default_rng([seed, _ORDER, epoch]).permutation(count)


def seed_step(seed: int, position: int, process: int = 0) -> None:
    """Seed the generators of ``random``, ``numpy`` and ``torch`` for one forward pass.

    Args:
        seed: of the run.
        position: forward passes before this one.
        process: the rank, so that dropout differs between processes.

    Example:
        >>> seed_step(0, 12)
        >>> first = torch.rand(1)
        >>> seed_step(0, 12)
        >>> bool(torch.rand(1) == first)
        True
    """
    state = _seed_host(np.random.SeedSequence([seed, _STEP, position, process]))
    # ``torch.manual_seed`` keeps a growing list of what it would do if CUDA came up.
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed(state)
    if torch.backends.mps.is_built() and torch.backends.mps.is_available():
        torch.mps.manual_seed(state)


def _seed_host(sequence: np.random.SeedSequence) -> int:
    """Seed the generators of the host; in forked workers no others may be touched."""
    high, low = (int(word) for word in sequence.generate_state(2))
    random.seed(high)
    np.random.seed(low)  # noqa: NPY002  # for libraries that know no other
    torch.random.default_generator.manual_seed(high << 32 | low)
    return high << 32 | low


class _Drawn(Dataset):
    """Samples by ``(kind, epoch, index)``, each with the randomness of its name."""

    def __init__(self, samples: Samples, seed: int) -> None:
        self.samples = samples
        self.seed = seed

    def __getitem__(self, index: tuple[int, int, int]) -> Any:  # noqa: ANN401  # what the samples are
        sequence = np.random.SeedSequence([self.seed, *index])
        _seed_host(sequence)
        return self.samples.sample(index[2], np.random.default_rng(sequence))


@dataclass(frozen=True)
class EpochStream:
    """The batches of a run, from any place to its end.

    In each epoch every process works through its part of the same order: batch b of process r holds the
    samples ``[(b processes + r) batch_size, (b processes + r + 1) batch_size)`` of it, so that two processes
    see in one step what one process sees with the doubled batch. Samples too few for one step are repeated.

    Args:
        samples: what is drawn from.
        collate: makes a batch of samples.
        batch_size: samples in a batch.
        seed: of the run.
        accumulate: batches of one optimiser step; epochs end with a whole step.
        process: this process's rank.
        processes: how many there are.
        start: batches of this process that were already used.
        stop: batches of this process at the end of the run.
        num_workers: processes that prepare batches.
        pin_memory: whether batches are prepared for a GPU.

    Raises:
        ValueError: no samples.

    Example:
        >>> class Numbers:
        ...     def __len__(self):
        ...         return 10
        ...
        ...     def sample(self, index, rng):
        ...         return index
        >>> stream = EpochStream(Numbers(), list, batch_size=4, seed=0, stop=4)
        >>> stream.batches_per_epoch, [len(batch) for batch in stream]
        (2, [4, 4, 4, 4])
        >>> later = EpochStream(Numbers(), list, batch_size=4, seed=0, start=3, stop=4)
        >>> list(later) == list(stream)[3:]
        True
    """

    samples: Samples
    collate: Callable[[Sequence[Any]], Any]
    batch_size: int
    seed: int
    accumulate: int = 1
    process: int = 0
    processes: int = 1
    start: int = 0
    stop: int = 0
    num_workers: int = 0
    pin_memory: bool = False

    def __post_init__(self) -> None:
        if len(self.samples) < 1:
            raise ValueError("there is nothing to learn from: the training samples are empty")

    @property
    def steps_per_epoch(self) -> int:
        """Optimiser steps in an epoch."""
        return max(1, len(self.samples) // (self.batch_size * self.accumulate * self.processes))

    @property
    def batches_per_epoch(self) -> int:
        """Batches of this process in an epoch."""
        return self.steps_per_epoch * self.accumulate

    def keys(self, position: int) -> list[tuple[int, int, int]]:
        """Which samples batch ``position`` of the run holds, as ``(kind, epoch, index)``."""
        epoch, batch = divmod(position, self.batches_per_epoch)
        first = (batch * self.processes + self.process) * self.batch_size
        order = _epoch_order(self.seed, epoch, len(self.samples))
        indices = order.take(range(first, first + self.batch_size), mode="wrap")
        return [(_SAMPLE, epoch, int(index)) for index in indices]

    def __len__(self) -> int:
        return self.stop - self.start

    def __iter__(self) -> Iterator[Any]:
        return iter(
            DataLoader(
                _Drawn(self.samples, self.seed),
                batch_sampler=_Batches(self),
                collate_fn=self.collate,
                num_workers=self.num_workers,
                pin_memory=self.pin_memory,
            )
        )


class _Batches:
    """The keys of each batch, in order, as a sampler gives them."""

    def __init__(self, stream: EpochStream) -> None:
        self.stream = stream

    def __len__(self) -> int:
        return len(self.stream)

    def __iter__(self) -> Iterator[list[tuple[int, int, int]]]:
        return map(self.stream.keys, range(self.stream.start, self.stream.stop))


def validation_batches(
    samples: Samples,
    collate: Callable[[Sequence[Any]], Any],
    batch_size: int,
    seed: int,
    num_workers: int = 0,
) -> Iterator[Any]:
    """All samples in order, the same at every validation; the last batch may be smaller.

    Args:
        samples: what is drawn from.
        collate: makes a batch of samples.
        batch_size: samples in a batch.
        seed: of the run.
        num_workers: processes that prepare batches.

    Returns:
        The batches.
    """
    indices = range(len(samples))
    keys = [
        [(_VALIDATION, 0, index) for index in indices[first : first + batch_size]]
        for first in indices[::batch_size]
    ]
    return iter(
        DataLoader(_Drawn(samples, seed), batch_sampler=keys, collate_fn=collate, num_workers=num_workers)
    )
