"""An evaluation in a terminal: every number beside its control.

In go episodes as rows and summaries; out come tables and sentences through a rich Console. Computes nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from topreward.evaluation.evaluate import EvalRun
from topreward.evaluation.rows import EpisodeRows, Row
from topreward.evaluation.success import LAST_SCORE, SCORES
from topreward.evaluation.summary import Evidence, Summary, Trend
from topreward.evaluation.versions import version_notes
from topreward.jobs.plan import FROZEN, OTHER, REAL, REVERSED, TIME_INDEX
from topreward.metrics import Interval
from topreward.report.text import say, shorten, showable

MOST_EPISODES = 30
"""Lines of the episode table; all of them are in episodes.parquet."""

MOST_NAME = 12
"""Columns of an estimator's name."""

MOST_NOTES = 8
"""Different sentences; all of them are in results.json."""

MARKS: dict[Evidence, str] = {"none": " (!)", "undecided": " (?)"}
HEADINGS = {REAL: "VOC", FROZEN: "frozen", REVERSED: "reversed", OTHER: "other instr."}


def show_results(console: Console, run: EvalRun, summaries: Sequence[Summary]) -> None:
    """All of it: episodes, VOC with its controls, warnings, labels, true progress, cost, and what failed."""
    estimators = [s.estimator for s in summaries if s.estimator != TIME_INDEX]
    show_table(console, episode_table(run.episodes, estimators, console.width))
    if len(run.episodes) > MOST_EPISODES:
        say(console, f"… and {len(run.episodes) - MOST_EPISODES} more episodes")
    show_table(console, voc_table(summaries))
    show_table(console, trend_table(summaries))
    for summary in summaries:
        if summary.sentence:
            style = "bold red" if summary.evidence == "none" else "yellow"
            mark = MARKS.get(summary.evidence, "").strip()
            say(console, f"{mark} {summary.sentence}".strip(), style)
    for line in failure_lines(summaries):
        say(console, line)
    if any(s.success for s in summaries):
        show_table(console, success_table(summaries))
    if any(s.truth for s in summaries):
        show_table(console, truth_table(summaries))
    for line in cost_lines(run, summaries):
        say(console, line)
    for line in note_lines(run):
        say(console, line, "yellow")
    for episode in run.episodes:
        if episode.error is not None:
            say(console, f"failed: {episode.id}: {episode.error}", "red")


def note_lines(run: EvalRun) -> list[str]:
    """What a careful reader must know, each sentence once."""
    notes = list(dict.fromkeys(note for episode in run.episodes for note in episode.notes))
    lines = [f"note: {note}" for note in notes[:MOST_NOTES]]
    if len(notes) > MOST_NOTES:
        lines.append(f"note: … and {len(notes) - MOST_NOTES} more, in results.json")
    if run.changed:
        lines.append(f"note: scored again, for their videos were replaced since the last run: {run.changed} episodes")
    return lines + [f"note: {note}" for note in version_notes(run.episodes)]


def episode_table(episodes: Sequence[EpisodeRows], estimators: Sequence[str], width: int = 80) -> Table:
    """A line per episode: the VOC of each estimator's real video, and of its frozen one.

    `width`: columns of the terminal. Ids and instructions are shortened to what the numbers leave; instructions are
    left out where that is next to nothing.
    """
    controlled = any(row.control == FROZEN for episode in episodes for row in episode.rows)
    table = plain_table("VOC per episode" + (", the frozen video's in brackets" if controlled else ""))
    shown = episodes[:MOST_EPISODES]
    numbers: list[list[str]] = []
    for episode in shown:
        found = {(row.estimator, row.control): row for row in episode.rows}
        prefixes = str(next((row.prefixes for row in episode.rows if row.prefixes), ""))
        pairs = ((found.get((e, REAL)), found.get((e, FROZEN)) if e != "debiased" else None) for e in estimators)
        numbers.append([prefixes, *(_pair(*pair) for pair in pairs)])
    names = ["K", *(shorten(e, MOST_NAME) for e in estimators)]
    columns = [max([len(name), *(len(row[i]) for row in numbers)]) for i, name in enumerate(names)]
    ids, texts = _room(
        width - sum(columns) - 2 * len(columns) - 3,  # two between columns, and the edges
        max([len("episode"), *(cell_len(showable(e.id)) for e in shown)]),
        max([len("instruction"), *(cell_len(showable(e.instruction)) for e in shown)]),
    )
    add_columns(table, ["episode", *(["instruction"] if texts else [])], justify="left")
    add_columns(table, names)
    for episode, row in zip(shown, numbers, strict=True):
        told = [shorten(episode.id, ids), *([shorten(episode.instruction, texts)] if texts else [])]
        table.add_row(*(Text(cell) for cell in (*told, *row)))
    return table


