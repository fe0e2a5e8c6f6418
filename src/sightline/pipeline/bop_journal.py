"""What a run over a data set has found so far, a line a picture, so that it can go on after a stop."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

import torch

from sightline.formats.bop_results import BopResult


class PictureResult(NamedTuple):
    """What was found in a picture.

    Args:
        scene_id: of the picture.
        im_id: of the picture.
        pose_seconds: that finding the poses took.
        detector_seconds: that the detections took; 0 without any, -1 unknown.
        rows: the poses, without a time.
    """

    scene_id: int
    im_id: int
    pose_seconds: float
    detector_seconds: float
    rows: tuple[BopResult, ...]


class BopJournal:
    """A file beside a results file, ``.partial.jsonl``: first what the run is, then a line a picture.

    Args:
        results_file: the results file that the run will write.
        said: what the run is; a journal of another run is refused.

    Raises:
        ValueError: there is a journal of another run.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "sift_toys-test.csv"
        >>> BopJournal(path, {"method": "sift"}).add(PictureResult(1, 2, 0.5, 0.0, ()))
        >>> list(BopJournal(path, {"method": "sift"}).done)
        [(1, 2)]
    """

    def __init__(self, results_file: Path, said: dict[str, object]) -> None:
        self.path = results_file.with_name(f"{results_file.name}.partial.jsonl")
        self.done: dict[tuple[int, int], PictureResult] = {}
        head = json.dumps(said, sort_keys=True)
        lines = self.path.read_text(encoding="utf-8").splitlines(keepends=True) if self.path.is_file() else []
        if lines and lines[0].strip() != head:
            raise ValueError(
                f"{self.path}: the notes of another run, {lines[0].strip()}; delete them to start anew"
            )
        whole = [line for line in lines[1:] if line.endswith("\n")]  # a run may be stopped within a line
        for line in whole:
            picture = _read(line)
            self.done[picture.scene_id, picture.im_id] = picture
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text("".join([f"{head}\n", *whole]), encoding="utf-8")

    def add(self, picture: PictureResult) -> None:
        """Note what was found in a picture."""
        self.done[picture.scene_id, picture.im_id] = picture
        with self.path.open("a", encoding="utf-8") as file:
            file.write(_line(picture))

    def remove(self) -> None:
        """Remove the file, when the results are written."""
        self.path.unlink()


def _line(picture: PictureResult) -> str:
    rows = [[row.obj_id, row.score, row.cam_from_obj.flatten().tolist()] for row in picture.rows]
    return json.dumps([*picture[:4], rows]) + "\n"


def _read(line: str) -> PictureResult:
    scene_id, im_id, pose_seconds, detector_seconds, listed = json.loads(line)
    rows = tuple(
        BopResult(scene_id, im_id, obj_id, score, torch.tensor(pose, dtype=torch.float64).view(4, 4))
        for obj_id, score, pose in listed
    )
    return PictureResult(scene_id, im_id, pose_seconds, detector_seconds, rows)
