"""`topreward suite`: a paper's row, the evaluation of several datasets beside the figures that were reported."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import tyro

from topreward.cli.eval import EvalOptions, measure
from topreward.cli.options import EngineOptions, ModelOptions, ProtocolOptions
from topreward.cli.terminal import err, out
from topreward.errors import DatasetError

if TYPE_CHECKING:
    from topreward.evaluation import ModelSetup
    from topreward.evaluation.suite import DatasetOptions, SuiteDataset


@dataclass(frozen=True)
class SuiteOptions:
    """A paper's row: the VOC of a suite of datasets (configs/datasets), beside the figure that was reported."""

    suite: tyro.conf.Positional[str]
    """oxe, manirewardbench, or a yaml file of your own."""
    only: tuple[str, ...] = ()
    """Only these datasets of it, by name."""
    estimators: str = "topreward,gvl"
    """Of topreward, log_odds, debiased and gvl, with commas between."""
    controls: bool = True
    """Score the frozen and the reversed video and another episode's instruction too."""
    model: tyro.conf.OmitArgPrefixes[ModelOptions] = field(default_factory=ModelOptions)
    protocol: tyro.conf.OmitArgPrefixes[ProtocolOptions] = field(default_factory=ProtocolOptions)
    gvl_protocol: str = "auto"
    """gvl, gvl-paper, or a yaml file of your own; auto: gvl, or gvl-demo for the demo checkpoint."""
    engine: tyro.conf.OmitArgPrefixes[EngineOptions] = field(default_factory=EngineOptions)
    output: Path = Path("results/suite")
    """A folder; each dataset gets one in it, and a run goes on where it stopped."""
    fail_fast: tyro.conf.FlagCreatePairsOff[bool] = False
    """Stop at the first dataset or episode that fails."""
    debug: tyro.conf.FlagCreatePairsOff[bool] = False
    """Show tracebacks."""

    def of(self, dataset: SuiteDataset, asked: DatasetOptions) -> EvalOptions:
        """The evaluation of one dataset."""
        opened = asked.given()
        for name in ("camera", "instruction"):
            if isinstance(opened.get(name), str):
                opened[name] = (opened[name],)
        if "revision" in opened:
            opened["dataset_revision"] = opened.pop("revision")
        shared = ("estimators", "controls", "model", "protocol", "gvl_protocol", "engine", "fail_fast")
        return EvalOptions(
            dataset=dataset.uri,
            **{name: getattr(self, name) for name in shared},
            **opened,
            output=self.output / dataset.name,
        )


def suite(options: SuiteOptions) -> int:
    """Evaluate a suite's datasets, each into a folder of its own; print a row each beside the paper's figure.

    Status 1 where a dataset, or one episode of it, failed.
    """
    from topreward.evaluation.suite import LoadOnce, SuiteRow, load_suite, run_suite
    from topreward.evaluation.versions import version_notes
    from topreward.report.suite import show_suite
    from topreward.report.text import say

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
        say(err, dataset.name)
        run, summaries, skipped = measure(options.of(dataset, asked), share)
        first = next((f"{e.id}: {e.error}" for e in run.episodes if e.error is not None), None)
        if run.failed == len(run.planned):
            raise DatasetError(f"all {run.failed} episodes failed; the first: {first}")
        notes = tuple(version_notes(run.episodes))
        return SuiteRow(dataset, tuple(summaries), len(run.planned), run.failed, skipped, first, notes=notes)

    rows = list(run_suite(chosen, one, fail_fast=options.fail_fast))
    show_suite(out, chosen, rows)
    say(out, f"written to {options.output}", wrap=False)
    return 1 if any(row.error or row.failed for row in rows) else 0
