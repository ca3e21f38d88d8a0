"""Episodes over a Ray cluster: Ray Data hands positions to a pool of actors, each of which holds the models.

In go positions; out come (position, Measured) as they are done. Ray's own way is that one exception ends a whole job:
here an episode's error is a row like any other, and what is lost with a node or an actor is measured again. The driver
alone writes files.
"""

from __future__ import annotations

import logging
import os
import pickle
from collections.abc import Generator, Iterator, Sequence
from dataclasses import replace
from typing import Any

from topreward.errors import ConfigError, TopRewardError
from topreward.jobs.engine import Engine
from topreward.jobs.episode import Measured, describe_error
from topreward.jobs.here import Here, Task
from topreward.types import Episode

STRETCH = 16
"""Most episodes that an actor gets at a time."""
RESTARTS = 4
"""How often an actor may die and come back, and a stretch may be tried again, before it counts as lost."""
CPU_SHARE = 0.5
"""Of a core, that an actor asks for: with whole ones, two actors on two cores leave none for whoever feeds them."""


def measured_on_ray(
    task: Task, episodes: Sequence[Episode], positions: Iterator[int]
) -> Generator[tuple[int, Measured], None, None]:
    """Measure the episodes at these positions. Raises ConfigError without Ray, TopRewardError where no model loads."""
    ray = _connected()
    left = list(positions)
    ids = [episode.id for episode in episodes]
    workers = task.engine.workers
    # What was at hand when an actor or a node died is tried again, an episode at a time: the one at fault is alone.
    for stretch in (max(1, min(STRETCH, len(left) // (2 * workers))), 1):
        done: set[int] = set()
        try:
            for position, measured in _rows(ray, task, left, ids, stretch):
                done.add(position)
                yield position, measured
        except ray.exceptions.RayError as failure:
            logging.getLogger(__name__).debug("ray: %s", failure)
        left = [position for position in left if position not in done]
        if not left:
            return
    for position in left:
        e = episodes[position]
        error = "the process that scored it died, on Ray, more than once"
        yield position, Measured(e.id, e.instruction, success=e.success, split=e.split, error=error)


def _connected() -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_DATA_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise ConfigError(f"--engine ray needs Ray: pip install 'topreward[ray]' ({error})") from error
    if not ray.is_initialized():
        address = os.environ.get("RAY_ADDRESS")
        alone = {} if address else {"include_dashboard": False}
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, **alone)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.max_errored_blocks = -1  # a stretch that is lost is no reason to lose the others
    for name in ("ray", "ray.data"):
        logging.getLogger(name).setLevel(logging.ERROR)
    return ray


def _rows(ray: Any, task: Task, left: list[int], ids: list[str], stretch: int) -> Iterator[tuple[int, Measured]]:
    workers = min(task.engine.workers, -(-len(left) // stretch))
    told = replace(task, fail_fast=False, engine=Engine(1, task.engine.decoders, task.engine.batch_size))
    gpu = {"num_gpus": 1} if ray.cluster_resources().get("GPU", 0) >= workers else {}
    rows = ray.data.from_items([{"position": p} for p in left], override_num_blocks=-(-len(left) // stretch))
    rows = rows.map_batches(
        Actor,
        fn_constructor_args=(told, ids),
        batch_size=None,
        concurrency=workers,
        num_cpus=CPU_SHARE,
        max_restarts=RESTARTS,
        max_task_retries=RESTARTS,
        **gpu,
    )
    for row in rows.iter_rows():
        if row["error"]:
            raise TopRewardError(row["error"])
        yield int(row["position"]), pickle.loads(row["measured"])


class Actor:
    """The models at work in a process of Ray's."""

    def __init__(self, task: Task, ids: list[str]) -> None:
        """`ids`: of all episodes, as the driver has them. An error is kept, and told with the first stretch."""
        self.error = ""
        try:
            episodes = task.open_episodes()
            if [e.id for e in episodes] != ids:
                self.error = "the dataset has other episodes when it is opened again; is it being written?"
                return
            # Ray shows a process its own GPU alone: each is the first of one.
            self.here = Here(task, episodes)
        except Exception as failure:
            self.error = describe_error(failure)

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[Any]]:
        """Rows of positions → rows with what was measured there, or with the error that ends the run."""
        positions = [int(p) for p in batch["position"]]
        if self.error:
            return {"position": positions, "measured": [b""] * len(positions), "error": [self.error] * len(positions)}
        done = list(self.here.measured(iter(positions)))
        return {
            "position": [position for position, _ in done],
            "measured": [pickle.dumps(measured) for _, measured in done],
            "error": [""] * len(done),
        }
