"""Faults of names: a key or a choice that does not exist, with the nearest one that does."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence


def refuse_unknown(where: str, names: Iterable[str], known: Iterable[str]) -> None:
    """Raise where a name is not known, and say which known one it may have meant.

    Args:
        where: the place, for the fault.
        names: what came.
        known: what exists.

    Raises:
        ValueError: a name that does not exist.

    Example:
        >>> refuse_unknown("a.yaml: model", ["fpn_chanels"], ["fpn_channels", "corr_channels"])
        Traceback (most recent call last):
        ValueError: a.yaml: model: unknown key 'fpn_chanels' (did you mean 'fpn_channels'?)
    """
    known = list(known)
    for name in names:
        if name in known:
            continue
        near = difflib.get_close_matches(str(name), known, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(known) or 'none'}"
        raise ValueError(f"{where}: unknown key {name!r} ({hint})")


def require_choice(name: str, value: object, choices: Sequence[str]) -> None:
    """Raise where a value is none of the choices.

    Args:
        name: the option.
        value: what came.
        choices: what exists.

    Raises:
        ValueError: with the choices.

    Example:
        >>> require_choice("precision", "bf16", ("fp32", "bf16"))
    """
    if value not in choices:
        raise ValueError(f"{name}: expected one of {', '.join(choices)}, got {value!r}")
