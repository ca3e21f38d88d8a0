"""Text from outside is shown as text: in the terminal, in tables, in pictures and in files."""

from __future__ import annotations

import io
import json
import re
import warnings
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from scorers import Bright, Load, bright_clip, episodes, make_curve, prefix_lengths
from topreward.cli.terminal import Terminal, one_line
from topreward.errors import ConfigError, VideoError
from topreward.evaluation import EvalRun, Folder, Plan, evaluate, summarise
from topreward.evaluation.results import write_results, write_single_file
from topreward.evaluation.suite import Suite, SuiteDataset, SuiteRow
from topreward.jobs.plan import ESTIMATORS
from topreward.report.plots import plot_curves, save_figure
from topreward.report.suite import show_suite
from topreward.report.tables import show_results
from topreward.report.terminal import show_curve
from topreward.report.text import say, shorten, showable
from topreward.types import Episode

HOSTILE = [
    "\x1b[31mred\x1b[0m",
    "\x1b]8;;http://x\x07link\x1b]8;;\x07",
    "\x9b31m",
    "a\x00b\x07\x08\x7f",
    "line\nfeed\r\ttab\x85\u2028\u2029",
    "\u202eesrever\u202c \u2066x\u2069 \u200f\u061c",
    "zero\u200bwidth\u200d\ufeff\u2060\u00ad\U000e0041",
    "blank\u3164\u2800\u115f",
    "[red]not red[/red] [link=http://x]y[/link] [/]",
    ":fire: :smiley:",
    r"$\frac{ $x_1 $$ \$",
    "_begins with an underscore",
    "把杯子拿起来 👩‍💻 ünï",
    "e" + "\u0301" * 5000,
    "long " * 1600,
    "\ud800 half a pair",
]
ACTS = re.compile(
    "[\x00-\x09\x0b-\x1f\x7f-\x9f\u00ad\u061c\u115f\u1160\u200b-\u200f\u2028-\u202e\u2060-\u206f\u2800\u3164\ufeff\ud800-\udfff]"
)
"""What a terminal acts upon, or does not show; not the line ends of our own."""
ENCODABLE = [text for text in HOSTILE if not text.startswith("\ud800") and text.strip()]


@given(st.text())
def test_what_is_showable_is_one_line_that_shows(text: str) -> None:
    shown = showable(text)
    assert not ACTS.search(shown)
    assert "\n" not in shown
    assert showable(shown) == shown
    for width in (1, 2, 7, 30):
        assert cell_len(shorten(text, width)) <= width
        assert len(shorten(text, width)) <= 8 * width + 1


def test_plain_text_stays_and_the_rest_is_spelled_out() -> None:
    assert showable("pick up the cup, größer 把 \u00a0") == "pick up the cup, größer 把 \u00a0"
    assert showable("\x1b[0m\n\u202e\U000e0041\udc80") == r"\x1b[0m\n\u202e\U000e0041\udc80"
    assert shorten("demo-0-000-close_drawer-never_starts", 18) == "demo-0-00…r_starts"
    assert shorten("short", 18) == "short"


def terminals(width: int) -> list[Console]:
    """Ours, and one that would take markup and emoji names at their word."""
    return [
        kind(file=io.StringIO(), width=width, force_terminal=False, color_system=None) for kind in (Terminal, Console)
    ]


