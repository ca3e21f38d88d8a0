"""What commands that score many episodes share: their options, and the run with its bar of progress.

In go options and a plan; out come the run and its folder's files. What is made of the curves is each command's own.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tyro

from topreward.cli.bar import Bar
from topreward.cli.episodes import EpisodeOptions
from topreward.cli.options import EngineOptions, ModelOptions, ProtocolOptions
from topreward.errors import ConfigError

if TYPE_CHECKING:
    from topreward.evaluation import EvalRun, Folder, ModelSetup, Plan
    from topreward.jobs.inputs import Inputs


@dataclass(frozen=True)
class JobOptions(EpisodeOptions):
    """Which episodes, scored by what, and where that is kept."""

    estimators: str = "topreward,log_odds,debiased,gvl"
    """Of topreward, log_odds, debiased and gvl, with commas between."""
    model: tyro.conf.OmitArgPrefixes[ModelOptions] = field(default_factory=ModelOptions)
    protocol: tyro.conf.OmitArgPrefixes[ProtocolOptions] = field(default_factory=ProtocolOptions)
    gvl_protocol: str = "auto"
    """gvl, gvl-paper, or a yaml file of your own; auto: gvl, or gvl-demo for the demo checkpoint."""
    engine: tyro.conf.OmitArgPrefixes[EngineOptions] = field(default_factory=EngineOptions)
    output: Path | None = None
    """A folder for all that is found, the curves too; where it has some, the run goes on."""
    report: Path | None = None
    """Write a page of the videos beside their curves here (.html); `topreward report` makes one later, too."""
    max_inline_mb: float = 25.0
    """A page of more than 30 episodes, or larger than this (10^6 bytes), becomes a folder with side files."""
    fail_fast: tyro.conf.FlagCreatePairsOff[bool] = False
    """Stop at the first episode that fails."""
    debug: tyro.conf.FlagCreatePairsOff[bool] = False
    """Show tracebacks."""

    def setup(self, plan: Plan, auto: str = "paper") -> ModelSetup:
        """What scores. `auto`: the protocol of that name, where the model is not the demo's."""
        from topreward.estimators.gvl.protocol import load_gvl_protocol
        from topreward.evaluation import ModelSetup

        demo = self.model.model == "demo"
        gvl = self.gvl_protocol
        if gvl == "auto":
            gvl = "gvl-demo" if demo else "gvl"
        options = dataclasses.asdict(self.model)
        options["name"] = options.pop("model")
        return ModelSetup(plan.bases, self.protocol.load("demo" if demo else auto), load_gvl_protocol(gvl), options)


def score_episodes(
    options: JobOptions,
    plan: Plan,
    inputs: Inputs,
    skipped: tuple[str, ...],
    folder: Folder,
    *,
    auto: str,
    share: Any = None,
    at_end: Callable[[EvalRun], None],
) -> EvalRun:
    """Measure all episodes that the folder does not hold yet.

    `inputs`, `skipped`: as `Inputs.pinned` gives them. `auto`: see `JobOptions.setup`. `share`: what makes one loader
    serve many runs. `at_end` gets what there is in the end, also when the run is interrupted.
    """
    from topreward import evaluation

    setup = options.setup(plan, auto)
    if inputs.examples is not None:
        if "gvl" not in plan.bases:
            raise ConfigError("--gvl-examples are shown to gvl alone, which is not among --estimators")
        setup = dataclasses.replace(setup, gvl_examples=inputs.open_examples)
    settings = {**setup.settings(), "dataset": {**inputs.settings(), "skipped": list(skipped)}}
    if inputs.examples is not None:
        settings["gvl_examples"] = inputs.describe_examples()
    runs: list[EvalRun] = []
    try:
        with Bar() as bar:

            def started(run: EvalRun) -> None:
                runs.append(run)
                bar.started(run)

            return evaluation.evaluate(
                share(setup) if share else setup,
                inputs,
                plan,
                folder,
                settings=settings,
                engine=options.engine.load(),
                fail_fast=options.fail_fast,
                on_start=started,
                on_done=bar.done,
            )
    finally:  # what was computed is kept, also when the run is interrupted
        if runs and runs[0].done:
            at_end(runs[0])
