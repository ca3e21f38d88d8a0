"""Measure the demo checkpoint on episodes that it has not seen, and write the numbers with how they were made.

    python scripts/eval_demo_model.py                              # topreward/demo/measures.json
    python scripts/eval_demo_model.py --episodes 60 --out m.json --model some/folder

A demonstration trained on its own world: no evidence about the method.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from numpy.typing import NDArray

from topreward import voc
from topreward.config import load_protocol
from topreward.demo.episodes import demo_episodes, rollout_of
from topreward.demo.world import KINDS, TASKS
from topreward.estimators.gvl import GVL
from topreward.estimators.gvl.protocol import load_gvl_protocol
from topreward.estimators.topreward import TOPReward
from topreward.files import write_atomically
from topreward.jobs.controls import backwards, frozen
from topreward.metrics import bootstrap_mean, roc_auc
from topreward.provenance import software
from topreward.types import Curve, Episode

Numbers = NDArray[np.float64]
PROTOCOL, GVL_PROTOCOL = "demo", "gvl-demo"
MEASURES = Path(__file__).parent.parent / "topreward" / "demo" / "measures.json"


def errors(curve: Curve, episode: Episode) -> Numbers:
    """(K,) |exp(log p(True)) - true progress| at each prefix's end."""
    assert episode.progress is not None
    return np.abs(np.exp(curve.values) - episode.progress[curve.prefix_lengths - 1])


def slope(curve: Curve) -> float:
    """Change of exp(log p(True)) over the clip, of the straight line through the values; NaN with one value."""
    if len(curve) < 2:
        return float("nan")
    per_second = np.polyfit(curve.times, np.exp(curve.values), 1)[0]
    return float(per_second * (curve.times[-1] - curve.times[0]))


def spread(values: list[float]) -> dict[str, float | None]:
    """Mean of the defined values (None where there are none), and how many were undefined."""
    array = np.array(values)
    undefined = int(np.isnan(array).sum())
    mean = float(np.nanmean(array)) if undefined < array.size else None
    return {"mean": mean, "count": int(array.size), "undefined": undefined}


def measure_topreward(model: TOPReward, episodes: list[Episode]) -> dict[str, Any]:
    """Everything that is read from log p(True)."""
    protocol = load_protocol(PROTOCOL)
    curves = [model.score(e.clip(), e.instruction, protocol=protocol) for e in episodes]
    slips = [errors(c, e) for c, e in zip(curves, episodes, strict=True)]
    finals = np.array([np.exp(c.values[-1]) for c in curves])
    done = np.array([bool(e.success) for e in episodes])
    successes = [e for e in episodes if e.success]
    still = np.array([slope(model.score(frozen(e.clip()), e.instruction, protocol=protocol)) for e in episodes])
    turned = [voc(model.score(backwards(e.clip()), e.instruction, protocol=protocol).values) for e in successes]

    def over(key: str, name: str) -> float:
        chosen = [s for s, e in zip(slips, episodes, strict=True) if e.extra[key] == name]
        return float(np.concatenate(chosen).mean()) if chosen else float("nan")

    return {
        "error": {
            "mean": float(np.concatenate(slips).mean()),
            "prefixes": int(sum(s.size for s in slips)),
            "by_task": {task: over("task", task) for task in TASKS},
            "by_kind": {kind: over("kind", kind) for kind in KINDS},
        },
        "voc_successes": spread([voc(c.values) for c, e in zip(curves, episodes, strict=True) if e.success]),
        "voc_of_true_progress": spread([voc(_truth(c, e)) for c, e in zip(curves, episodes, strict=True) if e.success]),
        "frozen": {
            "mean_abs_slope": float(np.nanmean(np.abs(still))),
            "mean_slope": float(np.nanmean(still)),
            "largest_abs_slope": float(np.nanmax(np.abs(still))),
            "share_within_0.05": float((np.abs(still[~np.isnan(still)]) <= 0.05).mean()),
            "count": int(still.size),
        },
        "voc_reversed": spread(turned),
        "wrong_instruction": wrong_instruction(model, successes),
        "success_auc": roc_auc(finals, done),
    }


