"""An evaluation: a job whose record of an episode is its rows.

In go what a job takes; out comes its Run, which holds rows. Knows no terminal.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from topreward.evaluation.rows import EpisodeRows, episode_rows
from topreward.jobs.engine import Engine
from topreward.jobs.episode import Measured
from topreward.jobs.folder import Folder
from topreward.jobs.plan import Plan
from topreward.jobs.run import OpenEpisodes, Run, run_job
from topreward.jobs.scorers import LoadScorers

EvalRun = Run[EpisodeRows]


def evaluate(
    load: LoadScorers,
    open_episodes: OpenEpisodes,
    plan: Plan,
    folder: Folder,
    *,
    settings: Mapping[str, Any] | None = None,
    engine: Engine | None = None,
    workers: int = 1,
    fail_fast: bool = False,
    on_start: Callable[[EvalRun], None] | None = None,
    on_done: Callable[[EpisodeRows], None] | None = None,
) -> EvalRun:
    """Measure all episodes that the folder does not hold yet, as `jobs.run.run_job` says; episodes become rows."""
    made: dict[str, str] = {}

    def record(measured: Measured) -> EpisodeRows:
        rows = episode_rows(measured, plan)
        for base, text in rows.made.items():  # one text for thousands of episodes
            rows.made[base] = made.setdefault(text, text)
        return rows

    return run_job(
        load,
        open_episodes,
        plan,
        folder,
        record=record,
        is_done=lambda rows: rows.error is None,
        settings=settings,
        engine=engine,
        workers=workers,
        fail_fast=fail_fast,
        on_start=on_start,
        on_done=on_done,
    )
