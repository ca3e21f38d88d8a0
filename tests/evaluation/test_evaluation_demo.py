"""On the demo checkpoint the controls come out as they must."""

from __future__ import annotations

import pytest

from topreward.config import load_protocol
from topreward.datasets import open_dataset
from topreward.demo import checkpoint_folder
from topreward.estimators.topreward import TOPReward
from topreward.evaluation import Folder, Plan, Summary, evaluate, summarise
from topreward.jobs.scorers import TOPRewardScorer

pytestmark = pytest.mark.skipif(
    not (checkpoint_folder() / "model.safetensors").exists(), reason="the demo checkpoint is not in this checkout"
)


@pytest.fixture(scope="module")
def summaries() -> dict[str, Summary]:
    """Of twelve episodes that succeed, from a seed that no one was taught."""
    model = TOPReward.from_pretrained("demo", device="cpu")
    scorer = TOPRewardScorer(model, load_protocol("demo"))
    dataset = open_dataset("demo:?count=12&seed=4242&kinds=success")
    plan = Plan(("topreward", "log_odds", "debiased"))
    with Folder() as folder:
        run = evaluate(lambda worker, workers: {"topreward": scorer}, lambda: dataset, plan, folder)
    assert run.failed == 0
    return {summary.estimator: summary for summary in summarise(run.episodes, plan)}


@pytest.mark.parametrize("estimator", ["topreward", "log_odds"])
def test_real_rises_reversed_falls_frozen_stays(summaries: dict[str, Summary], estimator: str) -> None:
    summary = summaries[estimator]
    real, frozen, reverse = (summary.trends[c] for c in ("real", "frozen", "reversed"))
    assert real.voc.mean > 0.8
    assert reverse.voc.mean < -0.8
    assert abs(frozen.slope.mean) < 0.05 * real.slope.mean
    assert summary.evidence == "yes"
    assert summary.sentence == ""


def test_another_instruction_rises_less(summaries: dict[str, Summary]) -> None:
    trends = summaries["topreward"].trends
    assert trends["other_instruction"].slope.mean < 0.5 * trends["real"].slope.mean


def test_it_comes_closer_to_the_truth_than_a_clock(summaries: dict[str, Summary]) -> None:
    read, clock = summaries["topreward"].truth, summaries["time_index"].truth
    assert read is not None
    assert clock is not None
    assert read.mae.high < clock.mae.low
