"""The `topreward` command: parse, call, print. No logic of its own.

    topreward score cup.mp4 "pick up the cup" --model qwen3-vl
    topreward eval --model qwen3-vl --videos a.mp4 b.mp4 --instruction "pick up the cup"

scripts/score_video.py and scripts/eval_voc.py are the same functions. Every expected failure is one line on
stderr and exit status 2; `--debug` shows the traceback.
"""

from __future__ import annotations

import dataclasses
import io
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

import tyro
from rich.console import Console
from rich.progress import (
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from topreward.cli_options import EvalOptions, ScoreOptions, SuiteOptions, err
from topreward.errors import ConfigError, DatasetError, TopRewardError
from topreward.files import check_target

if TYPE_CHECKING:
    from topreward.evaluation import Folder, ModelSetup, Run, Summary
    from topreward.evaluation.suite import DatasetOptions, SuiteDataset, SuiteRow

out = Console()

DEMO_RUN = [
    *("--model", "demo", "--dataset", "demo:?videos=results/demo/videos"),
    *("--estimators", "topreward,log_odds,debiased,gvl", "--json", "results/demo/results.json"),
]
"""What scripts/eval_voc.py does without arguments."""


def score(options: ScoreOptions) -> int:
    """Score one video; print its curve."""
    from topreward.report.terminal import show_curve
    from topreward.video import read_video

    for target in (options.json, options.plot):  # not after all the work
        if target:
            check_target(target)
    if options.plot:
        from topreward.report.plots import figure_format

        figure_format(options.plot)
    protocol = options.protocol.load("demo" if options.model.model == "demo" else "dense")
    clip = read_video(options.video, backend=options.backend, fps=options.fps)
    estimator = options.model.load()
    with err.status(f"scoring {clip.num_frames} frames"):
        curve = estimator.score(clip, options.instruction, protocol=protocol)
    show_curve(out, curve)
    if options.json:
        curve.save(options.json)
        out.print(f"written to {options.json}", markup=False)
    if options.plot:
        from topreward.report.plots import plot_curves, save_figure

        save_figure(plot_curves({curve.instruction: curve}, {curve.instruction: clip}), options.plot)
        out.print(f"drawn to {options.plot}", markup=False)
    return 0


def evaluate(options: EvalOptions) -> int:
    """Score many episodes and their controls; print tables. Status 1 where an episode failed."""
    from topreward.report.tables import show_results

    run, summaries, skipped = _measure(options)
    show_results(out, run, summaries)
    if skipped:
        out.print(f"{skipped} episodes without an instruction were left out")
    if options.gvl_examples:
        out.print(f"gvl was shown the episodes {options.gvl_examples} in context; no estimator is evaluated on them")
    for path in (options.output, options.json):
        if path:
            out.print(f"written to {path}", markup=False)
    return 1 if run.failed else 0


def _measure(options: EvalOptions, share: Any = None) -> tuple[Run, list[Summary], int]:
    """The run, its summaries, and how many episodes had no instruction. `share`: what makes one loader serve many
    runs."""
    from topreward import evaluation

    if options.json:
        check_target(options.json)  # not after all the work
    plan = evaluation.Plan(evaluation.parse_estimators(options.estimators), options.controls, options.seed)
    setup = options.setup(plan)
    inputs, skipped = options.inputs().pinned()
    if inputs.examples is not None:
        if "gvl" not in plan.bases:
            raise ConfigError("--gvl-examples are shown to gvl alone, which is not among --estimators")
        setup = dataclasses.replace(setup, gvl_examples=inputs.open_examples)
    settings = {**setup.settings(), "dataset": {**inputs.settings(), "skipped": list(skipped)}}
    if inputs.examples is not None:
        settings["gvl_examples"] = inputs.describe_examples()
    runs: list[Run] = []

    def summaries() -> list[Summary]:
        so_far = runs[0]
        whole = len(so_far.done) == len(so_far.planned)  # else no episode of the split may be among those done
        split = options.calibration_split if whole else None
        return evaluation.summarise(so_far.episodes, plan, calibration_split=split, seed=options.seed)

    with evaluation.Folder(options.output) as folder:
        try:
            with _progress() as progress:
                task = progress.add_task("loading", total=None)

                def started(run: Run) -> None:
                    runs.append(run)
                    progress.update(task, description="scoring", total=len(run.planned))

                run = evaluation.evaluate(
                    share(setup) if share else setup,
                    inputs,
                    plan,
                    folder,
                    settings=settings,
                    workers=options.num_workers,
                    fail_fast=options.fail_fast,
                    on_start=started,
                    on_done=lambda _: progress.advance(task),
                )
        finally:  # what was computed is kept, also when the run is interrupted
            if runs and runs[0].done:
                _write_results(options, folder, runs[0], summaries())
    return run, summaries(), len(skipped)


def suite(options: SuiteOptions) -> int:
    """Evaluate a suite's datasets, each into a folder of its own; print a row each beside the paper's figure.

    Status 1 where a dataset, or one episode of it, failed.
    """
    from topreward.evaluation.suite import LoadOnce, SuiteRow, load_suite, run_suite
    from topreward.report.tables import show_suite

    chosen = load_suite(options.suite)
    unknown = set(options.only) - {d.name for d in chosen.datasets}
    if unknown:
        raise DatasetError(f"suite {chosen.suite} has no dataset '{sorted(unknown)[0]}'")
    if options.only:
        chosen = chosen.model_copy(update={"datasets": tuple(d for d in chosen.datasets if d.name in options.only)})
    kept: list[LoadOnce] = []

    def share(setup: ModelSetup) -> LoadOnce:
        kept.append(LoadOnce(setup)) if not kept else None
        return kept[0]

    def one(dataset: SuiteDataset, asked: DatasetOptions) -> SuiteRow:
        err.print(f"{dataset.name}", highlight=False)
        run, summaries, skipped = _measure(options.of(dataset, asked), share)
        first = next((f"{e.id}: {e.error}" for e in run.episodes if e.error is not None), None)
        if run.failed == len(run.planned):
            raise DatasetError(f"all {run.failed} episodes failed; the first: {first}")
        return SuiteRow(dataset, tuple(summaries), len(run.planned), run.failed, skipped, first)

    rows = list(run_suite(chosen, one, fail_fast=options.fail_fast))
    show_suite(out, chosen, rows)
    out.print(f"written to {options.output}", markup=False)
    return 1 if any(row.error or row.failed for row in rows) else 0


def _write_results(options: EvalOptions, folder: Folder, run: Run, summaries: list[Summary]) -> None:
    from topreward.evaluation.results import write_results, write_single_file

    if folder.kept:
        write_results(folder, run, summaries)
    if options.json:
        write_single_file(options.json, folder, run, summaries)


def _progress() -> Progress:
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


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """The `topreward` command."""
    commands: dict[str, Callable[..., Any]] = {"score": ScoreOptions, "eval": EvalOptions, "suite": SuiteOptions}
    functions: dict[type, Callable[[Any], int]] = {ScoreOptions: score, EvalOptions: evaluate, SuiteOptions: suite}
    options = tyro.extras.subcommand_cli_from_dict(commands, prog="topreward", args=arguments)
    run(functions[type(options)], options)


def score_main() -> NoReturn:
    """scripts/score_video.py"""
    run(score, tyro.cli(ScoreOptions, description=score.__doc__))


def eval_main() -> NoReturn:
    """scripts/eval_voc.py; without arguments, a run that needs no GPU and no download."""
    arguments = sys.argv[1:]
    if not arguments:
        arguments = DEMO_RUN
        out.print("A demonstration: a tiny model trained on its own drawn world. It is no evidence about the method.")
        out.print(f"(the same as: {' '.join(DEMO_RUN)})", highlight=False, markup=False)
    run(evaluate, tyro.cli(EvalOptions, description=evaluate.__doc__, args=arguments))
