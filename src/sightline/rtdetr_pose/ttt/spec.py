"""What an adaptation is: its method, what it may change, when it forgets, and what must hold for it to count.

Everything is a frozen dataclass that writes and reads itself as plain YAML; an unknown key is an error.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any, ClassVar

from sightline.rtdetr_pose.ttt.guards import Guards
from sightline.rtdetr_pose.ttt.resets import Episodic, Reset, read_reset
from sightline.training.choices import refuse_unknown, require_choice

PARAMETER_KINDS = ("norm", "adapters", "all")
OPTIMISERS = ("sgd", "adam", "adamw")


@dataclass(frozen=True, kw_only=True)
class Scope:
    """Which parameters may change.

    Args:
        select: kinds: ``norm`` (weights and biases of normalisation layers), ``adapters`` (the low-rank
            weights of :func:`~sightline.rtdetr_pose.ttt.lora.apply_adapters`, never what they adapt),
            ``all``.
        include: of these, only those with one of these texts in their names; all unless given.
        exclude: and none with one of these texts in its name.

    Raises:
        ValueError: an unknown kind, or none.

    Example:
        >>> Scope(select=("norm",), exclude=("backbone",)).exclude
        ('backbone',)
    """

    select: Sequence[str] = ("norm",)
    include: Sequence[str] = ()
    exclude: Sequence[str] = ()

    def __post_init__(self) -> None:
        for name in ("select", "include", "exclude"):
            value = getattr(self, name)
            object.__setattr__(self, name, (value,) if isinstance(value, str) else tuple(value))
        if not self.select:
            raise ValueError(f"scope: expected one of {', '.join(PARAMETER_KINDS)}, got none")
        for kind in self.select:
            require_choice("scope: select", kind, PARAMETER_KINDS)


@dataclass(frozen=True, kw_only=True)
class Tent:
    """Entropy minimisation (Wang et al., ICLR 2021)."""

    kind: ClassVar[str] = "tent"
    objective: ClassVar[dict[str, float]] = {"entropy": 1.0}


@dataclass(frozen=True, kw_only=True)
class MaskedReconstruction:
    """Masked features are reconstructed from what is around them (after Gandelsman et al., NeurIPS 2022).

    Args:
        mask_prob: share of cells that are hidden.
        mask_block: side of the square blocks that are hidden together, cells.
        own_geometry: where no geometry is given, make it from the model's own confident predictions.
        max_log_sigma: a prediction serves as geometry where its uncertainty of log depth is below this;
            where the model gives none, its score must reach ``min_score`` instead.
        min_score: of a prediction that serves as geometry.
    """

    kind: ClassVar[str] = "mim"
    objective: ClassVar[dict[str, float]] = {"mim": 1.0, "entropy": 0.1}
    mask_prob: float = 0.6
    mask_block: int = 1
    own_geometry: bool = False
    max_log_sigma: float = -2.0
    min_score: float = 0.5


@dataclass(frozen=True, kw_only=True)
class Eata:
    """Entropy of reliable and non-redundant samples, with a Fisher penalty (Niu et al., ICML 2022).

    Args:
        reliable: E0, as a share of the largest entropy.
        diversity: largest cosine of a sample's class probabilities to their moving average; published: 0.05
            for 1000 classes, 0.4 for 10.
        momentum: of that average.
        fisher_weight: of the penalty, whose Fisher information is taken from source batches; 0 for none.
    """

    kind: ClassVar[str] = "eata"
    objective: ClassVar[dict[str, float]] = {"entropy": 1.0}
    reliable: float = 0.4
    diversity: float = 0.05
    momentum: float = 0.9
    fisher_weight: float = 2000.0


@dataclass(frozen=True, kw_only=True)
class Sar:
    """Sharpness-aware minimisation of reliable entropy, with recovery (Niu et al., ICLR 2023).

    Args:
        reliable: E0, as a share of the largest entropy, asked before and after the perturbation.
        rho: length of the perturbation.
        reset_entropy: the model is reset where the moving average of the loss falls below this.
        momentum: of that average.
    """

    kind: ClassVar[str] = "sar"
    objective: ClassVar[dict[str, float]] = {"entropy": 1.0}
    reliable: float = 0.4
    rho: float = 0.05
    reset_entropy: float = 0.2
    momentum: float = 0.9


@dataclass(frozen=True, kw_only=True)
class Cotta:
    """A student follows its averaged teacher, which predicts (Wang et al., CVPR 2022).

    Args:
        momentum: of the teacher.
        views: augmented views that the teacher averages where it is unsure.
        confidence: the source model's mean confidence below which it does.
        restore: share of the weights that go back to the source's in each step.
    """

    kind: ClassVar[str] = "cotta"
    objective: ClassVar[dict[str, float]] = {"consistency": 1.0}
    momentum: float = 0.999
    views: int = 32
    confidence: float = 0.92
    restore: float = 0.01


Method = Tent | MaskedReconstruction | Eata | Sar | Cotta
METHODS: dict[str, type[Method]] = {
    each.kind: each for each in (Tent, MaskedReconstruction, Eata, Sar, Cotta)
}


@dataclass(frozen=True, kw_only=True)
class AdaptSpec:
    """How a model adapts itself to the pictures it meets.

    Args:
        method: by name or with its options.
        objective: weights of the terms of the loss; the method's own unless given.
        scope: what may change.
        bn: statistics of batch norms: ``frozen`` (the source's), ``batch`` (this batch's, as in Tent), or
            ``alpha:A``: ``(1 - A) source + A batch``. Running statistics never change.
        optimiser: ``sgd`` (momentum 0.9), ``adam`` or ``adamw``.
        lr: learning rate.
        steps: updates a batch.
        reset: when the source model returns.
        repredict: predict once more after the update; otherwise the predictions before it are returned.
        guards: what must hold.
        early_exit: read the checks before the update back from the device, and save what follows where they
            fail; None does so on the CPU, where reading costs nothing. The results are the same.
        seed: of masks, views and restored weights.

    Raises:
        ValueError: a value that cannot be.

    Example:
        >>> spec = AdaptSpec(method="eata", lr=1e-3, reset="every:100")
        >>> spec.method.reliable, spec.reset
        (0.4, Every(n=100))
        >>> AdaptSpec.from_dict(spec.to_dict()) == spec
        True
        >>> AdaptSpec.from_dict({"metod": "tent"})
        Traceback (most recent call last):
        ValueError: adaptation: unknown key 'metod' (did you mean 'method'?)
    """

    method: Method | str = field(default_factory=Tent)
    objective: Mapping[str, float] | None = None
    scope: Scope = field(default_factory=Scope)
    bn: str = "frozen"
    optimiser: str = "adam"
    lr: float = 1e-4
    steps: int = 1
    reset: Reset | str = field(default_factory=Episodic)
    repredict: bool = True
    guards: Guards = field(default_factory=Guards)
    early_exit: bool | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if isinstance(self.method, str):
            require_choice("adaptation: method", self.method, tuple(METHODS))
            object.__setattr__(self, "method", METHODS[self.method]())
        if isinstance(self.reset, str):
            object.__setattr__(self, "reset", read_reset(self.reset))
        require_choice("adaptation: optimiser", self.optimiser, OPTIMISERS)
        bn_alpha(self.bn)
        if self.steps < 1:
            raise ValueError(f"adaptation: steps: expected at least 1, got {self.steps}")
        if not self.lr >= 0:
            raise ValueError(f"adaptation: lr: expected 0 or more, got {self.lr}")

    @property
    def options(self) -> Method:
        """The method with its options."""
        if isinstance(self.method, str):
            raise TypeError(f"method {self.method!r} was not resolved")
        return self.method

    @property
    def policy(self) -> Reset:
        """The policy of resets."""
        if isinstance(self.reset, str):
            raise TypeError(f"reset {self.reset!r} was not resolved")
        return self.reset

    @property
    def weights(self) -> dict[str, float]:
        """The weights of the objective's terms."""
        return dict(self.options.objective if self.objective is None else self.objective)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as YAML and JSON hold them."""
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        for name in ("method", "reset"):
            values[name] = {"kind": values[name].kind, **asdict(values[name])}
        values["scope"] = {name: list(texts) for name, texts in asdict(self.scope).items()}
        values["guards"] = asdict(self.guards)
        values["objective"] = None if self.objective is None else dict(self.objective)
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> AdaptSpec:
        """Read what :meth:`to_dict` wrote, or what a person did.

        Args:
            values: by name; ``method`` and ``reset`` as text, or as a mapping with ``kind`` and options.

        Raises:
            ValueError: an unknown key or value, named.
        """
        refuse_unknown("adaptation", values, [each.name for each in fields(cls)])
        read: dict[str, Any] = dict(values)
        if isinstance(read.get("method"), Mapping):
            read["method"] = _with_options("method", read["method"], METHODS)
        if isinstance(read.get("reset"), Mapping):
            read["reset"] = read_reset(read["reset"])
        for name, kind in (("scope", Scope), ("guards", Guards)):
            if isinstance(read.get(name), Mapping):
                read[name] = build_strictly(f"adaptation: {name}", kind, read[name])
        return cls(**read)


def build_strictly(where: str, kind: type[Any], values: Mapping[str, Any]) -> Any:  # noqa: ANN401
    """Make a dataclass from a mapping whose keys must be its fields."""
    refuse_unknown(where, values, [each.name for each in fields(kind)])
    return kind(**values)


def _with_options(where: str, values: Mapping[str, Any], kinds: Mapping[str, type[Any]]) -> Any:  # noqa: ANN401
    options = dict(values)
    kind = options.pop("kind", None)
    require_choice(f"adaptation: {where}: kind", kind, tuple(kinds))
    return build_strictly(f"adaptation: {where}: {kind}", kinds[kind], options)


def bn_alpha(bn: str) -> float:
    """The share of a batch's own statistics in its normalisation: 0 frozen, 1 those of the batch.

    Raises:
        ValueError: not ``frozen``, ``batch`` or ``alpha:A`` with A from 0 to 1.

    Example:
        >>> bn_alpha("frozen"), bn_alpha("batch"), bn_alpha("alpha:0.1")
        (0.0, 1.0, 0.1)
    """
    if bn in ("frozen", "batch"):
        return float(bn == "batch")
    kind, _, share = bn.partition(":")
    try:
        alpha = float(share)
    except ValueError:
        alpha = -1.0
    if kind != "alpha" or not 0 <= alpha <= 1:
        raise ValueError(f"adaptation: bn: expected frozen, batch or alpha:A with A in [0, 1], got {bn!r}")
    return alpha
