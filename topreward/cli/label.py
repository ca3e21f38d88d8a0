"""`topreward label`, `derive` and `export`: a whole dataset in, training signals out (docs/labelling.md)."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import tyro

from topreward.cli.job import JobOptions, score_episodes
from topreward.cli.report import check_page, draw_run
from topreward.cli.report import say as say_page
from topreward.cli.terminal import err, out
from topreward.errors import ConfigError, TopRewardError
from topreward.files import check_target
from topreward.labels.settings import LabelSettings
from topreward.report.text import say

if TYPE_CHECKING:
    from topreward.evaluation import EvalRun, Plan
    from topreward.jobs.inputs import Inputs
    from topreward.labels.derive import Labels
    from topreward.labels.export import Exported, Made


@dataclass(frozen=True)
class LabelOptions(JobOptions):
    """Score a whole dataset, and make what training reads: docs/labelling.md."""

    estimators: str = "topreward"
    """Of topreward, log_odds, debiased and gvl, with commas between; each gets files of its own."""
    output: Path | None = None
    """A folder for curves and labels, where a run goes on; by default results/labels/ and the dataset's name."""
    audit: int = 20
    """Score the frozen video of that many episodes too, to tell whether the labels follow the clock; 0: of none."""
    labels: tyro.conf.OmitArgPrefixes[LabelSettings] = field(default_factory=LabelSettings)


@dataclass(frozen=True)
class DeriveOptions:
    """Make the labels of a run's folder anew, of topreward label or eval, without a model."""

    folder: tyro.conf.Positional[Path]
    """The run's --output."""
    estimators: str | None = None
    """Of those that were scored, with commas between; by default all of them."""
    labels: tyro.conf.OmitArgPrefixes[LabelSettings] = field(default_factory=LabelSettings)
    seed: int = 0
    """Draws the half of the labels that a success threshold is fitted on."""
    calibration_split: str | None = None
    """Fit success thresholds on the episodes of this split instead."""
    debug: tyro.conf.FlagCreatePairsOff[bool] = False
    """Show tracebacks."""


@dataclass(frozen=True)
class ExportOptions:
    """Write a run's labels as another trainer reads them."""

    folder: tyro.conf.Positional[Path]
    """The run's --output."""
    to: Literal["lerobot", "rlinf", "csv"]
    """lerobot: progress for RA-BC. rlinf: advantages for RECAP. csv: tables of all there is."""
    estimator: str | None = None
    """Whose labels, where there are several."""
    column: str | None = None
    """lerobot: what becomes progress_sparse; by default the column that the labels were made of."""
    tag: str = "topreward"
    """rlinf: the file is advantages_<tag>.parquet."""
    target: Path | None = None
    """Another file to write to (csv: a folder); by default one beside the labels."""
    into_dataset: tyro.conf.FlagCreatePairsOff[bool] = False
    """Write into the dataset itself: where LeRobot (sarm_progress.parquet) or RLinf (meta/) find it by themselves."""
    allow_missing: tyro.conf.FlagCreatePairsOff[bool] = False
    """Write although episodes have no labels."""
    force: tyro.conf.FlagCreatePairsOff[bool] = False
    """Write over a file that is there."""
    debug: tyro.conf.FlagCreatePairsOff[bool] = False
    """Show tracebacks."""


def label(options: LabelOptions) -> int:
    """Score a dataset's episodes and make labels of them. Status 1 where an episode has none."""
    from topreward import evaluation
    from topreward.evaluation.results import write_results

    if options.report:
        check_page(options.report, options.max_inline_mb)
    options = replace(options, output=options.output or Path("results/labels") / _name(options))
    names = evaluation.parse_estimators(options.estimators)
    inputs, skipped = options.inputs().pinned()
    plan = _plan(options, names, inputs)

    with evaluation.Folder(options.output) as folder:

        def keep(run: EvalRun) -> None:
            write_results(folder, run, evaluation.summarise(run.episodes, plan, seed=options.seed))

        run = score_episodes(options, plan, inputs, skipped, folder, auto="dense", at_end=keep)
        if skipped:
            say(out, f"{len(skipped)} episodes without an instruction were left out")
        made = _derive(folder.path, names, options.labels, options.seed, options.calibration_split)
        written = draw_run(folder.path, inputs, options.report, options.max_inline_mb) if options.report else None
    if written:
        say_page(written)
    _last_word(made)
    return 1 if run.failed or not _whole(made, names) else 0


def derive(options: DeriveOptions) -> int:
    """Make labels anew. Status 1 where an episode has none."""
    from topreward.evaluation import parse_estimators
    from topreward.jobs.stored import open_stored

    stored = open_stored(options.folder)
    names = stored.plan.estimators if options.estimators is None else parse_estimators(options.estimators)
    made = _derive(stored.path, names, options.labels, options.seed, options.calibration_split)
    _last_word(made)
    return 0 if _whole(made, names) else 1


