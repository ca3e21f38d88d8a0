"""Options that say which episodes a job is about, in the words of a command line.

Out comes an `Inputs`; no dataset is opened here.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import tyro

if TYPE_CHECKING:
    from topreward.jobs.inputs import Inputs


@dataclass(frozen=True)
class EpisodeOptions:
    """Which episodes, cameras and instructions."""

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
    seed: int = 0
    """Draws whatever is drawn: the subset, controls, and the calibration split."""
    calibration_split: str | None = None
    """Fit success thresholds on the episodes of this split; by default on half of each class."""
    gvl_examples: str | None = None
    """Up to five episodes, as --episodes has them, that GVL is shown in context; nothing else is done with them."""

    def inputs(self) -> Inputs:
        from topreward.jobs.inputs import Inputs

        named = {f.name for f in dataclasses.fields(Inputs)} - {"revision", "examples"}
        asked = {name: getattr(self, name) for name in named}
        return Inputs(**asked, revision=self.dataset_revision, examples=self.gvl_examples)
