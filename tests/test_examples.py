"""Every example runs and writes what it says, here with next to nothing to learn from."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.mark.filterwarnings("ignore:some masks cover fewer")
def test_insert_object(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    arguments = ["--seeds", "1", "--steps", "4", "--rooms", "6", "--output", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["insert_object.py", *arguments])
    runpy.run_path(str(EXAMPLES / "insert_object.py"), run_name="__main__")
    rows = json.loads((tmp_path / "table.json").read_text())
    assert [row["arm"] for row in rows if row["seed"] == "all"] == ["truth", "without", "with", "shuffled"]
    truth = next(row for row in rows if row["arm"] == "truth")
    assert truth["iou"] > 0.6
    assert truth["p95"] < 0.5
    assert all((tmp_path / name).stat().st_size > 5000 for name in ("errors.png", "pictures.png"))
    assert "mask IoU" in capsys.readouterr().out
