"""What is to be evaluated: videos, a listing, or a dataset, and which of its episodes.

In go the words of a command line; out come Episodes. Pickles, so that every worker opens the same ones.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from topreward.datasets import Dataset, open_dataset, read_listing
from topreward.datasets.selection import parse_episodes, random_subset
from topreward.errors import ConfigError, DatasetError, nearest
from topreward.evaluation.success import check_split
from topreward.types import Episode
from topreward.video import read_video


@dataclass(frozen=True)
class Inputs:
    """Which episodes."""

    videos: tuple[Path, ...] = ()
    """Video files, or one CSV/JSONL listing."""
    instruction: tuple[str, ...] = ()
    """One for all videos, or one per video."""
    dataset: str | None = None
    """A uri of `open_dataset`."""
    camera: tuple[str, ...] = ()
    episodes: str | None = None
    """"0:50", "3,7,9": positions, LeRobot's episode_index."""
    subset: int | None = None
    """That many, drawn by `seed` after `split` has been applied."""
    seed: int = 0
    split: str | None = None
    """Only the episodes that the dataset says are of it."""
    skip_unlabelled: bool = False
    revision: str | None = None
    """Of a hub dataset."""
    calibration_split: str | None = None
    """What success thresholds will be fitted on: only checked here, before hours of work depend on it."""

    def __call__(self) -> Sequence[Episode]:
        """Open them; no video is decoded. Raises ConfigError, DatasetError."""
        return self._select(self._open())

    def pinned(self) -> tuple[Inputs, tuple[str, ...]]:
        """The same, with the commit that a hub dataset is at now, so that all workers open that one; and the ids of
        the episodes that the dataset leaves out for want of an instruction."""
        if not (self.dataset and self.dataset.startswith("lerobot:")):
            return self, ()
        opened = self._open()
        assert isinstance(opened, Dataset)
        return dataclasses.replace(self, revision=opened.revision or self.revision), opened.skipped

    def settings(self) -> dict[str, Any]:
        """What decides which episodes these are, as JSON has it."""
        chosen = dataclasses.asdict(self) | {"videos": [str(v) for v in self.videos]}
        return {key: value for key, value in chosen.items() if key != "calibration_split"}

    def _open(self) -> Sequence[Episode]:
        if self.dataset:
            if self.videos or self.instruction:
                raise ConfigError(
                    "--dataset brings its own videos and instructions; leave out --videos and --instruction"
                )
            options: dict[str, Any] = {"episodes": self.episodes, "revision": self.revision}
            if self.camera:
                options["camera"] = self.camera[0] if len(self.camera) == 1 else list(self.camera)
            if self.skip_unlabelled:
                options["skip_unlabelled"] = True
            return open_dataset(self.dataset, **options)
        if self.camera or self.skip_unlabelled or self.revision:
            raise ConfigError("--camera, --revision and --skip-unlabelled are for --dataset")
        if not self.videos:
            raise ConfigError("nothing to score: give --videos with --instruction, a listing, or --dataset")
        found = self._videos()
        return [found[i] for i in parse_episodes(self.episodes, len(found))] if self.episodes else found

    def _videos(self) -> list[Episode]:
        videos, instructions = self.videos, self.instruction
        if len(videos) == 1 and videos[0].suffix.lower() in (".csv", ".jsonl"):
            if instructions:
                raise ConfigError(f"{videos[0]} brings its own instructions; leave out --instruction")
            return read_listing(videos[0])
        if len(instructions) not in (1, len(videos)):
            raise ConfigError(
                f"{len(videos)} videos and {len(instructions)} instructions: give one for all, or one per video"
            )
        if len(set(videos)) < len(videos):
            raise DatasetError("the same video is named twice in --videos")
        texts = instructions if len(instructions) == len(videos) else instructions * len(videos)
        names = [video.name for video in videos]
        ids = names if len(set(names)) == len(names) else [str(video) for video in videos]
        return [Episode(name, text, partial(read_video, v)) for name, text, v in zip(ids, texts, videos, strict=True)]

    def _select(self, opened: Sequence[Episode]) -> Sequence[Episode]:
        chosen: Sequence[Episode] = opened
        if self.split is not None:
            chosen = [episode for episode in opened if episode.split == self.split]
            if not chosen:
                names = sorted({episode.split for episode in opened if episode.split})
                there = f"there are {', '.join(names)}" if names else "the episodes name no splits"
                raise DatasetError(f"no episode is of the split '{self.split}'{nearest(self.split, names)}; {there}")
        if self.subset is not None:
            chosen = [chosen[i] for i in random_subset([e.id for e in chosen], self.subset, self.seed)]
        if self.calibration_split is not None:
            check_split([e.split for e in chosen if e.success is not None], self.calibration_split)
        return chosen
