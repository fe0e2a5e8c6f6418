"""Why a batch of poses may not be used, in the words of the rest of ``geometry.pnp``."""

from __future__ import annotations

import torch
from jaxtyping import Bool
from torch import Tensor

from sightline.geometry.pnp.covariance import invert_information
from sightline.geometry.pnp.epropnp.problems import WeightedProblems
from sightline.geometry.pnp.epropnp.solver import Minimum

_LEAST_POINTS = 4  # three have up to four poses
_THIN = 1e-3  # width of a set on a line, in units of its longest extent


def find_failures(problems: WeightedProblems, minimum: Minimum) -> tuple[str, ...]:
    """Say of each problem why its pose may not be used; empty where it may.

    Args:
        problems: b problems.
        minimum: their b poses.
    """
    depth = (minimum.pose.R @ problems.points_3d + minimum.pose.t[..., None])[:, 2]
    mass = problems.weights.sum(1)
    behind = ((depth <= problems.min_depth) * mass).sum(1) > 0.5 * mass.sum(1)
    finite = minimum.cost.isfinite() & minimum.pose.t.isfinite().all(-1)
    covariance = invert_information(minimum.information.double().nan_to_num())
    checks = (
        (_too_few(problems), f"fewer than {_LEAST_POINTS} correspondences with a weight"),
        (_on_a_line(problems), "the correspondences lie on one line of the object"),
        (~finite, "the correspondences or their weights are not finite"),
        (behind, "the object would be behind the camera"),
        (~covariance.isfinite().all(-1).all(-1), "the correspondences do not fix the pose"),
    )
    words = torch.stack([failed for failed, _ in checks], 1).int()
    first = torch.where(words.any(1), words.argmax(1), -1).tolist()
    return tuple("" if number < 0 else checks[number][1] for number in first)


def find_missing(problems: WeightedProblems) -> Bool[Tensor, " b"]:
    """Whose points cannot fix a pose, wherever their pixels are: too few, or on a line."""
    return _too_few(problems) | _on_a_line(problems)


def _too_few(problems: WeightedProblems) -> Bool[Tensor, " b"]:
    return problems.used.sum(-1) < _LEAST_POINTS


def _on_a_line(problems: WeightedProblems) -> Bool[Tensor, " b"]:
    points = problems.points_3d.double()
    used = problems.used[:, None]
    mean = points.sum(-1, keepdim=True) / used.sum(-1, keepdim=True).clamp_min(1)
    away = torch.where(used, points - mean, 0.0).nan_to_num()
    scatter = torch.linalg.eigvalsh(away @ away.mT)
    return scatter[:, 1] <= _THIN**2 * scatter[:, 2]
