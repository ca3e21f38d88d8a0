"""The world in time: six tasks, six kinds of episode, and the true progress of every task at every frame.

In: a seed, and where wanted a task and a kind. Out: a Rollout. Pure numpy; knows nothing of pixels or files.
All randomness comes from the seed: the same call gives the same rollout.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from topreward.demo import scene as places
from topreward.demo.motion import Key, Position, play, uneven
from topreward.demo.scene import Scene, make_scene
from topreward.errors import ConfigError, nearest

FPS = 15.0
"""Frames/s of every episode."""
SHORTEST, LONGEST = 2.5, 8.0
"""Length of an episode, s; drawn without regard to its kind, so that length tells nothing."""


@dataclass(frozen=True)
class Task:
    """One thing a robot may be told to do, and how its progress is read off the table."""

    name: str
    thing: str
    """The thing whose state is the progress."""
    instruction: str
    paraphrases: tuple[str, ...]
    progress: str
    """What progress means, in words."""
    rests: tuple[float, ...] | None
    """The stages at which the thing stays put without a gripper; None: at any stage."""
    grip: float
    """How far the fingers are apart while they work on the thing, m."""


TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        Task(
            "close_drawer",
            "drawer",
            "close the drawer",
            ("shut the drawer", "push the drawer in", "push the drawer until it is closed"),
            "how far the drawer has been pushed in, of its full travel",
            None,
            0.0,
        ),
        Task(
            "lift_block",
            "block",
            "lift the block",
            ("pick up the block", "raise the block off the table", "hold the block up"),
            "height of the block above the table, of the full lift",
            (0.0,),
            places.BLOCK_EDGE,
        ),
        Task(
            "wipe_table",
            "table",
            "wipe the table",
            ("clean the table", "wipe up the spill", "mop up the spill with the sponge"),
            "share of the spill's area that is wiped away",
            None,
            0.06,
        ),
        Task(
            "pour_jug",
            "jug",
            "pour the jug",
            ("pour from the jug into the bowl", "empty the jug", "tip the jug over the bowl"),
            "tilt of the jug, of the tilt at which it is empty",
            (0.0,),
            0.02,
        ),
        Task(
            "stack_cup",
            "cup",
            "stack the cup",
            ("stack the cups", "put one cup on the other", "place the cup on top of the other cup"),
            "how far the cup is along its way onto the other cup",
            (0.0, 1.0),
            2 * places.CUP_RADIUS,
        ),
        Task(
            "push_can",
            "can",
            "push the can to the mark",
            ("move the can onto the mark", "slide the can to the target", "push the can until it is on the mark"),
            "one minus the can's distance to the mark, of the full way",
            None,
            0.0,
        ),
    )
}
"""Name → task, in a fixed order."""

KINDS: tuple[str, ...] = (
    "success",  # 0 → 1 and stays there
    "stops_halfway",  # 0 → a part, and no further
    "hesitates",  # forward, pause, a little back, forward: runs out of time well short of done
    "undoes_itself",  # 0 → most or all of it, then (nearly) all the way back, as if time ran backwards
    "never_starts",  # the arm moves about, nothing changes
    "other_task",  # another task is done instead
)
MOST_A_FAILURE_REACHES = 0.7
"""Final progress of every episode that is not a success is at most this."""


@dataclass(frozen=True, eq=False)
class Rollout:
    """One episode of the world, in T frames."""

    seed: int
    task: str
    """The task in the instruction."""
    kind: str
    acted: str | None
    """The task that the arm really works on; None where it works on none."""
    scene: Scene = field(repr=False)
    progress: dict[str, NDArray[np.float64]] = field(repr=False)
    """Task → (T,) true progress in [0, 1]. This is the state of the things on the table, all of it."""
    gripper: NDArray[np.float64] = field(repr=False)
    """(T, 4) x, y, z of the gripper's tip and the distance between its fingers, m."""
    fps: float = FPS

    @property
    def instruction(self) -> str:
        """The canonical wording of the task."""
        return TASKS[self.task].instruction

    @property
    def success(self) -> bool:
        """True only where the instructed task was carried through and left done."""
        return self.kind == "success"

    @property
    def num_frames(self) -> int:
        """T."""
        return int(self.gripper.shape[0])


