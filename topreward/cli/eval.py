"""`topreward eval`: VOC of estimators over many episodes, beside their controls."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from topreward.cli.job import JobOptions, score_episodes
from topreward.cli.report import check_page, draw_run
from topreward.cli.report import say as say_where
from topreward.cli.terminal import out
from topreward.files import check_target

if TYPE_CHECKING:
    from topreward.evaluation import EvalRun, Folder, Summary
    from topreward.jobs.inputs import Inputs
    from topreward.report.page import Written

DEMO_RUN = [
    *("--model", "demo", "--dataset", "demo:?videos=results/demo/videos"),
    *("--estimators", "topreward,log_odds,debiased,gvl", "--json", "results/demo/results.json"),
    *("--report", "results/demo/page.html"),
]
"""What scripts/eval_voc.py does without arguments."""


@dataclass(frozen=True)
class EvalOptions(JobOptions):
    """VOC of estimators over videos or a dataset, beside the same of their controls: docs/evaluation.md."""

    controls: bool = True
    """Score the frozen and the reversed video and another episode's instruction too."""
    json: Path | None = None
    """Write all results into this one file: means, every curve, and how they were made."""


def evaluate(options: EvalOptions) -> int:
    """Score many episodes and their controls; print tables. Status 1 where an episode failed."""
    from topreward.report.tables import show_results
    from topreward.report.text import say

    pages: list[Written] = []

    def page(folder: Folder, inputs: Inputs) -> None:
        if options.report:
            pages.append(draw_run(folder.path, inputs, options.report, options.max_inline_mb))

    run, summaries, skipped = measure(options, at_folder=page)
    show_results(out, run, summaries)
    if skipped:
        say(out, f"{skipped} episodes without an instruction were left out")
    if options.gvl_examples:
        say(out, f"gvl was shown the episodes {options.gvl_examples} in context; no estimator is evaluated on them")
    for path in (options.output, options.json):
        if path:
            say(out, f"written to {path}", wrap=False)
    for written in pages:
        say_where(written)
    return 1 if run.failed else 0


def measure(
    options: EvalOptions, share: Any = None, at_folder: Callable[[Folder, Inputs], None] | None = None
) -> tuple[EvalRun, list[Summary], int]:
    """The run, its summaries, and how many episodes had no instruction. `share`: what makes one loader serve many
    runs. `at_folder` is called when all is scored, while the folder, which may be a temporary one, is still there."""
    from topreward import evaluation

    if options.json:
        check_target(options.json)  # not after all the work
    if options.report:
        check_page(options.report, options.max_inline_mb)
    plan = evaluation.Plan(evaluation.parse_estimators(options.estimators), options.controls, options.seed)
    inputs, skipped = options.inputs().pinned()

    def summaries(so_far: EvalRun) -> list[Summary]:
        whole = len(so_far.done) == len(so_far.planned)  # else no episode of the split may be among those done
        split = options.calibration_split if whole else None
        return evaluation.summarise(so_far.episodes, plan, calibration_split=split, seed=options.seed)

    with evaluation.Folder(options.output) as folder:

        def keep(so_far: EvalRun) -> None:
            _write_results(options, folder, so_far, summaries(so_far))

        run = score_episodes(options, plan, inputs, skipped, folder, auto="paper", share=share, at_end=keep)
        if at_folder:
            at_folder(folder, inputs)
    return run, summaries(run), len(skipped)


def _write_results(options: EvalOptions, folder: Folder, run: EvalRun, summaries: list[Summary]) -> None:
    from topreward.evaluation.results import write_results, write_single_file

    if folder.kept:
        write_results(folder, run, summaries)
    if options.json:
        write_single_file(options.json, folder, run, summaries)
