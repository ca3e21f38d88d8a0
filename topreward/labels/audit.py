"""Whether labels follow the clock: the frozen videos of a few episodes, judged as an evaluation judges them.

In go the rows of real and frozen videos; out comes a verdict and a sentence. A curve that also rises where nothing
happens makes labels that say how much time has passed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from topreward.evaluation.rows import Row
from topreward.evaluation.summary import judge, trend
from topreward.jobs.plan import FROZEN, REAL
from topreward.metrics import Interval, bootstrap_mean

Verdict = Literal["follows the clock", "no evidence", "stands", "not decided"]

FEWEST = 5
"""Audited episodes below which nothing is decided."""


@dataclass(frozen=True)
class Audit:
    """What the frozen videos say of the labels."""

    verdict: Verdict
    sentence: str
    episodes: int
    """That were scored with their frozen video."""
    real: Interval
    """VOC of their real videos."""
    frozen: Interval
    """VOC of their frozen videos; constant curves are undefined."""

    @property
    def alarming(self) -> bool:
        """Whether labels should not be trained on as they are."""
        return self.verdict in ("follows the clock", "no evidence")


def audit(estimator: str, pairs: Sequence[tuple[Row, Row]]) -> Audit:
    """Judge (real, frozen) rows of the audited episodes, by the decision behind an evaluation's mark."""
    real, frozen = ([pair[place] for pair in pairs] for place in (0, 1))
    vocs = bootstrap_mean([row.voc for row in real]), bootstrap_mean([row.voc for row in frozen])

    def told(verdict: Verdict, sentence: str) -> Audit:
        return Audit(verdict, sentence, len(pairs), *vocs)

    undecided = f"{estimator}: it is not decided whether these labels follow the clock: "
    if len(pairs) < FEWEST:
        if estimator == "gvl" and not pairs:
            why = "GVL is shown its frames in random order, and frozen videos were not scored with it."
        else:
            why = f"{len(pairs)} episodes were scored with their frozen video, want {FEWEST} or more (--audit)."
        return told("not decided", undecided + why)
    trends = {REAL: trend(real), FROZEN: trend(frozen)}
    evidence, sentence = judge(estimator, trends)
    if evidence == "yes":
        values = f"{vocs[0].mean:.3f}, the frozen ones' " + (
            f"{vocs[1].mean:.3f}" if vocs[1].count > trends[FROZEN].constant else "is undefined: they are flat"
        )
        return told("stands", f"{estimator}: over {len(pairs)} audited episodes the real videos' VOC is {values}.")
    if evidence != "none":
        return told("not decided", undecided + sentence.removeprefix(f"{estimator}: "))
    if trends[REAL].voc.low > 0 and trends[REAL].voc_failures_as_zero.low > 0:
        return told("follows the clock", f"THESE LABELS FOLLOW THE CLOCK, by {len(pairs)} audited episodes. {sentence}")
    return told("no evidence", f"THESE LABELS ARE NOT SHOWN TO FOLLOW PROGRESS. {sentence}")