def make_rollout(seed: int, *, task: str | None = None, kind: str | None = None) -> Rollout:
    """Play one episode.

    `seed` ≥ 0 fixes the scene, the length and the movement; `task` (a key of TASKS) and `kind` (one of KINDS)
    are drawn from it where they are not given. The same seed with another task or kind plays on the same
    table with the same things. Raises ConfigError on an unknown task or kind or a negative seed.
    """
    if seed < 0:
        raise ConfigError(f"seed is {seed}, want 0 or more")
    drawn, built, moved = (np.random.Generator(np.random.PCG64(s)) for s in np.random.SeedSequence(seed).spawn(3))
    any_task, any_kind = str(drawn.choice(list(TASKS))), str(drawn.choice(KINDS))
    task = known("task", task, TASKS) if task is not None else any_task
    kind = known("kind", kind, KINDS) if kind is not None else any_kind
    scene = make_scene(built)
    num_frames = round(float(moved.uniform(SHORTEST, LONGEST)) * FPS)
    stages = _first_stages(moved)
    acted: str | None = task
    if kind == "other_task":
        acted = str(moved.choice([name for name in TASKS if name != task]))
        stages[task] = stages[task] / 2 if TASKS[task].rests is None else 0.0
    else:
        stages[task] = 0.0
    if acted is not None:
        stages[acted] = 0.0
    times = np.arange(num_frames) / FPS
    stage, hold, free = play(_plan(moved, scene, TASKS[acted or task], kind), times)
    progress = {name: np.full(num_frames, level) for name, level in stages.items()}
    if kind == "never_starts":
        acted = None
    else:
        assert acted is not None
        progress[acted] = stage
    gripper = _gripper(scene, TASKS[acted or task], stage, hold, free)
    return Rollout(seed, task, kind, acted, scene, progress, gripper)


def known(what: str, name: str, allowed: Iterable[str]) -> str:
    """`name` if it is allowed. Raises ConfigError naming the nearest allowed one."""
    options = list(allowed)
    if name not in options:
        raise ConfigError(f"unknown {what} {name!r}{nearest(name, options)}; want one of {', '.join(options)}")
    return name


def _first_stages(rng: np.random.Generator) -> dict[str, float]:
    """Stages that the things may be found in: any where nothing would fall down."""
    stages: dict[str, float] = {}
    for name, task in TASKS.items():
        anywhere, untouched, which = rng.uniform(0, 1), rng.random() < 0.3, rng.random()
        if task.rests is None:
            stages[name] = 0.0 if untouched else float(anywhere)
        else:
            stages[name] = task.rests[int(which * len(task.rests))]
    return stages


def _gripper(
    scene: Scene, task: Task, stage: NDArray[np.float64], hold: NDArray[np.float64], free: NDArray[np.float64]
) -> NDArray[np.float64]:
    touch = np.array([places.contact(scene, task.thing, float(s)) for s in stage])
    tip = free + (touch - free) * hold[:, None]
    open_wide = task.grip + 0.04 if task.grip else 0.0
    width = open_wide + (task.grip - open_wide) * np.clip(hold * 4 - 3, 0, 1)  # fingers close at the very end
    return np.concatenate([tip, width[:, None]], axis=1)


def _anywhere(rng: np.random.Generator) -> Position:
    """Somewhere in the air above the table, clear of the things on it, m."""
    x, y, z = rng.uniform((-0.4, 0.12, 0.27), (0.4, 0.62, 0.4))
    return float(x), float(y), float(z)


