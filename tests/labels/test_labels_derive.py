"""Labels out of a run's folder: every column against independent lines, and what a dataset may lack."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from labelled import Made, name, some, write_run
from places import ROOT
from topreward.errors import ConfigError
from topreward.jobs.stored import open_stored
from topreward.labels.derive import Labels, derive
from topreward.labels.settings import LabelSettings
from topreward.labels.tables import EPISODES, FRAMES
from topreward.labels.write import write_labels


def made_of(folder: Path, estimator: str = "topreward", **options: Any) -> Labels:
    return derive(open_stored(folder), estimator, LabelSettings(**options))


def written(labels: Labels, folder: Path) -> tuple[dict[str, np.ndarray], list[dict[str, Any]], dict[str, Any]]:
    """frames.parquet by column, episodes.parquet by row, summary.json."""
    target = write_labels(labels, folder)
    frames = pq.read_table(target / "frames.parquet")
    columns = {c: frames[c].to_numpy() for c in frames.column_names}
    episodes = pq.read_table(target / "episodes.parquet").to_pylist()
    return columns, episodes, json.loads((target / "summary.json").read_text())


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return write_run(tmp_path / "run", some())


def test_every_column_by_hand(run: Path) -> None:
    made = some()
    labels = made_of(run, horizon=9, chunk_size=13, kappa=0.05)
    frames, episodes, summary = written(labels, run)
    low = np.quantile([m.values[0] for m in made], 0.05)
    high = np.quantile([m.values[-1] for m in made], 0.95)
    columns: dict[str, list[float]] = {c: [] for c in ("value", "progress", "anchored", "reward", "advantage", "gain")}
    for m in made:
        values, t = np.array(m.values), np.arange(m.frames)
        own = (values - values.min()) / (values.max() - values.min())
        anchored = np.interp(t, m.scored, np.clip((values - low) / (high - low), 0, 1)).astype(np.float32)
        anchored = anchored.astype(float)
        columns["value"] += np.interp(t, m.scored, values).tolist()
        columns["progress"] += np.interp(t, m.scored, own).tolist()
        columns["anchored"] += anchored.tolist()
        for i in range(m.frames):
            k = next((k for k, at in enumerate(m.scored) if at >= i), None)
            columns["reward"].append(min(2 * np.exp(own[k] - own[k - 1]), 2) if k else np.nan)
            columns["advantage"].append(anchored[min(i + 9, m.frames - 1)] - anchored[i])
            columns["gain"].append(anchored[min(i + 13, m.frames - 1)] - anchored[i])
    want = {key: np.array(values) for key, values in columns.items()}
    close = {"rtol": 1e-5, "atol": 1e-6}
    np.testing.assert_allclose(frames["value"], want["value"], **close)
    np.testing.assert_allclose(frames["probability"], _probability(made), **close)
    np.testing.assert_allclose(frames["progress"], want["progress"], **close)
    np.testing.assert_allclose(frames["progress_anchored"], want["anchored"], **close)
    np.testing.assert_allclose(frames["dense_reward"], want["reward"], **close)
    np.testing.assert_allclose(frames["advantage"], want["advantage"], **close)
    np.testing.assert_allclose(frames["weight_clip"], np.minimum(2 * np.exp(want["advantage"]), 2), **close)
    beta = want["advantage"].std()
    assert summary["advantage"]["beta"] == pytest.approx(beta, rel=1e-5)
    awr = np.exp(want["advantage"] / beta)
    np.testing.assert_allclose(frames["weight_awr"], awr / awr.mean(), rtol=1e-4)
    assert frames["weight_awr"].mean() == pytest.approx(1, rel=1e-5)
    mean, std = max(want["gain"].mean(), 0), want["gain"].std()
    soft = np.clip((want["gain"] - mean + 2 * std) / (4 * std + 1e-6), 0, 1)
    rabc = np.select([want["gain"] > 0.05, want["gain"] >= 0], [1.0, soft], 0.0)
    np.testing.assert_allclose(frames["weight_rabc"], rabc, **close)
    threshold = np.quantile(frames["advantage"], 0.7)
    np.testing.assert_array_equal(frames["positive"], frames["advantage"] >= threshold)
    assert frames["positive"].mean() == pytest.approx(0.3, abs=0.02)
    # Where each frame lies.
    assert frames["index"].tolist() == list(range(sum(m.frames for m in made)))
    assert frames["frame_index"].tolist() == [t for m in made for t in range(m.frames)]
    np.testing.assert_allclose(frames["timestamp"], frames["frame_index"] / 10)
    assert frames["scored"].tolist() == [t in m.scored for m in made for t in range(m.frames)]
    assert frames["percent"].tolist() == pytest.approx([np.nan] * frames["index"].size, nan_ok=True)
    # And the episodes.
    assert [e["episode_id"] for e in episodes] == [name(i) for i in range(len(made))]
    for row, m in zip(episodes, made, strict=True):
        assert row["success_score"] == pytest.approx(np.mean(m.values[-3:]))
        assert row["range"] == pytest.approx(max(m.values) - min(m.values))
        assert (row["anchors_over"], row["anchor_low"], row["anchor_high"]) == ("instruction", low, high)


def _probability(made: list[Made]) -> np.ndarray:
    return np.concatenate([np.interp(np.arange(m.frames), m.scored, np.exp(m.values)) for m in made])


def test_step_cost_is_recaps_advantage(run: Path) -> None:
    frames, _, summary = written(made_of(run, horizon=9, step_cost=True), run)
    lengths = [m.frames for m in some()]
    assert summary["longest_episode"] == {"open the drawer": max(lengths)}
    p = frames["progress_anchored"].astype(float)
    first = 0
    for length in lengths:
        for t in range(length):
            n = min(9, length - 1 - t)
            want = p[first + t + n] - p[first + t] - n / max(lengths)
            assert frames["advantage"][first + t] == pytest.approx(want, abs=1e-6)
        first += length


def test_causal_labels_hold_and_are_null_before_the_first_score(run: Path) -> None:
    frames, episodes, _ = written(made_of(run, causal=True), run)
    m = some()[0]
    assert np.isnan(frames["value"][: m.scored[0]]).all()
    np.testing.assert_allclose(frames["value"][m.scored[0] : m.scored[1]], m.values[0], rtol=1e-6)
    assert episodes[0]["largest_drop"] is not None


def test_the_share_of_positive_frames_per_task_and_forced_episodes(tmp_path: Path) -> None:
    made = some(10, seed=1) + [replace(m, instruction="close it") for m in some(10, seed=2)]
    run = write_run(tmp_path / "run", made)
    whole, _, _ = written(made_of(run, positive_share=0.4), run)
    task, episodes, summary = written(made_of(run, positive_share=0.4, positive_over="task"), run)
    closing = np.isin(task["episode_index"], range(10, 20))
    assert whole["positive"].mean() == pytest.approx(0.4, abs=0.02)
    for part in (closing, ~closing):
        assert task["positive"][part].mean() == pytest.approx(0.4, abs=0.02)
        text = "close it" if part is closing else "open the drawer"
        got = summary["advantage"]["positive_thresholds"][text]
        assert got == pytest.approx(np.quantile(task["advantage"][part], 0.6), abs=1e-6)
    assert {e["anchors_over"] for e in episodes} == {"instruction"}
    forced, _, summary = written(made_of(run, positive_share=0.4, force_positive="0:2,7"), run)
    assert summary["advantage"]["force_positive"] == [name(0), name(1), name(7)]
    held = np.isin(forced["episode_index"], [0, 1, 7])
    assert forced["positive"][held].all()
    threshold = np.quantile(forced["advantage"][~held], 0.6)  # of the frames that are not forced
    np.testing.assert_array_equal(forced["positive"][~held], forced["advantage"][~held] >= threshold)


def test_an_instruction_with_few_episodes_shares_anchors(tmp_path: Path) -> None:
    made = [*some(11), *(replace(m, instruction="rare") for m in some(2, seed=5))]
    run = write_run(tmp_path / "run", made)
    _, episodes, summary = written(made_of(run), run)
    assert [e["anchors_over"] for e in episodes] == ["instruction"] * 11 + ["all"] * 2
    assert summary["anchors"]["rare"]["low"] == pytest.approx(np.quantile([m.values[0] for m in made], 0.05))


def test_a_dataset_without_a_scale_says_so(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", [Made([3, 7, 11], [-1.0, -2.0, -3.0]), Made([3, 7, 11], [-1.0, -4.0, -3.0])])
    frames, _, summary = written(made_of(run), run)
    for column in ("progress_anchored", "advantage", "weight_awr"):
        assert np.isnan(frames[column].astype(float)).all()
    assert set(frames["weight_rabc"]) == {1.0}  # LeRobot's weight of a frame without progress
    assert "do not lie above their beginnings" in " ".join(summary["notes"])
    frames, _, _ = written(made_of(run, column="progress"), run)
    assert np.isfinite(frames["advantage"]).all()


def test_what_waits_for_the_whole_dataset(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", some(5), planned=8)
    labels = made_of(run, column="progress", success_threshold=-1.0)
    assert not labels.complete
    frames, episodes, summary = written(labels, run)
    assert "3 of 8 episodes are not measured yet" in " ".join(summary["notes"])
    for column in ("progress_anchored", "weight_awr", "weight_rabc", "positive"):
        assert frames[column].dtype == object or np.isnan(frames[column].astype(float)).all()
        assert not any(value == value and value is not None for value in frames[column].tolist())
    for column in ("value", "progress", "dense_reward", "advantage", "weight_clip"):
        assert np.isfinite(frames[column]).any()  # of one episode alone
    assert episodes[0]["predicted_success"] is None
    assert summary["complete"] is False


def test_episodes_in_error_and_failed_answers(tmp_path: Path) -> None:
    made = some(6)
    made[2] = replace(made[2], error="video.mp4: cut off")
    failed = {"kind": "refusal", "reason": "no"}
    made[4] = replace(made[4], values=[np.nan] * len(made[4].scored), failure=failed)
    run = write_run(tmp_path / "run", made)
    labels = made_of(run)
    frames, episodes, summary = written(labels, run)
    assert [kept.id for kept in labels.unlabelled] == [name(2), name(4)]
    assert len(episodes) == 6
    assert (episodes[2]["error"], episodes[2]["num_frames"]) == ("video.mp4: cut off", None)
    assert episodes[4]["failure"] == "refusal: no"
    assert sorted(set(frames["episode_index"])) == [0, 1, 3, 4, 5]  # an episode in error has no frames to label
    last = frames["episode_index"] == 4
    assert np.isnan(frames["progress_anchored"][last]).all()
    assert set(frames["weight_rabc"][last]) == {1.0}
    assert frames["index"][last][0] == sum(m.frames for m in made[:4])  # the frames of the lost one are counted
    assert summary["in_error"] == {name(2): "video.mp4: cut off"}
    assert summary["episodes_labelled"] == 4
    lines = [json.loads(line) for line in (run / "labels/topreward/review.jsonl").read_text().splitlines()]
    assert [line["episode_id"] for line in lines[:2]] == [name(2), name(4)]


def test_gvl_has_percent_and_no_nats(tmp_path: Path) -> None:
    made = [Made([0, 5, 11], [0.0, 40.0, 90.0], unit="percent"), Made([0, 5, 11], [10.0, 30.0, 80.0], unit="percent")]
    run = write_run(tmp_path / "run", made, base="gvl")
    frames, _, _ = written(made_of(run, "gvl", column="percent", horizon=11), run)
    for column in ("value", "probability"):
        assert np.isnan(frames[column]).all()
    assert frames["percent"][[0, 5, 11]].tolist() == [0, 40, 90]
    assert frames["advantage"][0] == pytest.approx(0.9)
    assert frames["progress"][5] == pytest.approx(40 / 90)
    with pytest.raises(ConfigError, match="gvl reads no probability"):
        made_of(run, "gvl", column="probability")


def test_derived_estimators_come_from_the_same_curves(run: Path) -> None:
    plain, _, _ = written(made_of(run), run)
    odds, _, _ = written(made_of(run, "log_odds"), run)
    np.testing.assert_allclose(odds["probability"][plain["scored"]], plain["probability"][plain["scored"]], rtol=1e-5)
    with pytest.raises(ConfigError, match="none of 12 episodes has values of debiased"):
        made_of(run, "debiased")


def test_uneven_frame_times(tmp_path: Path) -> None:
    times = np.array([0.0, 0.1, 0.9, 1.0, 1.1, 1.2])
    run = write_run(tmp_path / "run", [Made([0, 3, 5], [-3.0, -1.0, -0.5], 6, times=times)])
    frames, _, _ = written(made_of(run), run)
    np.testing.assert_allclose(frames["timestamp"], times)
    np.testing.assert_allclose(frames["value"][:4], [-3, -2.8, -1.2, -1], rtol=1e-5)


def test_success_is_predicted_by_a_fitted_or_a_given_threshold(run: Path) -> None:
    _, episodes, summary = written(made_of(run), run)
    told = summary["success"]["told"]
    assert told["accuracy"] == 1.0
    assert told["tested_on"] == 6
    assert [e["predicted_success"] for e in episodes] == [m.success for m in some()]
    _, episodes, summary = written(made_of(run, success_threshold=-99.0), run)
    assert summary["success"]["threshold"] == -99.0
    assert all(e["predicted_success"] for e in episodes)
    looks = [
        line for line in (run / "labels/topreward/review.jsonl").read_text().splitlines() if "called a failure" in line
    ]
    assert len(looks) == 6


def test_a_given_beta_that_weighs_nothing_is_told(run: Path) -> None:
    _, _, summary = written(made_of(run, beta=5.0), run)
    assert "nearly plain cloning" in " ".join(summary["notes"])
    _, _, summary = written(made_of(run), run)
    assert summary["notes"] == []


def test_deriving_again_gives_the_same_bytes_and_no_model(run: Path) -> None:
    files = ("frames.parquet", "episodes.parquet", "summary.json", "review.jsonl")
    folder = write_labels(made_of(run), run)
    before = [(folder / file).read_bytes() for file in files]
    code = (
        "import sys\nfrom topreward.jobs.stored import open_stored\nfrom topreward.labels.derive import derive\n"
        "from topreward.labels.write import write_labels\n"
        f"run = open_stored({str(run)!r})\nwrite_labels(derive(run, 'topreward'), run.path)\n"
        "print([m for m in ('torch', 'transformers') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"
    assert [(folder / file).read_bytes() for file in files] == before


def test_the_tables_have_their_schema_also_where_all_is_null(tmp_path: Path) -> None:
    made = [replace(m, success=None) for m in some(3)]
    run = write_run(tmp_path / "run", made, lerobot=False, planned=9)
    folder = write_labels(made_of(run), run)
    assert pq.read_schema(folder / "frames.parquet").equals(FRAMES)
    assert pq.read_schema(folder / "episodes.parquet").equals(EPISODES)
    frames = pq.read_table(folder / "frames.parquet")
    assert frames["index"].null_count == frames.num_rows  # its dataset does not count frames through
    assert frames["episode_index"].null_count == 0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"horizon": 0}, "--horizon is 0"),
        ({"chunk_size": -1}, "--chunk-size is -1"),
        ({"beta": 0.0}, "--beta is 0.0"),
        ({"kappa": float("nan")}, "--kappa is nan"),
        ({"positive_share": 1.0}, "--positive-share is 1.0"),
        ({"success_threshold": float("nan")}, "--success-threshold"),
    ],
)
def test_options_are_checked(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        LabelSettings(**options)


def test_a_file_that_cannot_be_read_takes_no_other_episodes_number(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", some(4))
    next((run / "curves").glob(f"{name(1)}-*.json")).write_text("{")
    frames, episodes, summary = written(made_of(run), run)
    assert [e["episode_index"] for e in episodes] == [0, 2, 3, None]
    assert "not a measured episode" in episodes[3]["error"]
    assert sorted(set(frames["episode_index"])) == [0, 2, 3]
    assert frames["index"][frames["episode_index"] == 2][0] == sum(m.frames for m in some(4)[:2])
    assert summary["episodes_labelled"] == 3


def test_an_episode_that_lies_there_twice_is_refused(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", some(3))
    file = next((run / "curves").glob(f"{name(1)}-*.json"))
    (run / "curves" / "copy.json").write_bytes(file.read_bytes())
    with pytest.raises(ConfigError, match=f"two files in curves/ are of the same episode, {name(1)}"):
        made_of(run)


@pytest.mark.parametrize("place", [{"episode_index": "1"}, {"episode_index": 1, "dataset_from_index": -3}])
def test_a_place_that_is_none_is_an_error_of_that_episode(tmp_path: Path, place: dict[str, Any]) -> None:
    run = write_run(tmp_path / "run", some(3))
    file = next((run / "curves").glob(f"{name(1)}-*.json"))
    file.write_text(json.dumps(json.loads(file.read_text()) | {"place": place}))
    assert [kept.real.error is None for kept in made_of(run).episodes] == [True, True, False]


def test_times_that_go_back_are_an_error_of_that_episode(tmp_path: Path) -> None:
    made = [replace(m, times=np.arange(m.frames) ** 1.1 / 10) for m in some(2)]
    run = write_run(tmp_path / "run", made)
    file = next((run / "curves").glob(f"{name(1)}-*.json"))
    data = json.loads(file.read_text())
    data["frame_times"][5] = 0.0
    file.write_text(json.dumps(data))
    kept = made_of(run).episodes
    assert "frame_times do not increase" in str(kept[1].real.error)


def test_an_estimators_name_leads_nowhere_else(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", some(3), base="../../mine")
    with pytest.raises(ConfigError, match="names an estimator"):
        write_labels(made_of(run, "../../mine"), run)


def test_an_episode_of_one_frame(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", [Made([0], [-1.0], 1), *some(3)])
    frames, episodes, _ = written(made_of(run), run)
    assert frames["timestamp"][0] == 0
    assert frames["advantage"][0] == 0
    assert episodes[0]["voc"] is None
