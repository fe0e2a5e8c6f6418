"""What changes while a model learns: pose terms enter one after the other, masks grow."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Ramp:
    """A number that goes in a straight line from one value to another, and stays.

    Args:
        low: before the start.
        high: after the end.
        start: share of the run where it begins to change.
        end: share of the run where it has arrived; not before the start.

    Raises:
        ValueError: an end before the start.

    Example:
        >>> [Ramp(0.4, 0.6, start=0.2, end=0.4).at(share) for share in (0.0, 0.3, 1.0)]
        [0.4, 0.5, 0.6]
    """

    low: float
    high: float
    start: float = 0.0
    end: float = 0.0

    def __post_init__(self) -> None:
        """Check the order."""
        if self.end < self.start:
            raise ValueError(f"end: expected at least the start {self.start}, got {self.end}")

    def at(self, fraction: float) -> float:
        """The value when a share of the run is done."""
        if fraction >= self.end:
            return self.high
        if fraction <= self.start:
            return self.low
        return self.low + (fraction - self.start) / (self.end - self.start) * (self.high - self.low)


@dataclass(frozen=True)
class PoseSchedule:
    """When the terms of the pose begin to count: offsets first, then intrinsics, then all, then the match.

    Args:
        off: factor of the offsets' term.
        k: factor of the intrinsics' term.
        pose: factor of all other terms of the pose: z, rot, t, and the priors.
        match: factor of the pose in the matcher's cost. It enters last, for a pose that is not learned yet
            makes the match jump.

    Example:
        >>> schedule = PoseSchedule.staged(0.1, 0.2, match=0.5)
        >>> [(schedule.off.at(x), schedule.k.at(x), schedule.pose.at(x)) for x in (0.0, 0.1, 0.2)]
        [(1.0, 0.0, 0.0), (1.0, 1.0, 0.0), (1.0, 1.0, 1.0)]
        >>> schedule.match.at(0.2), schedule.match.at(0.5)
        (0.0, 1.0)
    """

    off: Ramp = Ramp(1.0, 1.0)
    k: Ramp = Ramp(1.0, 1.0)
    pose: Ramp = Ramp(1.0, 1.0)
    match: Ramp = Ramp(1.0, 1.0)

    @classmethod
    def staged(cls, k: float, pose: float, *, match: float, length: float = 0.0) -> PoseSchedule:
        """Offsets from the start, the others from shares of the run on.

        Args:
            k: where the intrinsics enter.
            pose: where the other terms enter.
            match: where the matcher's costs of the pose enter.
            length: share of the run that each takes to reach its full weight.
        """
        k_ramp, pose_ramp, match_ramp = (Ramp(0.0, 1.0, x, x + length) for x in (k, pose, match))
        return cls(k=k_ramp, pose=pose_ramp, match=match_ramp)

    def factors(self, fraction: float) -> dict[str, float]:
        """The factor of each term's weight when a share of the run is done."""
        pose = self.pose.at(fraction)
        late = dict.fromkeys(("z", "rot", "t", "z_prior", "plane", "upright"), pose)
        return {"off": self.off.at(fraction), "k": self.k.at(fraction), **late}


@dataclass(frozen=True)
class MaskSchedule:
    """How much is masked, and how much its reconstruction counts.

    Args:
        ratio: share of the cells that are masked; 0.4 to 0.7 teach well.
        weight: factor of the reconstruction's weight.

    Example:
        >>> schedule = MaskSchedule(ratio=Ramp(0.4, 0.6, 0.0, 0.5), weight=Ramp(0.0, 1.0, 0.1, 0.2))
        >>> schedule.ratio.at(0.25), schedule.weight.at(0.05)
        (0.5, 0.0)
    """

    ratio: Ramp = Ramp(0.6, 0.6)
    weight: Ramp = Ramp(1.0, 1.0)
