"""Every number of results.json, computed again here; and the marks beside them."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray
from rich.console import Console
from scipy import stats

from scorers import PREFIXES, Answers, Bright, Clock, Load, bright_clip, episodes, missing, rising
from topreward.errors import ConfigError
from topreward.evaluation import EvalRun, Folder, Plan, Scorer, Summary, evaluate, summarise
from topreward.evaluation.results import results_dict, write_results, write_single_file
from topreward.evaluation.success import detect
from topreward.jobs.controls import other_instructions
from topreward.metrics import best_threshold, bootstrap_difference, reliability, roc_auc, slope
from topreward.report.tables import show_results
from topreward.types import Curve, Episode

COUNT = 7
PLAN = Plan(("topreward", "log_odds", "debiased", "gvl"))
LENGTHS = np.unique(np.linspace(1, 12, PREFIXES, dtype=int))


def run_of(
    scorers: dict[str, Scorer], plan: Plan, listed: list[Episode], path: Path | None = None
) -> tuple[EvalRun, list[Summary]]:
    with Folder(path) as folder:
        run = evaluate(Load(scorers), lambda: listed, plan, folder)
        summaries = summarise(run.episodes, plan)
        if path:
            write_results(folder, run, summaries)
            write_single_file(path / "single.json", folder, run, summaries)
    return run, summaries


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("results") / "r"
    listed = episodes(COUNT, {5: missing})
    run_of({"topreward": Bright(), "gvl": Answers(fails=("e3",))}, PLAN, listed, path)
    return path


@pytest.fixture(scope="module")
def found(results: Path) -> dict[str, Any]:
    data: dict[str, Any] = json.loads((results / "results.json").read_text())
    return data


def expected_values() -> dict[tuple[str, str], dict[int, NDArray[np.float64]]]:
    """(estimator, control) → episode → (K,) values, from the clips' brightness alone."""
    others = other_instructions(episodes(COUNT))
    out: dict[tuple[str, str], dict[int, NDArray[np.float64]]] = {}
    for i in set(range(COUNT)) - {5}:
        bright = np.array(rising(i, top=220 if i % 2 else 90), dtype=float)
        shown = {
            "real": bright[LENGTHS - 1],
            "frozen": np.full(PREFIXES, bright[0]),
            "reversed": bright[::-1][LENGTHS - 1],
            "other_instruction": bright[LENGTHS - 1],
        }
        for control, level in shown.items():
            text = others[i] if control == "other_instruction" else f"task {i % 3}"
            half = 2 if text == "task 0" else 1
            true = np.log((level + 1) / 256 / half)
            flat = np.log((bright[0] + 1) / 256 / half)
            out.setdefault(("topreward", control), {})[i] = true
            out.setdefault(("log_odds", control), {})[i] = true - np.log(1 - np.exp(true))
            out.setdefault(("debiased", control), {})[i] = true - flat
            out.setdefault(("gvl", control), {})[i] = np.full(PREFIXES, np.nan) if i == 3 else level / 2.55
        out.setdefault(("time_index", "real"), {})[i] = LENGTHS / 12 * 100.0
    return out


def spearman(values: NDArray[np.float64]) -> float:
    if np.isnan(values).any() or np.ptp(values) < 1e-12:
        return float("nan")
    ranks = stats.rankdata(values)
    return float(np.corrcoef(ranks, np.arange(values.size))[0, 1])


def interval(values: list[float]) -> dict[str, float | int | None]:
    array = np.array(values)
    defined = array[~np.isnan(array)]
    out: dict[str, Any] = {"count": defined.size, "undefined": array.size - defined.size, "confidence": 0.95}
    out["mean"] = defined.mean() if defined.size else None
    draws = np.random.default_rng(0).integers(0, max(defined.size, 1), (10_000, defined.size))
    low, high = np.quantile(defined[draws].mean(axis=1), [0.025, 0.975]) if defined.size > 1 else (None, None)
    return out | {"low": low, "high": high}


def same(actual: Any, expected: Any) -> None:
    """Equal up to rounding; None stands for NaN."""
    assert set(actual) == set(expected)
    for key, value in expected.items():
        assert actual[key] == (pytest.approx(value, abs=1e-12) if isinstance(value, float) else value), key


