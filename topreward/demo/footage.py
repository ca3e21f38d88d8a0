"""What the demo checkpoint is taught from: rendered episodes with the state of the whole table at each frame.

In: how many episodes, from which seed. Out: Footage, a few sampled frames each, small. Pure numpy and PIL;
knows nothing of tokens and of training.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from multiprocessing import get_context
from queue import Queue
from threading import Thread
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from topreward.demo import scene as places
from topreward.demo.backdrop import backdrop
from topreward.demo.draw import SIZE, Painter
from topreward.demo.pen import View
from topreward.demo.scene import Scene
from topreward.demo.world import KINDS, TASKS, Rollout, make_rollout

Item = TypeVar("Item")

SIDE = 96
"""px of a training frame: what configs/demo.yaml makes of a demo video."""
FILMS_PER_ROOM = 4
REACH = 0.5
"""Distance from its thing beyond which the gripper counts as not near at all, m."""

# Lifting, pouring and stacking start at nothing unless the arm works on them: they come more often, or they
# would seldom be seen under way.
TASK_WEIGHTS = {"lift_block": 1.5, "pour_jug": 1.5, "stack_cup": 1.5}
# The two whose stage is hardest to see: a can a few pixels from its mark, a drawer that moves towards the camera.
# Their films are drawn more often.
HARD = {"push_can": 2.0, "close_drawer": 1.5}
KIND_WEIGHTS = {"success": 2.4, "undoes_itself": 1.4, "other_task": 1.2}


@dataclass(frozen=True, eq=False)
class Footage:
    """Sampled frames of one episode."""

    task: int
    """Index into TASKS: the instructed task."""
    acted: int
    """Index into TASKS: the task that is worked on; where there is none, the instructed one."""
    frames: NDArray[np.uint8] = field(repr=False)
    """(N, SIDE, SIDE, 3) RGB, in order of time."""
    progress: NDArray[np.float32]
    """(N, 6) true progress of every task in [0, 1]."""
    near: NDArray[np.float32]
    """(N, 6) how near the gripper is to each task's thing: 1 at it, 0 from REACH on."""
    gripper: NDArray[np.float32]
    """(N, 4) as in Rollout.gripper, m."""


def nearness(rollout: Rollout, indices: NDArray[np.int64]) -> NDArray[np.float32]:
    """(N, 6) how near the gripper is to where it would touch each task's thing, in [0, 1]."""
    tip = rollout.gripper[indices, :3]
    columns = []
    for name, task in TASKS.items():
        stages = rollout.progress[name][indices]
        touch = np.array([places.contact(rollout.scene, task.thing, float(stage)) for stage in stages])
        columns.append(1 - np.linalg.norm(tip - touch, axis=1) / REACH)
    return np.asarray(np.clip(np.stack(columns, axis=1), 0, 1), dtype=np.float32)


@dataclass(frozen=True, eq=False)
class Room:
    """What a few films share: the empty table, the light and the camera. To draw it is half the work of a film."""

    scene: Scene
    supersample: int
    table: Image.Image

    def around(self, scene: Scene) -> Scene:
        """The things of `scene` in this room."""
        own = self.scene
        return replace(scene, camera=own.camera, table=own.table, wall=own.wall, light=own.light, texture=own.texture)


@lru_cache(maxsize=1)
def room(seed: int, index: int) -> Room:
    """Room `index` of the pool `seed`."""
    rng = np.random.default_rng([seed, index, 1])
    scene = places.make_scene(rng)
    # Mostly without supersampling, which is four times faster; scaled down it looks almost the same.
    supersample = 2 if rng.random() < 0.25 else 1
    view = View(scene.camera, SIZE[0] * supersample, SIZE[1] * supersample)
    return Room(scene, supersample, backdrop(scene, view))


def film(seed: int, index: int, longest: int | None = None) -> Footage:
    """Episode `index` of the pool `seed`: task, kind, frame rate and phase are drawn by lot.

    `longest`: keep only so many frames in a row, from anywhere in the episode.
    """
    rng = np.random.default_rng([seed, index])
    task, kind = _pick(rng, list(TASKS), TASK_WEIGHTS), _pick(rng, list(KINDS), KIND_WEIGHTS)
    rollout = make_rollout(int(rng.integers(2**53)), task=task, kind=kind)
    here = room(seed, index // FILMS_PER_ROOM)
    rollout = replace(rollout, scene=here.around(rollout.scene))
    step = int(rng.integers(4, 9))  # raw frames between sampled ones: 1.9 to 3.75 a second
    indices = np.arange(int(rng.integers(step)), rollout.num_frames, step)
    if rng.random() < 0.5:
        indices[0], indices[-1] = 0, rollout.num_frames - 1
    if longest is not None and indices.size > longest:
        start = int(rng.integers(indices.size - longest + 1))
        indices = indices[start : start + longest]
    painter = Painter(rollout, SIZE, here.supersample, here.table)
    frames = [
        np.asarray(Image.fromarray(f).resize((SIDE, SIDE), Image.Resampling.BICUBIC)) for f in painter.frames(indices)
    ]
    names = list(TASKS)
    return Footage(
        task=names.index(task),
        acted=names.index(rollout.acted or task),
        frames=np.stack(frames),
        progress=np.stack([rollout.progress[name][indices] for name in names], axis=1).astype(np.float32),
        near=nearness(rollout, indices),
        gripper=rollout.gripper[indices].astype(np.float32),
    )


def shoot(count: int, *, seed: int, longest: int | None = None, workers: int = 1) -> list[Footage]:
    """The first `count` episodes of the pool `seed`; the same whatever the number of processes."""
    jobs = [(seed, index, longest) for index in range(count)]
    if workers <= 1:
        return [film(*job) for job in jobs]
    with get_context("spawn").Pool(workers) as pool:
        return pool.starmap(film, jobs, chunksize=64)


def hardness(pool: Sequence[Footage]) -> NDArray[np.float64]:
    """(len(pool),) how often each film is to be drawn, relative to the others."""
    of_task = np.array([HARD.get(name, 1.0) for name in TASKS])
    return of_task[[film.acted for film in pool]]


def _pick(rng: np.random.Generator, names: list[str], weights: dict[str, float]) -> str:
    shares = np.array([weights.get(name, 1.0) for name in names])
    return str(rng.choice(names, p=shares / shares.sum()))


def ahead(items: Iterator[Item], depth: int = 3) -> Iterator[Item]:
    """The same items, made up to `depth` ahead in a thread: one core draws lessons while another one learns."""
    queue: Queue[Item | BaseException | None] = Queue(depth)

    def make() -> None:
        try:
            for item in items:
                queue.put(item)
            queue.put(None)
        except BaseException as error:
            queue.put(error)

    Thread(target=make, daemon=True).start()
    while (item := queue.get()) is not None:
        if isinstance(item, BaseException):
            raise item
        yield item
