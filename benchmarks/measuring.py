"""What is measured of a model on a device, workload by workload.

In go a model and a workload's name; out come its figures as JSON has them. Figures that are there go to `keep` at
once, so that a run cut short leaves them.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

import delta_rule
import flops
from architectures import make
from common import First, first, interleaved, median, timed
from exactness import against_kernels, against_slow_twin
from jobs import JOBS, SHORT, TASKS, Job
from rates import Labelling, labelling_rate, packed_rate
from topreward.estimators.topreward import TOPReward
from topreward.qwen.model import QwenVL
from ways import Workload

Keep = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class Run:
    """What all workloads of one run share."""

    device: str
    rate: float
    """Of a large matrix product, operations/s."""
    repeats: int
    least: int
    """Fewest repeats, whatever they take."""
    budget: float
    """Most seconds to spend on the repeats of one workload, unless the fewest take longer."""
    quick: bool
    labelling: Labelling
    patch_embed: Callable[[QwenVL], str]
    """Sets up a model's patch embedding."""

    @property
    def often(self) -> dict[str, Any]:
        return {"repeats": self.repeats, "least": self.least, "budget": self.budget}

    def job(self, job: Job) -> Job:
        return job.smaller() if self.quick else job


def measure(model: QwenVL, name: str, run: Run, keep: Keep) -> dict[str, Any]:
    """One workload, by its name."""
    if name in JOBS:
        return time_ways(model, name, run.job(JOBS[name]), run, keep)
    return {"exactness": exactness, "short-clips": short_clips, "label": label, "delta-rule": linear_layer}[name](
        model, run
    )


def warm_up(model: QwenVL, run: Run) -> None:
    """A short clip, so that no workload pays for the libraries' start."""
    work = Workload(model, run.job(SHORT).clip(), TASKS[:1], SHORT.protocol)
    work.floor()
    work.ours()


def time_ways(model: QwenVL, name: str, job: Job, run: Run, keep: Keep) -> dict[str, Any]:
    """One clip in all its ways. The first call of each gives its value and its memory, a second one is its warm-up
    (libraries plan for every new shape), those after it are the time.

    A way that fails is left out and named in `failed`; without floor and ours there is nothing to compare.
    """
    work = Workload(model, job.clip(), TASKS[: job.instructions], job.protocol)
    ways, need = _ways(model, work, job)
    _announce(name, job, work, need, run.rate)
    firsts, failed = _first_calls(ways, run.device)
    ways = {way: ways[way] for way in firsts}
    result = _of_first_calls(name, job, work, need, firsts) | {"failed": failed}
    keep(result)
    again = {way: call for way, call in ways.items() if way not in job.once}
    seconds = interleaved(again, **run.often)
    seconds |= {way: [timed(ways[way])] for way in ways if way in job.once}
    times = {way: median(seconds[way]) for way in ways}
    result |= {
        "seconds": seconds,
        "median": times,
        "over_floor": {way: t / times["floor"] for way, t in times.items()},
        "over_ours": {way: t / times["ours"] for way, t in times.items()},
        "share_of_matrix_rate": {way: need[way].total / t / run.rate for way, t in times.items()},
    }
    _show(result)
    return result


def _ways(model: QwenVL, work: Workload, job: Job) -> tuple[dict[str, Callable[[], Any]], dict[str, flops.Flops]]:
    """Each way's call, and its arithmetic."""
    estimator, tasks, config = TOPReward(model), TASKS[: job.instructions], model.model.config
    ways: dict[str, Callable[[], Any]] = {way: getattr(work, way) for way in job.ways if hasattr(work, way)}
    ways["score"] = lambda: estimator.score(work.held, tasks, protocol=job.protocol)
    ours = flops.of_layout(config, work.layout)
    need = {"floor": flops.of_layout(config, work.layout_of_floor()), "ours": ours, "score": ours}
    if "append" in ways:
        need["append"] = ours  # the same tokens see the same tokens, in another order
    if "recompute" in ways:
        assert job.instructions == 1
        need["alone"] = need["recompute"] = flops.of_layouts(config, work.layouts_alone())
    if "one-by-one" in job.ways:
        each = [Workload(model, work.held, [task], job.protocol) for task in tasks]
        ways["one-by-one"] = lambda: np.concatenate([one.ours() for one in each], axis=1)
        need["one-by-one"] = flops.of_layouts(config, [one.layout for one in each])
    return ways, need


