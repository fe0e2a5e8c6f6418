"""When an adapted model goes back to what it was."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar

from sightline.training.choices import refuse_unknown, require_choice


@dataclass(frozen=True, kw_only=True)
class Episodic:
    """Before each batch: no batch knows of another, and the order does not matter."""

    kind: ClassVar[str] = "episodic"


@dataclass(frozen=True, kw_only=True)
class Every:
    """After each n steps.

    Args:
        n: steps.
    """

    kind: ClassVar[str] = "every"
    n: int = 100

    def __post_init__(self) -> None:
        if self.n < 1:
            raise ValueError(f"adaptation: reset every n: expected at least 1, got {self.n}")


@dataclass(frozen=True, kw_only=True)
class OnTrigger:
    """When one of these happens; None for never.

    Args:
        rollbacks: so many updates in a row were taken back.
        entropy_floor: the moving average of the entropy, as a share of the largest, falls below this.
        kl: the last update left the predictions further from the source's than this, nats.
        momentum: of the moving average.
    """

    kind: ClassVar[str] = "on_trigger"
    rollbacks: int | None = 3
    entropy_floor: float | None = 0.05
    kl: float | None = None
    momentum: float = 0.9


@dataclass(frozen=True, kw_only=True)
class Stream:
    """Never, but when a guard demands it."""

    kind: ClassVar[str] = "stream"


Reset = Episodic | Every | OnTrigger | Stream
_KINDS: dict[str, type[Any]] = {each.kind: each for each in (Episodic, Every, OnTrigger, Stream)}


def read_reset(value: str | Mapping[str, Any]) -> Reset:
    """Read a policy.

    Args:
        value: ``episodic``, ``stream``, ``on_trigger``, ``every:100``, or a mapping with ``kind``.

    Raises:
        ValueError: there is no such policy or option.

    Example:
        >>> read_reset("every:50"), read_reset({"kind": "on_trigger", "rollbacks": 5}).rollbacks
        (Every(n=50), 5)
    """
    if isinstance(value, str):
        kind, _, number = value.partition(":")
        if number and not (kind == "every" and number.isdigit()):
            raise ValueError(f"adaptation: reset: expected every:N for a number, got {value!r}")
        value = {"kind": kind, **({"n": int(number)} if number else {})}
    options = dict(value)
    kind = options.pop("kind", None)
    require_choice("adaptation: reset", kind, tuple(_KINDS))
    kind = str(kind)
    refuse_unknown(f"adaptation: reset: {kind}", options, [each.name for each in fields(_KINDS[kind])])
    return _KINDS[kind](**options)


class TriggerWatch:
    """Says when an :class:`OnTrigger` pulls.

    Args:
        policy: of resets; others never pull.

    Example:
        >>> watch = TriggerWatch(OnTrigger(rollbacks=2))
        >>> watch.observe(rolled_back=True), watch.observe(rolled_back=True)
        (None, 'trigger: 2 updates in a row were taken back')
    """

    def __init__(self, policy: Reset) -> None:
        self._policy = policy if isinstance(policy, OnTrigger) else None
        self.clear()

    def clear(self) -> None:
        """Forget."""
        self._rollbacks = 0
        self._entropy: float | None = None

    def observe(
        self, *, rolled_back: bool, entropy: float | None = None, kl: float | None = None
    ) -> str | None:
        """Take in a step: whether its update was taken back, or what it left behind."""
        policy = self._policy
        if policy is None:
            return None
        self._rollbacks = self._rollbacks + 1 if rolled_back else 0
        if policy.rollbacks is not None and self._rollbacks >= policy.rollbacks:
            return f"trigger: {self._rollbacks} updates in a row were taken back"
        if rolled_back:
            return None
        if entropy is not None and policy.entropy_floor is not None:
            old = entropy if self._entropy is None else self._entropy
            self._entropy = policy.momentum * old + (1 - policy.momentum) * entropy
            if self._entropy < policy.entropy_floor:
                return "trigger: the entropy's average is low"
        if kl is not None and policy.kl is not None and kl > policy.kl:
            return "trigger: far from the source"
        return None

    def state(self) -> dict[str, Any]:
        """Plain values to go on from."""
        return {"rollbacks": self._rollbacks, "entropy": self._entropy}

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on from a saved state."""
        self._rollbacks, self._entropy = state["rollbacks"], state["entropy"]
