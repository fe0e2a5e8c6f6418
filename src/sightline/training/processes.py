"""The processes of a run, as torchrun started them; one process where it did not."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


@dataclass(frozen=True)
class Processes:
    """Which process this is, and how many there are.

    Args:
        rank: this process among all.
        count: all processes.
        per_node: processes of this machine.

    Example:
        >>> Processes().count
        1
    """

    rank: int = 0
    count: int = 1
    per_node: int = 1

    @classmethod
    def from_environment(cls) -> Processes:
        """Read what torchrun says; one process where it says nothing.

        Raises:
            ValueError: the machines have unlike numbers of processes.
        """
        if "TORCHELASTIC_RUN_ID" not in os.environ:
            return cls()
        rank, count, per_node = (int(os.environ[key]) for key in ("RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE"))
        if count % per_node:
            raise ValueError(
                f"expected as many processes on each machine, got {count} over all and {per_node} here"
            )
        return cls(rank, count, per_node)

    @property
    def nodes(self) -> int:
        """How many machines take part."""
        return self.count // self.per_node

    @property
    def is_first(self) -> bool:
        """Whether this process writes the files and shows the progress."""
        return self.rank == 0


def _running() -> bool:
    return dist.is_available() and dist.is_initialized()


def average_over_processes(value: Tensor) -> Tensor:
    """The mean of a tensor over all processes; the tensor itself where there is one process.

    A loss that divides by a count (of positives, of valid pixels) divides by this mean of it. Then its
    gradient, averaged over processes, is that of one process with all samples.

    Args:
        value: of the same shape in each process; no gradient flows through it.

    Returns:
        The mean.

    Example:
        >>> average_over_processes(torch.tensor(3.0))
        tensor(3.)
    """
    if not _running():
        return value
    value = value.detach().clone()
    dist.all_reduce(value)
    return value / dist.get_world_size()


def share(value: Any) -> Any:  # noqa: ANN401  # any plain value
    """What the first process holds, in all processes; the value itself where there is one process.

    Example:
        >>> share({"ap": 0.5})
        {'ap': 0.5}
    """
    if not _running():
        return value
    box = [value]
    device = torch.device("cuda", torch.cuda.current_device()) if dist.get_backend() == "nccl" else None
    dist.broadcast_object_list(box, src=0, device=device)
    return box[0]


def require_device(device: str) -> None:
    """Refuse a device that this machine does not have.

    Args:
        device: as a setting names it.

    Raises:
        ValueError: it is CUDA or MPS, and not here.

    Example:
        >>> require_device("cpu")
    """
    kind = accelerator_of(device)
    here = {"cuda": torch.cuda.is_available, "mps": torch.backends.mps.is_available}
    if kind in here and not here[kind]():
        raise ValueError(f"device: expected one that is here, got {device!r}; this machine has no {kind}")


def accelerator_of(device: str) -> str:
    """The kind of device that a setting means: ``auto`` is CUDA where there is one.

    Example:
        >>> accelerator_of("cuda:1")
        'cuda'
    """
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(device).type