def measure_voc(model: TOPReward, episodes: list[Episode]) -> dict[str, Any]:
    """VOC over successes alone, many of them: over a sixth of all episodes its mean is uncertain by .01 and more."""
    curves = [model.score(e.clip(), e.instruction, protocol=PROTOCOL) for e in episodes]
    vocs = [voc(curve.values) for curve in curves]
    interval = bootstrap_mean(vocs)
    by_task = {
        task: spread([v for v, e in zip(vocs, episodes, strict=True) if e.extra["task"] == task])["mean"]
        for task in TASKS
    }
    truth = spread([voc(_truth(c, e)) for c, e in zip(curves, episodes, strict=True)])
    return {**spread(vocs), "low": interval.low, "high": interval.high, "by_task": by_task, "of_true_progress": truth}


def _truth(curve: Curve, episode: Episode) -> Numbers:
    assert episode.progress is not None
    return episode.progress[curve.prefix_lengths - 1]


def wrong_instruction(model: TOPReward, successes: list[Episode]) -> dict[str, float]:
    """Each success asked about its own task and about each of the other five: whose final value is higher?

    A thing that nobody works on may be found at any stage, also done (cups that stand on each other from the
    start): an instruction that is true already is not wrong, and is counted apart.
    """
    below, true_already = [], []
    for episode in successes:
        others = [name for name in TASKS if name != episode.extra["task"]]
        texts = [episode.instruction, *(TASKS[name].instruction for name in others)]
        own, *rest = model.score(episode.clip(), texts, protocol=PROTOCOL)
        truth = rollout_of(episode).progress
        below += [other.values[-1] < own.values[-1] for other in rest]
        true_already += [truth[name][-1] > 0.9 for name in others]
    share, skip = np.array(below, dtype=np.float64), np.array(true_already)
    return {
        "share_below": float(share[~skip].mean()),
        "pairs": int((~skip).sum()),
        "true_already": int(skip.sum()),
        "share_below_of_all": float(share.mean()),
    }


def measure_gvl(model: GVL, episodes: list[Episode]) -> dict[str, Any]:
    """Whether its answers parse, and how good they are; a failure is counted, never dropped."""
    curves = list(model.score_many(episodes, protocol=load_gvl_protocol(GVL_PROTOCOL)))
    parsed = [not np.isnan(c.values).any() for c in curves]
    pairs = list(zip(curves, episodes, parsed, strict=True))
    wrong = [np.abs(c.values / 100 - _truth(c, e)) for c, e, fine in pairs if fine]
    return {
        "parsed": float(np.mean(parsed)),
        "episodes": len(parsed),
        "error": float(np.concatenate(wrong).mean()) if wrong else None,
        "voc_successes": spread([voc(c.values) for c, e, _ in pairs if e.success]),
    }


def main(model: str = "demo", episodes: int = 300, seed: int = 90_210, out: Path = MEASURES) -> None:
    """Measure and write.

    Args:
        model: "demo" or a checkpoint's folder.
        episodes: how many, of all six tasks and kinds alike.
        seed: of the episodes; training draws its own elsewhere.
        out: the JSON file.
    """
    torch.set_num_threads(1)  # matrices this small are faster without a second one to wait for
    drawn = demo_episodes(episodes, seed=seed)
    estimator = TOPReward.from_pretrained(model, device="cpu")
    measures = {
        "what": "A demonstration trained on its own world: no evidence about the method.",
        "command": f"python scripts/eval_demo_model.py --episodes {episodes} --seed {seed}",
        "model": estimator.model.provenance["model"] if model == "demo" else Path(model).name,
        "topreward": measure_topreward(estimator, drawn),
        "voc_of_many_successes": measure_voc(estimator, demo_episodes(episodes, seed=seed, kinds=["success"])),
        "gvl": measure_gvl(GVL.sharing(estimator), drawn),
        "protocols": {
            "topreward": load_protocol(PROTOCOL).model_dump(),
            "gvl": load_gvl_protocol(GVL_PROTOCOL).model_dump(),
        },
        "software": software(),
    }
    write_atomically(out, json.dumps(measures, indent=1, allow_nan=False) + "\n")
    print(json.dumps({key: measures[key] for key in ("topreward", "voc_of_many_successes", "gvl")}, indent=1))


if __name__ == "__main__":
    tyro.cli(main)
