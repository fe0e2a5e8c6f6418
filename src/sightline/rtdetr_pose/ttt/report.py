"""What happened in a step, and the one transfer that brings its numbers to the host."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class StepReport:
    """A step of an adaptation.

    Args:
        index: of the step, from 0.
        method: that adapts.
        updated: whether the model is another one than before.
        skipped: why no update was tried: a guard before it, ``frozen``, ``budget``.
        rolled_back: why an update was taken back.
        reset: why the source model came back.
        geometry_source: ``sensor``, ``prediction`` or ``none``.
        parameters: how many numbers may change.
        figures: see :attr:`Adapter.step <sightline.rtdetr_pose.ttt.adapter.Adapter.step>`.
        seconds: that the step took.

    Example:
        >>> StepReport(index=0, method="tent", updated=False, skipped="budget").to_dict()["skipped"]
        'budget'
    """

    index: int
    method: str
    updated: bool
    skipped: str | None = None
    rolled_back: str | None = None
    reset: str | None = None
    geometry_source: str = "none"
    parameters: int = 0
    figures: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def fired(self) -> tuple[str, ...]:
        """The guards that fired, in words."""
        return tuple(each for each in (self.skipped, self.rolled_back, self.reset) if each is not None)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, which knows no NaN: a figure that is not finite becomes None."""
        values = asdict(self)
        figures = self.figures.items()
        values["figures"] = {name: each if math.isfinite(each) else None for name, each in figures}
        return values


def detached(outputs: Any) -> Any:  # noqa: ANN401
    """Outputs without their graph: tensors in mappings, lists and tuples.

    Example:
        >>> detached({"a": [torch.ones(1, requires_grad=True)], "size": (4, 3)})
        {'a': [tensor([1.])], 'size': (4, 3)}
    """
    if isinstance(outputs, Tensor):
        return outputs.detach()
    if isinstance(outputs, Mapping):
        return {name: detached(each) for name, each in outputs.items()}
    if isinstance(outputs, list):
        return [detached(each) for each in outputs]
    if isinstance(outputs, tuple):
        parts = [detached(each) for each in outputs]
        return type(outputs)(*parts) if hasattr(outputs, "_fields") else tuple(parts)
    return outputs


def fetch(numbers: Mapping[str, Tensor]) -> dict[str, Any]:
    """Bring numbers and vectors to the host, all at once.

    Args:
        numbers: by name, of one device, with at most one axis.

    Returns:
        Floats, and lists of floats for vectors.

    Example:
        >>> fetch({"loss": torch.tensor(0.5), "classes": torch.tensor([1, 2])})
        {'loss': 0.5, 'classes': [1.0, 2.0]}
    """
    flat = torch.cat([each.detach().reshape(-1).double() for each in numbers.values()]).tolist()
    fetched: dict[str, Any] = {}
    for name, each in numbers.items():
        part, flat = flat[: each.numel()], flat[each.numel() :]
        fetched[name] = part if each.ndim else part[0]
    return fetched
