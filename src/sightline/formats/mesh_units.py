"""The unit of a mesh file: given, stated by the file, implied by its neighbours, or inferred from its size.

A mesh is a bag of numbers; read a thousand times too large, every pose is wrong and nothing crashes. So each
unit comes with the reason for it, and where the evidence leaves a choice, the choice is the user's.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

UNIT_IN_METRES = {"m": 1.0, "cm": 0.01, "mm": 0.001, "in": 0.0254}
# Objects that a hand, an arm or a small robot handles; outside of it the size says nothing about the unit.
PLAUSIBLE_DIAMETER_M = (0.01, 2.0)
_CREDIBLE_DIAMETER_M = (0.001, 20.0)

_SPELLINGS = {
    "m": r"m|met(?:er|re)s?",
    "cm": r"cm|centimet(?:er|re)s?",
    "mm": r"mm|millimet(?:er|re)s?",
    "in": r"in|inch(?:es)?",
}
_STATEMENT = re.compile(
    r"\bunits?\b\s*(?:are|is|in)?\s*[:=]?\s*[\"']?("
    + "|".join(f"(?:{spelling})" for spelling in _SPELLINGS.values())
    + r")\b",
    re.IGNORECASE,
)
_BOP_NAME = re.compile(r"obj_(\d{6})", re.IGNORECASE)


def normalise_unit(text: str) -> str:
    """The short name of a unit that is spelt in any usual way.

    Args:
        text: such as ``"mm"``, ``"Millimetres"`` or ``"inch"``.

    Returns:
        ``"m"``, ``"cm"``, ``"mm"`` or ``"in"``.

    Raises:
        ValueError: another word.

    Example:
        >>> normalise_unit("Millimeters")
        'mm'
    """
    for unit, spelling in _SPELLINGS.items():
        if re.fullmatch(spelling, text.strip(), re.IGNORECASE):
            return unit
    raise ValueError(f"unit: expected one of m, cm, mm, in, got {text!r}")


def find_stated_unit(comments: str) -> str | None:
    r"""The unit that the comments of a file state, as in ``unit mm`` or ``# units: inches``.

    Args:
        comments: the comment lines of the file.

    Returns:
        The unit's short name, or None.

    Example:
        >>> find_stated_unit("comment exported by hand\ncomment units = centimeters")
        'cm'
    """
    found = _STATEMENT.search(comments)
    return normalise_unit(found.group(1)) if found else None


def decide_unit(
    path: Path, diameter: float, *, given: str | None = None, stated: str | None = None, statement: str = ""
) -> tuple[str, str]:
    """Decide the unit of a mesh and say why.

    In this order: what the user gave; what the file states, if the size can be true; a ``models_info.json``
    beside it whose diameter agrees, or a file name as in BOP (both millimetres); and the one unit among m,
    cm, mm and in that makes the diameter that of an object one can handle, 0.01 to 2 m.

    Args:
        path: the mesh file.
        diameter: the mesh's diameter in its own unit.
        given: the user's word.
        stated: the file's word.
        statement: where the file says so, for the reason.

    Returns:
        ``(unit, reason)``.

    Raises:
        ValueError: the evidence leaves a choice or contradicts itself.

    Example:
        >>> decide_unit(Path("cup.ply"), 0.12)
        ('m', 'inferred: the diameter 0.12 is that of an object one can handle (0.01-2 m) only in m')
    """
    if given is not None:
        unit = normalise_unit(given)
        contradiction = f", against the file's own {stated}" if stated not in (None, unit) else ""
        return unit, f"given{contradiction}"
    if stated is not None:
        size = diameter * UNIT_IN_METRES[stated]
        if not _CREDIBLE_DIAMETER_M[0] <= size <= _CREDIBLE_DIAMETER_M[1]:
            raise ValueError(
                f"{path}: {statement}, which makes a diameter of {size:.4g} m; give unit= if that is wrong"
            )
        return stated, f"stated: {statement}"
    reason = _bop_reason(path, diameter)
    return ("mm", reason) if reason else _infer_from_size(path, diameter)


def _bop_reason(path: Path, diameter: float) -> str:
    named = _BOP_NAME.fullmatch(path.stem)
    if named is None or not _plausible(diameter, "mm"):
        return ""
    listed = _listed_diameter(path.with_name("models_info.json"), str(int(named.group(1))))
    if listed is None:
        return "implied: a BOP model by its name, and BOP is in mm"
    if abs(listed - diameter) <= 0.05 * listed:
        return f"implied: models_info.json beside it lists the same diameter, {listed:.4g} mm"
    return ""


def _listed_diameter(info_path: Path, key: str) -> float | None:
    try:
        return float(json.loads(info_path.read_text(encoding="utf-8"))[key]["diameter"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _plausible(diameter: float, unit: str) -> bool:
    low, high = PLAUSIBLE_DIAMETER_M
    return low <= diameter * UNIT_IN_METRES[unit] <= high


def _infer_from_size(path: Path, diameter: float) -> tuple[str, str]:
    low, high = PLAUSIBLE_DIAMETER_M
    fitting = [unit for unit in UNIT_IN_METRES if _plausible(diameter, unit)]
    if len(fitting) == 1:
        why = f"the diameter {diameter:.4g} is that of an object one can handle ({low:g}-{high:g} m)"
        return fitting[0], f"inferred: {why} only in {fitting[0]}"
    sizes = ", ".join(f"{diameter * UNIT_IN_METRES[unit]:.3g} m if {unit}" for unit in fitting)
    what = f"could be {sizes}" if fitting else f"is no object of {low:g} to {high:g} m in m, cm, mm or in"
    raise ValueError(f"{path}: the unit is not known: the diameter {diameter:.4g} {what}; give unit=")
