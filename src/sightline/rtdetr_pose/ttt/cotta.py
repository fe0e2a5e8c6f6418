"""Continual adaptation by an averaged teacher that predicts (CoTTA, Wang et al., CVPR 2022)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from sightline.rtdetr_pose.ttt.learner import Learner
from sightline.rtdetr_pose.ttt.methods import AdaptMethod, Assessment
from sightline.rtdetr_pose.ttt.objectives import Prepared, Terms
from sightline.rtdetr_pose.ttt.readers import Outputs
from sightline.rtdetr_pose.ttt.report import fetch
from sightline.rtdetr_pose.ttt.spec import Cotta
from sightline.rtdetr_pose.ttt.views import augment


class CottaMethod(AdaptMethod):
    """The student learns the teacher's classes; the teacher follows it slowly; some weights go back.

    The teacher looks at the pictures as they are. Only where the source model is unsure of them it looks at
    augmented views too, and what it says of all is averaged; that choice is read back from the device, the
    one number beside the report's, because so many passes hang on it.

    Args:
        learner: what learns.
        options: of the method.
        weight: of the consistency among the terms.
    """

    def __init__(self, learner: Learner, options: Cotta, weight: float) -> None:
        super().__init__(learner)
        self.options, self._weight = options, weight

    def assess(self, prepared: Prepared, update: int) -> Assessment:
        """Run teacher and student."""
        learner, reader = self.learner, self.learner.reader
        with torch.no_grad():
            target, figures = self._teach(prepared)
        outputs, terms = learner.objective.run(learner.model, prepared, update)
        usable = prepared.usable

        def score(outputs: Outputs, terms: Terms) -> Tensor:
            total = self._weight * reader.consistency(outputs, target)
            if terms:
                total = total + learner.objective.total(terms)
            return torch.where(usable > 0, total, 0.0).sum() / usable.sum().clamp_min(1)

        return Assessment(
            loss=score(outputs, terms),
            score=score,
            outputs=outputs,
            selected=usable.sum(),
            figures=figures,
            prediction=target,
        )

    def _teach(self, prepared: Prepared) -> tuple[Outputs, dict[str, Tensor]]:
        learner, reader, objective = self.learner, self.learner.reader, self.learner.objective
        with learner.swapped(learner.source):
            sure = reader.confidence(objective.predict(learner.model, prepared)).mean()
        number = 0
        if self.options.views and fetch({"sure": sure})["sure"] < self.options.confidence:
            number = self.options.views
        with learner.swapped(self._teacher()):
            views, mirrored = [objective.predict(learner.model, prepared)], [False]
            pictures = objective.pictures(prepared.batch)
            for i in range(number):
                view, flipped = augment(pictures, i, learner.draws.device)
                views.append(objective.call(learner.model, self._batch_of(prepared, view)))
                mirrored.append(flipped)
        target = reader.average(views, mirrored) if number else views[0]
        return target, {"anchor_confidence": sure}

    def _batch_of(self, prepared: Prepared, pictures: Float[Tensor, "..."]) -> Any:  # noqa: ANN401
        return self.learner.objective.with_pictures(prepared.batch, pictures)

    def _teacher(self) -> list[Tensor]:
        memory, learner = self.learner.memory, self.learner
        if not memory:
            memory.update(
                {
                    f"teacher {name}": each.clone()
                    for name, each in zip(learner.names, learner.source, strict=True)
                }
            )
        return [memory[f"teacher {name}"] for name in learner.names]

    @torch.no_grad()
    def after_update(self) -> None:
        """Let the teacher follow, then give some weights back to the source."""
        learner = self.learner
        follow(self._teacher(), learner.parameters, self.options.momentum)
        for parameter, source in zip(learner.parameters, learner.source, strict=True):
            draws = torch.rand(parameter.shape, generator=learner.draws.device, device=parameter.device)
            parameter.copy_(torch.where(draws < self.options.restore, source, parameter))

    def predicts_with(self) -> Sequence[Tensor] | None:
        """The teacher."""
        return self._teacher()


@torch.no_grad()
def follow(teacher: Sequence[Tensor], student: Sequence[Tensor], momentum: float) -> None:
    """``teacher <- momentum teacher + (1 - momentum) student``, in place.

    Example:
        >>> teacher = [torch.zeros(1, dtype=torch.float64)]
        >>> for _ in range(100):
        ...     follow(teacher, [torch.ones(1, dtype=torch.float64)], 0.999)
        >>> round(teacher[0].item(), 7)
        0.0952079
    """
    torch._foreach_lerp_(list(teacher), [each.detach() for each in student], weight=1 - momentum)
