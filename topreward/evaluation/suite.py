"""A suite of datasets, as configs/datasets/*.yaml name them, and what a paper reports for it.

In goes a suite's name and a way to evaluate one dataset; out comes a row per dataset, beside the reported
figure. A dataset that cannot be opened or has no uri yet is a row too. Knows no terminal.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict

from topreward.config import find_config, read_yaml, validate
from topreward.errors import TopRewardError
from topreward.evaluation.scorers import LoadScorers, Scorer
from topreward.evaluation.summary import Summary


class SuiteDataset(BaseModel):
    """One dataset of a suite; further keys are notes for readers."""

    model_config = ConfigDict(frozen=True, extra="allow")

    name: str
    uri: str | None = None
    """What `open_dataset` takes; None where it is not known."""
    options: dict[str, Any] = {}
    """Over the suite's."""
    reported: dict[str, float] = {}
    """Mean VOC by estimator, as the paper has it."""
    reported_frozen: dict[str, float] = {}


class Suite(BaseModel):
    """A yaml file in configs/datasets/."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    suite: str
    options: dict[str, Any] = {}
    reported: dict[str, dict[str, float]] = {}
    """Mean VOC over datasets, by model and estimator."""
    datasets: tuple[SuiteDataset, ...]
    further: tuple[SuiteDataset, ...] = ()
    """Named, but not part of the suite."""


@dataclass(frozen=True)
class SuiteRow:
    """One dataset's result."""

    dataset: SuiteDataset
    summaries: tuple[Summary, ...] = ()
    error: str | None = None


def load_suite(name: str | os.PathLike[str]) -> Suite:
    """A suite by name (`oxe`, `manirewardbench`) or from a yaml file. Raises ConfigError."""
    return validate(Suite, read_yaml(find_config(name, folder="datasets")), str(name))


def run_suite(
    suite: Suite, evaluate: Callable[[SuiteDataset, Mapping[str, Any]], list[Summary]], *, fail_fast: bool = False
) -> Iterator[SuiteRow]:
    """Evaluate a suite's datasets one after the other; a dataset that fails is a row with its error."""
    for dataset in suite.datasets:
        if dataset.uri is None:
            yield SuiteRow(dataset, error="its uri is not known")
            continue
        try:
            yield SuiteRow(dataset, tuple(evaluate(dataset, {**suite.options, **dataset.options})))
        except TopRewardError as failure:
            if fail_fast:
                raise
            yield SuiteRow(dataset, error=str(failure))


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
