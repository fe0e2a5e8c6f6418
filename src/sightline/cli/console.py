"""The terminal that verbs write to."""

from __future__ import annotations

from rich.console import Console

_WIDTH_OF_FILES = 120  # a pipe or a file has no width of its own; tables must not be folded there


def make_console() -> Console:
    """A console that folds tables to the terminal's width, and to 120 columns elsewhere."""
    console = Console()
    return console if console.is_terminal else Console(width=_WIDTH_OF_FILES)
