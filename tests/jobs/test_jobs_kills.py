"""Runs that are killed, whole process groups at a time, and go on as if nothing had been.

Four moments by default; `make test-kills` tries twenty.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from killed import INPUTS, PLAN, setup
from places import SUPPORT
from runs import measured, same
from topreward.evaluation import EvalRun, Folder, evaluate
from topreward.evaluation.suite import LoadOnce
from topreward.jobs.engine import Engine
from topreward.jobs.episode import Measured

KILLS = int(os.environ.get("TOPREWARD_TEST_KILLS", "4"))
ENGINES = (
    {"decoders": 1, "batch_size": None},
    {"workers": 2, "decoders": 1, "batch_size": 2},
    {"decoders": 2, "batch_size": 1},
    {"workers": 2, "decoders": 0, "batch_size": None},
)

LOADED = LoadOnce(setup())


def started(folder: Path, engine: dict[str, Any]) -> subprocess.Popen[bytes]:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(SUPPORT), *sys.path])}
    command = [sys.executable, str(SUPPORT / "killed.py"), str(folder), json.dumps(engine)]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return subprocess.Popen(command, env=environment, start_new_session=True, **quiet)  # type: ignore[call-overload,no-any-return]


def finished(folder: Path) -> tuple[EvalRun, list[Measured], dict[str, Any]]:
    """Go on to the end, in this process."""
    with Folder(folder) as kept:
        run = evaluate(LOADED, INPUTS, PLAN, kept, engine=Engine(batch_size=None))
        return run, measured(kept, run), json.loads((folder / "settings.json").read_text())


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Measured], dict[str, Any]]:
    run, found, settings = finished(tmp_path_factory.mktemp("undisturbed") / "r")
    assert (run.failed, run.resumed) == (0, 0)
    return found, settings


@pytest.fixture(scope="module")
def seconds(tmp_path_factory: pytest.TempPathFactory) -> float:
    """How long a run takes in a process of its own."""
    start = time.monotonic()
    assert started(tmp_path_factory.mktemp("timed") / "r", dict(ENGINES[0])).wait(240) == 0
    return time.monotonic() - start


def members(group: int) -> list[int]:
    """The living processes of a group."""
    found = []
    for process in psutil.process_iter():
        try:
            if os.getpgid(process.pid) == group and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process.pid)
        except (ProcessLookupError, psutil.NoSuchProcess):
            continue
    return found


def left_over(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.rglob("*") if p.name.endswith(".tmp") or p.parent.name == "leases")


@pytest.mark.timeout(900)
@pytest.mark.parametrize("kill", range(KILLS))
def test_a_killed_run_goes_on(
    kill: int, tmp_path: Path, undisturbed: tuple[list[Measured], dict[str, Any]], seconds: float
) -> None:
    moment = seconds * (kill + np.random.default_rng(kill).random()) / KILLS
    process = started(tmp_path / "r", dict(ENGINES[kill % len(ENGINES)]))
    try:
        process.wait(moment)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    deadline = time.monotonic() + 20
    while members(process.pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert members(process.pid) == []
    run, found, settings = finished(tmp_path / "r")
    assert run.failed == 0
    same(undisturbed[0], found)
    assert settings == undisturbed[1]
    assert left_over(tmp_path / "r") == []


def wait_for(folder: Path, files: int, *processes: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 200
    while len(list(folder.glob("curves/[!.]*.json"))) < files and time.monotonic() < deadline:
        if all(process.poll() is not None for process in processes):
            return
        time.sleep(0.02)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("how", ["killed", "asleep"])
def test_a_shard_that_falls_silent_is_taken_over(
    how: str, tmp_path: Path, undisturbed: tuple[list[Measured], dict[str, Any]]
) -> None:
    folder = tmp_path / "r"
    one, two = (started(folder, {"batch_size": 2, "decoders": 1, "shard": [n, 2, 2.0]}) for n in (1, 2))
    try:
        wait_for(folder, 3, one, two)
        os.killpg(one.pid, signal.SIGKILL if how == "killed" else signal.SIGSTOP)
        assert two.wait(240) == 0
        files = {p.name: (p.stat().st_ino, p.stat().st_mtime_ns) for p in folder.glob("curves/*.json")}
        assert len(files) == 12
        if how == "asleep":
            os.killpg(one.pid, signal.SIGCONT)
            assert one.wait(120) == 0
            assert {p.name: (p.stat().st_ino, p.stat().st_mtime_ns) for p in folder.glob("curves/*.json")} == files
    finally:
        for process in (one, two):
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    run, found, settings = finished(folder)
    assert (run.resumed, run.failed) == (12, 0)
    same(undisturbed[0], found)
    assert settings == undisturbed[1]
