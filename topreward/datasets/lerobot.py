"""`lerobot:<folder or hub id>`: a LeRobot dataset of version 2.0, 2.1 or 3.0 as a source of episodes.

In: a folder or hub id. Out: a Source. Needs nothing of the lerobot package.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from topreward.datasets.lerobot_episodes import EpisodeRecord, EpisodeTable, read_episodes
from topreward.datasets.lerobot_frames import EpisodeLoader, tasks_in_order
from topreward.datasets.lerobot_info import Camera, Info, read_info, read_tasks
from topreward.datasets.roots import Root, open_root
from topreward.datasets.source import choose_cameras
from topreward.errors import DatasetError
from topreward.types import Episode


class LeRobotSource:
    """The episodes of one LeRobot dataset; the number of an episode is its `episode_index`."""

    def __init__(
        self,
        root: Root,
        uri: str,
        info: Info,
        tasks: Mapping[int, str],
        table: EpisodeTable,
        cameras: tuple[Camera, ...],
        instruction: str | None,
    ) -> None:
        self.root = root
        self.uri = uri
        self.info = info
        self.tasks = tasks
        self.table = table
        self.chosen = cameras
        self.instruction = instruction
        self.revision = root.revision
        self.cameras = tuple(camera.key for camera in info.cameras)
        self.ids = [episode_id(index) for index in range(len(table))]

    def has_instruction(self, position: int) -> bool:
        return any(task.strip() for task in self._tasks(self.table.record(position)))

    def episode(self, position: int) -> Episode:
        record = self.table.record(position)
        instruction = self.instruction or self._instruction(record)
        return Episode(
            id=self.ids[position],
            instruction=instruction,
            load=EpisodeLoader(self.root, self.uri, self.info.fps, self.tasks, record, self.chosen),
            camera="+".join(camera.key for camera in self.chosen),
            split=next((name for name, part in self.info.splits.items() if position in part), None),
            extra={
                "dataset_uri": self.uri,
                "revision": self.revision,
                "episode_index": record.index,
                "dataset_from_index": record.first_row,
                "length": record.length,
                "fps": self.info.fps,
                "tasks": record.tasks if self.instruction else self._tasks(record),
            },
        )

    def _tasks(self, record: EpisodeRecord) -> tuple[str, ...]:
        """The episode's tasks, out of its rows where the metadata leave them out (as some converters do)."""
        if record.tasks is not None:
            return record.tasks
        return tasks_in_order(self.root, record, self.tasks, where=f"{self.uri}, episode {record.index}")

    def _instruction(self, record: EpisodeRecord) -> str:
        where = f"{self.uri}, episode {record.index}"
        tasks = self._tasks(record)
        if record.tasks is not None and len(tasks) > 1:
            # The metadata keep several tasks in no particular order; only the frames know which came first.
            tasks = tasks_in_order(self.root, record, self.tasks, where=where)
        text = "; ".join(task for task in tasks if task.strip())
        if not text:
            raise DatasetError(
                f"{where}: there is no instruction; give instruction=, or leave it out (skip_unlabelled)"
            )
        return text


def episode_id(index: int) -> str:
    """The id of a LeRobot episode, e.g. `episode_000012`."""
    return f"episode_{index:06d}"


def open_lerobot(
    location: str,
    *,
    camera: str | Sequence[str] | None = None,
    revision: str | None = None,
    instruction: str | None = None,
) -> LeRobotSource:
    """Read the metadata of a dataset; on the hub, fetch `meta/` and nothing else."""
    root = open_root(location, revision=revision)
    uri = f"lerobot:{location}"
    info = read_info(root)
    names = choose_cameras(camera, [camera.key for camera in info.cameras], where=uri)
    chosen = tuple(next(one for one in info.cameras if one.key == name) for name in names)
    tasks = read_tasks(root, info)
    table = read_episodes(root, info, tasks, [camera.key for camera in chosen if camera.kind == "video"])
    return LeRobotSource(root, uri, info, tasks, table, chosen, instruction)
