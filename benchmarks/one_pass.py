"""What a whole progress curve costs, against one forward over the video.

    python benchmarks/one_pass.py [--repeats 5] [--json benchmarks/results/one_pass.json]
    python benchmarks/one_pass.py --arch hybrid [--json benchmarks/results/one_pass_hybrid.json]

On one random checkpoint and one clip of 64 sampled frames at 256x256, in one process, in turn:

    floor, ours, append, recompute    as benchmarks/ways.py has them, from the same prepared patches
    stock                             recompute through qwen-vl-utils and the stock processor, frames to values
With `--arch hybrid` it is a random Qwen3.5, whose linear layers keep states where prefixes leave the trunk. No cache of
it can be cropped, so `append` is left out; `trunk` and `decoder` time the decoder alone, and what the states take is
held against what was estimated before. Ratios are of medians.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from common import interleaved, machine, median, peak_rss_over, random_model
from topreward.config import Protocol, load_protocol
from topreward.files import write_atomically
from topreward.qwen.delta import branch_points, held_bytes
from topreward.qwen.memory import LinearLayers
from topreward.qwen.model import QwenVL
from topreward.types import Clip
from ways import Workload

TEXT = {
    "hidden_size": 512,
    "intermediate_size": 1536,
    "num_hidden_layers": 8,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 64,
}
VISION = {
    "depth": 6,
    "hidden_size": 256,
    "intermediate_size": 1024,
    "num_heads": 4,
    "deepstack_visual_indexes": [1, 3, 5],
}
# As wide and as deep, in the proportions of Qwen3.5-9B: three of four layers are linear.
HYBRID_TEXT = {
    "hidden_size": 512,
    "intermediate_size": 1536,
    "num_hidden_layers": 8,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 128,
    "linear_num_key_heads": 4,
    "linear_num_value_heads": 8,
    "linear_key_head_dim": 64,
    "linear_value_head_dim": 64,
}
HYBRID_VISION = {k: v for k, v in VISION.items() if k != "deepstack_visual_indexes"}
SIZES = {"qwen3-vl": (TEXT, VISION), "hybrid": (HYBRID_TEXT, HYBRID_VISION)}
FRAMES, SIDE, FPS = 64, 256, 2.0
INSTRUCTION = "pick up the cup"

WORKLOADS: dict[str, Protocol] = {
    "paper": load_protocol("paper"),
    "patches, 15": load_protocol("dense"),
    "patches, all": load_protocol("dense", num_prefixes=0),
}


def workload(model: QwenVL, protocol: Protocol, frames: int = FRAMES) -> Workload:
    """A clip of noise, all of whose frames are sampled."""
    noise = np.random.default_rng(0).integers(0, 256, (frames, SIDE, SIDE, 3), dtype=np.uint8)
    work = Workload(model, Clip.from_array(noise, FPS), [INSTRUCTION], protocol)
    assert work.schedule.indices.size == frames
    return work


def measure(
    model: QwenVL, name: str, protocol: Protocol, repeats: int, stock: bool, frames: int = FRAMES
) -> dict[str, Any]:
    work = workload(model, protocol, frames)
    ways: dict[str, Callable[[], Any]] = {"floor": work.floor, "ours": work.ours}
    if model.hybrid:
        ways |= {"trunk": work.trunk, "decoder": work.decoder}
        work.seen  # noqa: B018, looked at before the clock starts
    else:
        ways["append"] = work.append
    ways["recompute"] = work.recompute
    if stock and name == "paper" and not model.hybrid:
        from stock import stock_values

        ways["stock"] = lambda: stock_values(work)
    seconds = interleaved(ways, repeats)
    ours = work.ours()
    memory = {way: peak_rss_over(ways[way]) for way in ("floor", "ours")}
    floor = median(seconds["floor"])
    result: dict[str, Any] = {
        "workload": name,
        "prefixes": len(work.schedule.prefix_lengths),
        "distinct": len(work.counts),
        "odd": len(work.layout.odd_counts),
        "trunk_tokens": len(work.layout.trunk),
        "branch_tokens": len(work.layout.branch),
        "seconds": seconds,
        "median": {way: median(s) for way, s in seconds.items()},
        "over_floor": {way: median(s) / floor for way, s in seconds.items()},
        "over_ours": {way: median(s) / median(seconds["ours"]) for way, s in seconds.items()},
        "largest_difference": {
            way: float(np.abs(ways[way]().reshape(ours.shape) - ours).max())
            for way in ways
            if way not in ("floor", "ours", "trunk")
        },
        "peak_rss_bytes": memory,
    }
    if memory["floor"] and memory["ours"]:
        result["memory_over_floor"] = memory["ours"] / memory["floor"]
    if model.hybrid:
        result["decoder_over_trunk"] = result["median"]["decoder"] / result["median"]["trunk"]
        result["states"] = states(work)
    return result


def states(work: Workload) -> dict[str, float]:
    """Bytes of the linear layers' states at all branch points: what is held, and what was estimated."""
    points = len(branch_points(work.layout.branches))
    held = held_bytes(work.model.prefill(work.layout, work.seen[0]).states)
    estimated = points * LinearLayers.of(work.model.model).state_bytes
    return {"points": points, "held": held, "estimated": estimated, "held_over_estimated": held / estimated}


