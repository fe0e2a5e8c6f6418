"""The state of a run in one file: where it is, and every tensor it needs to go on as if never stopped."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from torch import Tensor

from sightline.nn.checkpoint import read_tensors, save_tensors

FORMAT_VERSION = 1
_METADATA_KEY = "sightline_state"


@dataclass
class Progress:
    """Where a run is.

    Random numbers and the order of data are functions of the position, so that neither has a state.

    Args:
        position: forward passes of each process so far.
        skipped: optimiser steps without finite gradients.
        skipped_in_row: those since the last good one.
        seconds: time used, over all continuations.
        figures: the figures of the last validation.
        validated: at how many steps that was.
        best: the figures of the best validation.
        best_step: at how many steps that was.
        scaler: the state of fp16's loss scale.
    """

    position: int = 0
    skipped: int = 0
    skipped_in_row: int = 0
    seconds: float = 0.0
    figures: dict[str, float] = field(default_factory=dict)
    validated: int = -1
    best: dict[str, float] = field(default_factory=dict)
    best_step: int = -1
    scaler: dict[str, float] = field(default_factory=dict)


def save_state(path: str | Path, progress: Progress, tensors: Mapping[str, Mapping[str, Tensor]]) -> None:
    """Write the state of a run, whole or not at all.

    Args:
        path: the file.
        progress: where the run is.
        tensors: tensors by name, by what they belong to.

    Example:
        >>> import tempfile, torch
        >>> path = Path(tempfile.mkdtemp()) / "state.safetensors"
        >>> save_state(path, Progress(position=3), {"model": {"weight": torch.ones(1)}})
        >>> progress, tensors = load_state(path)
        >>> progress.position, tensors
        (3, {'model': {'weight': tensor([1.])}})
    """
    flat = {f"{owner}/{name}": tensor for owner, named in tensors.items() for name, tensor in named.items()}
    card = {"format": FORMAT_VERSION, "progress": asdict(progress)}
    save_tensors(path, flat, {_METADATA_KEY: json.dumps(card)})


def load_state(path: str | Path) -> tuple[Progress, dict[str, dict[str, Tensor]]]:
    """Read the state of a run.

    Args:
        path: a file of :func:`save_state`.

    Returns:
        Where the run is, and its tensors by name, by what they belong to.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it holds no state of a run, is damaged, or of a newer version.
    """
    flat, metadata = read_tensors(path)
    if _METADATA_KEY not in metadata:
        raise ValueError(f"{path}: expected the state of a run, these are weights alone; nothing to resume")
    card = json.loads(metadata[_METADATA_KEY])
    if card["format"] > FORMAT_VERSION:
        raise ValueError(
            f"{path}: a state of version {card['format']}, this Sightline reads {FORMAT_VERSION}"
        )
    tensors: dict[str, dict[str, Tensor]] = {}
    for key, tensor in flat.items():
        owner, _, name = key.partition("/")
        tensors.setdefault(owner, {})[name] = tensor
    return Progress(**card["progress"]), tensors
