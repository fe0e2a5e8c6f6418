"""The progress bar of a run."""

from __future__ import annotations

import time
from collections.abc import Mapping

_SECONDS_BETWEEN = 0.1


class ProgressBar:
    """A line in the terminal: epoch, step, loss, time left. Silent where there is no terminal.

    Args:
        total_steps: steps of the whole run.
        steps_per_epoch: steps of an epoch.
        visible: whether it is shown at all.

    Example:
        >>> with ProgressBar(10, 5, visible=False) as bar:
        ...     bar.advance(3)
    """

    def __init__(self, total_steps: int, steps_per_epoch: int, *, visible: bool) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        console = Console(stderr=True)
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
            console=console,
            auto_refresh=False,
            disable=not (visible and console.is_terminal),
        )
        self._task = self._bar.add_task("training", total=total_steps, note="")
        self._steps_per_epoch = steps_per_epoch
        self._epochs = -(-total_steps // steps_per_epoch)
        self._next = 0.0

    def __enter__(self) -> ProgressBar:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.refresh()
        self._bar.stop()

    def advance(self, step: int) -> None:
        """Show that ``step`` steps are made; draws at most ten times a second."""
        now = time.monotonic()
        if now < self._next or self._bar.disable:
            return
        self._next = now + _SECONDS_BETWEEN
        epoch = min(step // self._steps_per_epoch + 1, self._epochs)
        self._bar.update(self._task, completed=step, description=f"epoch {epoch}/{self._epochs}")
        self._bar.refresh()

    def note(self, figures: Mapping[str, float]) -> None:
        """Show figures behind the bar."""
        text = "  ".join(f"{name} {value:.4g}" for name, value in list(figures.items())[:4])
        self._bar.update(self._task, note=text)