def text_of(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.mark.parametrize("text", HOSTILE)
def test_a_line_of_the_terminal(text: str) -> None:
    for console in terminals(80):
        say(console, f"error: {text}", wrap=False)
        assert text_of(console) == f"error: {showable(text)}\n"
    ours = terminals(10**6)[0]
    ours.print(text)
    assert text_of(ours) == showable(text, lines=True) + "\n"


def go(path: Path | None, listed: list[Episode], plan: Plan) -> tuple[EvalRun, list[Any]]:
    scorers = {base: Bright() for base in plan.bases}
    with Folder(path) as folder:
        run = evaluate(Load(scorers), lambda: listed, plan, folder)
        summaries = summarise(run.episodes, plan)
        if path is not None:
            write_results(folder, run, summaries)
            write_single_file(path.with_suffix(".json"), folder, run, summaries)
        return run, summaries


def fails(text: str) -> Any:
    raise VideoError(f"{text}: no such file")


def test_everything_an_evaluation_prints_and_writes(tmp_path: Path) -> None:
    clip = partial(bright_clip, range(0, 120, 10))
    listed = [Episode(f"{i}{text}", text, clip, split=text) for i, text in enumerate(ENCODABLE)]
    listed += [Episode(f"x{i}", "do it", partial(fails, text)) for i, text in enumerate(HOSTILE)]
    plan = Plan(("topreward", "[red]mine :fire:\x1b[0m"))
    run, summaries = go(tmp_path / "r", listed, plan)
    for width in (80, 120):
        for console in terminals(width):
            show_results(console, run, summaries)
            shown = text_of(console)
            assert not ACTS.search(shown)
            assert "🔥" not in shown
            assert ":fire:" in shown
            assert "[red]" in shown
    for data in (tmp_path / "r" / "results.json", tmp_path / "r.json"):
        results = json.loads(data.read_text(encoding="utf-8"))
        assert [e["instruction"] for e in results["episodes"]][: len(ENCODABLE)] == ENCODABLE
        assert f"{HOSTILE[-1]}: no such file" in [e["error"] for e in results["episodes"]]
    table = pq.read_table(tmp_path / "r" / "episodes.parquet").to_pydict()
    assert set(ENCODABLE) <= set(table["instruction"])
    assert any(error and r"\ud800 half a pair" in error for error in table["error"])


def test_the_table_of_a_suite() -> None:
    listed = [replace(e, id=f"e{i}") for i, e in enumerate(episodes(4))]
    _, summaries = go(None, listed, Plan(("topreward", "gvl")))
    reported = {"topreward": 0.947}
    rows = [
        SuiteRow(SuiteDataset(name=name, reported=reported, reported_frozen=reported), tuple(summaries), 4)
        for name in ("[red]:fire:\x1b[31m", "n" * 200)
    ]
    rows.append(SuiteRow(SuiteDataset(name="c"), error="\x1b]0;x\x07", notes=("\u202e",)))
    suite = Suite(suite="[red]\x1b[31m", datasets=tuple(row.dataset for row in rows))
    for width in (80, 120):
        for console in terminals(width):
            show_suite(console, suite, rows)
            shown = text_of(console)
            assert not ACTS.search(shown)
            assert "🔥" not in shown
            assert shown.count("(0.947)") == 2  # the last column is there, whole
            assert max(cell_len(line) for line in shown.splitlines()) <= width


@pytest.mark.parametrize("estimators", [ESTIMATORS, ("topreward",), ("topreward", "a scorer of one's own")])
@pytest.mark.parametrize("width", [80, 120])
def test_tables_do_not_wrap(estimators: tuple[str, ...], width: int) -> None:
    listed = [replace(e, id=f"demo-0-{i:03}-close_the_upper_drawer-never_starts") for i, e in enumerate(episodes(6))]
    listed[1] = replace(listed[1], load=partial(bright_clip, [40] * 12))
    listed[2] = replace(listed[2], instruction="put the very small blue cup onto the very large red plate, gently")
    run, summaries = go(None, listed, Plan(estimators))
    for console in terminals(width):
        show_results(console, run, summaries)
        lines = text_of(console).splitlines()
        assert max(cell_len(line) for line in lines) <= width
        table = lines[: next(i for i, line in enumerate(lines) if line.startswith("VOC over"))]
        rows = [line for line in table if line.strip().startswith("demo-0-")]
        assert len(rows) == len([line for line in table[3:] if line.strip()]) - 1 == 6  # and the line below the head
        for row in rows:
            assert re.search(r"(?:\d|flat|flat\)|\))\s*$", row)
        tables = "\n".join(line for line in lines if not line.strip().startswith("demo-0-"))
        assert not re.search(r"\d…|…\d|\w…\s{2}", tables)  # no number and no heading is cut
        for name in ("estimator", "reversed", "other instr.", "threshold", "majority", "min-max r"):
            assert name in tables


@pytest.mark.parametrize("text", ENCODABLE)
@pytest.mark.parametrize("ending", ["png", "svg", "pdf"])
def test_a_picture_of_any_instruction(tmp_path: Path, text: str, ending: str) -> None:
    clip = bright_clip(range(0, 120, 10))
    values = np.linspace(-3, -1, prefix_lengths(12).size)
    curves = {text: make_curve(clip, text, values), "another": make_curve(clip, "another", values + 1)}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = plot_curves(curves, {text: clip})
        save_figure(figure, tmp_path / f"a.{ending}")
    [legend] = [axes.get_legend() for axes in figure.axes if axes.get_legend()]
    first, second = (entry.get_text() for entry in legend.get_texts())
    assert first.endswith("VOC 1.00")
    assert first.startswith(showable(text)[:5])
    assert second.startswith("another")
    if ending == "svg":
        from xml.etree import ElementTree

        ElementTree.parse(tmp_path / "a.svg")


@pytest.mark.parametrize("text", ENCODABLE)
def test_a_curve_in_the_terminal(text: str) -> None:
    clip = bright_clip(range(0, 120, 10))
    curve = make_curve(clip, text, np.linspace(-3, -1, prefix_lengths(12).size), notes=(text,))
    for console in terminals(80):
        show_curve(console, curve)
        shown = text_of(console)
        assert not ACTS.search(shown)
        assert "🔥" not in shown


def test_the_line_of_an_error() -> None:
    assert one_line(ConfigError("a\n  b")) == "a b"
    assert one_line(PermissionError(13, "Permission denied", "/x/y")) == "/x/y: Permission denied"
    assert one_line(OSError(28, "No space left on device")) == "No space left on device"
    assert one_line(KeyError("x")) == "unexpected KeyError: 'x' (--debug shows where)"
