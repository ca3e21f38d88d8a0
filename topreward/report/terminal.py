"""Curves in a terminal.

In go Curves; out comes text through a rich Console. Knows nothing of models or videos.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from rich.text import Text

from topreward.metrics import kendall_tau, voc
from topreward.report.text import say, showable
from topreward.types import Curve

BLOCKS = " ▁▂▃▄▅▆▇█"


def show_curve(console: Console, curve: Curve, *, height: int = 8) -> None:
    """A table of all prefixes, the curve as a picture, and its VOC."""
    say(console, curve.instruction, "italic")
    table = Table()
    columns = {"log p True": curve.log_prob_true, "log p False": curve.log_prob_false}
    if curve.log_prob_true is None or not np.array_equal(curve.log_prob_true, curve.values, equal_nan=True):
        columns = {f"value ({curve.unit})": curve.values, **columns}
    columns["progress"] = curve.progress()
    shown = {name: values for name, values in columns.items() if values is not None}
    for name in ("frames", "time (s)", *shown):
        table.add_column(Text(showable(name)), justify="right", no_wrap=True)
    for i in range(len(curve)):
        numbers = [_number(values[i]) for values in shown.values()]
        table.add_row(str(curve.prefix_lengths[i]), f"{curve.times[i]:.2f}", *numbers)
    console.print(table)
    for line in plot_lines(curve, width=max(20, min(console.width - 12, 72)), height=height):
        say(console, line, wrap=False)
    defined = curve.values[~np.isnan(curve.values)]
    span = f"{defined.max() - defined.min():.3g} {curve.unit}" if defined.size else "undefined"
    say(
        console, f"VOC {_number(voc(curve.values))}   Kendall's tau {_number(kendall_tau(curve.values))}   range {span}"
    )
    for note in curve.notes:
        say(console, f"note: {note}", "yellow")


def plot_lines(curve: Curve, *, width: int, height: int) -> list[str]:
    """The curve over time as lines of block characters, its range on the left."""
    columns = _columns(curve, width)
    defined = columns[~np.isnan(columns)]
    if defined.size == 0:
        return ["(no defined value)"]
    low, high = float(defined.min()), float(defined.max())
    # Eighths of a row; a constant curve is drawn along the bottom. Undefined columns stay empty.
    scale = (height * 8 - 1) / (high - low) if high > low else 0.0
    filled = np.where(np.isnan(columns), 0, 1 + np.round((columns - low) * scale)).astype(int)
    lines = []
    for row in reversed(range(height)):
        label = f"{high:9.3g} " if row == height - 1 else f"{low:9.3g} " if row == 0 else " " * 10
        lines.append(label + "│" + "".join(BLOCKS[min(8, max(0, f - row * 8))] for f in filled))
    end = f"{curve.times[-1]:.1f} s"
    lines.append(" " * 10 + "└" + "─" * width)
    lines.append(" " * 11 + "0 s" + end.rjust(width - 3))
    return lines


def _columns(curve: Curve, width: int) -> NDArray[np.float64]:
    # The last prefix seen by each column's time: nothing is drawn that was not computed.
    times = np.linspace(0, curve.times[-1], width)
    return curve.values[np.maximum(np.searchsorted(curve.times, times + 1e-9, side="right") - 1, 0)]


def _number(value: float) -> str:
    return "undefined" if math.isnan(value) else f"{value:.3f}"
