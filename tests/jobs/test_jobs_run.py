"""The loop: rows for what fails, nothing lost, nothing measured twice, several processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from places import SUPPORT
from scorers import Bright, Crashes, Load, bright_clip, broken, episodes, missing
from topreward.errors import ConfigError, CurveError, DatasetError, TopRewardError, VideoError
from topreward.evaluation import EvalRun, Folder, ModelSetup, Plan, evaluate, summarise
from topreward.jobs.episode import Measured
from topreward.jobs.measure import measure
from topreward.jobs.scorers import device_of
from topreward.types import Clip, Episode

TOPREWARD = Plan(("topreward", "log_odds", "debiased"))


def go(path: Path | None, listed: list[Episode], scorer: Any = None, plan: Plan = TOPREWARD, **options: Any) -> EvalRun:
    with Folder(path) as folder:
        return evaluate(Load({"topreward": scorer or Bright()}), lambda: listed, plan, folder, **options)


def vocs(run: EvalRun) -> list[tuple[str, str, str, float]]:
    return [(r.episode_id, r.estimator, r.control, r.voc) for e in run.episodes for r in e.rows]


def test_what_is_measured_comes_back_from_disk(tmp_path: Path) -> None:
    episode = episodes(1)[0]
    measured = measure(episode, {"topreward": Bright()}, TOPREWARD, "task 2")
    again = Measured.from_dict(json.loads(json.dumps(measured.to_dict())))
    assert again.to_dict() == measured.to_dict()
    with pytest.raises(CurveError, match="format is 99"):
        Measured.from_dict({**measured.to_dict(), "format": 99})


def test_failing_episodes_are_rows_and_the_run_goes_on(tmp_path: Path) -> None:
    listed = episodes(5, {1: missing, 3: broken})
    run = go(tmp_path / "r", listed)
    assert [e.id for e in run.episodes] == ["e0", "e1", "e2", "e3", "e4"]
    assert run.failed == 2
    assert run.episodes[1].error == "gone.mp4: no such file"
    assert run.episodes[3].error == "unexpected ZeroDivisionError: a bug"
    for row in run.episodes[1].rows:
        assert (row.control, row.error) == ("real", "gone.mp4: no such file")
    for summary in summarise(run.episodes, TOPREWARD):
        real = summary.trends["real"]
        assert (real.episodes, real.errors, real.voc.count, real.voc.undefined) == (5, 2, 3, 2)


def test_progress_that_does_not_fit_its_clip_is_an_error_not_a_number() -> None:
    listed = episodes(2)
    wrong = Episode("short", "task 1", partial(bright_clip, range(12)), progress=np.linspace(0, 1, 11))
    run = go(None, [*listed, wrong])
    assert run.episodes[2].error is not None
    assert "episode short: true progress has shape (11,), the clip has 12 frames" in run.episodes[2].error


class ReversedFails(Bright):
    def score(self, clip: Clip, instructions: Any, *, episode_id: str) -> Any:
        if "reversed" in clip.source:
            raise VideoError("no way back")
        return super().score(clip, instructions, episode_id=episode_id)


def test_a_control_that_fails_leaves_the_real_curve() -> None:
    run = go(None, episodes(2), ReversedFails())
    rows = {(r.estimator, r.control): r for r in run.episodes[0].rows}
    assert np.isfinite(rows["topreward", "real"].voc)
    assert rows["topreward", "reversed"].error == rows["debiased", "reversed"].error == "no way back"
    assert run.failed == 2


def test_fail_fast_raises_the_first_error() -> None:
    with pytest.raises(TopRewardError, match=r"^episode e1: gone\.mp4: no such file$") as caught:
        go(None, episodes(3, {1: missing}), fail_fast=True)
    assert isinstance(caught.value.__cause__, VideoError)
    with pytest.raises(TopRewardError, match="episode e1: unexpected ZeroDivisionError: a bug"):
        go(None, episodes(3, {1: broken}), fail_fast=True)


def test_a_run_goes_on_where_it_stopped(tmp_path: Path) -> None:
    log = tmp_path / "log"
    listed = episodes(4, {2: missing})
    first = go(tmp_path / "r", listed, Bright(log))
    calls = log.read_text().splitlines()
    again = go(tmp_path / "r", listed, Bright(log))
    assert (again.resumed, again.failed) == (3, 1)
    assert log.read_text().splitlines() == calls  # e2 is tried again, and fails before it is scored
    np.testing.assert_equal(vocs(again), vocs(first))


def test_other_settings_are_refused_by_name(tmp_path: Path) -> None:
    go(tmp_path / "r", episodes(3), settings={"model": {"name": "a"}})
    with pytest.raises(ConfigError, match=r'settings \(model.name is "a" there, "b" here\)'):
        go(tmp_path / "r", episodes(3), settings={"model": {"name": "b"}})
    with pytest.raises(ConfigError, match=r"plan\.seed is 0 there, 1 here"):
        go(tmp_path / "r", episodes(3), plan=Plan(TOPREWARD.estimators, seed=1), settings={"model": {"name": "a"}})
    with pytest.raises(ConfigError, match=r"episodes\.count is 3 there, 4 here"):
        go(tmp_path / "r", episodes(4), settings={"model": {"name": "a"}})


class NoModel:
    def __call__(self, worker: int, workers: int) -> Any:
        raise ConfigError("no such model")


def test_settings_bind_nobody_before_a_curve_lies_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such model"), Folder(tmp_path / "r") as folder:
        evaluate(NoModel(), lambda: episodes(2), TOPREWARD, folder, settings={"model": {"name": "mistyped"}})
    run = go(tmp_path / "r", episodes(2), settings={"model": {"name": "right"}})
    assert json.loads((tmp_path / "r" / "settings.json").read_text())["model"] == run.settings["model"]
    with pytest.raises(ConfigError, match=r'model\.name is "right" there'):
        go(tmp_path / "r", episodes(2), settings={"model": {"name": "mistyped"}})


def test_a_foreign_folder_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(ConfigError, match=r"no settings\.json"):
        go(tmp_path, episodes(1))
    with pytest.raises(ConfigError, match="is a file"):
        go(tmp_path / "thesis.tex", episodes(1))


def test_a_damaged_or_foreign_file_is_an_error(tmp_path: Path) -> None:
    go(tmp_path / "r", episodes(2))
    with Folder(tmp_path / "r") as folder:
        file, other = folder.file("e0"), folder.file("e1")
    text = file.read_text()
    file.write_text(text[:100])
    with pytest.raises(CurveError, match=f"{file.name}: not a measured episode .*; delete it"):
        go(tmp_path / "r", episodes(2))
    file.write_text(other.read_text())
    with pytest.raises(CurveError, match="holds the episode 'e1', not 'e0'"):
        go(tmp_path / "r", episodes(2))


def test_curves_of_another_dtype_are_not_mixed_in(tmp_path: Path) -> None:
    class Dtype(Bright):
        name = "float32"

        def score(self, clip: Clip, instructions: Any, *, episode_id: str) -> Any:
            curves = super().score(clip, instructions, episode_id=episode_id)
            return [c.with_values(c.values, "nats", provenance={"dtype": self.name}) for c in curves]

    go(tmp_path / "r", episodes(3, {2: missing}), Dtype())
    Dtype.name = "bfloat16"
    with pytest.raises(ConfigError, match='dtype is "float32" there, "bfloat16" here'):
        go(tmp_path / "r", episodes(3), Dtype())


@pytest.mark.parametrize("place", ["file/sub", "/proc/nowhere"])
def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").touch()
    with Folder(tmp_path / place) as folder, pytest.raises(ConfigError, match=f"{place}: cannot be written"):
        folder.open({})


def test_two_runs_cannot_share_a_folder(tmp_path: Path) -> None:
    with Folder(tmp_path / "r") as folder:
        folder.open({})
        with pytest.raises(ConfigError, match="another run is writing there"), Folder(tmp_path / "r") as second:
            second.open({})


@pytest.mark.parametrize("name", ["../../etc/passwd", "a/b", "a_b", ".hidden", "ä" * 300, "x" * 300, "a b"])
def test_ids_from_strangers_stay_in_the_folder(tmp_path: Path, name: str) -> None:
    file = Folder(tmp_path).file(name)
    assert file.parent == tmp_path / "curves"
    assert len(file.name) < 100
    assert file.name != Folder(tmp_path).file(name + " ").name


def test_repeated_ids_and_no_episodes_are_refused() -> None:
    with pytest.raises(DatasetError, match="'e0' appears more than once"):
        go(None, [*episodes(2), episodes(1)[0]])
    with pytest.raises(DatasetError, match="no episodes"):
        go(None, [])
    with pytest.raises(ConfigError, match="num_workers is 0"):
        go(None, episodes(1), workers=0)


KILLED = """
import sys
from pathlib import Path
from scorers import Bright, Load, episodes
from topreward.evaluation import Folder, Plan, evaluate
with Folder(sys.argv[1]) as folder:
    scorers = Load({"topreward": Bright(Path(sys.argv[2]), pause=0.05)})
    evaluate(scorers, lambda: episodes(40), Plan(("topreward", "log_odds", "debiased")), folder)
