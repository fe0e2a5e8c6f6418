"""What is computed once for objects and then compared with any number of pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor


@dataclass(frozen=True, eq=False)
class LevelBank:
    """The templates of k objects at one stride of the pyramid.

    Args:
        descriptors: ``(k, n, sizes, parts, d)`` unit vectors of the whole object and of its cells.
        kernel: ``(k, corr, size, size)`` the fused template as a kernel.
        kernel_mask: ``(k, 1, size, size)`` share of the object in each of its cells.
        context: ``(k, c)`` mean feature of the fused template.
        cells: ``(k, n, cells, d)`` unit vectors of the cells of each template's map.
        cell_shares: ``(k, n, cells)`` share of the object in them; 0 where there is too little.

    Example:
        >>> LevelBank(torch.zeros(1, 2, 3, 10, 8), torch.zeros(1, 4, 7, 7), torch.ones(1, 1, 7, 7),
        ...           torch.zeros(1, 16), torch.zeros(1, 2, 4, 8), torch.ones(1, 2, 4)).context.shape
        torch.Size([1, 16])
    """

    descriptors: Float[Tensor, "k n sizes parts d"]
    kernel: Float[Tensor, "k corr size size"]
    kernel_mask: Float[Tensor, "k 1 size size"]
    context: Float[Tensor, "k c"]
    cells: Float[Tensor, "k n cells d"]
    cell_shares: Float[Tensor, "k n cells"]


FIELDS = tuple(field.name for field in fields(LevelBank))
PER_TEMPLATE = ("descriptors", "cells", "cell_shares")
"""The tensors of a level that have one entry for each template."""
_LIKENESS = "likeness"


@dataclass(frozen=True, eq=False)
class TemplateBank:
    """The encoded templates of one object or of several; plain tensors that can be stored and joined.

    Args:
        levels: the pyramid's levels by their stride.
        part_valid: ``(k, n, parts)`` which descriptors count: not those of padding or of empty cells.
        likeness: ``(k,)`` how much an object's templates are alike
            (:func:`~sightline.refdet.second_look.own_likeness`); None where nobody has asked yet.

    Example:
        >>> level = LevelBank(torch.zeros(1, 2, 3, 10, 8), torch.zeros(1, 4, 7, 7), torch.ones(1, 1, 7, 7),
        ...                   torch.zeros(1, 16), torch.zeros(1, 2, 4, 8), torch.ones(1, 2, 4))
        >>> bank = TemplateBank({8: level}, torch.ones(1, 2, 10, dtype=torch.bool))
        >>> both = TemplateBank.concatenate([bank, TemplateBank.from_tensors(bank.to_tensors())])
        >>> both.num_objects, both.num_templates
        (2, 2)
    """

    levels: Mapping[int, LevelBank]
    part_valid: Bool[Tensor, "k n parts"]
    likeness: Float[Tensor, " k"] | None = None

    @property
    def num_objects(self) -> int:
        """How many objects are in it."""
        return self.part_valid.shape[0]

    @property
    def num_templates(self) -> int:
        """How many templates an object has, padding included."""
        return self.part_valid.shape[1]

    def to_tensors(self) -> dict[str, Tensor]:
        """Its tensors by name, as ``objects.feature_cache`` and safetensors keep them."""
        named = {
            f"level{stride}.{field}": getattr(level, field)
            for stride, level in self.levels.items()
            for field in FIELDS
        }
        known = {} if self.likeness is None else {_LIKENESS: self.likeness}
        return {"part_valid": self.part_valid, **named, **known}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> TemplateBank:
        """The inverse of :meth:`to_tensors`.

        Args:
            tensors: by name.

        Returns:
            The bank.

        Raises:
            ValueError: if a tensor is missing or foreign; the likeness alone may be missing.
        """
        likeness = tensors.get(_LIKENESS)
        tensors = {name: tensor for name, tensor in tensors.items() if name != _LIKENESS}
        prefixes = {name.split(".")[0] for name in tensors if name.startswith("level")}
        strides = sorted(int(prefix.removeprefix("level")) for prefix in prefixes)
        expected = {"part_valid"} | {f"level{s}.{field}" for s in strides for field in FIELDS}
        if not strides or expected != set(tensors):
            wrong = sorted(expected ^ set(tensors)) or ["level<stride>.*"]
            raise ValueError(f"these are not the tensors of a template bank; missing or foreign: {wrong}")
        levels = {s: LevelBank(*(tensors[f"level{s}.{field}"] for field in FIELDS)) for s in strides}
        return cls(levels, tensors["part_valid"], likeness)

    def to(self, target: torch.device | torch.dtype | str) -> TemplateBank:
        """The same bank on another device or in another floating type."""
        moved = {
            name: tensor.to(target)
            if tensor.is_floating_point() or not isinstance(target, torch.dtype)
            else tensor
            for name, tensor in self.to_tensors().items()
        }
        return TemplateBank.from_tensors(moved)

    def select(self, objects: slice | Tensor | Sequence[int]) -> TemplateBank:
        """The bank of some of the objects.

        Args:
            objects: a slice, a bool tensor or indices.

        Returns:
            The smaller bank, whose tensors may be views of this one's.
        """
        index = objects if isinstance(objects, slice | Tensor) else torch.as_tensor(list(objects))
        return TemplateBank.from_tensors({name: tensor[index] for name, tensor in self.to_tensors().items()})

    @staticmethod
    def concatenate(banks: Sequence[TemplateBank]) -> TemplateBank:
        """One bank of all objects; those with fewer templates are padded.

        Args:
            banks: of one model, on one device.

        Returns:
            The bank, its objects in the order given.

        Raises:
            ValueError: if there are none, or banks of different models.
        """
        if not banks:
            raise ValueError("no template banks to join")
        count = max(bank.num_templates for bank in banks)
        padded = [_pad_templates(bank.to_tensors(), count) for bank in banks]
        forms = {name: tensor.shape[1:] for name, tensor in padded[0].items()}
        for tensors in padded[1:]:
            if {name: tensor.shape[1:] for name, tensor in tensors.items()} != forms:
                raise ValueError("these template banks are of different models: their tensors differ in form")
        return TemplateBank.from_tensors({name: torch.cat([t[name] for t in padded]) for name in forms})


def _pad_templates(tensors: dict[str, Tensor], count: int) -> dict[str, Tensor]:
    """Fill axis 1 of whatever has one entry a template with zeros, which are not valid."""
    per_template = {name for name in tensors if name.split(".")[-1] in ("part_valid", *PER_TEMPLATE)}
    return {
        name: F.pad(tensor, [0, 0] * (tensor.ndim - 2) + [0, count - tensor.shape[1]])
        if name in per_template
        else tensor
        for name, tensor in tensors.items()
    }
