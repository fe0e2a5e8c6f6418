"""Tables for people: one set of cells, written as plain text, Markdown, HTML or for a rich terminal."""

from __future__ import annotations

import html
import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sightline.records import PoseEstimate
from sightline.vis.words import format_angle, format_length


@dataclass(frozen=True)
class Table:
    """Cells of text under a header.

    Args:
        header: one title a column.
        rows: as many cells each as there are titles.
        numeric: whether each column holds numbers, which stand to the right.

    Raises:
        ValueError: a row of another length than the header.

    Example:
        >>> table = Table(("object", "score"), (("mug", "0.93"), ("tea box", "0.9")), (False, True))
        >>> print(table.plain())
        object   score
        -------  -----
        mug       0.93
        tea box    0.9
    """

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numeric: tuple[bool, ...]

    def __post_init__(self) -> None:
        """Check that all rows have the header's length."""
        wanted = len(self.header)
        for row in (self.numeric, *self.rows):
            if len(row) != wanted:
                raise ValueError(f"table: expected {wanted} cells in each row, got {len(row)} in {row}")

    def __str__(self) -> str:
        return self.plain()

    def plain(self) -> str:
        """The table in aligned plain text, wide characters counted as two."""
        from rich.cells import cell_len

        lines = (self.header, *self.rows)
        lines = tuple(tuple(" ".join(cell.split()) for cell in line) for line in lines)
        widths = [max(cell_len(cell) for cell in column) for column in zip(*lines, strict=True)]
        ruled = (lines[0], tuple("-" * width for width in widths), *lines[1:])
        texts = []
        for line in ruled:
            cells = []
            for cell, width, right in zip(line, widths, self.numeric, strict=True):
                space = " " * (width - cell_len(cell))
                cells.append(space + cell if right else cell + space)
            texts.append("  ".join(cells).rstrip())
        return "\n".join(texts)

    def markdown(self) -> str:
        """The table as GitHub writes it."""
        rule = tuple("---:" if right else "---" for right in self.numeric)
        lines = [self.header, rule, *self.rows]
        return "\n".join(f"| {' | '.join(map(_escape_markdown, line))} |" for line in lines)

    def html(self) -> str:
        """The table as HTML, all text escaped."""
        places = [' class="number"' if right else "" for right in self.numeric]
        head = "".join(
            f'<th scope="col"{place}>{html.escape(cell)}</th>'
            for cell, place in zip(self.header, places, strict=True)
        )
        body = "".join(
            "<tr>"
            + "".join(f"<td{place}>{html.escape(cell)}</td>" for cell, place in zip(row, places, strict=True))
            + "</tr>"
            for row in self.rows
        )
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"

    def rich(self, *, width: int = 110, color: bool = False) -> str:
        """The table with lines around it, as rich draws it.

        Args:
            width: of the terminal, characters.
            color: whether to write the codes that colour a terminal.
        """
        from rich.box import ROUNDED
        from rich.console import Console
        from rich.table import Table as RichTable
        from rich.text import Text

        table = RichTable(box=ROUNDED, header_style="bold", safe_box=False)
        for title, right in zip(self.header, self.numeric, strict=True):
            table.add_column(Text(title), justify="right" if right else "left")
        for row in self.rows:
            table.add_row(*map(Text, row))  # as Text, square brackets are no markup
        sink = io.StringIO()
        system = "truecolor" if color else None
        Console(file=sink, width=width, force_terminal=color, color_system=system).print(table)
        return sink.getvalue().rstrip("\n")


