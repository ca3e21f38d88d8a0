"""What a whole progress curve costs, against one forward over the video.

    python benchmarks/one_pass.py [--repeats 5] [--json benchmarks/results/one_pass.json]

On one random checkpoint and one clip of 64 sampled frames at 256x256, in one process, in turn:

    floor, ours, append, recompute    as benchmarks/ways.py has them, from the same prepared patches
    stock                             recompute through qwen-vl-utils and the stock processor, frames to values
Ratios are of medians.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from common import interleaved, machine, median, peak_rss_over, random_model
from topreward.config import Protocol, load_protocol
from topreward.files import write_atomically
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
FRAMES, SIDE, FPS = 64, 256, 2.0
INSTRUCTION = "pick up the cup"

WORKLOADS: dict[str, Protocol] = {
    "paper": load_protocol("paper"),
    "patches, 15": load_protocol("dense"),
    "patches, all": load_protocol("dense", num_prefixes=0),
}


def workload(model: QwenVL, protocol: Protocol) -> Workload:
    """A clip of noise, all of whose frames are sampled."""
    frames = np.random.default_rng(0).integers(0, 256, (FRAMES, SIDE, SIDE, 3), dtype=np.uint8)
    work = Workload(model, Clip.from_array(frames, FPS), [INSTRUCTION], protocol)
    assert work.schedule.indices.size == FRAMES
    return work


def measure(model: QwenVL, name: str, protocol: Protocol, repeats: int, stock: bool) -> dict[str, Any]:
    work = workload(model, protocol)
    ways: dict[str, Callable[[], NDArray[np.float64]]] = {
        "floor": work.floor,
        "ours": work.ours,
        "append": work.append,
        "recompute": work.recompute,
    }
    if stock and name == "paper":
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
            if way not in ("floor", "ours")
        },
        "peak_rss_bytes": memory,
    }
    if memory["floor"] and memory["ours"]:
        result["memory_over_floor"] = memory["ours"] / memory["floor"]
    return result


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5, help="timed runs of each way (median)")
    parser.add_argument("--workload", choices=list(WORKLOADS), action="append", help="only this one (may repeat)")
    parser.add_argument("--no-stock", action="store_true", help="leave out the off-the-shelf row")
    parser.add_argument("--json", type=Path, help="write all figures here")
    options = parser.parse_args()
    console = Console()
    with torch.inference_mode():
        model = random_model(TEXT, VISION)
        console.print(
            f"random Qwen3-VL, {sum(p.numel() for p in model.model.parameters()) / 1e6:.0f} M parameters, fp32"
        )
        results = [
            measure(model, name, protocol, options.repeats, not options.no_stock)
            for name, protocol in WORKLOADS.items()
            if not options.workload or name in options.workload
        ]
    show(results, console)
    if options.json:
        report = {"machine": machine(), "kernels": model.kernels, "text": TEXT, "vision": VISION, "results": results}
        write_atomically(options.json, json.dumps(report, indent=1) + "\n")
        console.print(f"written to {options.json}")


if __name__ == "__main__":
    main()