def show(results: list[dict[str, Any]], console: Console) -> None:
    table = Table("workload", "way", "median s", "x floor", "x ours", "max |diff| nats", "peak MB")
    for r in results:
        for way, seconds in r["median"].items():
            difference = r["largest_difference"].get(way)
            memory = r["peak_rss_bytes"].get(way)
            table.add_row(
                f"{r['workload']} ({r['distinct']} prefixes)" if way == "floor" else "",
                way,
                f"{seconds:.3f}",
                f"{r['over_floor'][way]:.2f}",
                f"{r['over_ours'][way]:.2f}",
                "" if difference is None else f"{difference:.1e}",
                "" if memory is None else f"{memory / 2**20:.0f}",
                end_section=way == list(r["median"])[-1],
            )
    console.print(table)
    for r in results:
        if "states" in r:
            held = r["states"]
            console.print(
                f"{r['workload']}: passes over the decoder {r['decoder_over_trunk']:.2f} x a plain forward over the "
                f"trunk; {held['points']} states take {held['held'] / 2**20:.1f} MiB, "
                f"{held['held_over_estimated']:.3f} x the estimate"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arch", choices=list(SIZES), default="qwen3-vl", help="hybrid: a random Qwen3.5")
    parser.add_argument("--frames", type=int, default=FRAMES, help="sampled frames of the clip")
    parser.add_argument("--repeats", type=int, default=5, help="timed runs of each way (median)")
    parser.add_argument("--workload", choices=list(WORKLOADS), action="append", help="only this one (may repeat)")
    parser.add_argument("--no-stock", action="store_true", help="leave out the off-the-shelf row")
    parser.add_argument("--json", type=Path, help="write all figures here")
    options = parser.parse_args()
    console = Console()
    text, vision = SIZES[options.arch]
    with torch.inference_mode():
        model = random_model(text, vision)
        parameters = sum(p.numel() for p in model.model.parameters())
        console.print(f"random {'Qwen3.5' if model.hybrid else 'Qwen3-VL'}, {parameters / 1e6:.0f} M parameters, fp32")
        results = [
            measure(model, name, protocol, options.repeats, not options.no_stock, options.frames)
            for name, protocol in WORKLOADS.items()
            if not options.workload or name in options.workload
        ]
    show(results, console)
    if options.json:
        report = {
            "machine": machine(),
            "kernels": model.kernels,
            "architecture": options.arch,
            "parameters": parameters,
            "frames": options.frames,
            "text": text,
            "vision": vision,
            "results": results,
        }
        write_atomically(options.json, json.dumps(report, indent=1) + "\n")
        console.print(f"written to {options.json}")


if __name__ == "__main__":
    main()
