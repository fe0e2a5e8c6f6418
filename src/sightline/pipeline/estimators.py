"""Which matcher finds poses, with which weights, and who tells it where to look."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from sightline.objects.card import ObjectCard
from sightline.objects.pose_errors import ErrorModel, errors_file, read_error_model
from sightline.pipeline.estimate import PoseEstimator
from sightline.pipeline.matcher import BoxFinder, Matcher
from sightline.sift import SiftMatcher

if TYPE_CHECKING:
    from sightline.refdet.reference_detector import ReferenceDetector
    from sightline.vpog.inference import VPOGMatcher

MatcherName = Literal["sift", "vpog"]
BoxSource = Literal["refdet", "off"]
SearchMode = Literal["cluster", "global", "global-fast"]

_SPARE_BOXES = 2  # beside as many as there may be instances


@dataclass(frozen=True)
class MatcherChoice:
    """What finds poses.

    Args:
        matcher: ``sift`` by key points of print, without weights; ``vpog`` is learned and needs no print.
        weights: of ``vpog``; those of the package unless given.
        mode: of ``vpog``; its own unless given.
        detector: ``refdet`` finds boxes where none are given, ``off`` lets the matcher look everywhere; off
            for ``sift`` unless given, which is made to look everywhere, and refdet for ``vpog``.
        device: of learned parts.

    Raises:
        ValueError: an unknown name, or an option that the matcher does not have.

    Example:
        >>> MatcherChoice("vpog").box_source, MatcherChoice().box_source
        ('refdet', 'off')
        >>> MatcherChoice("sift", mode="cluster")
        Traceback (most recent call last):
        ValueError: --mode: expected with --matcher vpog, got --matcher sift
    """

    matcher: MatcherName | str = "sift"
    weights: Path | None = None
    mode: SearchMode | str | None = None
    detector: BoxSource | str | None = None
    device: str = "cpu"

    def __post_init__(self) -> None:
        """Check that the options go together."""
        if self.matcher not in ("sift", "vpog"):
            raise ValueError(f"--matcher: expected sift or vpog, got {self.matcher!r}")
        if self.detector not in (None, "refdet", "off"):
            raise ValueError(f"--detector: expected refdet or off, got {self.detector!r}")
        if self.matcher == "sift":
            learned = {"--weights": self.weights is not None, "--mode": self.mode is not None}
            learned["--device"] = self.device != "cpu" and self.box_source == "off"
            foreign = [name for name, given in learned.items() if given]
            if foreign:
                raise ValueError(f"{', '.join(foreign)}: expected with --matcher vpog, got --matcher sift")

    @property
    def box_source(self) -> str:
        """Who finds boxes where none are given."""
        return self.detector or ("off" if self.matcher == "sift" else "refdet")


class EstimatorMaker:
    """Makes estimators of one kind; what is learned is read once, for all of them.

    Args:
        choice: which kind; the classical matcher unless given.
        calibrated: whether covariances are widened by the model of errors that lies beside the weights, where
            there is one.

    Raises:
        FileNotFoundError: there are no such weights.
        ValueError: weights of another model, a damaged model of errors, or a device that is not here.

    Example:
        >>> EstimatorMaker()([]).cards
        []
    """

    def __init__(self, choice: MatcherChoice | None = None, *, calibrated: bool = True) -> None:
        self.choice = choice or MatcherChoice()
        self._learned = None if self.choice.matcher == "sift" else _read_matcher(self.choice)
        self._errors = _read_errors(self.choice) if calibrated else None

    def __call__(
        self, cards: Sequence[ObjectCard], *, max_instances: int = 1, min_score: float = 0.4
    ) -> PoseEstimator:
        """The estimator of some objects.

        Args:
            cards: the objects.
            max_instances: of one object in one picture.
            min_score: lowest verification score of a valid pose.
        """
        return PoseEstimator(
            cards,
            self.matcher(cards),
            max_instances=max_instances,
            min_score=min_score,
            box_finder=self._box_finder(max_instances),
            errors=self._errors,
        )

    @property
    def name(self) -> str:
        """What finds the poses, for people."""
        if self._learned is None:
            return "sift"
        return f"{self._learned.name} ({self._learned.settings.mode})"

    def matcher(self, cards: Sequence[ObjectCard]) -> Matcher:
        """A matcher that knows some objects; a learned one is the same for all.

        Args:
            cards: the objects.
        """
        if self._learned is None:
            return SiftMatcher(list(cards))
        for card in cards:
            self._learned.known(card)
        return self._learned

    @cached_property
    def _detector(self) -> ReferenceDetector:
        from sightline.refdet.reference_detector import ReferenceDetector
        from sightline.refdet.shipped import shipped_weights

        return ReferenceDetector.from_checkpoint(shipped_weights(), device=self.choice.device)

    def _box_finder(self, max_instances: int) -> BoxFinder | None:
        if self.choice.box_source == "off":
            return None
        from sightline.pipeline.refdet_boxes import DetectedBoxes

        return DetectedBoxes(self._detector, most=max_instances + _SPARE_BOXES)


def _read_matcher(choice: MatcherChoice) -> VPOGMatcher:
    from sightline.vpog.inference import MatchSettings, VPOGMatcher
    from sightline.vpog.shipped import shipped_weights

    settings = None if choice.mode is None else MatchSettings(mode=choice.mode)
    return VPOGMatcher.from_checkpoint(choice.weights or shipped_weights(), settings, device=choice.device)


def _read_errors(choice: MatcherChoice) -> ErrorModel | None:
    from sightline.nn.shipped import shipped_folder
    from sightline.vpog.shipped import shipped_weights

    if choice.matcher == "sift":
        path = errors_file(shipped_folder() / "sift")
    else:
        path = errors_file(choice.weights or shipped_weights())
    return read_error_model(path) if path.is_file() else None


def make_estimator(
    cards: Sequence[ObjectCard], *, max_instances: int = 1, min_score: float = 0.4
) -> PoseEstimator:
    """The estimator with the classical matcher.

    Args:
        cards: the objects.
        max_instances: of one object in one picture.
        min_score: lowest verification score of a valid pose.
    """
    return EstimatorMaker()(cards, max_instances=max_instances, min_score=min_score)
