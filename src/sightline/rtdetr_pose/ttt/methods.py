"""The published methods, each as what it learns from and where its gradient comes from."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from sightline.rtdetr_pose.ttt.learner import Learner, total_norm
from sightline.rtdetr_pose.ttt.objectives import Prepared, Terms
from sightline.rtdetr_pose.ttt.readers import Outputs
from sightline.rtdetr_pose.ttt.spec import Eata, Sar


@dataclass(kw_only=True)
class Assessment:
    """A batch before an update.

    Args:
        loss: with its graph.
        score: the objective of outputs and terms, with the samples and targets of this assessment.
        outputs: before the update; None where the objective makes none.
        selected: how many pictures are learnt from.
        figures: further numbers for the report.
        prediction: what to return in place of the adapted model's predictions.
    """

    loss: Float[Tensor, ""]
    score: Callable[[Outputs, Terms], Float[Tensor, ""]]
    outputs: Outputs
    selected: Float[Tensor, ""]
    figures: dict[str, Tensor] = field(default_factory=dict)
    prediction: Outputs = None


class AdaptMethod:
    """Lowers the objective of all usable pictures, as Tent and masked reconstruction do; others override.

    Args:
        learner: what learns.
    """

    def __init__(self, learner: Learner) -> None:
        self.learner = learner

    def assess(self, prepared: Prepared, update: int) -> Assessment:
        """Run the batch and say what its loss is."""
        outputs, terms = self.learner.objective.run(self.learner.model, prepared, update)
        weights, selected, figures = self.weigh(outputs, terms, prepared)

        def score(outputs: Outputs, terms: Terms) -> Tensor:
            total = self.learner.objective.total(terms)
            # A picture that is not learnt from takes no part, also where its loss is not finite.
            return torch.where(weights != 0, weights * total, 0.0).sum() + self.penalty()

        return Assessment(
            loss=score(outputs, terms), score=score, outputs=outputs, selected=selected, figures=figures
        )

    def weigh(
        self, outputs: Outputs, terms: Terms, prepared: Prepared
    ) -> tuple[Float[Tensor, "b"], Float[Tensor, ""], dict[str, Tensor]]:
        """The share of each picture in the loss, how many have one, and figures."""
        usable = prepared.usable
        return usable / usable.sum().clamp_min(1), usable.sum(), {}

    def penalty(self) -> Tensor | float:
        """A further loss, of the parameters."""
        return 0.0

    def gradients(self, assessment: Assessment, prepared: Prepared, update: int) -> Sequence[Tensor]:
        """Where the optimiser should go."""
        return self.learner.gradients(assessment.loss)

    def after_update(self) -> None:
        """Follow the new parameters."""

    def predicts_with(self) -> Sequence[Tensor] | None:
        """The parameters that predict; None for the model's own."""
        return None

    def observe(self, figures: Mapping[str, float]) -> str | None:
        """Take in the numbers of a step that was kept; a reason to reset, or None."""
        return None

    def clear(self) -> None:
        """Forget what was observed."""

    def state(self) -> dict[str, float]:
        """What was observed."""
        return {}

    def load(self, state: Mapping[str, float]) -> None:
        """Go on from a saved state."""


class EataMethod(AdaptMethod):
    """Learns from reliable and non-redundant pictures, near to what source pictures need.

    Args:
        learner: what learns.
        options: of the method.
        source_batches: for the Fisher information.

    Raises:
        ValueError: a penalty without source batches.
    """

    def __init__(self, learner: Learner, options: Eata, source_batches: Iterable[Any] | None) -> None:
        super().__init__(learner)
        self.options = options
        self._fisher: list[Tensor] | None = None
        if options.fisher_weight:
            if source_batches is None:
                raise ValueError(
                    "eata: its Fisher penalty needs source pictures: give source_batches, "
                    "or set fisher_weight to 0"
                )
            self._fisher = fisher_information(learner, source_batches)

    def weigh(
        self, outputs: Outputs, terms: Terms, prepared: Prepared
    ) -> tuple[Float[Tensor, "b"], Float[Tensor, ""], dict[str, Tensor]]:
        """``exp(E0 - H)`` for pictures with H < E0 that are unlike the average of those before."""
        reader, memory = self.learner.reader, self.learner.memory
        limit = self.options.reliable * reader.max_entropy(outputs)
        with torch.no_grad():
            entropy = reader.entropy(outputs)
            keep = (entropy < limit) & (prepared.usable > 0)
            p = reader.probabilities(outputs)
            if "mean_probabilities" in memory:
                mean = memory["mean_probabilities"]
                alike = F.cosine_similarity(p, mean[None], dim=1).abs()
                # An average of nothing is like nothing.
                keep = keep & ((alike < self.options.diversity) | (mean.sum() == 0))
            else:
                mean = torch.zeros_like(p[0])
            number = keep.sum()
            chosen = (p * keep[:, None]).sum(0) / number.clamp_min(1)
            blended = torch.where(mean.sum() == 0, chosen, mean.lerp(chosen, 1 - self.options.momentum))
            memory["mean_probabilities"] = torch.where(number > 0, blended, mean)
            weights = torch.where(keep, (limit - entropy).exp(), 0.0)
        return weights / number.clamp_min(1), number.to(weights), {"reliable": (entropy < limit).sum()}

    def penalty(self) -> Tensor | float:
        """``lambda sum F (theta - source)^2``."""
        if self._fisher is None:
            return 0.0
        terms = [
            (f * (parameter - source).square()).sum()
            for f, parameter, source in zip(
                self._fisher, self.learner.parameters, self.learner.source, strict=True
            )
        ]
        return self.options.fisher_weight * torch.stack(terms).sum()


