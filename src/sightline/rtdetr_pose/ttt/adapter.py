"""An adapter around a model: it predicts, learns from what it sees, and takes back what does not hold."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from dataclasses import replace
from types import TracebackType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from sightline.rtdetr_pose.ttt.batch_norm import BatchNormMode
from sightline.rtdetr_pose.ttt.cotta import CottaMethod
from sightline.rtdetr_pose.ttt.guards import CollapseMonitor, Reading
from sightline.rtdetr_pose.ttt.learner import Learner
from sightline.rtdetr_pose.ttt.measures import Measures
from sightline.rtdetr_pose.ttt.methods import AdaptMethod, Assessment, EataMethod, SarMethod
from sightline.rtdetr_pose.ttt.objectives import Objective, Prepared
from sightline.rtdetr_pose.ttt.readers import ClassifierReader, OutputReader, Outputs
from sightline.rtdetr_pose.ttt.report import StepReport, detached, fetch
from sightline.rtdetr_pose.ttt.resets import Episodic, Every, TriggerWatch
from sightline.rtdetr_pose.ttt.selection import Flags, select_parameters
from sightline.rtdetr_pose.ttt.snapshot import copy_all
from sightline.rtdetr_pose.ttt.spec import AdaptSpec, Cotta, Eata, Sar, bn_alpha
from sightline.rtdetr_pose.ttt.verdicts import refusal, regret


class _Outcome(NamedTuple):
    outputs: Outputs
    skipped: str | None = None
    rolled_back: str | None = None
    reset: str | None = None
    figures: dict[str, float] = {}  # noqa: RUF012  # never changed
    geometry_source: str = "none"


class Adapter:
    """Lets a model adapt itself, and gives it back as it was.

    As long as the adapter is open, the model is in evaluation mode and only the scope's parameters take
    gradients. :meth:`close`, or the end of a ``with`` block, puts back modes, flags and weights.

    A step reads its numbers back from the device at once, when it is over; whether it counts is decided then.

    Args:
        model: any; it is changed in place.
        spec: how it adapts; the default is Tent on normalisation layers, each batch for itself.
        reader: of its outputs; of a plain classifier unless given, or the objective's.
        objective: how it is run and what is lowered; the plain one of the reader unless given.
        source_batches: of pictures like those of its training, for EATA.
        anchor: a batch of such pictures on which predictions must stay near the source's, instead of on the
            batch that is learnt from.

    Raises:
        ValueError: a scope that selects nothing, a term that the objective does not have, EATA without
            source batches.

    Example:
        >>> model = nn.Sequential(nn.Linear(4, 3), nn.LayerNorm(3))
        >>> with Adapter(model, AdaptSpec(lr=1e-3, reset="stream")) as adapter:
        ...     logits, report = adapter.step(torch.rand(2, 4))
        >>> logits.shape, report.updated, report.parameters
        (torch.Size([2, 3]), True, 6)
    """

    def __init__(
        self,
        model: nn.Module,
        spec: AdaptSpec | None = None,
        *,
        reader: OutputReader | None = None,
        objective: Objective | None = None,
        source_batches: Iterable[Any] | None = None,
        anchor: Any = None,  # noqa: ANN401
    ) -> None:
        self.model, self.spec = model, spec or AdaptSpec()
        self.objective = objective or Objective(reader or ClassifierReader())
        self.reader = reader or self.objective.reader
        parameters = select_parameters(model, self.spec.scope)
        self.num_parameters = sum(each.numel() for each in parameters.values())
        weights = self.spec.weights
        own = weights.pop("consistency", 1.0) if isinstance(self.spec.options, Cotta) else 0.0
        self.objective.bind(model, weights, parameters)
        self._flags = Flags(model)
        model.eval()
        model.requires_grad_(False)
        for each in parameters.values():
            each.requires_grad_(True)
        self._norms = BatchNormMode(model, bn_alpha(self.spec.bn))
        try:
            self._learner = Learner(model, parameters, self.spec, self.objective)
            self._method = self._make_method(own, source_batches)
            self._measures = Measures(self._learner, self.spec, self._norms, anchor)
        except BaseException:
            self._norms.remove()
            self._flags.restore()
            raise
        early = self.spec.early_exit
        self._early = self._learner.parameters[0].device.type == "cpu" if early is None else early
        self._monitor = CollapseMonitor(self.spec.guards)
        self._trigger = TriggerWatch(self.spec.policy)
        self._frozen = self._closed = False
        self._index = self._updates = 0
        self._spent = 0.0
        self._restart()

    def _make_method(self, weight: float, source_batches: Iterable[Any] | None) -> AdaptMethod:
        options, learner = self.spec.options, self._learner
        if isinstance(options, Eata):
            return EataMethod(learner, options, source_batches)
        if isinstance(options, Sar):
            return SarMethod(learner, options)
        if isinstance(options, Cotta):
            return CottaMethod(learner, options, weight)
        return AdaptMethod(learner)

    # ---- what a caller does ----

    def step(
        self,
        batch: Any,  # noqa: ANN401
        geom: Tensor | None = None,
        *,
        geometry_source: str = "sensor",
    ) -> tuple[Outputs, StepReport]:
        """Predict, and learn from what is seen.

        Args:
            batch: what the model takes: a tensor, a tuple of its arguments, or a mapping of their names.
            geom: geometry of the pictures, for objectives that use it.
            geometry_source: where ``geom`` comes from: ``sensor`` or ``prediction``.

        Returns:
            Predictions, detached, and a report. Its figures: ``loss_before``, ``loss_after``, ``grad_norm``,
            ``update_norm``, ``farthest`` (largest share by which a layer left the source), ``projected``
            (layers that were put back), ``selected`` (pictures), ``entropy_before``, ``entropy_after``,
            ``entropy_source`` (shares of the largest), ``count_...``, ``confidence``, ``kl``, ``drift_...``.

        Raises:
            RuntimeError: the adapter was closed.
        """
        self._require_open()
        began = time.perf_counter()
        self.model.eval()
        due = self._reset_if_due()
        blocked = "frozen" if self._frozen else self._spent_budget()
        if blocked:
            outcome = _Outcome(self.predict(batch), skipped=blocked)
        else:
            outcome = self._adapt(batch, geom, geometry_source)
        seconds = time.perf_counter() - began
        updated = outcome.skipped is outcome.rolled_back is outcome.reset is None
        if not blocked:
            self._since_reset += 1
            self._spent += seconds
        report = StepReport(
            index=self._index,
            method=self.spec.options.kind,
            updated=updated,
            skipped=outcome.skipped,
            rolled_back=outcome.rolled_back,
            reset=outcome.reset or due,
            geometry_source=outcome.geometry_source,
            parameters=self.num_parameters,
            figures=outcome.figures,
            seconds=seconds,
        )
        self._index += 1
        return outcome.outputs, report

    @torch.no_grad()
    def predict(self, batch: Any) -> Outputs:  # noqa: ANN401
        """Predict with what was learnt so far."""
        self._require_open()
        self.model.eval()
        with self._learner.swapped(self._method.predicts_with()):
            return self.objective.call(self.model, batch)

    def reset(self) -> None:
        """Be as new, bit for bit, with the optimiser, teacher, averages, random numbers and budgets."""
        self._require_open()
        self._to_source()
        self._index = self._updates = 0
        self._spent = 0.0

    @contextmanager
    def frozen(self) -> Generator[None]:
        """Let steps only predict during the block."""
        before, self._frozen = self._frozen, True
        try:
            yield
        finally:
            self._frozen = before

    def close(self, *, keep: bool = False) -> None:
        """Give the model back as it was found.

        Args:
            keep: but leave the adapted weights in it (with CoTTA the teacher's).
        """
        if self._closed:
            return
        if keep:
            predicting = self._method.predicts_with()
            if predicting is not None:
                copy_all(self._learner.parameters, predicting)
        else:
            self._learner.reset()
        self._norms.remove()
        self._flags.restore()
        self._closed = True

    def __enter__(self) -> Adapter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def state_dict(self) -> dict[str, Any]:
        """All that is needed to go on: tensors, and plain values under ``spec`` and ``host``."""
        host = {
            "index": self._index,
            "updates": self._updates,
            "spent": self._spent,
            "since_reset": self._since_reset,
            "pristine": self._pristine,
            "monitor": self._monitor.state(),
            "trigger": self._trigger.state(),
            "method": self._method.state(),
        }
        return {"spec": self.spec.to_dict(), "host": host, **self._learner.state()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state, of an adapter of the same source model.

        Raises:
            ValueError: another specification or another source model.
        """
        if state["spec"] != self.spec.to_dict():
            raise ValueError("adapter: the state was saved with another specification")
        self._learner.load(state)
        host = state["host"]
        self._index, self._updates, self._spent = host["index"], host["updates"], host["spent"]
        self._since_reset, self._pristine = host["since_reset"], host["pristine"]
        self._monitor.load(host["monitor"])
        self._trigger.load(host["trigger"])
        self._method.load(host["method"])

    # ---- a step ----

    def _adapt(self, batch: Any, geom: Tensor | None, geometry_source: str) -> _Outcome:  # noqa: ANN401
        learner, objective, method = self._learner, self.objective, self._method
        with torch.no_grad():
            prepared = objective.prepare(
                self.model,
                batch,
                geom,
                geometry_source=geometry_source,
                updates=self.spec.steps,
                draws=learner.draws,
            )
        learner.checkpoint()
        with torch.enable_grad():
            first = method.assess(prepared, 0)
            numbers = self._measures.before(prepared, first)
            if self._early:
                known = fetch(numbers)
                reason = refusal(known, self.spec.guards)
                if reason:
                    return self._take_back(prepared, first, known, skipped=reason)
            latest, loss_before = first, first.loss.detach()
            for i in range(self.spec.steps):
                latest = method.assess(prepared, i) if i else first
                update = learner.apply(method.gradients(latest, prepared, i))
                method.after_update()
        first = replace(first, loss=loss_before, outputs=detached(first.outputs))
        with torch.no_grad():
            measured = self._measures.after(prepared, first, update, pristine=self._pristine)
        numbers |= {**measured.numbers, **latest.figures, "selected": first.selected}
        latest = replace(latest, loss=loss_before)
        return self._judge(prepared, first, latest, fetch(numbers), measured.adapted, measured.source)

    def _judge(
        self,
        prepared: Prepared,
        first: Assessment,
        latest: Assessment,
        known: dict[str, Any],
        after: Outputs,
        source: Outputs,
    ) -> _Outcome:
        histograms = known.pop("histogram_after", None), known.pop("histogram_source", None)
        reason = refusal(known, self.spec.guards)
        if reason:
            return self._take_back(prepared, first, known, skipped=reason)
        reason = regret(known, self.spec.guards)
        if reason:
            return self._take_back(prepared, first, known, rolled_back=reason)
        self._updates += 1
        self._pristine = False
        reset = self._watch(known, *histograms)
        if reset:
            self._to_source()
            with torch.no_grad():
                outputs = self.objective.predict(self.model, prepared) if source is None else source
        else:
            outputs = after if self.spec.repredict else first.outputs
            outputs = outputs if latest.prediction is None else latest.prediction
        return _Outcome(
            detached(outputs), reset=reset, figures=known, geometry_source=prepared.geometry_source
        )

    def _watch(self, known: dict[str, Any], adapted: Any, source: Any) -> str | None:  # noqa: ANN401
        collapse = None
        if source is not None and self.spec.guards.watches_collapse:
            collapse = self._monitor.observe(
                Reading(known["entropy_after"], known["count_after"], adapted),
                Reading(known["entropy_source"], known["count_source"], source),
            )
        entropy = known.get("entropy_after", known.get("entropy_before"))
        trigger = self._trigger.observe(rolled_back=False, entropy=entropy, kl=known.get("kl"))
        return collapse or self._method.observe(known) or trigger

    def _take_back(
        self,
        prepared: Prepared,
        first: Assessment,
        known: dict[str, Any],
        *,
        skipped: str | None = None,
        rolled_back: str | None = None,
    ) -> _Outcome:
        self._learner.roll_back()
        outputs = first.outputs if first.prediction is None else first.prediction
        reset = self._trigger.observe(rolled_back=True) if rolled_back else None
        if reset:
            self._to_source()
        with torch.no_grad():
            outputs = self.objective.predict(self.model, prepared) if reset or outputs is None else outputs
        return _Outcome(detached(outputs), skipped, rolled_back, reset, known, prepared.geometry_source)

    # ---- resets and budgets ----

    def _reset_if_due(self) -> str | None:
        policy = self.spec.policy
        if isinstance(policy, Episodic) and not self._frozen:
            self._to_source()
        if isinstance(policy, Every) and self._since_reset >= policy.n:
            self._to_source()
            return f"every {policy.n} steps"
        return None

    def _to_source(self) -> None:
        self._learner.reset()
        self._restart()

    def _restart(self) -> None:
        self._monitor.clear()
        self._trigger.clear()
        self._method.clear()
        self._since_reset = 0
        self._pristine = True

    def _spent_budget(self) -> str | None:
        guards = self.spec.guards
        if guards.max_steps is not None and self._updates >= guards.max_steps:
            return f"budget: {guards.max_steps} updates"
        if guards.max_seconds is not None and self._spent >= guards.max_seconds:
            return f"budget: {guards.max_seconds:g} s"
        return None

    def _require_open(self) -> None:
        if self._closed:
            raise RuntimeError("the adapter was closed; make a new one")
