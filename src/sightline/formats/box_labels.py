"""Boxes as lines of text: which of four forms a folder of label files uses, and its boxes as the house's.

One line holds one box; an empty file says that the object is absent. ``xyxy`` (``x1 y1 x2 y2``, pixels),
``xyxy-normalised`` (the same in shares of the picture), ``xywh`` (left, top, width, height, pixels) and
``yolo`` (``class cx cy w h``, shares) all measure from the picture's edge. The form is found over all files
together: a single line may fit two of them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from sightline.formats.atomic import atomic_write
from sightline.formats.pixel_boxes import pixel_edges_from_xyxy, xyxy_from_pixel_edges
from sightline.geometry.boxes import clip

LineFormat = Literal["xyxy", "xyxy-normalised", "xywh", "yolo"]
LINE_FORMATS: tuple[str, ...] = get_args(LineFormat)

_OVERHANG_PX = 1.0  # rounded shares, and tools that count to the width, miss the edge by this much at most
_NORMALISED_LIMIT = 1.001
_LEAST_CONTRADICTIONS = 3


class LabelLine(NamedTuple):
    """The numbers of one line, and which line of the file it is (from 1)."""

    number: int
    values: tuple[float, ...]


@dataclass(frozen=True)
class LabelFile:
    """The lines of one label file, with the size of the picture that they speak of.

    Args:
        path: the file.
        image_size: ``(width, height)`` of its picture, pixels.
        lines: those that are not blank.
    """

    path: Path
    image_size: tuple[int, int]
    lines: tuple[LabelLine, ...]


class LabelBoxes(NamedTuple):
    """The boxes of one label file.

    Args:
        boxes: ``(n, 4)`` float64 xyxy pixels, within the picture.
        classes: the class of each box; None where the form has none.
    """

    boxes: Float[Tensor, "n 4"]
    classes: tuple[int, ...] | None


def read_label_file(path: str | Path, image_size: tuple[int, int]) -> LabelFile:
    r"""Read the numbers of a label file, of whatever form.

    Args:
        path: a text file; numbers are parted by blanks or commas.
        image_size: ``(width, height)`` of its picture, pixels.

    Returns:
        Its lines.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: no text, a word that is no number, or neither four nor five numbers; with file and line.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "a.txt"
        >>> _ = path.write_text("10 20 30 60\n\n")
        >>> read_label_file(path, (64, 64)).lines
        (LabelLine(number=1, values=(10.0, 20.0, 30.0, 60.0)),)
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such label file")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path}: expected lines of numbers, the file is not text ({error.reason})"
        ) from error
    lines = []
    for number, line in enumerate(text.splitlines(), start=1):
        words = line.replace(",", " ").split()
        if words:
            lines.append(LabelLine(number, _numbers(words, f"{path}:{number}", line)))
    return LabelFile(path, image_size, tuple(lines))


def _numbers(words: Sequence[str], where: str, line: str) -> tuple[float, ...]:
    try:
        values = tuple(float(word) for word in words)
    except ValueError as error:
        raise ValueError(f"{where}: expected numbers, got {line.strip()[:60]!r}") from error
    if len(values) not in (4, 5):
        raise ValueError(f"{where}: expected 4 numbers (x1 y1 x2 y2) or 5 (YOLO), got {len(values)}")
    if not all(map(math.isfinite, values)):
        raise ValueError(f"{where}: expected finite numbers, got {line.strip()[:60]!r}")
    return values


def convert_labels(file: LabelFile, line_format: LineFormat | str) -> LabelBoxes:
    """The boxes of a file whose form is known.

    Args:
        file: as read.
        line_format: one of ``LINE_FORMATS``.

    Returns:
        Boxes in the house's form; what sticks out by a pixel or less is cut off.

    Raises:
        ValueError: an unknown form, swapped corners, or a box outside the picture; with file and line.

    Example:
        >>> file = LabelFile(Path("a.txt"), (64, 64), (LabelLine(1, (10, 20, 30, 60)),))
        >>> convert_labels(file, "xyxy").boxes.tolist()
        [[9.5, 19.5, 29.5, 59.5]]
    """
    if line_format not in LINE_FORMATS:
        raise ValueError(f"label_format: expected one of {', '.join(LINE_FORMATS)}; got {line_format!r}")
    for line in file.lines:
        fault = _fault(line, line_format, file.image_size)
        if fault:
            raise ValueError(f"{file.path}:{line.number}: {fault}")
    rows = [_edges(line.values, line_format, file.image_size) for line in file.lines]
    edges = torch.tensor(rows, dtype=torch.float64).reshape(-1, 4)
    classes = tuple(int(line.values[0]) for line in file.lines) if line_format == "yolo" else None
    return LabelBoxes(clip(xyxy_from_pixel_edges(edges), file.image_size), classes)


def _edges(values: tuple[float, ...], line_format: str, size: tuple[int, int]) -> list[float]:
    """``xyxy`` pixels from the picture's edge."""
    a, b, c, d = values[-4:]
    if line_format == "xywh":
        c, d = a + c, b + d
    elif line_format == "yolo":
        a, b, c, d = a - c / 2, b - d / 2, a + c / 2, b + d / 2
    width, height = size if line_format in ("xyxy-normalised", "yolo") else (1, 1)
    return [a * width, b * height, c * width, d * height]


