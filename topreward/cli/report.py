"""`topreward report`: a page of a run, of one curve, or of two runs side by side."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import tyro

from topreward.cli.terminal import out, progress_bar
from topreward.errors import ConfigError
from topreward.files import check_target

if TYPE_CHECKING:
    from topreward.jobs.inputs import Inputs
    from topreward.report.page import Source, Written


@dataclass(frozen=True)
class ReportOptions:
    """A page to look at a run: its videos beside their curves. It opens from disk, with no network."""

    results: tyro.conf.Positional[tuple[Path, ...]]
    """The --output folder of eval or label, or the --json of score; two folders are set side by side."""
    output: Path | None = None
    """The page, *.html; by default page.html in the folder, or beside the curve."""
    video: Path | None = None
    """The video of a single curve, if it is no longer where it was."""
    max_inline_mb: float = 25.0
    """A page of more than 30 episodes, or larger than this (10^6 bytes), becomes a folder with side files."""
    films: bool = True
    """Show the videos; without them a page takes seconds."""
    debug: tyro.conf.FlagCreatePairsOff[bool] = False
    """Show tracebacks."""


def report(options: ReportOptions) -> int:
    """Write the page; say where it is and in which form."""
    from topreward.report.page import open_source

    if not 1 <= len(options.results) <= 2:
        raise ConfigError(f"{len(options.results)} results are given; a page shows one run, or two side by side")
    sources = [open_source(path, video=options.video) for path in options.results]
    first = options.results[0].expanduser()
    if options.output is not None:
        target = options.output
    elif len(sources) == 2:
        target = first / f"page-beside-{options.results[1].name}.html"
    else:
        target = first / "page.html" if first.is_dir() else first.with_suffix(".html")
    say(draw(sources, target, max_inline_mb=options.max_inline_mb, films=options.films))
    return 0


def draw(sources: list[Source], target: Path, *, max_inline_mb: float = 25.0, films: bool = True) -> Written:
    """Write a page, with a bar."""
    from topreward.report.page import write_page

    with progress_bar() as bar:
        task = bar.add_task("drawing the page", total=None)
        return write_page(
            sources,
            target,
            max_inline_mb=max_inline_mb,
            films=films,
            on_start=lambda count: bar.update(task, total=count),
            on_done=lambda: bar.advance(task),
        )


def draw_run(folder: Path, inputs: Inputs, target: Path, max_inline_mb: float) -> Written:
    """The page of a run that has just been scored."""
    from topreward.jobs.stored import open_stored
    from topreward.report.page import of_run

    source = of_run(open_stored(folder), lambda: {episode.id: episode for episode in inputs()})
    return draw([source], target, max_inline_mb=max_inline_mb)


def check_page(target: Path, max_inline_mb: float = 25.0) -> None:
    """See that a page can be written there, before hours of work. Raises ConfigError."""
    from topreward.report.page import check_place

    check_target(target)
    check_place(target, max_inline_mb)


def say(written: Written) -> None:
    """Where the page is, and in which form."""
    form = "one file" if written.inline else "a folder with side files: send all of it"
    count = f"{written.episodes} episode{'' if written.episodes == 1 else 's'}"
    lost = written.episodes - written.films
    without = f", {lost} without video" if lost else ""
    out.print(f"page: {written.path}", markup=False, highlight=False, soft_wrap=True)
    out.print(f"  {count}{without}, {written.megabytes:.1f} MB, {form}", markup=False, highlight=False)
