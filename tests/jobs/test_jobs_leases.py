"""Runs that share a folder: an episode is one run's, dead runs are taken over, and nobody overwrites."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest

from runs import measured, same_bytes
from scorers import Bright, Load, episodes, missing
from topreward.errors import ConfigError
from topreward.evaluation import EvalRun, Folder, Plan, evaluate
from topreward.jobs.engine import Engine, Shard, parse_shard
from topreward.jobs.episode import Measured
from topreward.jobs.leases import Leases, _in_turn

PLAN = Plan(("topreward", "debiased"))


def silent(leases: Leases) -> Leases:
    """One whose run has stopped: no heartbeat any more."""
    leases._over.set()
    leases._beating.join()
    return leases


def test_of_many_runs_one_takes_a_lease(tmp_path: Path) -> None:
    names = [f"episode-{i}" for i in range(20)]
    runs = [Leases(tmp_path / "l", 60) for _ in range(6)]
    start = threading.Barrier(len(runs))
    taken: list[list[str]] = [[] for _ in runs]

    def work(number: int) -> None:
        start.wait()
        taken[number] = [name for name in names if runs[number].take(name)]

    threads = [threading.Thread(target=work, args=(n,)) for n in range(len(runs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(name for part in taken for name in part) == sorted(names)
    for run, part in zip(runs, taken, strict=True):
        assert all(run.holds(name) == (name in part) for name in names)
        run.__exit__(None, None, None)
    assert list((tmp_path / "l").iterdir()) == []


def test_a_silent_run_is_taken_over_and_does_not_come_back(tmp_path: Path) -> None:
    with Leases(tmp_path / "l", 0.5) as living:
        former = silent(Leases(tmp_path / "l", 0.5))
        assert former.take("e")
        assert not living.take("e")
        deadline = time.monotonic() + 10
        while not living.take("e"):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert not former.holds("e")
        former.release("e")  # it wakes up, and lets go of what is not its own
        assert living.holds("e")
        time.sleep(1)
        assert not Leases(tmp_path / "l", 0.5).take("e"), "a heartbeat keeps a lease"


def test_what_is_there_is_not_overwritten(tmp_path: Path) -> None:
    with Folder(tmp_path / "r") as folder:
        folder.open({}, shared=True)
        (tmp_path / "r" / "leases").mkdir()
        first = Measured("e", "do it", error="first")
        assert folder.write_new(first, lambda: True)
        assert not folder.write_new(Measured("e", "do it", error="second"), lambda: True)
        assert folder.load("e").error == "first"  # type: ignore[union-attr]
        assert list((tmp_path / "r" / "leases").iterdir()) == []


def test_without_links_the_lease_decides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_links(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_links)
    with Folder(tmp_path / "r") as folder:
        folder.open({}, shared=True)
        (tmp_path / "r" / "leases").mkdir()
        with pytest.raises(ConfigError, match="not permitted"):
            folder.write_new(Measured("e", "do it", error="lost"), lambda: False)
        assert folder.write_new(Measured("e", "do it", error="kept"), lambda: True)
        assert folder.load("e").error == "kept"  # type: ignore[union-attr]


def test_shards_and_whole_runs_keep_out_of_each_others_folder(tmp_path: Path) -> None:
    with Folder(tmp_path / "r") as one, Folder(tmp_path / "r") as two, Folder(tmp_path / "r") as three:
        one.open({}, shared=True)
        two.open({}, shared=True)
        with pytest.raises(ConfigError, match="another run is writing there"):
            three.open({})


def test_each_shard_tries_all_its_own_part_first() -> None:
    assert _in_turn(6, range(6), Shard(1, 2)) == [0, 1, 2, 5, 4, 3]
    assert _in_turn(6, range(6), Shard(2, 2)) == [3, 4, 5, 2, 1, 0]
    assert _in_turn(6, [1, 5], Shard(2, 3)) == [5, 1]


@pytest.mark.parametrize("text", ["", "1", "0/2", "3/2", "a/b", "1/2/3", "-1/2", "1/0"])
def test_a_shard_that_cannot_be_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="want"):
        parse_shard(text, 60)


def shard(path: Path, number: int, of: int, log: Path, runs: dict[int, EvalRun]) -> None:
    listed = episodes(14, {3: missing})
    with Folder(path) as folder:
        load = Load({"topreward": Bright(log, pause=0.02)})
        engine = Engine(shard=Shard(number, of, 5.0))
        runs[number] = evaluate(load, lambda: listed, PLAN, folder, engine=engine)


def test_three_shards_measure_every_episode_once(tmp_path: Path) -> None:
    log, runs = tmp_path / "log", dict[int, EvalRun]()
    threads = [threading.Thread(target=shard, args=(tmp_path / "r", n, 3, log, runs)) for n in (1, 2, 3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    real = [line.split()[0] for line in log.read_text().splitlines() if "(" not in line]
    assert sorted(real) == sorted(f"e{i}" for i in range(14) if i != 3)
    with Folder() as alone:
        expected = evaluate(Load({"topreward": Bright()}), lambda: episodes(14, {3: missing}), PLAN, alone)
        before = measured(alone, expected)
    for run in runs.values():
        assert len(run.done) == 14
        assert run.failed == 1
        with Folder(tmp_path / "r") as folder:
            same_bytes(before, measured(folder, run))
    assert list((tmp_path / "r" / "leases").iterdir()) == []


def test_a_shard_alone_goes_on_with_what_failed_before(tmp_path: Path) -> None:
    listed = episodes(4, {1: missing})
    for resumed in (0, 3):
        with Folder(tmp_path / "r") as folder:
            engine = Engine(shard=Shard(1, 2))
            run = evaluate(Load({"topreward": Bright()}), lambda: listed, PLAN, folder, engine=engine)
        assert (run.resumed, run.failed, len(run.done)) == (resumed, 1, 4)


def test_a_shard_needs_a_folder_that_stays() -> None:
    with Folder() as folder, pytest.raises(ConfigError, match="--output"):
        evaluate(Load({"topreward": Bright()}), lambda: episodes(1), PLAN, folder, engine=Engine(shard=Shard(1, 2)))