def fisher_information(learner: Learner, batches: Iterable[Any]) -> list[Tensor]:
    """The mean squared gradient of the loss that takes the predictions for true.

    Args:
        learner: whose parameters.
        batches: of source pictures.

    Raises:
        ValueError: no batches.
    """
    total = [torch.zeros_like(each) for each in learner.parameters]
    number = 0
    for batch in batches:
        outputs = learner.objective.call(learner.model, batch)
        found = learner.gradients(learner.reader.pseudo_loss(outputs).mean())
        torch._foreach_addcmul_(total, found, found)
        number += 1
    if not number:
        raise ValueError("eata: source_batches: expected at least one batch, got none")
    return list(torch._foreach_div(total, number))


class SarMethod(AdaptMethod):
    """Learns where the loss is flat from reliable pictures, and asks for a reset when all become sure.

    Args:
        learner: what learns.
        options: of the method.
    """

    def __init__(self, learner: Learner, options: Sar) -> None:
        super().__init__(learner)
        self.options = options
        self._average: float | None = None

    def weigh(
        self, outputs: Outputs, terms: Terms, prepared: Prepared
    ) -> tuple[Float[Tensor, "b"], Float[Tensor, ""], dict[str, Tensor]]:
        """Equal shares of pictures with H < E0."""
        keep = self._reliable(outputs) & (prepared.usable > 0)
        return keep / keep.sum().clamp_min(1), keep.sum().float(), {}

    def gradients(self, assessment: Assessment, prepared: Prepared, update: int) -> Sequence[Tensor]:
        """At ``theta + rho g / |g|``, of the pictures that are still reliable there."""
        learner = self.learner
        ascent = learner.gradients(assessment.loss)
        with learner.swapped(perturbed(learner.parameters, ascent, self.options.rho)):
            outputs, terms = learner.objective.run(learner.model, prepared, update)
            first = self._reliable(assessment.outputs)
            keep = self._reliable(outputs) & first & (prepared.usable > 0)
            total = learner.objective.total(terms)
            loss = torch.where(keep, total, 0.0).sum() / keep.sum().clamp_min(1)
            found = learner.gradients(loss)
        assessment.selected = keep.sum().float()
        assessment.figures["sharp_loss"] = loss.detach()
        return found

    def observe(self, figures: Mapping[str, float]) -> str | None:
        """A moving average of the loss that falls below its floor."""
        loss, momentum = figures["sharp_loss"], self.options.momentum
        old = self._average
        self._average = loss if old is None else momentum * old + (1 - momentum) * loss
        return "recovery: the loss's average is low" if self._average < self.options.reset_entropy else None

    def clear(self) -> None:
        """Forget the average."""
        self._average = None

    def state(self) -> dict[str, float]:
        """The average."""
        return {} if self._average is None else {"average": self._average}

    def load(self, state: Mapping[str, float]) -> None:
        """Go on with a saved average."""
        self._average = state.get("average")

    def _reliable(self, outputs: Outputs) -> Tensor:
        reader = self.learner.reader
        return reader.entropy(outputs).detach() < self.options.reliable * reader.max_entropy(outputs)


@torch.no_grad()
def perturbed(parameters: Sequence[Tensor], gradients: Sequence[Tensor], rho: float) -> list[Tensor]:
    """``theta + rho g / |g|`` (Foret et al., ICLR 2021).

    Example:
        >>> perturbed([torch.tensor([1.0])], [torch.tensor([4.0])], 0.05)
        [tensor([1.0500])]
    """
    scale = rho / (total_norm(gradients) + 1e-12)
    return list(torch._foreach_add(list(parameters), torch._foreach_mul(list(gradients), scale)))