def _first_calls(ways: dict[str, Callable[[], Any]], device: str) -> tuple[dict[str, First], dict[str, str]]:
    """What each gave, and the tracebacks of those that failed."""
    firsts, failed = {}, {}
    for way, call in ways.items():
        try:
            firsts[way] = first(call, device)
        except Exception:
            if way in ("floor", "ours"):
                raise
            failed[way] = traceback.format_exc()
            print(f"  {way} failed:\n{failed[way]}", file=sys.stderr, flush=True)
    return firsts, failed


def _of_first_calls(
    name: str, job: Job, work: Workload, need: dict[str, flops.Flops], firsts: dict[str, First]
) -> dict[str, Any]:
    ours = firsts["ours"].value
    compared = [way for way in firsts if way not in ("floor", "ours", "score")]
    return {
        "workload": name,
        "frames": job.frames,
        "resized": list(work.call.size),
        "sampled": int(work.schedule.indices.size),
        "prefixes": len(work.schedule.prefix_lengths),
        "distinct": len(work.counts),
        "odd": len(work.layout.odd_counts),
        "instructions": job.instructions,
        "trunk_tokens": len(work.layout.trunk),
        "branch_tokens": len(work.layout.branch),
        "flops": {way: asdict(f) | {"total": f.total} for way, f in need.items()},
        "largest_difference": {way: float(np.abs(firsts[way].value - ours).max()) for way in compared},
        "peak_bytes": {way: f.peak_bytes for way, f in firsts.items()},
        "prepared_bytes": work.patches.nbytes + work.odd_patches.nbytes,  # there before all ways but score
        "first_seconds": {way: f.seconds for way, f in firsts.items()},
    }


def _announce(name: str, job: Job, work: Workload, need: dict[str, flops.Flops], rate: float) -> None:
    floor, ours = need["floor"].total, need["ours"].total
    print(
        f"\n{name}: {job.frames} frames, {len(work.counts)} prefixes ({len(work.layout.odd_counts)} odd), "
        f"{len(work.layout.trunk)} + {len(work.layout.branch)} tokens; arithmetic of one forward "
        f"{floor / 1e12:.3g} TFLOP = {floor / rate * 1e3:.3g} ms, of ours {ours / 1e12:.3g} TFLOP = "
        f"{ours / rate * 1e3:.3g} ms",
        flush=True,
    )


def _show(result: dict[str, Any]) -> None:
    for way, t in result["median"].items():
        difference, peak = result["largest_difference"].get(way), result["peak_bytes"][way]
        print(
            f"  {way:<11}{t * 1e3:>10.1f} ms {result['over_floor'][way]:>7.2f} x floor "
            f"{result['over_ours'][way]:>7.2f} x ours  {result['share_of_matrix_rate'][way]:>6.1%} of the matrix rate"
            + (f"  {peak / 2**20:>8.0f} MiB" if peak is not None else "")
            + (f"  |diff| {difference:.1e} nats" if difference is not None else ""),
            flush=True,
        )


def exactness(model: QwenVL, run: Run) -> dict[str, Any]:
    """In fp32 on the small architecture, and in this dtype on this one."""
    small = make("small", device=run.device, dtype=torch.float32)
    run.patch_embed(small)
    job = run.job(JOBS["paper"])
    clips = [job.clip(seed) for seed in range(2 if run.quick else 8)]
    return {
        "fp32_small": against_slow_twin(small, clips[:3], TASKS[:1]),
        "this_dtype": against_kernels(model, clips, TASKS[:1], job.protocol),
    }


def short_clips(model: QwenVL, run: Run) -> dict[str, Any]:
    """Many clips of 3 s, one by one and packed."""
    job = run.job(SHORT)
    clips = [job.clip(seed) for seed in range(8 if run.quick else 64)]
    return packed_rate(TOPReward(model), clips, TASKS[0], job.protocol, **run.often)


def linear_layer(model: QwenVL, run: Run) -> dict[str, Any]:
    """One linear layer of Qwen3.5-9B over the paper's clip, with each rule that is installed."""
    job = run.job(JOBS["paper"])
    layout = Workload(model, job.clip(), TASKS[:1], job.protocol).layout
    dtype = next(model.text.parameters()).dtype
    return delta_rule.measure(layout, device=run.device, dtype=dtype, small=run.quick, **run.often)


def label(model: QwenVL, run: Run) -> dict[str, Any]:
    """From video files to a parquet file."""
    job = run.job(JOBS["paper"])
    return labelling_rate(TOPReward(model), job.clip(smooth=True), TASKS[0], job.protocol, run.labelling)