def test_rows(found: dict[str, Any]) -> None:
    for (estimator, control), by_episode in expected_values().items():
        for i, values in by_episode.items():
            row = found["episodes"][i]["estimators"][estimator][control]
            nan = bool(np.isnan(values).any())
            voc = spearman(values)
            assert row["voc"] == (None if np.isnan(voc) else pytest.approx(voc))
            tau = None if np.isnan(voc) else stats.kendalltau(range(PREFIXES), values).statistic
            assert row["kendall_tau"] == (None if tau is None else pytest.approx(tau))
            line = None if nan else pytest.approx(np.polyfit(LENGTHS / 12, values, 1)[0], abs=1e-9)
            assert row["slope"] == line
            assert row["first"] == (None if nan else pytest.approx(values[0], abs=1e-12))
            assert row["last"] == (None if nan else pytest.approx(values[-1]))
            assert row["prefixes"] == PREFIXES
            assert row["error"] is None
            assert row["failure"] == ("refusal: no" if nan else None)


def test_trends(found: dict[str, Any]) -> None:
    for (estimator, control), by_episode in expected_values().items():
        trend = found["estimators"][estimator]["trends"][control]
        # the episode that could not be opened has a row for the real video, and is undefined there
        failed = [float("nan")] if control == "real" else []
        vocs = [spearman(values) for values in by_episode.values()]
        same(trend["voc"], interval(vocs + failed))
        zeros = [0.0 if np.isnan(v).any() else voc for v, voc in zip(by_episode.values(), vocs, strict=True)]
        same(trend["voc_failures_as_zero"], interval(zeros + failed))
        slopes = [
            float("nan") if np.isnan(v).any() else float(np.polyfit(LENGTHS / 12, v, 1)[0]) for v in by_episode.values()
        ]
        assert trend["slope"]["mean"] == pytest.approx(np.nanmean(slopes), abs=1e-9)
        median = None if np.isnan(vocs).all() else pytest.approx(np.nanmedian(vocs))
        assert trend["voc_median"] == median
        assert trend["errors"] == len(failed)
        assert trend["episodes"] == len(by_episode) + len(failed)
        failures = 1 if estimator == "gvl" else 0
        assert trend["failures"] == failures
        assert trend["failure_rate"] == pytest.approx(failures / len(by_episode))
        flat = [i for i, v in by_episode.items() if not np.isnan(v).any() and np.ptp(v) < 1e-12]
        assert trend["constant"] == len(flat)


def test_both_ways_to_count_failures_differ(found: dict[str, Any]) -> None:
    real = found["estimators"]["gvl"]["trends"]["real"]
    undefined, zero = real["voc"], real["voc_failures_as_zero"]
    assert (undefined["count"], undefined["undefined"]) == (5, 2)  # a failed answer and an error
    assert (zero["count"], zero["undefined"]) == (6, 1)
    assert zero["mean"] == pytest.approx(undefined["mean"] * 5 / 6)


def test_success(found: dict[str, Any]) -> None:
    values = expected_values()
    for estimator in ("topreward", "log_odds", "debiased", "gvl"):
        real = values[estimator, "real"]
        scores = {i: spearman(v) if estimator == "gvl" else float(np.mean(v[-3:])) for i, v in real.items()}
        success = found["estimators"][estimator]["success"]
        assert (success["successes"], success["failures"]) == (3, 4)
        defined = {i: s for i, s in scores.items() if not np.isnan(s)}
        assert success["undefined"] == COUNT - len(defined)
        good = [s for i, s in defined.items() if i % 2]
        bad = [s for i, s in defined.items() if not i % 2]
        pairs = [1.0 if g > b else 0.5 if g == b else 0.0 for g in good for b in bad]
        assert success["roc_auc"] == pytest.approx(np.mean(pairs))
        assert success["gap"]["mean"] == pytest.approx(np.mean(good) - np.mean(bad))
        assert success["fitted_on"] == 4  # half of each class, rounded up
        assert success["tested_on"] == 3
    shares = np.array(
        [(rising(i, top=220 if i % 2 else 90)[11] + 1) / (512 if i % 3 == 0 else 256) for i in (0, 1, 2, 3, 4, 6)]
    )
    labels = np.array([0, 1, 0, 1, 0, 0])
    calibration = found["estimators"]["topreward"]["success"]["calibration"]
    assert calibration["brier"] == pytest.approx(np.mean((shares - labels) ** 2))
    bins = np.minimum((shares * 10).astype(int), 9)
    gaps = [abs(shares[bins == b].mean() - labels[bins == b].mean()) * (bins == b).mean() for b in set(bins.tolist())]
    assert calibration["ece"] == pytest.approx(sum(gaps))
    assert sum(calibration["counts"]) == 6
    assert found["estimators"]["debiased"]["success"]["calibration"] is None