def export(options: ExportOptions) -> int:
    """Write labels in another form."""
    from topreward.labels import export as exports

    made = exports.open_labels(options.folder, options.estimator)
    _check(options)
    target = options.target
    if options.to == "csv":
        for one in exports.export_csv(made, target, force=options.force):
            _say_written(one)
        return 0
    if options.into_dataset:
        root = exports.dataset_root(made)
        in_root = {"lerobot": exports.LEROBOT_FOUND, "rlinf": f"meta/{exports.rlinf_name(options.tag)}"}
        target = root / in_root[options.to]
    if target is not None:
        check_target(target)
    may = {"allow_missing": options.allow_missing, "force": options.force}
    if options.to == "lerobot":
        one = exports.export_lerobot(made, target, column=options.column, **may)
        _say_written(one)
        say(out, f"progress_sparse is {options.column or made.column}")
        _say_how_to_train(made, one)
        return 0
    one = exports.export_rlinf(made, target, tag=options.tag, **may)
    _say_written(one)
    say(out, f"for training: data.advantage_tag: {options.tag}; for meta/mixture_config.yaml:")
    for line in exports.rlinf_config(made, options.tag).splitlines():
        say(out, line)
    return 0


def _plan(options: LabelOptions, names: tuple[str, ...], inputs: Inputs) -> Plan:
    """The plan, with the episodes that are audited, drawn by the seed."""
    from topreward.datasets.selection import random_subset
    from topreward.evaluation import Plan

    if options.audit < 0:
        raise ConfigError(f"--audit is {options.audit}, want 0 or a number of episodes")
    plan = Plan(names, controls=False, seed=options.seed)
    if not options.audit or "topreward" not in plan.bases or plan.debiases("topreward"):
        return plan  # gvl has no clock to follow, and for debiased all frozen videos are scored
    ids = [episode.id for episode in inputs()]
    drawn = random_subset(ids, min(options.audit, len(ids)), options.seed) if ids else []
    return replace(plan, also_frozen=tuple(ids[position] for position in drawn))


def _derive(run: Path, names: tuple[str, ...], settings: LabelSettings, seed: int, split: str | None) -> list[Labels]:
    """Make, write and show every estimator's labels.

    One estimator that has no labels is said, and stops none of the others, unless there is no other.
    """
    from topreward.jobs.stored import open_stored
    from topreward.labels.derive import derive as labels_of
    from topreward.labels.write import write_labels
    from topreward.report.labels import show_labels

    made = []
    for name in names:
        try:
            with err.status(f"labels of {name}"):
                labels = labels_of(open_stored(run), name, settings, seed=seed, calibration_split=split)
                folder = write_labels(labels, run)
        except TopRewardError as error:
            if len(names) == 1:
                raise
            say(out, f"{name}: {error}", "red")
            continue
        show_labels(out, labels)
        _export_by_itself(run, name)
        say(out, f"written to {folder}")
        made.append(labels)
    return made


def _whole(made: list[Labels], names: tuple[str, ...]) -> bool:
    """Whether every estimator has labels of every episode that was measured."""
    return len(made) == len(names) and not any(labels.unlabelled for labels in made)


def _last_word(made: list[Labels]) -> None:
    """Whether the labels follow the clock."""
    from topreward.report.labels import show_audit

    for labels in made:
        show_audit(out, labels)


def _export_by_itself(run: Path, estimator: str) -> None:
    """LeRobot's file beside the labels of a LeRobot dataset; where it cannot be made, none of earlier labels stays."""
    from topreward.labels import export as exports
    from topreward.labels.write import labels_folder

    target = labels_folder(run, estimator) / exports.LEROBOT_NAME
    try:
        made = exports.open_labels(run, estimator)
        dataset = (made.summary["provenance"]["run"].get("dataset") or {}).get("dataset")
        if not str(dataset or "").startswith("lerobot:"):
            target.unlink(missing_ok=True)
            return
        one = exports.export_lerobot(made, target, force=True)
    except TopRewardError as error:
        target.unlink(missing_ok=True)
        say(out, f"no file for LeRobot was written: {error}", "yellow")
        return
    _say_written(one)
    _say_how_to_train(made, one)


def _say_how_to_train(made: Made, one: Exported) -> None:
    from topreward.labels.export import sample_weighting

    chunk = made.summary["rabc"]["chunk_size"]
    say(out, f"for a LeRobot training whose policy has chunk_size {chunk}:")
    for line in sample_weighting(made, one.path).splitlines():
        say(out, line, wrap=False)


def _say_written(one: Exported) -> None:
    say(out, f"{one.rows} rows written to {one.path}", wrap=False)
    if one.missing:
        named = ", ".join(one.missing[:5]) + (f" and {len(one.missing) - 5} more" if len(one.missing) > 5 else "")
        say(out, f"note: without values: {named}", "yellow")
    for note in one.notes:
        say(out, f"note: {note}", "yellow")


def _check(options: ExportOptions) -> None:
    if options.column is not None and options.to != "lerobot":
        raise ConfigError("--column is for --to lerobot; other forms have all columns, or the advantage")
    if options.into_dataset and (options.to == "csv" or options.target is not None):
        other = "--target" if options.target is not None else "--to csv"
        raise ConfigError(f"--into-dataset and {other} cannot both be")
    if options.to == "csv" and options.target is not None and options.target.is_file():
        raise ConfigError(f"--target {options.target}: is a file, want a folder for frames.csv and episodes.csv")


def _name(options: LabelOptions) -> str:
    """A folder's name for what is labelled: the dataset's, the listing's, or `videos`."""
    if options.dataset:
        scheme, _, rest = options.dataset.partition(":")
        path = Path(rest.partition("?")[0]).expanduser()
        named = path.name if path.exists() else str(path)
        raw = named.strip("./") or scheme
    elif len(options.videos) == 1:
        raw = options.videos[0].stem
    else:
        raw = "videos"
    return re.sub(r"[^A-Za-z0-9._-]+", "_", raw).strip("._") or "dataset"
