"""The guards before and after an update, as they read the numbers of a step."""

from __future__ import annotations

import math
from collections.abc import Mapping

from sightline.rtdetr_pose.ttt.guards import Guards


def refusal(known: Mapping[str, float], guards: Guards) -> str | None:
    """Why a batch is not learnt from, or None.

    Args:
        known: the step's numbers; what is missing is not asked for.
        guards: the limits.

    Example:
        >>> refusal({"finite": 1.0, "count_before": 0.0, "selected": 1.0}, Guards())
        'nothing found'
    """
    if not known["finite"]:
        return "not finite"
    if known.get("count_before", math.inf) < guards.min_count:
        return "nothing found"
    if guards.max_entropy is not None and known.get("entropy_before", 0.0) > guards.max_entropy:
        return f"unsure: entropy {known['entropy_before']:.2f} of the largest"
    if not known["selected"]:
        return "no picture can be learnt from"
    return None


def regret(known: Mapping[str, float], guards: Guards) -> str | None:
    """Why an update is taken back, or None.

    Args:
        known: the step's numbers; what is missing is not asked for.
        guards: the limits.

    Example:
        >>> regret({"update_norm": 0.1, "loss_before": 1.0, "loss_after": 1.1}, Guards())
        'the objective rose from 1 to 1.1'
        >>> regret({"update_norm": 0.1, "loss_before": 1.0, "loss_after": 0.9, "kl": 0.1}, Guards())
    """
    drifts = {name: value for name, value in known.items() if name.startswith("drift_")}
    checked = {name: known[name] for name in ("update_norm", "loss_after", "kl") if name in known} | drifts
    if not all(map(math.isfinite, checked.values())):
        return "not finite after the update"
    if guards.max_update_norm is not None and known["update_norm"] > guards.max_update_norm:
        return f"update of norm {known['update_norm']:.3g}"
    before, after = known["loss_before"], known.get("loss_after")
    if guards.max_rise is not None and after is not None and after > before + guards.max_rise * abs(before):
        return f"the objective rose from {before:.4g} to {after:.4g}"
    if guards.max_kl is not None and known.get("kl", 0.0) > guards.max_kl:
        return f"predictions {known['kl']:.3g} nats from the source's"
    if guards.max_drift is not None:
        for name, value in drifts.items():
            if value > guards.max_drift:
                return f"{name.removeprefix('drift_')} drifted by {value:.3g} from the source's"
    return None
