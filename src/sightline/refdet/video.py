"""Objects followed through a video by their boxes: searched, found, lost, and found again by the same number.

Each frame is searched anew; what is kept between frames is a box and two counters an instance. Two thresholds
and two gates keep a state from flickering: an instance is found when it scores well in several frames on end,
stays found at a lower score, and is lost when it was missing in several frames on end.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from sightline.geometry.boxes import cxcywh_from_xyxy, giou, iou_matrix, pairwise, xyxy_from_cxcywh
from sightline.records import Detections
from sightline.refdet.bank_detector import BankDetector

State = Literal["searching", "found", "lost"]
Bank = TypeVar("Bank")

_SAME_PLACE = 0.5  # IoU above which a box is a second one of an instance that is already known


@dataclass(frozen=True)
class TrackSettings:
    """When an instance counts as found, and when as lost.

    Args:
        found_score: least score of what is not yet known.
        kept_score: least score of what is known already; six tenths of ``found_score`` unless given.
        confirm_frames: so many frames on end must show an instance before it is found.
        lose_frames: so many frames on end must not show it before it is lost.
        max_instances: of one object.
        smoothing: share of the last box in the new one; 0 reports boxes as they were found.
        least_giou: how far a box may move between frames: two equal squares have a GIoU of 0 side by side
            and of -0.5 when two more of them fit between.

    Raises:
        ValueError: a score outside [0, 1], thresholds or gates that cannot be.

    Example:
        >>> TrackSettings(found_score=0.5).least_kept
        0.3
    """

    found_score: float = 0.3
    kept_score: float | None = None
    confirm_frames: int = 2
    lose_frames: int = 3
    max_instances: int = 1
    smoothing: float = 0.0
    least_giou: float = -0.5

    def __post_init__(self) -> None:
        """Check ranges."""
        if not 0 <= self.found_score <= 1:
            raise ValueError(f"found_score: expected a number in [0, 1], got {self.found_score}")
        if self.kept_score is not None and not 0 <= self.kept_score <= self.found_score:
            raise ValueError(
                f"kept_score: expected at most the found_score of {self.found_score}, got {self.kept_score}"
            )
        for name in ("confirm_frames", "lose_frames", "max_instances"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected at least 1, got {getattr(self, name)}")
        if not 0 <= self.smoothing < 1:
            raise ValueError(f"smoothing: expected a share in [0, 1), got {self.smoothing}")

    @property
    def least_kept(self) -> float:
        """The lower threshold."""
        return 0.6 * self.found_score if self.kept_score is None else self.kept_score


@dataclass(frozen=True, eq=False)
class TrackedInstance:
    """What is known of one instance after a frame.

    Args:
        name: of the object.
        track_id: its number among the object's instances, from 0; None while none was ever found.
        state: ``searching`` while none was ever found, ``found``, or ``lost``.
        box: ``(4,)`` float64 xyxy pixels; None where this frame does not show it.
        score: of the box, 0 without one.
    """

    name: str
    track_id: int | None
    state: State
    box: Float[Tensor, "4"] | None = None
    score: float = 0.0


class TrackedFrame(NamedTuple):
    """A frame, counted from 0, its picture ``(h, w, 3)`` uint8 RGB, and what is known after it."""

    index: int
    image: np.ndarray
    instances: list[TrackedInstance]


@dataclass(eq=False)
class _Track:
    box: Tensor
    score: float
    hits: int = 1
    misses: int = 0
    lost: bool = False

    @property
    def shown(self) -> bool:
        return not self.lost and self.misses == 0


class _ObjectTracks:
    """The instances of one object: confirmed ones by number, and candidates that wait for it."""

    def __init__(self, name: str, settings: TrackSettings) -> None:
        self.name, self.settings = name, settings
        self.confirmed: list[_Track] = []
        self.candidates: list[_Track] = []

    def update(self, boxes: Float[Tensor, "n 4"], scores: Float[Tensor, " n"]) -> list[TrackedInstance]:
        known = [track for track in self.confirmed if not track.lost]
        left = self._continue(known, boxes, scores, scores >= self.settings.least_kept)
        for track in known:
            track.lost = track.misses >= self.settings.lose_frames
        left &= scores >= self.settings.found_score
        shown = [track.box for track in known if track.shown]
        if shown:
            left &= ~(iou_matrix(boxes, torch.stack(shown)) > _SAME_PLACE).any(dim=1)
        left = self._continue(self.candidates, boxes, scores, left)
        self.candidates = [track for track in self.candidates if track.misses == 0]
        self.candidates += [_Track(boxes[i], float(scores[i])) for i in left.nonzero().flatten().tolist()]
        self._confirm()
        return self.report()

    def _continue(
        self, tracks: Sequence[_Track], boxes: Tensor, scores: Tensor, usable: Tensor
    ) -> Float[Tensor, " n"] | Tensor:
        """Give each track the box that it moved to, if there is one, and say which boxes are left."""
        from scipy.optimize import linear_sum_assignment

        for track in tracks:
            track.misses += 1
        index = usable.nonzero().flatten()
        left = usable.clone()
        if not tracks or not len(index):
            return left
        likeness = pairwise(giou, torch.stack([track.box for track in tracks]), boxes[index])
        allowed = likeness >= self.settings.least_giou
        gain = torch.where(allowed, 1 + likeness, 0.0)  # what is not allowed adds nothing
        for row, column in zip(*linear_sum_assignment(gain.numpy(), maximize=True), strict=True):
            if not allowed[row, column]:
                continue
            track, chosen = tracks[row], int(index[column])
            share = self.settings.smoothing
            track.box = share * track.box + (1 - share) * boxes[chosen] if share else boxes[chosen]
            track.score, track.misses = float(scores[chosen]), 0
            track.hits += 1
            left[chosen] = False
        return left

    def _confirm(self) -> None:
        """Candidates that waited long enough take the number of the nearest lost instance, or a new one."""
        ready = [track for track in self.candidates if track.hits >= self.settings.confirm_frames]
        for track in sorted(ready, key=lambda track: -track.score):
            if sum(not known.lost for known in self.confirmed) == self.settings.max_instances:
                break
            self.candidates.remove(track)
            lost = [i for i, known in enumerate(self.confirmed) if known.lost]
            if lost:
                nearest = min(lost, key=lambda i: _distance(self.confirmed[i].box, track.box))
                self.confirmed[nearest] = track
            else:
                self.confirmed.append(track)

    def report(self) -> list[TrackedInstance]:
        if not self.confirmed:
            return [TrackedInstance(self.name, None, "searching")]
        return [
            TrackedInstance(self.name, number, "found", track.box, track.score)
            if track.shown
            else TrackedInstance(self.name, number, "lost" if track.lost else "found")
            for number, track in enumerate(self.confirmed)
        ]


def _distance(a: Tensor, b: Tensor) -> float:
    return float((cxcywh_from_xyxy(a)[:2] - cxcywh_from_xyxy(b)[:2]).norm())


class ObjectTracker:
    """Follows the instances of some objects from frame to frame; the same boxes give the same states.

    Args:
        names: of the objects.
        settings: when an instance is found and lost.

    Example:
        >>> tracker = ObjectTracker(["mug"], TrackSettings(confirm_frames=1, lose_frames=1))
        >>> seen = Detections(torch.tensor([[0.0, 0.0, 9.0, 9.0]]), torch.tensor([0.9]), ("mug",), (64, 48))
        >>> unseen = Detections(torch.zeros(0, 4), torch.zeros(0), (), (64, 48))
        >>> [tracker.update(frame)[0].state for frame in (unseen, seen, unseen, seen)]
        ['searching', 'found', 'lost', 'found']
    """

    def __init__(self, names: Iterable[str], settings: TrackSettings | None = None) -> None:
        self.settings = settings or TrackSettings()
        self._objects = {name: _ObjectTracks(name, self.settings) for name in names}

    def update(self, found: Detections) -> list[TrackedInstance]:
        """Take in one frame's detections, down to the lower threshold.

        Args:
            found: in the frame; of other objects they are ignored.

        Returns:
            Every instance that was ever found, and one entry for each object that never was.
        """
        report = []
        for name, tracks in self._objects.items():
            own = torch.tensor([each == name for each in found.names], dtype=torch.bool)
            report += tracks.update(found.boxes[own].double(), found.scores[own].double())
        return report

    @property
    def counts(self) -> dict[str, int]:
        """How many instances of each object the last frame showed."""
        return {
            name: sum(track.shown for track in tracks.confirmed) for name, tracks in self._objects.items()
        }

    def window(self, factor: float) -> Float[Tensor, "4"] | None:
        """Where to look in the next frame, once there is nothing else to look for.

        Args:
            factor: by how much larger than what was seen in the last frame.

        Returns:
            ``(4,)`` xyxy pixels around all instances, or None unless the last frame showed all that there
            may be.
        """
        if not self._objects or set(self.counts.values()) != {self.settings.max_instances}:
            return None
        boxes = torch.stack([track.box for own in self._objects.values() for track in own.confirmed])
        around = torch.cat([boxes[:, :2].amin(0), boxes[:, 2:].amax(0)])
        center, size = cxcywh_from_xyxy(around).split(2)
        return xyxy_from_cxcywh(torch.cat([center, size * factor]))


def follow(
    frames: Iterable[np.ndarray],
    detector: BankDetector[Bank],
    banks: Mapping[str, Bank],
    settings: TrackSettings | None = None,
    *,
    negatives: Sequence[Bank] = (),
    window: float | None = None,
) -> Iterator[TrackedFrame]:
    """Follow objects through frames, one of which is held at a time.

    Args:
        frames: ``(h, w, 3)`` uint8 RGB, in order.
        detector: finds them in each frame.
        banks: the objects by name.
        settings: when an instance is found and lost.
        negatives: look-alikes of any of them.
        window: look only so much around what the last frame showed, once that is all there may be; where
            that fails the whole frame is searched at once. None always searches the whole frame.

    Yields:
        Each frame with what :meth:`ObjectTracker.update` reports.

    Raises:
        ValueError: a window that is no larger than what is in it.
    """
    if window is not None and window <= 1:
        raise ValueError(f"window: expected a factor above 1, got {window}")
    tracker = ObjectTracker(banks, settings)

    def detect(image: np.ndarray, region: Tensor | None) -> Detections:
        return detector.detect(
            image,
            banks,
            negatives=negatives,
            score_threshold=tracker.settings.least_kept,
            max_instances=tracker.settings.max_instances,
            region=region,
        )

    for index, image in enumerate(frames):
        region = None if window is None else tracker.window(window)
        found = detect(image, region)
        if region is not None and Counter(found.names) != Counter(tracker.counts):
            found = detect(image, None)
        yield TrackedFrame(index, image, tracker.update(found))
