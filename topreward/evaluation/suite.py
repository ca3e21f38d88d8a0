"""A suite of datasets, as configs/datasets/*.yaml name them, and what a paper reports for it.

In goes a suite's name and a way to evaluate one dataset; out comes a row per dataset, beside the reported
figure. A dataset that cannot be opened or has no uri yet is a row too. Knows no terminal.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from topreward.config import find_config, read_yaml, validate
from topreward.evaluation.summary import Summary
from topreward.jobs.episode import describe_error
from topreward.jobs.scorers import LoadScorers, Scorer


class DatasetOptions(BaseModel):
    """How a dataset is opened: what `open_dataset` takes, and the split; unset ones are its own."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    camera: str | tuple[str, ...] | None = None
    episodes: str | None = None
    split: str | None = None
    subset: int | None = None
    seed: int | None = None
    revision: str | None = None
    instruction: str | None = None
    instruction_attribute: str | None = None
    fps: float | None = None
    flip_vertical: bool | None = None
    root: str | None = None
    skip_unlabelled: bool | None = None

    def over(self, shared: DatasetOptions) -> DatasetOptions:
        """These, and what `shared` sets beyond them."""
        return shared.model_copy(update=self.given())

    def given(self) -> dict[str, Any]:
        """Those that are set."""
        return self.model_dump(exclude_none=True)


class SuiteDataset(BaseModel):
    """One dataset of a suite."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[str, Field(pattern=r"^[^/\\]*[^/\\.][^/\\]*$")]
    """Also the name of its folder of results: no path."""
    uri: str | None = None
    """What `open_dataset` takes; None where it is not known."""
    options: DatasetOptions = DatasetOptions()
    """Over the suite's."""
    reported: dict[str, float] = {}
    """Mean VOC by estimator, as the paper has it."""
    reported_frozen: dict[str, float] = {}
    robot: str | None = None
    """This and the rest are notes for readers: they decide nothing."""
    cameras: tuple[str, ...] = ()
    fps: float | None = None
    total_episodes: int | None = None


class Suite(BaseModel):
    """A yaml file in configs/datasets/."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    suite: str
    options: DatasetOptions = DatasetOptions()
    reported: dict[str, dict[str, float]] = {}
    """Mean VOC over datasets, by model and estimator."""
    datasets: Annotated[tuple[SuiteDataset, ...], Field(min_length=1)]
    further: tuple[SuiteDataset, ...] = ()
    """Named, but not part of the suite."""

    @model_validator(mode="after")
    def _names_are_unique(self) -> Suite:
        names = [dataset.name for dataset in self.datasets]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"datasets are named twice: {', '.join(twice)}")
        return self


@dataclass(frozen=True)
class SuiteRow:
    """One dataset's result."""

    dataset: SuiteDataset
    summaries: tuple[Summary, ...] = ()
    episodes: int = 0
    failed: int = 0
    """Episodes with an error."""
    skipped: int = 0
    """Episodes left out for want of an instruction."""
    first_failure: str | None = None
    error: str | None = None
    """Why there is no result at all."""
    notes: tuple[str, ...] = ()
    """What a careful reader must know of how its episodes were measured."""


def load_suite(name: str | os.PathLike[str]) -> Suite:
    """A suite by name (`oxe`, `manirewardbench`) or from a yaml file. Raises ConfigError."""
    return validate(Suite, read_yaml(find_config(name, folder="datasets")), str(name))


def run_suite(
    suite: Suite, evaluate: Callable[[SuiteDataset, DatasetOptions], SuiteRow], *, fail_fast: bool = False
) -> Iterator[SuiteRow]:
    """Evaluate a suite's datasets one after the other; a dataset that fails is a row with its error."""
    for dataset in suite.datasets:
        if dataset.uri is None:
            yield SuiteRow(dataset, error="its uri is not known")
            continue
        try:
            yield evaluate(dataset, dataset.options.over(suite.options))
        except Exception as failure:
            if fail_fast:
                raise
            yield SuiteRow(dataset, error=describe_error(failure))


class LoadOnce:
    """A loader whose model stays for the next dataset, where one process does the work."""

    def __init__(self, load: LoadScorers) -> None:
        self.load = load
        self._made: Mapping[str, Scorer] | None = None

    def __call__(self, worker: int = 0, workers: int = 1) -> Mapping[str, Scorer]:
        if workers > 1:
            return self.load(worker, workers)
        if self._made is None:
            self._made = self.load(worker, workers)
        return self._made

    def __getstate__(self) -> dict[str, Any]:
        return {"load": self.load, "_made": None}  # models do not travel to other processes