def test_truth(found: dict[str, Any]) -> None:
    truth = {i: np.linspace(0, 1.0 if i % 2 else 0.4, 12)[LENGTHS - 1] for i in range(COUNT)}
    values = expected_values()
    reads = {
        "topreward": np.exp,
        "log_odds": lambda v: 1 / (1 + np.exp(-v)),
        "gvl": lambda v: v / 100,
        "time_index": lambda v: v / 100,
    }
    for estimator, read in reads.items():
        real = {i: v for i, v in values[estimator, "real"].items() if not np.isnan(v).any()}
        against = found["estimators"][estimator]["truth"]
        errors = [float(np.abs(read(v) - truth[i]).mean()) for i, v in real.items()]
        assert against["mae"]["mean"] == pytest.approx(np.mean(errors))
        stretched = [(v - v.min()) / np.ptp(v) for v in real.values()]
        minmax = [float(np.abs(s - truth[i]).mean()) for s, i in zip(stretched, real, strict=True)]
        assert against["mae_minmax"]["mean"] == pytest.approx(np.mean(minmax))
        pooled, pooled_truth = np.concatenate(list(real.values())), np.concatenate([truth[i] for i in real])
        assert against["pearson"] == pytest.approx(stats.pearsonr(read(pooled), pooled_truth).statistic)
        assert against["spearman"] == pytest.approx(stats.spearmanr(pooled, pooled_truth).statistic)
        assert against["pearson_minmax"] == pytest.approx(
            stats.pearsonr(np.concatenate(stretched), pooled_truth).statistic
        )
        assert against["frames"] == pooled.size
    assert found["estimators"]["debiased"]["truth"]["mae"]["count"] == 0  # a difference is no share of a task


def test_cost_and_making(found: dict[str, Any], results: Path) -> None:
    for base in ("topreward", "gvl"):
        seconds = [e["seconds"].get(base, {}) for e in found["episodes"]]
        cost = found["estimators"][base]["cost"]
        assert cost["real_seconds"] == pytest.approx(sum(s.get("real", 0) for s in seconds))
        controls = sum(v for s in seconds for k, v in s.items() if k != "real")
        assert cost["control_seconds"] == pytest.approx(controls)
        assert cost["ratio"] == pytest.approx(controls / cost["real_seconds"])
    assert found["estimators"]["gvl"]["cost"]["tokens"] == 6 * 120
    assert found["estimators"]["log_odds"]["cost"] is None
    assert found["cost"]["decoded_frames"] == sum(e["decoded_frames"] for e in found["episodes"])
    assert found["provenance"]["settings"]["plan"]["estimators"] == list(PLAN.estimators)
    assert found["provenance"]["made"]["gvl"] == [{"model": "none"}]
    assert {"python", "numpy", "commit"} <= set(found["provenance"]["software"])
    assert (found["complete"], found["episodes_failed"]) == (True, 1)


def test_parquet_holds_the_same_rows(found: dict[str, Any], results: Path) -> None:
    table = pq.read_table(results / "episodes.parquet").to_pylist()
    assert len(table) == 6 * (4 * 4 + 1) + 5
    for row in table:
        place = found["episodes"][int(row["episode_id"][1:])]["estimators"][row["estimator"]][row["control"]]
        for key, value in place.items():
            mine = row[key]
            assert (None if isinstance(mine, float) and np.isnan(mine) else mine) == value, key


def test_the_single_file_has_every_curve(found: dict[str, Any], results: Path) -> None:
    single = json.loads((results / "single.json").read_text())
    assert {k: v for k, v in single.items() if k != "curves"} == found
    assert set(single["curves"]) == {f"e{i}" for i in range(COUNT)}
    real = single["curves"]["e1"]["readings"][0]
    curve = Curve.from_dict(real["curve"])
    np.testing.assert_allclose(curve.values, expected_values()["topreward", "real"][1])
    on_disk = json.loads((results / found["episodes"][1]["curves"]).read_text())
    assert on_disk["readings"][0]["curve"] == real["curve"]


