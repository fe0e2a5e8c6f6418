"""What must never be: each test guards an absence that ARCHITECTURE.md names."""

import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCES = sorted((ROOT / "src" / "sightline").rglob("*.py"))
HEAVY = ("lightning", "matplotlib", "transformers")


def _run(*command: str) -> str:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_import_contract():
    tool = shutil.which("lint-imports", path=sysconfig.get_path("scripts"))
    if tool is None:
        pytest.skip("import-linter is not installed")
    assert "1 kept, 0 broken" in _run(tool, "--no-cache")


def test_no_long_file():
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in SOURCES}
    assert {str(path): length for path, length in lengths.items() if length > 400} == {}


def test_import_is_light():
    script = (
        "import time, torch\n"
        "started = time.perf_counter()\n"
        "import sightline\n"
        "took = time.perf_counter() - started\n"
        "import sys\n"
        f"print(took, [name for name in {HEAVY!r} if name in sys.modules])"
    )
    seconds, loaded = _run(sys.executable, "-c", script).strip().split(" ", 1)
    assert float(seconds) < 0.3
    assert loaded == "[]"


LIGHT_ROOMS = ("pipeline.estimate", "sift", "objects.card_files", "rendering", "metrics")


@pytest.mark.parametrize("room", [*LIGHT_ROOMS, "training", "depth_scale", "refdet"])
def test_rooms_are_light_too(room: str):
    loaded = _run(
        sys.executable,
        "-c",
        f"import sys, sightline.{room}; print([n for n in {HEAVY!r} if n in sys.modules])",
    )
    assert loaded.strip() == "[]"


def test_no_name_without_a_meaning():
    forbidden = {"utils", "util", "misc", "common", "helpers", "core", "base"}
    assert {
        part for path in SOURCES for part in path.relative_to(ROOT).with_suffix("").parts
    } & forbidden == set()


def test_guarding_tests_exist():
    """Every test that ARCHITECTURE.md names is there."""
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    for name in re.findall(r"`(tests/[\w/.]+(?:::\w+)?)`", text):
        path, _, function = name.partition("::")
        assert (ROOT / path).exists(), name
        if function:
            assert f"def {function}(" in (ROOT / path).read_text(encoding="utf-8"), name


def test_files_that_architecture_names_exist():
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    table = text.split("## To change X, open Y")[1].split("## How to add")[0]
    for name in re.findall(r"`(\w+/[\w/]+\.py)`", table):
        assert (ROOT / "src" / "sightline" / name).is_file(), name