"""


def test_a_killed_run_loses_one_episode_at_most(tmp_path: Path) -> None:
    folder, log = tmp_path / "r", tmp_path / "log"
    tests = str(SUPPORT)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([tests, *sys.path])}
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(folder), str(log)], env=environment)
    deadline = time.monotonic() + 60
    while len(list(folder.glob("curves/*.json"))) < 5 and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = len(list(folder.glob("curves/*.json")))
    assert 5 <= done < 40
    scored = log.read_text().count("bright (reversed)")  # the last call of an episode
    run = go(folder, episodes(40), Bright(log))
    assert run.resumed == done
    assert log.read_text().count("bright (reversed)") - scored == 40 - done
    np.testing.assert_equal(vocs(run), vocs(go(None, episodes(40))))


def test_two_workers_give_the_same_rows(tmp_path: Path) -> None:
    log = tmp_path / "log"
    load = Load({"topreward": Bright(log, pause=0.05)})
    with Folder(tmp_path / "r") as folder:
        run = evaluate(load, partial(episodes, 8, {1: missing}), TOPREWARD, folder, workers=2)
    assert [e.id for e in run.episodes] == [f"e{i}" for i in range(8)]
    assert run.failed == 1
    assert len({line.split()[-1] for line in log.read_text().splitlines()}) == 2  # both took part
    np.testing.assert_equal(vocs(run), vocs(go(None, episodes(8, {1: missing}))))
    assert len(list((tmp_path / "r" / "curves").iterdir())) == 8


def test_a_worker_that_dies_is_an_error_row(tmp_path: Path) -> None:
    with Folder(tmp_path / "r") as folder:
        run = evaluate(Load({"topreward": Crashes()}), partial(episodes, 6), TOPREWARD, folder, workers=2)
    assert [e.error is None for e in run.episodes] == [True, True, False, True, True, True]
    assert run.episodes[2].error == "the process that scored it died with exit status 9"


STOPPED = """
import multiprocessing
from functools import partial
from scorers import Bright, Load, episodes, missing
from topreward.errors import TopRewardError
from topreward.evaluation import Folder, Plan, evaluate
class Holding(Load):
    def __call__(self, worker, workers):
        global lock
        lock = multiprocessing.Lock()  # as progress bars do; whoever is killed leaves it to the system
        return super().__call__(worker, workers)
