"""The real architectures on a GPU, with random weights made on it: how near to the floor, and how exact.

    python3 benchmarks/gpu.py --arch qwen3-vl-8b --json benchmarks/results/gpu.json
    python3 benchmarks/gpu.py --device cpu --arch small --quick      the whole script in a few minutes, without a GPU

Nothing is downloaded. For every workload it prints the arithmetic floor first (operations of vision, trunk and
branches over the rate of a large matrix product, measured in the same run), then times, in turn: `floor`, `ours`,
`append`, `alone`, `recompute` (benchmarks/ways.py) from prepared patches on the device, and `score`: the public call,
from frames in the host's memory to Curves. Then: how far from the slow twin, packed short clips, quantized weights,
and from video files to parquet. Ratios are of medians; one run holds all that a ratio needs.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # runs where topreward is not installed

import numpy as np
import torch
from numpy.typing import NDArray

import flops
from architectures import ARCHITECTURES, make, quantize
from common import gpu, interleaved, machine, median, peak_memory
from exactness import against_kernels, against_slow_twin
from topreward.config import Protocol, load_protocol
from topreward.estimators.topreward import TOPReward
from topreward.files import write_atomically
from topreward.qwen.model import QwenVL
from topreward.types import Clip
from ways import Workload

TASKS = ["pick up the cup", "open the drawer", "close the drawer", "put the cup on the plate",
         "push the block", "lift the lid", "fold the towel", "wipe the table"]  # fmt: skip


@dataclass(frozen=True)
class Job:
    """One clip, one protocol, and the ways to time."""

    frames: int
    """Raw frames, at 30 frames/s."""
    protocol: Protocol
    height: int = 256
    width: int = 256
    instructions: int = 1
    ways: tuple[str, ...] = ("floor", "ours", "score", "append", "alone", "recompute")

    def clip(self, seed: int = 0) -> Clip:
        """Noise that moves sideways, drawn when asked for."""
        base = np.random.default_rng(seed).integers(0, 256, (self.height, self.width, 3), dtype=np.uint8)

        def decode(indices: NDArray[np.int64]) -> NDArray[np.uint8]:
            return np.stack([np.roll(base, 3 * int(i), axis=1) for i in indices])

        return Clip(np.arange(self.frames) / 30.0, 30.0, self.height, self.width, decode, source="noise")

    def smaller(self) -> Job:
        """For a run that only shows that all works."""
        protocol = load_protocol(self.protocol, frame_pixels=min(self.protocol.frame_pixels, 128 * 96))
        return replace(self, frames=min(max(self.frames // 6, 90), 1200), height=96, width=128, protocol=protocol)


NATIVE = load_protocol("dense", frame_pixels=480 * 640)
LONG = ("floor", "ours", "score", "append", "alone")
JOBS: dict[str, Job] = {
    "paper": Job(984, load_protocol("paper")),
    "patches": Job(984, load_protocol("dense")),
    "every-patch": Job(984, load_protocol("dense", num_prefixes=0)),
    "native": Job(984, NATIVE, 480, 640),
    "90s": Job(2700, load_protocol("dense")),
    "10min": Job(18_000, load_protocol("dense"), ways=LONG),
    "8-instructions": Job(984, load_protocol("dense"), instructions=8, ways=("floor", "ours", "score", "one-by-one")),
}
SHORT = Job(90, load_protocol("dense"))
OTHERS = ("exactness", "short-clips", "label")


@dataclass(frozen=True)
class Run:
    """What all workloads of one run share."""

    device: str
    rate: float
    """Of a large matrix product, operations/s."""
    repeats: int
    budget: float
    """Most seconds to spend on the repeats of one workload."""
    quick: bool

    def job(self, job: Job) -> Job:
        return job.smaller() if self.quick else job


def time_ways(model: QwenVL, name: str, job: Job, run: Run) -> dict[str, Any]:
    """One workload in all its ways."""
    work = Workload(model, job.clip(), TASKS[: job.instructions], job.protocol)
    estimator = TOPReward(model)
    ways: dict[str, Callable[[], Any]] = {way: getattr(work, way) for way in job.ways if hasattr(work, way)}
    tasks = TASKS[: job.instructions]
    ways["score"] = lambda: estimator.score(work.held, tasks, protocol=job.protocol)
    if "one-by-one" in job.ways:
        each = [Workload(model, work.held, [task], job.protocol) for task in tasks]
        ways["one-by-one"] = lambda: np.concatenate([one.ours() for one in each], axis=1)
    need = {
        "floor": flops.of_layout(model.model.config, work.layout_of_floor()),
        "ours": flops.of_layout(model.model.config, work.layout),
    }
    print(
        f"\n{name}: {job.frames} frames, {len(work.counts)} prefixes ({len(work.layout.odd_counts)} odd), "
        f"{len(work.layout.trunk)} + {len(work.layout.branch)} tokens; arithmetic of one forward "
        f"{need['floor'].total / 1e12:.3g} TFLOP = {need['floor'].total / run.rate * 1e3:.3g} ms, of ours "
        f"{need['ours'].total / 1e12:.3g} TFLOP = {need['ours'].total / run.rate * 1e3:.3g} ms",
        flush=True,
    )
    seconds = interleaved(ways, run.repeats, budget=run.budget)
    times = {way: median(s) for way, s in seconds.items()}
    ours = work.ours()
    compared = [way for way in ("append", "alone", "recompute", "one-by-one") if way in ways]
    result: dict[str, Any] = {
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
        "seconds": seconds,
        "median": times,
        "over_floor": {way: t / times["floor"] for way, t in times.items()},
        "over_ours": {way: t / times["ours"] for way, t in times.items()},
        "share_of_matrix_rate": {
            "floor": need["floor"].total / times["floor"] / run.rate,
            "ours": need["ours"].total / times["ours"] / run.rate,
            "score": need["ours"].total / times["score"] / run.rate,
        },
        "largest_difference": {way: float(np.abs(ways[way]() - ours).max()) for way in compared},
        "peak_bytes": {way: peak_memory(ways[way], run.device) for way in ("floor", "ours", "score", *compared)},
    }
    for way, t in times.items():
        share = result["share_of_matrix_rate"].get(way)
        difference, peak = result["largest_difference"].get(way), result["peak_bytes"].get(way)
        print(
            f"  {way:<11}{t * 1e3:>10.1f} ms {t / times['floor']:>7.2f} x floor {t / times['ours']:>7.2f} x ours"
            + (f"  {share:>6.1%} of the matrix rate" if share is not None else " " * 28)
            + (f"  {peak / 2**20:>8.0f} MiB" if peak is not None else "")
            + (f"  |diff| {difference:.1e} nats" if difference is not None else ""),
            flush=True,
        )
    return result


def others(model: QwenVL, names: list[str], run: Run) -> dict[str, Any]:
    """What is not one clip in several ways."""
    from rates import labelling_rate, packed_rate

    found: dict[str, Any] = {}
    estimator, short, clip = TOPReward(model), run.job(SHORT), run.job(JOBS["paper"])
    if "exactness" in names:
        small = make("small", device=run.device, dtype=torch.float32)
        clips = [run.job(JOBS["paper"]).clip(seed) for seed in range(2 if run.quick else 8)]
        found["fp32_small"] = against_slow_twin(small, clips[:3], TASKS[:1])
        found["this_dtype"] = against_kernels(model, clips, TASKS[:1], clip.protocol)
    if "short-clips" in names:
        clips = [short.clip(seed) for seed in range(8 if run.quick else 64)]
        found["short_clips"] = packed_rate(estimator, clips, TASKS[0], short.protocol, run.repeats, run.budget)
    if "label" in names:
        found["labelling"] = labelling_rate(
            estimator, clip.clip(), TASKS[0], clip.protocol, episodes=4 if run.quick else 64
        )
    for name, result in found.items():
        print(f"\n{name}: {json.dumps({k: v for k, v in result.items() if k != 'seconds'}, indent=1)}", flush=True)
    return found


def quantized(model: QwenVL, kind: str, run: Run) -> dict[str, Any]:
    """The same weights in 8 or 4 bits: time, memory, and how far the values move. The model stays quantized."""
    clips = [run.job(JOBS["paper"]).clip(seed) for seed in range(2 if run.quick else 8)]
    protocol = JOBS["paper"].protocol
    works = [Workload(model, clip, TASKS[:1], protocol) for clip in clips]
    before = [work.ours() for work in works]
    ways: dict[str, Callable[[], Any]] = {"floor": works[0].floor, "ours": works[0].ours}
    full = {way: median(s) for way, s in interleaved(ways, run.repeats, budget=run.budget).items()}
    weights = _weight_bytes(model)
    layers = quantize(model, kind)
    now = {way: median(s) for way, s in interleaved(ways, run.repeats, budget=run.budget).items()}
    moved = [float(np.abs(work.ours() - b).max()) for work, b in zip(works, before, strict=True)]
    result = {
        "kind": kind,
        "layers": layers,
        "weight_bytes": {"before": weights, "after": _weight_bytes(model)},
        "median": {"before": full, "after": now},
        "peak_bytes": peak_memory(works[0].ours, run.device),
        "largest_difference_per_clip": moved,
        "largest_difference_median": median(moved),
    }
    print(f"\nquantized: {json.dumps(result, indent=1)}", flush=True)
    return result


def _weight_bytes(model: QwenVL) -> int:
    return sum(t.numel() * t.element_size() for t in (*model.model.parameters(), *model.model.buffers()))


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arch", choices=list(ARCHITECTURES), default="qwen3-vl-8b")
    parser.add_argument("--device", default="cuda", help="cuda, cuda:N or cpu")
    parser.add_argument("--dtype", choices=["bfloat16", "float32"], help="default: bfloat16 on a GPU, else float32")
    parser.add_argument("--branch-kernel", choices=["dense", "grouped"], help="default: what suits the device")
    parser.add_argument("--workload", choices=[*JOBS, *OTHERS], action="append", help="only this one (may repeat)")
    parser.add_argument("--quantization", choices=["int8", "nf4"], action="append", help="measure this too, at the end")
    parser.add_argument("--repeats", type=int, default=10, help="timed runs of each way (median)")
    parser.add_argument("--budget", type=float, default=40.0, help="most seconds for the repeats of one workload")
    parser.add_argument("--quick", action="store_true", help="small clips, few repeats: shows that all works")
    parser.add_argument("--json", type=Path, help="write all figures here")
    return parser.parse_args()


@torch.inference_mode()
def main() -> None:
    chosen = options()
    if chosen.device != "cpu" and not torch.cuda.is_available():
        sys.exit(f"--device {chosen.device}: torch {torch.__version__} sees no GPU; --device cpu --arch small --quick")
    dtype = getattr(torch, chosen.dtype or ("float32" if chosen.device == "cpu" else "bfloat16"))
    model = make(chosen.arch, device=chosen.device, dtype=dtype, kernel=chosen.branch_kernel)
    run = Run(
        chosen.device,
        flops.matrix_rate(chosen.device, dtype),
        min(3, chosen.repeats) if chosen.quick else chosen.repeats,
        chosen.budget,
        chosen.quick,
    )
    parameters = sum(p.numel() for p in model.model.parameters())
    where = gpu() if chosen.device != "cpu" else None
    print(f"{chosen.arch}, random weights, {parameters / 1e9:.2f} G parameters, {dtype}; {where or 'on the CPU'}")
    print(f"a large matrix product runs at {run.rate / 1e12:.4g} TFLOP/s")
    names = chosen.workload or [*JOBS, *OTHERS]
    report: dict[str, Any] = {
        "what": "measured on a GPU" if where else "run on a CPU at reduced size: that all works, no figure of a GPU",
        "arguments": sys.argv[1:],
        "gpu": where,
        "machine": machine(),
        "architecture": {"name": chosen.arch, "parameters": parameters, "dtype": str(dtype).removeprefix("torch.")},
        "kernels": model.kernels,
        "matrix_rate": run.rate,
        "results": [],
    }

    def keep() -> None:  # after every workload: a run that is cut short leaves what it has
        if chosen.json:
            write_atomically(chosen.json, json.dumps(report, indent=1, default=str) + "\n")

    for name in names:
        if name in JOBS:
            report["results"].append(time_ways(model, name, run.job(JOBS[name]), run))
        else:
            report |= others(model, [name], run)
        keep()
    for i, kind in enumerate(chosen.quantization or []):
        if i:
            del model
            model = make(chosen.arch, device=chosen.device, dtype=dtype, kernel=chosen.branch_kernel)
        report.setdefault("quantized", []).append(quantized(model, kind, run))
        keep()


if __name__ == "__main__":
    main()
