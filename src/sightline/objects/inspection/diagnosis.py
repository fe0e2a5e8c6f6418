"""Which mistake makes the inputs disagree: the simplest repair that makes them agree is the fault's name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from sightline.objects.checks import Fault
from sightline.objects.inspection.consistency import Agreement, Views
from sightline.objects.inspection.findings import Findings
from sightline.objects.inspection.input_checks import find_doubts, undo_certain
from sightline.objects.inspection.inputs import Inputs
from sightline.objects.inspection.repairs import Repair, find_repairs, scale_focal
from sightline.objects.inspection.without_pose import compare_without_drawing

# How well each observation must agree to be let pass, and to count as repaired; what lies between is a
# pose or a mask that is not exact.
PASSES = {"mask": 0.6, "box": 0.5, "depth": 0.4}
RESTORED = {"mask": 0.75, "box": 0.65, "depth": 0.6}
_CLOSE = 0.96  # closeness that needs no second look; below, what is let pass by itself is a mistake ...
_BETTER = (0.93, 3.0)  # ... where a repair comes as close as this and misses by so many times less
_ODD = 0.4  # by how much an observation of another picture agrees less than every other
_PAIR = 0.85  # closeness that two repairs at once must reach
_COST = 0.03  # closeness that a less likely mistake has to make up for
_EQUAL = 0.02  # closeness by which two explanations are told apart
_FOCAL_FACTORS = np.geomspace(0.2, 5.0, 21)
_FOCAL_STEPS = 10
_LEAST_FOCAL_CHANGE = 0.08
_STARTS = 4  # repairs that a second repair is tried on top of


def diagnose_inputs(inputs: Inputs) -> Findings:
    """Find what is inconsistent in what is given of one object in one picture.

    First each input by itself; then, with mesh, pose and camera, the object is drawn and laid over mask, box
    and depth. Where they disagree, the usual mistakes are undone one by one.

    Args:
        inputs: any subset.

    Returns:
        The faults, each with its evidence.

    Example:
        >>> print(*diagnose_inputs(Inputs(diameter=150.0)).faults)
        mesh: a diameter of 150 m; 1000 times smaller it would be 0.15 m: millimetres read as metres?
    """
    certain, repaired = undo_certain(inputs)
    if repaired.can_render and repaired.observed:
        found = _Search(repaired).run()
    else:
        found = compare_without_drawing(repaired, find_doubts(repaired))
    return replace(found, faults=(*certain, *found.faults))


def describe_agreement(agreement: Agreement) -> str:
    """The figures of an agreement with what they are about."""
    return f"drawn at its pose, against what was given: {agreement.describe()}"


@dataclass(frozen=True, eq=False)
class _Trial:
    """One hypothesis: repairs, what comes out, how it agrees, and what is still doubtful."""

    repairs: tuple[Repair, ...]
    inputs: Inputs
    agreement: Agreement
    num_doubts: int

    @property
    def rank(self) -> tuple[int, float]:
        """Smaller is likelier."""
        cost = sum(repair.cost for repair in self.repairs)
        return self.num_doubts, _COST * cost - self.agreement.closeness


class _Search:
    """The search for what explains the disagreement of drawn object and observations."""

    def __init__(self, inputs: Inputs) -> None:
        self.whole = inputs
        self.views = Views(inputs)
        self.inputs = inputs = self.views.reduce(inputs)
        self.doubts = _doubts(inputs)
        self.given = self._try((), inputs)

    def run(self) -> Findings:
        agreement = self.given.agreement
        comparisons = (describe_agreement(agreement),)
        passes = _reaches(agreement, self.inputs.observed, PASSES)
        best: Sequence[_Trial] = ()
        if not passes or agreement.closeness < _CLOSE:
            best = self._explanations(passes=passes)
        if best:
            return self._name(best, comparisons)
        if passes:
            return Findings(*self._sort(self.doubts), comparisons, self.whole)
        return self._without_explanation(comparisons)

    def _name(self, best: Sequence[_Trial], comparisons: tuple[str, ...]) -> Findings:
        first, *others = best
        comparisons = (*comparisons, f"repaired: {first.agreement.describe()}")
        before, after = self.given.agreement, first.agreement
        faults = []
        for repair in first.repairs:
            text = f"{repair.sentence} (as given {before.describe()}; undone {after.describe()})"
            for other in others:
                text += "; or " + " and ".join(f"{r.what}: {r.sentence}" for r in other.repairs)
            evidence = {f"given_{name}": value for name, value in before.numbers().items()}
            evidence |= {f"repaired_{name}": value for name, value in after.numbers().items()}
            faults.append(Fault(repair.what, text, repair.kind, evidence))
        rest, notes = self._sort(find_doubts(first.inputs))
        return Findings((*faults, *rest), notes, comparisons, _apply(first.repairs, self.whole))

    @staticmethod
    def _sort(doubts: Sequence[Fault]) -> tuple[tuple[Fault, ...], tuple[str, ...]]:
        """Faults and notes: agreement clears a camera of doubts, but not a unit that all inputs share."""
        faults = tuple(doubt for doubt in doubts if doubt.what != "camera")
        cleared = (doubt for doubt in doubts if doubt.what == "camera")
        return faults, tuple(f"{doubt}; the drawn object agrees with it all the same" for doubt in cleared)

    def _without_explanation(self, comparisons: tuple[str, ...]) -> Findings:
        odd = [name for name in self.inputs.observed if self._is_odd(name)]
        if len(odd) == 1:
            return self._odd_one_out(odd[0], comparisons)
        undone = self._undo_doubts()
        if undone is not None:
            deeper = _Search(undone).run()
            units = [doubt for doubt in self.doubts if doubt.kind.endswith("_unit")]
            return replace(
                deeper,
                faults=(*units, *deeper.faults),
                comparisons=(*comparisons, *deeper.comparisons),
            )
        agreement, names = self.given.agreement, self.inputs.observed
        failing = [name for name in names if agreement.fits.get(name, 0.0) < PASSES[name]] or list(names)
        text = (
            f"mesh, pose and camera do not agree with {' and '.join(failing)}: {agreement.describe()}; "
            "no usual mistake explains it"
        )
        fault = Fault("pose", text, "disagreement", agreement.numbers())
        return Findings((*self.doubts, fault), (), comparisons, self.whole)

    def _is_odd(self, name: str) -> bool:
        """Whether everything agrees without one observation."""
        rest = self.inputs.without(name)
        if not rest.observed:
            return False
        others, own = self.views.compare(rest), self.given.agreement.fits.get(name, 0.0)
        return _reaches(others, rest.observed, PASSES) and own < min(others.fits.values()) - _ODD

    def _odd_one_out(self, name: str, comparisons: tuple[str, ...]) -> Findings:
        rest = self.inputs.without(name)
        before, without = self.given.agreement, self.views.compare(rest)
        text = (
            f"it agrees with nothing else: it is of another picture, or of another object "
            f"({before.describe()}; without it {without.describe()})"
        )
        fault = Fault(name, text, f"{name}_other", before.numbers())
        others, notes = self._sort([doubt for doubt in self.doubts if doubt.what != name])
        return Findings((fault, *others), notes, comparisons, self.whole.without(name))

    def _explanations(self, *, passes: bool) -> list[_Trial]:
        """The best explanation and its equals; none where no repair restores agreement."""
        if passes:
            least, times = _BETTER
            needed = max(least, 1 - (1 - self.given.agreement.closeness) / times)
            restored = [trial for trial in self._singles if self._is_restored(trial)]
            return _best([trial for trial in restored if trial.agreement.closeness >= needed])
        trials = [*self._singles, *self._refocused]
        restored = [trial for trial in trials if self._is_restored(trial)]
        odd = sum(self._is_odd(name) for name in self.inputs.observed) == 1
        if not restored and not odd:
            pairs = [trial for trial in self._pairs() if trial.agreement.closeness >= _PAIR]
            restored = [trial for trial in pairs if self._is_restored(trial)]
        return _best(restored)

    @cached_property
    def _repairs(self) -> list[Repair]:
        return find_repairs(self.inputs)

    @cached_property
    def _singles(self) -> list[_Trial]:
        return [self._try((repair,), repair.apply(self.inputs)) for repair in self._repairs]

    def _try(self, repairs: tuple[Repair, ...], inputs: Inputs) -> _Trial:
        return _Trial(repairs, inputs, self.views.compare(inputs), len(_doubts(inputs)))

    def _is_restored(self, trial: _Trial) -> bool:
        compared = set(self.given.agreement.fits) <= set(trial.agreement.fits)
        return compared and _reaches(trial.agreement, self.inputs.observed, RESTORED)

    @cached_property
    def _refocused(self) -> list[_Trial]:
        """The focal length with which mask, box and depth agree best, where it is another one."""
        scores = [self._closeness_at(float(factor)) for factor in _FOCAL_FACTORS]
        best = int(np.argmax(scores))
        low, high = (np.log(_FOCAL_FACTORS[i]) for i in (max(best - 1, 0), min(best + 1, len(scores) - 1)))
        for _ in range(_FOCAL_STEPS):
            third = (high - low) / 3
            first, second = low + third, high - third
            if self._closeness_at(float(np.exp(first))) < self._closeness_at(float(np.exp(second))):
                low = first
            else:
                high = second
        factor = float(np.exp((low + high) / 2))
        if abs(np.log(factor)) < _LEAST_FOCAL_CHANGE:
            return []
        repair = scale_focal(factor)
        return [self._try((repair,), repair.apply(self.inputs))]

    def _closeness_at(self, factor: float) -> float:
        return self.views.compare(scale_focal(factor).apply(self.inputs)).closeness

    def _pairs(self) -> list[_Trial]:
        """A mistake of mesh, pose or camera together with one of mask, box or depth."""
        drawn = [t for t in (*self._singles, *self._refocused) if t.repairs[0].what not in RESTORED]
        drawn = [t for t in drawn if any(t.agreement.fits.get(n, 0.0) >= RESTORED[n] for n in RESTORED)]
        starts = sorted(drawn, key=lambda trial: trial.rank)[:_STARTS]
        seen = [repair for repair in self._repairs if repair.what in RESTORED]
        return [
            self._try((*start.repairs, repair), repair.apply(start.inputs))
            for start in starts
            for repair in seen
        ]

    def _undo_doubts(self) -> Inputs | None:
        """The inputs with each impossible length a thousand times smaller or larger, where that clears it."""
        inputs, doubts = self.inputs, self.doubts
        undone = []
        for repair in self._repairs:
            if repair.kind.endswith("_unit") and repair.kind in {doubt.kind for doubt in doubts}:
                changed = repair.apply(inputs)
                left = _doubts(changed)
                if len(left) < len(doubts):
                    inputs, doubts = changed, left
                    undone.append(repair)
        return _apply(undone, self.whole) if undone else None


def _apply(repairs: Sequence[Repair], inputs: Inputs) -> Inputs:
    for repair in repairs:
        inputs = repair.apply(inputs)
    return inputs


def _doubts(inputs: Inputs) -> list[Fault]:
    """The doubts of a hypothesis, from a part of its depths: there are many hypotheses."""
    coarse = inputs.depth if inputs.depth is None else inputs.depth[::4, ::4]
    return find_doubts(replace(inputs, depth=coarse))


def _reaches(agreement: Agreement, observed: Sequence[str], needed: dict[str, float]) -> bool:
    """Whether all that can be compared agrees, and anything can."""
    fits = agreement.fits
    return bool(fits) and all(fits[name] >= needed[name] for name in observed if name in fits)


def _best(trials: list[_Trial]) -> list[_Trial]:
    """The likeliest hypothesis, and one of each other kind that is as likely."""
    if not trials:
        return []
    ordered = sorted(trials, key=lambda trial: trial.rank)
    kept = {tuple(repair.kind for repair in ordered[0].repairs): ordered[0]}
    doubts, score = ordered[0].rank
    for trial in ordered[1:]:
        if trial.num_doubts == doubts and trial.rank[1] - score < _EQUAL:
            kept.setdefault(tuple(repair.kind for repair in trial.repairs), trial)
    return list(kept.values())
