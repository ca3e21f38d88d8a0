"""What a long job tells while it runs: episodes, frames per second, how long the model waited, and how long yet.

In goes a Run as it grows; a bar where there is a terminal, a plain line now and then where there is none. Knows nothing
of what is measured.
"""

from __future__ import annotations

import time
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import (
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from topreward.cli.terminal import err
from topreward.jobs.run import Run

SECONDS_BETWEEN_LINES = 30.0


class Bar:
    """Use it in a `with` block; tell it of the run, and of each episode."""

    def __init__(self, console: Console = err, *, every: float = SECONDS_BETWEEN_LINES) -> None:
        """`every`: s between lines where the console is no terminal."""
        self._console, self._every = console, every
        self._bar = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            MofNCompleteColumn(),
            TextColumn("{task.fields[pace]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task("loading", total=None, pace="")
        self._run: Run[Any] | None = None
        self._began = self._told = time.monotonic()
        self._before = 0

    def __enter__(self) -> Bar:
        self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._bar.stop()
        if self._run is not None and not self._console.is_terminal:
            self._line(last=True)

    def started(self, run: Run[Any]) -> None:
        """The episodes are known, none is measured yet."""
        self._run = run
        self._began = self._told = time.monotonic()
        self._bar.update(self._task, description="scoring", total=len(run.planned))

    def done(self, _: Any = None) -> None:
        """One more episode is done."""
        if self._run is None:
            return
        if not self._run.pace.elapsed:  # taken from the folder
            self._before = len(self._run.done)
        self._bar.update(self._task, completed=len(self._run.done), pace=pace(self._run))
        if not self._console.is_terminal and time.monotonic() - self._told >= self._every:
            self._line()

    def _line(self, last: bool = False) -> None:
        assert self._run is not None
        self._told = now = time.monotonic()
        done, planned = len(self._run.done), len(self._run.planned)
        parts = [f"{done} of {planned} episodes", pace(self._run)]
        if not last and done > self._before:
            left = (planned - done) * (now - self._began) / (done - self._before)
            parts.append(f"about {left:.0f} s left")
        self._console.print(", ".join(part for part in parts if part), highlight=False, markup=False, soft_wrap=True)


def pace(run: Run[Any]) -> str:
    """Frames per second, and the share of its time that the model waited for them; nothing before there are any."""
    seen = run.pace
    if not seen.elapsed:
        return ""
    rate = seen.frames * run.engine.workers / seen.elapsed
    return f"{rate:.1f} frames/s, model waited {100 * seen.waiting:.0f} %"