def _fault(line: LabelLine, line_format: str, size: tuple[int, int]) -> str | None:
    """What keeps a line from being a box of this form in a picture of this size; None if nothing does."""
    wanted = 5 if line_format == "yolo" else 4
    shown = " ".join(f"{value:g}" for value in line.values)
    if len(line.values) != wanted:
        return f"expected {wanted} numbers ({line_format}), got {shown}"
    if line_format == "yolo" and (line.values[0] < 0 or line.values[0] % 1):
        return f"expected a class number first, got {shown}"
    x1, y1, x2, y2 = _edges(line.values, line_format, size)
    if x2 <= x1 or y2 <= y1:
        order = "x1 < x2 and y1 < y2" if line_format.startswith("xyxy") else "a width and height above 0"
        return f"expected {order} ({line_format}), got {shown}"
    if min(x1, y1) < -_OVERHANG_PX or x2 > size[0] + _OVERHANG_PX or y2 > size[1] + _OVERHANG_PX:
        return f"expected a box ({line_format}) within the picture of {size[0]}x{size[1]}, got {shown}"
    return None


def find_line_format(files: Sequence[LabelFile]) -> str:
    """Which form all the lines of a folder have; ``xyxy`` where there is no line at all.

    Five numbers are YOLO's. Four numbers of which none exceeds 1 are shares. Four numbers of pixels are
    corners, or a corner and a size: whichever fits all pictures, but a size only where several lines cannot
    be corners, because a line or two may simply be wrong.

    Args:
        files: all label files of the folder.

    Returns:
        One of ``LINE_FORMATS``.

    Raises:
        ValueError: the lines fit two forms, or none (with the first line that does not fit).

    Example:
        >>> corners = LabelFile(Path("a.txt"), (64, 64), (LabelLine(1, (30, 20, 40, 60)),))
        >>> find_line_format([corners])
        'xyxy'
    """
    rows = [(file, line) for file in files for line in file.lines]
    if not rows:
        return "xyxy"
    _refuse_mixture(rows)
    if len(rows[0][1].values) == 5:
        return _checked(rows, "yolo")
    if all(_is_shares(line) for _, line in rows):
        return _checked(rows, "xyxy-normalised")
    no_corners = [(file, line) for file, line in rows if _fault(line, "xyxy", file.image_size)]
    no_sizes = [(file, line) for file, line in rows if _fault(line, "xywh", file.image_size)]
    if no_corners and not no_sizes and len(no_corners) >= max(_LEAST_CONTRADICTIONS, 0.1 * len(rows)):
        return "xywh"
    if no_corners:
        file, line = no_corners[0]
        hint = "" if no_sizes else "; if lines are x y width height, give label_format='xywh'"
        raise ValueError(f"{file.path}:{line.number}: {_fault(line, 'xyxy', file.image_size)}{hint}")
    if not no_sizes:
        raise ValueError(
            f"{rows[0][0].path.parent}: all {len(rows)} lines fit corners (x1 y1 x2 y2) and sizes (x y width "
            "height) alike; give label_format='xyxy' or label_format='xywh'"
        )
    return "xyxy"


def _is_shares(line: LabelLine) -> bool:
    return max(line.values) <= _NORMALISED_LIMIT


def _refuse_mixture(rows: Sequence[tuple[LabelFile, LabelLine]]) -> None:
    """Different numbers of columns, or shares among pixels, are two forms in one folder."""
    first_file, first = rows[0]
    for file, line in rows:
        if len(line.values) != len(first.values):
            raise ValueError(
                f"{file.path}:{line.number}: expected {len(first.values)} numbers as in "
                f"{first_file.path}:{first.number}, got {len(line.values)}; one folder has one form of labels"
            )
    if len(first.values) == 5:
        return
    shares = [(file, line) for file, line in rows if _is_shares(line) and any(v % 1 for v in line.values)]
    pixels = [(file, line) for file, line in rows if not _is_shares(line)]
    if shares and pixels:
        raise ValueError(
            f"{shares[0][0].path}:{shares[0][1].number}: seems to be in shares of the picture, but "
            f"{pixels[0][0].path}:{pixels[0][1].number} in pixels; give label_format= to read all as one form"
        )


def _checked(rows: Sequence[tuple[LabelFile, LabelLine]], line_format: str) -> str:
    for file, line in rows:
        fault = _fault(line, line_format, file.image_size)
        if fault:
            raise ValueError(f"{file.path}:{line.number}: {fault}")
    return line_format


def write_box_lines(path: str | Path, boxes: Float[Tensor, "n 4"]) -> None:
    r"""Write boxes as lines ``x1 y1 x2 y2``, pixels from the picture's edge; no box, an empty file.

    Args:
        path: where to.
        boxes: ``(n, 4)`` xyxy pixels.

    Raises:
        ValueError: a box that is not finite or has no extent.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "a.txt"
        >>> write_box_lines(path, torch.tensor([[9.5, 19.5, 29.5, 59.5]]))
        >>> path.read_text()
        '10 20 30 60\n'
    """
    if not bool((boxes.isfinite().all(-1) & (boxes[:, 2:] > boxes[:, :2]).all(-1)).all()):
        raise ValueError(
            f"{path}: boxes: expected finite xyxy with x1 < x2 and y1 < y2, got {boxes.tolist()}"
        )
    rows = pixel_edges_from_xyxy(boxes.double()).tolist()
    with atomic_write(path) as temporary:
        lines = (" ".join(f"{value:.10g}" for value in row) for row in rows)
        temporary.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
