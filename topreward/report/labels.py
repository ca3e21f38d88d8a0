"""Labels in a terminal: what was taken over the dataset, whether to trust it, and which episodes to look at first.

In go Labels; out come a few lines and a table through a rich Console. Computes nothing.
"""

from __future__ import annotations

import math

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from topreward.labels.derive import Labels
from topreward.report.text import say, showable

MOST_ANCHORS = 6
"""Instructions whose anchors are shown; all of them are in summary.json."""

MOST_TO_LOOK_AT = 10

MOST_REASONS = 2
"""Of an episode; all of them are in review.jsonl."""


def show_labels(console: Console, labels: Labels) -> None:
    """All but the audit."""

    done = len(labels.episodes) - len(labels.unlabelled)
    frames = sum(kept.num_frames for kept in labels.episodes)
    say(console, f"{labels.estimator}: {done} of {labels.planned} episodes labelled, {frames} frames")
    for line in [*_anchor_lines(labels), *_signal_lines(labels), *_success_lines(labels)]:
        say(console, line)
    looks = labels.first_to_look_at
    if looks:
        console.print(_review_table(labels))
        if len(looks) > MOST_TO_LOOK_AT:
            say(console, f"… and {len(looks) - MOST_TO_LOOK_AT} more, in review.jsonl")
    for note in labels.notes:
        say(console, f"note: {note}", "yellow")
    for kept in labels.unlabelled:
        say(console, f"no labels: {kept.id}: {kept.why_not or 'its curve is undefined'}", "red")


def show_audit(console: Console, labels: Labels) -> None:
    """Whether the labels follow the clock: the last word, in red where they do."""
    style = "bold red" if labels.audit.alarming else "yellow" if labels.audit.verdict == "not decided" else ""
    say(console, labels.audit.sentence, style)


def _anchor_lines(labels: Labels) -> list[str]:
    anchors = labels.overall.anchors
    lines = []
    shared = [text for text, anchor in anchors.items() if anchor.over == "all"]
    own = [text for text, anchor in anchors.items() if anchor.over == "instruction"]
    for text in [*own[:MOST_ANCHORS], *shared[:1]]:
        anchor = anchors[text]
        unit = next((kept.unit for kept in labels.episodes if kept.unit), "")
        over = f"{anchor.episodes} episodes of '{text}'" if text in own else f"all {anchor.episodes} episodes"
        lines.append(f"anchored progress is 0 at {anchor.low:.4g} {unit}, 1 at {anchor.high:.4g}, over {over}")
    if len(own) > MOST_ANCHORS:
        lines.append(f"… and {len(own) - MOST_ANCHORS} more instructions' own, in summary.json")
    return lines


def _signal_lines(labels: Labels) -> list[str]:
    overall, chosen = labels.overall, labels.settings
    if overall.gains is None:
        return []
    horizon = f"advantage over {chosen.horizon} frames of {chosen.column}"
    beta = "undefined: it does not vary" if math.isnan(overall.beta) else f"{overall.beta:.3g}"
    lines = [f"{horizon}: standard deviation {overall.advantage_std:.3g}, beta of its weights {beta}"]
    told = f"{overall.kappa:g}"
    if chosen.kappa is None:
        told += ", about half the mean" if overall.kappa_suggested is not None else ", LeRobot's default"
    elif overall.kappa_suggested is not None:
        told += f" (suggested: {overall.kappa_suggested:g})"
    lines.append(
        f"gain over a chunk of {chosen.chunk_size} frames: mean {overall.gains.raw_mean:.3g}, standard deviation "
        f"{overall.gains.std:.3g}; kappa {told}"
    )
    return lines


def _success_lines(labels: Labels) -> list[str]:
    told = labels.overall.success
    if labels.settings.success_threshold is not None:
        return [f"success is predicted from a score of {labels.settings.success_threshold:g} on, as given"]
    if told is None:
        return []
    return [
        f"success is predicted from a {told.score} of {told.threshold:.4g} on, fitted on {told.fitted_on} labels "
        f"({told.split}); on the other {told.tested_on} it is right in {_share(told.accuracy)}, always saying the more "
        f"frequent one in {_share(told.majority)}"
    ]


def _review_table(labels: Labels) -> Table:
    table = Table(title="look at these first", title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("episode", overflow="fold")
    table.add_column("instruction", overflow="fold")
    table.add_column("why", overflow="fold")
    for kept, facts in labels.first_to_look_at[:MOST_TO_LOOK_AT]:
        why = "; ".join(facts.reasons[:MOST_REASONS])
        table.add_row(*(Text(showable(cell)) for cell in (kept.id, kept.instruction, why)))
    return table


def _share(value: float) -> str:
    return "an unknown share" if math.isnan(value) else f"{100 * value:.0f} %"