def _above(rng: np.random.Generator, scene: Scene, task: Task, stage: float) -> Position:
    """A point from which the gripper can come down on the thing, m."""
    x, y, z = places.contact(scene, task.thing, stage)
    back = -0.05 if task.thing == "drawer" else 0.0
    dx, dy = places.can_way(scene) if task.thing == "can" else (0.0, 0.0)
    height = float(rng.uniform(0.14, 0.2))
    return x - 0.05 * dx, y + back - 0.05 * dy, z + height


def _wander(rng: np.random.Generator, weight: float, key: Key, stops: int) -> list[Key]:
    """Move to `stops` places in the air, leaving everything as it is; none: wait."""
    if stops == 0:
        return [Key(weight, key.stage, 0.0, key.free)]
    shares = rng.dirichlet(np.full(stops, 3.0)) * weight
    return [Key(float(share), key.stage, 0.0, _anywhere(rng)) for share in shares]


def _plan(rng: np.random.Generator, scene: Scene, task: Task, kind: str) -> list[Key]:
    """The keys of one episode. Waiting before and after is drawn without regard to the kind."""
    lead, tail = float(rng.uniform(0.08, 0.4)), float(rng.uniform(0.12, 0.45))
    keys = [Key(0.0, 0.0, 0.0, _anywhere(rng))]
    keys += _wander(rng, lead, keys[-1], int(rng.integers(0, 3)))
    if kind == "never_starts":
        return keys + _loiter(rng, scene, task, keys[-1], 1.2 + tail)
    keys.append(Key(0.2, 0.0, 0.0, _above(rng, scene, task, 0.0)))
    keys.append(Key(0.12, 0.0, 1.0, keys[-1].free))
    for weight, stage in _strokes(rng, kind):
        keys += uneven(rng, weight, keys[-1], stage)
        keys.append(Key(float(rng.uniform(0.02, 0.15)), stage, 1.0, _above(rng, scene, task, stage)))
    end = keys[-1].stage
    if (task.rests is None or end in task.rests) and rng.random() < 0.75:
        keys.append(Key(0.12, end, 0.0, keys[-1].free))
        return keys + _wander(rng, tail, keys[-1], int(rng.integers(0, 3)))
    return [*keys, Key(tail, end, 1.0, keys[-1].free)]


def _strokes(rng: np.random.Generator, kind: str) -> list[tuple[float, float]]:
    """(relative length, stage reached) of the work that each kind does on its thing."""
    if kind in ("success", "other_task"):
        return [(1.0, 1.0)]
    if kind == "stops_halfway":
        return [(1.0, float(rng.uniform(0.25, 0.65)))]
    if kind == "undoes_itself":
        most = 1.0 if rng.random() < 0.4 else float(rng.uniform(0.6, 1.0))
        least = 0.0 if rng.random() < 0.5 else float(rng.uniform(0.0, 0.2))
        return [(0.6, most), (0.5, least)]
    strokes, level = [], 0.0
    for _ in range(int(rng.integers(2, 4))):
        level = min(level + float(rng.uniform(0.15, 0.35)), 0.65)
        back = max(level - float(rng.uniform(0.05, 0.2)), 0.05)
        strokes += [(0.35, level), (0.15, back)]
        level = back
    return strokes


def _loiter(rng: np.random.Generator, scene: Scene, task: Task, key: Key, weight: float) -> list[Key]:
    """Move about, now and then close to the thing, and never touch it."""
    keys: list[Key] = []
    for _ in range(int(rng.integers(2, 6))):
        near = rng.random() < 0.5
        free = _above(rng, scene, task, 0.0) if near else _anywhere(rng)
        keys.append(Key(float(rng.uniform(0.5, 1.0)), key.stage, 0.0, free))
        if rng.random() < 0.5:
            keys.append(Key(float(rng.uniform(0.2, 0.6)), key.stage, 0.0, free))
    scale = weight / sum(k.weight for k in keys)
    return [Key(k.weight * scale, k.stage, k.hold, k.free) for k in keys]
