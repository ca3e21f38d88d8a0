"""However a job is carried out, what it measures is the same: batches, decoders, processes."""

from __future__ import annotations

import multiprocessing.resource_tracker
import os
import signal
import time
from functools import partial
from pathlib import Path

import pytest

from places import DATA
from runs import measured, same, same_bytes
from scorers import Bright, Foretold, Load, bright_clip, episodes, missing
from topreward.config import load_protocol
from topreward.errors import ConfigError
from topreward.estimators.gvl.protocol import load_gvl_protocol
from topreward.evaluation import EvalRun, Folder, ModelSetup, Plan, evaluate
from topreward.jobs.ahead import Decoders
from topreward.jobs.engine import Engine, Shard
from topreward.jobs.episode import Measured
from topreward.jobs.inputs import Inputs
from topreward.types import Clip, Episode

PLAN = Plan(("topreward", "log_odds", "debiased", "gvl"))
DEMO = Inputs(dataset="demo:?count=5&size=96")


def setup(protocol: str = "demo", gvl: str = "gvl-demo") -> ModelSetup:
    options = {"name": "demo", "device": "cpu"}
    return ModelSetup(PLAN.bases, load_protocol(protocol), load_gvl_protocol(gvl), options)


def carried_out(engine: Engine, inputs: Inputs = DEMO, load: ModelSetup | None = None) -> list[Measured]:
    with Folder() as folder:
        run = evaluate(load or setup(), inputs, PLAN, folder, engine=engine)
        return measured(folder, run)


@pytest.fixture(scope="module")
def one_by_one() -> list[Measured]:
    return carried_out(Engine())


@pytest.mark.parametrize(
    "engine",
    [Engine(batch_size=None), Engine(batch_size=3), Engine(decoders=2, batch_size=None)],
    ids=["as many as fit", "three", "decoders"],
)
def test_batches_and_decoders_give_the_same_curves(engine: Engine, one_by_one: list[Measured]) -> None:
    together = carried_out(engine)
    same(one_by_one, together)
    assert max(r.curve.provenance.get("packed", 1) for m in together for r in m.readings if r.curve) > 1


def test_a_decoder_alone_changes_no_bit(one_by_one: list[Measured]) -> None:
    same_bytes(one_by_one, carried_out(Engine(decoders=1)))


def test_two_workers_with_decoders_give_the_same_curves(one_by_one: list[Measured]) -> None:
    same(one_by_one, carried_out(Engine(workers=2, decoders=1, batch_size=2)))


@pytest.mark.parametrize(
    ("name", "protocol", "camera"), [("v30_h264", "paper", ()), ("v21_h264", "dense", ("observation.images.top",))]
)
def test_a_lerobot_dataset_too(name: str, protocol: str, camera: tuple[str, ...]) -> None:
    inputs = Inputs(dataset=f"lerobot:{DATA / 'lerobot' / name}", camera=camera)
    load = setup(protocol)
    same(carried_out(Engine(), inputs, load), carried_out(Engine(decoders=1, batch_size=None), inputs, load))


def go(listed: list[Episode], engine: Engine, log: Path | None = None) -> EvalRun:
    with Folder() as folder:
        load = Load({"topreward": Foretold(log)})
        return evaluate(load, lambda: listed, Plan(("topreward",)), folder, engine=engine)


def unless_in(parent: int, what: str) -> Clip:
    """A clip in the process `parent`; elsewhere the death or the sleep of whoever opens it."""
    if os.getpid() == parent:
        return bright_clip(range(12))
    if what == "dies":
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(600)
    raise AssertionError


def test_a_decoder_that_is_lost_takes_one_episode_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOPREWARD_MAX_DECODE_SECONDS", "2")
    dies, hangs = (partial(unless_in, os.getpid(), what) for what in ("dies", "hangs"))
    run = go(episodes(8, {1: missing, 3: dies, 6: hangs}), Engine(decoders=2))
    assert [e.id for e in run.episodes] == [f"e{i}" for i in range(8)]
    assert {e.id: e.error for e in run.episodes if e.error} == {
        "e1": "gone.mp4: no such file",
        "e3": "the process that decoded it died with exit status -9",
        "e6": "decoding took longer than 2 s (TOPREWARD_MAX_DECODE_SECONDS)",
    }


def once(mark: Path, levels: list[int]) -> Clip:
    """Kills the first process that opens it."""
    if not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return bright_clip(levels)


def test_a_decoder_that_is_killed_from_outside_costs_nothing(tmp_path: Path) -> None:
    load = partial(once, tmp_path / "mark", list(range(12)))
    assert go(episodes(5, {2: load}), Engine(decoders=1)).failed == 0
    assert (tmp_path / "mark").exists()


def test_decoders_leave_nothing_behind() -> None:
    def open_files() -> set[str]:
        links = Path("/proc/self/fd").iterdir()
        return {str(link.readlink()) for link in links if link.is_symlink()}

    multiprocessing.resource_tracker.ensure_running()  # what Python starts once and keeps
    before = open_files()
    run = go(episodes(30), Engine(decoders=1))
    assert run.failed == 0
    assert open_files() == before
    assert not [line for line in Path("/proc/self/maps").read_text().splitlines() if "topreward-frames" in line]


def test_frames_are_handed_over_without_a_copy_in_a_pipe() -> None:
    """A clip larger than any pipe arrives whole, and its memory goes with it."""
    clip = partial(big_clip, 40)
    with Decoders(1, Plan(("topreward",))) as decoders:
        decoders.look_for({"topreward": Foretold().recipe()})
        for position, _, footage in decoders.footage([(i, Episode(f"e{i}", "do it", clip)) for i in range(3)]):
            assert not isinstance(footage, str), footage
            assert footage.views[0].pixels[:, 5, 7, 0].tolist() == footage.views[0].indices.tolist()
            assert footage.nbytes > 2**20
            assert position in (0, 1, 2)


def big_clip(count: int) -> Clip:
    import numpy as np

    frames = np.broadcast_to(np.arange(count, dtype=np.uint8)[:, None, None, None], (count, 480, 640, 3))
    return Clip.from_array(np.ascontiguousarray(frames), 10.0)


def in_memory(clip: Clip) -> Clip:
    return clip


def test_what_cannot_travel_is_read_in_the_models_process(tmp_path: Path) -> None:
    held = bright_clip(range(12))
    listed = episodes(4, {1: lambda: held, 2: partial(in_memory, big_clip(12))})
    assert go(listed, Engine(decoders=1)).failed == 0


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"workers": 0}, "num_workers is 0"),
        ({"decoders": -1}, "decode_workers is -1"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"kind": "ray", "shard": Shard(1, 2)}, "leave out the shard"),
    ],
)
def test_an_engine_that_cannot_be_is_refused(options: dict[str, object], error: str) -> None:
    with pytest.raises(ConfigError, match=error):
        Engine(**options)  # type: ignore[arg-type]


def test_without_a_recipe_nobody_decodes_ahead() -> None:
    with Folder() as folder:
        load = Load({"topreward": Bright()})
        run = evaluate(load, partial(episodes, 3), Plan(("topreward",)), folder, engine=Engine(decoders=1))
    assert run.failed == 0
