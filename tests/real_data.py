"""Where the real photographs and the golden numbers lie; tests that need an absent one skip and say so."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

_SHARED = Path(__file__).resolve().parents[2] / "shared"


def _existing(root: Path, name: str, hint: str) -> Path:
    path = root / name
    if not path.exists():
        pytest.skip(f"{name} is not there: {hint}")
    return path


def real_path(name: str) -> Path:
    """The path of a real file or folder, or skip the test."""
    root = Path(os.environ.get("SIGHTLINE_REAL_DATA", _SHARED / "real"))
    return _existing(root, name, "set SIGHTLINE_REAL_DATA to the folder of real photographs")


def golden_path(name: str) -> Path:
    """The path of a file of reference numbers, or skip the test."""
    root = Path(os.environ.get("SIGHTLINE_GOLDEN_DATA", _SHARED / "golden"))
    return _existing(root, name, "set SIGHTLINE_GOLDEN_DATA to the folder of reference numbers")