# -- marks ---------------------------------------------------------------------------------------------


def shown(run: EvalRun, summaries: list[Summary], width: int = 110) -> str:
    console = Console(width=width, record=True, file=io.StringIO())
    show_results(console, run, summaries)
    return console.export_text()


def test_a_clock_is_marked_and_an_honest_estimator_is_not() -> None:
    plan = Plan(("clock", "bright"))
    run, (clock, bright, _) = run_of({"clock": Clock(), "bright": Bright()}, plan, episodes(8))
    assert clock.trends["real"].voc.mean == clock.trends["frozen"].voc.mean == 1.0
    assert clock.trends["reversed"].voc.mean == 1.0
    assert (clock.evidence, bright.evidence) == ("none", "yes")
    assert "this VOC is no evidence" in clock.sentence
    assert bright.sentence == ""
    assert bright.trends["frozen"].slope.mean == 0
    assert bright.trends["reversed"].voc.mean < -0.8
    text = shown(run, [clock, bright])
    assert "clock (!)" in text
    assert "bright (!)" not in text
    assert "the frozen video's VOC, 1.000" in text


class Drifts(Bright):
    """Bright, with a frozen video that drifts by `drift` per prefix in noise of its own."""

    drift = 0.0

    def score(self, clip: Any, instructions: Any, *, episode_id: str) -> list[Curve]:
        curves = super().score(clip, instructions, episode_id=episode_id)
        noise = np.random.default_rng(int(episode_id[1:])).normal(size=PREFIXES)
        extra = self.drift * np.arange(PREFIXES) + noise
        return [c.with_values(c.values + extra, "nats") for c in curves] if "frozen" in clip.source else curves


def test_a_frozen_video_that_wavers_is_no_mark_and_one_that_drifts_is() -> None:
    for drift, evidence in ((0.0, "yes"), (5.0, "none")):
        scorer = Drifts()
        object.__setattr__(scorer, "drift", drift)
        _, (summary, _) = run_of({"topreward": scorer}, Plan(("topreward",)), episodes(12))
        assert summary.trends["frozen"].voc.count == 12
        assert summary.evidence == evidence


def test_too_few_episodes_show_nothing() -> None:
    _, (summary, _) = run_of({"topreward": Bright()}, Plan(("topreward",)), episodes(1))
    assert summary.evidence == "undecided"
    assert "too few" in summary.sentence


def test_debiasing_leaves_nothing_of_a_clock() -> None:
    _, (debiased, _) = run_of({"topreward": Clock()}, Plan(("debiased",)), episodes(8))
    assert debiased.evidence == "undecided"
    assert "0 of 8 VOCs are defined" in debiased.sentence
    assert debiased.trends["real"].constant == 8
    assert debiased.trends["real"].slope.mean == 0


def test_without_controls_nothing_is_judged() -> None:
    run, summaries = run_of({"topreward": Clock()}, Plan(("topreward",), controls=False), episodes(3))
    assert [(s.estimator, s.evidence, list(s.trends)) for s in summaries] == [("topreward", "not asked", ["real"])]
    assert "frozen" not in shown(run, summaries)


def test_text_from_a_dataset_is_not_markup() -> None:
    evil = Episode("[bold]id[/]", "[link=x]do[/link] [/red]", lambda: bright_clip(range(12)))
    lost = Episode("[/nothing]", "[red]", missing)
    text = shown(*run_of({"topreward": Bright()}, Plan(("topreward",)), [evil, lost]))
    for words in ("[bold]id[/]", "[link=x]do[/link]", "[/nothing]", "failed: [/nothing]: gone.mp4"):
        assert words in text


def test_failure_rates_are_printed_both_ways() -> None:
    run, summaries = run_of({"gvl": Answers(fails=("e0", "e2"))}, Plan(("gvl",)), episodes(4))
    text = " ".join(shown(run, summaries).split())
    real = summaries[0].trends["real"]
    assert "gvl: 2 of 4 answers failed (50 %)" in text
    assert f"as undefined: {real.voc.mean:.3f}" in text
    assert f"as 0: {real.voc_failures_as_zero.mean:.3f}" in text
    assert real.voc_failures_as_zero.mean == pytest.approx(real.voc.mean / 2)


