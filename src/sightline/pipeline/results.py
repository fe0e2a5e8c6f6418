"""What a run found, collected picture by picture: numbers only, no pictures."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import torch

import sightline
from sightline.formats.result_records import ImageResult, ObjectResult
from sightline.formats.results import write_results
from sightline.pipeline.estimate import FoundObject
from sightline.pipeline.focal import ChosenCamera
from sightline.pipeline.sources import Frame


class PoseLog:
    """Collects what was found in the pictures of a source.

    Args:
        chosen: the camera of all pictures.
    """

    def __init__(self, chosen: ChosenCamera) -> None:
        self._chosen = chosen
        self.images: list[ImageResult] = []
        self.num_valid: Counter[str] = Counter()
        self.best_scores: list[float] = []
        self.any_valid: list[bool] = []

    def add(self, frame: Frame, found: list[FoundObject], seconds: float) -> None:
        """Take in the objects of one picture and the time it took."""
        valid = [one for one in found if one.pose.valid]
        self.num_valid.update({one.card.name for one in valid})
        self.best_scores.append(max((one.pose.score for one in found), default=0.0))
        self.any_valid.append(bool(valid))
        self.images.append(image_result(frame.name, self._chosen, found, seconds))

    def write(self, path: Path) -> None:
        """Write everything as results JSON."""
        meta = {
            "program": f"sightline {sightline.__version__}",
            "units": "m",
            "camera": self._chosen.reason,
            "focal_std_px": self._chosen.focal_std_px,
        }
        write_results(path, self.images, meta)


def image_result(name: str, chosen: ChosenCamera, found: list[FoundObject], seconds: float) -> ImageResult:
    """One picture's objects in the form in which they go to files.

    Args:
        name: the picture's.
        chosen: its camera.
        found: what was found, and what was not.
        seconds: for the picture.
    """
    objects = tuple(
        ObjectResult(
            one.card.name,
            one.pose.score,
            box=one.box if bool(torch.isfinite(one.box).all()) and one.pose.valid else None,
            # which of hundreds of matches were inliers is for the report; the file keeps what users read
            pose=replace(one.pose, inliers=None),
        )
        for one in found
    )
    return ImageResult(name, objects, chosen.camera, chosen.camera.image_size, seconds)
