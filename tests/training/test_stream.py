"""The order of data: each sample once an epoch, the same at every start, with any workers and processes."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sightline.training.stream import EpochStream, seed_step, validation_batches


class Draws:
    """Samples that are nothing but randomness, from everywhere that it can come from."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def sample(self, index: int, rng: np.random.Generator) -> tuple[float, ...]:
        return (index, rng.random(), random.random(), np.random.random(), float(torch.rand(1)))  # noqa: NPY002


def stream(count: int = 10, **options: Any) -> EpochStream:
    usual: dict[str, Any] = {"batch_size": 3, "seed": 1, "stop": 9}
    return EpochStream(Draws(count), list, **(usual | options))


def indices(batches: EpochStream) -> list[list[int]]:
    return [[key[2] for key in batches.keys(place)] for place in range(batches.start, batches.stop)]


@given(
    count=st.integers(1, 40),
    batch_size=st.integers(1, 5),
    accumulate=st.integers(1, 3),
    processes=st.integers(1, 3),
    epoch=st.integers(0, 3),
)
def test_an_epoch_holds_each_sample_once(
    count: int, batch_size: int, accumulate: int, processes: int, epoch: int
) -> None:
    seen: list[int] = []
    for process in range(processes):
        one = EpochStream(
            Draws(count),
            list,
            batch_size,
            seed=3,
            accumulate=accumulate,
            process=process,
            processes=processes,
        )
        first = epoch * one.batches_per_epoch
        places = range(first, first + one.batches_per_epoch)
        keys = [key for place in places for key in one.keys(place)]
        assert all(key[1] == epoch for key in keys)
        seen += [key[2] for key in keys]
    needed = batch_size * accumulate * processes
    assert len(seen) % needed == 0
    if count >= needed:
        assert len(set(seen)) == len(seen) > count - needed
    else:
        assert len(seen) == needed
        assert set(seen) == set(range(count))
        assert max(map(seen.count, seen)) - min(map(seen.count, seen)) <= 1


def test_processes_share_the_batches_of_one() -> None:
    alone = indices(stream(40, batch_size=6, stop=6))
    parts = [indices(stream(40, batch_size=3, stop=6, process=r, processes=2)) for r in range(2)]
    assert [a + b for a, b in zip(*parts, strict=True)] == alone
    passes = indices(stream(40, batch_size=3, accumulate=2, stop=12))
    assert [a + b for a, b in zip(passes[::2], passes[1::2], strict=True)] == alone


def test_epochs_and_seeds_differ() -> None:
    order = indices(stream(30, stop=20))
    for epoch in (order[:10], order[10:]):
        assert sorted(index for batch in epoch for index in batch) == list(range(30))
    assert order[:10] != order[10:]
    assert indices(stream(30, stop=20, seed=2)) != order


@pytest.mark.parametrize("num_workers", [0, 2])
def test_any_start_and_any_workers_give_the_same(num_workers: int) -> None:
    whole = list(stream())
    torch.manual_seed(99)  # what was drawn before does not matter
    assert list(stream(start=4, num_workers=num_workers)) == whole[4:]
    assert len(stream(start=4)) == 5
    draws = [sample[1:] for batch in whole for sample in batch]
    assert len({value for sample in draws for value in sample}) == 4 * len(draws)


def test_samples_change_with_the_epoch() -> None:
    epochs: list[dict[float, tuple[float, ...]]] = [{}, {}]
    for place, batch in enumerate(stream(9, stop=6)):
        epochs[place // 3].update({sample[0]: sample[1:] for sample in batch})
    assert epochs[0].keys() == epochs[1].keys()
    assert all(epochs[0][index] != epochs[1][index] for index in epochs[0])


def test_validation_is_always_the_same() -> None:
    first = list(validation_batches(Draws(7), list, 3, seed=0))
    assert [len(batch) for batch in first] == [3, 3, 1]
    assert [sample[0] for batch in first for sample in batch] == list(range(7))
    assert list(validation_batches(Draws(7), list, 3, seed=0, num_workers=1)) == first
    training = {s[1] for batch in stream(7, batch_size=1, stop=7, seed=0) for s in batch}
    assert not training & {sample[1] for batch in first for sample in batch}


def test_steps_are_seeded_by_place_and_process() -> None:
    def draws(*place: int) -> tuple[float, float, float]:
        seed_step(*place)
        return random.random(), np.random.random(), float(torch.rand(1))  # noqa: NPY002

    assert draws(0, 5, 1) == draws(0, 5, 1)
    assert len({draws(0, 5, 1), draws(0, 6, 1), draws(0, 5, 0), draws(1, 5, 1)}) == 4


def test_no_samples() -> None:
    with pytest.raises(ValueError, match="training samples are empty"):
        stream(0)
