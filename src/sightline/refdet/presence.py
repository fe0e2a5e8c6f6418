"""Whether an object is in a picture at all: a threshold whose false alarms are as rare as the user asks.

The best score of each picture *without* the object says what chance alone reaches. For N such pictures and
a new one like them, the score of rank ``k = ceil((1 - rate)(N + 1))`` among the N is exceeded by the new one
with probability ``rate`` at the most, whatever the scores' distribution (conformal prediction: Vovk,
Gammerman and Shafer, "Algorithmic Learning in a Random World", 2005). Where several objects are looked for in
each picture, their scores are pooled and N stays the number of pictures, since scores of one picture are not
independent.

A rate is of one object in one picture: with ten objects a picture has ten chances of an alarm.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sightline.metrics.intervals import Interval, wilson_interval

NUM_RANKS = 101
_KEY = "presence"
_ROUNDING = 1e-9  # so that 0.05 of 20 is 1


@dataclass(frozen=True)
class PresenceCurve:
    """The best scores of pictures without the object, about a hundred of them, dense where they are high.

    Args:
        ranks: rising, from 1; the last is ``num_scores``.
        scores: of these ranks, not falling, in [0, 1].
        num_scores: how many scores there were, one for each object in each picture.
        num_pictures: how many pictures.

    Raises:
        ValueError: lists of unequal length, ranks or scores that fall, or no scores.

    Example:
        >>> presence = PresenceCurve.of_scores([0.01 * i for i in range(100)])
        >>> round(presence.threshold_for(0.05), 4), round(presence.threshold_for(0.10), 4)
        (0.95, 0.9)
    """

    ranks: tuple[int, ...]
    scores: tuple[float, ...]
    num_scores: int
    num_pictures: int

    def __post_init__(self) -> None:
        lengths_fit = len(self.ranks) == len(self.scores) > 0 and 0 < self.num_pictures <= self.num_scores
        if not lengths_fit or self.ranks[-1] != self.num_scores or self.ranks[0] < 1:
            raise ValueError(
                f"presence: expected ranks from 1 to the number of scores ({self.num_scores}), each with its "
                f"score, of 1 to {self.num_scores} pictures; got {len(self.ranks)} ranks, {len(self.scores)} "
                f"scores, {self.num_pictures} pictures"
            )
        if min(np.diff(self.ranks), default=1) < 1 or min(np.diff(self.scores), default=0) < 0:
            raise ValueError("presence: expected rising ranks and scores that do not fall")

    @classmethod
    def of_scores(
        cls, best_scores: Sequence[float] | np.ndarray, num_pictures: int | None = None
    ) -> PresenceCurve:
        """The curve of the best scores of empty pictures.

        Args:
            best_scores: of each object in each picture that does not contain it; 0 where nothing was found.
            num_pictures: how many pictures they are of; as many as scores unless given.

        Raises:
            ValueError: no scores, or one outside [0, 1].
        """
        rising = np.sort(np.asarray(best_scores, np.float64))
        if len(rising) == 0 or not ((rising >= 0) & (rising <= 1)).all():
            raise ValueError(
                f"best_scores: expected at least one, all in [0, 1], got {len(rising)}: {rising[:5]}"
            )
        count = len(rising)
        # from the top, in steps of equal ratio: the rates that people ask for are small
        steps = np.geomspace(1, count, NUM_RANKS).round().astype(int)
        from_top = np.arange(1, count + 1) if count <= NUM_RANKS else np.unique(steps)
        ranks = count + 1 - from_top[::-1]
        return cls(
            tuple(ranks.tolist()),
            tuple(rising[ranks - 1].tolist()),
            count,
            count if num_pictures is None else num_pictures,
        )

    @property
    def least_rate(self) -> float:
        """The lowest rate of false alarms that so many pictures can promise."""
        return 1 / (self.num_pictures + 1)

    def threshold_for(self, rate: float) -> float:
        """The score threshold whose false-alarm rate is at most the one asked for.

        Args:
            rate: share of (object, picture) pairs without the object in which it may be reported, in (0, 1).

        Returns:
            The threshold, in (0, 1]; detections that reach it count.

        Raises:
            ValueError: a rate that is none, too few pictures for it, or empty pictures that score 1.
        """
        if not 0 < rate < 1:
            raise ValueError(f"false_alarms: expected a rate between 0 and 1, such as 0.05, got {rate}")
        if rate < self.least_rate - _ROUNDING:
            raise ValueError(
                f"false_alarms: a rate of {rate:g} takes at least {math.ceil(1 / rate - _ROUNDING) - 1} "
                f"pictures without the object, got {self.num_pictures}, which can promise "
                f"{self.least_rate:.3g}"
            )
        share = self.num_scores / self.num_pictures
        wanted = math.ceil((1 - rate) * (self.num_pictures + 1) * share - _ROUNDING)
        place = int(np.searchsorted(self.ranks, min(wanted, self.num_scores)))
        # the next number of single precision, in which the network's scores are
        threshold = float(np.nextafter(np.float32(self.scores[place]), np.float32(2)))
        if threshold > 1:
            raise ValueError(
                f"false_alarms: {rate:g} cannot be had: among the pictures without the object too many have "
                "the score 1"
            )
        return threshold

    def to_extra(self, rate: float) -> dict[str, Any]:
        """What a file of weights keeps: the threshold for a rate, and the curve for others.

        Args:
            rate: as in :meth:`threshold_for`.

        Returns:
            Plain values by name, for ``extra`` of :func:`sightline.nn.checkpoint.save_model`.
        """
        curve = {
            "ranks": list(self.ranks),
            "scores": list(self.scores),
            "num_scores": self.num_scores,
            "num_pictures": self.num_pictures,
        }
        return {"score_threshold": self.threshold_for(rate), "false_alarms": rate, _KEY: curve}

    @classmethod
    def from_extra(cls, extra: Mapping[str, Any]) -> PresenceCurve:
        """The inverse of :meth:`to_extra`.

        Args:
            extra: of a file of weights (:func:`sightline.nn.checkpoint.read_config`).

        Raises:
            ValueError: the weights were not calibrated, or what they say is damaged.

        Example:
            >>> presence = PresenceCurve.of_scores([0.2, 0.4, 0.1, 0.3])
            >>> PresenceCurve.from_extra(presence.to_extra(0.2)) == presence
            True
        """
        if _KEY not in extra:
            raise ValueError("these weights were not calibrated; sightline calibrate-detector does that")
        try:
            curve = extra[_KEY]
            ranks = tuple(int(rank) for rank in curve["ranks"])
            scores = tuple(float(score) for score in curve["scores"])
            return cls(ranks, scores, int(curve["num_scores"]), int(curve["num_pictures"]))
        except (KeyError, TypeError) as error:
            raise ValueError(f"presence: damaged curve of the empty pictures' scores: {error!r}") from error


@dataclass(frozen=True)
class PresenceThreshold:
    """A threshold, and what it did on the pictures that it was found on.

    Args:
        rate: of false alarms, as asked for.
        threshold: the score from which a detection counts.
        num_alarms: how many of the empty ones reach it.
        num_empty: how many there were.
        curve: for other rates.
    """

    rate: float
    threshold: float
    num_alarms: int
    num_empty: int
    curve: PresenceCurve

    @property
    def interval(self) -> Interval:
        """Wilson's 95 % interval of the rate of false alarms."""
        return wilson_interval(self.num_alarms, self.num_empty)


def calibrate_presence(
    best_scores: Sequence[float] | np.ndarray, false_alarms: float = 0.05, *, num_pictures: int | None = None
) -> PresenceThreshold:
    """Find the score threshold for a rate of false alarms.

    Args:
        best_scores: of each object in each picture that does not contain it; 0 where nothing was found.
        false_alarms: the rate that is not to be exceeded, of one object in one picture.
        num_pictures: how many pictures the scores are of; as many as scores unless given.

    Returns:
        The threshold with what it does on these pictures.

    Raises:
        ValueError: scores that are none, a rate that is none, or too few pictures for it.

    Example:
        >>> found = calibrate_presence([0.01 * i for i in range(100)], 0.05)
        >>> found.num_alarms, found.num_empty
        (4, 100)
    """
    curve = PresenceCurve.of_scores(best_scores, num_pictures)
    threshold = curve.threshold_for(false_alarms)
    reached = int((np.asarray(best_scores, np.float64) >= threshold).sum())
    return PresenceThreshold(false_alarms, threshold, reached, len(best_scores), curve)
