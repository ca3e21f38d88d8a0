"""Where commands print, the bar of long work, and how a command ends."""

from __future__ import annotations

import dataclasses
import io
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from rich.console import Console
from rich.progress import (
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from topreward.errors import ConfigError, TopRewardError
from topreward.report.text import say, showable


class Terminal(Console):
    """A console that shows text as it is: no `[markup]`, no `:emoji:`, no escape sequence out of a file's name."""

    def render_str(self, text: str, *, style: Any = "", justify: Any = None, overflow: Any = None, **_: Any) -> Text:
        return Text(showable(text, lines=True), style=style, justify=justify, overflow=overflow)


out = Terminal(highlight=False)
err = Terminal(stderr=True, highlight=False)

ENDING = ("SIGTERM", "SIGHUP")
"""What ends a command as Ctrl-C does: what is done is kept, what is temporary is removed."""
PATIENCE = 5.0
"""s in which a second signal does not disturb what the first one began."""


class Stopped(KeyboardInterrupt):
    """The process was told to end, by a signal's number."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def progress_bar() -> Progress:
    """Episodes done, of how many, and how long yet."""
    columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), MofNCompleteColumn())
    return Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=err, transient=True)


def require_working_folder() -> None:
    """Raise ConfigError where the folder that the command runs in was removed: libraries fail there without a word."""
    try:
        Path.cwd()
    except OSError as error:
        raise ConfigError(f"the working folder is gone ({error.strerror}); cd to one that is there") from error


def run(command: Callable[[Any], int], options: Any) -> NoReturn:
    """Run a command and exit.

    0 done, 1 some episodes failed, 2 a named error, 130 interrupted (Ctrl-C), 143 told to end (SIGTERM), 129 its
    terminal was closed (SIGHUP).
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without a letter's code is no reason to fail
    try:
        with stoppable():
            refuse_nul(options)
            require_working_folder()
            status = command(options)
    except KeyboardInterrupt as stop:
        with suppress(OSError):  # the terminal may be gone
            say(err, "interrupted")
        status = 128 + getattr(stop, "number", int(signal.SIGINT))
    except Exception as error:
        if options.debug:
            raise
        with suppress(OSError):
            say(err, f"error: {one_line(error)}", wrap=False)
        status = 2
    sys.exit(status)


def one_line(error: Exception) -> str:
    """What went wrong: our own words, the system's with the path, or the type of what nobody foresaw."""
    text = " ".join(str(error).split())
    if isinstance(error, TopRewardError):
        return text
    if isinstance(error, OSError) and error.strerror:
        why = " ".join(str(error.strerror).split())
        return f"{error.filename}: {why}" if error.filename else why
    return f"unexpected {type(error).__name__}: {text} (--debug shows where)"


@contextmanager
def stoppable() -> Iterator[None]:
    """Inside, SIGTERM and SIGHUP raise Stopped, as Ctrl-C raises KeyboardInterrupt; not where they are ignored (nohup)
    or mean something already."""
    before: dict[int, Any] = {}
    last = [-PATIENCE]

    def stop(number: int, _: FrameType | None) -> None:
        now = time.monotonic()
        if now - last[0] >= PATIENCE:
            last[0] = now
            raise Stopped(number)

    if threading.current_thread() is threading.main_thread():
        for number in (getattr(signal, name) for name in ENDING if hasattr(signal, name)):
            if signal.getsignal(number) == signal.SIG_DFL:
                before[number] = signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def refuse_nul(options: Any, name: str = "") -> None:
    """Raise ConfigError where an option, or one inside it, holds a NUL byte: no path, id or instruction has any."""
    if dataclasses.is_dataclass(options):
        for field in dataclasses.fields(options):
            refuse_nul(getattr(options, field.name), field.name)
    elif isinstance(options, tuple | list):
        for part in options:
            refuse_nul(part, name)
    elif options is not None and "\0" in str(options):
        raise ConfigError(f"--{name.replace('_', '-')} holds a NUL byte: {showable(options)}")
