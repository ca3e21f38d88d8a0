"""What every kind of dataset looks like to `open_dataset`, and the sequence of episodes it hands out.

In: a source that can list its episodes and make each of them. Out: a Sequence[Episode]. Knows no file format.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Protocol, overload

from topreward.errors import DatasetError
from topreward.types import Episode


class Source(Protocol):
    """A dataset whose episodes are listed, but not yet chosen."""

    @property
    def uri(self) -> str:
        """What opens it again, for messages and provenance."""

    @property
    def revision(self) -> str | None:
        """The commit of a hub dataset."""

    @property
    def cameras(self) -> tuple[str, ...]:
        """All camera names, in the dataset's order."""

    @property
    def ids(self) -> Sequence[str]:
        """The id of every episode; the position is the number that `episodes=` speaks of."""

    def has_instruction(self, position: int) -> bool:
        """Whether the dataset says what the robot was told there."""

    def episode(self, position: int) -> Episode:
        """The episode at a position. Raises DatasetError where its metadata contradict themselves."""


class Dataset(Sequence[Episode]):
    """Episodes of one dataset, in order. Indexing gives an Episode, slicing a Dataset."""

    def __init__(
        self,
        uri: str,
        episodes: Sequence[Episode],
        *,
        cameras: tuple[str, ...] = (),
        revision: str | None = None,
        skipped: tuple[str, ...] = (),
    ) -> None:
        repeated = [name for name, times in Counter(episode.id for episode in episodes).items() if times > 1]
        if repeated:
            raise DatasetError(f"{uri}: the episode id {repeated[0]!r} appears more than once")
        self.uri = uri
        self.cameras = cameras
        """Every camera the dataset has, not only the one that was asked for."""
        self.revision = revision
        """The commit of a hub dataset, None elsewhere."""
        self.skipped = skipped
        """Ids of the episodes that `skip_unlabelled` left out."""
        self._episodes = tuple(episodes)

    def __len__(self) -> int:
        return len(self._episodes)

    @overload
    def __getitem__(self, index: int) -> Episode: ...
    @overload
    def __getitem__(self, index: slice) -> Dataset: ...
    def __getitem__(self, index: int | slice) -> Episode | Dataset:
        if isinstance(index, slice):
            part = self._episodes[index]
            return Dataset(self.uri, part, cameras=self.cameras, revision=self.revision, skipped=self.skipped)
        return self._episodes[index]

    def __repr__(self) -> str:
        cameras = f", cameras {', '.join(self.cameras)}" if self.cameras else ""
        skipped = f", {len(self.skipped)} without an instruction skipped" if self.skipped else ""
        return f"Dataset({self.uri!r}, {len(self)} episodes{cameras}{skipped})"


def choose_cameras(wanted: str | Sequence[str] | None, available: Sequence[str], *, where: str) -> tuple[str, ...]:
    """Full camera names for what the user asked for; the first one for None.

    `top` stands for `observation.images.top` where only one name ends so. Raises DatasetError that lists the
    cameras there are.
    """
    if not available:
        raise DatasetError(f"{where}: there is no camera in this dataset")
    if wanted is None:
        return (available[0],)
    names = [wanted] if isinstance(wanted, str) else list(wanted)
    if not names:
        raise DatasetError(f"{where}: camera is an empty list; the cameras are {', '.join(available)}")
    chosen: list[str] = []
    for name in names:
        matches = [name] if name in available else [key for key in available if key.endswith(f".{name}")]
        if len(matches) != 1:
            problem = "is not in this dataset" if not matches else "stands for several"
            raise DatasetError(f"{where}: camera {name!r} {problem}; the cameras are {', '.join(available)}")
        chosen.append(matches[0])
    if len(set(chosen)) != len(chosen):
        raise DatasetError(f"{where}: camera {names} names a camera twice")
    return tuple(chosen)
