"""Demo episodes, as every other dataset gives them.

In: how many, from which seed, of which kinds and tasks. Out: `topreward.Episode`s with success, true progress
and clips that draw a frame when it is asked for. Knows no file.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from topreward.demo.draw import SIZE, SUPERSAMPLE, Painter, as_size
from topreward.demo.world import KINDS, TASKS, Rollout, known, make_rollout
from topreward.errors import ConfigError, DatasetError
from topreward.types import Clip, Episode

CAMERA = "front"


@dataclass(frozen=True, eq=False)
class Film:
    """A clip's decoder: frame indices in, pixels out. Pickles as its rollout; what it has drawn stays behind."""

    rollout: Rollout = field(repr=False)
    size: tuple[int, int]
    supersample: int

    @cached_property
    def _painter(self) -> Painter:
        return Painter(self.rollout, self.size, self.supersample)

    def __call__(self, indices: NDArray[np.int64]) -> NDArray[np.uint8]:
        return self._painter.frames(int(i) for i in indices)

    def __reduce__(self) -> tuple[Any, ...]:
        return Film, (self.rollout, self.size, self.supersample)


def demo_clip(rollout: Rollout, size: int | tuple[int, int] = SIZE, supersample: int = SUPERSAMPLE) -> Clip:
    """A rollout as a clip of `size` px (a side, or height and width); frames are drawn when asked for."""
    height, width = as_size(size)
    return Clip(
        pts_seconds=np.arange(rollout.num_frames) / rollout.fps,
        fps=rollout.fps,
        height=height,
        width=width,
        decode=Film(rollout, (height, width), supersample),
        source=f"demo:{rollout.task}/{rollout.kind}/{rollout.seed}",
    )


def demo_episode(
    rollout: Rollout,
    *,
    id: str | None = None,
    instruction: str | None = None,
    size: int | tuple[int, int] = SIZE,
    supersample: int = SUPERSAMPLE,
    split: str | None = None,
) -> Episode:
    """A rollout as an Episode. `extra` holds kind, task, acted and seed: enough for `rollout_of`."""
    return Episode(
        id=id or f"demo-{rollout.seed}-{rollout.task}-{rollout.kind}",
        instruction=instruction or rollout.instruction,
        load=partial(demo_clip, rollout, size, supersample),
        success=rollout.success,
        camera=CAMERA,
        split=split,
        progress=rollout.progress[rollout.task],
        extra={"kind": rollout.kind, "task": rollout.task, "acted": rollout.acted, "seed": rollout.seed},
    )


def demo_rollouts(
    count: int, *, seed: int = 0, kinds: Sequence[str] | None = None, tasks: Sequence[str] | None = None
) -> Iterator[Rollout]:
    """`count` rollouts, one at a time: all pairs of `tasks` and `kinds` equally often, in an order drawn by lot.

    A kind or task that is named twice comes twice as often; None means each of them once. A longer run of the
    same seed begins with the shorter one. Raises ConfigError on unknown names, an empty list or a negative number.
    """
    kinds, tasks = list(KINDS if kinds is None else kinds), list(TASKS if tasks is None else tasks)
    if count < 0 or seed < 0:
        raise ConfigError(f"count is {count} and seed is {seed}, want 0 or more")
    if not kinds or not tasks:
        raise ConfigError(f"want at least one kind and one task, got {len(kinds)} and {len(tasks)}")
    pairs = [(known("task", task, TASKS), known("kind", kind, KINDS)) for task in tasks for kind in kinds]

    def play() -> Iterator[Rollout]:
        for index in range(count):
            round_, place = divmod(index, len(pairs))
            order = np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, 0, round_])))
            task, kind = pairs[int(order.permutation(len(pairs))[place])]
            # 53 bits: exact in any JSON reader, and two seeds' episodes practically never meet
            own = int(np.random.SeedSequence([seed, 1, index]).generate_state(1, np.uint64)[0] >> np.uint64(11))
            yield make_rollout(own, task=task, kind=kind)

    return play()


def demo_episodes(
    count: int,
    *,
    seed: int = 0,
    kinds: Sequence[str] | None = None,
    tasks: Sequence[str] | None = None,
    paraphrase: bool = False,
    size: int | tuple[int, int] = SIZE,
    supersample: int = SUPERSAMPLE,
    split: str | None = None,
) -> list[Episode]:
    """`count` demo episodes; see `demo_rollouts` for what is drawn.

    `paraphrase`: word every instruction in one of its task's ways instead of the canonical one. `size`: px, a
    side or (height, width). Nothing is drawn before a clip's frames are asked for.
    """
    width = max(3, math.ceil(math.log10(max(count, 2))))
    episodes = []
    for index, rollout in enumerate(demo_rollouts(count, seed=seed, kinds=kinds, tasks=tasks)):
        task = TASKS[rollout.task]
        wordings = (task.instruction, *task.paraphrases)
        chosen = np.random.SeedSequence([seed, 2, index]).generate_state(1)[0] % len(wordings) if paraphrase else 0
        episodes.append(
            demo_episode(
                rollout,
                id=f"demo-{seed}-{index:0{width}d}-{rollout.task}-{rollout.kind}",
                instruction=wordings[int(chosen)],
                size=size,
                supersample=supersample,
                split=split,
            )
        )
    return episodes


def rollout_of(episode: Episode) -> Rollout:
    """The rollout behind a demo episode: every task's progress, the gripper. Raises DatasetError for any other."""
    missing = [key for key in ("seed", "task", "kind") if key not in episode.extra]
    if missing:
        raise DatasetError(f"episode {episode.id} is not of the demo world: its extra lacks {', '.join(missing)}")
    return make_rollout(int(episode.extra["seed"]), task=episode.extra["task"], kind=episode.extra["kind"])
