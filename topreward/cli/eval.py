"""`topreward eval`: VOC of estimators over many episodes, beside their controls."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tyro

from topreward.cli.options import ModelOptions, ProtocolOptions
from topreward.cli.terminal import out, progress_bar
from topreward.errors import ConfigError
from topreward.files import check_target

if TYPE_CHECKING:
    from topreward.evaluation import EvalRun, Folder, ModelSetup, Plan, Summary
    from topreward.jobs.inputs import Inputs

DEMO_RUN = [
    *("--model", "demo", "--dataset", "demo:?videos=results/demo/videos"),
    *("--estimators", "topreward,log_odds,debiased,gvl", "--json", "results/demo/results.json"),
]
"""What scripts/eval_voc.py does without arguments."""


@dataclass(frozen=True)
class EvalOptions:
    """VOC of estimators over videos or a dataset, beside the same of their controls: docs/evaluation.md."""

    videos: tuple[Path, ...] = ()
    """Video files, or one CSV/JSONL listing of path, instruction, success, split."""
    instruction: tuple[str, ...] = ()
    """One for all videos, or one per video; one for a dataset or listing, instead of what that says."""
    dataset: str | None = None
    """lerobot:…, folder:…, hdf5:… or demo: (docs/datasets.md)."""
    dataset_revision: str | None = None
    """Branch, tag or commit of a hub dataset."""
    camera: tuple[str, ...] = ()
    """The dataset's camera; several names put their views side by side."""
    episodes: str | None = None
    """Only these: 0:50 (50 not included), 3,7,9, 40: …"""
    split: str | None = None
    """Only the episodes that the dataset says are of this split."""
    subset: int | None = None
    """Only that many of them, drawn by the seed."""
    skip_unlabelled: tyro.conf.FlagCreatePairsOff[bool] = False
    """Leave out LeRobot episodes without an instruction."""
    instruction_attribute: str | None = None
    """hdf5: the attribute that holds a demonstration's instruction."""
    fps: float | None = None
    """Frames/s of an hdf5 dataset, or of folders of frames named in --videos."""
    flip_vertical: tyro.conf.FlagCreatePairsOff[bool] = False
    """hdf5: turn the frames upside down, as LIBERO's need it."""
    root: str | None = None
    """The folder that a listing's paths may not leave; by default the listing's own."""
    estimators: str = "topreward,log_odds,debiased,gvl"
    """Of topreward, log_odds, debiased and gvl, with commas between."""
    controls: bool = True
    """Score the frozen and the reversed video and another episode's instruction too."""
    seed: int = 0
    """Draws the subset, the controls' instructions and the calibration split."""
    calibration_split: str | None = None
    """Fit success thresholds on the episodes of this split; by default on half of each class."""
    model: tyro.conf.OmitArgPrefixes[ModelOptions] = field(default_factory=ModelOptions)
    protocol: tyro.conf.OmitArgPrefixes[ProtocolOptions] = field(default_factory=ProtocolOptions)
    """auto: paper, or demo for the demo checkpoint."""
    gvl_protocol: str = "auto"
    """gvl, gvl-paper, or a yaml file of your own; auto: gvl, or gvl-demo for the demo checkpoint."""
    gvl_examples: str | None = None
    """Up to five episodes, as --episodes has them, that GVL is shown in context; nothing is evaluated on them."""
    num_workers: int = 1
    """Processes, each with a model of its own; they take the GPUs in turn."""
    output: Path | None = None
    """A folder for results.json, episodes.parquet and the curves; where it has some, the run goes on."""
    json: Path | None = None
    """Write all results into this one file: means, every curve, and how they were made."""
    fail_fast: tyro.conf.FlagCreatePairsOff[bool] = False
    """Stop at the first episode that fails."""
    debug: tyro.conf.FlagCreatePairsOff[bool] = False
    """Show tracebacks."""

    def inputs(self) -> Inputs:
        from topreward.jobs.inputs import Inputs

        named = {f.name for f in dataclasses.fields(Inputs)} - {"revision", "examples"}
        asked = {name: getattr(self, name) for name in named}
        return Inputs(**asked, revision=self.dataset_revision, examples=self.gvl_examples)

    def setup(self, plan: Plan) -> ModelSetup:
        from topreward.estimators.gvl.protocol import load_gvl_protocol
        from topreward.evaluation import ModelSetup

        demo = self.model.model == "demo"
        gvl = self.gvl_protocol
        if gvl == "auto":
            gvl = "gvl-demo" if demo else "gvl"
        options = dataclasses.asdict(self.model)
        options["name"] = options.pop("model")
        return ModelSetup(plan.bases, self.protocol.load("demo" if demo else "paper"), load_gvl_protocol(gvl), options)


def evaluate(options: EvalOptions) -> int:
    """Score many episodes and their controls; print tables. Status 1 where an episode failed."""
    from topreward.report.tables import show_results

    run, summaries, skipped = measure(options)
    show_results(out, run, summaries)
    if skipped:
        out.print(f"{skipped} episodes without an instruction were left out")
    if options.gvl_examples:
        out.print(f"gvl was shown the episodes {options.gvl_examples} in context; no estimator is evaluated on them")
    for path in (options.output, options.json):
        if path:
            out.print(f"written to {path}", markup=False)
    return 1 if run.failed else 0


def measure(options: EvalOptions, share: Any = None) -> tuple[EvalRun, list[Summary], int]:
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
    runs: list[EvalRun] = []

    def summaries() -> list[Summary]:
        so_far = runs[0]
        whole = len(so_far.done) == len(so_far.planned)  # else no episode of the split may be among those done
        split = options.calibration_split if whole else None
        return evaluation.summarise(so_far.episodes, plan, calibration_split=split, seed=options.seed)

    with evaluation.Folder(options.output) as folder:
        try:
            with progress_bar() as progress:
                task = progress.add_task("loading", total=None)

                def started(run: EvalRun) -> None:
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


def _write_results(options: EvalOptions, folder: Folder, run: EvalRun, summaries: list[Summary]) -> None:
    from topreward.evaluation.results import write_results, write_single_file

    if folder.kept:
        write_results(folder, run, summaries)
    if options.json:
        write_single_file(options.json, folder, run, summaries)
