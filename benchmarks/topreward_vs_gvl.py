"""TOPReward and GVL on the same model and the same episodes: quality beside cost.

    python benchmarks/topreward_vs_gvl.py --json benchmarks/results/topreward_vs_gvl.json
    python benchmarks/topreward_vs_gvl.py --model qwen3-vl --dataset lerobot:<folder or hub id> --subset 20

Both run in one process, each episode decoded once for both, with all controls. What they cost is measured after that,
on the first episodes again (`--cost-episodes`), without controls: seconds of one video after the other, without
decoding, and the tokens of the same work; medians over episodes. `table` makes the README's table from the JSON.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from topreward.evaluation import Folder, Plan, evaluate, summarise
from topreward.evaluation.results import results_dict
from topreward.evaluation.rows import EpisodeRows
from topreward.evaluation.suite import LoadOnce
from topreward.files import write_atomically
from topreward.jobs.inputs import Inputs
from topreward.jobs.plan import REAL
from topreward.report.tables import show_results

ESTIMATORS = ("topreward", "log_odds", "debiased", "gvl")
NAMES = {
    "topreward": "TOPReward, log p(True)",
    "log_odds": "TOPReward, log-odds",
    "debiased": "TOPReward, debiased",
    "gvl": "GVL",
    "time_index": "time index (a clock)",
}


MARKS = {"none": " **(!)**", "undecided": " **(?)**"}


def measure(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """The evaluation's results, and what each episode cost."""
    from common import machine
    from topreward.cli.eval import EvalOptions
    from topreward.cli.options import ModelOptions, ProtocolOptions

    chosen = EvalOptions(
        dataset=options.dataset,
        model=ModelOptions(model=options.model, device=options.device),
        protocol=ProtocolOptions(protocol=options.protocol),
        gvl_protocol=options.gvl_protocol,
    )
    plan = Plan(ESTIMATORS)
    setup = chosen.setup(plan)
    scorers = LoadOnce(setup)
    inputs = Inputs(dataset=options.dataset, subset=options.subset)
    with Folder(options.output) as folder:
        settings = {**setup.settings(), "dataset": inputs.settings()}
        run = evaluate(scorers, inputs, plan, folder, settings=settings)
        summaries = summarise(run.episodes, plan)
        show_results(console, run, summaries)
        results = results_dict(folder, run, summaries)
    with Folder() as unkept:
        alone = Plan(plan.bases, controls=False)
        timed = evaluate(scorers, lambda: inputs()[: options.cost_episodes], alone, unkept)
    return {
        "model": options.model,
        "dataset": options.dataset,
        "episodes": results["episodes_done"],
        "errors": results["episodes_failed"],
        "estimators": results["estimators"],
        "per_episode": {base: per_episode(timed.episodes, base) for base in plan.bases},
        "cost_episodes": len(timed.episodes),
        "provenance": results["provenance"],
        "machine": machine(),
    }


def per_episode(episodes: list[EpisodeRows], base: str) -> dict[str, float | None]:
    """Medians over episodes: seconds and tokens of the real video's own curve. None where no episode has one."""
    rows = [r for e in episodes for r in e.rows if (r.estimator, r.control) == (base, REAL) and r.error is None]
    if not rows:
        return {"seconds": None, "tokens": None}
    tokens = float(np.median([row.tokens for row in rows]))
    return {"seconds": float(np.median([row.seconds for row in rows])), "tokens": tokens}


def table(report: dict[str, Any]) -> str:
    """A markdown table of a report: a line per estimator."""
    head = ["estimator", "VOC, 95 % interval", "frozen video's VOC", "reversed", "answers failed", "ROC-AUC"]
    lines = [f"| {' | '.join([*head, 's per episode', 'tokens'])} |", "|---|" + "---:|" * 7]
    for name, found in report["estimators"].items():
        trends, cost = found["trends"], report["per_episode"].get(name)
        real, frozen = trends["real"], trends.get("frozen")
        mark = MARKS.get(found["evidence"], "")
        rate = real["failure_rate"]
        cells = [
            NAMES.get(name, name) + mark,
            _interval(real["voc"]),
            _frozen(frozen),
            _number((trends.get("reversed") or {}).get("voc", {}).get("mean")),
            f"{100 * rate:.0f} %" if name == "gvl" and rate is not None else "",
            _number((found["success"] or {}).get("roc_auc")),
            _cost(cost, "seconds", ".2g"),
            _cost(cost, "tokens", ".0f"),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    gvl = report["estimators"].get("gvl")
    if gvl and gvl["trends"]["real"]["failures"]:
        lines += [
            "",
            f"GVL's VOC with its failed answers as 0: {_interval(gvl['trends']['real']['voc_failures_as_zero'])}.",
        ]
    machine = report["machine"]
    lines += [
        "",
        f"{report['episodes']} episodes of `{report['dataset']}`, model `{report['model']}`, "
        f"{machine['threads']} thread(s) of {machine['cpu']}, torch {machine['torch']}, "
        f"transformers {machine['transformers']}; s and tokens: medians over {report['cost_episodes']} of them, "
        "each video alone, without decoding.",
    ]
    evidence = {found["evidence"] for found in report["estimators"].values()}
    if "none" in evidence:
        lines.append("(!): the real VOC is not above 0, or the frozen video's reaches it; this VOC is no evidence.")
    if "undecided" in evidence:
        lines.append("(?): too few VOCs are defined to tell.")
    return "\n".join(lines)


def _frozen(found: dict[str, Any] | None) -> str:
    """The frozen video's VOC and of how many curves; `flat` only where every curve that was made is."""
    if found is None:
        return "–"
    count, made = found["voc"]["count"], found["episodes"] - found["errors"]
    if made and found["constant"] == made:
        return "flat"
    if not count:
        return f"– ({found['constant']} flat, {found['failures']} failed)"
    return _interval(found["voc"]) + (f" ({count} of {found['episodes']})" if count < found["episodes"] else "")


def _cost(cost: dict[str, Any] | None, name: str, form: str) -> str:
    if cost is None:
        return ""
    return "–" if cost[name] is None else format(cost[name], form)


def _interval(found: dict[str, Any] | None) -> str:
    if not found or found["mean"] is None:
        return "–"
    if found["low"] is None:
        return _number(found["mean"])
    return f"{found['mean']:.3f} [{found['low']:.2f}, {found['high']:.2f}]"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--model", default="demo")
    parser.add_argument("--dataset", default="demo:?count=60&seed=1000")
    parser.add_argument("--subset", type=int)
    parser.add_argument("--protocol", default="auto")
    parser.add_argument("--gvl-protocol", default="auto")
    parser.add_argument("--device")
    parser.add_argument("--output", type=Path, help="keep the run's folder, and go on in it")
    parser.add_argument("--cost-episodes", type=int, default=20, help="how many are timed, after all were scored")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    console = Console()
    report = measure(options, console)
    console.print(table(report), markup=False, highlight=False, soft_wrap=True)
    if options.json:
        write_atomically(options.json, json.dumps(report, indent=1, allow_nan=False) + "\n")


if __name__ == "__main__":
    main()
