"""What a run found, collected frame by frame and written as ``poses.json``."""

from __future__ import annotations

from collections import Counter

from sightline.pipeline.estimate import FoundObject
from sightline.pipeline.focal import ChosenCamera
from sightline.pipeline.sources import Frame, Source


class PoseLog:
    """Collects what was found; holds numbers only, no pictures."""

    def __init__(self, source: Source, chosen: ChosenCamera) -> None:
        self._source = source
        self._chosen = chosen
        self.num_frames = 0
        self.num_valid: Counter[str] = Counter()
        self.best_scores: list[float] = []
        self.any_valid: list[bool] = []

    def add(self, frame: Frame, found: list[FoundObject]) -> None:
        """Take in one picture's objects."""
        self.num_frames += 1
        valid = [one for one in found if one.pose.valid]
        self.num_valid.update({one.card.name for one in valid})
        self.best_scores.append(max((one.pose.score for one in found), default=0.0))
        self.any_valid.append(bool(valid))
