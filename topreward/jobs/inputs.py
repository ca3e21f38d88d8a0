"""Which episodes a job is about: videos, a listing, or a dataset, how it is read, and which of its episodes.

In go the words of a command line; out come Episodes. Pickles, so that every worker opens the same ones.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from topreward.datasets import Dataset, open_dataset, read_listing
from topreward.datasets.selection import parse_episodes, random_subset
from topreward.errors import ConfigError, DatasetError, nearest
from topreward.jobs.identity import stamp
from topreward.types import Episode
from topreward.video import read_video


@dataclass(frozen=True)
class Inputs:
    """Which episodes."""

    videos: tuple[Path, ...] = ()
    """Video files, or one CSV/JSONL listing."""
    instruction: tuple[str, ...] = ()
    """One for all videos, or one per video; one for a dataset or a listing, instead of what that says."""
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
    instruction_attribute: str | None = None
    """hdf5: where a demonstration keeps its instruction."""
    fps: float | None = None
    """Frames/s of hdf5 datasets, and of folders of frames among `videos`."""
    flip_vertical: bool = False
    """hdf5: turn the frames upside down."""
    root: str | None = None
    """The folder that a listing's paths may not leave."""
    examples: str | None = None
    """Episodes to learn from rather than to evaluate, by position as `episodes` has it."""
    calibration_split: str | None = None
    """What success thresholds will be fitted on: only checked here, before hours of work depend on it."""

    def __call__(self) -> Sequence[Episode]:
        """Open them; no video is decoded. Raises ConfigError, DatasetError."""
        return self._select(self._open(), {episode.id for episode in self.open_examples()})

    def open_examples(self) -> Sequence[Episode]:
        """Open those named as examples, which are not among the others. Raises ConfigError, DatasetError."""
        if self.examples is None:
            return ()
        chosen = {"episodes": self.examples, "examples": None, "subset": None, "split": None}
        return dataclasses.replace(self, **chosen, calibration_split=None)()  # type: ignore[arg-type]

    def describe_examples(self) -> list[list[Any]]:
        """What decides the examples, as JSON has it. Raises as `open_examples`, and VideoError."""
        described = []
        for episode in self.open_examples():
            episode.clip()  # some clips are written to their file when they are first opened
            described.append([episode.id, episode.instruction, episode.success, stamp(episode)])
        return described

    @property
    def _drawn_at_once(self) -> bool:
        """Whether the subset is drawn while the dataset is opened, so that no other episode is looked at."""
        return self.dataset is not None and self.split is None and self.examples is None

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
            if self.videos:
                raise ConfigError("--dataset brings its own videos; leave out --videos")
            return open_dataset(self.dataset, **self._dataset_options())
        for_datasets = {"camera": self.camera, "skip-unlabelled": self.skip_unlabelled}
        for_datasets |= {"dataset-revision": self.revision, "flip-vertical": self.flip_vertical}
        for_datasets |= {"instruction-attribute": self.instruction_attribute}
        if given := [f"--{name}" for name, value in for_datasets.items() if value]:
            raise ConfigError(f"without --dataset, {', '.join(given)} means nothing")
        if not self.videos:
            raise ConfigError("nothing to score: give --videos with --instruction, a listing, or --dataset")
        found = self._videos()
        return [found[i] for i in parse_episodes(self.episodes, len(found))] if self.episodes else found

    def _dataset_options(self) -> dict[str, Any]:
        """What was asked for, as `open_dataset` takes it: it says itself what means nothing for its kind."""
        if len(self.instruction) > 1:
            raise ConfigError(f"{len(self.instruction)} instructions for --dataset: give one for all, or none")
        options: dict[str, Any] = {
            "camera": self.camera[0] if len(self.camera) == 1 else list(self.camera) or None,
            "episodes": self.episodes,
            "revision": self.revision,
            "instruction": self.instruction[0] if self.instruction else None,
            "instruction_attribute": self.instruction_attribute,
            "fps": self.fps,
            "flip_vertical": self.flip_vertical or None,
            "root": self.root,
            "skip_unlabelled": self.skip_unlabelled or None,
        }
        if self._drawn_at_once:
            options |= {"subset": self.subset, "seed": self.seed}
        return {name: value for name, value in options.items() if value is not None}

    def _videos(self) -> list[Episode]:
        videos, instructions = self.videos, self.instruction
        if len(videos) == 1 and videos[0].suffix.lower() in (".csv", ".jsonl"):
            if len(instructions) > 1 or self.fps is not None:
                wrong = "--fps" if self.fps is not None else "all but one --instruction"
                raise ConfigError(f"{videos[0]} is a listing, whose rows say that each for itself; leave out {wrong}")
            return read_listing(videos[0], root=self.root, instruction=instructions[0] if instructions else None)
        if self.root is not None:
            raise ConfigError("--root is for listings; --videos are found where they are named")
        if len(instructions) not in (1, len(videos)):
            raise ConfigError(
                f"{len(videos)} videos and {len(instructions)} instructions: give one for all, or one per video"
            )
        if len({_place(video) for video in videos}) < len(videos):
            raise DatasetError("the same video is named twice in --videos")
        texts = instructions if len(instructions) == len(videos) else instructions * len(videos)
        names = [video.name for video in videos]
        ids = names if len(set(names)) == len(names) else [str(video) for video in videos]
        ids = [os.fsencode(name).decode(errors="backslashreplace") for name in ids]  # a name may be no text
        loads = [partial(read_video, video, fps=self.fps) for video in videos]
        return [Episode(name, text, load) for name, text, load in zip(ids, texts, loads, strict=True)]

    def _select(self, opened: Sequence[Episode], examples: set[str]) -> Sequence[Episode]:
        chosen: Sequence[Episode] = opened
        if examples:
            chosen = [episode for episode in opened if episode.id not in examples]
            if not chosen:
                raise DatasetError(f"all {len(opened)} episodes are examples; none is left to evaluate")
        if self.split is not None:
            chosen = [episode for episode in chosen if episode.split == self.split]
            if not chosen:
                names = sorted({episode.split for episode in opened if episode.split})
                there = f"there are {', '.join(names)}" if names else "the episodes name no splits"
                raise DatasetError(f"no episode is of the split '{self.split}'{nearest(self.split, names)}; {there}")
        if self.subset is not None and not self._drawn_at_once:
            chosen = [chosen[i] for i in random_subset([e.id for e in chosen], self.subset, self.seed)]
        if self.calibration_split is not None:
            check_split([e.split for e in chosen if e.success is not None], self.calibration_split)
        return chosen


def check_split(splits: Sequence[str | None], wanted: str) -> None:
    """Raise ConfigError unless one of the labelled episodes' splits is the wanted one."""
    if wanted not in splits:
        names = sorted({split for split in splits if split})
        there = f"there are {', '.join(names)}" if names else "they name no splits"
        raise ConfigError(f"no labelled episode is of the split '{wanted}'{nearest(wanted, names)}; {there}")


def _place(video: Path) -> Path:
    """Where a video lies; links that go round in a circle are for whoever opens it to complain of."""
    try:
        return video.resolve()
    except (OSError, RuntimeError):
        return video.absolute()