@dataclass(frozen=True, kw_only=True)
class PoseRow:
    """One line of a table of poses; what is not known is None and gets no column if no row knows it.

    Args:
        name: the object.
        score: in [0, 1].
        found: whether the pose is valid.
        rotation_error: against the truth, radians.
        translation_error: against the truth, metres.
        distance: of the object from the camera, metres; makes the translation error a share of it.
        seconds: the time it took.
        note: for example why it was not found.
    """

    name: str
    score: float
    found: bool
    rotation_error: float | None = None
    translation_error: float | None = None
    distance: float | None = None
    seconds: float | None = None
    note: str = ""

    @classmethod
    def from_pose(
        cls,
        pose: PoseEstimate,
        *,
        rotation_error: float | None = None,
        translation_error: float | None = None,
        seconds: float | None = None,
    ) -> PoseRow:
        """The row of an estimate, which knows its name, score, distance and reason.

        Args:
            pose: an estimate; errors of an invalid one are not shown.
            rotation_error: against the truth, radians.
            translation_error: against the truth, metres.
            seconds: the time it took.
        """
        return cls(
            name=pose.name or "object",
            score=pose.score,
            found=pose.valid,
            rotation_error=rotation_error if pose.valid else None,
            translation_error=translation_error if pose.valid else None,
            distance=float(pose.t.norm()) if pose.valid else None,
            seconds=seconds,
            note=pose.reason,
        )


def pose_table(rows: Sequence[PoseRow]) -> Table:
    """Poses as a table: object, score, distance, rotation error, translation error, time, note.

    Args:
        rows: one a pose.

    Returns:
        The table, without the columns that no row has a value for.

    Example:
        >>> found = PoseRow(name="mug", score=0.93, found=True, rotation_error=0.01, seconds=0.12)
        >>> lost = PoseRow(name="box", score=0.0, found=False, note="3 matches, 4 are needed")
        >>> print(pose_table([found, lost]))
        object      score  rotation error    time  note
        ------  ---------  --------------  ------  -----------------------
        mug          0.93           0.57°  120 ms
        box     not found                          3 matches, 4 are needed
    """
    columns = [
        ("object", False, [row.name for row in rows]),
        ("score", True, [f"{row.score:.2f}" if row.found else "not found" for row in rows]),
        ("distance", True, [_known(row.distance, format_length) for row in rows]),
        ("rotation error", True, [_known(row.rotation_error, format_angle) for row in rows]),
        ("translation error", True, [_translation_error(row) for row in rows]),
        ("time", True, [_known(row.seconds, format_seconds) for row in rows]),
        ("note", False, [row.note for row in rows]),
    ]
    always = ("object", "score")
    shown = [column for column in columns if column[0] in always or any(column[2])]
    titles, numeric, cells = zip(*shown, strict=True)
    return Table(titles, tuple(zip(*cells, strict=True)), numeric)


def timing_table(timings: Sequence[tuple[str, float]]) -> Table:
    """The stages of a computation, their seconds, their shares and the sum.

    Args:
        timings: name and seconds of each stage, in order.

    Returns:
        The table; its last row is the total.

    Example:
        >>> print(timing_table([("matching", 0.03), ("PnP", 0.01)]))
        stage      time   share
        --------  -----  ------
        matching  30 ms  75.0 %
        PnP       10 ms  25.0 %
        total     40 ms   100 %
    """
    total = math.fsum(seconds for _, seconds in timings)
    rows = [
        (stage, format_seconds(seconds), f"{100 * seconds / total:.1f} %" if total > 0 else "")
        for stage, seconds in timings
    ]
    rows.append(("total", format_seconds(total), "100 %" if total > 0 else ""))
    return Table(("stage", "time", "share"), tuple(rows), (False, True, True))


def format_seconds(seconds: float) -> str:
    """A duration as people write it.

    Args:
        seconds: any number; NaN is said to be unknown.

    Returns:
        For example "120 ms" or "2.50 s".

    Example:
        >>> format_seconds(0.0042), format_seconds(0.12), format_seconds(2.5)
        ('4.2 ms', '120 ms', '2.50 s')
    """
    if not math.isfinite(seconds):
        return "unknown"
    if seconds >= 1:
        return f"{seconds:.2f} s"
    milliseconds = 1e3 * seconds
    return f"{milliseconds:.0f} ms" if milliseconds >= 10 else f"{milliseconds:.1f} ms"


def _known(value: float | None, write: Callable[[float], str]) -> str:
    return "" if value is None else write(value)


def _translation_error(row: PoseRow) -> str:
    if row.translation_error is None:
        return ""
    text = format_length(row.translation_error, digits=2)
    if row.distance is None or not row.distance > 0:
        return text
    return f"{text} ({100 * row.translation_error / row.distance:.2f} %)"


def _escape_markdown(cell: str) -> str:
    return " ".join(cell.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").split())
