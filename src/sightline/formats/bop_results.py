"""Pose results as BOP takes them: ``METHOD_DATASET-SPLIT.csv``, millimetres in the file, metres here."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from sightline.formats.atomic import atomic_write
from sightline.formats.bop_models import MM
from sightline.formats.json_files import clean_rotations
from sightline.geometry.poses import make_pose
from sightline.records import PoseEstimate

HEADER = "scene_id,im_id,obj_id,score,R,t,time"
UNKNOWN_TIME = -1.0
_TIME_SLACK_S = 1e-3  # what BOP's own check lets pass


@dataclass(frozen=True, eq=False)
class BopResult:
    """One row: an object that a method says is in a picture.

    Args:
        scene_id: of the picture.
        im_id: of the picture.
        obj_id: of the object.
        score: higher is surer.
        cam_from_obj: ``(4, 4)`` float64, metres.
        time: seconds for the whole picture, the same in all of its rows; -1 unknown.
    """

    scene_id: int
    im_id: int
    obj_id: int
    score: float
    cam_from_obj: Float[Tensor, "4 4"]
    time: float = UNKNOWN_TIME


def results_from_poses(
    scene_id: int,
    im_id: int,
    poses: Iterable[PoseEstimate],
    obj_ids: Mapping[str, int],
    time: float | int = UNKNOWN_TIME,
) -> list[BopResult]:
    """Make the rows of one picture; poses that are not valid are left out.

    Args:
        scene_id: of the picture.
        im_id: of the picture.
        poses: what was found in it, by name.
        obj_ids: the number of each name.
        time: seconds for the picture, -1 unknown.

    Returns:
        One row a valid pose.

    Raises:
        ValueError: a name without a number.

    Example:
        >>> pose = PoseEstimate(torch.eye(3).double(), torch.ones(3).double(), 0.9, valid=True, name="mug")
        >>> [row.obj_id for row in results_from_poses(2, 3, [pose, PoseEstimate.failure("lost")], {"mug": 7})]
        [7]
    """
    rows = []
    for pose in poses:
        if not pose.valid:
            continue
        if pose.name not in obj_ids:
            raise ValueError(f"obj_ids: expected a number for {pose.name!r}, there are {sorted(obj_ids)}")
        rows.append(
            BopResult(scene_id, im_id, obj_ids[pose.name], pose.score, pose.cam_from_obj, float(time))
        )
    return rows


def read_bop_results(path: str | Path) -> list[BopResult]:
    """Read a results file and check it as BOP's server does.

    Args:
        path: the CSV file.

    Returns:
        Its rows in order.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: another header, a row that is malformed or truncated, no rotation, or different times in
            one picture; with the line's number.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "sift_lmo-test.csv"
        >>> write_bop_results(path, [BopResult(2, 3, 5, 0.9, torch.eye(4, dtype=torch.float64))])
        >>> row = read_bop_results(path)[0]
        >>> row.scene_id, row.obj_id, row.score, row.time
        (2, 5, 0.9, -1.0)
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such results file")
    lines = path.read_text(encoding="utf-8").splitlines()
    if not lines or lines[0].strip() != HEADER:
        raise ValueError(f"{path}: line 1: expected the header {HEADER!r}, got {lines[0] if lines else ''!r}")
    rows = _parse([(f"{path}: line {i}", line) for i, line in enumerate(lines[1:], start=2) if line.strip()])
    _require_one_time(rows, path)
    return rows


def _parse(lines: Sequence[tuple[str, str]]) -> list[BopResult]:
    """The rows of all lines, each given with its place; the poses are checked and converted in one go."""
    ids, numbers = [], []
    for where, line in lines:
        cells = line.split(",")
        if len(cells) != 7:
            raise ValueError(f"{where}: expected 7 values between commas ({HEADER}), got {len(cells)}")
        ids.append(_whole_numbers(cells[:3], where))
        named = zip(cells[3:], (1, 9, 3, 1), HEADER.split(",")[3:], strict=True)
        numbers.append([x for cell, count, name in named for x in _numbers(cell, count, f"{where}: {name}")])
    table = torch.tensor(numbers, dtype=torch.float64).reshape(-1, 14)
    R = clean_rotations(table[:, 1:10].reshape(-1, 3, 3), [f"{where}: R" for where, _ in lines])
    poses = make_pose(R, table[:, 10:13] * MM)
    return [
        BopResult(*row_ids, score=values[0], cam_from_obj=pose, time=values[-1])
        for row_ids, values, pose in zip(ids, numbers, poses, strict=True)
    ]


