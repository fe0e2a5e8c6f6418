"""The numbers of a step, left on the device: before an update, and after it beside the source's."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from sightline.rtdetr_pose.ttt.batch_norm import BatchNormMode
from sightline.rtdetr_pose.ttt.learner import Learner, Update, total_norm
from sightline.rtdetr_pose.ttt.methods import Assessment
from sightline.rtdetr_pose.ttt.objectives import Prepared
from sightline.rtdetr_pose.ttt.readers import Outputs
from sightline.rtdetr_pose.ttt.spec import AdaptSpec

Numbers = dict[str, Tensor]


class Measured(NamedTuple):
    """Numbers after an update, and the adapted model's and the source's predictions, if made."""

    numbers: Numbers
    adapted: Outputs
    source: Outputs


class Measures:
    """Measures a model that adapts.

    Args:
        learner: what adapts.
        spec: how.
        norms: its batch norms; the source predicts with its own statistics.
        anchor: a batch on which predictions are compared with the source's, or None for the batch at hand.
    """

    def __init__(self, learner: Learner, spec: AdaptSpec, norms: BatchNormMode, anchor: Any) -> None:  # noqa: ANN401
        self._learner, self._norms = learner, norms
        self._guards, self._repredict = spec.guards, spec.repredict
        self._anchor, self._anchor_source = anchor, None
        if anchor is not None:
            with torch.no_grad(), norms.paused():
                self._anchor_source = learner.objective.call(learner.model, anchor)

    @torch.no_grad()
    def before(self, prepared: Prepared, first: Assessment) -> Numbers:
        """What the guards before an update ask for.

        Args:
            prepared: the batch.
            first: its assessment.
        """
        reader, outputs = self._learner.reader, first.outputs
        pictures = self._learner.objective.pictures(prepared.batch)
        finite = pictures.isfinite().all() & first.loss.isfinite()
        numbers = {"loss_before": first.loss, "selected": first.selected}
        if outputs is not None:
            finite = finite & reader.is_finite(outputs)
            numbers |= self._reading("before", outputs)
            numbers["confidence"] = reader.confidence(outputs).mean()
        return {**numbers, "finite": finite.float()}

    @torch.no_grad()
    def after(self, prepared: Prepared, first: Assessment, update: Update, *, pristine: bool) -> Measured:
        """What the guards after it ask for.

        Args:
            prepared: the batch.
            first: its assessment before the first update.
            update: the last one.
            pristine: whether the model was the source before.
        """
        learner, guards = self._learner, self._guards
        moved = torch._foreach_sub([each.detach() for each in learner.parameters], learner.latest)
        numbers = {"grad_norm": update.grad_norm, "update_norm": total_norm(moved)}
        numbers |= {"farthest": update.region.farthest, "projected": update.region.projected}
        if guards.max_rise is None and not guards.needs_source and not self._repredict:
            return Measured(numbers, None, None)
        adapted, terms = learner.objective.run(learner.model, prepared, 0)
        numbers["loss_after"] = first.score(adapted, terms)
        if adapted is None:
            adapted = learner.objective.predict(learner.model, prepared)
        numbers |= self._reading("after", adapted)
        if not guards.needs_source:
            return Measured(numbers, adapted, None)
        source = self._source(prepared, first, pristine=pristine)
        numbers |= self._reading("source", source)
        numbers["histogram_after"] = learner.reader.histogram(adapted)
        numbers["histogram_source"] = learner.reader.histogram(source)
        pair = (source, adapted)
        if self._anchor is not None:
            pair = (self._anchor_source, learner.objective.call(learner.model, self._anchor))
        numbers["kl"] = learner.reader.kl(*pair)
        numbers |= {f"drift_{name}": each for name, each in learner.reader.drift(*pair).items()}
        return Measured(numbers, adapted, source)

    def _reading(self, when: str, outputs: Outputs) -> Numbers:
        reader = self._learner.reader
        share = reader.entropy(outputs).mean() / reader.max_entropy(outputs)
        return {f"entropy_{when}": share, f"count_{when}": reader.counts(outputs).sum()}

    def _source(self, prepared: Prepared, first: Assessment, *, pristine: bool) -> Outputs:
        learner = self._learner
        if pristine and first.outputs is not None and not self._norms.alpha:
            return first.outputs
        with learner.swapped(learner.source), self._norms.paused():
            # What is cached was computed with the batch's statistics, if any is.
            if self._norms.alpha:
                return learner.objective.call(learner.model, prepared.batch)
            return learner.objective.predict(learner.model, prepared)