def _room(left: int, ids: int, instructions: int) -> tuple[int, int]:
    """Columns for ids and for instructions out of those that are left, a space between them included."""
    if left >= ids + instructions + 2:
        return ids, instructions
    if left < 34:
        return max(min(ids, left - 1), 8), 0
    # Ids tell episodes apart: they get what they need first, up to three fifths.
    told = min(ids, max(left * 3 // 5, left - 2 - instructions))
    return told, left - 2 - told


def voc_table(summaries: Sequence[Summary]) -> Table:
    """A line per estimator: VOC of the real video, and of every control beside it."""
    controls = _controls(summaries)
    episodes = max(s.trends[REAL].episodes for s in summaries)
    table = plain_table(f"VOC over {episodes} episodes: mean, 95 % interval, of how many if not of all")
    add_columns(table, ["estimator"], justify="left")
    add_columns(table, [HEADINGS[control] for control in controls])
    for s in summaries:
        every = s.trends[REAL].episodes
        cells = [voc_cell(s.trends[c], every) if c in s.trends else "" for c in controls]
        style = "bold red" if s.evidence == "none" else None
        table.add_row(_named(s.estimator, MARKS.get(s.evidence, "")), *cells, style=style)
    return table


def trend_table(summaries: Sequence[Summary]) -> Table:
    """A line per estimator: what else there is to say of the same curves."""
    slopes = _controls(summaries)
    table = plain_table("the same curves: median VOC, mean tau, slopes over the whole clip")
    add_columns(table, ["estimator"], justify="left")
    names = {REAL: "slope", OTHER: "other"}
    add_columns(table, ["median", "undef.", "tau", "unit", *(names.get(c, HEADINGS[c]) for c in slopes)])
    for s in summaries:
        real = s.trends[REAL]
        cells = [number(real.voc_median), str(real.voc.undefined), number(real.kendall_tau.mean), s.unit or ""]
        cells += [_slope(s.trends[c].slope.mean) if c in s.trends and s.trends[c].slope.count else "" for c in slopes]
        table.add_row(_named(s.estimator), *cells)
    return table


def _slope(value: float) -> str:
    """Narrow enough for a terminal, also in percent per clip."""
    return f"{value:+.2f}" if abs(value) < 10 else f"{value:+.1f}" if abs(value) < 99.95 else f"{value:+.0f}"


def failure_lines(summaries: Sequence[Summary]) -> list[str]:
    """Both ways to count the answers that could not be read, where there are any."""
    lines = []
    for s in summaries:
        real = s.trends[REAL]
        if real.failures:
            lines.append(
                f"{s.estimator}: {real.failures} of {real.episodes - real.errors} answers failed "
                f"({100 * real.failure_rate:.0f} %). VOC with failures as undefined: {_line(real.voc)}; "
                f"as 0: {_line(real.voc_failures_as_zero)}"
            )
    return lines


def success_table(summaries: Sequence[Summary]) -> Table:
    """A line per estimator: how its score tells success. gap: mean of successes minus mean of failures."""
    known = [s for s in summaries if s.success]
    first = known[0].success
    assert first is not None
    named = "; ".join(f"{s.estimator}: {s.success.score}" for s in known if s.success and s.estimator in SCORES)
    table = plain_table(
        f"success, {first.successes} of {first.successes + first.failures} episodes, told by the {LAST_SCORE}"
        + (f" ({named})" if named else "")
        + f"; threshold from {first.split}"
    )
    add_columns(table, ["estimator"], justify="left")
    add_columns(table, ["AUC", "gap", "threshold", "accuracy", "majority", "ECE", "no score"])
    for s in known:
        found = s.success
        assert found is not None
        table.add_row(
            _named(s.estimator),
            number(found.roc_auc),
            interval(found.gap),
            number(found.threshold),
            f"{number(found.accuracy)}\nn = {found.tested_on}",
            number(found.majority),
            "" if found.calibration is None else number(found.calibration.ece),
            str(found.undefined),
        )
    return table


def truth_table(summaries: Sequence[Summary]) -> Table:
    """A line per estimator: mean absolute error, Pearson's r and Spearman's rho over all prefixes' last frames."""
    known = [s for s in summaries if s.truth]
    first = known[0].truth
    assert first is not None
    table = plain_table(
        f"against true progress, {first.episodes} episodes: mean abs. error, correlations over all frames"
    )
    add_columns(table, ["estimator"], justify="left")
    add_columns(table, ["error", "min-max", "r", "min-max r", "rho", "frames"])
    for s in known:
        found = s.truth
        assert found is not None
        cells = [interval(found.mae) if found.mae.count else "", interval(found.mae_minmax)]
        cells += [number(found.pearson), number(found.pearson_minmax), number(found.spearman)]
        cells += [str(found.frames) + (f"\n{found.undefined} undef." if found.undefined else "")]
        table.add_row(_named(s.estimator), *cells)
    return table


def cost_lines(run: EvalRun, summaries: Sequence[Summary]) -> list[str]:
    """Seconds of decoding, of the real videos, and of the controls on top."""
    lines = []
    for s in summaries:
        if s.cost is not None:
            controls = f", controls {s.cost.control_seconds:.1f} s more ({s.cost.ratio:.2f}x)"
            tokens = f", {s.cost.tokens} tokens" if s.cost.tokens else ""
            lines.append(
                f"{s.estimator}: {s.cost.real_seconds:.1f} s{controls if s.cost.control_seconds else ''}{tokens}"
            )
    decode = sum(episode.decode_seconds for episode in run.episodes)
    frames = sum(episode.decoded_frames for episode in run.episodes)
    lines.append(f"decoding: {decode:.1f} s, {frames} frames, each episode once for all estimators and controls")
    return lines


def number(value: float) -> str:
    """Three decimals, or that there is none."""
    return "undef." if math.isnan(value) else f"{value:.3f}"


def interval(found: Interval) -> str:
    """The mean, and its interval on a second line."""
    if not found.count or math.isnan(found.mean):
        return "undef."
    return f"{found.mean:.3f}" + ("" if math.isnan(found.low) else f"\n{found.low:.2f} … {found.high:.2f}")


def voc_cell(found: Trend, episodes: int) -> str:
    """The mean VOC with its interval, and of how many curves it is where that is not all of them."""
    text = interval(found.voc)
    if found.voc.count == episodes:
        return text
    flat = f"\n{found.constant} flat" if found.constant else ""
    return f"{text}\n{found.voc.count}/{episodes}{flat}"


def _line(found: Interval) -> str:
    return interval(found).replace("\n", " (") + (")" if not math.isnan(found.low) else "")


def plain_table(title: str) -> Table:
    """One without lines but below its head."""
    return Table(title=title, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))


def add_columns(table: Table, names: Sequence[str], *, justify: Literal["left", "right"] = "right") -> None:
    """Columns that are never cut off or folded."""
    for name in names:
        table.add_column(Text(name), justify=justify, no_wrap=True)


def _named(estimator: str, mark: str = "") -> Text:
    """An estimator's name, which may be a user's own, beside its mark."""
    return Text(shorten(estimator, MOST_NAME) + mark)


def show_table(console: Console, table: Table) -> None:
    """A table below its title, which may be wider than it; where it is wider than the terminal, packed closer."""
    say(console, table.title, "bold")
    table.title = None
    if console.measure(table, options=console.options.update(width=10_000)).maximum > console.width:
        table.padding = 0
    console.print(table)


def _controls(summaries: Sequence[Summary]) -> list[str]:
    return [c for c in HEADINGS if any(c in s.trends for s in summaries)]


def _pair(real: Row | None, frozen: Row | None) -> str:
    if real is None or real.error is not None:
        return "failed" if real is not None else ""
    if real.failure is not None:
        return "no answer"
    # round brackets: square ones are markup
    return _order(real) if frozen is None else f"{_order(real)} ({_order(frozen)})"


def _order(row: Row) -> str:
    """An episode's VOC; a constant curve has none."""
    if row.error is not None or row.failure is not None:
        return "failed"
    return "flat" if math.isnan(row.voc) else f"{row.voc:.2f}"