def _whole_numbers(cells: list[str], where: str) -> tuple[int, int, int]:
    try:
        scene_id, im_id, obj_id = (int(cell) for cell in cells)
    except ValueError as error:
        raise ValueError(f"{where}: scene_id, im_id, obj_id: expected whole numbers, got {cells}") from error
    return scene_id, im_id, obj_id


def _numbers(cell: str, count: int, where: str) -> list[float]:
    try:
        values = [float(word) for word in cell.split()]
    except ValueError as error:
        raise ValueError(f"{where}: expected numbers, got {cell!r}") from error
    if len(values) != count or not all(map(math.isfinite, values)):
        raise ValueError(f"{where}: expected {count} finite numbers between spaces, got {cell.strip()!r}")
    return values


def _require_one_time(rows: Sequence[BopResult], path: Path) -> None:
    times: dict[tuple[int, int], float] = {}
    for row in rows:
        first = times.setdefault((row.scene_id, row.im_id), row.time)
        if abs(first - row.time) > _TIME_SLACK_S:
            raise ValueError(
                f"{path}: time: expected the same in all rows of scene {row.scene_id}, image {row.im_id} "
                f"(it is the time for the whole picture), got {first:g} and {row.time:g}"
            )


def write_bop_results(path: str | Path, rows: Iterable[BopResult]) -> None:
    """Write a results file that BOP's server accepts.

    Args:
        path: where to; its name must be as :func:`parse_results_name` wants it.
        rows: in order.

    Raises:
        ValueError: a name that the server would misread, NaN, a negative time other than -1, or different
            times in one picture.

    Example:
        >>> write_bop_results("my_method_lmo-test.csv", [])
        Traceback (most recent call last):
        ...
        ValueError: my_method_lmo-test.csv: expected METHOD_DATASET-SPLIT.csv with no "_" in METHOD
    """
    path = Path(path)
    parse_results_name(path)
    rows = list(rows)
    _require_one_time(rows, path)
    lines = [HEADER, *(_format(row, f"{path}: row {i}") for i, row in enumerate(rows))]
    with atomic_write(path) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8", newline="\n")


def _format(row: BopResult, where: str) -> str:
    if not (bool(row.cam_from_obj.isfinite().all()) and math.isfinite(row.score)):
        raise ValueError(f"{where}: expected finite numbers; leave poses that are not valid out")
    if not (row.time >= 0 or row.time == UNKNOWN_TIME):
        raise ValueError(f"{where}: time: expected seconds, or -1 for unknown, got {row.time}")
    R = " ".join(map(repr, row.cam_from_obj[:3, :3].flatten().tolist()))
    t = " ".join(map(repr, (row.cam_from_obj[:3, 3] / MM).tolist()))
    return f"{row.scene_id},{row.im_id},{row.obj_id},{row.score!r},{R},{t},{row.time!r}"


class ResultsName(NamedTuple):
    """What the name of a results file says."""

    method: str
    dataset: str
    split: str
    split_type: str | None = None
    submission: str | None = None


_NAME = re.compile(
    r"(?P<method>[^_]+)_(?P<dataset>[^_-]+)-(?P<split>[^_-]+)(?:-(?P<type>[^_-]+))?(?:_(?P<id>[^_]+))?"
)


def parse_results_name(path: str | Path) -> ResultsName:
    """Read the name of a results file, ``METHOD_DATASET-SPLIT[-TYPE][_ID].csv``.

    Args:
        path: the file or its name.

    Returns:
        Its parts.

    Raises:
        ValueError: another form.

    Example:
        >>> parse_results_name("vpog-rgb_lmo-test_a1.csv")
        ResultsName(method='vpog-rgb', dataset='lmo', split='test', split_type=None, submission='a1')
    """
    path = Path(path)
    found = _NAME.fullmatch(path.stem)
    if found is None or path.suffix.lower() != ".csv":
        raise ValueError(f'{path}: expected METHOD_DATASET-SPLIT.csv with no "_" in METHOD')
    return ResultsName(found["method"], found["dataset"], found["split"], found["type"], found["id"])


def results_name(
    method: str,
    dataset: str,
    split: str = "test",
    *,
    split_type: str | None = None,
    submission: str | None = None,
) -> str:
    """The name of a results file.

    Args:
        method: without ``_``; those of other people's names become ``-``.
        dataset: such as ``lmo``.
        split: such as ``test``.
        split_type: such as ``primesense``.
        submission: the server's number.

    Returns:
        The name with ``.csv``.

    Example:
        >>> results_name("my_method", "lmo")
        'my-method_lmo-test.csv'
    """
    parts = [dataset, split] + ([split_type] if split_type else [])
    name = f"{method.replace('_', '-')}_{'-'.join(parts)}{f'_{submission}' if submission else ''}.csv"
    parse_results_name(name)
    return name
