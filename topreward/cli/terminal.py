"""Where commands print, the bar of long work, and how a command ends."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
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

from topreward.errors import TopRewardError

out = Console()
err = Console(stderr=True)


def progress_bar() -> Progress:
    """Episodes done, of how many, and how long yet."""
    columns = (SpinnerColumn(), TextColumn("{task.description}"), MofNCompleteColumn())
    return Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=err, transient=True)


def run(command: Callable[[Any], int], options: Any) -> NoReturn:
    """Run a command and exit: 0 done, 1 some episodes failed, 2 a named error, 130 interrupted."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal without a letter's code is no reason to fail
    try:
        status = command(options)
    except KeyboardInterrupt:
        err.print("interrupted")
        status = 130
    except Exception as error:
        if options.debug:
            raise
        named = isinstance(error, TopRewardError)
        text = " ".join(str(error).split())
        if not named:
            text = f"unexpected {type(error).__name__}: {text} (--debug shows where)"
        err.print(f"error: {text}", markup=False, highlight=False, soft_wrap=True)
        status = 2
    sys.exit(status)
