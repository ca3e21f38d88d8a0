"""`topreward label`, `derive` and `export`, as a user meets them: a dataset in, training signals out."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.csv as pcsv
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from labelled import Made, name, some, write_run
from places import DATA
from topreward.cli import main
from topreward.jobs.stored import open_stored

FAST = ["--device", "cpu", "--protocol", "demo"]
EVERY = ["--sampling-fps", "10", "--column", "progress"]
"""The fixtures last a second: every frame is sampled, so that no curve is a single value."""


def run(*arguments: str | Path) -> int:
    with pytest.raises(SystemExit) as caught:
        main([str(a) for a in arguments])
    return int(caught.value.code or 0)


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines that do not fold in the middle of what a test looks for."""
    monkeypatch.setattr("topreward.cli.label.out", Console(width=200, soft_wrap=True))


def words(capsys: pytest.CaptureFixture[str]) -> str:
    captured = capsys.readouterr()
    return " ".join((captured.out + captured.err).split())


def copied(kind: str, tmp_path: Path) -> Path:
    return Path(shutil.copytree(DATA / "lerobot" / kind, tmp_path / "set"))


@pytest.mark.parametrize("kind", ["v30_h264", "v21_h264"])
def test_some_episodes_of_a_dataset_keep_their_frame_numbers(
    kind: str, dense_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, target = copied(kind, tmp_path), tmp_path / "labels"
    asked = ["--model", dense_folder, *FAST, "--dataset", f"lerobot:{root}", "--episodes", "1,3", "--output", target]
    assert run("label", *asked, *EVERY) == 0
    shown = words(capsys)
    assert "2 of 2 episodes labelled, 12 frames" in shown
    assert "type: rabc" in shown
    assert "only some episodes of the dataset were labelled (--episodes)" in shown
    assert "2 episodes were scored with their frozen video, want 5 or more" in shown
    # LeRobot's own numbering of these frames.
    there = json.loads((root / "expected.json").read_text())["frames"]
    want = [(f["index"], f["episode_index"], f["frame_index"]) for f in there if f["episode_index"] in (1, 3)]
    table = pq.read_table(target / "labels/topreward/topreward_progress.parquet")
    got = zip(*(table[c].to_pylist() for c in ("index", "episode_index", "frame_index")), strict=True)
    assert list(got) == want
    frames = pq.read_table(target / "labels/topreward/frames.parquet")
    times = [f["timestamp"] for f in there if f["episode_index"] in (1, 3)]
    np.testing.assert_allclose(frames["timestamp"].to_numpy(), times, atol=1e-5)

    # Again: no episode is scored anew, and the labels are the same.
    before = (target / "labels/topreward/frames.parquet").read_bytes()
    assert run("label", *asked, *EVERY) == 0
    assert json.loads((target / "results.json").read_text())["cost"]["episodes_resumed"] == 2
    assert (target / "labels/topreward/frames.parquet").read_bytes() == before
    # A run is for one sample of frozen videos.
    capsys.readouterr()
    assert run("label", *asked, "--audit", "0") == 2
    assert "plan.also_frozen" in words(capsys)


def test_one_broken_video_among_many(dense_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root, target = copied("v21_h264", tmp_path), tmp_path / "labels"
    video = root / "videos/chunk-000/observation.images.top/episode_000002.mp4"
    video.write_bytes(video.read_bytes()[:900])
    asked = ["--model", dense_folder, *FAST, "--dataset", f"lerobot:{root}", "--output", target]
    assert run("label", *asked, *EVERY, "--audit", "0") == 1
    shown = words(capsys)
    assert "3 of 4 episodes labelled, 24 frames" in shown
    assert "no labels: episode_000002:" in shown
    assert "no file for LeRobot was written" in shown
    assert "LeRobot weighs a frame without progress 1" in shown
    folder = target / "labels/topreward"
    assert not (folder / "topreward_progress.parquet").exists()
    rows = pq.read_table(folder / "episodes.parquet").to_pylist()
    assert [row["error"] is None for row in rows] == [True, True, False, True]
    assert list(json.loads((folder / "summary.json").read_text())["in_error"]) == ["episode_000002"]

    assert run("export", target, "--to", "lerobot") == 2
    assert "1 of 4 episodes have no progress" in words(capsys)
    assert run("export", target, "--to", "lerobot", "--allow-missing") == 0
    assert "note: without values: episode_000002" in words(capsys)
    table = pq.read_table(folder / "topreward_progress.parquet")
    assert sorted(set(table["index"].to_pylist())) == [*range(19), *range(28, 33)]

    # Mended, the episode is scored, and the file is written.
    shutil.copy(DATA / "lerobot/v21_h264/videos/chunk-000/observation.images.top/episode_000002.mp4", video)
    assert run("label", *asked, *EVERY, "--audit", "0") == 0
    assert pq.read_metadata(folder / "topreward_progress.parquet").num_rows == 33


def test_into_the_dataset_itself(dense_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root, target = copied("v30_h264", tmp_path), tmp_path / "labels"
    asked = ["--model", dense_folder, *FAST, "--dataset", f"lerobot:{root}", "--output", target]
    assert run("label", *asked, *EVERY, "--audit", "0", "--horizon", "5") == 0
    assert run("export", target, "--to", "lerobot", "--into-dataset") == 0
    assert pq.read_metadata(root / "sarm_progress.parquet").num_rows == 33
    capsys.readouterr()
    assert run("export", target, "--to", "lerobot", "--into-dataset") == 2
    assert "is there already; --force writes over it" in words(capsys)
    assert run("export", target, "--to", "lerobot", "--into-dataset", "--force") == 0

    assert run("export", target, "--to", "rlinf", "--into-dataset", "--tag", "tr5") == 0
    shown = words(capsys)
    assert "data.advantage_tag: tr5" in shown
    assert "unified_threshold:" in shown
    table = pq.read_table(root / "meta/advantages_tr5.parquet")
    kinds = [(field.name, str(field.type)) for field in table.schema]
    assert kinds == [
        ("episode_index", "int64"),
        ("frame_index", "int64"),
        ("advantage", "bool"),
        ("advantage_continuous", "double"),
    ]
    ours = pq.read_table(target / "labels/topreward/frames.parquet")
    np.testing.assert_allclose(table["advantage_continuous"].to_numpy(), ours["advantage"].to_numpy())
    threshold = np.quantile(ours["advantage"].to_numpy(), 0.7)
    np.testing.assert_array_equal(table["advantage"].to_numpy(), table["advantage_continuous"].to_numpy() >= threshold)

    # The dataset was edited since: its frames are not where they were.
    meta = next((root / "meta/episodes").rglob("*.parquet"))
    table = pq.read_table(meta)
    for column in ("dataset_from_index", "dataset_to_index"):
        moved = table[column].to_numpy() + 4
        table = table.set_column(table.schema.get_field_index(column), column, [moved])
    pq.write_table(table, meta)
    assert run("export", target, "--to", "lerobot", "--into-dataset", "--force") == 2
    assert "is not so by now" in words(capsys)


def test_tables_as_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_run(tmp_path / "run", some(4), lerobot=False)
    assert run("derive", folder) == 0
    assert run("export", folder, "--to", "csv", "--target", tmp_path / "text") == 0
    frames = pcsv.read_csv(tmp_path / "text/frames.csv")
    ours = pq.read_table(folder / "labels/topreward/frames.parquet")
    assert frames.column_names == ours.column_names
    np.testing.assert_allclose(frames["advantage"].to_numpy(), ours["advantage"].to_numpy(), rtol=1e-6)
    assert pcsv.read_csv(tmp_path / "text/episodes.csv").num_rows == 4
    assert run("export", folder, "--to", "rlinf") == 2
    assert "not of a LeRobot dataset" in words(capsys)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("=HYPERLINK(1)", "'=HYPERLINK(1)"),
        ("@sum", "'@sum"),
        ("-1+1", "'-1+1"),
        ("a\x1b[31m\u202eb\n", "a\\x1b[31m\\u202eb\\n"),
        ("pick – 'up', \"it\"", "pick – 'up', \"it\""),
    ],
)
def test_a_spreadsheet_computes_nothing_of_a_text(text: str, shown: str, tmp_path: Path) -> None:
    made = [replace(one, instruction=text) for one in some(2)]
    folder = write_run(tmp_path / "run", made, lerobot=False)
    assert run("derive", folder) == 0
    assert run("export", folder, "--to", "csv", "--target", tmp_path / "text") == 0
    assert set(pcsv.read_csv(tmp_path / "text/episodes.csv")["instruction"].to_pylist()) == {shown}
    exact = pq.read_table(folder / "labels/topreward/episodes.parquet")["instruction"].to_pylist()
    assert set(exact) == {text}  # tables for programs have it as it is


def test_an_evaluation_has_labels_too(dense_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With its controls, that audit the labels, and for each of its estimators."""
    target = tmp_path / "eval"
    asked = ["--model", dense_folder, *FAST, "--gvl-protocol", "gvl-demo", "--dataset", "demo:?count=5&size=96"]
    assert run("eval", *asked, "--estimators", "topreward,debiased,gvl", "--output", target) == 0
    capsys.readouterr()
    assert run("derive", target, "--column", "progress") == 1  # gvl's answers are none: random weights
    shown = words(capsys)
    assert "debiased: 5 of 5 episodes labelled" in shown
    assert "gvl: " in shown
    assert "none of 5 episodes has values of gvl" in shown
    assert "want 5 or more" not in shown  # its frozen videos are there
    for estimator in ("topreward", "debiased"):
        assert (target / f"labels/{estimator}/frames.parquet").exists()
    rows = pq.read_table(target / "episodes.parquet")
    assert "control" in rows.column_names  # the evaluation's own table is as it was
    assert run("export", target, "--to", "csv", "--estimator", "debias") == 2
    assert "did you mean 'debiased'" in words(capsys)


def test_answers_that_fail_are_missing_labels(
    dense_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Random weights write no percentages: GVL has no labels, TOPReward has, and the status says so."""
    asked = ["--model", dense_folder, *FAST, "--gvl-protocol", "gvl-demo", "--dataset", "demo:?count=2&size=96"]
    target = tmp_path / "labels"
    assert run("label", *asked, "--estimators", "topreward,gvl", "--column", "progress", "--output", target) == 1
    assert "none of 2 episodes has values of gvl" in words(capsys)
    assert sorted(path.name for path in (target / "labels").iterdir()) == ["topreward"]


def test_the_sample_is_drawn_by_the_seed(dense_folder: Path, tmp_path: Path) -> None:
    def sampled(seed: int) -> tuple[str, ...]:
        target = tmp_path / str(seed)
        options = ["--audit", "2", "--seed", str(seed), "--column", "progress", "--output", target]
        assert run("label", "--model", dense_folder, *FAST, "--dataset", "demo:?count=6&size=96", *options) == 0
        stored = open_stored(target)
        found = {m.id for m in stored.measured() if any(r.control == "frozen" for r in m.readings)}
        assert found == set(stored.plan.also_frozen)
        return stored.plan.also_frozen

    first, second = sampled(0), sampled(3)
    assert len(first) == len(second) == 2
    assert first != second


def test_labels_that_follow_the_clock_end_in_red(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = [replace(m, frozen=np.linspace(-4, -3, len(m.scored)).tolist()) for m in some(8)]
    folder = write_run(tmp_path / "run", made)
    console = Console(width=400, record=True)
    monkeypatch.setattr("topreward.cli.label.out", console)
    assert run("derive", folder) == 0
    text = console.export_text(styles=True).strip()
    last = text.splitlines()[-1]
    assert last.startswith("\x1b[1;31mTHESE LABELS FOLLOW THE CLOCK, by 8 audited episodes.")
    summary = json.loads((folder / "labels/topreward/summary.json").read_text())
    assert summary["audit"]["verdict"] == "follows the clock"


def test_text_from_outside_is_shown_and_kept_as_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An instruction that would colour the terminal, and an error that is half a character."""
    odd = "[red]open :smile: \x1b[31m it\u202e"
    made = [replace(m, instruction=odd, values=m.values[::-1]) for m in some(3)]
    folder = write_run(tmp_path / "run", [*made, Made([], [], error="no \udc80 file\x07")])
    assert run("derive", folder, "--column", "progress") == 1
    shown = capsys.readouterr().out
    assert "[red]open :smile: \\x1b[31m it\\u202e" in shown
    assert "no \\udc80 file\\x07" in shown
    assert not set(shown) & set("\x1b\x07\u202e")
    rows = pq.read_table(folder / "labels/topreward/episodes.parquet").to_pylist()
    assert rows[0]["instruction"] == odd
    assert rows[3]["error"] == "no \\udc80 file\x07"
    for line in (folder / "labels/topreward/review.jsonl").read_text().splitlines():
        json.loads(line)
    assert run("export", folder, "--to", "csv") == 0


def test_half_a_run_is_derived_as_far_as_it_goes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_run(tmp_path / "run", some(4), planned=7, dataset="lerobot:somewhere")
    assert run("derive", folder) == 0
    shown = words(capsys)
    assert "3 of 7 episodes are not measured yet" in shown
    assert "no file for LeRobot was written" in shown


def test_what_cannot_be_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_run(tmp_path / "run", some(3))
    lost = write_run(tmp_path / "lost", [Made([], [], error="gone")])
    cases: list[tuple[list[str | Path], str]] = [
        (["derive", tmp_path / "nowhere"], "there is no such folder"),
        (["derive", lost], "none of 1 episodes has values of topreward; the first: gone"),
        (["derive", folder, "--horizon", "0"], "--horizon is 0"),
        (["derive", folder, "--force-positive", "0:9"], "asks for episode 8"),
        (["derive", folder, "--calibration-split", "none"], "no labelled episode is of the split"),
        (["export", folder, "--to", "lerobot"], "make them with: topreward derive"),
        (["label", "--model", "demo", "--dataset", "demo:", "--audit", "-1"], "--audit is -1"),
    ]
    for arguments, said in cases:
        assert run(*arguments) == 2
        assert said in words(capsys)
    assert run("derive", folder) == 0
    capsys.readouterr()
    cases = [
        (["export", folder, "--to", "csv", "--column", "progress"], "--column is for --to lerobot"),
        (["export", folder, "--to", "csv", "--into-dataset"], "--into-dataset and --to csv"),
        (["export", folder, "--to", "rlinf", "--tag", "../x"], "--tag is '../x'"),
        (["export", folder, "--to", "lerobot", "--into-dataset"], "write the file elsewhere with --target"),
        (["export", folder, "--to", "lerobot", "--target", tmp_path], "is a folder, want a file"),
    ]
    for arguments, said in cases:
        assert run(*arguments) == 2
        assert said in words(capsys)


@pytest.mark.parametrize(
    ("dataset", "named"),
    [
        ("lerobot:lerobot/pusht", "lerobot_pusht"),
        ("demo:?count=3", "demo"),
        ("hdf5:/data/my set.hdf5", "data_my_set.hdf5"),
    ],
)
def test_the_folder_is_named_after_the_dataset(dataset: str, named: str) -> None:
    from topreward.cli.label import LabelOptions, _name

    assert _name(LabelOptions(dataset=dataset)) == named
    assert _name(LabelOptions(videos=(Path("lists/mine.csv"),))) == "mine"


def test_names_of_the_helper_are_those_of_a_dataset() -> None:
    assert name(12) == "episode_000012"
