"""Gates: which predicted poses agree with what is known of the objects and of the scene.

The rules hold for all classes and are overridden class by class; both are plain values, as YAML holds them.
Nothing is thrown away here: each pose gets its figures and whether it passes, and scores are fused from
detection, template and doubt.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from difflib import get_close_matches
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sightline.rtdetr_pose.priors import depth_prior, height_above_plane, upright_violation


@dataclass(frozen=True, kw_only=True)
class Rules:
    """What a pose of one class must satisfy; None switches a rule off.

    Args:
        depth_log_ratio: largest ``|log(z / prior)|``, the prior from the object's size in its box; 0.7 is a
            factor of two.
        depth_range: least and greatest depth, metres.
        table_tolerance: how far the object's origin may lie below the table, metres.
        roll_range: least and greatest roll, degrees.
        pitch_range: least and greatest pitch, degrees.
        min_template_score: of template verification; a pose that was not verified passes.
        max_doubt: largest sum of the spreads of log depth and rotation.
        size: width and height of the object, metres; its diameter for both where not given.

    Raises:
        ValueError: a range that ends before it begins.
    """

    depth_log_ratio: float | None = 0.7
    depth_range: tuple[float, float] | None = None
    table_tolerance: float | None = 0.01
    roll_range: tuple[float, float] | None = None
    pitch_range: tuple[float, float] | None = None
    min_template_score: float | None = None
    max_doubt: float | None = None
    size: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        """Check the ranges."""
        for name in ("depth_range", "roll_range", "pitch_range"):
            value = getattr(self, name)
            if value is not None and not (len(value) == 2 and value[0] <= value[1]):
                raise ValueError(f"{name}: expected the least and the greatest value, got {value}")


@dataclass(frozen=True, kw_only=True)
class ScoreWeights:
    """``final = det * detection + template * template_score - doubt * (sigma_z + sigma_rot)``.

    Args:
        det: of the detection's score.
        template: of the template's score, 0 for a pose that was not verified.
        doubt: of the predicted spreads.
    """

    det: float = 1.0
    template: float = 0.0
    doubt: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Constraints:
    """The rules of all classes.

    Args:
        rules: of every class.
        per_class: by class name, what differs.
        weights: of the fused score.

    Raises:
        ValueError: an override of an unknown rule, with the nearest known one.

    Example:
        >>> constraints = Constraints(per_class={"mug": {"depth_range": (0.3, 2.0)}})
        >>> constraints.of("mug").depth_range, constraints.of("box").depth_range
        ((0.3, 2.0), None)
    """

    rules: Rules = field(default_factory=Rules)
    per_class: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    weights: ScoreWeights = field(default_factory=ScoreWeights)

    def __post_init__(self) -> None:
        """Check the overrides."""
        for name in self.per_class:
            self.of(name)

    def of(self, name: str) -> Rules:
        """The rules of a class."""
        changed = dict(self.per_class.get(name, {}))
        known = [each.name for each in fields(Rules)]
        for key in set(changed) - set(known):
            nearest = get_close_matches(key, known, 1, 0.0)[0]
            raise ValueError(f"per_class.{name}: unknown rule {key!r}, did you mean {nearest!r}?")
        return replace(self.rules, **{k: tuple(v) if isinstance(v, list) else v for k, v in changed.items()})


class PoseChecks(NamedTuple):
    """Figures of n poses, NaN where a rule does not apply or nothing is known; and which poses pass.

    Args:
        depth_log_ratio: ``|log(z / prior)|``.
        depth_outside: metres by which depth leaves its range.
        height: metres of the origin above the table.
        upright_violation_deg: ``(n, 2)`` by which roll and pitch leave their ranges.
        passed: whether no rule that applies is broken; False for a pose that is not finite.
        final_score: the fused score.
    """

    depth_log_ratio: Float[Tensor, " n"]
    depth_outside: Float[Tensor, " n"]
    height: Float[Tensor, " n"]
    upright_violation_deg: Float[Tensor, "n 2"]
    passed: Bool[Tensor, " n"]
    final_score: Float[Tensor, " n"]


@dataclass(frozen=True, kw_only=True)
class PoseEvidence:
    """n predicted poses and what speaks for them.

    Args:
        labels: ``(n,)`` classes.
        R: ``(n, 3, 3)`` rotations of ``cam_from_obj``.
        t: ``(n, 3)`` metres.
        box_size: ``(n, 2)`` width and height, pixels.
        scores: ``(n,)`` of the detection.
        template_scores: ``(n,)`` of template verification, NaN where none was made.
        sigma_z: ``(n,)`` spread of the log depth.
        sigma_rot: ``(n,)`` spread of the rotation, radians.
    """

    labels: Int[Tensor, " n"]
    R: Float[Tensor, "n 3 3"]
    t: Float[Tensor, "n 3"]
    box_size: Float[Tensor, "n 2"]
    scores: Float[Tensor, " n"]
    template_scores: Float[Tensor, " n"] | None = None
    sigma_z: Float[Tensor, " n"] | None = None
    sigma_rot: Float[Tensor, " n"] | None = None

    def doubt(self) -> Float[Tensor, " n"]:
        """The sum of the spreads, 0 where none is predicted."""
        given = [each for each in (self.sigma_z, self.sigma_rot) if each is not None]
        return torch.stack(given).nan_to_num(nan=0.0).sum(0) if given else torch.zeros_like(self.scores)


def check_poses(
    constraints: Constraints,
    names: Sequence[str],
    evidence: PoseEvidence,
    K: Float[Tensor, "3 3"],
    *,
    diameters: Float[Tensor, " classes"] | None = None,
    plane: Float[Tensor, "4"] | None = None,
    world_from_cam: Float[Tensor, "3 3"] | None = None,
) -> PoseChecks:
    """Hold poses against the rules of their classes.

    Args:
        constraints: the rules.
        names: of the classes.
        evidence: the poses of one picture.
        K: ``(3, 3)`` pixels.
        diameters: ``(classes,)`` metres, for rules without a size.
        plane: ``(4,)`` unit normal and distance of the table, camera frame; None where it is not known.
        world_from_cam: ``(3, 3)`` the rotation into a frame in which roll and pitch say how an object stands;
            the camera's own if not given.

    Returns:
        One row a pose. A rule that lacks what it needs (a size, a plane) does not apply.

    Example:
        >>> poses = PoseEvidence(
        ...     labels=torch.tensor([0, 0]),
        ...     R=torch.eye(3).expand(2, 3, 3),
        ...     t=torch.tensor([[0.0, 0.0, 3.5], [0.0, 0.0, 9.0]]),
        ...     box_size=torch.tensor([[20.0, 40.0]]).expand(2, 2),
        ...     scores=torch.tensor([0.9, 0.8]),
        ... )
        >>> K = torch.tensor([[500.0, 0, 320], [0, 500, 240], [0, 0, 1]])
        >>> check_poses(Constraints(), ["mug"], poses, K, diameters=torch.tensor([0.2])).passed
        tensor([ True, False])
    """
    table = _Table.of(constraints, names, evidence, diameters)
    z = evidence.t[:, 2]
    focal = torch.stack([K[0, 0], K[1, 1]]).to(z)
    ratio = (z.clamp_min(1e-6) / depth_prior(evidence.box_size, table.size, focal)).log().abs()
    outside = (table.depth[:, 0] - z).clamp_min(0) + (z - table.depth[:, 1]).clamp_min(0)
    outside = torch.where(table.depth.isfinite().any(1), outside, torch.nan)
    height = torch.full_like(z, torch.nan) if plane is None else height_above_plane(evidence.t, plane.to(z))
    R = evidence.R if world_from_cam is None else world_from_cam.to(z) @ evidence.R
    tilt = torch.rad2deg(upright_violation(R, torch.deg2rad(table.upright)))
    tilt = torch.where(table.upright.isfinite().any(-1), tilt, torch.nan)
    template = torch.full_like(z, torch.nan)
    template = template if evidence.template_scores is None else evidence.template_scores.to(z)
    doubt = evidence.doubt()
    # what is NaN breaks no rule
    broken = (ratio > table.depth_log_ratio) | (outside > 0) | (height < -table.table_tolerance)
    broken = (
        broken | (tilt > 1e-4).any(-1) | (template < table.min_template_score) | (doubt > table.max_doubt)
    )
    finite = evidence.t.isfinite().all(-1) & evidence.R.isfinite().flatten(1).all(-1) & (z > 0)
    weights = constraints.weights
    fused = weights.det * evidence.scores + weights.template * template.nan_to_num(nan=0.0)
    return PoseChecks(ratio, outside, height, tilt, finite & ~broken, fused - weights.doubt * doubt)


class _Table(NamedTuple):
    """The rules of each pose as numbers: NaN, or an endless range, where one is off."""

    size: Tensor
    depth: Tensor
    upright: Tensor
    depth_log_ratio: Tensor
    table_tolerance: Tensor
    min_template_score: Tensor
    max_doubt: Tensor

    @classmethod
    def of(
        cls, constraints: Constraints, names: Sequence[str], evidence: PoseEvidence, diameters: Tensor | None
    ) -> _Table:
        rules = [constraints.of(name) for name in names]
        known = [math.nan] * len(names) if diameters is None else diameters.tolist()
        endless = (-math.inf, math.inf)
        columns: list[list[Any]] = [
            [each.size or (d, d) for each, d in zip(rules, known, strict=True)],
            [each.depth_range or endless for each in rules],
            [(each.roll_range or endless, each.pitch_range or endless) for each in rules],
            *(
                [math.nan if value is None else value for value in (getattr(each, name) for each in rules)]
                for name in ("depth_log_ratio", "table_tolerance", "min_template_score", "max_doubt")
            ),
        ]
        return cls(*(evidence.t.new_tensor(column)[evidence.labels] for column in columns))