if __name__ == "__main__":
    with Folder() as folder:
        try:
            listed = partial(episodes, 6, {1: missing})
            load, plan = Holding({"topreward": Bright(pause=3)}), Plan(("topreward",))
            evaluate(load, listed, plan, folder, workers=2, fail_fast=True)
        except TopRewardError as error:
            print(error)
"""


def test_workers_leave_nothing_behind(tmp_path: Path) -> None:
    script = tmp_path / "stopped.py"
    script.write_text(STOPPED)
    tests = str(SUPPORT)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([tests, *sys.path])}
    ran = subprocess.run([sys.executable, script], env=environment, capture_output=True, text=True, check=True)
    assert ran.stdout == "episode e1: gone.mp4: no such file\n"
    assert ran.stderr == ""


@pytest.mark.parametrize("workers", [1, 2])
def test_a_plan_without_its_scorer_ends_the_run(workers: int) -> None:
    plan = Plan(("topreward", "gvl"))
    with Folder() as folder, pytest.raises(TopRewardError, match="no scorer is loaded for gvl; there are topreward"):
        evaluate(Load({"topreward": Bright()}), partial(episodes, 2), plan, folder, workers=workers)


def test_a_model_that_no_worker_can_load_ends_the_run() -> None:
    with Folder() as folder, pytest.raises(TopRewardError, match="no such model"):
        evaluate(NoModel(), partial(episodes, 2), TOPREWARD, folder, workers=2)


@pytest.mark.parametrize(
    ("worker", "workers", "device", "gpus", "expected"),
    [
        (0, 1, None, 4, None),
        (0, 1, "cuda:1", 4, "cuda:1"),
        (3, 4, None, 2, "cuda:1"),
        (2, 3, "cuda", 8, "cuda:2"),
        (1, 2, None, 0, None),
        (1, 2, "cpu", 2, "cpu"),
    ],
)
def test_workers_take_the_gpus_in_turn(
    worker: int, workers: int, device: str | None, gpus: int, expected: str | None
) -> None:
    assert device_of(worker, workers, device, gpus) == expected


def test_one_model_over_all_devices_needs_one_worker() -> None:
    with pytest.raises(ConfigError, match="'auto' spreads one model"):
        device_of(0, 2, "auto", 2)


def test_a_local_checkpoints_files_are_a_setting(tmp_path: Path) -> None:
    from topreward.config import load_protocol
    from topreward.estimators.gvl.protocol import load_gvl_protocol

    def settings() -> dict[str, Any]:
        options = {"name": str(tmp_path)}
        return ModelSetup(("topreward",), load_protocol("paper"), load_gvl_protocol("gvl"), options).settings()

    weights = tmp_path / "model.safetensors"
    weights.write_bytes(b"one")
    first = settings()
    assert settings() == first
    weights.write_bytes(b"other")
    assert first["model_files"]["model.safetensors"][0] == 3
    assert settings()["model_files"]["model.safetensors"][0] == 5


def test_where_a_model_runs_is_no_setting() -> None:
    from topreward.config import load_protocol
    from topreward.estimators.gvl.protocol import load_gvl_protocol

    def settings(device: str | None) -> dict[str, Any]:
        options = {"name": "m", "device": device}
        return ModelSetup(("topreward",), load_protocol("paper"), load_gvl_protocol("gvl"), options).settings()

    assert settings("cpu") == settings(None)
    assert settings(None)["model"] == {"name": "m"}
    assert "gvl_protocol" not in settings(None)
