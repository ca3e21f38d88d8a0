"""A command that is told to end leaves what it has done, and nothing else: as real processes, by real signals."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from places import ROOT

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="signals of a Unix")

STATUS = {signal.SIGTERM: 143, signal.SIGHUP: 129, signal.SIGINT: 130}


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start the command with a temporary folder of its own; whatever still runs in the end is killed."""
    started = []
    (tmp_path / "tmp").mkdir()

    def begin(*arguments: str | Path) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", "from topreward.cli import main; main()", *map(str, arguments)],
            env={**os.environ, "TMPDIR": str(tmp_path / "tmp"), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        started.append(process)
        return process

    yield begin
    for process in started:
        if process.poll() is None:
            process.kill()
            process.wait()


def until(happens: Callable[[], bool], process: subprocess.Popen[str], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not happens():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < end
        time.sleep(0.02)


def ended(process: subprocess.Popen[str], number: signal.Signals) -> None:
    shown, _ = process.communicate(timeout=60)
    assert process.returncode == STATUS[number], shown
    assert "Traceback" not in shown
    assert "interrupted" in shown


def alive_in_session(leader: int) -> list[int]:
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == leader and fields[0] != "Z":
            found.append(int(status.parent.name))
    return found


@pytest.mark.parametrize(("number", "workers"), [(signal.SIGTERM, "1"), (signal.SIGHUP, "2")])
def test_an_evaluation_keeps_what_it_has(
    tmp_path: Path, start: Callable[..., subprocess.Popen[str]], number: signal.Signals, workers: str
) -> None:
    output, films = tmp_path / "r", tmp_path / "films"
    dataset = f"demo:?count=60&videos={films}"
    process = start(
        *("eval", "--model", "demo", "--dataset", dataset, "--estimators", "topreward", "--output", output),
        *("--json", tmp_path / "all.json", "--num-workers", workers),
    )
    until(lambda: len(list(output.glob("curves/[!.]*.json"))) >= 2, process)
    process.send_signal(number)
    ended(process, number)
    for file in (output / "results.json", tmp_path / "all.json"):
        results = json.loads(file.read_text())
        assert results["complete"] is False
        assert results["episodes_done"] == len(results["episodes"]) >= 1
    assert (output / "episodes.parquet").exists()
    there = {path.name for path in (output / "curves").iterdir()}  # one may have been written when the signal came
    assert {Path(e["curves"]).name for e in results["episodes"]} <= there
    assert len(there) <= results["episodes_done"] + 1
    assert {p.suffix for p in films.iterdir()} == {".mp4", ".drawn"}
    assert not [p for p in (tmp_path / "tmp").iterdir() if p.name.startswith("topreward")]
    if sys.platform.startswith("linux"):
        until(lambda: not alive_in_session(process.pid), DONE, 10)


class _Done:
    """Stands in for a process that is not asked whether it lives."""

    def poll(self) -> None:
        return None


DONE: subprocess.Popen[str] = _Done()  # type: ignore[assignment]


def test_a_run_without_a_folder_leaves_no_temporary_one(
    tmp_path: Path, start: Callable[..., subprocess.Popen[str]]
) -> None:
    target = tmp_path / "all.json"
    process = start(
        *("eval", "--model", "demo", "--dataset", "demo:?count=60", "--estimators", "topreward", "--json", target)
    )
    temporary = tmp_path / "tmp"
    until(lambda: len(list(temporary.glob("topreward-eval-*/curves/[!.]*.json"))) >= 2, process)
    process.terminate()
    ended(process, signal.SIGTERM)
    assert not list(temporary.glob("topreward-*"))
    results = json.loads(target.read_text())
    assert set(results["curves"]) == {e["id"] for e in results["episodes"]}


def test_a_signal_that_is_ignored_stays_ignored_and_a_second_one_does_not_disturb() -> None:
    from topreward.cli.terminal import Stopped, stoppable

    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup has it
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        cleaned = []

        def work() -> None:
            with stoppable():
                os.kill(os.getpid(), signal.SIGHUP)
                try:
                    os.kill(os.getpid(), signal.SIGTERM)
                    time.sleep(5)
                finally:
                    os.kill(os.getpid(), signal.SIGTERM)
                    cleaned.append(True)

        with pytest.raises(Stopped) as stop:
            work()
        assert stop.value.number == signal.SIGTERM
        assert cleaned
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def test_a_working_folder_that_is_gone_is_said(tmp_path: Path) -> None:
    code = f"import os; os.mkdir('gone'); os.chdir('gone'); os.rmdir('{tmp_path}/gone')"
    process = subprocess.run(
        [sys.executable, "-c", f"{code}\nfrom topreward.cli import main; main()", "eval", "--model", "demo"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 2
    assert process.stderr.count("\n") == 1
    assert "the working folder is gone" in process.stderr