# -- success by the dataset's split --------------------------------------------------------------------


def test_a_threshold_is_fitted_on_the_named_split_alone() -> None:
    run, _ = run_of({"topreward": Bright()}, Plan(("topreward",)), episodes(8))
    rows = [r for e in run.episodes for r in e.rows if (r.estimator, r.control) == ("topreward", "real")]
    fitted = [r for r in rows if r.split == "a"]
    rest = [r for r in rows if r.split == "b"]
    success = detect(rows, calibration_split="a")
    assert success is not None
    assert (success.fitted_on, success.tested_on) == (len(fitted), len(rest)) == (4, 4)
    assert success.threshold == best_threshold([r.score for r in fitted], [bool(r.success) for r in fitted])
    right = [(r.score >= success.threshold) == r.success for r in rest]
    assert success.accuracy == np.mean(right)
    assert success.majority == 0.5
    with pytest.raises(ConfigError, match="no labelled episode is of the split 'c'; there are a, b"):
        detect(rows, calibration_split="c")


def test_an_episode_without_a_score_counts_as_told_wrongly() -> None:
    run, _ = run_of({"gvl": Answers(fails=("e2", "e3"))}, Plan(("gvl",)), episodes(16))
    rows = [r for e in run.episodes for r in e.rows if (r.estimator, r.control) == ("gvl", "real")]
    success = detect(rows, calibration_split="a")
    assert success is not None
    assert (success.undefined, success.tested_on) == (2, 8)
    rest = [r for r in rows if r.split == "b" and r.episode_id not in ("e2", "e3")]
    assert success.accuracy == sum((r.voc >= success.threshold) == r.success for r in rest) / 8
    assert detect([]) is None


# -- what metrics adds ---------------------------------------------------------------------------------


def test_roc_auc_and_threshold() -> None:
    assert roc_auc([3, 1, 2, 2], [True, False, True, False]) == pytest.approx(3.5 / 4)
    assert roc_auc([3, float("nan"), 1], [True, True, False]) == 1.0
    assert np.isnan(roc_auc([1, 2], [True, True]))
    assert best_threshold([1, 2, 8, 9], [False, False, True, True]) == 5
    assert best_threshold([1, 2, 3], [True, True, False]) <= 1  # all called successes: two of three
    assert best_threshold([3, 2, 1], [False, False, True]) > 3  # none
    assert np.isnan(best_threshold([1, 2], [False, False]))
    with pytest.raises(ValueError, match="shape"):
        roc_auc([1, 2], [True])


def test_reliability_of_a_perfect_and_a_sure_but_wrong_one() -> None:
    right = reliability([0.0, 1.0, 1.0], [False, True, True])
    assert (right.ece, right.brier, right.counts.tolist()) == (0, 0, [1, *[0] * 8, 2])
    wrong = reliability([1.0, 1.0], [False, True], bins=4)
    assert (wrong.ece, wrong.brier) == (0.5, 0.5)
    assert np.isnan(wrong.succeeded[0])
    assert np.isnan(reliability([float("nan")], [True]).ece)
    with pytest.raises(ValueError, match="want 0 to 1"):
        reliability([1.5], [True])


def test_slope_and_difference() -> None:
    assert slope([1, 3, 5], [0, 0.5, 1]) == pytest.approx(4)
    assert slope([2, 2], [0, 1]) == 0
    assert np.isnan(slope([1], [1]))
    assert np.isnan(slope([1, float("nan")], [0, 1]))
    found = bootstrap_difference([3, 4, 5], [1, float("nan"), 2])
    assert (found.mean, found.count, found.undefined) == (2.5, 5, 1)
    assert 1 <= found.low < 2.5 < found.high <= 4
    assert np.isnan(bootstrap_difference([1], []).mean)


def test_summaries_do_not_depend_on_the_order_of_results() -> None:
    run, summaries = run_of({"topreward": Bright()}, Plan(("topreward",)), episodes(5))
    with Folder() as folder:
        first = results_dict(folder, run, summaries)["estimators"]
    run.done = dict(reversed(list(run.done.items())))
    with Folder() as folder:
        assert results_dict(folder, run, summarise(run.episodes, Plan(("topreward",))))["estimators"] == first
