from __future__ import annotations

import math

import pytest

from sightline.records import PoseEstimate
from sightline.vis.tables import PoseRow, Table, format_seconds, pose_table, timing_table
from tests.vis.scenes import make_estimate

TABLE = Table(("object", "score"), (("mug | <b>", "0.93"), ("杯", "[red]1[/red]")), (False, True))


def test_plain_text_is_aligned_wide_letters_too():
    lines = TABLE.plain().splitlines()
    assert lines[0] == "object" + 12 * " " + "score"
    assert lines[2] == "mug | <b>" + 10 * " " + "0.93"
    assert lines[3] == "杯" + 9 * " " + "[red]1[/red]"  # this letter is two columns wide
    assert str(TABLE) == TABLE.plain()


def test_line_breaks_stay_in_their_row():
    table = Table(("a",), (("one\ntwo",),), (False,))
    assert table.plain().splitlines()[-1] == "one two"
    assert table.markdown().splitlines()[-1] == "| one two |"


def test_markdown_escapes_what_would_end_a_cell():
    assert TABLE.markdown().splitlines() == [
        "| object | score |",
        "| --- | ---: |",
        "| mug \\| &lt;b> | 0.93 |",
        "| 杯 | [red]1[/red] |",
    ]


def test_html_escapes_and_aligns():
    text = TABLE.html()
    assert "<td>mug | &lt;b&gt;</td>" in text and '<td class="number">0.93</td>' in text
    assert '<th scope="col" class="number">score</th>' in text and "<b>" not in text


def test_rich_draws_lines_and_takes_text_as_text():
    text = TABLE.rich(width=60)
    assert text.startswith("╭") and "[red]1[/red]" in text and "\x1b" not in text
    assert "\x1b[1m" in TABLE.rich(color=True)


def test_rows_must_fit_the_header():
    with pytest.raises(ValueError, match=r"expected 2 cells in each row, got 1 in \('a',\)"):
        Table(("a", "b"), (("a",),), (False, False))
    with pytest.raises(ValueError, match="expected 2 cells"):
        Table(("a", "b"), (), (False,))


def test_the_table_of_poses_has_errors_and_their_share_of_the_distance():
    pose = make_estimate(t=(0.0, 0.0, 0.8))
    found = PoseRow.from_pose(
        pose, rotation_error=math.radians(0.57), translation_error=0.0024, seconds=0.123
    )
    lost = PoseRow.from_pose(PoseEstimate.failure("hidden", name="can"), rotation_error=1.0, seconds=0.02)
    assert lost.rotation_error is None and lost.distance is None
    table = pose_table([found, lost])
    assert table.header == (
        "object",
        "score",
        "distance",
        "rotation error",
        "translation error",
        "time",
        "note",
    )
    assert table.rows[0] == ("mug", "0.93", "800 mm", "0.57°", "2.4 mm (0.30 %)", "123 ms", "")
    assert table.rows[1] == ("can", "not found", "", "", "", "20 ms", "hidden")


def test_columns_that_nobody_knows_are_left_out():
    table = pose_table([PoseRow(name="mug", score=0.5, found=True)])
    assert table.header == ("object", "score")
    assert pose_table([]).plain().splitlines()[0].split() == ["object", "score"]


def test_timings_add_up():
    table = timing_table([("detect", 0.25), ("match", 0.75)])
    assert table.rows == (
        ("detect", "250 ms", "25.0 %"),
        ("match", "750 ms", "75.0 %"),
        ("total", "1.00 s", "100 %"),
    )
    assert timing_table([("nothing", 0.0)]).rows[-1] == ("total", "0.0 ms", "")
    assert format_seconds(math.nan) == "unknown"
