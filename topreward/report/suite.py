"""A suite in a terminal: every dataset's VOC beside its frozen video's and the paper's.

In go a suite and its rows; out come a table and sentences through a rich Console. Computes nothing but means.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from topreward.evaluation.suite import Suite, SuiteRow
from topreward.evaluation.summary import Trend
from topreward.jobs.plan import FROZEN, REAL, TIME_INDEX
from topreward.metrics import Interval, bootstrap_mean
from topreward.report.tables import MARKS, MOST_NAME, add_columns, interval, plain_table, show_table
from topreward.report.text import say, shorten, showable


def show_suite(console: Console, suite: Suite, rows: Sequence[SuiteRow]) -> None:
    """A row per dataset and estimator, the reported figure beside it; the mean over datasets; what is to be doubted."""
    show_table(console, suite_table(suite, rows, console.width))
    for line in suite_means(suite, rows):
        say(console, line)
    for row in rows:
        for s in row.summaries:
            if s.sentence and s.evidence in MARKS:
                line = f"{MARKS[s.evidence].strip()} {row.dataset.name}: {s.sentence}"
                say(console, line, "bold red" if s.evidence == "none" else "yellow")
    for row in rows:
        for note in row.notes:
            say(console, f"note: {row.dataset.name}: {note}", "yellow")
        if row.skipped:
            say(console, f"{row.dataset.name}: {row.skipped} episodes without an instruction were left out")
        if row.failed:
            line = f"{row.dataset.name}: {row.failed} of {row.episodes} episodes failed; the first: {row.first_failure}"
            say(console, line, "red")
        if row.error:
            say(console, f"{row.dataset.name}: {row.error}", "red")


def suite_table(suite: Suite, rows: Sequence[SuiteRow], width: int = 80) -> Table:
    """A row per dataset and estimator. n: defined VOCs of all episodes. `width`: columns of the terminal."""
    brackets = ", the reported frozen video's in brackets" if any(row.dataset.reported_frozen for row in rows) else ""
    table = plain_table(f"{suite.suite}: mean VOC, 95 % interval{brackets}")
    lines: list[tuple[str, list[str]]] = []
    for row in rows:
        for summary in row.summaries:
            if summary.estimator == TIME_INDEX:
                continue
            real, frozen = summary.trends[REAL], summary.trends.get(FROZEN)
            said = row.dataset.reported.get(summary.estimator)
            of_frozen = row.dataset.reported_frozen.get(summary.estimator)
            cells = [
                shorten(summary.estimator, MOST_NAME) + MARKS.get(summary.evidence, ""),
                f"{real.voc.count}/{real.episodes}",
                interval(real.voc),
                f"{100 * real.failure_rate:.0f} %" if real.failures else "",
                interval(real.voc_failures_as_zero) if real.failures else "",
                "" if frozen is None else interval(frozen.voc),
                "\n".join(
                    ["" if said is None else f"{said:.3f}", *([] if of_frozen is None else [f"({of_frozen:.3f})"])]
                ),
            ]
            lines.append((row.dataset.name, cells))
    names = ["estimator", "n", "VOC", "failed", "as 0", "frozen", "reported"]
    filled = [i for i, name in enumerate(names) if i < 3 or any(cells[i] for _, cells in lines)]
    widths = [max([len(names[i]), *(len(part) for _, cells in lines for part in cells[i].split("\n"))]) for i in filled]
    longest = max([len("dataset"), *(cell_len(showable(name)) for name, _ in lines)])
    room = max(min(longest, width - sum(widths) - 2 * len(widths) - 3), 6)
    add_columns(table, ["dataset", "estimator"], justify="left")
    add_columns(table, [names[i] for i in filled[1:]])
    for name, cells in lines:
        table.add_row(*(Text(cell) for cell in (shorten(name, room), *(cells[i] for i in filled))))
    return table


def suite_means(suite: Suite, rows: Sequence[SuiteRow]) -> list[str]:
    """A line per estimator: the mean over the datasets that have a VOC, how many those are, and what is reported."""
    trends: dict[str, list[Trend]] = {}
    for summary in (s for row in rows for s in row.summaries if s.estimator != TIME_INDEX):
        trends.setdefault(summary.estimator, []).append(summary.trends[REAL])
    lines = []
    for estimator, found in trends.items():
        mean = bootstrap_mean([t.voc.mean for t in found])
        line = f"{estimator}: mean over {mean.count} of {len(rows)} datasets: {_suite_cell(mean)}"
        if any(t.failures for t in found):
            zero = bootstrap_mean([t.voc_failures_as_zero.mean for t in found])
            line += f"; with failed answers as 0, over {zero.count} of {len(rows)}: {_suite_cell(zero)}"
        figures = ", ".join(f"{model} {f[estimator]:.3f}" for model, f in suite.reported.items() if estimator in f)
        lines.append(line + (f"; reported: {figures}" if figures else ""))
    return lines


def _suite_cell(interval: Interval) -> str:
    if not interval.count:
        return "undef."
    return f"{interval.mean:.3f}" + ("" if math.isnan(interval.low) else f" [{interval.low:.2f}, {interval.high:.2f}]")
