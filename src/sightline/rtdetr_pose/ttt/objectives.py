"""How a model is run while it adapts, and the terms of what it lowers.

The plain objective runs any model as it is and gives its entropy and the terms that a caller adds; the room's
masked reconstruction is in :mod:`sightline.rtdetr_pose.ttt.masked`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sightline.rtdetr_pose.ttt.readers import OutputReader, Outputs
from sightline.training.choices import refuse_unknown

Terms = dict[str, Float[Tensor, "b"]]
Term = Callable[[Outputs, Any], Float[Tensor, "b"]]


@dataclass(kw_only=True)
class Prepared:
    """A batch with all that is drawn or computed once for it.

    Args:
        batch: as it came.
        geom: its geometry, where an objective uses it.
        geometry_source: where that comes from: ``sensor``, ``prediction``, ``none``.
        usable: ``(b,)`` 1 for pictures that can be learnt from.
        features: cached ones.
        masks: one for each update.
    """

    batch: Any
    usable: Tensor
    geom: Tensor | None = None
    geometry_source: str = "none"
    features: Any = None
    masks: list[Tensor] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class Draws:
    """Where random numbers come from: on the model's device, and on the CPU what must not depend on it."""

    device: torch.Generator
    host: torch.Generator


class Objective:
    """One plain pass; the entropy of its outputs, and further terms.

    Args:
        reader: of the model's outputs.
        terms: further terms by name: of outputs and batch, one value a picture.
        picture_key: of the pictures, where a batch is a mapping of the model's arguments.
    """

    def __init__(
        self, reader: OutputReader, terms: Mapping[str, Term] | None = None, *, picture_key: str = "x"
    ) -> None:
        self.reader = reader
        self.extra = dict(terms or {})
        self.picture_key = picture_key
        self.weights: dict[str, float] = {}

    @property
    def names(self) -> tuple[str, ...]:
        """The terms that there are."""
        return ("entropy", *self.extra)

    def bind(self, model: nn.Module, weights: Mapping[str, float], changing: Mapping[str, Tensor]) -> None:
        """Learn what an adaptation will ask for.

        Args:
            model: that adapts.
            weights: of the terms; those of the method itself are not among them.
            changing: the parameters of its scope.

        Raises:
            ValueError: a term that there is not.
        """
        refuse_unknown("adaptation: objective", weights, self.names)
        self.weights = dict(weights)

    def pictures(self, batch: Any) -> Float[Tensor, "b ..."]:  # noqa: ANN401
        """The pictures of a batch."""
        if isinstance(batch, Mapping):
            return batch[self.picture_key]
        return batch[0] if isinstance(batch, tuple) else batch

    def with_pictures(self, batch: Any, pictures: Tensor) -> Any:  # noqa: ANN401
        """The batch with other pictures."""
        if isinstance(batch, Mapping):
            return {**batch, self.picture_key: pictures}
        return (pictures, *batch[1:]) if isinstance(batch, tuple) else pictures

    def call(self, model: nn.Module, batch: Any) -> Outputs:  # noqa: ANN401
        """Run the model: a mapping holds its named arguments, a tuple those in order."""
        if isinstance(batch, Mapping):
            return model(**batch)
        return model(*batch) if isinstance(batch, tuple) else model(batch)

    def prepare(
        self,
        model: nn.Module,
        batch: Any,  # noqa: ANN401
        geom: Tensor | None,
        *,
        geometry_source: str,
        updates: int,
        draws: Draws,
    ) -> Prepared:
        """Draw and compute what is needed once a batch; without gradients.

        Args:
            model: that adapts.
            batch: pictures.
            geom: their geometry, if any.
            geometry_source: of ``geom``.
            updates: how many there will be.
            draws: random numbers.
        """
        pictures = self.pictures(batch)
        return Prepared(
            batch=batch,
            geom=geom,
            geometry_source="none" if geom is None else geometry_source,
            usable=torch.ones(len(pictures), device=pictures.device),
        )

    def run(self, model: nn.Module, prepared: Prepared, update: int) -> tuple[Outputs, Terms]:
        """Outputs and terms, with gradients if they are on.

        Args:
            model: that adapts.
            prepared: the batch.
            update: which of its updates this is for.
        """
        outputs = self.predict(model, prepared)
        return outputs, self.output_terms(outputs, prepared)

    def predict(self, model: nn.Module, prepared: Prepared) -> Outputs:
        """What the model says of the batch."""
        return self.call(model, prepared.batch)

    def output_terms(self, outputs: Outputs, prepared: Prepared) -> Terms:
        """The terms that the outputs alone give."""
        terms: Terms = {}
        if self.weights.get("entropy"):
            terms["entropy"] = self.reader.entropy(outputs)
        for name, term in self.extra.items():
            if self.weights.get(name):
                terms[name] = term(outputs, prepared.batch)
        return terms

    def total(self, terms: Terms) -> Float[Tensor, "b"]:
        """The weighted sum of the terms, one value a picture."""
        return torch.stack([self.weights[name] * value for name, value in terms.items()]).sum(0)
