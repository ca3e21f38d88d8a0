"""The table of TOPReward beside GVL says what failed, also where everything did."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from scorers import Answers, Bright, Load, episodes
from topreward.evaluation import Folder, Plan, evaluate, summarise
from topreward.evaluation.results import results_dict
from topreward.jobs.scorers import GVLScorer
from topreward.types import Clip, Curve, Episode
from topreward_vs_gvl import ESTIMATORS, measure, per_episode, table

MACHINE = {"threads": 1, "cpu": "a CPU", "torch": "2", "transformers": "5"}


class Frozen(Answers):
    """Answers everything, but of the frozen videos only the first one, and all of them with one number."""

    def score(self, clip: Clip, instructions: Any, *, episode_id: str) -> list[Curve]:
        curves = super().score(clip, instructions, episode_id=episode_id)
        if "frozen" not in clip.source or episode_id == "e0":
            return curves
        made = {"failure": {"kind": "refusal", "reason": "no"}, "model": "none"}
        return [c.with_values(np.full(len(c), np.nan), "percent", provenance=made) for c in curves]


class Dead(Answers):
    def score(self, clip: Clip, instructions: Any, *, episode_id: str) -> list[Curve]:
        raise RuntimeError("no memory")


def report_of(gvl: Any, listed: list[Episode]) -> dict[str, Any]:
    plan = Plan(ESTIMATORS)
    with Folder() as folder:
        run = evaluate(Load({"topreward": Bright(), "gvl": gvl}), lambda: listed, plan, folder)
        results = results_dict(folder, run, summarise(run.episodes, plan))
    cost = {base: per_episode(run.episodes, base) for base in plan.bases}
    known = {"dataset": "d", "model": "m", "episodes": len(listed), "machine": MACHINE}
    report = {**known, "estimators": results["estimators"], "per_episode": cost, "cost_episodes": len(listed)}
    loaded: dict[str, Any] = json.loads(json.dumps(report, allow_nan=False))
    return loaded


def row(text: str, name: str) -> list[str]:
    line = next(line for line in text.splitlines() if line.startswith(f"| {name}"))
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_one_constant_and_nineteen_failed_curves_are_not_flat() -> None:
    text = table(report_of(Frozen(), episodes(20)))
    assert row(text, "GVL")[0] == "GVL **(?)**"
    assert row(text, "GVL")[2] == "– (1 flat, 19 failed)"
    assert row(text, "TOPReward, log p(True)")[2] == "flat"
    assert "(?): too few VOCs are defined to tell." in text


def test_curves_that_are_all_flat_are_flat() -> None:
    assert row(table(report_of(Answers(), episodes(4))), "GVL")[2] == "flat"


def test_costs_are_of_each_video_alone(dense_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    real = GVLScorer.score_together

    def spied(self: GVLScorer, shown: Any, *, episode_id: str) -> Any:
        asked.append(sum(len(texts) for _, texts in shown))
        return real(self, shown, episode_id=episode_id)

    monkeypatch.setattr(GVLScorer, "score_together", spied)
    chosen = {"model": str(dense_folder), "device": "cpu", "dataset": "demo:?count=3&size=96", "subset": None}
    chosen |= {"protocol": "demo", "gvl_protocol": "gvl-demo", "output": None, "cost_episodes": 2}
    report = measure(argparse.Namespace(**chosen), Console(quiet=True))
    assert asked == [4, 4, 4, 1, 1]
    assert (report["episodes"], report["cost_episodes"]) == (3, 2)
    assert all(report["per_episode"][base]["seconds"] > 0 for base in ("topreward", "gvl"))


def test_a_method_that_never_ran_has_no_cost() -> None:
    report = report_of(Dead(), episodes(3))
    assert report["per_episode"]["gvl"] == {"seconds": None, "tokens": None}
    assert row(table(report), "GVL")[-2:] == ["–", "–"]
