"""`topreward eval` and the script, as a user meets them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

import topreward as tr
from topreward.cli import main
from topreward.demo.episodes import demo_episodes
from topreward.demo.write import write_video

FAST = ["--device", "cpu", "--protocol", "demo", "--gvl-protocol", "gvl-demo"]
DEMO = "demo:?count=4&size=96"


def run(*arguments: str | Path) -> int:
    with pytest.raises(SystemExit) as caught:
        main(["eval", *(str(a) for a in arguments)])
    return int(caught.value.code or 0)


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines that do not fold in the middle of what a test looks for."""
    monkeypatch.setattr("topreward.cli.eval.out", Console(width=160, soft_wrap=True))


def words(capsys: pytest.CaptureFixture[str]) -> str:
    captured = capsys.readouterr()
    return " ".join((captured.out + captured.err).split())


def test_a_dataset_with_all_estimators(dense_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target, single = tmp_path / "r", tmp_path / "all.json"
    options = ["--estimators", "topreward,log_odds,debiased,gvl", "--episodes", "0:2", "--output", target]
    arguments = ["--model", dense_folder, *FAST, "--dataset", DEMO, *options, "--json", single]
    assert run(*arguments) == 0
    shown = words(capsys)
    for part in ("VOC over 2 episodes", "frozen", "reversed", "other instr.", "time_index", "against true progress"):
        assert part in shown
    assert re.search(r"topreward: [\d.]+ s, controls [\d.]+ s more \([\d.]+x\), \d+ tokens", shown)
    assert "gvl: 2 of 2 answers failed (100 %)" in shown  # random weights write no percentages

    data = json.loads((target / "results.json").read_text())
    assert data["provenance"]["settings"]["protocol"]["name"] == "demo"
    assert data["provenance"]["settings"]["dataset"]["dataset"] == DEMO
    assert (target / "episodes.parquet").exists()
    assert len(list((target / "curves").iterdir())) == 2

    # The numbers are those of the library's own calls.
    episode = tr.open_dataset(DEMO)[1]
    other = data["episodes"][1]["other_instruction"]
    model = tr.TOPReward.from_pretrained(dense_folder, device="cpu")
    own, others = model.score(episode.clip(), [episode.instruction, other], protocol="demo")
    rows = data["episodes"][1]["estimators"]["topreward"]
    assert rows["real"]["voc"] == pytest.approx(tr.voc(own.values))
    assert rows["other_instruction"]["voc"] == pytest.approx(tr.voc(others.values))
    curve = tr.Curve.from_dict(json.loads(single.read_text())["curves"][episode.id]["readings"][0]["curve"])
    np.testing.assert_allclose(curve.values, own.values, atol=1e-4)

    # Again: nothing is scored anew, the file is the same but for the clock.
    assert run(*arguments) == 0
    again = json.loads((target / "results.json").read_text())
    assert again["cost"]["episodes_resumed"] == 2
    assert again["estimators"] == data["estimators"]
    capsys.readouterr()
    assert run(*arguments, "--num-prefixes", "3") == 2
    assert "protocol.num_prefixes is 0 there, 3 here" in words(capsys)


def test_a_missing_video_is_a_row_and_status_1(
    dense_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_video(demo_episodes(1, seed=1, size=96)[0].clip(), tmp_path / "here.mp4")
    listing = tmp_path / "list.csv"
    listing.write_text("path,instruction,success\nhere.mp4,pick up [b],1\ngone.mp4,pick it up,0\n")
    target = tmp_path / "all.json"
    assert run("--model", dense_folder, *FAST, "--videos", listing, "--no-controls", "--json", target) == 1
    shown = words(capsys)
    assert "pick up [b]" in shown
    assert "failed: gone.mp4:" in shown
    data = json.loads(target.read_text())
    assert data["episodes_failed"] == 1
    assert [e["error"] is None for e in data["episodes"]] == [True, False]
    assert data["estimators"]["topreward"]["trends"]["real"]["voc"]["undefined"] == 1
    assert run("--model", dense_folder, *FAST, "--videos", listing, "--fail-fast") == 2
    assert "gone.mp4" in words(capsys)


def test_gvl_with_examples(dense_folder: Path, tmp_path: Path) -> None:
    chosen = ["--dataset", DEMO, "--estimators", "gvl", "--no-controls", "--gvl-examples", "2"]
    for workers in ("1", "2"):
        output = tmp_path / workers
        options = ["--model", str(dense_folder), "--output", str(output), "--num-workers", workers]
        assert run(*chosen, *options, *FAST) == 0
        results = json.loads((output / "results.json").read_text())
        assert [e["id"].split("-")[2] for e in results["episodes"]] == ["000", "001", "003"]
        for file in (output / "curves").iterdir():
            [reading] = json.loads(file.read_text())["readings"]
            [shown] = reading["curve"]["provenance"]["examples"]
            assert shown.split("-")[2] == "002"
    assert results["provenance"]["settings"]["dataset"]["examples"] == "2"


def test_two_workers(dense_folder: Path, tmp_path: Path) -> None:
    options = ["--model", dense_folder, *FAST, "--dataset", DEMO, "--no-controls", "--estimators", "topreward"]
    assert run(*options, "--output", tmp_path / "two", "--num-workers", "2") == 0
    assert run(*options, "--output", tmp_path / "one") == 0
    one, two = (json.loads((tmp_path / name / "results.json").read_text()) for name in ("one", "two"))
    assert two["cost"]["workers"] == 2
    for a, b in zip(one["episodes"], two["episodes"], strict=True):
        assert a["estimators"]["topreward"]["real"]["voc"] == b["estimators"]["topreward"]["real"]["voc"]
    assert one["provenance"]["settings"] == two["provenance"]["settings"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--dataset", DEMO, "--estimators", "topward"], "no estimator named 'topward' (did you mean 'topreward'?)"),
        (["--dataset", DEMO, "--instruction", "x"], "instruction= means nothing for demo: datasets"),
        (["--dataset", DEMO, "--instruction", "x", "y"], "2 instructions for --dataset"),
        (["--dataset", DEMO, "--videos", "a.mp4"], "--dataset brings its own videos"),
        (["--dataset", DEMO, "--flip-vertical"], "flip_vertical= means nothing for demo: datasets"),
        (["--dataset", DEMO, "--root", "/"], "root= means nothing for demo: datasets"),
        (["--dataset", DEMO, "--split", "test"], "no episode is of the split 'test'; the episodes name no splits"),
        (
            ["--dataset", DEMO, "--calibration-split", "a"],
            "no labelled episode is of the split 'a'; they name no splits",
        ),
        (["--dataset", DEMO, "--subset", "9"], "subset=9, but there are only 4 episodes"),
        (["--dataset", DEMO, "--episodes", "0:9"], "asks for episode 8"),
        (["--dataset", DEMO, "--camera", "left"], "camera= means nothing for demo: datasets"),
        (["--dataset", DEMO, "--num-workers", "0"], "num_workers is 0"),
        (["--dataset", DEMO, "--gvl-protocol", "gvl-dmo"], "no GVL protocol named 'gvl-dmo'"),
        (["--dataset", DEMO, "--gvl-examples", "0:4"], "all 4 episodes are examples"),
        (["--dataset", DEMO, "--gvl-examples", "0", "--estimators", "topreward"], "gvl alone, which is not among"),
        (["--dataset", DEMO, "--json", "/"], "/: is a folder, want a file"),
        (["--videos", "a.mp4", "./a.mp4", "--instruction", "x"], "named twice"),
        ([], "nothing to score"),
        (["--videos", "a.mp4", "b.mp4", "c.mp4", "--instruction", "x", "y"], "3 videos and 2 instructions"),
        (["--videos", "a.mp4", "a.mp4", "--instruction", "x"], "named twice"),
        (["--videos", "a.mp4", "--instruction", "x", "--camera", "top"], "without --dataset, --camera means nothing"),
        (["--videos", "a.mp4", "--instruction", "x", "--root", "/"], "--root is for listings"),
        (["--videos", "a.csv", "--fps", "5"], "leave out --fps"),
    ],
)
def test_what_makes_no_sense_is_one_line(options: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--model", "nowhere", *options) == 2
    shown = words(capsys)
    assert message in shown
    assert "Traceback" not in shown


def test_episodes_of_videos_can_be_chosen(tmp_path: Path) -> None:
    from topreward.jobs.inputs import Inputs

    listing = tmp_path / "list.csv"
    rows = [f"v{i}.mp4,do it,,{'test' if i % 2 else 'train'}" for i in range(8)]
    listing.write_text("\n".join(["path,instruction,success,split", *rows]))
    videos = (listing,)
    assert [e.id for e in Inputs(videos, split="test")()] == ["v1.mp4", "v3.mp4", "v5.mp4", "v7.mp4"]
    assert [e.id for e in Inputs(videos, episodes="6,1:3")()] == ["v6.mp4", "v1.mp4", "v2.mp4"]
    drawn = [e.id for e in Inputs(videos, split="test", subset=2, seed=1)()]
    assert len(drawn) == 2
    assert set(drawn) <= {"v1.mp4", "v3.mp4", "v5.mp4", "v7.mp4"}
    assert drawn == [e.id for e in Inputs(videos, split="test", subset=2, seed=1)()]


def test_the_demo_model_brings_its_own_protocols() -> None:
    from topreward.cli.eval import EvalOptions
    from topreward.cli.options import ModelOptions
    from topreward.evaluation import Plan

    def protocols(model: str) -> tuple[str, str]:
        setup = EvalOptions(model=ModelOptions(model=model)).setup(Plan())
        return setup.protocol.name, setup.gvl_protocol.name

    assert protocols("demo") == ("demo", "gvl-demo")
    assert protocols("qwen3-vl") == ("paper", "gvl")


def test_gvl_is_evaluated_unless_left_out() -> None:
    from topreward.cli.eval import EvalOptions
    from topreward.evaluation import ESTIMATORS, Plan, parse_estimators

    assert parse_estimators(EvalOptions().estimators) == Plan().estimators == ESTIMATORS
    assert "gvl" in ESTIMATORS


def test_a_run_that_stops_early_keeps_its_results_and_its_own_error(
    dense_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for index, episode in enumerate(demo_episodes(2, seed=1, size=96)):
        write_video(episode.clip(), tmp_path / f"v{index}.mp4")
    listing = tmp_path / "list.csv"
    rows = ["v0.mp4,pick it up,1,train", "v1.mp4,pick it up,0,train", "gone.mp4,put it down,1,calibration"]
    listing.write_text("\n".join(["path,instruction,success,split", *rows]))
    options = ["--no-controls", "--estimators", "topreward", "--fail-fast", "--calibration-split", "calibration"]
    target = tmp_path / "r"
    assert run("--model", dense_folder, *FAST, "--videos", listing, *options, "--output", target) == 2
    shown = words(capsys)
    assert "error: episode gone.mp4:" in shown
    assert "is missing" in shown
    data = json.loads((target / "results.json").read_text())
    assert (data["complete"], data["episodes_done"]) == (False, 2)
    assert data["estimators"]["topreward"]["success"]["split"].startswith("half of each class")
